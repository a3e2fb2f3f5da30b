"""Convolution over a table of connections: kernel k reads some of the maps, with weights for each.

    y[k,p,q]  = b[k] + Σ over the connections n = (k, c), r, s of w[n,r,s] · x[c, …]
    dx[c,h,w] = Σ over the connections n = (k, c), r, s of w[n,r,s] · dy[k, …]
    dw[n,r,s] = Σ_pqL  dy[k,p,q] · x[c, …]

Connections are numbered kernel by kernel, in the order of the table. The first two are one nest,
`correlate_connected`. What is not connected is not multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, count
from typing import TypeAlias

from lanewise.native.kernels.functions import number
from lanewise.native.kernels.lanes import add_lanes
from lanewise.native.kernels.register_tiles import products
from lanewise.native.kernels.result import Result
from lanewise.native.kernels.taps import RowTaps, Segment, Taps, column_segments
from lanewise.native.kernels.weights import WeightTile, outer_products, rows_of_tap
from lanewise.native.nest import (
    LANES,
    Buffer,
    Entry,
    Index,
    Kernel,
    Read,
    Register,
    Var,
    as_index,
    table,
)
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
    tiles = _Tiles(writer, RowTaps(rows), columns, _tables(connections), result)
    with writer.loop("p", rows.destination) as row, writer.loop("d", shape[0]) as d:
        for part in column_segments(columns, width):
            tiles.write(d, row, part)
    return writer.finish()


@dataclass(frozen=True)
class _Tiles:
    """Writes register tiles: some columns of a row of one map. `tables`: those of `_tables`."""

    writer: Writer
    rows: RowTaps
    columns: Taps
    tables: tuple[Buffer, Buffer, Buffer, Buffer]
    result: Result

    def write(self, d: Var, row: Var, part: Segment) -> None:
        """All tiles of a segment."""
        writer, result = self.writer, self.result
        first, stop, _, _ = self.tables
        with writer.loop("n", part.tiles) as n:
            first_column = as_index(n) * part.width + part.start
            places = [(d, row, first_column + j, 0) for j in range(part.width)]
            cells = [writer.assign(writer.register("a"), result.start(writer, at)) for at in places]
            with (
                writer.loop("e", Entry(stop, as_index(d)), Entry(first, as_index(d))) as e,
                writer.loop("m", self.rows.count(row)) as m,
            ):
                self._products(cells, e, (row, m), part, as_index(n) * part.advance + part.origin)
            for at, cell in zip(places, cells, strict=True):
                result.store(writer, at, Read(cell))

    def _products(
        self, cells: list[Register], e: Var, met: tuple[Var, Var], part: Segment, origin: Index
    ) -> None:
        """Those of connection e, for one row of the kernel and the row of the map that it meets."""
        writer, rows = self.writer, self.rows
        (source, weight, *_), (_, _, maps, numbers) = writer.buffers, self.tables
        at_row = as_index(Entry(numbers, as_index(e))) * rows.taps.taps + rows.tap(*met)
        products(
            writer,
            [cells],
            lambda i, t: writer.splat(weight, at_row * self.columns.taps + t),
            lambda j: writer.load(
                source, Entry(maps, as_index(e)), rows.source(*met), origin + j, 0
            ),
            part,
            self.columns.in_order,
        )


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
    tiles = _WeightTiles(
        writer,
        rows_of_tap(rows, rows.destination),
        rows.advance,
        column_segments(columns, tile.columns),
        table("kernel", [k for k, line in enumerate(connections.lines) for _ in line]),
        table("map", [c for line in connections.lines for c, _ in line]),
    )
    with writer.loop("n", connections.total) as n, writer.loop("r", rows.taps) as r:
        for t in range(0, columns.taps, tile.taps):
            tiles.write(n, r, range(t, min(t + tile.taps, columns.taps)))
    return writer.finish()


@dataclass(frozen=True)
class _WeightTiles:
    """Writes the sums of some columns of a kernel's row. `met`: what `rows_of_tap` says; `kernels`,
    `maps`: what a connection connects."""

    writer: Writer
    met: tuple[Buffer, Buffer, Buffer]
    advance: int
    segments: Sequence[Segment]
    kernels: Buffer
    maps: Buffer

    def write(self, n: Var, r: Var, taps: range) -> None:
        """Those of connection n and row r, over all rows of dy."""
        writer, (row_count, first, source_row) = self.writer, self.met
        cells = writer.accumulators("a", len(taps), number(0.0))
        kernel, channel = Entry(self.kernels, as_index(n)), Entry(self.maps, as_index(n))
        with writer.loop("p", Entry(row_count, as_index(r))) as p:
            dy = kernel, as_index(p) + Entry(first, as_index(r))
            x = channel, as_index(p) * self.advance + Entry(source_row, as_index(r))
            for part in self.segments:
                with writer.loop("q", part.tiles) as q:
                    self._products(cells, (dy, x), part, q, taps)
        for t, cell in zip(taps, cells, strict=True):
            add_lanes(writer, writer.buffers[-1], n, r, t, value=Read(cell))

    def _products(
        self,
        cells: list[Register],
        rows: tuple[tuple[Entry, Index], tuple[Entry, Index]],
        part: Segment,
        q: Var,
        taps: range,
    ) -> None:
        """A tile of dy's columns, and the columns that they meet; `rows`: map and row of each."""
        writer, (source, gradient, _), (dy, x) = self.writer, self.writer.buffers, rows
        left = as_index(q) * part.width + part.start
        origin = as_index(q) * part.advance + part.origin
        outer_products(
            writer,
            [[cells]],
            lambda _, j: writer.load(gradient, *dy, left + j, 0),
            lambda _, j: writer.load(source, *x, origin + j, 0),
            part,
            taps,
        )
