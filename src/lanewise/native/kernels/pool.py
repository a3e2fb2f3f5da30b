"""Pooling: windows and whole maps, the largest, the sum and the mean; forward and gradients.

    y[c,p,q]  = max or Σ over the window of (p, q) of x[c, p·stride + r − pad, q·stride + s − pad]
    dx[c,h,w] = Σ over the windows that contain (h, w) of dy[c,p,q], for max only where (h, w) is
                the window's argument: the tap r·S + s of its first maximum

Gradients gather: every input pixel is written exactly once. Small windows are unrolled in tiles of
pixels whose pattern of taps is known, large ones are loops over tables (`windows.py`); the
kernels do not see the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lanewise.native.kernels.conv import blocks
from lanewise.native.kernels.functions import is_positive, keep_where, number, rectified
from lanewise.native.kernels.taps import Taps
from lanewise.native.kernels.windows import WIDEST, Meeting, Tile, tiles
from lanewise.native.nest import (
    LANES,
    Buffer,
    Constant,
    FromIndex,
    IndexLike,
    Kernel,
    Read,
    Value,
    Var,
    Writer,
    as_index,
    op,
)
from lanewise.size.shapes import Window

LOWEST = float("-inf")
ZERO = number(0.0)

Scale = tuple[tuple[float, ...], ...]  # [p][q], one factor per output position


# ---- shapes and masks ----------------------------------------------------------------------------


def _shape(channels: int, rows: int, columns: int) -> tuple[int, ...]:
    return (channels, rows, columns, LANES)


def argument_type(taps: int) -> str:
    """The smallest type that numbers the taps of a window."""
    return "u8" if taps <= 255 else "i32"


def _masked(writer: Writer, value: Buffer | None, at: Sequence[IndexLike], result: Value) -> Value:
    """The gradient through a ReLU that made `value`, if there is one."""
    if value is None:
        return result
    return keep_where(is_positive(writer.load(value, *at)), result)


# ---- the largest of each window -----------------------------------------------------------------


def max_pool(
    name: str, channels: int, rows: Taps, columns: Taps, *, relu: bool, argument: bool
) -> Kernel:
    """Buffers source, target, and for training argument: the tap of the first maximum.

    NaN loses against every number, and a window of nothing else gives −inf (PyTorch: NaN).
    """
    kind = argument_type(rows.taps * columns.taps)
    shape = _shape(channels, rows.destination, columns.destination)
    source = Buffer("source", _shape(channels, rows.source, columns.source))
    target = Buffer("target", shape, access="write")
    arguments = Buffer("argument", shape, kind, "write")
    writer = Writer(name, [source, target, *[arguments] * argument])
    with writer.loop("c", channels) as c:
        for tile in tiles(writer, rows, columns):
            best = writer.accumulators("best", len(tile.cells), Constant(LOWEST))
            first = writer.accumulators("tap", len(tile.cells) * argument, Constant(0, "i32"))
            for met in tile.meetings():

                def load(met: Meeting = met) -> Value:
                    return writer.let(writer.load(source, c, met.row, met.column, 0), "x")

                x = tile.once(met, "x", load)
                if argument:
                    larger = writer.let(op("gt", x, Read(best[met.cell])))
                    cell = first[met.cell]
                    writer.assign(cell, op("select", larger, met.number, Read(cell)))
                writer.assign(best[met.cell], op("max", x, Read(best[met.cell])))
            for i, (row, column) in enumerate(tile.cells):
                result: Value = Read(best[i])
                result = rectified(result) if relu else result
                writer.store(target, c, row, column, 0, value=result)
                if argument:
                    number = _as_type(Read(first[i]), kind)
                    writer.store(arguments, c, row, column, 0, value=number)
    return writer.finish()


def _as_type(value: Value, kind: str) -> Value:
    return op("narrow", value) if kind == "u8" else value


def max_pool_gradient(name: str, channels: int, rows: Taps, columns: Taps, *, mask: bool) -> Kernel:
    """Buffers argument, gradient, [value], target. Taps: input pixel × tap → output."""
    kind = argument_type(rows.taps * columns.taps)
    shape = _shape(channels, rows.source, columns.source)
    arguments = Buffer("argument", shape, kind)
    gradient = Buffer("gradient", shape)
    wide = _shape(channels, rows.destination, columns.destination)
    value = Buffer("value", wide) if mask else None
    target = Buffer("target", wide, access="write")
    writer = Writer(name, [arguments, gradient, *([value] if value else []), target])

    def contribution(c: Var, tile: Tile, met: Meeting) -> Value:
        def number() -> Value:
            chosen = writer.load(arguments, c, met.row, met.column, 0)
            return writer.let(op("widen", chosen) if kind == "u8" else chosen, "tap")

        def load() -> Value:
            return writer.let(writer.load(gradient, c, met.row, met.column, 0), "dy")

        chosen = op("eq", tile.once(met, "tap", number), met.number)
        return keep_where(chosen, tile.once(met, "dy", load))

    with writer.loop("c", channels) as c:
        _gather(writer, c, rows, columns, target, value, contribution)
    return writer.finish()


def _gather(
    writer: Writer,
    c: Var,
    rows: Taps,
    columns: Taps,
    target: Buffer,
    value: Buffer | None,
    contribution: Callable[[Var, Tile, Meeting], Value],
    finish: Callable[[Value], Value] = lambda result: result,
) -> None:
    """target[pixel] = Σ of the contributions of the windows that contain it."""
    for tile in tiles(writer, rows, columns):
        sums = writer.accumulators("dx", len(tile.cells))
        touched: set[int] = set()
        for met in tile.meetings():
            part, cell = contribution(c, tile, met), sums[met.cell]
            alone = met.near is not None and met.cell not in touched
            writer.assign(cell, part if alone else op("add", Read(cell), part))
            touched.add(met.cell)
        for cell, (row, column) in zip(sums, tile.cells, strict=True):
            result = _masked(writer, value, (c, row, column, 0), finish(Read(cell)))
            writer.store(target, c, row, column, 0, value=result)


# ---- sums and means of each window --------------------------------------------------------------


def average_scale(window: Window) -> Scale:
    """1 / divisor per output position, as PyTorch's AvgPool2d (count_include_pad=True): the
    window's area within input and padding; what a ceil rule adds beyond that does not count."""
    down, across = (_extents(window, axis) for axis in (0, 1))
    return tuple(tuple(1.0 / (height * width) for width in across) for height in down)


def _extents(window: Window, axis: int) -> list[int]:
    begin, end = window.pad[axis]
    stop = begin + window.axes[axis].n + end
    kernel, stride = window.kernel[axis], window.stride[axis]
    return [min(o * stride + kernel, stop) - o * stride for o in range(window.out[axis])]


@dataclass(frozen=True)
class _Scaling:
    """A factor per output position: none, one for all, or a table in the code."""

    scale: Scale | None

    @property
    def constant(self) -> float | None:
        """The one factor, if all are equal."""
        values = {value for line in self.scale or ((1.0,),) for value in line}
        return values.pop() if len(values) == 1 else None

    def table(self) -> Buffer:
        assert self.scale
        data = tuple(value for line in self.scale for value in line)
        return Buffer("scale", (len(data),), data=data)

    def apply_constant(self, value: Value) -> Value:
        """Times the one factor (nothing, where they differ)."""
        return value if self.constant in (None, 1.0) else op("mul", value, number(self.constant))


def sum_pool(name: str, channels: int, rows: Taps, columns: Taps, *, scale: Scale | None) -> Kernel:
    """Buffers source, target: the sum of each window, times `scale[p][q]` (the mean: 1/divisor)."""
    source = Buffer("source", _shape(channels, rows.source, columns.source))
    shape = _shape(channels, rows.destination, columns.destination)
    target = Buffer("target", shape, access="write")
    writer = Writer(name, [source, target])
    scaling = _Scaling(scale)
    factors = scaling.table() if scaling.constant is None else None
    with writer.loop("c", channels) as c:
        for tile in tiles(writer, rows, columns):
            sums = writer.accumulators("sum", len(tile.cells))
            for met in tile.meetings():

                def load(met: Meeting = met) -> Value:
                    return writer.let(writer.load(source, c, met.row, met.column, 0), "x")

                cell = sums[met.cell]
                writer.assign(cell, op("add", Read(cell), tile.once(met, "x", load)))
            for cell, (row, column) in zip(sums, tile.cells, strict=True):
                result = scaling.apply_constant(Read(cell))
                if factors:
                    at = row * columns.destination + column
                    result = op("mul", result, writer.splat(factors, at))
                writer.store(target, c, row, column, 0, value=result)
    return writer.finish()


def sum_pool_gradient(
    name: str, channels: int, rows: Taps, columns: Taps, *, scale: Scale | None, mask: bool
) -> Kernel:
    """Buffers gradient, [value], target. Taps: input pixel × tap → output; scale as forward."""
    gradient = Buffer("gradient", _shape(channels, rows.source, columns.source))
    wide = _shape(channels, rows.destination, columns.destination)
    value = Buffer("value", wide) if mask else None
    target = Buffer("target", wide, access="write")
    writer = Writer(name, [gradient, *([value] if value else []), target])
    scaling = _Scaling(scale)
    factors = scaling.table() if scaling.constant is None else None

    def contribution(c: Var, tile: Tile, met: Meeting) -> Value:
        def load() -> Value:
            dy: Value = writer.load(gradient, c, met.row, met.column, 0)
            if factors:
                at = as_index(met.row) * columns.source + met.column
                dy = op("mul", dy, writer.splat(factors, at))
            return writer.let(dy, "dy")

        return tile.once(met, "dy", load)

    with writer.loop("c", channels) as c:
        finish = scaling.apply_constant
        _gather(writer, c, rows, columns, target, value, contribution, finish)
    return writer.finish()


# ---- whole maps ---------------------------------------------------------------------------------


def global_pool(
    name: str,
    mode: str,
    channels: int,
    height: int,
    width: int,
    *,
    relu: bool = False,
    argument: bool = False,
) -> Kernel:
    """`mode`: "max", "avg" or "sum". Buffers source, target, [argument]: for max, the pixel
    h·W + w of the first maximum as i32."""
    pixels = height * width
    source = Buffer("source", (channels, pixels, LANES))
    target = Buffer("target", (channels, LANES), access="write")
    arguments = Buffer("argument", (channels, LANES), "i32", "write")
    writer = Writer(name, [source, target, *[arguments] * argument])
    begin = Constant(LOWEST) if mode == "max" else ZERO
    for c0, together, times in blocks(channels, WIDEST):
        with writer.loop("c", c0 + together * times, c0, together) as c:
            cells = writer.accumulators("y", together, begin)
            first = writer.accumulators("at", together * argument, Constant(0, "i32"))
            with writer.loop("i", pixels) as i:
                for k, cell in enumerate(cells):
                    x = writer.let(writer.load(source, as_index(c) + k, i, 0), "x")
                    if argument:
                        larger = op("gt", x, Read(cell))
                        here = FromIndex(as_index(i))
                        writer.assign(first[k], op("select", larger, here, Read(first[k])))
                    joined = op("max" if mode == "max" else "add", x, Read(cell))
                    writer.assign(cell, joined)
            for k, cell in enumerate(cells):
                result: Value = Read(cell)
                if mode == "avg":
                    result = op("mul", result, number(1.0 / pixels))
                result = rectified(result) if relu else result
                writer.store(target, as_index(c) + k, 0, value=result)
                if argument:
                    writer.store(arguments, as_index(c) + k, 0, value=Read(first[k]))
    return writer.finish()


def global_pool_gradient(
    name: str, mode: str, channels: int, height: int, width: int, *, mask: bool
) -> Kernel:
    """Buffers [argument] (only for max), gradient, [value], target."""
    pixels = height * width
    argument = Buffer("argument", (channels, LANES), "i32")
    gradient = Buffer("gradient", (channels, LANES))
    value = Buffer("value", (channels, pixels, LANES)) if mask else None
    target = Buffer("target", (channels, pixels, LANES), access="write")
    buffers = [*[argument] * (mode == "max"), gradient, *([value] if value else []), target]
    writer = Writer(name, buffers)
    with writer.loop("c", channels) as c:
        dy: Value = writer.load(gradient, c, 0)
        dy = writer.let(op("mul", dy, number(1.0 / pixels)) if mode == "avg" else dy, "dy")
        at = writer.let(writer.load(argument, c, 0), "at") if mode == "max" else None
        with writer.loop("i", pixels) as i:
            here = keep_where(op("eq", at, FromIndex(as_index(i))), dy) if at else dy
            result = _masked(writer, value, (c, i, 0), here)
            writer.store(target, c, i, 0, value=result)
    return writer.finish()
