"""What windows need in torch: pads that differ at the two ends of an axis do not exist in its
layers, so they become an explicit padding (−∞ before a max pool) in front of an unpadded layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lanewise.bridge.draft import Draft
from lanewise.net import layers as kinds
from lanewise.net.graph import Node
from lanewise.size.shapes import Window

if TYPE_CHECKING:
    from torch import fx


def even(window: Window) -> bool:
    """Whether both ends of each axis have the same pad, as torch's layers want it."""
    return all(begin == end for begin, end in window.pad)


def starts(window: Window) -> tuple[int, int]:
    """The pads at the top and at the left."""
    (top, _), (left, _) = window.pad
    return top, left


def exact_sides(window: Window) -> kinds.Sides:
    """Pads that end each axis where its last window ends; negative where rows stay unread."""
    height, width = ((axis.begin, axis.end + axis.overhang - axis.unread) for axis in window.axes)
    return height, width


def padded(
    draft: Draft, node: Node, pad: kinds.Sides, fill: float, value: fx.Node, word: str = "pad"
) -> fx.Node:
    """The value with `fill` around it, or with a border cut off where the pads are negative."""
    from torch import nn

    (top, bottom), (left, right) = pad
    if not any((top, bottom, left, right)):
        return value
    layer = nn.ConstantPad2d((left, right, top, bottom), fill)
    return draft.module(f"{node.name}_{word}", layer, value)
