"""The table from Keras' layers to ours.

A rule is `rule(builder, step)`: the layer of Keras, what it reads (maps always as C×H×W, whatever
the order of Keras' axes) and its variables by their names. It returns the value that the layer
gives, or raises `NoLayer`. Windows are read by Keras' own convention (`size.conventions`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lanewise.bridge.importing import functions, keras_activations
from lanewise.bridge.importing.builder import Builder, NoLayer
from lanewise.bridge.importing.keras_step import KerasStep, Rule
from lanewise.bridge.importing.values import Border, Constant, Value
from lanewise.bridge.importing.windows import pair, with_border, with_filled_border
from lanewise.net import layers as kinds
from lanewise.net.layers import Layer
from lanewise.size.conventions import CONVENTIONS, Grown, transposed
from lanewise.size.reading import read_layer

_KERAS = CONVENTIONS["keras"]
# Layers after which no value is below zero, so that zeros around them are never a window's largest.
_NEVER_NEGATIVE = (kinds.ReLU, kinds.ReLU6, kinds.Sigmoid, kinds.HardSigmoid)


def _add_window(b: Builder, layer: Any, read: Value, **parts: Constant | None) -> Value:
    """A layer with a window, its padding as plain numbers."""
    if len(read.visible) != 3:
        raise NoLayer("windows over something else than maps")
    if read.border is not None and layer.pad == "valid":
        inner, pad = with_border(read, kinds.NO_PAD)
        return b.add(replace(layer, pad=pad), inner, **parts)
    return b.add(read_layer(_KERAS, layer, read.visible), read, **parts)


# Convolutions -------------------------------------------------------------------------------------


def _window(layer: Any) -> dict[str, Any]:
    return {
        "stride": pair(layer.strides),
        "pad": layer.padding,
        "dilation": pair(layer.dilation_rate),
    }


def _conv(b: Builder, step: KerasStep) -> Value:
    step.require_format()
    given, read, kernel = step.layer, step.read, pair(step.layer.kernel_size)
    window: dict[str, Any] = {**_window(given), "bias": given.use_bias}
    layer: Layer
    if 1 < given.groups == read.visible[0]:
        layer = kinds.DepthwiseConv(kernel, given.filters // given.groups, **window)
    else:
        layer = kinds.Conv(given.filters, kernel, groups=given.groups, **window)
    return _add_window(b, layer, read, weight=step.parts["kernel"], bias=step.parts.get("bias"))


def _depthwise(b: Builder, step: KerasStep) -> Value:
    step.require_format()
    given = step.layer
    layer = kinds.DepthwiseConv(
        pair(given.kernel_size), given.depth_multiplier, bias=given.use_bias, **_window(given)
    )
    parts = {"weight": step.parts["kernel"], "bias": step.parts.get("bias")}
    return _add_window(b, layer, step.read, **parts)


def _separable(b: Builder, step: KerasStep) -> Value:
    """Two layers: each channel for itself, then single pixels."""
    step.require_format()
    given, named = step.layer, b.step
    first = kinds.DepthwiseConv(
        pair(given.kernel_size), given.depth_multiplier, bias=False, **_window(given)
    )
    second = kinds.Conv(given.filters, (1, 1), bias=given.use_bias)
    b.step = replace(named, hint=f"{named.hint}_depthwise")
    value = _add_window(b, first, step.read, weight=step.parts["depthwise_kernel"])
    b.step = replace(named, hint=f"{named.hint}_pointwise")
    parts = {"weight": step.parts["pointwise_kernel"], "bias": step.parts.get("bias")}
    return b.add(second, value, **parts)


def _transposed(b: Builder, step: KerasStep) -> Value:
    step.require_format()
    given, read = step.layer, step.read
    if len(read.visible) != 3:
        raise NoLayer("windows over something else than maps")
    height, width = (_grown(given, axis, n) for axis, n in enumerate(read.visible[1:]))
    layer = kinds.TransposedConv(
        given.filters,
        pair(given.kernel_size),
        pair(given.strides),
        ((height.begin, height.end), (width.begin, width.end)),
        (height.output_pad, width.output_pad),
        pair(given.dilation_rate),
        bias=given.use_bias,
    )
    return b.add(layer, read, weight=step.parts["kernel"], bias=step.parts.get("bias"))


def _grown(given: Any, axis: int, n: int) -> Grown:
    longer = given.output_padding
    return transposed(
        _KERAS,
        n,
        pair(given.kernel_size)[axis],
        pair(given.strides)[axis],
        given.padding,
        pair(given.dilation_rate)[axis],
        0 if longer is None else pair(longer)[axis],
    )


def _dense(b: Builder, step: KerasStep) -> Value:
    """A full connection; of maps with their channels last, a convolution of single pixels."""
    given, read = step.layer, step.read
    parts = {"weight": step.parts["kernel"], "bias": step.parts.get("bias")}
    if len(read.visible) == 3 and step.last:
        return b.add(kinds.Conv(given.units, (1, 1), bias=given.use_bias), read, **parts)
    if len(read.visible) != 1:
        raise NoLayer("a full connection of the last axis alone")
    return b.add(kinds.Linear(given.units, given.use_bias), read, **parts)


# Pools and arrangement ----------------------------------------------------------------------------


def _max_pool(b: Builder, step: KerasStep) -> Value:
    step.require_format()
    given, read = step.layer, step.read
    layer = kinds.MaxPool(pair(given.pool_size), pair(given.strides), given.padding)
    if read.border is None:
        return _add_window(b, layer, read)
    if isinstance(b.entries[read.entry].layer, _NEVER_NEGATIVE) and not read.border.fill:
        read = replace(read, border=Border(read.border.sides, float("-inf")))
    return _add_bordered(b, layer, read, float("-inf"))


def _avg_pool(b: Builder, step: KerasStep) -> Value:
    step.require_format()
    given, read = step.layer, step.read
    layer = kinds.AvgPool(pair(given.pool_size), pair(given.strides), given.padding)
    return _add_window(b, layer, read) if read.border is None else _add_bordered(b, layer, read, 0)


def _add_bordered(b: Builder, layer: kinds.Pool, read: Value, fill: float) -> Value:
    if layer.pad != "valid":
        raise NoLayer("pooling with a padding of its own over padded maps")
    inner, pad = with_filled_border(read, kinds.NO_PAD, fill)
    return b.add(replace(layer, pad=pad), inner)


def _global(kind: type[Layer]) -> Rule:
    def rule(b: Builder, step: KerasStep) -> Value:
        step.require_format()
        pooled = b.add(kind(), step.read)
        b.step = replace(b.step, hint="")
        return pooled if step.layer.keepdims else b.reshaped(pooled, pooled.shape[:1])

    return rule


def _zeros(b: Builder, step: KerasStep) -> Value:
    """Zeros around the maps: the next window takes them as its pad."""
    step.require_format()
    read, (height, width) = step.read, step.layer.padding
    if not read.is_plain or len(read.shape) != 3:
        raise NoLayer("zeros around something else than maps")
    return replace(read, border=Border((tuple(height), tuple(width))))


def _flatten(b: Builder, step: KerasStep) -> Value:
    read = step.read
    if len(read.visible) == 1:
        return read
    return b.add(kinds.Flatten(), read)


def _reshape(b: Builder, step: KerasStep) -> Value:
    """To features, or features to maps of one pixel."""
    read = step.read
    wanted = tuple(step.layer.target_shape)
    count = read.visible[0]
    if len(wanted) == 1:
        return _flatten(b, step)
    ends = (1, 1, count) if step.last else (count, 1, 1)
    if len(read.shape) == 1 and tuple(count if n == -1 else n for n in wanted) == ends:
        return b.reshaped(read, (count, 1, 1))
    raise NoLayer("another shape")


def _upsample(b: Builder, step: KerasStep) -> Value:
    step.require_format()
    given = step.layer
    if given.interpolation not in ("nearest", "bilinear"):
        raise NoLayer(f"interpolation by {given.interpolation}")
    return b.add(kinds.Upsample(pair(given.size), given.interpolation == "bilinear"), step.read)


def _same(b: Builder, step: KerasStep) -> Value:
    return step.read


# Normalisation ------------------------------------------------------------------------------------


def _batch_norm(b: Builder, step: KerasStep) -> Value:
    given, read, parts = step.layer, step.read, step.parts
    step.require_channels(given.axis, read)
    _require_both(given, "batch normalisation")
    # Keras' momentum is the share of the old value; ours, like PyTorch's, that of the new one.
    layer = kinds.BatchNorm(given.epsilon, round(1 - given.momentum, 12), affine=given.scale)
    kept = {"running_mean": parts["moving_mean"], "running_var": parts["moving_variance"]}
    return b.add(layer, read, weight=parts.get("gamma"), bias=parts.get("beta"), **kept)


def _require_both(given: Any, what: str) -> None:
    if given.scale != given.center:
        raise NoLayer(f"{what} with one of weight and bias")


def _layer_norm(b: Builder, step: KerasStep) -> Value:
    given, read = step.layer, step.read
    step.require_channels(given.axis, read)
    if not (given.scale and given.center):
        raise NoLayer("layer normalisation without weight or bias")
    parts = {"weight": step.parts["gamma"], "bias": step.parts["beta"]}
    return b.add(kinds.LayerNorm(given.epsilon), read, **parts)


def _group_norm(b: Builder, step: KerasStep) -> Value:
    given, read = step.layer, step.read
    step.require_channels(given.axis, read)
    if not (given.scale and given.center):
        raise NoLayer("group normalisation without weight or bias")
    groups = read.visible[0] if given.groups == -1 else given.groups
    parts = {"weight": step.parts["gamma"], "bias": step.parts["beta"]}
    return b.add(kinds.GroupNorm(groups, given.epsilon), read, **parts)


# Value by value -----------------------------------------------------------------------------------


def _noise(kind: type[kinds.Noise]) -> Rule:
    def rule(b: Builder, step: KerasStep) -> Value:
        rate, shape = step.layer.rate, getattr(step.layer, "noise_shape", None)
        drawn = kind
        if shape is not None:
            if any(n != 1 for n in shape[1:]):
                raise NoLayer("dropout of a shape of its own")
            drawn = kinds.StochasticDepth  # one draw an image
        return b.pointwise(drawn(rate), step.read) if rate else step.read

    return rule


# Joins --------------------------------------------------------------------------------------------


def _join(layer: kinds.Join) -> Rule:
    def rule(b: Builder, step: KerasStep) -> Value:
        if len(step.reads) < 2:
            raise NoLayer("a join with a constant")
        return functions.joined_once(b, layer, *step.reads)

    return rule


def _concat(b: Builder, step: KerasStep) -> Value:
    step.require_channels(step.layer.axis, step.reads[0])
    return functions.joined_once(b, kinds.Concat(), *step.reads)


# Name of the layer's class → rule.
LAYERS: dict[str, Rule] = {
    "Conv2D": _conv,
    "DepthwiseConv2D": _depthwise,
    "SeparableConv2D": _separable,
    "Conv2DTranspose": _transposed,
    "Dense": _dense,
    "MaxPooling2D": _max_pool,
    "AveragePooling2D": _avg_pool,
    "GlobalAveragePooling2D": _global(kinds.GlobalAvg),
    "GlobalMaxPooling2D": _global(kinds.GlobalMax),
    "ZeroPadding2D": _zeros,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "UpSampling2D": _upsample,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "Activation": keras_activations.activation,
    "ReLU": keras_activations.relu,
    "LeakyReLU": keras_activations.leaky_relu,
    "ELU": keras_activations.elu,
    "PReLU": keras_activations.prelu,
    "Dropout": _noise(kinds.Dropout),
    "SpatialDropout2D": _noise(kinds.SpatialDropout),
    "Add": _join(kinds.Add()),
    "Multiply": _join(kinds.Multiply()),
    "Concatenate": _concat,
    "Identity": _same,
}


def _plain(name: str) -> Rule:
    def rule(b: Builder, step: KerasStep) -> Value:
        return b.pointwise(keras_activations.ACTIVATIONS[name], step.read)

    return rule


# Name of the class of an operation that is no layer (`x + y`, `keras.ops.relu(x)`) → rule.
OPERATIONS: dict[str, Rule] = {
    "Add": _join(kinds.Add()),
    "Multiply": _join(kinds.Multiply()),
    "Concatenate": _concat,
    "ConvertToTensor": _same,
    "Identity": _same,
    "Relu": _plain("relu"),
    "Relu6": _plain("relu6"),
    "Sigmoid": _plain("sigmoid"),
    "Tanh": _plain("tanh"),
    "Silu": _plain("silu"),
    "HardSigmoid": _plain("hard_sigmoid"),
    "HardSilu": _plain("hard_silu"),
}
