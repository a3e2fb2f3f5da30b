"""Keras' activations, as functions and as layers."""

from __future__ import annotations

from typing import Any

from lanewise.bridge.importing.builder import Builder, NoLayer
from lanewise.bridge.importing.keras_step import KerasStep
from lanewise.bridge.importing.values import Value
from lanewise.net import layers as kinds
from lanewise.net.layers import Layer

# Keras' function → our layer. Its softmax and the rest are foreign.
ACTIVATIONS: dict[str, Layer] = {
    "relu": kinds.ReLU(),
    "relu6": kinds.ReLU6(),
    "sigmoid": kinds.Sigmoid(),
    "tanh": kinds.Tanh(),
    "silu": kinds.SiLU(),
    "swish": kinds.SiLU(),
    "gelu": kinds.GELU(),
    "elu": kinds.ELU(),
    "leaky_relu": kinds.LeakyReLU(0.2),
    "hard_sigmoid": kinds.HardSigmoid(),
    "hard_silu": kinds.HardSwish(),
    "hard_swish": kinds.HardSwish(),
}


def activated(b: Builder, function: Any, read: Value) -> Value:
    """The value after an activation function, a foreign layer where it is none of ours. With
    Keras' `linear`, or nothing, the value itself."""
    name = getattr(function, "__name__", type(function).__name__)
    if function is None or name == "linear":
        return read
    layer = ACTIVATIONS.get(name) if _of_keras(function) else None
    if layer is None:
        return b.foreign(name, read.visible, [read], [])
    return b.pointwise(layer, read)


def _of_keras(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).startswith("keras.")


def activation(b: Builder, step: KerasStep) -> Value:
    """The layer `Activation`."""
    return activated(b, step.layer.activation, step.read)


def relu(b: Builder, step: KerasStep) -> Value:
    """The layer `ReLU`, its numbers given one by one."""
    given = step.layer
    known: dict[Any, Layer] = {None: kinds.ReLU(), 6: kinds.ReLU6()}
    if given.max_value not in known or given.threshold:
        raise NoLayer("ReLU with another maximum or threshold")
    if given.negative_slope and given.max_value is None:
        return b.pointwise(kinds.LeakyReLU(float(given.negative_slope)), step.read)
    if given.negative_slope:
        raise NoLayer("ReLU with a maximum and a slope")
    return b.pointwise(known[given.max_value], step.read)


def leaky_relu(b: Builder, step: KerasStep) -> Value:
    """The layer `LeakyReLU`."""
    return b.pointwise(kinds.LeakyReLU(float(step.layer.negative_slope)), step.read)


def elu(b: Builder, step: KerasStep) -> Value:
    """The layer `ELU`."""
    return b.pointwise(kinds.ELU(float(step.layer.alpha)), step.read)


def prelu(b: Builder, step: KerasStep) -> Value:
    """The layer `PReLU`, one slope for each channel."""
    read, slope = step.read, step.parts["alpha"]
    if slope.sources[0].count != read.visible[0]:
        raise NoLayer("slopes that differ within a channel")
    return b.add(kinds.PReLU(True), read, weight=slope)
