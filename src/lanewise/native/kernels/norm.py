"""Normalisation over one image: groups of channels; `layer_norm.py`: the channels of each pixel.

    x̂ = (x − mean) · inv,   inv = 1 / √(mean of (x − mean)² + eps),   y = x̂ · weight + bias
    dbias = Σ dy            dweight = Σ dy · x̂
    dx = inv · (g − mean of g − x̂ · mean of (g · x̂)),   g = weight · dy

Every lane is an image, so all means are sums of vectors. The mean comes first and the squares about
it second, because Σ x² − (Σ x)² would cancel. Training keeps mean and inv for the gradient.

A group is one run of memory. A tile of registers holds independent sums over it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lanewise.native.kernels.functions import is_positive, keep_where, number, rectified
from lanewise.native.kernels.lanes import add_lanes, strip_sum, total
from lanewise.native.kernels.register_tiles import add_product, blocks
from lanewise.native.nest import (
    LANES,
    Buffer,
    Index,
    IndexLike,
    Kernel,
    Read,
    Register,
    Value,
    Var,
    as_index,
    op,
)
from lanewise.native.writer import Writer

#: independent sums over a run, forward, and of each of two kinds over a channel, in the gradient;
#: other numbers would be another order of sums, so other last bits
TOGETHER = 4
TWICE = 2
MEAN, INVERSE = range(2)
WEIGHT, BIAS = range(2)


def every(writer: Writer, size: int, width: int) -> Iterator[list[Index]]:
    """0 … size − 1, `width` at a time (and the rest at once), in loops."""
    for first, count, turns in blocks(size, width):
        with writer.loop("p", first + count * turns, first, count) as p:
            yield [as_index(p) + j for j in range(count)]


def inverse_deviation(squares: Value, count: int, eps: float) -> Value:
    """1 / √(variance + eps) from the sum of squares about the mean."""
    variance = op("fma", squares, number(1.0 / count), number(eps))
    return op("div", number(1.0), op("sqrt", variance))


def add(writer: Writer, cell: Register, value: Value) -> None:
    writer.assign(cell, op("add", Read(cell), value))


@dataclass(frozen=True)
class Pull:
    """What mean and deviation, which depend on every x, add to dx: away · slope + offset."""

    slope: Value
    offset: Value

    def gradient(self, dy: Value, scale: Value, away: Value) -> Value:
        return op("fma", dy, scale, op("fma", away, self.slope, self.offset))


def pull_of(writer: Writer, product: Value, plain: Value, inverse: Value, count: int) -> Pull:
    """From Σ g · (x − mean) and Σ g over the `count` values of one mean."""
    each = writer.let(op("mul", inverse, number(-1.0 / count)), "each")
    square = op("mul", inverse, inverse)
    slope = writer.let(op("mul", op("mul", product, each), square), "slope")
    return Pull(slope, writer.let(op("mul", plain, each), "offset"))


# ---- groups of channels -------------------------------------------------------------------------


@dataclass(frozen=True)
class Groups:
    """`groups` of `channels` maps of `pixels` values. Features without maps have one pixel each."""

    groups: int
    channels: int
    pixels: int

    @property
    def run(self) -> int:
        """Values of one group, neighbours in memory."""
        return self.channels * self.pixels

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.groups, self.run, LANES)

    def row(self, name: str, access: str = "read") -> Buffer:
        """A number for every channel."""
        return Buffer(name, (self.groups * self.channels,), access=access, align=4)

    def statistics(self, access: str = "read") -> Buffer:
        """MEAN and INVERSE of each group."""
        return Buffer("statistics", (self.groups, 2, LANES), access=access)

    def channel(self, group: IndexLike, channel: IndexLike) -> Index:
        return as_index(group) * self.channels + channel

    def pixels_of(self, writer: Writer, channel: Var, together: int) -> Iterator[tuple[int, Index]]:
        """Every pixel of a channel as its number in a turn, and its place in the group."""
        for places in every(writer, self.pixels, together):
            for turn, place in enumerate(places):
                yield turn, as_index(channel) * self.pixels + place


def group_norm(
    name: str, sizes: Groups, eps: float, *, training: bool, relu: bool = False
) -> Kernel:
    """Buffers source, weight, bias, target, [statistics]. `relu` is applied to the result."""
    source, target = Buffer("source", sizes.shape), Buffer("target", sizes.shape, access="write")
    weight, bias = sizes.row("weight"), sizes.row("bias")
    statistics = sizes.statistics("write")
    writer = Writer(name, [source, weight, bias, target, *[statistics] * training])
    with writer.loop("g", sizes.groups) as g:
        summed = strip_sum(
            writer,
            sizes.run,
            TOGETHER,
            lambda cell, at: add(writer, cell, writer.load(source, g, at, 0)),
        )
        mean = writer.let(op("mul", summed, number(1.0 / sizes.run)), "mean")

        def away(at: Index) -> Value:
            return writer.let(op("sub", writer.load(source, g, at, 0), mean), "away")

        def add_square(cell: Register, at: Index) -> None:
            value = away(at)
            add_product(writer, cell, value, value)

        squares = strip_sum(writer, sizes.run, TOGETHER, add_square)
        inverse = writer.let(inverse_deviation(squares, sizes.run, eps), "inverse")
        if training:
            writer.store(statistics, g, MEAN, 0, value=mean)
            writer.store(statistics, g, INVERSE, 0, value=inverse)
        with writer.loop("c", sizes.channels) as c:
            here = sizes.channel(g, c)
            scale = writer.let(op("mul", inverse, writer.splat(weight, here)), "scale")
            shift = writer.let(writer.splat(bias, here), "shift")
            for _, at in sizes.pixels_of(writer, c, TOGETHER):
                result: Value = op("fma", away(at), scale, shift)
                writer.store(target, g, at, 0, value=rectified(result) if relu else result)
    return writer.finish()


def group_norm_gradient(
    name: str, sizes: Groups, *, inward: bool = True, mask: bool = False
) -> Kernel:
    """Buffers gradient (dy), value (the input x), statistics, weight, weight_sums and bias_sums
    (updated), [target (dx)].

    `inward`: whether the input wants a gradient; `mask` sets it to zero where x is not positive.
    """
    gradient, value = Buffer("gradient", sizes.shape), Buffer("value", sizes.shape)
    statistics, weight = sizes.statistics(), sizes.row("weight")
    sums = [sizes.row(each, "update") for each in ("weight_sums", "bias_sums")]
    target = Buffer("target", sizes.shape, access="write")
    writer = Writer(name, [gradient, value, statistics, weight, *sums, *[target] * inward])
    with writer.loop("g", sizes.groups) as g:
        mean = writer.let(writer.load(statistics, g, MEAN, 0), "mean")
        inverse = writer.let(writer.load(statistics, g, INVERSE, 0), "inverse")

        def read(at: Index) -> tuple[Value, Value, Value]:
            dy = writer.let(writer.load(gradient, g, at, 0), "dy")
            x = writer.let(writer.load(value, g, at, 0), "x")
            return dy, x, writer.let(op("sub", x, mean), "away")

        pulls = _group_sums(writer, sizes, g, read, inverse, weight, sums)
        if inward:
            pull = pull_of(writer, Read(pulls[WEIGHT]), Read(pulls[BIAS]), inverse, sizes.run)
            with writer.loop("c", sizes.channels) as c:
                w = writer.splat(weight, sizes.channel(g, c))
                scale = writer.let(op("mul", w, inverse), "scale")
                for _, at in sizes.pixels_of(writer, c, TOGETHER):
                    dy, x, away = read(at)
                    dx = pull.gradient(dy, scale, away)
                    dx = keep_where(is_positive(x), dx) if mask else dx
                    writer.store(target, g, at, 0, value=dx)
    return writer.finish()


def _group_sums(
    writer: Writer,
    sizes: Groups,
    g: Var,
    read: Callable[[Index], tuple[Value, Value, Value]],
    inverse: Value,
    weight: Buffer,
    sums: Sequence[Buffer],
) -> list[Register]:
    """Gradients of weight and bias; Σ g · (x − mean) and Σ g of the group stay in registers."""
    pulls = writer.accumulators("pull", 2)
    with writer.loop("c", sizes.channels) as c:
        cells = [writer.accumulators("sum", min(TWICE, sizes.pixels)) for _ in sums]
        for cell, at in sizes.pixels_of(writer, c, TWICE):
            dy, _, away = read(at)
            add_product(writer, cells[WEIGHT][cell], dy, away)
            add(writer, cells[BIAS][cell], dy)
        here = sizes.channel(g, c)
        w = writer.let(writer.splat(weight, here), "w")
        product, plain = (writer.let(total(each)) for each in cells)
        add_lanes(writer, sums[WEIGHT], here, value=op("mul", product, inverse))
        add_lanes(writer, sums[BIAS], here, value=plain)
        add_product(writer, pulls[WEIGHT], w, product)
        add_product(writer, pulls[BIAS], w, plain)
    return pulls
