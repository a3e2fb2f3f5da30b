"""Convolution: gradient of the weights of many kernels, with kernels in the lanes.

    dw[k,c,r,s] = Σ_pq Σ_images  dy[k,p,q] · x[c, p·stride + r·dilation − pad, q·…]

Where images are in the lanes (`weights.py`) every weight ends in a sum of lanes; on small maps, and
for 1 × 1 kernels, that takes longer than the products. Here dy is transposed first, 16 kernels × 16
images at a time (`to_lanes`), so that a sum of products is that of 16 weights, and x is copied into
all lanes as weights are elsewhere. The 16 sums lie in 16 rows of the weights; a last transposition,
16 × 16 weights at a time, adds them there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lanewise.native.kernels.conv import add_product, blocks
from lanewise.native.kernels.images import row_blocks
from lanewise.native.kernels.lanes import number, pieces, spread
from lanewise.native.kernels.linear import LaneVector, vector_tiles
from lanewise.native.kernels.taps import Taps
from lanewise.native.kernels.weights import rows_of_tap
from lanewise.native.nest import (
    LANES,
    Buffer,
    Entry,
    Index,
    IndexLike,
    Kernel,
    Read,
    Register,
    Value,
    Var,
    Writer,
    as_index,
    op,
)


@dataclass(frozen=True)
class LaneTile:
    """Registers: input maps × vectors of 16 kernels. `rows`: output rows that are finished for all
    weights before the next (0: all); the sums wait in memory meanwhile."""

    sources: int
    vectors: int
    rows: int = 0


def to_lanes(name: str, groups: int, maps: int, pixels: int) -> Kernel:
    """Maps into the lanes: buffers source (groups · maps, pixels, 16 images), target (groups ·
    blocks, pixels, 16 images, 16 maps). Maps that do not exist are zeros."""
    source = Buffer("source", (groups * maps, pixels, LANES))
    shape = (groups * row_blocks(maps), pixels, LANES, LANES)
    target = Buffer("target", shape, access="write")
    writer = Writer(name, [source, target])
    whole, rest = divmod(maps, LANES)

    def block(first: Index, at: Index, pixel: Var, count: int) -> None:
        values: list[Value] = [writer.load(source, first + k, pixel, 0) for k in range(count)]
        values += [number(0.0, LANES)] * (LANES - count)
        for image, value in enumerate(writer.transpose(values)):
            writer.store(target, at, pixel, image, 0, value=value)

    with writer.loop("g", groups) as g:
        first, at = as_index(g) * maps, as_index(g) * row_blocks(maps)
        with writer.loop("b", whole) as b, writer.loop("i", pixels) as i:
            block(first + as_index(b) * LANES, at + b, i, LANES)
        if rest:
            with writer.loop("i", pixels) as i:
                block(first + whole * LANES, at + whole, i, rest)
    return writer.finish()


def weight_gradient(
    name: str, groups: int, maps: int, sources: int, rows: Taps, columns: Taps, tile: LaneTile
) -> Kernel:
    """sums[k, (c, r, s)] = Σ over rows, columns and images of gradient[k, p, q] · source[c, …].

    `maps` and `sources` count per group; `rows`, `columns` are the forward taps. Buffers source,
    gradient (as `to_lanes` leaves it), sums (groups · blocks of 16 kernels, C · R · S, 16). Lanes
    of kernels that do not exist are left as they are.
    """
    nest = _Nest(name, groups, maps, sources, rows, columns, tile)
    return nest.write()


class _Nest:
    def __init__(
        self,
        name: str,
        groups: int,
        maps: int,
        sources: int,
        rows: Taps,
        columns: Taps,
        tile: LaneTile,
    ) -> None:
        self.groups, self.maps, self.sources = groups, maps, sources
        self.rows, self.columns, self.tile = rows, columns, tile
        self.vectors = row_blocks(maps)
        self.turns = sources * rows.taps * columns.taps
        images = (groups * self.vectors, rows.destination, columns.destination, LANES, LANES)
        self.source = Buffer("source", (groups * sources, rows.source, columns.source, LANES))
        self.gradient = Buffer("gradient", images)
        self.sums = Buffer("sums", (groups * self.vectors, self.turns, LANES), access="update")
        self.writer = Writer(name, [self.source, self.gradient, self.sums])
        self.height = tile.rows or rows.destination
        self.line = rows_of_tap(rows, self.height)
        self.part = rows_of_tap(columns, columns.destination)

    @property
    def strips(self) -> int:
        return -(-self.rows.destination // self.height)

    def write(self) -> Kernel:
        """The whole kernel."""
        writer = self.writer
        if self.strips > 1:
            with (
                writer.loop("v", self.groups * self.vectors) as v,
                writer.loop("j", self.turns) as j,
            ):
                writer.store(self.sums, v, j, 0, value=number(0.0, LANES))
        with writer.loop("strip", self.strips) as strip, writer.loop("g", self.groups) as g:
            for start, turns, vectors in vector_tiles(self.maps, self.tile.vectors):
                with writer.loop("v", turns) as v:
                    first = as_index(g) * self.vectors + as_index(v) * len(vectors) + start
                    for c0, cs, c_tiles in blocks(self.sources, self.tile.sources):
                        with writer.loop("c", c0 + cs * c_tiles, c0, cs) as c:
                            self._taps(strip, g, first, vectors, c, cs)
        return writer.finish()

    def _taps(
        self, strip: Var, g: Var, first: Index, vectors: list[LaneVector], c: Var, cs: int
    ) -> None:
        writer = self.writer
        with writer.loop("r", self.rows.taps) as r, writer.loop("s", self.columns.taps) as s:
            area = self.rows.taps * self.columns.taps
            inside = as_index(r) * self.columns.taps + s
            places = [
                [
                    (first + one.block, (as_index(c) + j) * area + inside, one.lane)
                    for one in vectors
                ]
                for j in range(cs)
            ]
            cells = [
                [self._begin(at, one.lanes) for at, one in zip(line, vectors, strict=True)]
                for line in places
            ]
            self._products(
                cells, as_index(strip) * self.rows.taps + r, as_index(s), g, first, vectors, c
            )
            for line, row in zip(places, cells, strict=True):
                for at, cell in zip(line, row, strict=True):
                    writer.store(self.sums, *at, value=Read(cell))

    def _begin(self, at: tuple[IndexLike, ...], lanes: int) -> Register:
        writer = self.writer
        start: Value = number(0.0, lanes)
        if self.strips > 1:
            start = writer.load(self.sums, *at, lanes=lanes)
        return writer.assign(writer.register("a", lanes=lanes), start)

    def _products(
        self,
        cells: list[list[Register]],
        r: Index,
        s: Index,
        g: Var,
        first: Index,
        vectors: list[LaneVector],
        c: Var,
    ) -> None:
        """cells[j][i] += source map j · vector i, over the pixels that the tap meets."""
        writer = self.writer
        row_count, row_first, row_source = self.line
        column_count, column_first, column_source = self.part
        with (
            writer.loop("p", Entry(row_count, r)) as p,
            writer.loop("q", Entry(column_count, s)) as q,
            writer.loop("n", LANES) as n,
        ):
            at = as_index(p) + Entry(row_first, r), as_index(q) + Entry(column_first, s)
            x_row = as_index(p) * self.rows.advance + Entry(row_source, r)
            x_column = as_index(q) * self.columns.advance + Entry(column_source, s)
            errors = [
                writer.let(
                    writer.load(
                        self.gradient, first + one.block, *at, n, one.lane, lanes=one.lanes
                    ),
                    "e",
                )
                for one in vectors
            ]
            for j, line in enumerate(cells):
                place = as_index(g) * self.sources + c + j, x_row, x_column, n
                x = writer.load(self.source, *place, lanes=1)
                wide = {n: writer.let(spread(x, n), "x") for n in {one.lanes for one in vectors}}
                for cell, one, error in zip(line, vectors, errors, strict=True):
                    add_product(writer, cell, wide[one.lanes], error)


def add_sums(name: str, groups: int, maps: int, turns: int) -> Kernel:
    """weight += sums, transposed: buffers sums (groups · blocks, turns, 16), weight (groups · maps,
    turns). `turns`: weights of a kernel."""
    vectors = row_blocks(maps)
    sums = Buffer("sums", (groups * vectors, turns, LANES))
    weight = Buffer("weight", (groups * maps, turns), access="update", align=4)
    writer = Writer(name, [sums, weight])

    def block(g: Var, v: Var, count: int, at: Index, lanes: int) -> None:
        for first in range(0, count, lanes):
            values: list[Value] = [
                writer.load(sums, as_index(g) * vectors + v, at + j, first, lanes=lanes)
                for j in range(lanes)
            ]
            turned: Sequence[Value] = writer.transpose(values) if lanes > 1 else values
            for k, value in enumerate(turned[: count - first]):
                row = as_index(g) * maps + as_index(v) * LANES + (first + k)
                before = writer.load(weight, row, at, lanes=lanes)
                writer.store(weight, row, at, value=op("add", before, value))

    with writer.loop("g", groups) as g:
        for first, count, times in blocks(maps, LANES):
            with writer.loop("v", first // LANES + times, first // LANES) as v:
                for piece in pieces(turns):
                    with writer.loop("i", piece.count) as i:
                        block(g, v, count, as_index(i) * piece.lanes + piece.start, piece.lanes)
    return writer.finish()
