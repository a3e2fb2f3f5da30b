"""Batch normalisation: statistics and normalised values; its gradients are in
`batch_norm_gradient.py`.

    mean[c] = Σ x / M        var[c] = Σ (x − mean)² / M         over the M = images · pixels values
    inv[c]  = 1 / √(var + eps)                  x̂ = (x − mean) · inv
    y       = x · scale + shift                 scale = weight · inv,  shift = bias − mean · scale

Each slice of 16 images tells its own part; `collect` adds up what all slices of the batch told, in
their order, so the result is the same bits whoever did what. A slice tells the mean and the sum of
squares about it of every lane (not Σ x²: that would cancel), and parts are joined as Chan, Golub
and LeVeque do (1979): squares about the whole mean are those about the part's plus n · (part's
mean − mean)². Lanes beyond the last image are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isqrt

from lanewise.native.kernels.functions import (
    at_most_six,
    is_positive,
    keep_where,
    number,
    rectified,
)
from lanewise.native.kernels.register_tiles import blocks
from lanewise.native.nest import (
    LANES,
    Buffer,
    Constant,
    FromIndex,
    IndexLike,
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

#: what `collect` makes for every channel
MEAN, INVERSE, SCALE, SHIFT, VARIANCE = range(5)
MOMENTS = 5
#: vectors that a slice tells of a channel: mean, squares about it, and a count where it is needed
TOLD = 3
UNROLLED = 4  # independent sums hide the latency of an addition
STRIP = 1024  # pixels that are added up before they are added to the rest


def one(value: float) -> Constant:
    """A single number."""
    return Constant(value, "f32", 1)


def maps(name: str, channels: int, pixels: int, pitch: int = 0, access: str = "read") -> Buffer:
    """So many pixels of maps; `pitch`: pixels from one map to the next, if there are more."""
    access = "update" if access == "write" and pitch > pixels else access
    return Buffer(name, (channels, pitch or pixels, LANES), access=access)


#: what may follow the normalisation in the same pass: "" is nothing
RECTIFIERS: dict[str, Callable[[Value], Value]] = {
    "": lambda x: x,
    "relu": rectified,
    "relu6": at_most_six,
}


# ---- forward ------------------------------------------------------------------------------------


def statistics(
    name: str,
    channels: int,
    pixels: int,
    *,
    pitches: Sequence[int] = (0, 0),
    join: bool = False,
    copy: bool = False,
    away: bool = True,
) -> Kernel:
    """Buffers source, told (channels, 3, 16), [copied]: each lane's mean, squares about it, and, if
    they are to `join` what is told already (zeros at first), of how many pixels that is. `copy`:
    the source goes on to where it is kept, past the caches if `away`. `pitches`: of the maps of
    source and copied.

    One pass: sums are taken about a pixel of the lane's middle, which lies among the values (one of
    a corner would see mostly padding), strip by strip, so that no long sum loses small terms.
    """
    source = maps("source", channels, pixels, pitches[0])
    told = Buffer("told", (channels, TOLD, LANES), access="update")
    copied = maps("copied", channels, pixels, pitches[-1], "write")
    writer = Writer(name, [source, told, *[copied] * copy])
    with writer.loop("c", channels) as c:
        pivot = writer.let(writer.load(source, c, middle(pixels), 0), "pivot")
        total, square = writer.accumulators("total", 2)
        for begin, size, strips in blocks(pixels, STRIP):
            with writer.loop("strip", begin + size * strips, begin, size) as strip:
                to = (copied, away) if copy else None
                parts = _strip_sums(writer, source, to, c, strip, size, pivot)
                for register, part in zip((total, square), parts, strict=True):
                    writer.assign(register, op("add", Read(register), part))
        sums = (pivot, Read(total), Read(square))
        if join:
            rows = join_statistics(writer, told, c, pixels, *sums)
        else:
            rows = _about_the_mean(writer, pixels, *sums)
        for row, value in enumerate(rows):
            writer.store(told, c, row, 0, value=value)
    return writer.finish()


def _about_the_mean(
    writer: Writer, pixels: int, pivot: Value, total: Value, square: Value
) -> tuple[Value, ...]:
    """Mean and squares about it, from sum and squares about a pivot."""
    shift = writer.let(op("mul", total, number(1.0 / pixels)), "shift")
    mean = writer.let(op("add", pivot, shift), "mean")
    # Of very many equal pixels and an odd first one, rounding leaves less than nothing.
    return mean, writer.let(rectified(op("fma", op("neg", total), shift, square)))


def join_statistics(
    writer: Writer,
    told: Buffer,
    c: IndexLike,
    pixels: int,
    pivot: Value,
    total: Value,
    square: Value,
) -> tuple[Value, ...]:
    """Mean, squares and number of pixels of what is told and so many pixels more, of which sum and
    squares about a pivot are given."""
    mean, about = _about_the_mean(writer, pixels, pivot, total, square)
    mean_before, about_before, count = (
        writer.let(writer.load(told, c, row, 0), "before") for row in range(TOLD)
    )
    more = number(float(pixels))
    total = writer.let(op("add", count, more), "total")
    away = writer.let(op("sub", mean, mean_before), "away")
    part = writer.let(op("div", more, total), "part")
    spread = op("mul", op("mul", away, away), op("mul", count, part))
    return (
        writer.let(op("fma", away, part, mean_before), "joined"),
        writer.let(op("add", op("add", about_before, about), spread), "joined"),
        total,
    )


def middle(pixels: int) -> int:
    """About the middle of a square map, whose sides are not known here."""
    return min(pixels - 1, (pixels + isqrt(pixels)) // 2)


def _strip_sums(
    writer: Writer,
    source: Buffer,
    copied: tuple[Buffer, bool] | None,
    c: Var,
    strip: Var,
    size: int,
    pivot: Value,
) -> tuple[Value, Value]:
    """Σ (x − pivot) and Σ (x − pivot)² over a strip of pixels."""
    wide = min(UNROLLED, size)
    sums, squares = (writer.accumulators(name, wide) for name in ("sum", "square"))
    for first, count, times in blocks(size, wide):
        with writer.loop("i", first + count * times, first, count) as i:
            for k in range(count):
                at = as_index(strip) + i + k
                x = writer.let(writer.load(source, c, at, 0), "x")
                if copied:
                    writer.store(copied[0], c, at, 0, value=x, away=copied[1])
                away = writer.let(op("sub", x, pivot), "away")
                writer.assign(sums[k], op("add", Read(sums[k]), away))
                writer.assign(squares[k], op("fma", away, away, Read(squares[k])))
    total, square = (summed([Read(register) for register in row]) for row in (sums, squares))
    return total, square


def summed(values: list[Value]) -> Value:
    """The sum, as a balanced tree."""
    while len(values) > 1:
        pairs = [op("add", a, b) for a, b in zip(values[::2], values[1::2], strict=False)]
        values = pairs + values[len(pairs) * 2 :]
    return values[0]


def collect(name: str, channels: int, pixels: int, eps: float, *, affine: bool) -> Kernel:
    """Buffers told (slices, channels, 3, 16), [weight, bias], moments (channels, 5); symbols
    slices, images. The last is the unbiased variance, for the running statistics."""
    slices, images = Symbol("slices"), Symbol("images")
    told = Buffer("told", (slices, channels, TOLD, LANES))
    parameters = affine_parameters(channels, affine)
    moments = Buffer("moments", (channels, MOMENTS), access="write", align=4)
    writer = Writer(name, [told, *parameters, moments], [slices, images])
    count = writer.let(op("tofloat", FromIndex(as_index(images), lanes=1)), "images")

    def living(s: Var, value: Value) -> Value:
        lane = op("add", FromIndex(as_index(s) * LANES), LaneNumbers())
        return keep_where(op("lt", lane, FromIndex(as_index(images))), value)

    with writer.loop("c", channels) as c:
        total = writer.assign(writer.register("total"), number(0.0))
        with writer.loop("s", slices) as s:
            part = living(s, writer.load(told, s, c, 0, 0))
            writer.assign(total, op("add", Read(total), part))
        mean = writer.let(op("div", op("lanesum", Read(total)), count), "mean")
        everywhere = writer.let(op("splat", mean), "mean")
        squares = writer.assign(writer.register("squares"), number(0.0))
        with writer.loop("s", slices) as s:
            away = writer.let(op("sub", writer.load(told, s, c, 0, 0), everywhere), "away")
            spread = op("mul", op("mul", away, away), number(float(pixels)))
            part = living(s, op("add", writer.load(told, s, c, 1, 0), spread))
            writer.assign(squares, op("add", Read(squares), part))
        values = writer.let(op("mul", count, one(float(pixels))), "values")
        square = writer.let(op("lanesum", Read(squares)), "square")
        store_moments(writer, moments, parameters, c, mean, square, values, eps)
    return writer.finish()


def collect_slice(name: str, channels: int, pixels: int, eps: float, *, affine: bool) -> Kernel:
    """The same for the images of one slice (ghost normalisation): buffers told (channels, 3, 16),
    lane_weight, [weight, bias], moments (channels, 5)."""
    told = Buffer("told", (channels, TOLD, LANES))
    weights = Buffer("lane_weight", (LANES,))
    parameters = affine_parameters(channels, affine)
    moments = Buffer("moments", (channels, MOMENTS), access="write", align=4)
    writer = Writer(name, [told, weights, *parameters, moments])
    living = writer.let(is_positive(writer.load(weights, 0)), "living")
    count = writer.let(op("lanesum", op("select", living, number(1.0), number(0.0))), "images")
    with writer.loop("c", channels) as c:
        part = keep_where(living, writer.load(told, c, 0, 0))
        mean = writer.let(op("div", op("lanesum", part), count), "mean")
        away = writer.let(op("sub", writer.load(told, c, 0, 0), op("splat", mean)), "away")
        spread = op("mul", op("mul", away, away), number(float(pixels)))
        squares = keep_where(living, op("add", writer.load(told, c, 1, 0), spread))
        square = writer.let(op("lanesum", squares), "square")
        values = writer.let(op("mul", count, one(float(pixels))), "values")
        store_moments(writer, moments, parameters, c, mean, square, values, eps)
    return writer.finish()


def affine_parameters(channels: int, affine: bool) -> list[Buffer]:
    return [Buffer(name, (channels,), align=4) for name in ("weight", "bias")] * affine


def store_moments(
    writer: Writer,
    moments: Buffer,
    parameters: list[Buffer],
    c: Var,
    mean: Value,
    square: Value,
    values: Value,
    eps: float,
) -> None:
    variance = writer.let(op("div", square, values), "variance")
    root = op("sqrt", op("add", variance, one(eps)))
    inverse = writer.let(op("div", one(1.0), root), "inverse")
    scale, shift = _scale_and_shift(writer, parameters, c, mean, inverse)
    unbiased = op("div", square, op("sub", values, one(1.0)))
    for row, value in enumerate((mean, inverse, scale, shift, unbiased)):
        writer.store(moments, c, row, value=value)


def _scale_and_shift(
    writer: Writer, parameters: list[Buffer], c: Var, mean: Value, inverse: Value
) -> tuple[Value, Value]:
    scale, begin = inverse, Constant(0.0, "f32", 1)
    if parameters:
        weight, bias = (writer.load(buffer, c, lanes=1) for buffer in parameters)
        scale = writer.let(op("mul", weight, inverse), "scale")
        return scale, op("fma", op("neg", mean), scale, bias)
    return scale, op("fma", op("neg", mean), scale, begin)


def inference_constants(name: str, channels: int, eps: float, *, affine: bool) -> Kernel:
    """Buffers running_mean, running_var, [weight, bias], scale_and_shift (2, channels)."""
    means, variances = (
        Buffer(which, (channels,), align=4) for which in ("running_mean", "running_var")
    )
    parameters = affine_parameters(channels, affine)
    target = Buffer("scale_and_shift", (2, channels), access="write", align=4)
    writer = Writer(name, [means, variances, *parameters, target])
    with writer.loop("c", channels) as c:
        mean = writer.let(writer.load(means, c, lanes=1), "mean")
        root = op("sqrt", op("add", writer.load(variances, c, lanes=1), one(eps)))
        inverse = writer.let(op("div", one(1.0), root), "inverse")
        for row, value in enumerate(_scale_and_shift(writer, parameters, c, mean, inverse)):
            writer.store(target, row, c, value=value)
    return writer.finish()


def running(name: str, channels: int, momentum: float) -> Kernel:
    """Buffers moments, running_mean, running_var: r ← (1 − momentum) · r + momentum · new."""
    moments = Buffer("moments", (channels, MOMENTS), align=4)
    writer = Writer(name, [moments, *_running_buffers(channels)])
    with writer.loop("c", channels) as c:
        for row, target in zip((MEAN, VARIANCE), writer.buffers[1:], strict=True):
            _blend(writer, target, c, writer.load(moments, c, row, lanes=1), momentum)
    return writer.finish()


def running_of_slices(name: str, apart: int, channels: int, momentum: float) -> Kernel:
    """Buffers moments (slices, apart), running_mean, running_var; symbol slices: the mean over the
    slices is what is new. `apart`: floats from one slice's moments to the next's."""
    slices = Symbol("slices")
    moments = Buffer("moments", (slices, apart), align=4)
    writer = Writer(name, [moments, *_running_buffers(channels)], [slices])
    count = writer.let(op("tofloat", FromIndex(as_index(slices), lanes=1)), "slices")
    with writer.loop("c", channels) as c:
        for row, target in zip((MEAN, VARIANCE), writer.buffers[1:], strict=True):
            total = writer.assign(writer.register("total", lanes=1), one(0.0))
            with writer.loop("s", slices) as s:
                part = writer.load(moments, s, as_index(c) * MOMENTS + row, lanes=1)
                writer.assign(total, op("add", Read(total), part))
            _blend(writer, target, c, op("div", Read(total), count), momentum)
    return writer.finish()


def _running_buffers(channels: int) -> list[Buffer]:
    return [
        Buffer(which, (channels,), access="update", align=4)
        for which in ("running_mean", "running_var")
    ]


def _blend(writer: Writer, target: Buffer, c: Var, new: Value, momentum: float) -> None:
    old = op("mul", writer.load(target, c, lanes=1), one(1.0 - momentum))
    writer.store(target, c, value=op("fma", new, one(momentum), old))


def normalise(
    name: str,
    channels: int,
    pixels: int,
    *,
    moments: bool,
    plus: bool,
    rectifier: str,
    pitches: Sequence[int] = (0, 0, 0),
) -> Kernel:
    """Buffers source, constants, [other], target: source · scale + shift (+ other), then the
    rectifier if there is one. The constants are `moments`, or scale_and_shift (2, channels).
    `pitches`: of the maps of source, other and target."""
    source = maps("source", channels, pixels, pitches[0])
    other = maps("other", channels, pixels, pitches[1])
    size = (channels, MOMENTS) if moments else (2, channels)
    constants = Buffer("constants", size, align=4)
    target = maps("target", channels, pixels, pitches[-1], "write")
    writer = Writer(name, [source, constants, *[other] * plus, target])
    with writer.loop("c", channels, shared=True) as c:
        at = [(c, SCALE), (c, SHIFT)] if moments else [(0, c), (1, c)]
        factor, begin = (writer.let(writer.splat(constants, *index), "constant") for index in at)
        for first, count, times in blocks(pixels, UNROLLED):
            with writer.loop("i", first + count * times, first, count) as i:
                for k in range(count):
                    pixel = as_index(i) + k
                    y = op("fma", writer.load(source, c, pixel, 0), factor, begin)
                    y = op("add", y, writer.load(other, c, pixel, 0)) if plus else y
                    writer.store(target, c, pixel, 0, value=RECTIFIERS[rectifier](y))
    return writer.finish()
