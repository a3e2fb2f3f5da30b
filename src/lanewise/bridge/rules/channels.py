"""What moves or mixes channels and features: reordering, cutting, growing, full connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lanewise.bridge.draft import Draft, Read
from lanewise.net import layers as kinds
from lanewise.net.graph import Node

if TYPE_CHECKING:
    from torch import fx


def flatten(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    return draft.module(node.name, nn.Flatten(), read[0])


def linear(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    value, shape = read
    layer = node.layer
    assert isinstance(layer, kinds.Linear)
    return draft.module(node.name, nn.Linear(shape[0], layer.features, bias=layer.bias), value)


def radial_basis(draft: Draft, node: Node, read: Read) -> fx.Node:
    from lanewise.bridge.torch_layers import RadialBasis
    from lanewise.net.codes import radial_codes

    value, shape = read
    assert isinstance(node.layer, kinds.RadialBasis)
    return draft.module(node.name, RadialBasis(radial_codes(node.layer.features, shape[0])), value)


def shuffle(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    assert isinstance(node.layer, kinds.ChannelShuffle)
    return draft.module(node.name, nn.ChannelShuffle(node.layer.groups), read[0])


def split(draft: Draft, node: Node, read: Read) -> fx.Node:
    """`torch.narrow` along the channels."""
    import torch

    value, shape = read
    layer = node.layer
    assert isinstance(layer, kinds.ChannelSplit)
    channels = shape[0] // layer.of
    return draft.call(torch.narrow, value, 1, (layer.part - 1) * channels, channels)


def pad(draft: Draft, node: Node, read: Read) -> fx.Node:
    """Zeros on the outermost axis: the last pair of torch's pads, behind those of W and H."""
    from torch import nn

    value, shape = read
    layer = node.layer
    assert isinstance(layer, kinds.ChannelPad)
    sides = (layer.before, layer.after)
    if len(shape) == 1:
        return draft.module(node.name, nn.ConstantPad1d(sides, 0.0), value)
    return draft.module(node.name, nn.ConstantPad3d((0, 0, 0, 0, *sides), 0.0), value)


def upsample(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    layer = node.layer
    assert isinstance(layer, kinds.Upsample)
    if layer.bilinear:
        twin = nn.Upsample(scale_factor=layer.scale, mode="bilinear", align_corners=False)
    else:
        twin = nn.Upsample(scale_factor=layer.scale, mode="nearest")
    return draft.module(node.name, twin, read[0])
