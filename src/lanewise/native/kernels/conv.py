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

    `columns`: how many output columns one turn of the inner loop covers.
    """

    maps: int
    sources: int
    taps: int
    columns: int


def weight_gradient(
    name: str, groups: int, maps: int, sources: int, rows: Taps, columns: Taps, tile: WeightTile
) -> Kernel:
    """weight[k,c,r,s] += Σ over rows, columns and lanes of gradient[k,p,q] · source[c,…].

    `maps` and `sources` count per group; `rows`, `columns` are the forward taps.
    """
    source = Buffer("source", (groups * sources, rows.source, columns.source, LANES))
    gradient = Buffer("gradient", (groups * maps, rows.destination, columns.destination, LANES))
    weight = Buffer(
        "weight", (groups * maps, sources, rows.taps, columns.taps), access="update", align=4
    )
    writer = Writer(name, [source, gradient, weight])
    first_row, stop_row, shift_row = _rows_of_tap(rows)
    segments = column_segments(columns, tile.columns)

    def one_tile(k: Index, ks: int, g: IndexLike, c: Index, cs: int, t0: int, ts: int) -> None:
        with writer.loop("r", rows.taps) as r:
            cells = [[writer.accumulators("a", ts) for _ in range(cs)] for _ in range(ks)]
            start, stop = Entry(first_row, as_index(r)), Entry(stop_row, as_index(r))
            with writer.loop("p", stop, start) as p:
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
                            range(t0, t0 + ts),
                        )
            for i in range(ks):
                for j in range(cs):
                    for t in range(ts):
                        at = (k + i, c + j, r, as_index(t0 + t))
                        total = op("lanesum", Read(cells[i][j][t]))
                        old = writer.load(weight, *at, lanes=1)
                        writer.store(weight, *at, value=op("add", old, total))

    with writer.loop("g", groups) as g:
        for k0, ks, k_tiles in blocks(maps, tile.maps):
            with writer.loop("k", k0 + ks * k_tiles, k0, ks) as k:
                for c0, cs, c_tiles in blocks(sources, tile.sources):
                    with writer.loop("c", c0 + cs * c_tiles, c0, cs) as c:
                        for t0, ts, t_tiles in blocks(columns.taps, tile.taps):
                            for t in range(t_tiles):
                                begin = as_index(g) * maps + k
                                one_tile(begin, ks, g, as_index(c), cs, t0 + t * ts, ts)
    return writer.finish()


def _rows_of_tap(rows: Taps) -> tuple[Buffer, Buffer, Buffer]:
    """Per kernel row: the output rows first … stop − 1 that it meets; the input row of row 0."""
    first, stop, shift = [], [], []
    for tap in range(rows.taps):
        met = [o for o in range(rows.destination) if rows.sources[o][tap] is not None]
        first.append(met[0] if met else 0)
        stop.append(met[-1] + 1 if met else 0)
        source = rows.sources[met[0]][tap] if met else 0
        shift.append((source or 0) - (met[0] * rows.advance if met else 0))
    return table("row_first", first), table("row_stop", stop), table("row_shift", shift)


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
