"""Convolution: gradient of the weights.

    dw[k,c,r,s] = Σ_pqL  dy[k,p,q] · x[c, p·stride + r·dilation − pad, q·…]

Each value of x and dy is a vector of L images, so a weight's gradient ends in a sum of lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from lanewise.native.kernels.functions import number
from lanewise.native.kernels.lanes import add_lanes
from lanewise.native.kernels.register_tiles import add_product, blocks
from lanewise.native.kernels.taps import Segment, Taps, column_segments
from lanewise.native.nest import (
    LANES,
    Buffer,
    Entry,
    Index,
    Kernel,
    Read,
    Register,
    Value,
    Var,
    as_index,
    table,
)
from lanewise.native.writer import Writer

ZERO = number(0.0)

# ---- gradient of the weights --------------------------------------------------------------------


@dataclass(frozen=True)
class WeightTile:
    """Registers of the weight gradient: output maps × input maps × kernel columns.

    `columns`: how many output columns one turn of the inner loop covers. `rows`: output rows that
    are finished for all weights before the next (0: all), so that large maps are read from the
    first cache; the sums of the lanes then wait in memory.
    """

    maps: int
    sources: int
    taps: int
    columns: int
    rows: int = 0


def weight_gradient(
    name: str, groups: int, maps: int, sources: int, rows: Taps, columns: Taps, tile: WeightTile
) -> Kernel:
    """weight[k,c,r,s] += Σ over rows, columns and lanes of gradient[k,p,q] · source[c,…].

    `maps` and `sources` count per group; `rows`, `columns` are the forward taps. Buffers source,
    gradient, [sums, of as many vectors as there are weights, if the tile has rows], weight.
    """
    shape = (groups * maps, sources, rows.taps, columns.taps)
    source = Buffer("source", (groups * sources, rows.source, columns.source, LANES))
    gradient = Buffer("gradient", (groups * maps, rows.destination, columns.destination, LANES))
    sums = Buffer("sums", (*shape, LANES), access="update") if tile.rows else None
    weight = Buffer("weight", shape, access="update", align=4)
    writer = Writer(name, [source, gradient, *([sums] if sums else []), weight])
    if sums:
        _for_each_weight(writer, shape, lambda at: writer.store(sums, *at, 0, value=ZERO))
    tiles = _Tiles(writer, source, gradient, sums, weight, rows, columns, tile)
    for at in _places(writer, groups, maps, sources, rows, columns, tile):
        tiles.write(at)
    if sums:
        _for_each_weight(
            writer,
            shape,
            lambda at: add_lanes(writer, weight, *at, value=writer.load(sums, *at, 0)),
        )
    return writer.finish()


@dataclass(frozen=True)
class _TilePlace:
    """Where a register tile stands: a strip of rows, `ks` maps from k on, `cs` sources from c on,
    the first of them `first_source` of all groups', and some columns of the kernel."""

    strip: Var
    k: Index
    ks: int
    first_source: Index
    c: Index
    cs: int
    taps: range


def _places(
    writer: Writer,
    groups: int,
    maps: int,
    sources: int,
    rows: Taps,
    columns: Taps,
    tile: WeightTile,
) -> Iterator[_TilePlace]:
    """Every tile, and the loops around it."""
    strips = -(-rows.destination // (tile.rows or rows.destination))
    with writer.loop("strip", strips) as strip, writer.loop("g", groups) as g:
        for k0, ks, k_tiles in blocks(maps, tile.maps):
            with writer.loop("k", k0 + ks * k_tiles, k0, ks) as k:
                begin = as_index(g) * maps + k
                for c0, cs, c_tiles in blocks(sources, tile.sources):
                    with writer.loop("c", c0 + cs * c_tiles, c0, cs) as c:
                        first = as_index(g) * sources + c
                        for t0, ts, t_tiles in blocks(columns.taps, tile.taps):
                            for t in range(t0, t0 + ts * t_tiles, ts):
                                taps = range(t, t + ts)
                                yield _TilePlace(strip, begin, ks, first, as_index(c), cs, taps)


@dataclass(frozen=True)
class _Tiles:
    """Writes register tiles: sums over the rows of a strip that meet each row of the kernel."""

    writer: Writer
    source: Buffer
    gradient: Buffer
    sums: Buffer | None
    weight: Buffer
    rows: Taps
    columns: Taps
    tile: WeightTile

    def write(self, at: _TilePlace) -> None:
        """One tile, for every row of the kernel."""
        writer, rows = self.writer, self.rows
        row_count, first_row, source_row = self._met_rows
        with writer.loop("r", rows.taps) as r:
            places = [
                [
                    [(at.k + i, at.c + j, as_index(r), as_index(t)) for t in at.taps]
                    for j in range(at.cs)
                ]
                for i in range(at.ks)
            ]
            cells = _begin_sums(writer, self.sums, places)
            turn = as_index(at.strip) * rows.taps + r
            with writer.loop("p", Entry(row_count, turn)) as p:
                row = as_index(p) + Entry(first_row, turn)
                source_row_at = as_index(p) * rows.advance + Entry(source_row, turn)
                self._row(at, cells, row, source_row_at)
            _end_sums(writer, self.sums, self.weight, places, cells)

    @cached_property
    def _met_rows(self) -> tuple[Buffer, Buffer, Buffer]:
        return rows_of_tap(self.rows, self.tile.rows or self.rows.destination)

    @cached_property
    def _segments(self) -> Sequence[Segment]:
        return column_segments(self.columns, self.tile.columns)

    def _row(
        self, at: _TilePlace, cells: list[list[list[Register]]], row: Index, source_row: Index
    ) -> None:
        """A row of dy and the row of x that meets it."""
        writer, gradient, source = self.writer, self.gradient, self.source
        for part in self._segments:
            with writer.loop("n", part.tiles) as n:
                left = as_index(n) * part.width + part.start
                origin = as_index(n) * part.advance + part.origin
                outer_products(
                    writer,
                    cells,
                    lambda i, j, left=left: writer.load(gradient, at.k + i, row, left + j, 0),  # type: ignore[misc]
                    lambda i, j, origin=origin: writer.load(  # type: ignore[misc]
                        source, at.first_source + i, source_row, origin + j, 0
                    ),
                    part,
                    at.taps,
                )


_Place: TypeAlias = tuple[Index, Index, Index, Index]


def _for_each_weight(
    writer: Writer, shape: tuple[int, int, int, int], do: Callable[[tuple[Var, ...]], None]
) -> None:
    """`do` for every weight, whatever its axes."""
    with (
        writer.loop("k", shape[0]) as k,
        writer.loop("c", shape[1]) as c,
        writer.loop("r", shape[2]) as r,
        writer.loop("s", shape[3]) as s,
    ):
        do((k, c, r, s))


def _begin_sums(
    writer: Writer, sums: Buffer | None, places: list[list[list[_Place]]]
) -> list[list[list[Register]]]:
    """Registers that go on where memory stands, or begin at zero."""

    def cell(at: _Place) -> Register:
        start: Value = ZERO if sums is None else writer.load(sums, *at, 0)
        return writer.assign(writer.register("a"), start)

    return [[[cell(at) for at in line] for line in plane] for plane in places]


def _end_sums(
    writer: Writer,
    sums: Buffer | None,
    weight: Buffer,
    places: list[list[list[_Place]]],
    cells: list[list[list[Register]]],
) -> None:
    """Registers back to memory, or their lanes into the weights."""
    for plane, registers in zip(places, cells, strict=True):
        for line, row in zip(plane, registers, strict=True):
            for at, cell in zip(line, row, strict=True):
                if sums is None:
                    add_lanes(writer, weight, *at, value=Read(cell))
                else:
                    writer.store(sums, *at, 0, value=Read(cell))


def rows_of_tap(rows: Taps, height: int, from_strip: bool = False) -> tuple[Buffer, Buffer, Buffer]:
    """For strip b of `height` output rows and kernel row r, at b · taps + r: how many output rows
    meet the tap, the first of them (`from_strip`: in the strip), and the input row that it
    meets."""
    count, first, source = [], [], []
    for begin in range(0, rows.destination, height):
        strip = range(begin, min(begin + height, rows.destination))
        for tap in range(rows.taps):
            met = [(o, i) for o in strip if (i := rows.sources[o][tap]) is not None]
            count.append(len(met))
            first.append(met[0][0] - begin * from_strip if met else 0)
            source.append(met[0][1] if met else 0)
    return table("row_count", count), table("row_first", first), table("row_source", source)


def outer_products(
    writer: Writer,
    cells: list[list[list[Register]]],
    gradient_at: Callable[[int, int], Value],
    source_at: Callable[[int, int], Value],
    part: Segment,
    taps: range,
) -> None:
    """cells[i][c][t] += gradient(i, column) · source(c, column of tap t), column by column."""
    loaded: dict[tuple[int, int], Read] = {}
    for j in range(part.width):
        met = part.of_column(j, taps)
        if not met:
            continue
        errors = [writer.let(gradient_at(i, j), "e") for i in range(len(cells))]
        for c in range(len(cells[0])):
            for t, column in met:
                if (c, column) not in loaded:
                    loaded[c, column] = writer.let(source_at(c, column), "x")
                for i, error in enumerate(errors):
                    cell = cells[i][c][t - taps.start]
                    add_product(writer, cell, loaded[c, column], error)
