"""Layers with one trained factor w a channel (or one for all): what it does is in `FACTORS`.

    scale    y = w x                      dx = w dy                      dw = Σ dy · x
    prelu    y = x if x > 0 else w x      dx = dy if x > 0 else w dy     dw = Σ dy · min(x, 0)

The factor stays in a register over the pixels of a channel. One factor for all values is one
channel with all of them as its pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lanewise.native.kernels.functions import is_positive, keep_where, number
from lanewise.native.kernels.lanes import add_lanes, strip_sum
from lanewise.native.kernels.register_tiles import blocks
from lanewise.native.nest import LANES, Buffer, Index, Kernel, Read, Register, Value, as_index, op
from lanewise.native.writer import Writer

TOGETHER = 2  # pixels in one turn of a loop, each with a sum of its own


@dataclass(frozen=True)
class Factor:
    """`apply`: value (x, or in the gradient dy), x and w → the product where there is one.
    `pull`: x → what dy is multiplied with in the gradient of w."""

    apply: Callable[[Value, Value, Value], Value]
    pull: Callable[[Value], Value]


FACTORS = {
    "scale": Factor(lambda value, x, w: op("mul", value, w), lambda x: x),
    "prelu": Factor(
        lambda value, x, w: op("select", is_positive(x), value, op("mul", value, w)),
        lambda x: op("min", number(0.0), x),
    ),
}


def factor(name: str, layer_word: str, channels: int, pixels: int) -> Kernel:
    """Buffers source, weight (one a channel), target."""
    shape = (channels, pixels, LANES)
    source, target = Buffer("source", shape), Buffer("target", shape, access="write")
    weight = Buffer("weight", (channels,), align=4)
    writer = Writer(name, [source, weight, target])
    with writer.loop("c", channels) as c:
        w = writer.let(writer.splat(weight, c), "w")
        for first, count, turns in blocks(pixels, TOGETHER):
            with writer.loop("i", first + count * turns, first, count) as i:
                for j in range(count):
                    at = (c, as_index(i) + j, 0)
                    x = writer.let(writer.load(source, *at), "x")
                    writer.store(target, *at, value=FACTORS[layer_word].apply(x, x, w))
    return writer.finish()


def factor_gradient(
    name: str, layer_word: str, channels: int, pixels: int, *, inward: bool, mask: bool = False
) -> Kernel:
    """Buffers gradient (dy), value (the input x), weight, sums (dw: updated), [target (dx)].

    `inward`: whether the input wants a gradient; `mask` sets it to zero where x is not positive.
    """
    rule = FACTORS[layer_word]
    shape = (channels, pixels, LANES)
    gradient, value = Buffer("gradient", shape), Buffer("value", shape)
    weight = Buffer("weight", (channels,), align=4)
    sums = Buffer("sums", (channels,), access="update", align=4)
    target = Buffer("target", shape, access="write")
    writer = Writer(name, [gradient, value, weight, sums, *[target] * inward])
    with writer.loop("c", channels) as c:
        w = writer.let(writer.splat(weight, c), "w")

        def one(sum_: Register, i: Index) -> None:
            x = writer.let(writer.load(value, c, i, 0), "x")
            dy = writer.let(writer.load(gradient, c, i, 0), "dy")
            writer.assign(sum_, op("fma", dy, rule.pull(x), Read(sum_)))
            if inward:
                dx = rule.apply(dy, x, w)
                dx = keep_where(is_positive(x), dx) if mask else dx
                writer.store(target, c, i, 0, value=dx)

        add_lanes(writer, sums, c, value=strip_sum(writer, pixels, TOGETHER, one))
    return writer.finish()
