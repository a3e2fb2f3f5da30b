"""The table from PyTorch's functions to layers.

Modules need no table of their own: `nn.Conv2d` calls `conv2d` with its weight, and so does a
functional network. A rule has the parameter names of torch's function; a `Value` is a tensor that
depends on the image, a `Constant` one that does not, everything else is what the program gave. It
returns the value (or a list of them) that the function gives, or raises `NoLayer`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from lanewise.bridge.importing.arrange import RULES as ARRANGE
from lanewise.bridge.importing.arrange import image_axis
from lanewise.bridge.importing.builder import Builder, NoLayer
from lanewise.bridge.importing.pools import RULES as POOLS
from lanewise.bridge.importing.values import Constant, Value
from lanewise.bridge.importing.windows import pair, sides, with_border
from lanewise.net import layers as kinds
from lanewise.net.layers import Layer

Rule: TypeAlias = Callable[..., Any]


def conv2d(
    b: Builder,
    input: Value,
    weight: Constant,
    bias: Constant | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    read, pad = with_border(input, _pad(padding))
    kernels, kernel = weight.shape[0], (weight.shape[2], weight.shape[3])
    window: dict[str, Any] = {"stride": pair(stride), "pad": pad, "dilation": pair(dilation)}
    layer: Layer
    if 1 < groups == input.visible[0]:
        layer = kinds.DepthwiseConv(kernel, kernels // groups, bias=bias is not None, **window)
    else:
        layer = kinds.Conv(kernels, kernel, groups=groups, bias=bias is not None, **window)
    return b.add(layer, read, weight=weight, bias=bias)


def _pad(padding: Any) -> kinds.Pad:
    if padding == "same":
        return "same"
    return "valid" if padding == "valid" else sides(padding)


def conv_transpose2d(
    b: Builder,
    input: Value,
    weight: Constant,
    bias: Constant | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Value:
    layer = kinds.TransposedConv(
        weight.shape[1] * groups,
        (weight.shape[2], weight.shape[3]),
        pair(stride),
        sides(padding),
        pair(output_padding),
        pair(dilation),
        groups,
        bias is not None,
    )
    return b.add(layer, input, weight=weight, bias=bias)


def linear(b: Builder, input: Value, weight: Constant, bias: Constant | None = None) -> Value:
    """A full connection; over channels that come last, a convolution of single pixels."""
    features = weight.shape[0]
    if input.is_channels_last:
        layer = kinds.Conv(features, (1, 1), bias=bias is not None)
        inner = Value.plain(input.entry, input.shape)
        return b.add(layer, inner, weight=weight, bias=bias).permuted((1, 2, 0))
    if len(input.visible) != 1:
        raise NoLayer("a full connection of the last axis alone")
    return b.add(kinds.Linear(features, bias is not None), input, weight=weight, bias=bias)


# Normalisation ------------------------------------------------------------------------------------


def batch_norm(
    b: Builder,
    input: Value,
    running_mean: Constant | None,
    running_var: Constant | None,
    weight: Constant | None = None,
    bias: Constant | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
) -> Value:
    if running_mean is None or running_var is None or not momentum:
        raise NoLayer("batch normalisation without running averages of fixed momentum")
    if (weight is None) != (bias is None):
        raise NoLayer("batch normalisation with a weight and no bias")
    layer = kinds.BatchNorm(eps, momentum, affine=weight is not None)
    parts = {"running_mean": running_mean, "running_var": running_var}
    return b.add(layer, input, weight=weight, bias=bias, **parts)


def layer_norm(
    b: Builder,
    input: Value,
    normalized_shape: Sequence[int],
    weight: Constant | None = None,
    bias: Constant | None = None,
    eps: float = 1e-5,
) -> Value:
    if weight is None or bias is None:
        raise NoLayer("layer normalisation without weight or bias")
    layer = kinds.LayerNorm(eps)
    if len(normalized_shape) == 1 and input.is_channels_last:
        return b.normalised(layer, input, weight=weight, bias=bias)
    if len(input.visible) == 1 or (len(normalized_shape) == 3 and input.visible[1:] == (1, 1)):
        return b.add(layer, input, weight=weight, bias=bias)
    raise NoLayer("layer normalisation over whole maps")


def group_norm(
    b: Builder,
    input: Value,
    num_groups: int,
    weight: Constant | None = None,
    bias: Constant | None = None,
    eps: float = 1e-5,
) -> Value:
    if weight is None or bias is None:
        raise NoLayer("group normalisation without weight and bias")
    return b.add(kinds.GroupNorm(num_groups, eps), input, weight=weight, bias=bias)


def local_response_norm(
    b: Builder, input: Value, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Value:
    return b.add(kinds.LocalResponseNorm(size, alpha, beta, float(k)), input)


# Value by value -----------------------------------------------------------------------------------


def activation(layer: Layer) -> Rule:
    """The rule of an activation without settings."""

    def rule(b: Builder, input: Value, inplace: bool = False) -> Value:
        return b.pointwise(layer, input)

    return rule


def leaky_relu(
    b: Builder, input: Value, negative_slope: float = 0.01, inplace: bool = False
) -> Value:
    return b.pointwise(kinds.LeakyReLU(negative_slope), input)


def elu(b: Builder, input: Value, alpha: float = 1.0, inplace: bool = False) -> Value:
    return b.pointwise(kinds.ELU(alpha), input)


def gelu(b: Builder, input: Value, approximate: str = "none") -> Value:
    if approximate != "none":
        raise NoLayer("gelu by the tanh formula")
    return b.pointwise(kinds.GELU(), input)


def hardtanh(
    b: Builder, input: Value, min_val: float = -1, max_val: float = 1, inplace: bool = False
) -> Value:
    if (min_val, max_val) != (0, 6):
        raise NoLayer(f"hardtanh from {min_val} to {max_val}")
    return b.pointwise(kinds.ReLU6(), input)


def clamp(b: Builder, input: Value, min: Any = None, max: Any = None) -> Value:
    if (min, max) == (0, None):
        return b.pointwise(kinds.ReLU(), input)
    return hardtanh(b, input, min, max)


def prelu(b: Builder, input: Value, weight: Constant) -> Value:
    return b.add(kinds.PReLU(weight.shape != (1,)), input, weight=weight)


def dropout(
    b: Builder, input: Value, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Value:
    return _noise(b, kinds.Dropout(p), input)


def dropout2d(
    b: Builder, input: Value, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Value:
    return _noise(b, kinds.SpatialDropout(p), input)


def _noise(b: Builder, layer: kinds.Noise, read: Value) -> Value:
    if layer.rate == 0:
        return read
    if layer.rate >= 1:
        raise NoLayer("dropout of everything")
    return b.pointwise(layer, read)


# Joins --------------------------------------------------------------------------------------------


def add(b: Builder, input: Any, other: Any, alpha: float = 1) -> Value:
    """Of two values; a zero adds nothing (Python's `sum` begins with one)."""
    if alpha != 1:
        raise NoLayer("a sum with a factor")
    if 0 in (_number(input), _number(other)):
        return input if isinstance(input, Value) else other
    return _joined(b, kinds.Add(), input, other)


def multiply(b: Builder, input: Any, other: Any) -> Value:
    """Of two values; or of a value and a trained factor for each channel."""
    if 1 in (_number(input), _number(other)):
        return input if isinstance(input, Value) else other
    if isinstance(input, Constant) or isinstance(other, Constant):
        factor, value = (input, other) if isinstance(input, Constant) else (other, input)
        return _scaled(b, value, factor)
    return _joined(b, kinds.Multiply(), input, other)


def _number(value: Any) -> Any:
    return value if isinstance(value, (int, float)) else None


def _scaled(b: Builder, value: Value, factor: Constant) -> Value:
    """Each channel times a trained number; its axis must be the one of the channels."""
    shape = factor.shape[1:] if len(factor.shape) == len(value.visible) + 1 else factor.shape
    layer = kinds.ChannelScale()
    if not factor.sources or not factor.sources[0].trained:
        raise NoLayer("a product with fixed numbers")
    if value.is_channels_last and shape in ((value.shape[0],), (1, 1, value.shape[0])):
        return b.normalised(layer, value, weight=factor)
    if shape == (value.visible[0], *[1] * (len(value.visible) - 1)):
        return b.add(layer, value, weight=factor)
    raise NoLayer("a product with a parameter that is not one number for each channel")


def _joined(b: Builder, layer: kinds.Join, *reads: Any) -> Value:
    if not all(isinstance(read, Value) for read in reads):
        raise NoLayer(f"{layer.word} with a constant")
    first = reads[0]
    if not all(read.border is None for read in reads):
        raise NoLayer(f"{layer.word} of padded maps")
    same_form = all((r.dims, r.order) == (first.dims, first.order) for r in reads)
    if same_form and not first.is_plain:
        inner = [Value.plain(read.entry, read.shape) for read in reads]
        return joined_once(b, layer, *inner).seen_as(first)
    return joined_once(b, layer, *reads)


def joined_once(b: Builder, layer: kinds.Join, *reads: Value) -> Value:
    """The join. The notation's read each value once: a second time it passes a dropout of 0."""
    seen: set[int] = set()
    different = []
    for read in reads:
        again = read.entry in seen
        seen.add(read.entry)
        different.append(b.add(kinds.Dropout(0.0), read) if again else read)
    return b.add(layer, *different)


def cat(b: Builder, tensors: Sequence[Any], dim: int = 0) -> Value:
    if not all(isinstance(tensor, Value) for tensor in tensors):
        raise NoLayer("a concatenation with a constant")
    if len(tensors) == 1:
        return tensors[0]
    channels = 2 if all(tensor.is_channels_last for tensor in tensors) else 0
    if image_axis(dim, tensors[0]) != channels:
        raise NoLayer("a concatenation along another axis than the channels")
    if not channels:
        return joined_once(b, kinds.Concat(), *tensors)
    inner = [Value.plain(tensor.entry, tensor.shape) for tensor in tensors]
    return joined_once(b, kinds.Concat(), *inner).permuted((1, 2, 0))


ACTIVATIONS: dict[str, Rule] = {
    "relu": activation(kinds.ReLU()),
    "relu6": activation(kinds.ReLU6()),
    "silu": activation(kinds.SiLU()),
    "tanh": activation(kinds.Tanh()),
    "sigmoid": activation(kinds.Sigmoid()),
    "hardsigmoid": activation(kinds.HardSigmoid()),
    "hardswish": activation(kinds.HardSwish()),
}

# torch's name of a function or method, without the `_` of those that work in place → rule.
FUNCTIONS: dict[str, Rule] = {
    **ACTIVATIONS,
    **POOLS,
    **ARRANGE,
    "leaky_relu": leaky_relu,
    "elu": elu,
    "gelu": gelu,
    "hardtanh": hardtanh,
    "clamp": clamp,
    "clamp_min": clamp,
    "prelu": prelu,
    "dropout": dropout,
    "feature_dropout": dropout2d,
    "dropout2d": dropout2d,
    "conv2d": conv2d,
    "conv_transpose2d": conv_transpose2d,
    "linear": linear,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "local_response_norm": local_response_norm,
    "add": add,
    "__radd__": add,
    "mul": multiply,
    "multiply": multiply,
    "__rmul__": multiply,
    "cat": cat,
    "concat": cat,
    "concatenate": cat,
}
