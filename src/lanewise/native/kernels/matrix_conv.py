"""Convolution of bf16 maps by small matrices (AMX): forward, and gradient of the input.

    target[k, p, q] = Σ_c,r,s  w[k, c, r, s] · source[c, …]         as in `conv.py`

One product takes 16 kernels × 32 sources of weights and 32 sources × 16 images of one pixel, which
stand as pairs of neighbouring sources, and adds to 16 kernels × 16 images of sums. So what a strip
of destination rows reads is first copied as such pairs, each pixel's of a block of sources end to
end; and the weights are laid out likewise, once a step (`matrix_weights.py`). Sources and kernels
are cut into blocks of like size; what the last block lacks is zero.

Four sums, of two blocks of kernels and two neighbouring columns, go on at a time: each weight that
is loaded serves two columns, each pixel two blocks of kernels, and a column stays for the next tap.
Sums are complete before they leave the registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from lanewise.native.kernels.correlation import Correlation
from lanewise.native.kernels.register_tiles import blocks
from lanewise.native.kernels.result import Result
from lanewise.native.kernels.taps import Phase, RowTaps, Segment, column_segments, phases
from lanewise.native.nest import (
    LANES,
    MATRIX_SIZE,
    Buffer,
    Constant,
    Entry,
    Index,
    IndexLike,
    Kernel,
    Matrix,
    Value,
    Var,
    as_index,
    op,
    table,
)
from lanewise.native.writer import Writer

#: blocks of kernels and columns whose sums are worked on together
TOGETHER = 2
#: columns that are copied in one turn of the loop
COPIED = 4


@dataclass(frozen=True)
class MatrixTile:
    """Kernels and pairs of sources of one product; destination rows of a strip, a multiple of the
    rows' period."""

    maps: int
    pairs: int
    rows: int


def even_block(size: int) -> int:
    """Cut a size into as few blocks as can be, of like length: so much is a block."""
    return -(-size // -(-size // MATRIX_SIZE))


@dataclass(frozen=True)
class Blocks:
    """How maps and sources of a convolution are cut. `odd`: the last pair is one source alone."""

    sizes: Correlation
    tile: MatrixTile

    @property
    def maps(self) -> int:
        return -(-self.sizes.maps // self.tile.maps)

    @property
    def pairs(self) -> int:
        return -(-self.sizes.sources // 2)

    @property
    def sources(self) -> int:
        return -(-self.pairs // self.tile.pairs)

    @property
    def odd(self) -> bool:
        return self.sizes.sources % 2 == 1

    @cached_property
    def together(self) -> list[tuple[int, tuple[int, ...], int]]:
        """Blocks of kernels that are worked on together: the first, kernels of each, how often."""
        whole, rest = divmod(self.sizes.maps, self.tile.maps)
        counts = [self.tile.maps] * whole + [rest] * (rest > 0)
        found: list[tuple[int, tuple[int, ...], int]] = []
        for first in range(0, len(counts), TOGETHER):
            some = tuple(counts[first : first + TOGETHER])
            if found and found[-1][1] == some:
                found[-1] = *found[-1][:2], found[-1][2] + 1
            else:
                found.append((first, some, 1))
        return found

    @cached_property
    def parts(self) -> list[tuple[int, int, int, bool]]:
        """Blocks of sources of one kind: the first, the last + 1, pairs of each, whether the last
        of these pairs is odd."""
        found = []
        for first, count, times in blocks(self.pairs, self.tile.pairs):
            start, stop = first // self.tile.pairs, first // self.tile.pairs + times
            odd = self.odd and first + count * times == self.pairs
            found += [(start, stop - odd, count, False), (stop - odd, stop, count, True)]
        return [part for part in found if part[0] < part[1]]


def weights_shape(sizes: Correlation, tile: MatrixTile) -> tuple[int, ...]:
    """Blocks of kernels, blocks of sources, taps, kernels, pairs of sources."""
    cut = Blocks(sizes, tile)
    area = sizes.rows.taps * sizes.columns.taps
    return cut.maps, cut.sources, area, tile.maps, MATRIX_SIZE


def packed_shape(sizes: Correlation, tile: MatrixTile) -> tuple[int, ...]:
    """Room for a strip: blocks of sources, rows, columns, pairs, lanes."""
    rows = max(rows_read(sizes, tile))
    return Blocks(sizes, tile).sources, rows, sizes.columns.source, tile.pairs, LANES


def rows_read(sizes: Correlation, tile: MatrixTile) -> list[int]:
    """How many source rows each strip copies."""
    return _Strips(sizes, tile).counts


def sums_shape(tile: MatrixTile) -> tuple[int, ...]:
    """Room for sums on their way from the registers: four matrices."""
    return TOGETHER * TOGETHER, tile.maps, LANES


# ---- products -----------------------------------------------------------------------------------


def correlate(
    name: str,
    sizes: Correlation,
    tile: MatrixTile,
    *,
    bias: bool = False,
    affine: bool = False,
    accumulate: bool = False,
    relu: bool = False,
    mask: bool = False,
    plus: bool = False,
) -> Kernel:
    """Buffers source (bf16), weight (`weights_shape`), packed, sums, those of `Result`."""
    shape = (sizes.maps, sizes.rows.destination, sizes.columns.destination, LANES)
    result = Result(shape, bias, affine, accumulate, relu, mask, plus=plus)
    return _Nest(name, sizes, tile, result).write()


@dataclass(frozen=True)
class _Strips:
    """Strips of destination rows, and for each the source rows that it meets: from which on
    (`firsts`), how many (`counts`)."""

    sizes: Correlation
    tile: MatrixTile

    @property
    def number(self) -> int:
        return -(-self.sizes.rows.destination // self.tile.rows)

    @cached_property
    def _met(self) -> list[list[int]]:
        rows = self.sizes.rows.sources
        strips = (rows[i * self.tile.rows :][: self.tile.rows] for i in range(self.number))
        return [[s for row in strip for s in row if s is not None] or [0] for strip in strips]

    @cached_property
    def firsts(self) -> list[int]:
        return [min(met) for met in self._met]

    @cached_property
    def counts(self) -> list[int]:
        return [max(met) - min(met) + 1 for met in self._met]

    def rows_of(self, phase: Phase) -> list[int]:
        """How many rows of a phase each strip has."""
        each = self.tile.rows // phase.step
        left = (phase.taps.destination - i * each for i in range(self.number))
        return [min(each, max(0, rows)) for rows in left]


@dataclass(frozen=True)
class _Line:
    """Row i of a phase, in strip `strip`. `first`: the source row that was copied first."""

    phase: Phase
    taps: RowTaps
    i: Index
    first: Entry

    @property
    def row(self) -> Index:
        return self.i * self.phase.step + self.phase.start


@dataclass
class _Columns:
    """The columns' pairs that are in registers: two matrices, the older one gives way."""

    matrices: tuple[Matrix, Matrix]
    held: list[tuple[int, Matrix]] = field(default_factory=list)

    def take(self, column: int, needed: set[int]) -> tuple[Matrix, bool]:
        """The matrix of a column, and whether it has yet to be loaded; those needed stay."""
        for one, matrix in self.held:
            if one == column:
                return matrix, False
        if len(self.held) < len(self.matrices):
            matrix = self.matrices[len(self.held)]
        else:
            place = next(i for i, (one, _) in enumerate(self.held) if one not in needed)
            matrix = self.held.pop(place)[1]
        self.held.append((column, matrix))
        return matrix, True


class _Nest:
    """Writes `correlate`: loops over strips, rows, blocks of kernels, columns; sources and taps."""

    def __init__(self, name: str, sizes: Correlation, tile: MatrixTile, result: Result) -> None:
        self.sizes, self.tile, self.result = sizes, tile, result
        self.cut, self.strips = Blocks(sizes, tile), _Strips(sizes, tile)
        planes = (sizes.sources, sizes.rows.source, sizes.columns.source, LANES)
        self.source = Buffer("source", planes, "bf16", align=2 * LANES)
        self.weight = Buffer("weight", weights_shape(sizes, tile), "i32")
        self.packed = Buffer("packed", packed_shape(sizes, tile), "i32", "update", own=True)
        self.sums = Buffer("sums", sums_shape(tile), access="update", own=True)
        buffers = [self.source, self.weight, self.packed, self.sums, *result.buffers]
        self.writer = Writer(name, buffers)
        numbers = range(TOGETHER)
        self.cells = [
            [Matrix(TOGETHER * a + j, tile.maps, LANES) for j in numbers] for a in numbers
        ]
        self.factors = [Matrix(4 + a, tile.maps, tile.pairs) for a in numbers]
        self.columns = Matrix(6, tile.pairs, LANES), Matrix(7, tile.pairs, LANES)

    def write(self) -> Kernel:
        """The whole kernel."""
        writer = self.writer
        firsts = table("strip_first", self.strips.firsts)
        counts = table("strip_rows", self.strips.counts)
        with writer.loop("u", self.strips.number, shared=True) as u:
            first = Entry(firsts, as_index(u))
            self._pack(first, Entry(counts, as_index(u)))
            for line in self._lines(u, first):
                for k, counted in self._maps():
                    for phase, segment, n in self._tiles():
                        self._tile(line, k, counted, phase, segment, n)
        return writer.finish()

    # -- loops

    def _lines(self, u: Var, first: Entry) -> Iterator[_Line]:
        for phase in phases(self.sizes.rows):
            counts = table("rows", self.strips.rows_of(phase))
            with self.writer.loop("p", Entry(counts, as_index(u))) as p:
                i = as_index(u) * (self.tile.rows // phase.step) + p
                yield _Line(phase, RowTaps(phase.taps, phase.numbers), i, first)

    def _maps(self) -> Iterator[tuple[Index, tuple[int, ...]]]:
        """The first of some blocks of kernels, and how many kernels each has."""
        for first, counted, times in self.cut.together:
            with self.writer.loop("k", times) as k:
                yield as_index(k) * len(counted) + first, counted

    def _tiles(self) -> Iterator[tuple[Phase, Segment, Index]]:
        for phase in phases(self.sizes.columns):
            for segment in column_segments(phase.taps, TOGETHER):
                with self.writer.loop("n", segment.tiles) as n:
                    yield phase, segment, as_index(n)

    # -- the sources of a strip

    def _pack(self, first: Entry, rows: Entry) -> None:
        """Pairs of sources, and zeros in the place of those that do not exist."""
        writer, pairs = self.writer, self.tile.pairs
        for start, stop, count, odd in self.cut.parts:
            with writer.loop("s", stop, start) as s:
                ends = ((0, count - odd, 2), (count - odd, count, 1), (count, pairs, 0))
                for begin, end, exist in (one for one in ends if one[0] < one[1]):
                    with writer.loop("c", end, begin) as c:
                        map = (as_index(s) * pairs + c) * 2
                        self._pack_rows(first, rows, s, c, [map, map + 1][:exist])

    def _pack_rows(self, first: Entry, rows: Entry, s: Var, c: Var, maps: list[Index]) -> None:
        writer = self.writer
        with writer.loop("m", rows) as m:
            for begin, count, times in blocks(self.sizes.columns.source, COPIED):
                with writer.loop("j", begin + count * times, begin, count) as j:
                    for column in (as_index(j) + i for i in range(count)):
                        found: list[Value] = [
                            writer.load(self.source, map, as_index(m) + first, column, 0)
                            for map in maps
                        ]
                        none = [Constant(0, "bf16")] * (2 - len(found))
                        value = op("pair", *found, *none)
                        writer.store(self.packed, s, m, column, c, 0, value=value)

    # -- a tile

    def _tile(
        self,
        line: _Line,
        k: Index,
        counted: tuple[int, ...],
        phase: Phase,
        segment: Segment,
        n: Index,
    ) -> None:
        writer, width = self.writer, segment.width
        meets = line.phase.numbers and phase.numbers
        if not meets and self.result.accumulate and not self.result.changes:
            return  # what stands in the target already is right
        cells = [row[:width] for row in self.cells[: len(counted)]]
        for cell in (cell for row in cells for cell in row):
            writer.matrix_zero(cell)
        if meets:
            with (
                writer.loop("s", self.cut.sources) as s,
                writer.loop("m", line.taps.count(line.i)) as m,
            ):
                self._products(cells, line, k, s, m, phase, segment, n)
        for number, cell in enumerate(cell for row in cells for cell in row):
            writer.matrix_store(cell, self.sums, number, 0, 0, axis=1)
        columns = [
            ((n * width + segment.start + j) * phase.step + phase.start) for j in range(width)
        ]
        for a, count in enumerate(counted):
            with writer.loop("i", count) as i:
                for j, column in enumerate(columns):
                    at = (k + a) * self.tile.maps + i, line.row, column, 0
                    self._finish(at, writer.load(self.sums, a * width + j, i, 0))

    def _products(
        self,
        cells: list[list[Matrix]],
        line: _Line,
        k: Index,
        s: Var,
        m: Var,
        phase: Phase,
        segment: Segment,
        n: Index,
    ) -> None:
        """Every tap of one row of the kernel, and one block of sources."""
        writer = self.writer
        held = _Columns(self.columns)
        tap_row = as_index(line.taps.tap(line.i, m)) * self.sizes.columns.taps
        row = as_index(line.taps.source(line.i, m)) + as_index(line.first) * -1
        first = n * segment.advance + segment.origin
        for t in phase.taps.by_column:
            met = segment.of_tap(t)
            if not met:
                continue
            for a in range(len(cells)):
                tap = tap_row + phase.numbers[t]
                writer.matrix_load(self.factors[a], self.weight, k + a, s, tap, 0, 0, axis=3)
            needed = {column for _, column in met}
            for j, column in met:
                matrix, new = held.take(column, needed)
                if new:
                    writer.matrix_load(matrix, self.packed, s, row, first + column, 0, 0, axis=3)
                for a, line_of_cells in enumerate(cells):
                    writer.matrix_dot(line_of_cells[j], self.factors[a], matrix)

    def _finish(self, at: tuple[IndexLike, ...], value: Value) -> None:
        if self.result.bias or self.result.accumulate:
            value = op("add", self.result.start(self.writer, at), value)
        self.result.store(self.writer, at, self.writer.let(value, "y"))
