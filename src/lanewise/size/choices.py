"""All numbers that can stand for the `?` of one layer over one map, by the size that they give.

Kernels, paddings and dilations are counted through within their bounds; the strides for each come
as intervals (`inverse`). Height and width are solved apart, then those are joined that agree in
what both share: `k ?` is one number, `k ?x?` are two.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

from lanewise.net.layers import NO_PAD, Pool, TransposedConv
from lanewise.net.unknown import Unknown, unknowns_of
from lanewise.size.axis import extent
from lanewise.size.bounds import Bounds
from lanewise.size.inverse import ceil_strides, strides
from lanewise.size.windows import Windowed

# A number of the text, or one to be found.
Cell: TypeAlias = "int | Unknown"
Numbers: TypeAlias = tuple[int, ...]
# Which sizes are worth looking for along height and width; None: any.
Wished: TypeAlias = "tuple[frozenset[int] | None, frozenset[int] | None]"
ANY: Wished = (None, None)
# Possibilities at one layer: beyond that the question is another one.
MOST = 500_000
# Fewer wished sizes than this are solved for; for more, every stride is tried.
_FEW = 6


_Found = TypeVar("_Found")


class TooMany(Exception):
    """More than `MOST` possibilities for one layer."""


@dataclass(frozen=True)
class Line:
    """A layer along one axis. `begin` is None where `pad same` says the padding."""

    kernel: Cell
    stride: Cell
    begin: Cell | None
    end: Cell
    dilation: Cell
    output_pad: Cell = 0
    ceil: bool = False
    pool: bool = False
    transposed: bool = False
    unknowns: tuple[Unknown, ...] = field(default=(), compare=False)


@lru_cache(maxsize=4096)
def choices(
    layer: Windowed | TransposedConv, size: tuple[int, int], bounds: Bounds, wished: Wished = ANY
) -> dict[tuple[int, int], tuple[Numbers, ...]]:
    """Output (height, width) → what can stand for the layer's `?` over a map of this size, in the
    order of `window_unknowns`."""
    names = window_unknowns(layer)
    height, width = line(layer, 0), line(layer, 1)
    found: dict[tuple[int, int], list[Numbers]] = {}
    if size[0] == size[1] and wished[0] == wished[1] and height == width:
        for numbers, out in _limited(_solutions(height, size[0], bounds, wished[0])):
            found.setdefault((out, out), []).append(numbers)
    else:
        for numbers, both in _limited(_joined(names, height, width, size, bounds, wished)):
            found.setdefault(both, []).append(numbers)
    return {out: tuple(group) for out, group in found.items()}


def _limited(found: Iterator[_Found]) -> Iterator[_Found]:
    for number, one in enumerate(found):
        if number >= MOST:
            raise TooMany
        yield one


@lru_cache(maxsize=1024)
def window_unknowns(layer: Any) -> tuple[Unknown, ...]:
    """The `?` that say how a layer's window moves."""
    counts = ("kernels", "features")
    return tuple(one for one in unknowns_of(layer) if one.field_name not in counts)


@lru_cache(maxsize=4096)
def line(layer: Windowed | TransposedConv, axis: int) -> Line:
    """The layer along height (0) or width (1)."""
    pool, transposed = isinstance(layer, Pool), isinstance(layer, TransposedConv)
    begin, end = (None, 0) if layer.pad == "same" else _pad(layer.pad)[axis]
    cells: dict[str, Any] = {
        "kernel": layer.kernel[axis],
        "stride": layer.stride[axis],
        "begin": begin,
        "end": end,
        "dilation": 1 if isinstance(layer, Pool) else layer.dilation[axis],
        "output_pad": layer.output_pad[axis] if isinstance(layer, TransposedConv) else 0,
    }
    own = set(cells.values())
    return Line(
        **cells,
        ceil=isinstance(layer, Pool) and layer.ceil,
        pool=pool,
        transposed=transposed,
        unknowns=tuple(one for one in window_unknowns(layer) if one in own),
    )


def _pad(pad: Any) -> Any:
    return NO_PAD if pad == "valid" else pad


def _joined(
    names: tuple[Unknown, ...],
    height: Line,
    width: Line,
    size: tuple[int, int],
    bounds: Bounds,
    wished: Wished,
) -> Iterator[tuple[Numbers, tuple[int, int]]]:
    """Solutions of both axes that agree in the numbers they share."""
    shared = [one for one in names if one in height.unknowns and one in width.unknowns]
    beside: dict[Numbers, list[tuple[dict[Unknown, int], int]]] = {}
    for numbers, out in _limited(_solutions(width, size[1], bounds, wished[1])):
        known = dict(zip(width.unknowns, numbers, strict=True))
        beside.setdefault(tuple(known[one] for one in shared), []).append((known, out))
    for numbers, out in _solutions(height, size[0], bounds, wished[0]):
        known = dict(zip(height.unknowns, numbers, strict=True))
        for other, across in beside.get(tuple(known[one] for one in shared), ()):
            both = {**other, **known}
            yield tuple(both[one] for one in names), (out, across)


def _solutions(
    line: Line, n: int, bounds: Bounds, wished: Collection[int] | None
) -> Iterator[tuple[Numbers, int]]:
    """(a number for each `?` of the axis, output size), every one within the bounds."""
    solve = _transposed if line.transposed else _forward
    places = [_PLACES.index(name) for name in map(_place_of(line), line.unknowns)]
    for numbers, out in solve(line, n, bounds, wished):
        yield tuple(numbers[place] for place in places), out


_PLACES = ("kernel", "stride", "begin", "end", "dilation", "output_pad")


def _place_of(line: Line) -> Any:
    """`?` → the first cell in which it stands."""
    return lambda one: next(name for name in _PLACES if getattr(line, name) == one)


def _windows(line: Line, n: int, bounds: Bounds) -> Iterator[tuple[int, int, int, int, int]]:
    """(kernel, dilation, extent, begin, end); with `pad same` no padding is said."""
    most = bounds.extent(n)
    for kernel in _range(line.kernel, 1, most):
        dilations = _range(line.dilation, 1, (most - 1) // (kernel - 1) if kernel > 1 else 1)
        for dilation in dilations:
            reach = extent(kernel, dilation)
            if reach > most and (line.kernel, line.dilation) != (kernel, dilation):
                continue
            if line.begin is None:
                yield kernel, dilation, reach, 0, 0
                continue
            for begin, end in _pads(line, bounds.pad(reach, line.pool)):
                if not line.pool or 2 * max(begin, end) <= kernel:
                    yield kernel, dilation, reach, begin, end


def _range(cell: Cell, first: int, last: int) -> Collection[int]:
    return range(first, last + 1) if isinstance(cell, Unknown) else (cell,)


def _pads(line: Line, most: int) -> Iterator[tuple[int, int]]:
    assert line.begin is not None
    for begin in _range(line.begin, 0, most):
        for end in (begin,) if line.end == line.begin else _range(line.end, 0, most):
            yield begin, end


def _forward(
    line: Line, n: int, bounds: Bounds, wished: Collection[int] | None
) -> Iterator[tuple[Numbers, int]]:
    most = bounds.stride(n)
    for kernel, dilation, reach, begin, end in _windows(line, n, bounds):
        # `same` makes ⌈n/s⌉ = ⌊(n − 1)/s⌋ + 1 whatever the kernel.
        free = n - 1 if line.begin is None else n + begin + end - reach
        if line.stride == line.kernel:
            steps: Collection[int] | None = (kernel,)
        else:
            steps = None if isinstance(line.stride, Unknown) else (line.stride,)
        ceil = line.ceil and line.begin is not None
        for stride, out in _steps(n, begin, free, steps, most, ceil, wished):
            yield (kernel, stride, begin, end, dilation, 0), out


def _steps(
    n: int,
    begin: int,
    free: int,
    steps: Collection[int] | None,
    most: int,
    ceil: bool,
    wished: Collection[int] | None,
) -> Iterator[tuple[int, int]]:
    """(stride, output size): those of `steps`, or any up to `most`."""
    if free < 0 and not ceil:
        return
    if steps is None and wished is not None and len(wished) <= _FEW:
        for out in wished:
            if out >= 1:
                found = (
                    ceil_strides(n, begin, free, out, most) if ceil else strides(free, out, most)
                )
                for stride in found:
                    yield stride, out
        return
    for stride in range(1, most + 1) if steps is None else steps:
        out = _count(n, begin, free, stride, ceil)
        if out >= 1 and (wished is None or out in wished):
            yield stride, out


def _count(n: int, begin: int, free: int, stride: int, ceil: bool) -> int:
    """The number of windows (`axis.Axis.out`, without making one)."""
    if not ceil:
        return free // stride + 1
    return min(-(-free // stride) + 1, -(-(n + begin) // stride))


def _transposed(
    line: Line, n: int, bounds: Bounds, wished: Collection[int] | None
) -> Iterator[tuple[Numbers, int]]:
    """The same where maps grow: (n − 1)·s + K + outputpad − begin − end."""
    for kernel, dilation, reach, begin, end in _windows(line, n, bounds):
        for stride in _range(line.stride, 1, bounds.stride(n)):
            for longer in _range(line.output_pad, 0, max(stride, dilation) - 1):
                out = (n - 1) * stride + reach + longer - begin - end
                if (
                    out >= 1
                    and longer < max(stride, dilation)
                    and (wished is None or out in wished)
                ):
                    yield (kernel, stride, begin, end, dilation, longer), out
