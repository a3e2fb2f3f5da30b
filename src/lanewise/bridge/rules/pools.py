"""Pools: over windows, over parts of a map that are made to fit, over whole maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lanewise.bridge.draft import Draft, Read
from lanewise.bridge.rules import windows
from lanewise.net import layers as kinds
from lanewise.net.graph import Node
from lanewise.size.shapes import Shape, Window, resolve_window

if TYPE_CHECKING:
    import torch
    from torch import fx, nn


def max_pool(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    return _pooled(draft, node, read, nn.MaxPool2d, float("-inf"))


def avg_pool(draft: Draft, node: Node, read: Read) -> fx.Node:
    """Where windows reach beyond pads that torch's mean does not know: the sum, divided by what
    each window counts."""
    from functools import partial

    from torch import nn

    layer, window = _window(node, read[1])
    assert isinstance(layer, kinds.AvgPool)
    if windows.even(window):
        make = partial(nn.AvgPool2d, count_include_pad=not layer.unpadded)
        return _pooled(draft, node, read, make, 0.0)
    if not layer.unpadded and not any(axis.overhang for axis in window.axes):
        return _pooled(draft, node, read, nn.AvgPool2d, 0.0)
    total = sum_pool(draft, node, read)
    return draft.call(window_mean, total, *(axis.counted(layer.unpadded) for axis in window.axes))


def sum_pool(draft: Draft, node: Node, read: Read) -> fx.Node:
    from lanewise.bridge.torch_layers import SumPool2d

    return _pooled(draft, node, read, SumPool2d, 0.0)


def l2_pool(draft: Draft, node: Node, read: Read) -> fx.Node:
    from lanewise.bridge.torch_layers import L2Pool2d

    return _pooled(draft, node, read, L2Pool2d, 0.0)


def subsample(draft: Draft, node: Node, read: Read) -> fx.Node:
    from functools import partial

    from lanewise.bridge.torch_layers import Subsample2d

    return _pooled(draft, node, read, partial(Subsample2d, read[1][0]), 0.0)


def _pooled(
    draft: Draft, node: Node, read: Read, make: Callable[..., nn.Module], fill: float
) -> fx.Node:
    """make(kernel, stride, padding=…, ceil_mode=…) on the value, or on the value padded."""
    value, shape = read
    layer, window = _window(node, shape)
    if windows.even(window):
        pad = windows.starts(window)
        pool = make(layer.kernel, layer.stride, padding=pad, ceil_mode=layer.ceil)
        return draft.module(node.name, pool, value)
    value = windows.padded(draft, node, windows.exact_sides(window), fill, value)
    return draft.module(node.name, make(layer.kernel, layer.stride), value)


def _window(node: Node, shape: Shape) -> tuple[kinds.Pool, Window]:
    assert isinstance(node.layer, kinds.Pool)
    return node.layer, resolve_window(node.layer, shape)


def window_mean(
    total: torch.Tensor, heights: tuple[int, ...], widths: tuple[int, ...]
) -> torch.Tensor:
    """Sums N×C×P×Q → means, where window (p, q) counts heights[p]·widths[q] positions."""
    import torch

    counts = torch.outer(torch.tensor(heights), torch.tensor(widths))
    return total / counts.to(total.dtype)


def adaptive_max(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    assert isinstance(node.layer, kinds.AdaptiveMax)
    return draft.module(node.name, nn.AdaptiveMaxPool2d(node.layer.size), read[0])


def adaptive_avg(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    assert isinstance(node.layer, kinds.AdaptiveAvg)
    return draft.module(node.name, nn.AdaptiveAvgPool2d(node.layer.size), read[0])


def global_max(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    return draft.module(node.name, nn.AdaptiveMaxPool2d(1), read[0])


def global_avg(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    return draft.module(node.name, nn.AdaptiveAvgPool2d(1), read[0])


def global_sum(draft: Draft, node: Node, read: Read) -> fx.Node:
    import torch

    return draft.call(torch.sum, read[0], (2, 3), True)
