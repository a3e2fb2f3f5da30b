"""Convolution: forward, gradient of the input, gradient of the bias.

    y[k,p,q]   = b[k] + Σ_crs  w[k,c,r,s] · x[c, p·stride + r·dilation − pad, q·…]
    dx[c,h,w]  =        Σ_krs  w[k,c,r,s] · dy[k, p, q]    over the (p, r), (q, s) that meet (h, w)
    db[k]      =        Σ_pqL  dy[k,p,q]

The first two are one nest, `correlate`: destination maps from source maps through taps. Each value
of x, y, dx, dy is a vector of L images; weights are scalars in every lane. A register tile is
`maps` destination maps × `columns` destination columns. The gradient of the weights has a file of
its own, `weights.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lanewise.native.kernels.result import Result
from lanewise.native.kernels.taps import RowTaps, Segment, Taps, column_segments
from lanewise.native.nest import (
    LANES,
    Buffer,
    IndexLike,
    Kernel,
    Read,
    Register,
    Value,
    Writer,
    as_index,
    op,
)


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
    affine: bool = False,
    accumulate: bool = False,
    relu: bool = False,
    mask: bool = False,
) -> Kernel:
    """Destination maps from source maps: buffers source, weight, those of `Result`."""
    maps = sizes.groups * sizes.maps
    source = Buffer(
        "source", (sizes.groups * sizes.sources, sizes.rows.source, sizes.columns.source, LANES)
    )
    weight = Buffer("weight", (sizes.weights,), align=4)
    shape = (maps, sizes.rows.destination, sizes.columns.destination, LANES)
    result = Result(shape, bias=bias, affine=affine, accumulate=accumulate, relu=relu, mask=mask)
    writer = Writer(name, [source, weight, *result.buffers])
    rows = RowTaps(sizes.rows)
    segments = column_segments(sizes.columns, tile.columns)

    def one_tile(g: IndexLike, first: IndexLike, count: int, row: IndexLike, part: Segment) -> None:
        with writer.loop("n", part.tiles) as n:
            k0 = as_index(g) * sizes.maps + first
            cells = [
                writer.accumulators("a", part.width, result.start(writer, k0 + i))
                for i in range(count)
            ]
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
                products(
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
                    sizes.columns.in_order,
                )
            for i, line in enumerate(cells):
                for j, cell in enumerate(line):
                    column = as_index(n) * part.width + (part.start + j)
                    result.store(writer, (k0 + i, row, column, 0), Read(cell))

    with writer.loop("g", sizes.groups) as g, writer.loop("p", sizes.rows.destination) as row:
        for first, count, tiles in blocks(sizes.maps, tile.maps):
            with writer.loop("k", first + count * tiles, first, count) as k:
                for part in segments:
                    one_tile(g, k, count, row, part)
    return writer.finish()


def products(
    writer: Writer,
    cells: list[list[Register]],
    weight_at: Callable[[int, int], Value],
    source_at: Callable[[int], Value],
    part: Segment,
    order: Sequence[int],
) -> None:
    """cells[i][j] += weight(i, t) · source(pattern[j][t]) for every tap that meets a column."""
    loaded: dict[int, Read] = {}
    # Leftmost source columns first: a column can then leave its register as the next one comes.
    for t in order:
        met = part.of_tap(t)
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


# ---- gradient of the bias -----------------------------------------------------------------------


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
