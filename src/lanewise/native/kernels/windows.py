"""How a pooling window's taps meet pixels: small windows unrolled in tiles, large ones as loops.

A kernel asks for `tiles` of destination pixels and, inside each, for the `meetings` of a tap with
a source pixel. Whether these are written out or loops over tables, the kernel does not see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lanewise.native.kernels.taps import (
    RowTaps,
    Segment,
    Taps,
    balanced_width,
    column_segments,
)
from lanewise.native.nest import Constant, FromIndex, Index, IndexLike, Value, Var, as_index
from lanewise.native.writer import Writer

UNROLLED = 48  # at most so many (pixel, tap) pairs are written out in one tile
WIDEST = 4  # columns of a forward tile: running maximum and argument for each


@dataclass(frozen=True)
class Meeting:
    """A tap of the window meets a source pixel, for one cell of the tile."""

    cell: int
    tap: IndexLike
    row: IndexLike
    column: IndexLike
    near: tuple[int, int] | None  # the source pixel's place in an unrolled tile

    @property
    def number(self) -> Value:
        """The tap's number in every lane."""
        if isinstance(self.tap, int):
            return Constant(self.tap, "i32")
        return FromIndex(as_index(self.tap))


@dataclass
class Tile:
    """Destination pixels worked on together. Iterate over `meetings()` once, inside the tile."""

    cells: tuple[tuple[Index, Index], ...]
    meetings: Callable[[], Iterator[Meeting]]
    _loaded: dict[object, Value] = field(default_factory=dict)

    def once(self, meeting: Meeting, what: str, make: Callable[[], Value]) -> Value:
        """The value made for this source pixel, made once where the tile is unrolled."""
        if meeting.near is None:
            return make()
        key = what, meeting.near
        if key not in self._loaded:
            self._loaded[key] = make()
        return self._loaded[key]


def tiles(writer: Writer, rows: Taps, columns: Taps, widest: int = WIDEST) -> Iterator[Tile]:
    """All destination pixels of a map, tile by tile."""
    height = rows.period
    width = max(columns.period, balanced_width(columns.destination, widest))
    pairs = height * width * _meets(rows) * _meets(columns)
    if pairs > UNROLLED and width > columns.period:
        width = columns.period
        pairs = height * width * _meets(rows) * _meets(columns)
    if pairs > UNROLLED:
        yield from _looped(writer, rows, columns)
    else:
        yield from _unrolled(writer, rows, columns, height, width)


def _meets(taps: Taps) -> int:
    """How many taps meet one destination index, at most."""
    return max(sum(source is not None for source in line) for line in taps.sources)


def _unrolled(writer: Writer, rows: Taps, columns: Taps, height: int, width: int) -> Iterator[Tile]:
    for lines in column_segments(rows, height):
        with writer.loop("p", lines.tiles) as p:
            for part in column_segments(columns, width):
                with writer.loop("q", part.tiles) as q:
                    cells = tuple(
                        (_destination(lines, p, i), _destination(part, q, j))
                        for i in range(lines.width)
                        for j in range(part.width)
                    )
                    yield Tile(cells, _pattern(lines, part, p, q))


def _destination(part: Segment, tile: Var, offset: int) -> Index:
    return as_index(tile) * part.width + (part.start + offset)


def _pattern(lines: Segment, part: Segment, p: Var, q: Var) -> Callable[[], Iterator[Meeting]]:
    """Tap by tap in the order of the window, so that the first maximum is met first."""

    def meetings() -> Iterator[Meeting]:
        taps = len(part.pattern[0])
        for tap in range(len(lines.pattern[0]) * taps):
            r, s = divmod(tap, taps)
            for cell in range(lines.width * part.width):
                i, j = divmod(cell, part.width)
                row, column = lines.pattern[i][r], part.pattern[j][s]
                if row is None or column is None:
                    continue
                at_row = as_index(p) * lines.advance + (lines.origin + row)
                at_column = as_index(q) * part.advance + (part.origin + column)
                yield Meeting(cell, tap, at_row, at_column, (row, column))

    return meetings


def _looped(writer: Writer, rows: Taps, columns: Taps) -> Iterator[Tile]:
    row_taps, column_taps = RowTaps(rows), RowTaps(columns)
    with writer.loop("p", rows.destination) as p, writer.loop("q", columns.destination) as q:

        def meetings() -> Iterator[Meeting]:
            with (
                writer.loop("r", row_taps.count(p)) as r,
                writer.loop("s", column_taps.count(q)) as s,
            ):
                tap = as_index(row_taps.tap(p, r)) * columns.taps + column_taps.tap(q, s)
                yield Meeting(0, tap, row_taps.source(p, r), column_taps.source(q, s), None)

        yield Tile(((as_index(p), as_index(q)),), meetings)
