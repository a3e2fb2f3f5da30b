"""Value by value: activations, and the noise of training."""

from __future__ import annotations

from operator import mul
from typing import TYPE_CHECKING

from lanewise.bridge.draft import Draft, Read
from lanewise.net import layers as kinds
from lanewise.net.graph import Node

if TYPE_CHECKING:
    from torch import fx, nn


def relu(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    return draft.module(node.name, nn.ReLU(), read[0])


def leaky_relu(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    assert isinstance(node.layer, kinds.LeakyReLU)
    return draft.module(node.name, nn.LeakyReLU(node.layer.slope), read[0])


def relu6(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    return draft.module(node.name, nn.ReLU6(), read[0])


def elu(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    assert isinstance(node.layer, kinds.ELU)
    return draft.module(node.name, nn.ELU(node.layer.alpha), read[0])


def silu(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    return draft.module(node.name, nn.SiLU(), read[0])


def gelu(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    return draft.module(node.name, nn.GELU(), read[0])


def tanh(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    return draft.module(node.name, nn.Tanh(), read[0])


def sigmoid(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    return draft.module(node.name, nn.Sigmoid(), read[0])


def hard_sigmoid(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    return draft.module(node.name, nn.Hardsigmoid(), read[0])


def hard_swish(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    return draft.module(node.name, nn.Hardswish(), read[0])


def prelu(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    value, shape = read
    assert isinstance(node.layer, kinds.PReLU)
    return draft.module(node.name, nn.PReLU(shape[0] if node.layer.per_channel else 1), value)


def dropout(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    return _noise(draft, node, read, nn.Dropout(_rate(node)))


def spatial_dropout(draft: Draft, node: Node, read: Read) -> fx.Node:
    """Of flat features each one is a channel."""
    from torch import nn

    maps = len(read[1]) == 3
    return _noise(draft, node, read, (nn.Dropout2d if maps else nn.Dropout)(_rate(node)))


def stochastic_depth(draft: Draft, node: Node, read: Read) -> fx.Node:
    from lanewise.bridge.torch_layers import StochasticDepth

    return _noise(draft, node, read, StochasticDepth(_rate(node)))


def _rate(node: Node) -> float:
    assert isinstance(node.layer, kinds.Noise)
    return node.layer.rate


def _noise(draft: Draft, node: Node, read: Read, module: nn.Module) -> fx.Node:
    """The module with its own dice, or the factors that the caller gives."""
    if draft.dropout_mask is None:
        return draft.module(node.name, module, read[0])
    return draft.call(mul, read[0], draft.ask(draft.dropout_mask, node.name))
