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

from lanewise.native.kernels.conv import add_product, blocks
from lanewise.native.kernels.functions import number, rectified
from lanewise.native.kernels.image_products import fetches
from lanewise.native.kernels.taps import Segment, Taps, column_segments
from lanewise.native.kernels.winograd_transforms import Algorithm, gather, spread
from lanewise.native.nest import (
    LANES,
    Buffer,
    Index,
    Kernel,
    Read,
    Value,
    Var,
    Writer,
    as_index,
    op,
)


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
    size = algorithm.size
    source = Buffer("source", (1, *strip.source, LANES))
    shape = (algorithm.points, vectors, strip.tiles, LANES)
    target = Buffer("target", shape, access="update")
    writer = Writer(name, [source, target])
    for tile in _tiles(writer, strip.source_rows, strip.source_columns):
        lines = []
        for j in range(size):
            column = [_load(writer, source, tile, i, j) for i in range(size)]
            lines.append(spread(writer, algorithm.source, column))
        for i in range(size):
            row = spread(writer, algorithm.source, [lines[j][i] for j in range(size)])
            for j, value in enumerate(row):
                writer.store(target, i * size + j, 0, tile.number, 0, value=value)
    return writer.finish()


def _load(writer: Writer, source: Buffer, tile: _Tile, i: int, j: int) -> Value:
    at = tile.at(i, j)
    return number(0.0) if at is None else writer.let(writer.load(source, 0, *at, 0), "x")


@dataclass(frozen=True)
class Products:
    """`vectors` of output channels of a block, `sources` vectors of source channels; a register
    tile is all vectors of the block × `together` tiles."""

    vectors: int
    sources: int
    together: int


def multiply(
    name: str, strip: Strip, sizes: Products, *, relu: bool = False, adds: bool = False
) -> Kernel:
    """Buffers source (points, sources, tiles, 16), factors (points, sources, 16, vectors, 16), bias
    (vectors, 16), products (points, vectors, tiles, 16: work space), [summand], target."""
    points, vectors = strip.algorithm.points, sizes.vectors
    source = Buffer("source", (points, sizes.sources, strip.tiles, LANES))
    factors = Buffer("factors", (points, sizes.sources, LANES, vectors, LANES))
    bias = Buffer("bias", (vectors, LANES))
    products = Buffer("products", (points, vectors, strip.tiles, LANES), access="update")
    shape = (vectors, *strip.result, LANES)
    summand = [Buffer("summand", shape)] if adds else []
    target = Buffer("target", shape, access="update")
    writer = Writer(name, [source, factors, bias, products, *summand, target])
    with writer.loop("z", points) as z:
        number = 0
        for first, count, times in blocks(strip.tiles, sizes.together):
            with writer.loop("t", times) as i:
                at = as_index(i) * count + first, as_index(i) + number
                _product(writer, (source, factors, products), sizes, z, at, count)
            number += times
    with writer.loop("v", vectors) as v:
        for tile in _tiles(writer, strip.result_rows, strip.result_columns):
            _back(writer, strip.algorithm, tile, v, (products, bias, *summand, target), relu)
    return writer.finish()


def _product(
    writer: Writer,
    buffers: tuple[Buffer, Buffer, Buffer],
    sizes: Products,
    z: Var,
    at: tuple[Index, Index],
    count: int,
) -> None:
    """One point of `count` tiles and all vectors of the block. `at`: the first tile, and which
    product of the point this is. Each has some factors of the next point fetched."""
    t, number = at
    source, factors, products = buffers
    cells = [writer.accumulators("a", count) for _ in range(sizes.vectors)]
    ahead = fetches(sizes.vectors, -(-source.shape[2] // sizes.together))
    with writer.loop("b", sizes.sources) as b, writer.loop("c", LANES) as c:
        for k in range(ahead):
            line = (number * ahead + k) * LANES
            writer.fetch(factors, as_index(z) + 1, b, c, 0, line)
        weights = [
            writer.let(writer.load(factors, z, b, c, v, 0), "w") for v in range(sizes.vectors)
        ]
        for j in range(count):
            x = writer.let(writer.splat(source, z, b, t + j, c), "x")
            for v, weight in enumerate(weights):
                add_product(writer, cells[v][j], weight, x)
    for v, line in enumerate(cells):
        for j, cell in enumerate(line):
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
