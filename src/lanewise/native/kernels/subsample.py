"""Subsampling as in LeNet-5 (1998): the sum of a window × a weight + a bias, one pair a map.

y[c,p,q]  = weight[c] · s[c,p,q] + bias[c],    s the sum of the window of (p, q)
dweight[c] = Σ_pqL  dy[c,p,q] · s[c,p,q]       (the sums are formed again)
dbias[c]   = Σ_pqL  dy[c,p,q]
dx[c,h,w] = weight[c] · Σ over the windows that contain (h, w) of dy[c,p,q]
"""

from __future__ import annotations

from lanewise.native.kernels.lanes import add_lanes
from lanewise.native.kernels.pool import gather, maps
from lanewise.native.kernels.taps import Taps
from lanewise.native.kernels.windows import Meeting, Tile, tiles
from lanewise.native.nest import Buffer, Kernel, Read, Register, Value, Var, op
from lanewise.native.writer import Writer


def subsample(name: str, channels: int, rows: Taps, columns: Taps) -> Kernel:
    """Buffers source, weight (channels,), bias (channels,), target."""
    source = Buffer("source", maps(channels, rows.source, columns.source))
    weight, bias = (Buffer(n, (channels,), align=4) for n in ("weight", "bias"))
    shape = maps(channels, rows.destination, columns.destination)
    target = Buffer("target", shape, access="write")
    writer = Writer(name, [source, weight, bias, target])
    with writer.loop("c", channels) as c:
        factor = writer.let(writer.splat(weight, c), "w")
        shift = writer.let(writer.splat(bias, c), "b")
        for tile in tiles(writer, rows, columns):
            sums = _window_sums(writer, source, c, tile)
            for cell, (row, column) in zip(sums, tile.cells, strict=True):
                result = op("fma", Read(cell), factor, shift)
                writer.store(target, c, row, column, 0, value=result)
    return writer.finish()


def _window_sums(writer: Writer, source: Buffer, c: Var, tile: Tile) -> list[Register]:
    """The sum of the window of each cell."""
    sums = writer.accumulators("sum", len(tile.cells))
    for met in tile.meetings():

        def load(met: Meeting = met) -> Value:
            return writer.let(writer.load(source, c, met.row, met.column, 0), "x")

        cell = sums[met.cell]
        writer.assign(cell, op("add", Read(cell), tile.once(met, "x", load)))
    return sums


def parameter_gradients(name: str, channels: int, rows: Taps, columns: Taps) -> Kernel:
    """Buffers source, gradient, weight, bias: adds to the last two, summed over the lanes."""
    source = Buffer("source", maps(channels, rows.source, columns.source))
    gradient = Buffer("gradient", maps(channels, rows.destination, columns.destination))
    weight, bias = (Buffer(n, (channels,), "f32", "update", 4) for n in ("weight", "bias"))
    writer = Writer(name, [source, gradient, weight, bias])
    with writer.loop("c", channels) as c:
        dw, db = writer.accumulators("d", 2)
        for tile in tiles(writer, rows, columns):
            sums = _window_sums(writer, source, c, tile)
            for cell, (row, column) in zip(sums, tile.cells, strict=True):
                dy = writer.let(writer.load(gradient, c, row, column, 0), "dy")
                writer.assign(dw, op("fma", dy, Read(cell), Read(dw)))
                writer.assign(db, op("add", Read(db), dy))
        add_lanes(writer, weight, c, value=Read(dw))
        add_lanes(writer, bias, c, value=Read(db))
    return writer.finish()


def input_gradient(name: str, channels: int, rows: Taps, columns: Taps, *, mask: bool) -> Kernel:
    """Buffers gradient, weight, [value], target. Taps: input pixel × tap → output."""
    gradient = Buffer("gradient", maps(channels, rows.source, columns.source))
    weight = Buffer("weight", (channels,), align=4)
    wide = maps(channels, rows.destination, columns.destination)
    value = Buffer("value", wide) if mask else None
    target = Buffer("target", wide, access="write")
    writer = Writer(name, [gradient, weight, *([value] if value else []), target])

    def contribution(c: Var, tile: Tile, met: Meeting) -> Value:
        def load() -> Value:
            return writer.let(writer.load(gradient, c, met.row, met.column, 0), "dy")

        return tile.once(met, "dy", load)

    with writer.loop("c", channels) as c:
        factor = writer.let(writer.splat(weight, c), "w")
        gather(
            writer,
            c,
            rows,
            columns,
            target,
            value,
            contribution,
            lambda _, total: op("mul", total, factor),
        )
    return writer.finish()
