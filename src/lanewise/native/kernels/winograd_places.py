"""Winograd's tiles: where they lie in the source and in the result, block by block.

Tiles are taken in their order, row by row; a block is some tiles of one row, or some whole rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from lanewise.native.kernels.functions import number
from lanewise.native.kernels.winograd_transforms import Algorithm
from lanewise.native.nest import Buffer, table
from lanewise.native.writer import Writer


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
    def down(self) -> int:
        """Tiles one below the other."""
        return -(-self.rows.destination // self.algorithm.outputs)

    @property
    def tiles(self) -> int:
        """Tiles of one map."""
        return self.across * self.down


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


@dataclass(frozen=True)
class Block:
    """Tiles that go together: the first one's row and column, so many of them down and across."""

    row: int
    column: int
    down: int
    across: int


def rectangle(sizes: Winograd, block: int) -> tuple[int, int]:
    """Tiles of a block down and across: of `block` tiles, what is part of a row or whole rows."""
    if block < sizes.across:
        return 1, _share(sizes.across, block)
    return _share(sizes.down, block // sizes.across), sizes.across


def _share(all: int, most: int) -> int:
    """The largest of even shares, none of them more than `most`."""
    return -(-all // -(-all // most))


def blocks_of(sizes: Winograd, block: int) -> list[Block]:
    """All tiles in their order, some at a time."""
    down, across = rectangle(sizes, block)
    return [
        Block(row, column, min(down, sizes.down - row), min(across, sizes.across - column))
        for row in range(0, sizes.down, down)
        for column in range(0, sizes.across, across)
    ]


@lru_cache(maxsize=4096)
def block_tiles(sizes: Winograd, block: int) -> list[int]:
    """Tiles of each block."""
    return [one.down * one.across for one in blocks_of(sizes, block)]


def read_places(sizes: Winograd, block: int) -> list[Place]:
    """What each block reads."""
    m, more = sizes.algorithm.outputs, sizes.algorithm.taps - 1
    return [
        Place.of(
            Span.of(one.row * m - sizes.rows.before, one.down * m + more, sizes.rows.source),
            Span.of(
                one.column * m - sizes.columns.before, one.across * m + more, sizes.columns.source
            ),
        )
        for one in blocks_of(sizes, block)
    ]


def written_places(sizes: Winograd, block: int) -> list[Place]:
    """What tile i of block b writes, at b · block + i."""
    m = sizes.algorithm.outputs
    return [
        Place.of(
            Span.of(row * m, m, sizes.rows.destination),
            Span.of(column * m, m, sizes.columns.destination),
        )
        for row, column in tile_places(sizes, block)
    ]


def pooled_places(sizes: Winograd, block: int) -> list[Place]:
    """Where the windows of 2 × 2 results lie, for results of even rows and columns."""

    def halved(span: Span) -> Span:
        return Span(span.at // 2, span.first // 2, span.count // 2)

    return [
        Place(halved(place.row), halved(place.column)) for place in written_places(sizes, block)
    ]


def tile_places(sizes: Winograd, block: int, inside: bool = False) -> list[tuple[int, int]]:
    """Row and column of tile i of block b, at b · block + i; `inside` the block."""
    found = []
    for one in blocks_of(sizes, block):
        row, column = (0, 0) if inside else (one.row, one.column)
        mine = [(row + r, column + s) for r in range(one.down) for s in range(one.across)]
        found += mine + [(0, 0)] * (block - len(mine))
    return found


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


def clear(writer: Writer, array: Buffer) -> None:
    """Zeros everywhere in an array of four axes."""
    outer, middle, inner, _ = array.shape
    with (
        writer.loop("f", outer) as f,
        writer.loop("k", middle) as k,
        writer.loop("t", inner) as t,
    ):
        writer.store(array, f, k, t, 0, value=number(0.0))
