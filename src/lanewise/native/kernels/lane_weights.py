"""Convolution: gradient of the weights of many kernels, with kernels in the lanes.

    dw[k,c,r,s] = Σ_pq Σ_images  dy[k,p,q] · x[c, p·stride + r·dilation − pad, q·…]

Where images are in the lanes (`weights.py`) every weight ends in a sum of lanes; on small maps, and
for 1 × 1 kernels, that takes longer than the products. Here dy is transposed first, 16 kernels × 16
images at a time, some pixels before they are needed, so that a sum of products is that of 16
weights, and x is copied into all lanes as weights are elsewhere. The 16 sums lie in 16 rows of the
weights; a last transposition, 16 × 16 weights at a time, adds them there.

A value of x meets dy in as many places as the kernel has columns. So where these are several, a
register tile has them too, and goes along a row of x: all that is loaded then serves several sums,
and few kernels are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from lanewise.native.kernels.images import row_blocks
from lanewise.native.kernels.lanes import number, pieces, spread
from lanewise.native.kernels.linear import LaneVector, vector_tiles
from lanewise.native.kernels.register_tiles import add_product, blocks
from lanewise.native.kernels.taps import Segment, Taps, column_segments
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
    as_index,
    op,
    table,
)
from lanewise.native.writer import Writer

#: neighbouring columns of x that are written out where a kernel has several columns: the same for
#: all tiles and targets, for the order of the sums depends on it
ALONG = 4


@dataclass(frozen=True)
class LaneTile:
    """Registers: input maps × vectors of 16 kernels × kernel columns. `rows`, `columns`: the strip
    of output pixels that is transposed, and finished for all weights, before the next (0: all); the
    sums wait in memory meanwhile. Strips have whole rows if the kernel has several columns."""

    sources: int
    vectors: int
    rows: int = 0
    columns: int = 0
    taps: int = 1


def along(columns: Taps) -> tuple[Segment, ...]:
    """Neighbouring columns of x, and the columns of dy that they meet."""
    return column_segments(columns.backwards, ALONG)


def turned_shape(maps: int, rows: Taps, columns: Taps, tile: LaneTile) -> tuple[int, ...]:
    """The third buffer: vectors of a tile, rows and columns of a strip, images, kernels."""
    height = min(tile.rows or rows.destination, rows.destination)
    width = min(tile.columns or columns.destination, columns.destination)
    width = width if columns.taps == 1 else columns.destination
    return min(tile.vectors, row_blocks(maps)), height, width, LANES, LANES


def weight_gradient(
    name: str, groups: int, maps: int, sources: int, rows: Taps, columns: Taps, tile: LaneTile
) -> Kernel:
    """sums[k, (c, r, s)] = Σ over rows, columns and images of gradient[k, p, q] · source[c, …].

    `maps` and `sources` count per group; `rows`, `columns` are the forward taps. Buffers source,
    gradient, turned (see `turned_shape`), sums (groups · blocks of 16 kernels, C · R · S, 16).
    Lanes of kernels that do not exist are left as they are.
    """
    return _Nest(name, groups, maps, sources, rows, columns, tile).write()


@dataclass(frozen=True)
class _Strips:
    """One axis, cut into strips of `length`: for each its beginning and its length, and for each
    strip and tap (`rows_of_tap`) how many places meet it, from which on, and what they meet."""

    axis: Taps
    length: int

    @property
    def count(self) -> int:
        return -(-self.axis.destination // self.length)

    @cached_property
    def of_tap(self) -> tuple[Buffer, Buffer, Buffer]:
        return rows_of_tap(self.axis, self.length, from_strip=True)

    @cached_property
    def lengths(self) -> Buffer:
        begins = range(0, self.axis.destination, self.length)
        return table("lengths", [min(self.length, self.axis.destination - i) for i in begins])


@dataclass(frozen=True)
class _Row:
    """Where a tile is: its first source map and the row of that, the row of the strip, vectors."""

    source: Index
    x_row: Index
    row: Index
    vectors: list[LaneVector]


class _Nest:
    """Writes `weight_gradient`: loops over vectors of kernels, strips, tiles of weights, pixels."""

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
        self.area, self.tile = rows.taps * columns.taps, tile
        self.blocks = row_blocks(maps)
        images = (groups * maps, rows.destination, columns.destination, LANES)
        self.source = Buffer("source", (groups * sources, rows.source, columns.source, LANES))
        self.gradient = Buffer("gradient", images)
        shape = turned_shape(maps, rows, columns, tile)
        self.turned = Buffer("turned", shape, access="update")
        summed = (groups * self.blocks, sources * self.area, LANES)
        self.sums = Buffer("sums", summed, access="update")
        self.writer = Writer(name, [self.source, self.gradient, self.turned, self.sums])
        self.rows, self.columns = _Strips(rows, shape[1]), _Strips(columns, shape[2])

    @property
    def waits(self) -> bool:
        """Whether sums are taken up again."""
        return self.rows.count * self.columns.count > 1

    def write(self) -> Kernel:
        """The whole kernel."""
        writer = self.writer
        with writer.loop("g", self.groups) as g:
            for start, turns, vectors in vector_tiles(self.maps, self.tile.vectors):
                with writer.loop("v", turns) as v:
                    block = as_index(v) * len(vectors) + start
                    maps = min(self.maps - start * LANES, (vectors[-1].block + 1) * LANES)
                    self._begin(as_index(g) * self.blocks + block, vectors)
                    with (
                        writer.loop("i", self.rows.count) as i,
                        writer.loop("j", self.columns.count) as j,
                    ):
                        self._turn(g, block, maps, i, j)
                        self._weights(g, block, vectors, i, j)
        return writer.finish()

    def _begin(self, first: Index, vectors: list[LaneVector]) -> None:
        """Zeros where sums will wait."""
        writer = self.writer
        if not self.waits:
            return
        with writer.loop("j", self.sources * self.area) as j:
            for one in vectors:
                zero = number(0.0, one.lanes)
                writer.store(self.sums, first + one.block, j, one.lane, value=zero)

    def _turn(self, g: Var, block: Index, maps: int, i: Var, j: Var) -> None:
        """The strip's gradients of so many maps, 16 kernels × 16 images transposed; zeros for
        kernels that do not exist."""
        writer = self.writer
        with (
            writer.loop("p", Entry(self.rows.lengths, as_index(i))) as p,
            writer.loop("q", Entry(self.columns.lengths, as_index(j))) as q,
        ):
            row, column = as_index(i) * self.rows.length + p, as_index(j) * self.columns.length + q
            first = as_index(g) * self.maps + block * LANES
            for number_of_block, begin in enumerate(range(0, maps, LANES)):
                values: list[Value] = [
                    writer.load(self.gradient, first + begin + k, row, column, 0)
                    for k in range(min(LANES, maps - begin))
                ]
                values += [number(0.0, LANES)] * (LANES - len(values))
                for image, value in enumerate(writer.transpose(values)):
                    writer.store(self.turned, number_of_block, p, q, image, 0, value=value)

    def _weights(self, g: Var, block: Index, vectors: list[LaneVector], i: Var, j: Var) -> None:
        """All weights of these kernels, from the pixels of the strip."""
        writer, wide = self.writer, self.columns.axis.taps
        for c0, cs, c_tiles in blocks(self.sources, self.tile.sources):
            with (
                writer.loop("c", c0 + cs * c_tiles, c0, cs) as c,
                writer.loop("r", self.rows.axis.taps) as r,
            ):
                for t0, ts, t_tiles in blocks(wide, self.tile.taps):
                    for t in range(t0, t0 + ts * t_tiles, ts):
                        self._tile(g, block, vectors, i, j, c, cs, r, range(t, t + ts))

    def _tile(
        self,
        g: Var,
        block: Index,
        vectors: list[LaneVector],
        i: Var,
        j: Var,
        c: Var,
        maps: int,
        r: Var,
        taps: range,
    ) -> None:
        """The weights of so many input maps, of one kernel row and some of its columns."""
        writer, wide = self.writer, self.columns.axis.taps
        first = as_index(g) * self.blocks + block
        weight = as_index(c) * self.area + as_index(r) * wide
        places = [
            [
                [(first + one.block, weight + (n * self.area + t), one.lane) for one in vectors]
                for t in taps
            ]
            for n in range(maps)
        ]
        cells = [
            [
                [self._cell(at, one.lanes) for at, one in zip(line, vectors, strict=True)]
                for line in plane
            ]
            for plane in places
        ]
        row_count, row_first, row_source = self.rows.of_tap
        at_row = as_index(i) * self.rows.axis.taps + r
        with writer.loop("p", Entry(row_count, at_row)) as p:
            row = as_index(p) + Entry(row_first, at_row)
            x_row = as_index(p) * self.rows.axis.advance + Entry(row_source, at_row)
            here = _Row(as_index(g) * self.sources + c, x_row, row, vectors)
            if wide > 1:
                self._along(cells, here, taps)
            else:
                self._pixels(cells, here, j)
        for plane, registers in zip(places, cells, strict=True):
            for line, found in zip(plane, registers, strict=True):
                for at, cell in zip(line, found, strict=True):
                    writer.store(self.sums, *at, value=Read(cell))

    def _cell(self, at: tuple[IndexLike, ...], lanes: int) -> Register:
        writer = self.writer
        start = writer.load(self.sums, *at, lanes=lanes) if self.waits else number(0.0, lanes)
        return writer.assign(writer.register("a", lanes=lanes), start)

    def _pixels(self, cells: list[list[list[Register]]], here: _Row, j: Var) -> None:
        """cells[n][0][i] += source map n · vector i, pixel by pixel of the strip's row."""
        writer = self.writer
        count, first, source = self.columns.of_tap
        with (
            writer.loop("q", Entry(count, as_index(j))) as q,
            writer.loop("n", LANES) as n,
        ):
            column = as_index(q) + Entry(first, as_index(j))
            x_column = as_index(q) * self.columns.axis.advance + Entry(source, as_index(j))
            error = self._errors(here, column, n)
            for i, plane in enumerate(cells):
                self._add(plane, here, i, x_column, n, [(0, 0)], error)

    def _along(self, cells: list[list[list[Register]]], here: _Row, taps: range) -> None:
        """cells[n][t][i] += source map n · the vector i that it meets through tap t, column by
        column of x."""
        writer = self.writer
        for part in along(self.columns.axis):
            if not any(part.of_tap(t) for t in taps):
                continue
            with writer.loop("q", part.tiles) as q, writer.loop("n", LANES) as n:
                first = as_index(q) * part.advance + part.origin
                error = self._errors(here, first, n)
                for at in range(part.width):
                    met = [(t - taps.start, column) for t, column in part.of_column(at, taps)]
                    x_column = as_index(q) * part.width + (part.start + at)
                    for i, plane in enumerate(cells) if met else ():
                        self._add(plane, here, i, x_column, n, met, error)

    def _errors(self, here: _Row, first: Index, n: Var) -> Callable[[int, int], Read]:
        """(column behind the first, vector) → gradients of 16 kernels, loaded when first used."""
        loaded: dict[tuple[int, int], Read] = {}

        def error(column: int, i: int) -> Read:
            if (column, i) not in loaded:
                one = here.vectors[i]
                place = one.block, here.row, first + column, n, one.lane
                value = self.writer.load(self.turned, *place, lanes=one.lanes)
                loaded[column, i] = self.writer.let(value, "e")
            return loaded[column, i]

        return error

    def _add(
        self,
        plane: list[list[Register]],
        here: _Row,
        i: int,
        x_column: Index,
        n: Var,
        met: Sequence[tuple[int, int]],
        error: Callable[[int, int], Read],
    ) -> None:
        """A value of source map i, times every vector that it meets: (tap, column of dy)."""
        writer = self.writer
        x = writer.load(self.source, here.source + i, here.x_row, x_column, n, lanes=1)
        wide = {n: writer.let(spread(x, n), "x") for n in {one.lanes for one in here.vectors}}
        for v, one in enumerate(here.vectors):
            for tap, column in met:
                add_product(writer, plane[tap][v], wide[one.lanes], error(column, v))


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
