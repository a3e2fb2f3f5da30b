"""Winograd's algorithm for one image: channels in the lanes.

    y[k] = Aᵀ [ Σ_c  U[k,c] ⊙ (Bᵀ x[c] B) ] A        U[k,c] = G w[k,c] Gᵀ

on tiles of m × m results (`winograd_transforms.py`). A *strip* is some rows of tiles. First the
source's tiles are transformed, sixteen channels at once; then, for a block of output channels, n²
small matrix products are followed by the transform back. In the products every transformed number
is read into all lanes and meets vectors of factors U, as in a convolution with a kernel of 1 × 1
whose pixels are the tiles.

Tiles that stick out over the source read zeros; of those that stick out over the result only what
exists is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lanewise.native.kernels.functions import number, rectified
from lanewise.native.kernels.image_products import fetches
from lanewise.native.kernels.register_tiles import add_product, blocks
from lanewise.native.kernels.taps import Segment, Taps, column_segments
from lanewise.native.kernels.winograd_transforms import Algorithm, gather, spread
from lanewise.native.nest import LANES, Buffer, Index, Kernel, Read, Value, Var, as_index, op
from lanewise.native.writer import Writer


@dataclass(frozen=True)
class Strip:
    """A strip of tiles: along either axis, tile × place → source index, and → result index.

    Indices of rows count from the strip's own first row of the source and of the result, so that
    strips in the middle of a map are all alike.
    """

    algorithm: Algorithm
    source: tuple[int, int]  # rows and columns of the whole source map
    result: tuple[int, int]
    source_rows: Taps
    source_columns: Taps
    result_rows: Taps
    result_columns: Taps

    @property
    def tiles(self) -> int:
        """Of the strip."""
        return self.source_rows.destination * self.source_columns.destination


def strip_taps(
    algorithm: Algorithm, first: int, count: int, size: int, out: int, pad: int
) -> tuple[Taps, Taps, int, int]:
    """Tiles first … first + count − 1 along one axis: their sources and results, counted from where
    the two numbers behind them say."""
    m, n = algorithm.outputs, algorithm.size
    begin, start = max(0, first * m - pad), first * m

    def inside(index: int, most: int, base: int) -> int | None:
        return index - base if 0 <= index < most else None

    tiles = range(first, first + count)
    sources = tuple(tuple(inside(d * m + t - pad, size, begin) for t in range(n)) for d in tiles)
    results = tuple(tuple(inside(d * m + t, out, start) for t in range(m)) for d in tiles)
    return (
        Taps(count, size, n, sources, 1, m),
        Taps(count, out, m, results, 1, m),
        begin,
        start,
    )


@dataclass(frozen=True)
class _Tile:
    """One kind of tile: which of its places exist, and the loops over all tiles of this kind."""

    rows: Segment
    columns: Segment
    row: Var
    column: Var
    across: int

    @property
    def number(self) -> Index:
        """Of the tile in its strip."""
        row = as_index(self.row) + self.rows.start
        return row * self.across + self.column + self.columns.start

    def at(self, i: int, j: int) -> tuple[Index, Index] | None:
        """Row and column of a place of the tile, if it exists."""
        row, column = self.rows.pattern[0][i], self.columns.pattern[0][j]
        if row is None or column is None:
            return None
        return (
            as_index(self.row) * self.rows.advance + (self.rows.origin + row),
            as_index(self.column) * self.columns.advance + (self.columns.origin + column),
        )


def _tiles(writer: Writer, rows: Taps, columns: Taps) -> Iterator[_Tile]:
    for lines in column_segments(rows, 1):
        with writer.loop("p", lines.tiles) as p:
            for part in column_segments(columns, 1):
                with writer.loop("q", part.tiles) as q:
                    yield _Tile(lines, part, p, q, columns.destination)


def transform_source(name: str, strip: Strip, vectors: int) -> Kernel:
    """Buffers source (vectors, rows, columns, 16), target (points, vectors, tiles, 16): one vector
    of channels; the caller moves the pointers to it."""
    algorithm = strip.algorithm
    source = Buffer("source", (1, *strip.source, LANES))
    shape = (algorithm.points, vectors, strip.tiles, LANES)
    target = Buffer("target", shape, access="update")
    writer = Writer(name, [source, target])
    _transform(writer, strip, source, target, as_index(0))
    return writer.finish()


def _transform(writer: Writer, strip: Strip, source: Buffer, target: Buffer, v: Index) -> None:
    """All tiles of a strip, of one vector of channels."""
    algorithm = strip.algorithm
    size = algorithm.size
    for tile in _tiles(writer, strip.source_rows, strip.source_columns):
        lines = []
        for j in range(size):
            column = [_load(writer, source, v, tile.at(i, j)) for i in range(size)]
            lines.append(spread(writer, algorithm.source, column))
        for i in range(size):
            row = spread(writer, algorithm.source, [lines[j][i] for j in range(size)])
            for j, value in enumerate(row):
                writer.store(target, i * size + j, v, tile.number, 0, value=value)


def _load(writer: Writer, source: Buffer, v: Index, at: tuple[Index, Index] | None) -> Value:
    return number(0.0) if at is None else writer.let(writer.load(source, v, *at, 0), "x")


@dataclass(frozen=True)
class Products:
    """`vectors` of output channels of a block, `sources` vectors of source channels; a register
    tile is all vectors of the block × `together` tiles. `group`: vectors of source channels (a
    divisor of `sources`) that are summed for all tiles before the next ones, so that their factors
    stay in the first-level cache. `near`: all factors are in the second-level cache; otherwise each
    product has some of those that come next fetched."""

    vectors: int
    sources: int
    together: int
    group: int
    near: bool = False


def multiply(
    name: str, strip: Strip, sizes: Products, *, relu: bool = False, adds: bool = False
) -> Kernel:
    """Buffers source (points, sources, tiles, 16), factors (points, sources, 16, vectors, 16), bias
    (vectors, 16), products (points, vectors, tiles, 16: work space), [summand], target."""
    turned = Buffer("source", (strip.algorithm.points, sizes.sources, strip.tiles, LANES))
    rest = _buffers(strip, sizes, adds)
    writer = Writer(name, [turned, *rest])
    _multiply(writer, strip, sizes, (turned, *rest), relu)
    return writer.finish()


def convolve(
    name: str, strip: Strip, sizes: Products, *, relu: bool = False, adds: bool = False
) -> Kernel:
    """The whole of a strip. Buffers source (vectors, rows, columns, 16), transformed (points,
    sources, tiles, 16: work space), and from the factors on those of `multiply`."""
    source = Buffer("source", (sizes.sources, *strip.source, LANES))
    shape = (strip.algorithm.points, sizes.sources, strip.tiles, LANES)
    turned = Buffer("transformed", shape, access="update")
    rest = _buffers(strip, sizes, adds)
    writer = Writer(name, [source, turned, *rest])
    with writer.loop("u", sizes.sources) as u:
        _transform(writer, strip, source, turned, as_index(u))
    _multiply(writer, strip, sizes, (turned, *rest), relu)
    return writer.finish()


def _buffers(strip: Strip, sizes: Products, adds: bool) -> list[Buffer]:
    """Factors, bias, products, [summand], target."""
    points, vectors = strip.algorithm.points, sizes.vectors
    shape = (vectors, *strip.result, LANES)
    return [
        Buffer("factors", (points, sizes.sources, LANES, vectors, LANES)),
        Buffer("bias", (vectors, LANES)),
        Buffer("products", (points, vectors, strip.tiles, LANES), access="update"),
        *([Buffer("summand", shape)] if adds else []),
        Buffer("target", shape, access="update"),
    ]


def _multiply(
    writer: Writer, strip: Strip, sizes: Products, buffers: tuple[Buffer, ...], relu: bool
) -> None:
    """The products of all points, then the transform back. Buffers: transformed, `_buffers`."""
    source, factors, bias, products, *maps = buffers
    near = (source, factors, products)
    with writer.loop("z", strip.algorithm.points) as z:
        _products(writer, near, strip, sizes, (as_index(z), as_index(0)), goes_on=False)
        with writer.loop("g", sizes.sources // sizes.group, 1) as g:
            at = as_index(z), as_index(g) * sizes.group
            _products(writer, near, strip, sizes, at, goes_on=True)
    with writer.loop("v", sizes.vectors) as v:
        for tile in _tiles(writer, strip.result_rows, strip.result_columns):
            _back(writer, strip.algorithm, tile, v, (products, bias, *maps), relu)


def _products(
    writer: Writer,
    buffers: tuple[Buffer, Buffer, Buffer],
    strip: Strip,
    sizes: Products,
    at: tuple[Index, Index],
    goes_on: bool,
) -> None:
    """One point of all tiles, over a group of source channels. `at`: the point, and the first
    vector of the group."""
    number = 0
    ahead = fetches(sizes.vectors, -(-strip.tiles // sizes.together)) * (not sizes.near)
    for first, count, times in blocks(strip.tiles, sizes.together):
        with writer.loop("t", times) as i:
            t, line = as_index(i) * count + first, (as_index(i) + number) * (ahead * LANES)
            lines = [line + k * LANES for k in range(ahead)]
            _product(writer, buffers, sizes, at, (t, count), lines, goes_on)
        number += times


def _product(
    writer: Writer,
    buffers: tuple[Buffer, Buffer, Buffer],
    sizes: Products,
    at: tuple[Index, Index],
    tiles: tuple[Index, int],
    ahead: list[Index],
    goes_on: bool,
) -> None:
    """Some tiles and all vectors of the block. Meanwhile the values of the next tiles are fetched,
    and of the next group's factors the lines `ahead`."""
    source, factors, products = buffers
    (z, group), (t, count) = at, tiles
    starts = [
        [writer.load(products, z, v, t + j, 0) if goes_on else number(0.0) for j in range(count)]
        for v in range(sizes.vectors)
    ]
    cells = [[writer.assign(writer.register("a"), one) for one in row] for row in starts]
    with writer.loop("b", sizes.group) as turn:
        b = group + turn
        for j in range(count):
            writer.fetch(source, z, b, t + count + j, 0)
        with writer.loop("c", LANES) as c:
            for line in ahead:
                writer.fetch(factors, z, b + sizes.group, c, 0, line)
            weights = [
                writer.let(writer.load(factors, z, b, c, v, 0), "w") for v in range(sizes.vectors)
            ]
            for j in range(count):
                x = writer.let(writer.splat(source, z, b, t + j, c), "x")
                for v, weight in enumerate(weights):
                    add_product(writer, cells[v][j], weight, x)
    for v, row in enumerate(cells):
        for j, cell in enumerate(row):
            writer.store(products, z, v, t + j, 0, value=Read(cell))


def _back(
    writer: Writer,
    algorithm: Algorithm,
    tile: _Tile,
    v: Var,
    buffers: tuple[Buffer, ...],
    relu: bool,
) -> None:
    """The products of one tile and one vector of channels → m × m results."""
    products, bias, *summand, target = buffers
    size, outputs = algorithm.size, algorithm.outputs
    lines = []
    for j in range(size):
        column: list[Value] = [
            writer.let(writer.load(products, i * size + j, v, tile.number, 0), "y")
            for i in range(size)
        ]
        lines.append(gather(writer, algorithm.result, column))
    shift = writer.let(writer.load(bias, v, 0), "b")
    for i in range(outputs):
        row = gather(writer, algorithm.result, [lines[j][i] for j in range(size)])
        for j, value in enumerate(row):
            at = tile.at(i, j)
            if at is None:
                continue
            total = op("add", value, shift)
            if summand:
                total = op("add", total, writer.load(summand[0], v, *at, 0))
            result = rectified(total) if relu else total
            writer.store(target, v, *at, 0, value=result)
