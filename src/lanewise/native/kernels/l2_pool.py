"""Pooling by the root of the sum of squares: forward and gradient.

    y[c,p,q]  = √ Σ over the window of (p, q) of x[c, …]²
    dx[c,h,w] = x[c,h,w] · Σ over the windows that contain (h, w) of dy[c,p,q] / y[c,p,q]

Where the root is 0 it has no slope; its windows pass 0 on.
"""

from __future__ import annotations

from lanewise.native.kernels.functions import is_positive, keep_where
from lanewise.native.kernels.pool import Place, gather, maps
from lanewise.native.kernels.taps import Taps
from lanewise.native.kernels.windows import Meeting, Tile, tiles
from lanewise.native.nest import Buffer, Kernel, Read, Value, Var, op
from lanewise.native.writer import Writer


def l2_pool(name: str, channels: int, rows: Taps, columns: Taps) -> Kernel:
    """Buffers source, target."""
    source = Buffer("source", maps(channels, rows.source, columns.source))
    shape = maps(channels, rows.destination, columns.destination)
    target = Buffer("target", shape, access="write")
    writer = Writer(name, [source, target])
    with writer.loop("c", channels) as c:
        for tile in tiles(writer, rows, columns):
            sums = writer.accumulators("sum", len(tile.cells))
            for met in tile.meetings():

                def load(met: Meeting = met) -> Value:
                    return writer.let(writer.load(source, c, met.row, met.column, 0), "x")

                x, cell = tile.once(met, "x", load), sums[met.cell]
                writer.assign(cell, op("fma", x, x, Read(cell)))
            for cell, (row, column) in zip(sums, tile.cells, strict=True):
                writer.store(target, c, row, column, 0, value=op("sqrt", Read(cell)))
    return writer.finish()


def l2_pool_gradient(name: str, channels: int, rows: Taps, columns: Taps) -> Kernel:
    """Buffers gradient, root (y), source (x), target. Taps: input pixel × tap → output.

    There is no mask: where a joined ReLU made x zero, so is the gradient.
    """
    shape = maps(channels, rows.source, columns.source)
    wide = maps(channels, rows.destination, columns.destination)
    gradient, root = Buffer("gradient", shape), Buffer("root", shape)
    source, target = Buffer("source", wide), Buffer("target", wide, access="write")
    writer = Writer(name, [gradient, root, source, target])

    def contribution(c: Var, tile: Tile, met: Meeting) -> Value:
        def load() -> Value:
            at = (c, met.row, met.column, 0)
            y = writer.let(writer.load(root, *at), "y")
            return writer.let(keep_where(is_positive(y), op("div", writer.load(gradient, *at), y)))

        return tile.once(met, "slope", load)

    def finish(at: Place, total: Value) -> Value:
        return op("mul", total, writer.load(source, *at))

    with writer.loop("c", channels) as c:
        gather(writer, c, rows, columns, target, None, contribution, finish)
    return writer.finish()
