"""The choices for a layer in the order in which people would make them, and why.

What is usual of a window along one axis is said by `usual`; here that is applied to a layer's `?`
over a map of two axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from typing import Any

from lanewise.net.graph import Graph, Node
from lanewise.net.unknown import Unknown, unknowns_of
from lanewise.size.axis import same_pad
from lanewise.size.choices import Line, Numbers, line, window_unknowns
from lanewise.size.usual import Step, points, reasons, step


def ranked(
    layer: Any, options: list[Numbers], size: tuple[int, int]
) -> tuple[tuple[int, Numbers], ...]:
    """The options with their points, the most usual first; of two axes the less usual counts."""
    names = window_unknowns(layer)
    rankers = [_ranker(line(layer, axis), names, size[axis]) for axis in (0, 1)]
    if size[0] == size[1] and line(layer, 0) == line(layer, 1):
        del rankers[1]
    return tuple(sorted((max(rank(one) for rank in rankers), one) for one in options))


def _ranker(along: Line, names: tuple[Unknown, ...], n: int) -> Callable[[Numbers], int]:
    """Numbers for the `?`s → points along one axis."""

    def reader(cell: Any) -> Callable[[Numbers], int]:
        if isinstance(cell, Unknown):
            return itemgetter(names.index(cell))
        return lambda numbers: cell

    kernel, stride, begin, end, dilation = map(
        reader, (along.kernel, along.stride, along.begin, along.end, along.dilation)
    )
    same, pool, transposed = along.begin is None, along.pool, along.transposed

    def rank(numbers: Numbers) -> int:
        k, s, d = kernel(numbers), stride(numbers), dilation(numbers)
        pad = same_pad(n, k, s, d) if same else (begin(numbers), end(numbers))
        return points(step(n, k, s, pad, d, pool=pool, transposed=transposed))

    return rank


def _step(layer: Any, axis: int, n: int) -> Step:
    """The window of a layer without `?` along an axis."""
    cells: Any = line(layer, axis)
    pad = (cells.begin, cells.end)
    if cells.begin is None:
        pad = same_pad(n, cells.kernel, cells.stride, cells.dilation)
    return step(
        n,
        cells.kernel,
        cells.stride,
        pad,
        cells.dilation,
        pool=cells.pool,
        transposed=cells.transposed,
    )


def reasons_of(node: Node, solved: Graph, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    layer = solved.node(node.name).layer
    fields = frozenset(one.field_name for one in unknowns_of(node.layer))
    in_shape = shapes[node.inputs[0]]
    height = list(reasons(_step(layer, 0, in_shape[1]), fields))
    width = list(reasons(_step(layer, 1, in_shape[2]), fields))
    yield from height
    yield from (reason for reason in width if reason not in height)


def rule_text(along: Line, n: int) -> str:
    """`⌊(224 + 2·p − 7)/s⌋ + 1 ≥ 1`: what the numbers must satisfy, letters for `?`."""
    kernel = _letter(along.kernel, "k")
    stride = kernel if along.stride == along.kernel else _letter(along.stride, "s")
    reach = kernel if along.dilation == 1 else f"{_letter(along.dilation, 'd')}·({kernel} − 1) − 1"
    if along.begin is None:
        return f"⌈{n}/{stride}⌉ ≥ 1 (pad same, whatever the kernel)"
    begin, end = _letter(along.begin, "p"), _letter(along.end, "q")
    pad = f"2·{begin}" if along.begin == along.end else f"{begin} + {end}"
    if along.transposed:
        longer = "" if along.output_pad == 0 else f" + {_letter(along.output_pad, 'o')}"
        return f"({n} − 1)·{stride} + {reach} − {pad}{longer} ≥ 1"
    left, right = "⌈⌉" if along.ceil else "⌊⌋"
    return f"{left}({n} + {pad} − {reach})/{stride}{right} + 1 ≥ 1"


def _letter(cell: Any, name: str) -> str:
    return name if isinstance(cell, Unknown) else str(cell)
