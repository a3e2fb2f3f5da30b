"""Batch normalisation: gradients.

    dbias = Σ dy      dweight = Σ dy · x̂      dx = scale · (dy − dbias/M − x̂ · dweight/M)

over the M = images · pixels values of a channel, with scale and x̂ as in `batch_norm.py`. Each slice
tells its sums; `collect_gradient` adds up what all told, in their order, and makes of it what all
images pull at each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lanewise.native.kernels.batch_norm import (
    INVERSE,
    MEAN,
    MOMENTS,
    SCALE,
    SHIFT,
    UNROLLED,
    maps,
    one,
    summed,
)
from lanewise.native.kernels.functions import is_positive, keep_where, number
from lanewise.native.kernels.lanes import add_lanes
from lanewise.native.kernels.register_tiles import blocks
from lanewise.native.nest import (
    LANES,
    Buffer,
    FromIndex,
    Index,
    Kernel,
    Read,
    Symbol,
    Value,
    Var,
    as_index,
    op,
)
from lanewise.native.writer import Writer

#: what `collect_gradient` makes: factor of x − mean, and what is added
SLOPE, OFFSET = range(2)


def through(rectifier: str, normalised: Value, gradient: Value) -> Value:
    """The gradient through a rectifier of `normalised`."""
    if not rectifier:
        return gradient
    passed = keep_where(is_positive(normalised), gradient)
    return passed if rectifier == "relu" else keep_where(op("lt", normalised, number(6.0)), passed)


def _strip_by_strip(
    writer: Writer, pixels: int, strip: int, wide: int
) -> Iterator[tuple[Var, Index, int]]:
    """Loops over strips, and `wide` pixels of each at a time: strip, first pixel, how many."""
    with writer.loop("s", pixels // strip) as s:
        for first, count, times in blocks(strip, wide):
            with writer.loop("i", first + count * times, first, count) as i:
                yield s, as_index(i), count


def gradient_sums(
    name: str,
    channels: int,
    pixels: int,
    *,
    affine: bool,
    rectifier: str = "",
    pitches: Sequence[int] = (0, 0, 0),
    join: bool = False,
    push: bool = False,
    copy: bool = False,
    strips: tuple[int, int, int] | None = None,
) -> Kernel:
    """Buffers source, gradient, moments, told (channels, 2, 16), [weight, bias], [further]: Σ dy
    and Σ dy·x̂ of every lane; their sums over the lanes are added to the gradients of bias and
    weight. `join`: added to what is told already. `push`: scale · dy, which is the gradient of the
    source but for what all images pull at each, goes `further`; `copy`: the gradient goes on to
    where it is kept. `pitches`: of the maps of source, gradient and further. `strips`: further
    lies in strips of so many pixels, of so many maps in all with such a pitch."""
    further = _Further.of(channels, pixels, strips or (pixels, channels, pitches[-1] or pixels))
    sums = _Sums(
        (
            maps("source", channels, pixels, pitches[0]),
            maps("gradient", channels, pixels, pitches[1]),
            Buffer("moments", (channels, MOMENTS), align=4),
            Buffer("told", (channels, 2, LANES), access="update" if join else "write"),
        ),
        parameters_of(channels) * affine,
        further,
        rectifier,
        push,
        copy,
    )
    writer = Writer(name, [*sums.maps, *sums.parameters, *[further.buffer] * (push or copy)])
    with writer.loop("c", channels) as c:
        sums.tell(writer, c, *sums.of_channel(writer, pixels, c))
    return writer.finish()


def parameters_of(channels: int) -> list[Buffer]:
    """Gradients of the parameters, to which is added."""
    return [Buffer(which, (channels,), access="update", align=4) for which in ("weight", "bias")]


@dataclass(frozen=True)
class _Further:
    """Where a gradient goes: strips of so many pixels."""

    strip: int
    buffer: Buffer

    @classmethod
    def of(cls, channels: int, pixels: int, strips: tuple[int, int, int]) -> _Further:
        """`strips`: pixels of each, maps in all, and their pitch."""
        strip, *laid_out = strips
        shape = (pixels // strip, *laid_out, LANES)
        whole = shape == (1, channels, pixels, LANES)
        return cls(strip, Buffer("further", shape, access="write" if whole else "update"))


@dataclass(frozen=True)
class _Sums:
    """`maps`: source, gradient, moments, told."""

    maps: tuple[Buffer, Buffer, Buffer, Buffer]
    parameters: list[Buffer]
    further: _Further
    rectifier: str
    push: bool
    copy: bool

    def of_channel(self, writer: Writer, pixels: int, c: Var) -> tuple[Value, Value]:
        """Σ dy and Σ dy · x̂ of every lane, of channel c."""
        mean, inverse, scale, begin = (
            writer.let(writer.splat(self.maps[2], c, row), which)
            for row, which in zip(
                (MEAN, INVERSE, SCALE, SHIFT), ("mean", "inverse", "scale", "shift"), strict=True
            )
        )
        strip = self.further.strip
        wide = min(UNROLLED, strip)
        sums = writer.accumulators("sum", wide)
        products = writer.accumulators("product", wide)
        for s, i, count in _strip_by_strip(writer, pixels, strip, wide):
            for k in range(count):
                x, dy = self._one_pixel(writer, c, s, i + k, scale, begin)
                away = op("sub", x, mean)
                writer.assign(sums[k], op("add", Read(sums[k]), dy))
                writer.assign(products[k], op("fma", away, dy, Read(products[k])))
        total = writer.let(summed([Read(r) for r in sums]), "total")
        product = summed([Read(r) for r in products])
        return total, writer.let(op("mul", product, inverse), "product")

    def _one_pixel(
        self, writer: Writer, c: Var, s: Var, i: Index, scale: Value, begin: Value
    ) -> tuple[Value, Value]:
        """(source, gradient through the rectifier) of pixel i of strip s, told further if asked."""
        source, gradient = self.maps[:2]
        at = as_index(s) * self.further.strip + i
        x = writer.let(writer.load(source, c, at, 0), "x")
        given = writer.let(writer.load(gradient, c, at, 0), "given")
        dy = writer.let(through(self.rectifier, op("fma", x, scale, begin), given), "dy")
        if self.push:
            writer.store(self.further.buffer, s, c, i, 0, value=op("mul", scale, dy))
        if self.copy:
            writer.store(self.further.buffer, s, c, i, 0, value=given, away=True)
        return x, dy

    def tell(self, writer: Writer, c: Var, total: Value, product: Value) -> None:
        """The sums, and those over the lanes."""
        told = self.maps[3]
        for row, value in enumerate((total, product)):
            before = writer.load(told, c, row, 0) if told.access == "update" else None
            writer.store(told, c, row, 0, value=op("add", before, value) if before else value)
        for target, value in zip(self.parameters, (product, total), strict=False):
            add_lanes(writer, target, c, value=value)


def collect_gradient(name: str, channels: int, pixels: int) -> Kernel:
    """Buffers told (slices, channels, 2, 16), moments, pull (channels, 2); symbols slices, images:
    dx = scale · dy + pull[0] · (x − mean) + pull[1]."""
    slices, images = Symbol("slices"), Symbol("images")
    told = Buffer("told", (slices, channels, 2, LANES))
    moments = Buffer("moments", (channels, MOMENTS), align=4)
    pull = Buffer("pull", (channels, 2), access="write", align=4)
    writer = Writer(name, [told, moments, pull], [slices, images])
    count = op("tofloat", FromIndex(as_index(images), lanes=1))
    share = writer.let(op("div", one(1.0 / pixels), count), "share")
    with writer.loop("c", channels) as c:
        total, product = writer.accumulators("told", 2)
        with writer.loop("s", slices) as s:
            for row, register in enumerate((total, product)):
                part = writer.load(told, s, c, row, 0)
                writer.assign(register, op("add", Read(register), part))
        _store_pull(writer, pull, moments, c, Read(total), Read(product), share)
    return writer.finish()


def collect_gradient_slice(name: str, channels: int, pixels: int) -> Kernel:
    """The same for one slice: buffers told (channels, 2, 16), lane_weight, moments, pull."""
    told = Buffer("told", (channels, 2, LANES))
    weights = Buffer("lane_weight", (LANES,))
    moments = Buffer("moments", (channels, MOMENTS), align=4)
    pull = Buffer("pull", (channels, 2), access="write", align=4)
    writer = Writer(name, [told, weights, moments, pull])
    living = is_positive(writer.load(weights, 0))
    count = op("lanesum", op("select", living, number(1.0), number(0.0)))
    share = writer.let(op("div", one(1.0 / pixels), count), "share")
    with writer.loop("c", channels) as c:
        total, product = (writer.let(writer.load(told, c, row, 0), "told") for row in range(2))
        _store_pull(writer, pull, moments, c, total, product, share)
    return writer.finish()


def _store_pull(
    writer: Writer,
    pull: Buffer,
    moments: Buffer,
    c: Var,
    total: Value,
    product: Value,
    share: Value,
) -> None:
    def moment(row: int) -> Value:
        return writer.load(moments, c, row, lanes=1)

    factor = writer.let(op("mul", op("neg", moment(SCALE)), share), "factor")
    slope = op("mul", op("mul", factor, moment(INVERSE)), op("lanesum", product))
    writer.store(pull, c, SLOPE, value=slope)
    writer.store(pull, c, OFFSET, value=op("mul", factor, op("lanesum", total)))


def gradient(
    name: str,
    channels: int,
    pixels: int,
    *,
    rectifier: str = "",
    mask: bool = False,
    add: bool = False,
    copy: bool = False,
    pitches: Sequence[int] = (0, 0, 0, 0, 0),
) -> Kernel:
    """Buffers source, gradient, moments, pull, lane_weight, [value], target, [copied]: the gradient
    of the source, zero in lanes without an image. `add`: it is added to the target; `copy`: it goes
    on to where it is kept, past the caches. `pitches`: of the five maps in this order."""
    source, gradient_, value = (
        maps(n, channels, pixels, pitch)
        for n, pitch in zip(("source", "gradient", "value"), pitches[:3], strict=True)
    )
    moments = Buffer("moments", (channels, MOMENTS), align=4)
    pull = Buffer("pull", (channels, 2), align=4)
    weights = Buffer("lane_weight", (LANES,))
    target = maps("target", channels, pixels, pitches[3], "update" if add else "write")
    copied = maps("copied", channels, pixels, pitches[-1], "write")
    buffers = [source, gradient_, moments, pull, weights, *[value] * mask, target, *[copied] * copy]
    writer = Writer(name, buffers)
    living = writer.let(is_positive(writer.load(weights, 0)), "living")
    with writer.loop("c", channels) as c:
        constants = _constants(writer, moments, pull, c)
        for first, count, times in blocks(pixels, UNROLLED):
            with writer.loop("i", first + count * times, first, count) as i:
                for k in range(count):
                    at = as_index(i) + k
                    x, dy = writer.load(source, c, at, 0), writer.load(gradient_, c, at, 0)
                    dx = keep_where(living, _dx(writer, constants, x, dy, rectifier))
                    dx = op("add", writer.load(target, c, at, 0), dx) if add else dx
                    if mask:
                        dx = keep_where(is_positive(writer.load(value, c, at, 0)), dx)
                    dx = writer.let(dx, "dx")
                    writer.store(target, c, at, 0, value=dx)
                    if copy:
                        writer.store(copied, c, at, 0, value=dx, away=True)
    return writer.finish()


def _constants(writer: Writer, moments: Buffer, pull: Buffer, c: Var) -> list[Value]:
    """What the gradient of channel c needs: scale and shift; slope, and what is added."""
    rows = [(moments, SCALE), (moments, SHIFT), (moments, MEAN), (pull, SLOPE), (pull, OFFSET)]
    return [writer.let(writer.splat(b, c, row), "constant") for b, row in rows]


def _dx(
    writer: Writer, constants: list[Value], source: Value, gradient: Value, rectifier: str
) -> Value:
    """The gradient of one value of the source."""
    scale, begin, mean, slope, offset = constants
    x = writer.let(source, "x")
    dy = through(rectifier, op("fma", x, scale, begin), gradient)
    return op("fma", scale, dy, op("fma", op("sub", x, mean), slope, offset))


@dataclass(frozen=True)
class Run:
    """Neighbouring pixels: the first that is read, the first that is written, and how many."""

    source: int
    target: int
    pixels: int


@dataclass(frozen=True)
class RowsBehind:
    """The gradient of some pixels: `runs` of source and gradient, whose maps have the first two
    `pitches`, and of the target, with the last."""

    runs: tuple[Run, ...]
    rectifier: str
    pitches: tuple[int, int, int]

    def buffers(self, channels: int) -> list[Buffer]:
        """Source, gradient, moments, pull, lane_weight, given: the target."""
        source, gradient_ = (
            maps(n, channels, pitch)
            for n, pitch in zip(("source", "gradient"), self.pitches, strict=False)
        )
        moments = Buffer("moments", (channels, MOMENTS), align=4)
        pull = Buffer("pull", (channels, 2), align=4)
        weights = Buffer("lane_weight", (LANES,))
        target = maps("given", channels, self.pitches[-1], access="update")
        return [source, gradient_, moments, pull, weights, target]

    def living(self, writer: Writer, buffers: Sequence[Buffer]) -> Value:
        """Which lanes have an image."""
        return writer.let(is_positive(writer.load(buffers[4], 0)), "living")

    def write(self, writer: Writer, buffers: Sequence[Buffer], living: Value, c: Var) -> None:
        """All of a channel."""
        source, gradient_, moments, pull, _, target = buffers
        constants = _constants(writer, moments, pull, c)
        for run in self.runs:
            for first, count, times in blocks(run.pixels, UNROLLED):
                with writer.loop("i", first + count * times, first, count) as i:
                    for k in range(count):
                        at, to = (as_index(i) + (begin + k) for begin in (run.source, run.target))
                        x, dy = writer.load(source, c, at, 0), writer.load(gradient_, c, at, 0)
                        dx = keep_where(living, _dx(writer, constants, x, dy, self.rectifier))
                        writer.store(target, c, to, 0, value=dx)


def gradient_rows(name: str, channels: int, behind: RowsBehind) -> Kernel:
    """The gradient of some pixels of all maps, with the buffers of `behind`."""
    buffers = behind.buffers(channels)
    writer = Writer(name, buffers)
    living = behind.living(writer, buffers)
    with writer.loop("c", channels) as c:
        behind.write(writer, buffers, living, c)
    return writer.finish()
