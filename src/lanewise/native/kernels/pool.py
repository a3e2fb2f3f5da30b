"""Pooling: windows and whole maps, the largest, the sum and the mean; forward and gradients.

    y[c,p,q]  = max or Σ over the window of (p, q) of x[c, p·stride + r − pad, q·stride + s − pad]
    dx[c,h,w] = Σ over the windows that contain (h, w) of dy[c,p,q], for max only where (h, w) is
                the window's argument: the tap r·S + s of its first maximum, or its pixel h·W + w

Adaptive windows differ in size and overlap where they do not divide the map, but they are taps like
any others (`taps.adaptive_taps`); their maxima are kept as pixels, because when maps grow several
windows may begin at one pixel.

Gradients gather: every input pixel is written exactly once. Small windows are unrolled in tiles of
pixels whose pattern of taps is known, large ones are loops over tables (`windows.py`); the
kernels do not see the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from lanewise.native.kernels.functions import is_positive, keep_where, number, rectified
from lanewise.native.kernels.lanes import in_runs
from lanewise.native.kernels.register_tiles import blocks
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
    Register,
    Value,
    Var,
    as_index,
    op,
)
from lanewise.native.writer import Writer
from lanewise.size.shapes import Window

LOWEST = float("-inf")
ZERO = number(0.0)

Scale: TypeAlias = tuple[tuple[float, ...], ...]  # [p][q], one factor per output position
Place: TypeAlias = tuple[IndexLike, ...]  # channel, row, column, 0


# ---- shapes and masks ----------------------------------------------------------------------------


def maps(channels: int, rows: int, columns: int) -> tuple[int, ...]:
    """The axes of feature maps."""
    return (channels, rows, columns, LANES)


def argument_type(numbers: int) -> str:
    """The smallest type that numbers the taps of a window, or the pixels of a map."""
    return "u8" if numbers <= 255 else "i32"


def masked(writer: Writer, value: Buffer | None, at: Place, result: Value) -> Value:
    """The gradient through a ReLU that made `value`, if there is one."""
    if value is None:
        return result
    return keep_where(is_positive(writer.load(value, *at)), result)


# ---- the largest of each window -----------------------------------------------------------------


def max_pool(
    name: str,
    channels: int,
    rows: Taps,
    columns: Taps,
    *,
    relu: bool,
    argument: bool,
    pixels: bool = False,
) -> Kernel:
    """Buffers source, target, and for training argument: the tap of the first maximum, or with
    `pixels` its number in the map.

    NaN loses against every number, and a window of nothing else gives −inf (PyTorch: NaN).
    """
    kind = argument_type(rows.source * columns.source if pixels else rows.taps * columns.taps)
    shape = maps(channels, rows.destination, columns.destination)
    source = Buffer("source", maps(channels, rows.source, columns.source))
    target = Buffer("target", shape, access="write")
    arguments = Buffer("argument", shape, kind, "write")
    writer = Writer(name, [source, target, *[arguments] * argument])
    with writer.loop("c", channels, shared=True) as c:
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
                    here = _pixel(met.row, met.column, columns.source) if pixels else met.number
                    writer.assign(cell, op("select", larger, here, Read(cell)))
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


def _pixel(row: IndexLike, column: IndexLike, width: int) -> Value:
    return FromIndex(as_index(row) * width + column)


def max_pool_gradient(
    name: str, channels: int, rows: Taps, columns: Taps, *, mask: bool, pixels: bool = False
) -> Kernel:
    """Buffers argument, gradient, [value], target. Taps: input pixel × tap → output; with `pixels`
    their numbers mean nothing, and the argument is compared with the input pixel's own."""
    numbers = rows.destination * columns.destination if pixels else rows.taps * columns.taps
    kind = argument_type(numbers)
    shape = maps(channels, rows.source, columns.source)
    arguments = Buffer("argument", shape, kind)
    gradient = Buffer("gradient", shape)
    wide = maps(channels, rows.destination, columns.destination)
    value = Buffer("value", wide) if mask else None
    target = Buffer("target", wide, access="write")
    writer = Writer(name, [arguments, gradient, *([value] if value else []), target])

    def contribution(c: Var, tile: Tile, met: Meeting) -> Value:
        def number() -> Value:
            chosen = writer.load(arguments, c, met.row, met.column, 0)
            return writer.let(op("widen", chosen) if kind == "u8" else chosen, "tap")

        def load() -> Value:
            return writer.let(writer.load(gradient, c, met.row, met.column, 0), "dy")

        here = _pixel(*tile.cells[met.cell], columns.destination) if pixels else met.number
        chosen = op("eq", tile.once(met, "tap", number), here)
        return keep_where(chosen, tile.once(met, "dy", load))

    with writer.loop("c", channels, shared=True) as c:
        gather(writer, c, rows, columns, target, value, contribution)
    return writer.finish()


def gather(
    writer: Writer,
    c: Var,
    rows: Taps,
    columns: Taps,
    target: Buffer,
    value: Buffer | None,
    contribution: Callable[[Var, Tile, Meeting], Value],
    finish: Callable[[Place, Value], Value] = lambda at, result: result,
) -> None:
    """target[pixel] = Σ of the contributions of the windows that contain it, then finished."""
    for tile in tiles(writer, rows, columns):
        sums = writer.accumulators("dx", len(tile.cells))
        touched: set[int] = set()
        for met in tile.meetings():
            part, cell = contribution(c, tile, met), sums[met.cell]
            alone = met.near is not None and met.cell not in touched
            writer.assign(cell, part if alone else op("add", Read(cell), part))
            touched.add(met.cell)
        for cell, (row, column) in zip(sums, tile.cells, strict=True):
            at = (c, row, column, 0)
            result = masked(writer, value, at, finish(at, Read(cell)))
            writer.store(target, *at, value=result)


# ---- sums and means of each window --------------------------------------------------------------


def average_scale(window: Window, unpadded: bool = False) -> Scale:
    """1 / divisor per output position, as PyTorch's AvgPool2d (count_include_pad=True): the
    window's area within input and padding; what a ceil rule adds beyond that does not count.
    `unpadded`: the area within the input alone."""
    down, across = (axis.counted(unpadded) for axis in window.axes)
    return tuple(tuple(1.0 / (height * width) for width in across) for height in down)


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


def adaptive_scale(rows: Taps, columns: Taps) -> Scale:
    """1 / the number of pixels of each adaptive window."""
    down, across = (
        [sum(source is not None for source in line) for line in taps.sources]
        for taps in (rows, columns)
    )
    return tuple(tuple(1.0 / (height * width) for width in across) for height in down)


def sum_pool(
    name: str,
    channels: int,
    rows: Taps,
    columns: Taps,
    *,
    scale: Scale | None,
    mask: bool = False,
) -> Kernel:
    """Buffers source, [value], target: the sum of each window, times `scale[p][q]` (the mean:
    1/divisor); zero where there is a mask and `value` is not positive."""
    source = Buffer("source", maps(channels, rows.source, columns.source))
    shape = maps(channels, rows.destination, columns.destination)
    value = Buffer("value", shape) if mask else None
    target = Buffer("target", shape, access="write")
    writer = Writer(name, [source, *([value] if value else []), target])
    scaling = _Scaling(scale)
    factors = scaling.table() if scaling.constant is None else None
    with writer.loop("c", channels, shared=True) as c:
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
                result = masked(writer, value, (c, row, column, 0), result)
                writer.store(target, c, row, column, 0, value=result)
    return writer.finish()


def sum_pool_gradient(
    name: str, channels: int, rows: Taps, columns: Taps, *, scale: Scale | None, mask: bool
) -> Kernel:
    """Buffers gradient, [value], target. Taps: input pixel × tap → output; scale as forward."""
    gradient = Buffer("gradient", maps(channels, rows.source, columns.source))
    wide = maps(channels, rows.destination, columns.destination)
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

    with writer.loop("c", channels, shared=True) as c:
        gather(
            writer,
            c,
            rows,
            columns,
            target,
            value,
            contribution,
            lambda _, total: scaling.apply_constant(total),
        )
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
    for c0, together, times in blocks(channels, WIDEST):
        with writer.loop("c", c0 + together * times, c0, together, shared=True) as c:
            if mode == "max":
                cells, first = _maxima(writer, source, c, together, argument)
            else:
                cells, first = _sums(writer, source, pixels, c, together), []
            for k, cell in enumerate(cells):
                result: Value = Read(cell)
                if mode == "avg":
                    result = op("mul", result, number(1.0 / pixels))
                result = rectified(result) if relu else result
                writer.store(target, as_index(c) + k, 0, value=result)
                if argument:
                    writer.store(arguments, as_index(c) + k, 0, value=Read(first[k]))
    return writer.finish()


def _maxima(
    writer: Writer, source: Buffer, c: Var, together: int, argument: bool
) -> tuple[list[Register], list[Register]]:
    """The largest value of each of some maps from c on and, if asked for, where it stands first."""
    cells = writer.accumulators("y", together, Constant(LOWEST))
    first = writer.accumulators("at", together * argument, Constant(0, "i32"))
    with writer.loop("i", source.shape[1]) as i:
        for k, cell in enumerate(cells):
            x = writer.let(writer.load(source, as_index(c) + k, i, 0), "x")
            if argument:
                larger = op("gt", x, Read(cell))
                here = FromIndex(as_index(i))
                writer.assign(first[k], op("select", larger, here, Read(first[k])))
            writer.assign(cell, op("max", x, Read(cell)))
    return cells, first


def _sums(writer: Writer, source: Buffer, pixels: int, c: Var, together: int) -> list[Register]:
    """The sum of each of some maps from c on."""
    cells = writer.accumulators("y", together, ZERO)
    for i, parts in in_runs(writer, "i", pixels, cells):
        for k, part in enumerate(parts):
            x = writer.load(source, as_index(c) + k, i, 0)
            writer.assign(part, op("add", x, Read(part)))
    return cells


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
    with writer.loop("c", channels, shared=True) as c:
        dy: Value = writer.load(gradient, c, 0)
        dy = writer.let(op("mul", dy, number(1.0 / pixels)) if mode == "avg" else dy, "dy")
        at = writer.let(writer.load(argument, c, 0), "at") if mode == "max" else None
        with writer.loop("i", pixels) as i:
            here = keep_where(op("eq", at, FromIndex(as_index(i))), dy) if at else dy
            result = masked(writer, value, (c, i, 0), here)
            writer.store(target, c, i, 0, value=result)
    return writer.finish()
