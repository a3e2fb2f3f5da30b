"""Which heights and widths of a layer's output can still lead to what is wanted behind it.

One axis at a time, backwards from the wants: a size stays if the next layer makes of it a size that
stays. What two axes must satisfy together is not asked here, so a size that stays may yet lead
nowhere; one that leaves cannot be in any solution.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from lanewise.net.graph import Graph, Node
from lanewise.net.layers import (
    CONVOLUTIONS,
    WINDOW_POOLS,
    AdaptivePool,
    Add,
    Flatten,
    GlobalAvg,
    GlobalMax,
    GlobalSum,
    Input,
    Linear,
    Multiply,
    RadialBasis,
    TransposedConv,
    Upsample,
)
from lanewise.size.axis import Axis, same_pad, transposed_size
from lanewise.size.bounds import Bounds
from lanewise.size.choices import Line, Wished, line, window_unknowns

Sizes: TypeAlias = "frozenset[int] | None"

# Larger maps are not looked through size by size.
_LARGEST = 4096
_FLAT = (Flatten, Linear, RadialBasis)
_ONE_SIZE = (AdaptivePool, GlobalAvg, GlobalMax, GlobalSum)


def reachable(graph: Graph, bounds: Bounds) -> dict[str, Wished]:
    """Node name → the heights and widths worth looking for, None where any is."""
    height, width = (_axis(graph, bounds, axis) for axis in (0, 1))
    return {node.name: (height.get(node.name), width.get(node.name)) for node in graph.nodes}


def _axis(graph: Graph, bounds: Bounds, axis: int) -> dict[str, Sizes]:
    most = _largest(graph, bounds, axis)
    stays: dict[str, Sizes] = {}
    for want in graph.wants:
        if len(want.shape) == 3 and want.shape[axis + 1] is not None:
            number = want.shape[axis + 1]
            assert number is not None
            stays[want.name] = _both(stays.get(want.name), frozenset([number]))
    for node in reversed(graph.nodes):
        before = _before(node, stays.get(node.name), axis, most)
        for name in node.inputs:
            stays[name] = _both(stays.get(name), before(name))
    return stays


def _moves(layer: Any) -> bool:
    return isinstance(layer, (*CONVOLUTIONS, *WINDOW_POOLS))


def _both(one: Sizes, other: Sizes) -> Sizes:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _before(node: Node, sizes: Sizes, axis: int, most: dict[str, int]) -> Any:
    """Input name → its sizes of which the layer makes one of `sizes`."""
    layer: Any = node.layer
    if sizes is None or isinstance(layer, (*_FLAT, *_ONE_SIZE, Input)) or window_unknowns(layer):
        return lambda name: None
    if isinstance(layer, (Add, Multiply)):
        return lambda name: sizes | {1}
    if isinstance(layer, Upsample):
        return lambda name: frozenset(n // layer.scale[axis] for n in sizes)
    if not _moves(layer):
        return lambda name: sizes
    along = line(layer, axis)

    def preimage(name: str) -> Sizes:
        if most[name] > _LARGEST:
            return None
        return frozenset(n for n in range(1, most[name] + 1) if _out(along, n) in sizes)

    return preimage


def _out(along: Line, n: int) -> int:
    """The output size of a known layer."""
    cells: Any = along
    if along.transposed:
        pad = (cells.begin, cells.end)
        return transposed_size(n, cells.kernel, cells.stride, pad, cells.dilation, cells.output_pad)
    if cells.begin is None:
        begin, end = same_pad(n, cells.kernel, cells.stride, cells.dilation)
    else:
        begin, end = cells.begin, cells.end
    return Axis(n, cells.kernel, cells.stride, begin, end, cells.dilation, cells.ceil).out


def _largest(graph: Graph, bounds: Bounds, axis: int) -> dict[str, int]:
    """Node name → a size that its output cannot exceed, whatever stands for the `?`."""
    most: dict[str, int] = {}
    for node in graph.nodes:
        layer: Any = node.layer
        before = max((most[name] for name in node.inputs), default=0)
        if isinstance(layer, Input):
            most[node.name] = (layer.height, layer.width)[axis]
        elif _moves(layer):
            most[node.name] = _grown(layer, before, bounds, axis)
        elif isinstance(layer, AdaptivePool):
            most[node.name] = layer.size[axis]
        elif isinstance(layer, Upsample):
            most[node.name] = before * layer.scale[axis]
        else:
            most[node.name] = max(1, before)
    return most


def _grown(layer: Any, n: int, bounds: Bounds, axis: int) -> int:
    if not window_unknowns(layer):
        along = line(layer, axis)
        largest = _out(along, n) if not along.ceil else n + 2 * along.kernel  # type: ignore
        return max(1, largest, n if along.begin is None else 0)
    if isinstance(layer, TransposedConv):
        return _LARGEST + 1
    along = line(layer, axis)
    pads = [cell for cell in (along.begin, along.end) if isinstance(cell, int)]
    return n + 2 * (bounds.extent(n) + max(pads, default=0))
