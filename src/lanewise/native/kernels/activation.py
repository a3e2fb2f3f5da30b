"""Activations, element by element: forward and gradient as neighbours.

Most gradients need the output y only: relu and leakyrelu look at its sign, tanh' is 1 − y²,
sigmoid' is y (1 − y). So the input's memory is free once the output exists. silu, gelu and
hardswish go down before they go up: two inputs have one output, and the gradient reads the input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lanewise.native.kernels.functions import (
    at_most_six,
    exponential,
    exponential_minus_one,
    is_positive,
    keep_where,
    normal,
    number,
    rectified,
    sigmoid,
    tanh,
)
from lanewise.native.kernels.register_tiles import blocks
from lanewise.native.nest import LANES, Buffer, Index, Kernel, Value, as_index, op
from lanewise.native.writer import Writer

TOGETHER = 4  # vectors in one turn of a loop


@dataclass(frozen=True)
class Activation:
    """`forward`: x → y. `gradient`: dy and the output y (or, `reads_input`, the input x) → dx. The
    float is the layer's parameter (slope, alpha). `forward_chain`, `gradient_chain`: a polynomial,
    whose every step waits for the one before."""

    forward: Callable[[Writer, Value, float], Value]
    gradient: Callable[[Writer, Value, Value, float], Value]
    reads_input: bool = False
    forward_chain: bool = False
    gradient_chain: bool = False


def _scaled(value: Value, factor: float) -> Value:
    return op("mul", value, number(factor))


def _leaky(writer: Writer, x: Value, slope: float) -> Value:
    return op("select", is_positive(x), x, _scaled(x, slope))


def _leaky_gradient(writer: Writer, dy: Value, y: Value, slope: float) -> Value:
    return op("select", is_positive(y), dy, _scaled(dy, slope))


def _inside_gradient(dy: Value, y: Value, top: float) -> Value:
    """Zero at and beyond both kinks, as in PyTorch."""
    return keep_where(is_positive(y), keep_where(op("lt", y, number(top)), dy))


def _elu(writer: Writer, x: Value, alpha: float) -> Value:
    return op("select", is_positive(x), x, _scaled(exponential_minus_one(writer, x), alpha))


def _elu_gradient(writer: Writer, dy: Value, y: Value, alpha: float) -> Value:
    return op("select", is_positive(y), dy, op("mul", dy, op("add", y, number(alpha))))


def _tanh_gradient(writer: Writer, dy: Value, y: Value, _: float) -> Value:
    return op("mul", dy, op("fma", op("neg", y), y, number(1.0)))


def _sigmoid_gradient(writer: Writer, dy: Value, y: Value, _: float) -> Value:
    return op("mul", dy, op("mul", y, op("sub", number(1.0), y)))


def _hard_sigmoid(writer: Writer, x: Value, _: float = 0.0) -> Value:
    return _scaled(at_most_six(op("add", x, number(3.0))), 1 / 6)


def _hard_swish(writer: Writer, x: Value, _: float) -> Value:
    return op("mul", x, _hard_sigmoid(writer, x))


def _hard_swish_gradient(writer: Writer, dy: Value, x: Value, _: float) -> Value:
    slope = op("fma", x, number(1 / 3), number(0.5))
    rising = keep_where(op("gt", x, number(-3.0)), slope)
    return op("mul", dy, op("select", op("lt", x, number(3.0)), rising, number(1.0)))


def _above_abyss(writer: Writer, x: Value) -> Value:
    """Far down silu is 0, and so is what it is a product of: no infinity may meet that 0."""
    return writer.let(op("max", number(-100.0), x))


def _silu(writer: Writer, x: Value, _: float) -> Value:
    return op("mul", _above_abyss(writer, x), sigmoid(writer, x))


def _silu_gradient(writer: Writer, dy: Value, x: Value, _: float) -> Value:
    """σ + x σ (1 − σ), where 1 − σ = e^−x σ does not cancel."""
    shrunk = exponential(writer, op("neg", x))
    share = writer.let(op("div", number(1.0), op("add", shrunk, number(1.0))))
    rest = op("mul", op("mul", shrunk, share), _above_abyss(writer, x))
    return op("mul", dy, op("fma", share, rest, share))


def _gelu(writer: Writer, x: Value, _: float) -> Value:
    return op("mul", x, normal(writer, x)[0])


def _gelu_gradient(writer: Writer, dy: Value, x: Value, _: float) -> Value:
    below, density = normal(writer, x)
    return op("mul", dy, op("fma", x, density, below))


#: layer word → what it computes
ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(
        lambda w, x, _: rectified(x), lambda w, dy, y, _: keep_where(is_positive(y), dy)
    ),
    "leakyrelu": Activation(_leaky, _leaky_gradient),
    "relu6": Activation(
        lambda w, x, _: at_most_six(x), lambda w, dy, y, _: _inside_gradient(dy, y, 6.0)
    ),
    "elu": Activation(_elu, _elu_gradient, forward_chain=True),
    "silu": Activation(_silu, _silu_gradient, True, forward_chain=True, gradient_chain=True),
    "gelu": Activation(_gelu, _gelu_gradient, True, forward_chain=True, gradient_chain=True),
    "tanh": Activation(lambda w, x, _: tanh(w, x), _tanh_gradient, forward_chain=True),
    "sigmoid": Activation(lambda w, x, _: sigmoid(w, x), _sigmoid_gradient, forward_chain=True),
    "hardsigmoid": Activation(
        _hard_sigmoid, lambda w, dy, y, _: _inside_gradient(_scaled(dy, 1 / 6), y, 1.0)
    ),
    "hardswish": Activation(_hard_swish, _hard_swish_gradient, reads_input=True),
}


def every_vector(
    writer: Writer, vectors: int, together: int = TOGETHER, shared: bool = False
) -> Iterator[Index]:
    """The numbers 0 … vectors − 1, `together` of them written out in one turn of a loop."""
    for first, count, turns in blocks(vectors, together):
        with writer.loop("i", first + count * turns, first, count, shared=shared) as i:
            for j in range(count):
                yield as_index(i) + j


def activation(
    name: str, layer_word: str, elements: int, parameter: float = 0.0, *, chains: int = TOGETHER
) -> Kernel:
    """Buffers source, target. A leakyrelu's slope and an elu's alpha must not be negative (their
    gradients read the sign of the output). `chains`: how many polynomials run side by side, each in
    the waiting time of the others."""
    rule = ACTIVATIONS[layer_word]
    source = Buffer("source", (elements, LANES))
    target = Buffer("target", (elements, LANES), access="write")
    writer = Writer(name, [source, target])
    for i in every_vector(writer, elements, chains if rule.forward_chain else TOGETHER, True):
        x = writer.let(writer.load(source, i, 0), "x")
        writer.store(target, i, 0, value=rule.forward(writer, x, parameter))
    return writer.finish()


def activation_gradient(
    name: str,
    layer_word: str,
    elements: int,
    parameter: float = 0.0,
    *,
    chains: int = TOGETHER,
    mask: bool = False,
) -> Kernel:
    """Buffers gradient (dy), value (the output y, or the input x where the activation reads that),
    [before], target (dx). `before` is the output of a producer with a joined ReLU: where it is not
    positive the result is zero. An activation that reads its input has it already as `value`."""
    rule = ACTIVATIONS[layer_word]
    shape = (elements, LANES)
    gradient, value, before = (Buffer(n, shape) for n in ("gradient", "value", "before"))
    target = Buffer("target", shape, access="write")
    more = mask and not rule.reads_input
    writer = Writer(name, [gradient, value, *[before] * more, target])
    for i in every_vector(writer, elements, chains if rule.gradient_chain else TOGETHER):
        read = writer.let(writer.load(value, i, 0), "y")
        dy = writer.let(writer.load(gradient, i, 0), "dy")
        dx = rule.gradient(writer, dy, read, parameter)
        if mask:
            sign = writer.load(before, i, 0) if more else read
            dx = keep_where(is_positive(sign), dx)
        writer.store(target, i, 0, value=dx)
    return writer.finish()
