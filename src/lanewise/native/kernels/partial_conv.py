"""Convolution over a table of connections: kernel k reads some of the maps, with weights for each.

    y[k,p,q]  = b[k] + Σ over the connections n = (k, c), r, s of w[n,r,s] · x[c, …]
    dx[c,h,w] = Σ over the connections n = (k, c), r, s of w[n,r,s] · dy[k, …]
    dw[n,r,s] = Σ_pqL  dy[k,p,q] · x[c, …]

Connections are numbered kernel by kernel, in the order of the table. The first two are one nest,
`correlate_connected`. What is not connected is not multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, count
from typing import TypeAlias

from lanewise.native.kernels.functions import number
from lanewise.native.kernels.lanes import add_lanes
from lanewise.native.kernels.register_tiles import products
from lanewise.native.kernels.result import Result
from lanewise.native.kernels.taps import RowTaps, Segment, Taps, column_segments
from lanewise.native.kernels.weights import WeightTile, outer_products, rows_of_tap
from lanewise.native.nest import LANES, Buffer, Entry, Kernel, Read, Var, as_index, table
from lanewise.native.writer import Writer

Table: TypeAlias = tuple[tuple[int, ...], ...]  # [kernel]: the maps it reads


@dataclass(frozen=True)
class Connections:
    """`lines[d]`: for destination map d its (source map, number of the connection)."""

    sources: int
    lines: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def total(self) -> int:
        """All connections."""
        return sum(map(len, self.lines))


def forward_connections(reads: Table, channels: int) -> Connections:
    """Kernel → the maps it reads."""
    number = count()
    return Connections(channels, tuple(tuple((c, next(number)) for c in maps) for maps in reads))


def gradient_connections(reads: Table, channels: int) -> Connections:
    """Input map → the kernels that read it."""
    forward = forward_connections(reads, channels).lines
    pairs = [(c, k, n) for k, line in enumerate(forward) for c, n in line]
    lines = (tuple((k, n) for c, k, n in pairs if c == channel) for channel in range(channels))
    return Connections(len(reads), tuple(lines))


def correlate_connected(
    name: str,
    connections: Connections,
    rows: Taps,
    columns: Taps,
    width: int,
    *,
    bias: bool = False,
    affine: bool = False,
    accumulate: bool = False,
    relu: bool = False,
    mask: bool = False,
) -> Kernel:
    """Destination maps from the source maps they are connected with: buffers source, weight
    (connections · R · S), those of `Result`. `width`: destination columns of a register tile."""
    source = Buffer("source", (connections.sources, rows.source, columns.source, LANES))
    weight = Buffer("weight", (connections.total * rows.taps * columns.taps,), align=4)
    shape = (len(connections.lines), rows.destination, columns.destination, LANES)
    result = Result(shape, bias=bias, affine=affine, accumulate=accumulate, relu=relu, mask=mask)
    writer = Writer(name, [source, weight, *result.buffers])
    row_taps = RowTaps(rows)
    first, stop, maps, numbers = _tables(connections)

    def one_tile(d: Var, row: Var, part: Segment) -> None:
        with writer.loop("n", part.tiles) as n:
            first_column = as_index(n) * part.width + part.start
            places = [(d, row, first_column + j, 0) for j in range(part.width)]
            cells = [writer.assign(writer.register("a"), result.start(writer, at)) for at in places]
            with (
                writer.loop("e", Entry(stop, as_index(d)), Entry(first, as_index(d))) as e,
                writer.loop("m", row_taps.count(row)) as m,
            ):
                at_row = as_index(Entry(numbers, as_index(e))) * rows.taps + row_taps.tap(row, m)
                products(
                    writer,
                    [cells],
                    lambda i, t: writer.splat(weight, at_row * columns.taps + t),
                    lambda j: writer.load(
                        source,
                        Entry(maps, as_index(e)),
                        row_taps.source(row, m),
                        as_index(n) * part.advance + (part.origin + j),
                        0,
                    ),
                    part,
                    columns.in_order,
                )
            for at, cell in zip(places, cells, strict=True):
                result.store(writer, at, Read(cell))

    with writer.loop("p", rows.destination) as row, writer.loop("d", shape[0]) as d:
        for part in column_segments(columns, width):
            one_tile(d, row, part)
    return writer.finish()


def _tables(connections: Connections) -> tuple[Buffer, Buffer, Buffer, Buffer]:
    """For each destination map the first of its connections and the one after the last; for each
    of those its source map and its number."""
    stops = list(accumulate(map(len, connections.lines)))
    pairs = [pair for line in connections.lines for pair in line]
    return (
        table("first", [0, *stops[:-1]]),
        table("stop", stops),
        table("map", [source for source, _ in pairs]),
        table("connection", [n for _, n in pairs]),
    )


def weight_gradient_connected(
    name: str, connections: Connections, rows: Taps, columns: Taps, tile: WeightTile
) -> Kernel:
    """weight[n,r,s] += Σ over rows, columns and lanes of gradient[k,p,q] · source[c,…].

    Forward connections and taps. Buffers source, gradient, weight (connections, R, S). Of the tile
    only `taps` and `columns` count.
    """
    source = Buffer("source", (connections.sources, rows.source, columns.source, LANES))
    shape = (len(connections.lines), rows.destination, columns.destination, LANES)
    gradient = Buffer("gradient", shape)
    weight = Buffer(
        "weight", (connections.total, rows.taps, columns.taps), access="update", align=4
    )
    writer = Writer(name, [source, gradient, weight])
    row_count, first, source_row = rows_of_tap(rows, rows.destination)
    kernels = table("kernel", [k for k, line in enumerate(connections.lines) for _ in line])
    maps = table("map", [c for line in connections.lines for c, _ in line])
    segments = column_segments(columns, tile.columns)

    def one_tile(n: Var, r: Var, taps: range) -> None:
        cells = writer.accumulators("a", len(taps), number(0.0))
        kernel, channel = Entry(kernels, as_index(n)), Entry(maps, as_index(n))
        with writer.loop("p", Entry(row_count, as_index(r))) as p:
            row = as_index(p) + Entry(first, as_index(r))
            at_row = as_index(p) * rows.advance + Entry(source_row, as_index(r))
            for part in segments:
                with writer.loop("q", part.tiles) as q:
                    outer_products(
                        writer,
                        [[cells]],
                        lambda _, j, part=part, q=q: writer.load(  # type: ignore[misc]
                            gradient, kernel, row, as_index(q) * part.width + part.start + j, 0
                        ),
                        lambda _, j, part=part, q=q: writer.load(  # type: ignore[misc]
                            source,
                            channel,
                            at_row,
                            as_index(q) * part.advance + (part.origin + j),
                            0,
                        ),
                        part,
                        taps,
                    )
        for t, cell in zip(taps, cells, strict=True):
            add_lanes(writer, weight, n, r, t, value=Read(cell))

    with writer.loop("n", connections.total) as n, writer.loop("r", rows.taps) as r:
        for t in range(0, columns.taps, tile.taps):
            one_tile(n, r, range(t, min(t + tile.taps, columns.taps)))
    return writer.finish()
