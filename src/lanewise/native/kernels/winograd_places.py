"""Winograd's tiles: where they lie in the source and in the result, and how a nest reads them.

A tile may stick out over an array. What it reads is then copied to a place of its own, which has
zeros around it: one for each way to stick out, cleared once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from lanewise.native.kernels.functions import number
from lanewise.native.kernels.winograd_transforms import Algorithm
from lanewise.native.nest import LANES, Buffer, Entry, Index, IndexLike, Value, as_index, table
from lanewise.native.writer import Writer

#: row and column inside a tile → the value there
Load: TypeAlias = Callable[[int, int], Value]


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution of stride 1: destination d meets source d + tap − before."""

    destination: int
    source: int
    before: int


@dataclass(frozen=True)
class Winograd:
    """Sizes of one convolution of stride 1, forward or input gradient."""

    algorithm: Algorithm
    maps: int
    sources: int
    rows: Axis
    columns: Axis

    @property
    def across(self) -> int:
        """Tiles side by side."""
        return -(-self.columns.destination // self.algorithm.outputs)

    @property
    def tiles(self) -> int:
        """Tiles of one map."""
        return self.across * -(-self.rows.destination // self.algorithm.outputs)


@dataclass(frozen=True)
class Span:
    """Where a tile overlaps an array along one axis: first place of the tile, first index of the
    array, how many."""

    at: int
    first: int
    count: int

    @staticmethod
    def of(origin: int, width: int, size: int) -> Span:
        first, end = max(0, origin), min(size, origin + width)
        if end <= first:
            return Span(0, 0, 0)
        return Span(first - origin, first, end - first)


@dataclass(frozen=True)
class Place:
    """Where a tile lies, in its source or its result."""

    row: Span
    column: Span

    @staticmethod
    def of(row: Span, column: Span) -> Place:
        """Nothing of a tile is inside if none of its rows or none of its columns is."""
        nothing = Span(0, 0, 0)
        return Place(row, column) if row.count and column.count else Place(nothing, nothing)

    def whole(self, width: int) -> bool:
        """Whether no part of it sticks out."""
        return self.row.count == width and self.column.count == width


def read_places(sizes: Winograd) -> list[Place]:
    m, size = sizes.algorithm.outputs, sizes.algorithm.size
    return [
        Place.of(
            Span.of(row * m - sizes.rows.before, size, sizes.rows.source),
            Span.of(column * m - sizes.columns.before, size, sizes.columns.source),
        )
        for row, column in (divmod(n, sizes.across) for n in range(sizes.tiles))
    ]


def written_places(sizes: Winograd) -> list[Place]:
    m = sizes.algorithm.outputs
    return [
        Place.of(
            Span.of(row * m, m, sizes.rows.destination),
            Span.of(column * m, m, sizes.columns.destination),
        )
        for row, column in (divmod(n, sizes.across) for n in range(sizes.tiles))
    ]


def pooled_places(sizes: Winograd) -> list[Place]:
    """Where the windows of 2 × 2 results lie, for results of even rows and columns."""

    def halved(span: Span) -> Span:
        return Span(span.at // 2, span.first // 2, span.count // 2)

    return [Place(halved(place.row), halved(place.column)) for place in written_places(sizes)]


def block_tiles(sizes: Winograd, block: int) -> list[int]:
    """Tiles of each block."""
    return [min(block, left) for left in range(sizes.tiles, 0, -block)]


def edges_shape(places: Sequence[Place], width: int) -> tuple[int, int, int, int]:
    """The copies of tiles that stick out: each in a strip of its own, with room for neighbours on
    both sides (`_margin`)."""
    return max(1, len(_ways(places, width))), width, width + 2 * _margin(width), LANES


def _margin(width: int) -> int:
    return width - 1


def _ways(places: Sequence[Place], width: int) -> list[tuple[int, int, int, int]]:
    """The different ways in which tiles stick out."""
    return sorted({_way(place) for place in places if not place.whole(width)})


def _way(place: Place) -> tuple[int, int, int, int]:
    return place.row.at, place.row.count, place.column.at, place.column.count


class TileTables:
    """Where the tiles lie, one entry each: a loop over tiles looks them up."""

    def __init__(self, stem: str, places: Sequence[Place], width: int) -> None:
        whole = [int(place.whole(width)) for place in places]
        self.any_whole, self.any_part = any(whole), not all(whole)
        self.whole = table(f"{stem}_whole", whole)
        self.part = table(f"{stem}_part", [1 - w for w in whole])
        self.row = table(f"{stem}_row", [p.row.first for p in places])
        self.rows = table(f"{stem}_rows", [p.row.count for p in places])
        self.row_at = table(f"{stem}_row_at", [p.row.at for p in places])
        self.column = table(f"{stem}_column", [p.column.first for p in places])
        self.columns = table(f"{stem}_columns", [p.column.count for p in places])


class TileReader:
    """Reads tiles of an array; where they stick out, by way of `edges` (`edges_shape`)."""

    def __init__(
        self, writer: Writer, array: Buffer, edges: Buffer, places: Sequence[Place], columns: int
    ) -> None:
        """`columns`: how many the array has."""
        width = edges.shape[1]
        assert isinstance(width, int)
        self.writer, self.array, self.edges = writer, array, edges
        self.tables = TileTables(f"{array.name}_tile", places, width)
        self.strip, self.margin = min(width, columns), _margin(width)
        ways = _ways(places, width)
        numbers = [0 if p.whole(width) else ways.index(_way(p)) for p in places]
        begins = [min(p.column.first, columns - self.strip) for p in places]
        shifts = [
            self.margin + p.column.at + begin - p.column.first
            for p, begin in zip(places, begins, strict=True)
        ]
        self.number = table(f"{array.name}_edge", numbers)
        self.begin = table(f"{array.name}_edge_begin", begins)
        self.column = table(f"{array.name}_edge_column", shifts)

    def clear(self) -> None:
        """Zeros around all that will be copied."""
        if self.tables.any_part:
            clear(self.writer, self.edges)

    def read(
        self,
        n: Index,
        place: Callable[[Index, Index], tuple[IndexLike, ...]],
        then: Callable[[Load], None],
    ) -> None:
        """`then` with what loads a value of tile n; `place`: row and column → index."""
        writer, tables = self.writer, self.tables
        if tables.any_whole:
            with writer.loop("w", Entry(tables.whole, n)):
                row, column = as_index(Entry(tables.row, n)), as_index(Entry(tables.column, n))
                then(lambda r, s: writer.load(self.array, *place(row + r, column + s)))
        if tables.any_part:
            with writer.loop("w", Entry(tables.part, n)):
                self._copy(n, place)
                edge = Entry(self.number, n)
                then(lambda r, s: writer.load(self.edges, edge, r, self.margin + s, 0))

    def _copy(self, n: Index, place: Callable[[Index, Index], tuple[IndexLike, ...]]) -> None:
        """What of a tile lies inside. Columns are copied in strips as wide as a tile, which may
        reach over it on one side."""
        writer, tables, edge = self.writer, self.tables, Entry(self.number, n)
        begin, column = as_index(Entry(self.begin, n)), as_index(Entry(self.column, n))
        with writer.loop("r", Entry(tables.rows, n)) as r:
            row, to = (as_index(Entry(t, n)) + r for t in (tables.row, tables.row_at))
            for j in range(self.strip):
                value = writer.load(self.array, *place(row, begin + j))
                writer.store(self.edges, edge, to, column + j, 0, value=value)


def clear(writer: Writer, array: Buffer) -> None:
    """Zeros everywhere in an array of four axes."""
    outer, middle, inner, _ = array.shape
    with (
        writer.loop("f", outer) as f,
        writer.loop("k", middle) as k,
        writer.loop("t", inner) as t,
    ):
        writer.store(array, f, k, t, 0, value=number(0.0))
