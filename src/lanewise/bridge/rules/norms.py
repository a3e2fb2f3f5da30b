"""Normalisations, and the trained scale of a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lanewise.bridge.draft import Draft, Read
from lanewise.net import layers as kinds
from lanewise.net.graph import Node

if TYPE_CHECKING:
    from torch import fx


def batch_norm(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    from lanewise.bridge.torch_layers import GhostBatchNorm

    value, shape = read
    layer = node.layer
    assert isinstance(layer, kinds.BatchNorm)
    options: dict[str, Any] = {
        "eps": layer.eps,
        "momentum": layer.momentum,
        "affine": layer.affine,
    }
    if layer.ghost:
        return draft.module(node.name, GhostBatchNorm(shape[0], layer.ghost, **options), value)
    twin = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
    return draft.module(node.name, twin(shape[0], **options), value)


def layer_norm(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    from lanewise.bridge.torch_layers import ChannelLayerNorm

    value, shape = read
    assert isinstance(node.layer, kinds.LayerNorm)
    twin = ChannelLayerNorm if len(shape) == 3 else nn.LayerNorm
    return draft.module(node.name, twin(shape[0], eps=node.layer.eps), value)


def group_norm(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    value, shape = read
    layer = node.layer
    assert isinstance(layer, kinds.GroupNorm)
    return draft.module(node.name, nn.GroupNorm(layer.groups, shape[0], layer.eps), value)


def local_response_norm(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    layer = node.layer
    assert isinstance(layer, kinds.LocalResponseNorm)
    twin = nn.LocalResponseNorm(layer.size, layer.alpha, layer.beta, layer.constant)
    return draft.module(node.name, twin, read[0])


def channel_scale(draft: Draft, node: Node, read: Read) -> fx.Node:
    from lanewise.bridge.torch_layers import ChannelScale

    value, shape = read
    assert isinstance(node.layer, kinds.ChannelScale)
    return draft.module(node.name, ChannelScale(shape[0], node.layer.initial), value)
