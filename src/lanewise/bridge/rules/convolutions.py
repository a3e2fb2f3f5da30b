"""Convolutions of all four kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lanewise.bridge.draft import Draft, Read
from lanewise.bridge.rules import windows
from lanewise.net import layers as kinds
from lanewise.net.graph import Node
from lanewise.size.shapes import resolve_window

if TYPE_CHECKING:
    from torch import fx


def conv(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    layer = node.layer
    assert isinstance(layer, kinds.Conv)
    value, options = _window(draft, node, read)
    options |= {"groups": layer.groups, "bias": layer.bias}
    return draft.module(
        node.name, nn.Conv2d(read[1][0], layer.kernels, layer.kernel, **options), value
    )


def depthwise(draft: Draft, node: Node, read: Read) -> fx.Node:
    """In torch: as many groups as channels."""
    from torch import nn

    layer, channels = node.layer, read[1][0]
    assert isinstance(layer, kinds.DepthwiseConv)
    value, options = _window(draft, node, read)
    options |= {"groups": channels, "bias": layer.bias}
    twin = nn.Conv2d(channels, channels * layer.multiplier, layer.kernel, **options)
    return draft.module(node.name, twin, value)


def partial(draft: Draft, node: Node, read: Read) -> fx.Node:
    from lanewise.bridge.torch_layers import PartialConv2d

    layer = node.layer
    assert isinstance(layer, kinds.PartialConv)
    value, options = _window(draft, node, read)
    twin = PartialConv2d(read[1][0], layer.table, layer.kernel, layer.bias, **options)
    return draft.module(node.name, twin, value)


def _window(draft: Draft, node: Node, read: Read) -> tuple[fx.Node, dict[str, Any]]:
    """(the value to convolve, torch's words for stride, padding and dilation)."""
    value, shape = read
    layer = node.layer
    assert isinstance(layer, kinds.Conv | kinds.DepthwiseConv | kinds.PartialConv)
    window = resolve_window(layer, shape)
    even = windows.even(window)
    if not even:
        value = windows.padded(draft, node, window.pad, 0.0, value)
    padding = windows.starts(window) if even else (0, 0)
    return value, {"stride": layer.stride, "padding": padding, "dilation": layer.dilation}


def transposed(draft: Draft, node: Node, read: Read) -> fx.Node:
    """Pads that differ are cut off the whole output."""
    from torch import nn

    value, shape = read
    layer = node.layer
    assert isinstance(layer, kinds.TransposedConv)
    (top, bottom), (left, right) = layer.pad
    even = top == bottom and left == right
    twin = nn.ConvTranspose2d(
        shape[0],
        layer.kernels,
        layer.kernel,
        stride=layer.stride,
        padding=(top, left) if even else 0,
        output_padding=layer.output_pad,
        dilation=layer.dilation,
        groups=layer.groups,
        bias=layer.bias,
    )
    value = draft.module(node.name, twin, value)
    if even:
        return value
    return windows.padded(draft, node, ((-top, -bottom), (-left, -right)), 0.0, value, "cut")
