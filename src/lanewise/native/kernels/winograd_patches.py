"""What a block of Winograd's tiles reads, copied to a small place of its own with zeros around it.

Rows of maps lie end to end, so they are read as one long piece; the tiles then overlap where the
first-level cache holds all. A patch has zeros where it sticks out over the map: one patch for each
way to do so, cleared once. What is made of a value on its way (`Reading`) is made there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from lanewise.native.kernels.fused_norm import Reading, cases
from lanewise.native.kernels.register_tiles import blocks
from lanewise.native.kernels.winograd_edges import Load
from lanewise.native.kernels.winograd_places import (
    Place,
    Winograd,
    blocks_of,
    clear,
    read_places,
    rectangle,
    tile_places,
)
from lanewise.native.nest import (
    LANES,
    Buffer,
    Entry,
    Index,
    Value,
    Var,
    as_index,
    table,
)
from lanewise.native.writer import Writer

#: columns copied in one turn
UNROLLED = 8


def patches_shape(sizes: Winograd, block: int) -> tuple[int, int, int, int]:
    """Patches: ways to stick out, rows, columns (an odd number of lines), lanes."""
    places, strip = read_places(sizes, block), _strip(sizes, block)
    down, across = rectangle(sizes, block)
    m, more = sizes.algorithm.outputs, sizes.algorithm.taps - 1
    copied = max(_shifts(places, strip)) + strip
    columns = max(copied, _margin(places, strip) + across * m + more)
    return len(_ways(places)), down * m + more, columns | 1, LANES


def _strip(sizes: Winograd, block: int) -> int:
    """Columns that are copied: as many as a block reads, or all there are."""
    across = rectangle(sizes, block)[1]
    width = across * sizes.algorithm.outputs + sizes.algorithm.taps - 1
    return min(width, sizes.columns.source)


def _new_rows(places: Sequence[Place], sizes: Winograd, block: int) -> list[int]:
    """Of the rows that a block reads, the first that no row of blocks before it has read."""
    ends: dict[int, int] = {}
    for one, place in zip(blocks_of(sizes, block), places, strict=True):
        ends[one.row] = place.row.first + place.row.count
    before = dict(zip(ends, [0, *accumulate(ends.values(), max)], strict=False))
    return [
        min(max(0, before[one.row] - place.row.first), place.row.count)
        for one, place in zip(blocks_of(sizes, block), places, strict=True)
    ]


def _begins(places: Sequence[Place], strip: int) -> list[int]:
    """The first column that is copied: a strip may reach over a block on either side."""
    end = max(p.column.first + p.column.count for p in places)
    return [max(0, min(p.column.first, end - strip)) for p in places]


def _margin(places: Sequence[Place], strip: int) -> int:
    """Columns on the left for what is copied beyond what is read."""
    begins = _begins(places, strip)
    return max(p.column.first - begin for p, begin in zip(places, begins, strict=True))


def _shifts(places: Sequence[Place], strip: int) -> list[int]:
    """Where in a patch the first column that is copied goes."""
    margin, begins = _margin(places, strip), _begins(places, strip)
    pairs = zip(places, begins, strict=True)
    return [margin + p.column.at + begin - p.column.first for p, begin in pairs]


def _ways(places: Sequence[Place]) -> list[tuple[int, int, int, int]]:
    """The different ways in which blocks stick out."""
    return sorted({_way(place) for place in places})


def _way(place: Place) -> tuple[int, int, int, int]:
    return place.row.at, place.row.count, place.column.at, place.column.count


class Patches:
    """Copies what a block reads; then the block's tiles are read from there."""

    def __init__(
        self, writer: Writer, reading: Reading, patches: Buffer, sizes: Winograd, block: int
    ) -> None:
        self.writer, self.reading, self.patches, self.block = writer, reading, patches, block
        places, self.strip = read_places(sizes, block), _strip(sizes, block)
        ways, begins = _ways(places), _begins(places, self.strip)
        self.margin, m = _margin(places, self.strip), sizes.algorithm.outputs
        shifts = _shifts(places, self.strip)
        tiles = tile_places(sizes, block, inside=True)
        self.way = table("patch_way", [ways.index(_way(p)) for p in places])
        self.begin, self.shift = table("patch_begin", begins), table("patch_shift", shifts)
        self.row = table("patch_row", [p.row.first for p in places])
        self.row_at = table("patch_row_at", [p.row.at for p in places])
        self.new = table("patch_new", _new_rows(places, sizes, block))
        self.rows = table("patch_rows", [p.row.count for p in places])
        self.tile_row = table("patch_tile_row", [m * row for row, _ in tiles])
        self.tile_column = table("patch_tile_column", [m * column for _, column in tiles])

    def clear(self) -> None:
        """Zeros around all that will be copied."""
        clear(self.writer, self.patches)

    def fill(self, b: Var, map: Index) -> None:
        """What block b reads of a map. Rows that it shares with the block before are kept by that
        one."""
        constants = self.reading.constants(self.writer, map)
        for often, reading in cases(self.reading):
            if often is None:
                self._fill(b, map, constants, reading)
            else:
                with self.writer.loop("w", Entry(often, map)):
                    self._fill(b, map, constants, reading)

    def _fill(self, b: Var, map: Index, constants: list[Value], reading: Reading) -> None:
        made = map, constants, reading
        if reading.kept is None:
            self._rows(b, made, as_index(0), self.rows, None)
            return
        self._rows(b, made, as_index(0), self.new, None)
        new = as_index(Entry(self.new, as_index(b)))
        self._rows(b, made, new, self.rows, reading.kept)

    def _rows(
        self,
        b: Var,
        made: tuple[Index, list[Value], Reading],
        start: Index,
        end: Buffer,
        kept: Buffer | None,
    ) -> None:
        writer, now, (map, constants, reading) = self.writer, as_index(b), made
        way, begin, to = (as_index(Entry(t, now)) for t in (self.way, self.begin, self.shift))
        row, row_at = (as_index(Entry(t, now)) for t in (self.row, self.row_at))
        with writer.loop("r", Entry(end, now), start) as r:
            for first, count, times in blocks(self.strip, UNROLLED):
                with writer.loop("s", first + count * times, first, count) as s:
                    for j in range(count):
                        at = map, row + r, begin + s + j, 0
                        value = writer.let(reading.value(writer, constants, at))
                        if kept:
                            writer.store(kept, *at, value=value, away=reading.away)
                        writer.store(self.patches, way, row_at + r, to + s + j, 0, value=value)

    def loads(self, b: Var, i: Var) -> Load:
        """What reads tile i of block b."""
        n, way = as_index(b) * self.block + i, as_index(Entry(self.way, as_index(b)))
        row, column = (as_index(Entry(t, n)) for t in (self.tile_row, self.tile_column))
        begin = column + self.margin
        return lambda r, s: self.writer.load(self.patches, way, row + r, begin + s, 0)
