"""Weights laid out for the products of small matrices (see `matrix_conv.py`)."""

from __future__ import annotations

from collections.abc import Iterator

from lanewise.native.kernels.correlation import Correlation
from lanewise.native.kernels.matrix_conv import Blocks, MatrixTile, weights_shape
from lanewise.native.kernels.register_tiles import blocks
from lanewise.native.nest import (
    MATRIX_SIZE,
    Buffer,
    Constant,
    Index,
    Kernel,
    Value,
    as_index,
    op,
)
from lanewise.native.writer import Writer


def matrix_weights(name: str, sizes: Correlation, tile: MatrixTile) -> Kernel:
    """The weights as the products take them. Buffers weight, whose numbers have been rounded to
    bf16 already, and target."""
    weight = Buffer("weight", (sizes.weights,), align=4)
    target = Buffer("target", weights_shape(sizes, tile), "i32", "write")
    writer, area = Writer(name, [weight, target]), target.shape[2]
    with writer.loop("t", area) as t:
        for start, stop, pairs, odd in Blocks(sizes, tile).parts:
            with writer.loop("s", stop, start) as s:
                for first, count, times in blocks(sizes.maps, tile.maps):
                    begin = first // tile.maps
                    with writer.loop("k", begin + times, begin, shared=True) as k:
                        with writer.loop("i", count) as i:
                            at = (
                                (as_index(k) * tile.maps + i) * sizes.weight_map
                                + as_index(s) * (2 * tile.pairs * sizes.weight_source)
                                + t
                            )
                            row = _row_of_pairs(writer, weight, at, sizes.weight_source, pairs, odd)
                            for j, value in enumerate(row):
                                writer.store(target, k, s, t, i, j, value=value)
                        if count < tile.maps:
                            with writer.loop("i", tile.maps, count) as i:
                                writer.store(target, k, s, t, i, 0, value=Constant(0, "i32"))
    return writer.finish()


def _row_of_pairs(
    writer: Writer, weight: Buffer, at: Index, apart: int, pairs: int, odd: bool
) -> Iterator[Value]:
    """Two neighbouring sources' weights each, and zeros; rounded numbers have no lower half."""
    for j in range(pairs):
        one = op("asint", writer.load(weight, at + 2 * j * apart, lanes=1))
        low = op("shr", one, Constant(16, "i32", 1))
        if odd and j == pairs - 1:
            yield low
        else:
            high = op("asint", writer.load(weight, at + (2 * j + 1) * apart, lanes=1))
            yield op("xor", low, high)
    for _ in range(pairs, MATRIX_SIZE):
        yield Constant(0, "i32", 1)
