"""Normalisation of the channels of each pixel; the formulas stand in `norm.py`.

The channels of a pixel are far apart in memory. So a tile of neighbouring pixels walks through the
channels together, each with its sums in registers: what comes into the cache is used as a whole.
How wide the tile is does not change the order of any sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lanewise.native.kernels.functions import is_positive, keep_where, number, rectified
from lanewise.native.kernels.lanes import add_lanes
from lanewise.native.kernels.norm import (
    BIAS,
    INVERSE,
    MEAN,
    WEIGHT,
    Pull,
    add,
    every,
    inverse_deviation,
    pull_of,
)
from lanewise.native.kernels.register_tiles import add_product
from lanewise.native.nest import LANES, Buffer, Index, Kernel, Read, Value, op
from lanewise.native.writer import Writer

BOTH = (WEIGHT, BIAS)


@dataclass(frozen=True)
class _Pixel:
    """One pixel of a tile: where it is, its mean and 1 / its deviation."""

    at: Index
    mean: Value
    inverse: Value


def layer_norm(
    name: str,
    channels: int,
    pixels: int,
    eps: float,
    wide: int,
    *,
    training: bool,
    relu: bool = False,
) -> Kernel:
    """Buffers source, weight, bias, target, [statistics (2, pixels)]; `wide` pixels a tile. `relu`
    is applied to the result."""
    shape = (channels, pixels, LANES)
    source, target = Buffer("source", shape), Buffer("target", shape, access="write")
    weight, bias = (Buffer(each, (channels,), align=4) for each in ("weight", "bias"))
    statistics = Buffer("statistics", (2, pixels, LANES), access="write")
    writer = Writer(name, [source, weight, bias, target, *[statistics] * training])
    for places in every(writer, pixels, wide):
        cells = _statistics(writer, source, channels, places, eps)
        for cell in cells * training:
            writer.store(statistics, MEAN, cell.at, 0, value=cell.mean)
            writer.store(statistics, INVERSE, cell.at, 0, value=cell.inverse)
        with writer.loop("c", channels) as c:
            w = writer.let(writer.splat(weight, c), "w")
            b = writer.let(writer.splat(bias, c), "b")
            for cell in cells:
                away = op("sub", writer.load(source, c, cell.at, 0), cell.mean)
                result: Value = op("fma", op("mul", away, cell.inverse), w, b)
                result = rectified(result) if relu else result
                writer.store(target, c, cell.at, 0, value=result)
    return writer.finish()


def _statistics(
    writer: Writer, source: Buffer, channels: int, places: list[Index], eps: float
) -> list[_Pixel]:
    sums = writer.accumulators("sum", len(places))
    with writer.loop("c", channels) as c:
        for cell, at in zip(sums, places, strict=True):
            add(writer, cell, writer.load(source, c, at, 0))
    each = number(1.0 / channels)
    means = [writer.let(op("mul", Read(cell), each), "mean") for cell in sums]
    squares = writer.accumulators("square", len(places))
    with writer.loop("c", channels) as c:
        for cell, at, mean in zip(squares, places, means, strict=True):
            away = writer.let(op("sub", writer.load(source, c, at, 0), mean), "away")
            add_product(writer, cell, away, away)
    return [
        _Pixel(at, mean, writer.let(inverse_deviation(Read(cell), channels, eps), "inverse"))
        for at, mean, cell in zip(places, means, squares, strict=True)
    ]


@dataclass(frozen=True)
class _Backward:
    """What the gradient of one net layer reads, and where it sums what is for the weights."""

    channels: int
    gradient: Buffer
    value: Buffer
    weight: Buffer
    lane_sums: Buffer


def layer_norm_gradient(
    name: str, channels: int, pixels: int, wide: int, *, inward: bool = True, mask: bool = False
) -> Kernel:
    """Buffers gradient (dy), value (the input x), statistics, weight, lane_sums (2, channels: room
    for the sums of all tiles), weight_sums and bias_sums (updated), [target (dx)].

    `inward`: whether the input wants a gradient; `mask` sets it to zero where x is not positive.
    """
    shape = (channels, pixels, LANES)
    gradient, value = Buffer("gradient", shape), Buffer("value", shape)
    statistics = Buffer("statistics", (2, pixels, LANES))
    weight = Buffer("weight", (channels,), align=4)
    lane_sums = Buffer("lane_sums", (2, channels, LANES), access="update")
    sums = [Buffer(f"{w}_sums", (channels,), "f32", "update", 4) for w in ("weight", "bias")]
    target = Buffer("target", shape, access="write")
    buffers = [gradient, value, statistics, weight, lane_sums, *sums, *[target] * inward]
    writer = Writer(name, buffers)
    layer = _Backward(channels, gradient, value, weight, lane_sums)
    with writer.loop("c", channels) as c:
        for which in BOTH:
            writer.store(lane_sums, which, c, 0, value=number(0.0))
    for places in every(writer, pixels, wide):
        cells = [_remembered(writer, statistics, at) for at in places]
        pulls = _sums(writer, layer, cells, inward)
        if inward:
            _input_gradient(writer, layer, cells, pulls, target, mask)
    with writer.loop("c", channels) as c:
        for which in BOTH:
            add_lanes(writer, sums[which], c, value=writer.load(lane_sums, which, c, 0))
    return writer.finish()


def _remembered(writer: Writer, statistics: Buffer, at: Index) -> _Pixel:
    """Loaded where they are needed: the registers are full of sums."""
    mean, inverse = (writer.load(statistics, which, at, 0) for which in (MEAN, INVERSE))
    return _Pixel(at, mean, inverse)


def _sums(writer: Writer, layer: _Backward, cells: Sequence[_Pixel], inward: bool) -> list[Pull]:
    """A tile's part of the gradients of weight and bias; what its means pull at each pixel."""
    products, plains = (writer.accumulators("pull", len(cells) * inward) for _ in BOTH)
    with writer.loop("c", layer.channels) as c:
        w = writer.let(writer.splat(layer.weight, c), "w")
        told = [
            writer.assign(writer.register("told"), writer.load(layer.lane_sums, which, c, 0))
            for which in BOTH
        ]
        for k, cell in enumerate(cells):
            dy = writer.let(writer.load(layer.gradient, c, cell.at, 0), "dy")
            x = writer.load(layer.value, c, cell.at, 0)
            away = writer.let(op("sub", x, cell.mean), "away")
            add_product(writer, told[WEIGHT], op("mul", dy, cell.inverse), away)
            add(writer, told[BIAS], dy)
            if inward:
                g = writer.let(op("mul", w, dy), "g")
                add_product(writer, products[k], g, away)
                add(writer, plains[k], g)
        for which in BOTH:
            writer.store(layer.lane_sums, which, c, 0, value=Read(told[which]))
    return [
        pull_of(writer, Read(product), Read(plain), cell.inverse, layer.channels)
        for product, plain, cell in zip(products, plains, cells, strict=False)
    ]


def _input_gradient(
    writer: Writer,
    layer: _Backward,
    cells: Sequence[_Pixel],
    pulls: Sequence[Pull],
    target: Buffer,
    mask: bool,
) -> None:
    """dx of a tile."""
    with writer.loop("c", layer.channels) as c:
        w = writer.let(writer.splat(layer.weight, c), "w")
        for cell, pull in zip(cells, pulls, strict=True):
            x = writer.let(writer.load(layer.value, c, cell.at, 0), "x")
            g = op("mul", w, writer.load(layer.gradient, c, cell.at, 0))
            dx = pull.gradient(g, cell.inverse, op("sub", x, cell.mean))
            dx = keep_where(is_positive(x), dx) if mask else dx
            writer.store(target, c, cell.at, 0, value=dx)
