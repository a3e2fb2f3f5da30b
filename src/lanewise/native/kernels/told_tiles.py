"""What a direct convolution tells of its results (`fused_norm.py`), register tile by register tile.

A map's sums wait in memory from tile to tile, and each result is added to them by itself, in the
order of the tiles: row by row and from the left, whatever a tile holds. So registers, which another
processor may have fewer of, never show in the bits. Sums are taken about a map's first result, in a
corner, where padding may show. It does no harm: what all results have in common adds to the squares
about the mean, too, so rounding grows by no more than the number of results, in units of the last
place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

from lanewise.native.kernels.fused_norm import Sums, Tells
from lanewise.native.kernels.result import Result
from lanewise.native.nest import (
    Buffer,
    Entry,
    IndexLike,
    Read,
    Register,
    Var,
    as_index,
    op,
    table,
)
from lanewise.native.writer import Writer

#: map and place of one result
_At: TypeAlias = tuple[IndexLike, ...]
#: numbers, all of them 1 in the turn that is meant; None: it is none of these
Turns: TypeAlias = Sequence[IndexLike] | None


class ToldTiles:
    """Stores tiles of results and adds them up; writes them past the caches if `away`."""

    def __init__(self, tells: Tells, result: Result, away: bool) -> None:
        self.tally, self.result, self.away = tells.tally(result.shape), result, away
        self.buffers = self.tally.buffers
        self._once: dict[int, Buffer] = {}
        self._last: list[Buffer] = []

    def begin(self, writer: Writer) -> None:
        """Before all tiles."""
        if not self.tally.pivots:
            with writer.loop("k", self.result.shape[0]) as k:
                self.tally.begin(writer, k, None)

    def fetch(self, writer: Writer, places: Sequence[Sequence[_At]]) -> None:
        """Before a tile's sums: what it will be added up with comes from afar."""
        for buffer in self.tally.beside:
            for row in places:
                for at in row:
                    writer.fetch(buffer, *at)

    def fetch_some(
        self, writer: Writer, first: _At, tile: tuple[int, int, int], c: Var, turns: int
    ) -> None:
        """The same in turn c of so many, beside the products, for a tile that begins at `first`:
        maps, columns, and from column to column. The values of a mask, too."""
        maps, columns, step = tile
        each = -(-maps * columns // turns)
        places = [min(n, maps * columns - 1) for n in range(turns * each)]
        map, row, column, lane = first
        down = table("fetched_map", [n // columns for n in places])
        across = table("fetched_column", [n % columns * step for n in places])
        masks = [one for one in self.result.buffers if one.name == "value"]
        for buffer in (*self.tally.beside, *masks):
            for n in range(each):
                turn = as_index(c) * each + n
                at = as_index(column) + Entry(across, turn)
                writer.fetch(buffer, as_index(map) + Entry(down, turn), row, at, lane)

    def finish(self, writer: Writer) -> None:
        """After all tiles."""
        self.tally.finish(writer)

    def first(self, count: int, i: IndexLike) -> list[IndexLike]:
        """How often to do what is done in the first of so many turns: once in turn 0, else not."""
        if count == 1:
            return []
        if count not in self._once:
            self._once[count] = table("first", [1] + [0] * (count - 1))
        return [Entry(self._once[count], as_index(i))]

    def last(self, sources: int, together: int, first: IndexLike, count: int) -> Turns:
        """The same for a block of so many sources, some `together` of all, from a `first` one on:
        whether sums are complete with it; None: they are not."""
        whole, rest = divmod(sources, together)
        if rest or whole == 1:
            return [] if count == (rest or together) else None
        if not self._last:
            ends = [int(source + together >= sources) for source in range(sources)]
            self._last.append(table("last", ends))
        return [Entry(self._last[0], as_index(first))]

    def store(
        self,
        writer: Writer,
        places: Sequence[Sequence[_At]],
        cells: Sequence[Sequence[Register]],
        begins: Turns = None,
    ) -> None:
        """Finish a tile, write it and add it up, map by map. `begins`: where it is its maps' first
        tile."""
        self._pivot(writer, places, cells, begins)
        for row, registers in zip(places, cells, strict=True):
            values = []
            for at, cell in zip(row, registers, strict=True):
                y = writer.let(self.result.finish(writer, at, Read(cell)), "y")
                writer.store(self.result.buffers[-1], *at, value=y, away=self.away)
                values.append(y)
            self._add(writer, row, values)

    def add(
        self,
        writer: Writer,
        places: Sequence[Sequence[_At]],
        cells: Sequence[Sequence[Register]],
        begins: Turns,
        turns: Turns,
    ) -> None:
        """Add up a tile that has been written as it stands, if all `turns` are 1."""
        if turns is None:
            return
        with _loops(writer, turns):
            self._pivot(writer, places, cells, begins)
            for row, registers in zip(places, cells, strict=True):
                self._add(writer, row, [Read(register) for register in registers])

    def _pivot(
        self,
        writer: Writer,
        places: Sequence[Sequence[_At]],
        cells: Sequence[Sequence[Register]],
        begins: Turns,
    ) -> None:
        """What the sums are taken about."""
        if begins is None or not self.tally.pivots:
            return
        with _loops(writer, begins):
            for row, registers in zip(places, cells, strict=True):
                value = self.result.finish(writer, row[0], Read(registers[0]))
                self.tally.begin(writer, row[0][0], writer.let(value, "pivot"))

    def _add(self, writer: Writer, places: Sequence[_At], values: Sequence[Read]) -> None:
        told = Sums(writer, self.tally, places[0][0])
        for at, value in zip(places, values, strict=True):
            one, b, c = told.terms(at, value)
            # The product is rounded by itself: it is no multiply–add of the convolution.
            told.add((one, writer.let(op("mul", b, c), "product")))
        told.store()


@contextmanager
def _loops(writer: Writer, turns: Sequence[IndexLike]) -> Iterator[None]:
    """What is inside is done as often as the product of these numbers says."""
    with ExitStack() as loops:
        for turn in turns:
            loops.enter_context(writer.loop("w", turn))
        yield
