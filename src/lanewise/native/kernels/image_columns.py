"""A convolution of planes with few kernels, for one image: output columns in the lanes.

    y[k,p,q] = b[k] + Σ_crs  w[k,c,r,s] · x[c, p + r − pad, q + s − pad]

With few kernels, vectors of kernels would be mostly empty; so neighbouring columns of a row are one
vector, and the weights are read into all lanes. Where a max pool of 2 × 2 follows, the columns of a
vector are two apart: even and odd ones are separate vectors, the pool is the maximum of four
registers, and lanes are never shuffled. For that the image is *spread*: padded with zeros, its even
columns before its odd ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from lanewise.native.kernels.functions import rectified
from lanewise.native.kernels.lanes import spread
from lanewise.native.kernels.register_tiles import add_product, blocks
from lanewise.native.nest import (
    LANES,
    Buffer,
    Constant,
    Kernel,
    Read,
    Register,
    Value,
    Var,
    as_index,
    op,
)
from lanewise.native.writer import Writer


@dataclass(frozen=True)
class Columns:
    """Sizes: source channels and kernels, the size of the image and of the kernel, pads at the top
    and the left, and the result: rows × columns of the convolution, `pool` × `pool` of which become
    one value (1 or 2)."""

    channels: int
    kernels: int
    image: tuple[int, int]
    kernel: tuple[int, int]
    pad: tuple[int, int]
    result: tuple[int, int]
    pool: int

    @property
    def pooled(self) -> tuple[int, int]:
        """Rows and columns that are stored."""
        return self.result[0] // self.pool, self.result[1] // self.pool

    @property
    def vectors(self) -> int:
        """Of a stored row."""
        return -(-self.pooled[1] // LANES)

    @property
    def pitch(self) -> int:
        """Places of a stored row; those behind its columns hold no values."""
        return self.vectors * LANES

    @property
    def spread_shape(self) -> tuple[int, int, int, int]:
        """Channels, rows with padding, phases, columns of a phase."""
        rows = self.pooled[0] * self.pool + self.kernel[0] - 1
        last = (self.kernel[1] + self.pool - 2) // self.pool
        columns = -(-(self.pitch + last) // LANES) * LANES
        needed = -(-(self.image[1] + self.pad[1]) // self.pool)
        height = max(rows, self.image[0] + self.pad[0])
        return self.channels, height, self.pool, max(columns, -(-needed // LANES) * LANES)


def spread_image(name: str, sizes: Columns, dtype: str) -> Kernel:
    """Buffers image, scale, shift, faults, target (spread; its padding is zero already and stays):
    as `image_moves.load_image`."""
    height, width = sizes.image
    source = Buffer(
        "image", (sizes.channels, height, width), dtype, align=1 if dtype == "u8" else 4
    )
    scale, shift = (Buffer(n, (sizes.channels,), align=4) for n in ("scale", "shift"))
    faults = Buffer("faults", (LANES,), access="write")
    target = Buffer("target", sizes.spread_shape, access="update")
    writer = Writer(name, [source, scale, shift, faults, target])
    (found,) = writer.accumulators("fault", 1)
    with writer.loop("c", sizes.channels) as c, writer.loop("h", height) as h:
        sums = writer.assign(writer.register("odd", lanes=1), Constant(0.0, "f32", 1))
        for w in range(width):
            value: Value = writer.load(source, c, h, w, lanes=1)
            if dtype == "u8":
                whole = op("tofloat", op("widen", value))
                times, plus = (writer.load(b, c, lanes=1) for b in (scale, shift))
                value = op("fma", whole, times, plus)
            else:
                value = writer.let(value)
                nothing = op("mul", value, Constant(0.0, "f32", 1))
                writer.assign(sums, op("add", Read(sums), nothing))
            column, phase = divmod(w + sizes.pad[1], sizes.pool)
            writer.store(target, c, as_index(h) + sizes.pad[0], phase, column, value=value)
        writer.assign(found, op("add", Read(found), spread(Read(sums), LANES)))
    writer.store(faults, 0, value=Read(found))
    return writer.finish()


def correlate_columns(name: str, sizes: Columns, maps: int, *, relu: bool) -> Kernel:
    """Buffers source (spread), weight (K, C, R, S), bias (K), target (planes whose rows have
    `pitch` places). `maps`: kernels of a register tile."""
    kernels, (rows, columns) = sizes.kernels, sizes.kernel
    source = Buffer("source", sizes.spread_shape)
    weight = Buffer("weight", (kernels, sizes.channels, rows, columns))
    bias = Buffer("bias", (kernels,))
    target = Buffer("target", (kernels, sizes.pooled[0], sizes.pitch), access="write")
    writer = Writer(name, [source, weight, bias, target])
    cells = range(sizes.pool)

    def tile(k: Var, count: int, p: Var, n: Var) -> None:
        starts = [writer.let(writer.splat(bias, as_index(k) + i)) for i in range(count)]
        sums = {
            (i, a, b): writer.assign(writer.register("a"), starts[i])
            for i in range(count)
            for a in cells
            for b in cells
        }
        with writer.loop("c", sizes.channels) as c, writer.loop("r", rows) as r:
            for s in range(columns):
                _products(writer, source, weight, sums, (k, count, p, n, c, r, s), sizes.pool)
        for i in range(count):
            best = _largest([sums[i, a, b] for a in cells for b in cells])
            value = rectified(best) if relu else best
            writer.store(target, as_index(k) + i, p, as_index(n) * LANES, value=value)

    with writer.loop("p", sizes.pooled[0]) as p, writer.loop("n", sizes.vectors) as n:
        for first, count, times in blocks(kernels, maps):
            with writer.loop("k", first + count * times, first, count) as k:
                tile(k, count, p, n)
    return writer.finish()


def _products(
    writer: Writer,
    source: Buffer,
    weight: Buffer,
    sums: dict[tuple[int, int, int], Register],
    at: tuple[Var, int, Var, Var, Var, Var, int],
    pool: int,
) -> None:
    """One tap of all kernels of a tile, on all pixels that are pooled."""
    k, count, p, n, c, r, s = at
    weights = [
        writer.let(writer.splat(weight, as_index(k) + i, c, r, s), "w") for i in range(count)
    ]
    for a in range(pool):
        for b in range(pool):
            column, phase = divmod(s + b, pool)
            row = as_index(p) * pool + r + a
            at_column = as_index(n) * LANES + column
            x = writer.let(writer.load(source, c, row, phase, at_column), "x")
            for i, scalar in enumerate(weights):
                add_product(writer, sums[i, a, b], scalar, x)


def _largest(cells: list[Register]) -> Value:
    values: list[Value] = [Read(cell) for cell in cells]
    while len(values) > 1:
        first, second, *others = values
        values = [*others, op("max", first, second)]
    return values[0]
