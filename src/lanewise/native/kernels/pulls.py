"""What all images pull at each through a batch normalisation behind a 1 × 1 convolution, from the
few maps which that reads (`rules/expanded.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

from lanewise.native.kernels.batch_norm import MEAN, MOMENTS
from lanewise.native.kernels.batch_norm_gradient import OFFSET, SLOPE
from lanewise.native.kernels.functions import is_positive, keep_where
from lanewise.native.kernels.lanes import number, pieces, spread, total
from lanewise.native.kernels.register_tiles import add_product, blocks
from lanewise.native.nest import LANES, Buffer, Kernel, Read, Value, Var, as_index, op
from lanewise.native.writer import Writer


def map_sums(name: str, maps: int, pixels: int, pitches: Sequence[int]) -> Kernel:
    """Buffers source, sums (maps, 16): sums += source over the pixels."""
    source = Buffer("source", (maps, pitches[0], LANES))
    sums = Buffer("sums", (maps, LANES), access="update")
    writer = Writer(name, [source, sums])
    with writer.loop("c", maps) as c:
        cells = writer.accumulators("a", min(4, pixels))
        for first, count, times in blocks(pixels, len(cells)):
            with writer.loop("n", first + count * times, first, count) as n:
                for k in range(count):
                    x = writer.load(source, c, as_index(n) + k, 0)
                    writer.assign(cells[k], op("add", Read(cells[k]), x))
        writer.store(sums, c, 0, value=op("add", writer.load(sums, c, 0), total(cells)))
    return writer.finish()


def living_lanes(name: str, sums: int) -> Kernel:
    """Buffers source (sums, 16), lane_weight, target (sums): each sum over the lanes with an
    image."""
    source = Buffer("source", (sums, LANES))
    weights = Buffer("lane_weight", (LANES,))
    target = Buffer("target", (sums,), access="write", align=4)
    writer = Writer(name, [source, weights, target])
    living = writer.let(is_positive(writer.load(weights, 0)), "living")
    with writer.loop("i", sums) as i:
        value = keep_where(living, writer.load(source, i, 0))
        writer.store(target, i, value=op("lanesum", value))
    return writer.finish()


def pull_matrix(name: str, maps: int, sources: int) -> Kernel:
    """Buffers weight (maps, sources), moments, pull, matrix (sources, sources), begin (sources).

    With p[k] = pull[k, SLOPE] · (Σ_c' w[k,c'] x[c'] − mean[k]) + pull[k, OFFSET], which all images
    pull at a pixel of map k, a pixel of source map c gets

        Σ_k w[k,c] p[k]  =  Σ_c' matrix[c,c'] x[c'] + begin[c]
    """
    weight, moments, pull = _pulled(maps, sources)
    matrix = Buffer("matrix", (sources, sources), access="write", align=4)
    begin = Buffer("begin", (sources,), access="write", align=4)
    writer = Writer(name, [weight, moments, pull, matrix, begin])
    with writer.loop("c", sources) as c:
        for piece in pieces(sources):
            cells = writer.accumulators("a", piece.count, number(0.0, piece.lanes))
            with writer.loop("k", maps) as k:
                slope = writer.load(pull, k, SLOPE, lanes=1)
                factor = writer.let(op("mul", writer.load(weight, k, c, lanes=1), slope), "factor")
                for i, cell in enumerate(cells):
                    at = piece.start + i * piece.lanes
                    row = writer.load(weight, k, at, lanes=piece.lanes)
                    add_product(writer, cell, spread(factor, piece.lanes), row)
            for i, cell in enumerate(cells):
                writer.store(matrix, c, piece.start + i * piece.lanes, value=Read(cell))
        (cell,) = writer.accumulators("begin", 1, number(0.0, 1))
        with writer.loop("k", maps) as k:
            still = _still(writer, moments, pull, k)
            add_product(writer, cell, writer.load(weight, k, c, lanes=1), still)
        writer.store(begin, c, value=Read(cell))
    return writer.finish()


def pull_weights(name: str, maps: int, sources: int) -> Kernel:
    """Buffers weight (maps, sources), moments, pull, second (sources, sources), first (sources),
    partial: partial[k, c] += Σ p[k] · x[c] over pixels and images, with p[k] of `pull_matrix`, from
    the sums of x[c'] · x[c] and of x[c]."""
    weight, moments, pull = _pulled(maps, sources)
    second = Buffer("second", (sources, sources), align=4)
    first = Buffer("first", (sources,), align=4)
    partial = Buffer("partial", (maps, sources), access="update", align=4)
    writer = Writer(name, [weight, moments, pull, second, first, partial])
    with writer.loop("k", maps) as k:
        slope = writer.let(writer.load(pull, k, SLOPE, lanes=1), "slope")
        still = writer.let(_still(writer, moments, pull, k), "still")
        for piece in pieces(sources):
            cells = writer.accumulators("a", piece.count, number(0.0, piece.lanes))
            starts = [piece.start + i * piece.lanes for i in range(piece.count)]
            with writer.loop("c", sources) as c:
                factor = writer.let(writer.load(weight, k, c, lanes=1), "factor")
                for at, cell in zip(starts, cells, strict=True):
                    row = writer.load(second, c, at, lanes=piece.lanes)
                    add_product(writer, cell, spread(factor, piece.lanes), row)
            for at, cell in zip(starts, cells, strict=True):
                old = writer.load(partial, k, at, lanes=piece.lanes)
                row = writer.load(first, at, lanes=piece.lanes)
                value = op("fma", spread(still, piece.lanes), row, old)
                value = op("fma", spread(slope, piece.lanes), Read(cell), value)
                writer.store(partial, k, at, value=value)
    return writer.finish()


def _pulled(maps: int, sources: int) -> tuple[Buffer, Buffer, Buffer]:
    return (
        Buffer("weight", (maps, sources), align=4),
        Buffer("moments", (maps, MOMENTS), align=4),
        Buffer("pull", (maps, 2), align=4),
    )


def _still(writer: Writer, moments: Buffer, pull: Buffer, k: Var) -> Value:
    """What is pulled at a pixel of map k where the convolution is zero."""
    slope, offset = (writer.load(pull, k, row, lanes=1) for row in (SLOPE, OFFSET))
    return op("fma", op("neg", writer.load(moments, k, MEAN, lanes=1)), slope, offset)


def add_living(name: str, maps: int, pixels: int, *, mask: bool, pitches: Sequence[int]) -> Kernel:
    """Buffers source, lane_weight, [value], target: target += source in lanes with an image; `mask`
    sets the sum to zero where `value` is not positive."""
    places = [
        Buffer(n, (maps, p, LANES)) for n, p in zip(("source", "value"), pitches, strict=False)
    ]
    weights = Buffer("lane_weight", (LANES,))
    target = Buffer("target", (maps, pitches[-1], LANES), access="update")
    writer = Writer(name, [places[0], weights, *places[1:][:mask], target])
    living = writer.let(is_positive(writer.load(weights, 0)), "living")
    with writer.loop("c", maps) as c, writer.loop("n", pixels) as n:
        more = keep_where(living, writer.load(places[0], c, n, 0))
        result: Value = op("add", writer.load(target, c, n, 0), more)
        if mask:
            result = keep_where(is_positive(writer.load(places[1], c, n, 0)), result)
        writer.store(target, c, n, 0, value=result)
    return writer.finish()
