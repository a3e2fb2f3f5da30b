"""How a nest reads Winograd's tiles where they lie, in an array that is read as it stands.

A tile may stick out over the array. What it reads is then copied to a place of its own, which has
zeros around it: one for each way to stick out, cleared once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from lanewise.native.kernels.winograd_places import (
    Place,
    Span,
    TileTables,
    Winograd,
    clear,
    tile_places,
)
from lanewise.native.nest import LANES, Buffer, Entry, Index, IndexLike, Value, as_index, table
from lanewise.native.writer import Writer

#: row and column inside a tile → the value there
Load: TypeAlias = Callable[[int, int], Value]


def tile_reads(sizes: Winograd, block: int) -> list[Place]:
    """What tile i of block b reads, at b · block + i."""
    m, size = sizes.algorithm.outputs, sizes.algorithm.size
    return [
        Place.of(
            Span.of(row * m - sizes.rows.before, size, sizes.rows.source),
            Span.of(column * m - sizes.columns.before, size, sizes.columns.source),
        )
        for row, column in tile_places(sizes, block)
    ]


def edges_shape(sizes: Winograd, block: int) -> tuple[int, int, int, int]:
    """The copies of tiles that stick out: each in a strip of its own, with room for neighbours on
    both sides (`_margin`)."""
    places, width = tile_reads(sizes, block), sizes.algorithm.size
    return max(1, len(_ways(places, width))), width, width + 2 * _margin(width), LANES


def _margin(width: int) -> int:
    return width - 1


def _ways(places: Sequence[Place], width: int) -> list[tuple[int, int, int, int]]:
    """The different ways in which tiles stick out."""
    return sorted({_way(place) for place in places if not place.whole(width)})


def _way(place: Place) -> tuple[int, int, int, int]:
    return place.row.at, place.row.count, place.column.at, place.column.count


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
