"""Activations and other work element by element: forward and gradient as neighbours.

Every gradient needs the output y only, never the input: relu and leakyrelu look at its sign,
tanh' is 1 − y², sigmoid' is y (1 − y). So the input's memory is free once the output exists.
"""

from __future__ import annotations

from collections.abc import Callable

from lanewise.native.kernels.functions import (
    is_positive,
    keep_where,
    number,
    rectified,
    sigmoid,
    tanh,
)
from lanewise.native.nest import LANES, Buffer, Kernel, Value, Writer, op

Forward = Callable[[Writer, Value, float], Value]
Gradient = Callable[[Value, Value, float], Value]


def _leaky(writer: Writer, x: Value, slope: float) -> Value:
    return op("select", is_positive(x), x, op("mul", x, number(slope)))


def _leaky_gradient(dy: Value, y: Value, slope: float) -> Value:
    return op("select", is_positive(y), dy, op("mul", dy, number(slope)))


def _tanh_gradient(dy: Value, y: Value, slope: float) -> Value:
    return op("mul", dy, op("fma", op("neg", y), y, number(1.0)))


def _sigmoid_gradient(dy: Value, y: Value, slope: float) -> Value:
    return op("mul", dy, op("mul", y, op("sub", number(1.0), y)))


#: layer word → y from x, and dx from dy and y; the float is the layer's parameter (slope)
ACTIVATIONS: dict[str, tuple[Forward, Gradient]] = {
    "relu": (lambda w, x, _: rectified(x), lambda dy, y, _: keep_where(is_positive(y), dy)),
    "leakyrelu": (_leaky, _leaky_gradient),
    "tanh": (lambda w, x, _: tanh(w, x), _tanh_gradient),
    "sigmoid": (lambda w, x, _: sigmoid(w, x), _sigmoid_gradient),
}


def activation(name: str, layer_word: str, elements: int, parameter: float = 0.0) -> Kernel:
    """Buffers source, target. A leakyrelu's slope must not be negative (its gradient reads the
    sign of the output)."""
    forward, _ = ACTIVATIONS[layer_word]
    source = Buffer("source", (elements, LANES))
    target = Buffer("target", (elements, LANES), access="write")
    writer = Writer(name, [source, target])
    with writer.loop("i", elements) as i:
        x = writer.let(writer.load(source, i, 0), "x")
        writer.store(target, i, 0, value=forward(writer, x, parameter))
    return writer.finish()


def activation_gradient(
    name: str, layer_word: str, elements: int, parameter: float = 0.0, *, mask: bool = False
) -> Kernel:
    """Buffers gradient (dy), value (the output y), [before], target (dx). `before` is the output
    of a producer with a joined ReLU: where it is not positive the result is zero."""
    _, backward = ACTIVATIONS[layer_word]
    shape = (elements, LANES)
    gradient, value, before = (Buffer(n, shape) for n in ("gradient", "value", "before"))
    target = Buffer("target", shape, access="write")
    writer = Writer(name, [gradient, value, *[before] * mask, target])
    with writer.loop("i", elements) as i:
        y = writer.let(writer.load(value, i, 0), "y")
        dy = writer.let(writer.load(gradient, i, 0), "dy")
        dx = backward(dy, y, parameter)
        if mask:
            dx = keep_where(is_positive(writer.load(before, i, 0)), dx)
        writer.store(target, i, 0, value=dx)
    return writer.finish()


def add(name: str, elements: int) -> Kernel:
    """Buffers source, target: target += source (where branches of a graph meet)."""
    source = Buffer("source", (elements, LANES))
    target = Buffer("target", (elements, LANES), access="update")
    writer = Writer(name, [source, target])
    with writer.loop("i", elements) as i:
        total = op("add", writer.load(target, i, 0), writer.load(source, i, 0))
        writer.store(target, i, 0, value=total)
    return writer.finish()
