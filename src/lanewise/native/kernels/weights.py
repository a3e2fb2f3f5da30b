"""Convolution: gradient of the weights.

    dw[k,c,r,s] = Σ_pqL  dy[k,p,q] · x[c, p·stride + r·dilation − pad, q·…]

Each value of x and dy is a vector of L images, so a weight's gradient ends in a sum of lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
    IndexLike,
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
    sums = Buffer("sums", (*shape, LANES), access="update")
    weight = Buffer("weight", shape, access="update", align=4)
    writer = Writer(name, [source, gradient, *[sums] * bool(tile.rows), weight])
    height = tile.rows or rows.destination
    strips = -(-rows.destination // height)
    row_count, first_row, source_row = rows_of_tap(rows, height)
    segments = column_segments(columns, tile.columns)

    def one_tile(
        strip: Var, k: Index, ks: int, g: IndexLike, c: Index, cs: int, taps: range
    ) -> None:
        with writer.loop("r", rows.taps) as r:
            places = [
                [[(k + i, c + j, as_index(r), as_index(t)) for t in taps] for j in range(cs)]
                for i in range(ks)
            ]
            cells = _begin_sums(writer, sums if tile.rows else None, places)
            turn = as_index(strip) * rows.taps + r
            with writer.loop("p", Entry(row_count, turn)) as p:
                row = as_index(p) + Entry(first_row, turn)
                source_at = as_index(p) * rows.advance + Entry(source_row, turn)
                for part in segments:
                    with writer.loop("n", part.tiles) as n:
                        outer_products(
                            writer,
                            cells,
                            lambda i, j, part=part, n=n: writer.load(  # type: ignore[misc]
                                gradient, k + i, row, as_index(n) * part.width + part.start + j, 0
                            ),
                            lambda i, j, part=part, n=n: writer.load(  # type: ignore[misc]
                                source,
                                as_index(g) * sources + c + i,
                                source_at,
                                as_index(n) * part.advance + (part.origin + j),
                                0,
                            ),
                            part,
                            taps,
                        )
            _end_sums(writer, sums if tile.rows else None, weight, places, cells)

    if tile.rows:
        _for_each_weight(writer, shape, lambda at: writer.store(sums, *at, 0, value=ZERO))
    with writer.loop("strip", strips) as strip, writer.loop("g", groups) as g:
        for k0, ks, k_tiles in blocks(maps, tile.maps):
            with writer.loop("k", k0 + ks * k_tiles, k0, ks) as k:
                for c0, cs, c_tiles in blocks(sources, tile.sources):
                    with writer.loop("c", c0 + cs * c_tiles, c0, cs) as c:
                        for t0, ts, t_tiles in blocks(columns.taps, tile.taps):
                            for t in range(t0, t0 + ts * t_tiles, ts):
                                begin = as_index(g) * maps + k
                                one_tile(strip, begin, ks, g, as_index(c), cs, range(t, t + ts))
    if tile.rows:
        _for_each_weight(
            writer,
            shape,
            lambda at: add_lanes(writer, weight, *at, value=writer.load(sums, *at, 0)),
        )
    return writer.finish()


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
