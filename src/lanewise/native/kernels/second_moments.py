"""1 × 1 convolutions whose many maps are worked out where they are read, and normalised without
being kept: their statistics follow from those of the few maps before.

With u = W x at every pixel, x̄ and C the mean and the summed products about it of all values x:

    mean of u[k] = Σ_c w[k,c] x̄[c]        Σ (u[k] − mean)² = Σ_cc' w[k,c] C[c,c'] w[k,c']

Products are summed about a pixel of the lane's middle, lane by lane, and about the slice's mean
afterwards; slices are joined as in `batch_norm.py`. No large mean is squared.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

from lanewise.native.kernels.batch_norm import (
    MOMENTS,
    affine_parameters,
    middle,
    store_moments,
)
from lanewise.native.kernels.functions import is_positive, keep_where, number
from lanewise.native.kernels.lanes import pieces, spread, total
from lanewise.native.kernels.register_tiles import add_product, blocks
from lanewise.native.nest import (
    LANES,
    Buffer,
    Constant,
    FromIndex,
    Kernel,
    LaneNumbers,
    Read,
    Symbol,
    Value,
    Var,
    as_index,
    op,
)
from lanewise.native.writer import Writer

#: pixels whose products are summed before the sums go back to memory: of 16 maps 32 KB
STRIP = 32
#: maps × maps of a register tile
SQUARE = 4


def told_floats(sources: int) -> int:
    """What a slice tells: means, and products about them."""
    return -(-(1 + sources) * sources // LANES) * LANES


# ---- what a slice tells of the few maps ---------------------------------------------------------


def lane_products(name: str, sources: int, pixels: int) -> Kernel:
    """Buffers source, strip (sources, STRIP, 16), totals (sources, 16), products (sources, sources,
    16): of every lane the sums of x and of x xᵀ, about the lane's middle pixel."""
    source = Buffer("source", (sources, pixels, LANES))
    strip = Buffer("strip", (sources, STRIP, LANES), access="update")
    totals = Buffer("totals", (sources, LANES), access="update")
    products = Buffer("products", (sources, sources, LANES), access="update")
    writer = Writer(name, [source, strip, totals, products])
    with writer.loop("c", sources) as c:
        writer.store(totals, c, 0, value=number(0.0))
        with writer.loop("d", sources) as d:
            writer.store(products, c, d, 0, value=number(0.0))
    for first, count, times in blocks(pixels, STRIP):
        with writer.loop("s", first + count * times, first, count) as s:
            _copy_about_middle(writer, source, strip, totals, s, count)
            for lines, columns in combinations_with_replacement(_widths(sources), 2):
                _square(writer, strip, products, lines, columns, count)
    return writer.finish()


def _widths(sources: int) -> list[tuple[int, int]]:
    """First map of a tile, and how many."""
    return [
        (first + i * width, width)
        for first, width, times in blocks(sources, SQUARE)
        for i in range(times)
    ]


def _copy_about_middle(
    writer: Writer, source: Buffer, strip: Buffer, totals: Buffer, s: Var, count: int
) -> None:
    sources, pixels, _ = source.shape
    assert isinstance(sources, int) and isinstance(pixels, int)
    with writer.loop("c", sources) as c:
        pivot = writer.let(writer.load(source, c, middle(pixels), 0), "pivot")
        cells = writer.accumulators("a", min(4, count))
        for first, wide, times in blocks(count, len(cells)):
            with writer.loop("n", first + wide * times, first, wide) as n:
                for k in range(wide):
                    x = writer.load(source, c, as_index(s) + n + k, 0)
                    away = writer.let(op("sub", x, pivot), "away")
                    writer.store(strip, c, as_index(n) + k, 0, value=away)
                    writer.assign(cells[k], op("add", Read(cells[k]), away))
        writer.store(totals, c, 0, value=op("add", writer.load(totals, c, 0), total(cells)))


def _square(
    writer: Writer,
    strip: Buffer,
    products: Buffer,
    lines: tuple[int, int],
    columns: tuple[int, int],
    count: int,
) -> None:
    """The products of some maps with some others, and the same mirrored."""
    (k, height), (c, width) = lines, columns
    cells = [
        [writer.assign(writer.register("a"), writer.load(products, k + i, c + j, 0)) for j in cells]
        for i, cells in ((i, range(width)) for i in range(height))
    ]
    with writer.loop("n", count) as n:
        left = [writer.let(writer.load(strip, k + i, n, 0), "x") for i in range(height)]
        for j in range(width):
            x = left[j] if k == c else writer.let(writer.load(strip, c + j, n, 0), "y")
            for i in range(height):
                add_product(writer, cells[i][j], left[i], x)
    for i in range(height):
        for j in range(width):
            writer.store(products, k + i, c + j, 0, value=Read(cells[i][j]))
            if k != c:
                writer.store(products, c + j, k + i, 0, value=Read(cells[i][j]))


def tell_products(name: str, sources: int, pixels: int) -> Kernel:
    """Buffers source, totals, products, lane_weight, told, second (sources, sources), first
    (sources): of the slice's images the means and the products about them (`told`), and Σ x xᵀ and
    Σ x as they are."""
    source = Buffer("source", (sources, pixels, LANES))
    totals = Buffer("totals", (sources, LANES), access="update")
    products = Buffer("products", (sources, sources, LANES))
    weights = Buffer("lane_weight", (LANES,))
    told = Buffer("told", (told_floats(sources),), access="update", align=4)
    second = Buffer("second", (sources, sources), access="write", align=4)
    first = Buffer("first", (sources,), access="write", align=4)
    writer = Writer(name, [source, totals, products, weights, told, second, first])
    living = writer.let(is_positive(writer.load(weights, 0)), "living")
    images = writer.let(op("lanesum", op("select", living, number(1.0), number(0.0))), "images")
    values = writer.let(op("mul", images, _one(float(pixels))), "values")
    share = number(1.0 / pixels)
    with writer.loop("c", sources) as c:
        pivot = writer.load(source, c, middle(pixels), 0)
        mean = op("fma", writer.load(totals, c, 0), share, pivot)
        whole = writer.let(op("lanesum", keep_where(living, mean)), "whole")
        slice_mean = writer.let(op("div", whole, images), "mean")
        writer.store(told, c, value=slice_mean)
        writer.store(first, c, value=op("mul", slice_mean, values))
        # From here on `totals` are those about the slice's mean.
        away = op("sub", pivot, op("splat", slice_mean))
        moved = op("fma", number(float(pixels)), away, writer.load(totals, c, 0))
        writer.store(totals, c, 0, value=moved)
    _about_the_mean(writer, (source, totals, products, told, second), living, values, pixels)
    return writer.finish()


def _about_the_mean(
    writer: Writer, buffers: Sequence[Buffer], living: Value, values: Value, pixels: int
) -> None:
    """With a lane's totals t about its pivot and T about the slice's mean, its products about that
    mean are those about the pivot − t tᵀ / n + T Tᵀ / n."""
    source, totals, products, told, second = buffers
    sources = source.shape[0]
    assert isinstance(sources, int)
    n = number(float(pixels))
    share = number(1.0 / pixels)

    def both(c: Var) -> tuple[Value, Value]:
        """Totals about the pivot and about the mean."""
        about = writer.let(writer.load(totals, c, 0), "about")
        mean = writer.splat(told, c)
        away = op("sub", writer.load(source, c, middle(pixels), 0), mean)
        return writer.let(op("fma", op("neg", n), away, about), "total"), about

    with writer.loop("c", sources) as c:
        total_c, about_c = both(c)
        with writer.loop("d", sources) as d:
            total_d, about_d = both(d)
            less = op("mul", op("mul", total_c, share), total_d)
            more = op("fma", op("mul", about_c, share), about_d, op("neg", less))
            part = op("add", writer.load(products, c, d, 0), more)
            whole = writer.let(op("lanesum", keep_where(living, part)), "whole")
            writer.store(told, as_index(c) * sources + sources + d, value=whole)
            scaled = op("mul", writer.load(told, c, lanes=1), values)
            raw = op("fma", scaled, writer.load(told, d, lanes=1), whole)
            writer.store(second, c, d, value=raw)


# ---- what follows for the many maps -------------------------------------------------------------


def collect(name: str, maps: int, sources: int, pixels: int, eps: float, *, affine: bool) -> Kernel:
    """Buffers told (slices, …), weight (maps, sources), [weight, bias], mean (sources), products
    (sources, sources), moments (maps, 5); symbols slices, images: the moments of W x over all
    images, by way of those of x."""
    slices, images = Symbol("slices"), Symbol("images")
    told = Buffer("told", (slices, told_floats(sources)), align=4)
    matrix = Buffer("matrix", (maps, sources), align=4)
    parameters = affine_parameters(maps, affine)
    mean = Buffer("mean", (sources,), access="update", align=4)
    products = Buffer("products", (sources, sources), access="update", align=4)
    moments = Buffer("moments", (maps, MOMENTS), access="write", align=4)
    buffers = [told, matrix, *parameters, mean, products, moments]
    writer = Writer(name, buffers, [slices, images])
    count = writer.let(op("tofloat", FromIndex(as_index(images), lanes=1)), "images")
    values = writer.let(op("mul", count, _one(float(pixels))), "values")
    _joined_means(writer, told, mean, slices, images, count)
    _joined_products(writer, told, mean, products, slices, images, pixels)
    with writer.loop("k", maps) as k:
        row, square = _projected(writer, matrix, mean, products, k)
        store_moments(writer, moments, parameters, k, row, square, values, eps)
    return writer.finish()


def _living(writer: Writer, s: Var, images: Symbol) -> Value:
    """How many images a slice has."""
    lane = op("add", FromIndex(as_index(s) * LANES), LaneNumbers())
    inside = op("lt", lane, FromIndex(as_index(images)))
    return writer.let(op("lanesum", op("select", inside, number(1.0), number(0.0))), "living")


def _joined_means(
    writer: Writer, told: Buffer, mean: Buffer, slices: Symbol, images: Symbol, count: Value
) -> None:
    sources = mean.shape[0]
    assert isinstance(sources, int)
    for piece in pieces(sources):
        cells = writer.accumulators("a", piece.count, _zero(piece.lanes))
        starts = [piece.start + i * piece.lanes for i in range(piece.count)]
        with writer.loop("s", slices) as s:
            living = _living(writer, s, images)
            for at, cell in zip(starts, cells, strict=True):
                part = writer.load(told, s, at, lanes=piece.lanes)
                add_product(writer, cell, spread(living, piece.lanes), part)
        for at, cell in zip(starts, cells, strict=True):
            whole = op("div", Read(cell), spread(count, piece.lanes))
            writer.store(mean, at, value=whole)


def _joined_products(
    writer: Writer,
    told: Buffer,
    mean: Buffer,
    products: Buffer,
    slices: Symbol,
    images: Symbol,
    pixels: int,
) -> None:
    sources = mean.shape[0]
    assert isinstance(sources, int)
    with writer.loop("c", sources) as c:
        for piece in pieces(sources):
            lanes = piece.lanes
            starts = [piece.start + i * lanes for i in range(piece.count)]
            cells = writer.accumulators("a", piece.count, _zero(lanes))
            with writer.loop("s", slices) as s:
                own = op("sub", writer.load(told, s, c, lanes=1), writer.load(mean, c, lanes=1))
                number_of = op("mul", _living(writer, s, images), _one(float(pixels)))
                factor = writer.let(op("mul", own, number_of), "factor")
                for at, cell in zip(starts, cells, strict=True):
                    row = as_index(c) * sources + (sources + at)
                    part = writer.load(told, s, row, lanes=lanes)
                    average = writer.load(mean, at, lanes=lanes)
                    away = op("sub", writer.load(told, s, at, lanes=lanes), average)
                    about = op("fma", spread(factor, lanes), away, part)
                    writer.assign(cell, op("add", Read(cell), about))
            for at, cell in zip(starts, cells, strict=True):
                writer.store(products, c, at, value=Read(cell))


def _projected(
    writer: Writer, matrix: Buffer, mean: Buffer, products: Buffer, k: Var
) -> tuple[Value, Value]:
    """Of map k the mean, and the squares about it."""
    sources = mean.shape[0]
    assert isinstance(sources, int)
    average, square = (writer.assign(writer.register("a", lanes=1), _zero(1)) for _ in range(2))
    for piece in pieces(sources):
        lanes = piece.lanes
        starts = [piece.start + i * lanes for i in range(piece.count)]
        cells = writer.accumulators("a", piece.count, _zero(lanes))
        with writer.loop("c", sources) as c:
            factor = writer.let(writer.load(matrix, k, c, lanes=1), "factor")
            for at, cell in zip(starts, cells, strict=True):
                line = writer.load(products, c, at, lanes=lanes)
                add_product(writer, cell, spread(factor, lanes), line)
        for at, cell in zip(starts, cells, strict=True):
            weights = writer.let(writer.load(matrix, k, at, lanes=lanes), "weights")
            for register, other in (
                (square, Read(cell)),
                (average, writer.load(mean, at, lanes=lanes)),
            ):
                part = op("mul", weights, other)
                more: Value = part if lanes == 1 else op("lanesum", part)
                writer.assign(register, op("add", Read(register), more))
    # Of maps that hardly differ, rounding may leave less than nothing.
    return Read(average), writer.let(op("max", _zero(1), Read(square)), "square")


def _one(value: float) -> Constant:
    return Constant(value, "f32", 1)


def _zero(lanes: int) -> Constant:
    return Constant(0.0, "f32", lanes)
