"""The table from ONNX's operators to layers.

A rule is `rule(builder, given, settings)`: what the operator reads (a `Value`, a `Constant`, or
None where an optional input is left out) and its attributes. It returns the value (or a list of
them) that the operator gives, or raises `NoLayer`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lanewise.bridge.importing import functions, pools
from lanewise.bridge.importing.builder import Builder, NoLayer
from lanewise.bridge.importing.onnx_arrange import RULES as ARRANGE
from lanewise.bridge.importing.onnx_arrange import Given, Rule, Settings, axes_of, numbers, optional
from lanewise.bridge.importing.values import Constant, Value
from lanewise.bridge.importing.windows import pair, with_border, with_filled_border
from lanewise.net import layers as kinds
from lanewise.net.layers import Layer, Pad, Pair, Sides
from lanewise.size.axis import same_pad

# Windows ------------------------------------------------------------------------------------------


def _conv(b: Builder, given: Given, settings: Settings) -> Value:
    read, weight, bias = given[0], given[1], optional(given, 2)
    kernel = pair(weight.shape[2:])
    stride, dilation = pair(settings.get("strides", 1)), pair(settings.get("dilations", 1))
    read, pad = with_border(read, _pad(read, settings, kernel, stride, dilation))
    kernels, groups = weight.shape[0], settings.get("group", 1)
    layer: Layer
    if 1 < groups == read.visible[0]:
        multiplier = kernels // groups
        layer = kinds.DepthwiseConv(kernel, multiplier, stride, pad, dilation, bias is not None)
    else:
        layer = kinds.Conv(kernels, kernel, stride, pad, dilation, groups, bias is not None)
    return b.add(layer, read, weight=weight, bias=bias)


def _pad(read: Value, settings: Settings, kernel: Pair, stride: Pair, dilation: Pair) -> Pad:
    """`pads`, or `auto_pad` by its name; SAME_LOWER has the odd zero at the begin."""
    how = settings.get("auto_pad", "NOTSET")
    if how == "VALID":
        return kinds.NO_PAD
    if how == "SAME_UPPER":
        return "same"
    if how == "SAME_LOWER":
        sizes = zip(read.visible[1:], kernel, stride, dilation, strict=True)
        top, left = (tuple(reversed(same_pad(*axis))) for axis in sizes)
        return (top[0], top[1]), (left[0], left[1])
    top, left, bottom, right = settings.get("pads", [0, 0, 0, 0])
    return (top, bottom), (left, right)


def _conv_transpose(b: Builder, given: Given, settings: Settings) -> Value:
    read, weight, bias = given[0], given[1], optional(given, 2)
    if settings.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or "output_shape" in settings:
        raise NoLayer("a transposed convolution with an output shape or automatic pads")
    kernel, one = pair(weight.shape[2:]), (1, 1)
    groups = settings.get("group", 1)
    layer = kinds.TransposedConv(
        weight.shape[1] * groups,
        kernel,
        pair(settings.get("strides", one)),
        _sides(_pad(read, settings, kernel, one, one)),
        pair(settings.get("output_padding", (0, 0))),
        pair(settings.get("dilations", one)),
        groups,
        bias is not None,
    )
    return b.add(layer, read, weight=weight, bias=bias)


def _sides(pad: Pad) -> Sides:
    if isinstance(pad, str):
        raise NoLayer(f"pad {pad}")
    return pad


def _pool(kind: type[kinds.Pool], fill: float) -> Rule:
    def rule(b: Builder, given: Given, settings: Settings) -> Value:
        kernel, stride = pair(settings["kernel_shape"]), pair(settings.get("strides", 1))
        if pair(settings.get("dilations", 1)) != (1, 1):
            raise NoLayer("pooling with dilation")
        if kind is kinds.AvgPool and settings.get("p", 2) != 2:
            raise NoLayer("a pool of another norm")
        pad = _pad(given[0], settings, kernel, stride, (1, 1))
        read, ceil = given[0], bool(settings.get("ceil_mode"))
        own = kind is kinds.AvgPool and not settings.get("count_include_pad")
        if own and pad != kinds.NO_PAD:
            return b.add(kinds.AvgPool(kernel, stride, pad, ceil, unpadded=True), read)
        if read.border is not None:
            read, pad = with_filled_border(read, _sides(pad), fill)
        return b.add(kind(kernel, stride, pad, ceil), read)

    return rule


def _global(kind: type[Layer]) -> Rule:
    def rule(b: Builder, given: Given, settings: Settings) -> Value:
        return b.add(kind(), given[0])

    return rule


def _reduced(kind: type[Layer]) -> Rule:
    by_torch = pools.whole_map(kind)

    def rule(b: Builder, given: Given, settings: Settings) -> Value:
        axes = axes_of(given, settings, 1)
        return by_torch(b, given[0], axes, bool(settings.get("keepdims", 1)))

    return rule


# Value by value -----------------------------------------------------------------------------------


def _pointwise(layer: Layer) -> Rule:
    def rule(b: Builder, given: Given, settings: Settings) -> Value:
        return b.pointwise(layer, given[0])

    return rule


def _leaky_relu(b: Builder, given: Given, settings: Settings) -> Value:
    return b.pointwise(kinds.LeakyReLU(_real(settings.get("alpha", 0.01))), given[0])


def _real(number: float) -> float:
    """A float32 of the file as the shortest decimal that means it: 0.2, not 0.20000000298."""
    import numpy as np

    return float(str(np.float32(number)))


def _elu(b: Builder, given: Given, settings: Settings) -> Value:
    return b.pointwise(kinds.ELU(_real(settings.get("alpha", 1.0))), given[0])


def _clip(b: Builder, given: Given, settings: Settings) -> Value:
    low = settings["min"] if "min" in settings else numbers(given, 1)
    high = settings["max"] if "max" in settings else numbers(given, 2)
    return functions.clamp(b, given[0], low, high)


def _gelu(b: Builder, given: Given, settings: Settings) -> Value:
    return functions.gelu(b, given[0], settings.get("approximate", "none"))


def _hard_sigmoid(b: Builder, given: Given, settings: Settings) -> Value:
    alpha, beta = settings.get("alpha", 0.2), settings.get("beta", 0.5)
    if abs(alpha - 1 / 6) > 1e-6 or beta != 0.5:
        raise NoLayer(f"a hard sigmoid of slope {alpha:g}")
    return b.pointwise(kinds.HardSigmoid(), given[0])


def _prelu(b: Builder, given: Given, settings: Settings) -> Value:
    read, slope = given
    count = slope.shape[0] if slope.shape else 1
    if count not in (1, read.visible[0]) or any(n != 1 for n in slope.shape[1:]):
        raise NoLayer("slopes that differ within a channel")
    return b.add(kinds.PReLU(count > 1), read, weight=slope)


def _dropout(b: Builder, given: Given, settings: Settings) -> Value:
    rate = settings.get("ratio")
    if rate is None:
        rate = numbers(given, 1)
    return functions.dropout(b, given[0], _real(0.5 if rate is None else rate))


def _identity(b: Builder, given: Given, settings: Settings) -> Value:
    return given[0]


def _cast(b: Builder, given: Given, settings: Settings) -> Value:
    if settings.get("to") not in (1, 10, 11, 16):  # the floating point types
        raise NoLayer("a change to whole numbers")
    return given[0]


# Full connection and normalisation ----------------------------------------------------------------


def _gemm(b: Builder, given: Given, settings: Settings) -> Value:
    if settings.get("transA") or settings.get("alpha", 1.0) != 1 or settings.get("beta", 1.0) != 1:
        raise NoLayer("a matrix product with factors")
    weight, bias = given[1], optional(given, 2)
    weight = weight if settings.get("transB") else _turned(weight)
    return functions.linear(b, given[0], weight, _vector(bias))


def _turned(weight: Any) -> Constant:
    """A matrix of inputs × outputs as outputs × inputs."""
    if not isinstance(weight, Constant) or len(weight.shape) != 2 or len(weight.sources) != 1:
        raise NoLayer("a product of two values")
    shape = (weight.shape[1], weight.shape[0])
    source = replace(weight.sources[0], turned=not weight.sources[0].turned)
    return Constant(shape, (source,))


def _vector(bias: Any) -> Constant | None:
    if isinstance(bias, Value):
        raise NoLayer("a bias that is computed")
    return bias


def _matmul(b: Builder, given: Given, settings: Settings) -> Value:
    return functions.linear(b, given[0], _turned(given[1]))


def _batch_norm(b: Builder, given: Given, settings: Settings) -> Value:
    read, weight, bias, mean, var = given[:5]
    layer = kinds.BatchNorm(_real(settings.get("epsilon", 1e-5)))
    kept = {"running_mean": _kept(mean), "running_var": _kept(var)}
    return b.add(layer, read, weight=weight, bias=bias, **kept)


def _kept(constant: Constant) -> Constant:
    sources = tuple(replace(source, trained=False) for source in constant.sources)
    return replace(constant, sources=sources)


def _layer_norm(b: Builder, given: Given, settings: Settings) -> Value:
    read, weight, bias = given[0], given[1], optional(given, 2)
    axis = settings.get("axis", -1)
    if axis not in (-1, len(read.visible)):
        raise NoLayer("layer normalisation over several axes")
    eps = _real(settings.get("epsilon", 1e-5))
    return functions.layer_norm(b, read, weight.shape, weight, bias, eps)


def _group_norm(b: Builder, given: Given, settings: Settings) -> Value:
    read, weight, bias = given
    if weight.shape != (read.visible[0],):
        raise NoLayer("group normalisation with one weight a group")
    eps = _real(settings.get("epsilon", 1e-5))
    return functions.group_norm(b, read, settings["num_groups"], weight, bias, eps)


def _lrn(b: Builder, given: Given, settings: Settings) -> Value:
    if not settings["size"] % 2:
        raise NoLayer("normalisation over an even number of channels, one more after than before")
    numbers = [_real(settings.get(n, d)) for n, d in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1))]
    return functions.local_response_norm(b, given[0], settings["size"], *numbers)


# Arithmetic of two values -------------------------------------------------------------------------


def _add(b: Builder, given: Given, settings: Settings) -> Value:
    """A sum of values, or the bias of the layer before it."""
    one, other = given
    if isinstance(one, Constant):
        one, other = other, one
    if isinstance(other, Constant):
        return _with_bias(b, one, other)
    return functions.add(b, one, other)


def _with_bias(b: Builder, read: Value, bias: Constant) -> Value:
    made = b.entries[read.entry]
    flat = isinstance(made.layer, kinds.Linear) and bias.shape in (made.shape, (1, *made.shape))
    ones = (1,) * (len(made.shape) - 1)
    maps = isinstance(made.layer, kinds.Conv | kinds.DepthwiseConv)
    maps = maps and bias.shape in ((made.shape[0], *ones), (1, made.shape[0], *ones))
    if not (flat or maps) or made.layer.bias or not read.is_plain:  # type: ignore[attr-defined]
        raise NoLayer("a sum with fixed numbers")
    inputs = [Value.plain(index, b.entries[index].shape) for index in made.inputs]
    parts = {name: Constant(s.shape, (s,)) for name, s in made.sources.items()}
    return b.add(replace(made.layer, bias=True), *inputs, bias=bias, **parts)  # type: ignore


def _multiply(b: Builder, given: Given, settings: Settings) -> Value:
    """A product of values; x · sigmoid(x) is one activation."""
    one, other = given
    if isinstance(one, Value) and isinstance(other, Value):
        for gate, value in ((one, other), (other, one)):
            made = b.entries[gate.entry]
            if isinstance(made.layer, kinds.Sigmoid) and made.inputs == (value.entry,):
                return b.pointwise(kinds.SiLU(), value)
    number = next((c.numbers for c in given if isinstance(c, Constant)), None)
    if number is not None and number.size == 1:
        return _scaled_pool(b, one if isinstance(one, Value) else other, float(number.ravel()[0]))
    return functions.multiply(b, one, other)


def _scaled_pool(b: Builder, read: Value, factor: float) -> Value:
    """The mean of a window times the window's size: its sum."""
    made = b.entries[read.entry]
    layer = made.layer
    if factor == 1:
        return read
    if isinstance(layer, kinds.AvgPool) and factor == layer.kernel[0] * layer.kernel[1]:
        if layer.ceil:
            raise NoLayer("a product with a number")
        window = kinds.SumPool(layer.kernel, layer.stride, layer.pad)
        inner = Value.plain(made.inputs[0], b.entries[made.inputs[0]].shape)
        return b.add(window, inner)
    raise NoLayer("a product with a number")


def _sum(b: Builder, given: Given, settings: Settings) -> Value:
    if not all(isinstance(one, Value) for one in given):
        raise NoLayer("a sum with fixed numbers")
    return given[0] if len(given) == 1 else functions.joined_once(b, kinds.Add(), *given)


OPERATORS: dict[str, Rule] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _pool(kinds.MaxPool, float("-inf")),
    "AveragePool": _pool(kinds.AvgPool, 0.0),
    "GlobalMaxPool": _global(kinds.GlobalMax),
    "GlobalAveragePool": _global(kinds.GlobalAvg),
    "ReduceMean": _reduced(kinds.GlobalAvg),
    "ReduceSum": _reduced(kinds.GlobalSum),
    "ReduceMax": _reduced(kinds.GlobalMax),
    "Relu": _pointwise(kinds.ReLU()),
    "Tanh": _pointwise(kinds.Tanh()),
    "Sigmoid": _pointwise(kinds.Sigmoid()),
    "HardSwish": _pointwise(kinds.HardSwish()),
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": _leaky_relu,
    "Elu": _elu,
    "Clip": _clip,
    "Gelu": _gelu,
    "PRelu": _prelu,
    "Dropout": _dropout,
    "Identity": _identity,
    "Cast": _cast,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "LRN": _lrn,
    "Add": _add,
    "Mul": _multiply,
    "Sum": _sum,
    **ARRANGE,
}
