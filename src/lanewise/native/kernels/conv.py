"""Convolution: forward, gradient of the input, gradients of weight and bias.

    y[k,p,q]   = b[k] + Σ_crs  w[k,c,r,s] · x[c, p·stride + r·dilation − pad, q·…]
    dx[c,h,w]  =        Σ_krs  w[k,c,r,s] · dy[k, p, q]    over the (p, r), (q, s) that meet (h, w)
    dw[k,c,r,s] =       Σ_pqL  dy[k,p,q] · x[c, …]
    db[k]      =        Σ_pqL  dy[k,p,q]

The first two are one nest, `correlate`: destination maps from source maps through taps. Each value
of x, y, dx, dy is a vector of L images; weights are scalars in every lane. A register tile is
`maps` destination maps × `columns` destination columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from lanewise.native.kernels.functions import is_positive, keep_where, rectified
from lanewise.native.kernels.taps import RowTaps, Segment, Taps, column_segments
from lanewise.native.nest import (
    LANES,
    Buffer,
    Constant,
    Entry,
    Index,
    IndexLike,
    Kernel,
    Read,
    Register,
    Value,
    Var,
    Writer,
    as_index,
    op,
    table,
)

ZERO = Constant(0.0)


@dataclass(frozen=True)
class Correlation:
    """Sizes of one `correlate` nest; strides of the weight array tell forward from gradient.

    `maps`, `sources`: destination and source maps of one group; `weight_map`, `weight_source`: how
    far apart their weights lie (elements), `weight_group` likewise from group to group.
    """

    groups: int
    maps: int
    sources: int
    rows: Taps
    columns: Taps
    weight_group: int
    weight_map: int
    weight_source: int

    @property
    def weights(self) -> int:
        return self.groups * self.maps * self.sources * self.rows.taps * self.columns.taps


@dataclass(frozen=True)
class Tile:
    """Registers: destination maps × destination columns."""

    maps: int
    columns: int


def correlate(
    name: str,
    sizes: Correlation,
    tile: Tile,
    *,
    bias: bool = False,
    relu: bool = False,
    mask: bool = False,
) -> Kernel:
    """Destination maps from source maps. `relu` is applied to the result (forward); `mask` sets
    the result to zero where `value` is not positive (gradient through a joined ReLU)."""
    maps = sizes.groups * sizes.maps
    source = Buffer(
        "source", (sizes.groups * sizes.sources, sizes.rows.source, sizes.columns.source, LANES)
    )
    weight = Buffer("weight", (sizes.weights,), align=4)
    shape = (maps, sizes.rows.destination, sizes.columns.destination, LANES)
    target = Buffer("target", shape, access="write")
    biases = Buffer("bias", (maps,), align=4)
    value = Buffer("value", shape)
    optional = [biases] * bias + [value] * mask
    writer = Writer(name, [source, weight, *optional, target])
    rows = RowTaps(sizes.rows)
    segments = column_segments(sizes.columns, tile.columns)

    def finish(k: IndexLike, row: IndexLike, column: IndexLike, result: Value) -> None:
        if relu:
            result = rectified(result)
        if mask:
            result = keep_where(is_positive(writer.load(value, k, row, column, 0)), result)
        writer.store(target, k, row, column, 0, value=result)

    def one_tile(g: IndexLike, first: IndexLike, count: int, row: IndexLike, part: Segment) -> None:
        with writer.loop("n", part.tiles) as n:
            k0 = as_index(g) * sizes.maps + first
            start = [writer.splat(biases, k0 + i) if bias else ZERO for i in range(count)]
            cells = [writer.accumulators("a", part.width, begin) for begin in start]
            with (
                writer.loop("c", sizes.sources) as c,
                writer.loop("m", rows.count(row)) as m,
            ):
                at_weight = (
                    as_index(g) * sizes.weight_group
                    + as_index(first) * sizes.weight_map
                    + as_index(c) * sizes.weight_source
                    + as_index(rows.tap(row, m)) * sizes.columns.taps
                )
                _products(
                    writer,
                    cells,
                    lambda i, t: writer.splat(weight, at_weight + i * sizes.weight_map + t),
                    lambda j: writer.load(
                        source,
                        as_index(g) * sizes.sources + c,
                        rows.source(row, m),
                        as_index(n) * part.advance + (part.origin + j),
                        0,
                    ),
                    part,
                )
            for i, line in enumerate(cells):
                for j, cell in enumerate(line):
                    finish(k0 + i, row, as_index(n) * part.width + (part.start + j), Read(cell))

    with writer.loop("g", sizes.groups) as g, writer.loop("p", sizes.rows.destination) as row:
        for first, count, tiles in blocks(sizes.maps, tile.maps):
            with writer.loop("k", first + count * tiles, first, count) as k:
                for part in segments:
                    one_tile(g, k, count, row, part)
    return writer.finish()


def _products(
    writer: Writer,
    cells: list[list[Register]],
    weight_at: Callable[[int, int], Value],
    source_at: Callable[[int], Value],
    part: Segment,
) -> None:
    """cells[i][j] += weight(i, t) · source(pattern[j][t]) for every tap that meets a column."""
    loaded: dict[int, Read] = {}
    meetings = [(t, part.of_tap(t)) for t in range(len(part.pattern[0]))]
    # Leftmost source columns first: a column can then leave its register as the next one comes.
    meetings.sort(key=lambda meeting: min((source for _, source in meeting[1]), default=0))
    for t, met in meetings:
        for _, j in met:
            if j not in loaded:
                loaded[j] = writer.let(source_at(j), "x")
        if not met:
            continue
        for i, line in enumerate(cells):
            scalar = writer.let(weight_at(i, t), "w")
            for j, column in met:
                add_product(writer, line[j], scalar, loaded[column])


def add_product(writer: Writer, cell: Register, a: Value, b: Value) -> None:
    """cell += a · b, rounded once."""
    writer.assign(cell, op("fma", a, b, Read(cell)))


def blocks(size: int, width: int) -> Sequence[tuple[int, int, int]]:
    """Cut `size` into blocks of `width` and a rest: (first, width, how many)."""
    whole, rest = divmod(size, width)
    parts = [(0, width, whole)] if whole else []
    return parts + ([(whole * width, rest, 1)] if rest else [])


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
    first_row, stop_row, shift_row = _rows_of_tap(rows, height)
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
            with writer.loop("p", Entry(stop_row, turn), Entry(first_row, turn)) as p:
                row = as_index(p) * rows.advance + Entry(shift_row, as_index(r))
                for part in segments:
                    with writer.loop("n", part.tiles) as n:
                        _outer_products(
                            writer,
                            cells,
                            lambda i, j, part=part, n=n: writer.load(  # type: ignore[misc]
                                gradient, k + i, p, as_index(n) * part.width + part.start + j, 0
                            ),
                            lambda i, j, part=part, n=n: writer.load(  # type: ignore[misc]
                                source,
                                as_index(g) * sources + c + i,
                                row,
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
            writer, shape, lambda at: _add_lanes(writer, weight, at, writer.load(sums, *at, 0))
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
                    _add_lanes(writer, weight, at, Read(cell))
                else:
                    writer.store(sums, *at, 0, value=Read(cell))


def _add_lanes(writer: Writer, weight: Buffer, at: Sequence[IndexLike], value: Value) -> None:
    """weight[at] += the sum of the lanes."""
    total = op("add", writer.load(weight, *at, lanes=1), op("lanesum", value))
    writer.store(weight, *at, value=total)


def _rows_of_tap(rows: Taps, height: int) -> tuple[Buffer, Buffer, Buffer]:
    """For strip b of `height` output rows and kernel row r, at b · taps + r: the output rows
    first … stop − 1 that meet the tap. At r: the input row of output row 0."""
    first, stop = [], []
    for begin in range(0, rows.destination, height):
        strip = range(begin, min(begin + height, rows.destination))
        for tap in range(rows.taps):
            met = [o for o in strip if rows.sources[o][tap] is not None]
            first.append(met[0] if met else 0)
            stop.append(met[-1] + 1 if met else 0)
    return table("row_first", first), table("row_stop", stop), table("row_shift", _shifts(rows))


def _shifts(rows: Taps) -> list[int]:
    """Per kernel row: the input row that output row 0 meets, or would meet."""
    shifts = []
    for tap in range(rows.taps):
        met = [(o, line[tap]) for o, line in enumerate(rows.sources) if line[tap] is not None]
        shifts.append((met[0][1] or 0) - met[0][0] * rows.advance if met else 0)
    return shifts


def _outer_products(
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


def bias_gradient(name: str, maps: int, pixels: int) -> Kernel:
    """bias[k] += Σ over pixels and lanes of gradient[k]."""
    gradient = Buffer("gradient", (maps, pixels, LANES))
    bias = Buffer("bias", (maps,), access="update", align=4)
    writer = Writer(name, [gradient, bias])
    wide = 4 if pixels >= 4 else 1  # independent sums hide the latency of an addition
    with writer.loop("k", maps) as k:
        cells = writer.accumulators("a", wide)
        for first, count, tiles in blocks(pixels, wide):
            with writer.loop("i", first + count * tiles, first, count) as i:
                for j in range(count):
                    value = writer.load(gradient, k, as_index(i) + j, 0)
                    writer.assign(cells[j], op("add", Read(cells[j]), value))
        total: Value = Read(cells[0])
        for cell in cells[1:]:
            total = op("add", total, Read(cell))
        summed = op("add", writer.load(bias, k, lanes=1), op("lanesum", total))
        writer.store(bias, k, value=summed)
    return writer.finish()
