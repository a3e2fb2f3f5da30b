"""What a layer costs: its parameters, and its multiply–adds (MACs) for one image.

The convention is torchvision's: MACs of convolutions and full connections only; no bias, no
pooling, no activation; a tap that lies on zero padding counts like any other. `padded_macs` says
how many of them do lie there, so `macs − padded_macs` is what a loop over real values performs. A
transposed convolution counts its products, and as padded those that its padding cuts off.

`connections` are LeNet-5's count (1998): every input that a computed value reads, and its bias.
`buffers` are the values that a layer keeps without training them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from lanewise.net.graph import Graph
from lanewise.net.layers import (
    ACTIVATIONS,
    ADAPTIVE_POOLS,
    GLOBAL_POOLS,
    JOINS,
    NOISES,
    AvgPool,
    BatchNorm,
    ChannelPad,
    ChannelScale,
    ChannelShuffle,
    ChannelSplit,
    Conv,
    DepthwiseConv,
    Flatten,
    Foreign,
    GroupNorm,
    Input,
    L2Pool,
    Layer,
    LayerNorm,
    Linear,
    LocalResponseNorm,
    MaxPool,
    PartialConv,
    PReLU,
    RadialBasis,
    Subsample,
    SumPool,
    TransposedConv,
    Upsample,
)
from lanewise.size.shapes import SHAPES, infer_shapes
from lanewise.size.windows import Shape, Window, conv_of, resolve_transposed, resolve_window

Parameters: TypeAlias = dict[str, Shape]


@dataclass(frozen=True)
class Cost:
    """One layer's exact counts; MACs and connections are for one image."""

    params: int = 0
    macs: int = 0
    padded_macs: int = 0
    buffers: int = 0
    connections: int = 0


def cost(layer: Layer, *in_shapes: Shape) -> Cost:
    """The cost of a layer over inputs of these shapes."""
    kind = type(layer)
    macs, padded_macs = MACS[kind](layer, *in_shapes)
    real = macs - padded_macs
    return Cost(
        _count(PARAMETERS[kind](layer, *in_shapes)),
        macs,
        padded_macs,
        _count(BUFFERS[kind](layer, *in_shapes)),
        CONNECTIONS[kind](layer, real, *in_shapes),
    )


def layer_parameters(layer: Layer, *in_shapes: Shape) -> Parameters:
    """The shapes of a layer's parameters as in PyTorch: `weight` first, then `bias`."""
    return PARAMETERS[type(layer)](layer, *in_shapes)


def layer_buffers(layer: Layer, *in_shapes: Shape) -> Parameters:
    """The shapes of what a layer keeps untrained: `running_mean` and `running_var` of `bn`."""
    return BUFFERS[type(layer)](layer, *in_shapes)


def parameter_shapes(graph: Graph) -> Parameters:
    """Every parameter of a network, in order: `conv1.weight` → (K, C/groups, R, S), …"""
    return _named(graph, PARAMETERS)


def buffer_shapes(graph: Graph) -> Parameters:
    """Every buffer of a network, in order: `bn1.running_mean` → (C,), `bn1.running_var` → (C,)."""
    return _named(graph, BUFFERS)


def learned_shapes(graph: Graph) -> Parameters:
    """Parameters and buffers: all that training leaves behind."""
    return parameter_shapes(graph) | buffer_shapes(graph)


def _named(graph: Graph, table: dict[type[Layer], Callable[..., Parameters]]) -> Parameters:
    shapes = infer_shapes(graph)
    named: Parameters = {}
    for node in graph.nodes:
        inputs = [shapes[source] for source in node.inputs]
        for name, shape in table[type(node.layer)](node.layer, *inputs).items():
            named[f"{node.name}.{name}"] = shape
    return named


def _count(shapes: Parameters) -> int:
    return sum(map(prod, shapes.values()))


def _nothing(layer: Layer, *in_shapes: Shape) -> Parameters:
    return {}


def _weight_and_bias(weight: Shape, bias: int) -> Parameters:
    return {"weight": weight, "bias": (bias,)} if bias else {"weight": weight}


def _conv_parameters(layer: Conv | DepthwiseConv, in_shape: Shape) -> Parameters:
    conv = conv_of(layer, in_shape)
    weight = (conv.kernels, in_shape[0] // conv.groups, *conv.kernel)
    return _weight_and_bias(weight, conv.kernels * conv.bias)


def _partial_parameters(layer: PartialConv, in_shape: Shape) -> Parameters:
    return _weight_and_bias((_pairs(layer), *layer.kernel), len(layer.table) * layer.bias)


def _transposed_parameters(layer: TransposedConv, in_shape: Shape) -> Parameters:
    weight = (in_shape[0], layer.kernels // layer.groups, *layer.kernel)
    return _weight_and_bias(weight, layer.kernels * layer.bias)


def _linear_parameters(layer: Linear, in_shape: Shape) -> Parameters:
    return _weight_and_bias((layer.features, in_shape[0]), layer.features * layer.bias)


def _prelu_parameters(layer: PReLU, in_shape: Shape) -> Parameters:
    return {"weight": in_shape[:1] if layer.per_channel else (1,)}


def _batch_norm_parameters(layer: BatchNorm, in_shape: Shape) -> Parameters:
    return _affine(layer, in_shape) if layer.affine else {}


def _affine(layer: Layer, in_shape: Shape) -> Parameters:
    """A weight and a bias for each channel."""
    return {"weight": in_shape[:1], "bias": in_shape[:1]}


def _scale_parameters(layer: ChannelScale, in_shape: Shape) -> Parameters:
    return {"weight": in_shape[:1]}


def _running_statistics(layer: BatchNorm, in_shape: Shape) -> Parameters:
    return {"running_mean": in_shape[:1], "running_var": in_shape[:1]}


def _foreign_parameters(layer: Foreign, *in_shapes: Shape) -> Parameters:
    return dict(layer.parameters)


def _foreign_buffers(layer: Foreign, *in_shapes: Shape) -> Parameters:
    return dict(layer.buffers)


def _no_macs(layer: Layer, *in_shapes: Shape) -> tuple[int, int]:
    return 0, 0


def _conv_macs(layer: Conv | DepthwiseConv, in_shape: Shape) -> tuple[int, int]:
    conv = conv_of(layer, in_shape)
    pairs = conv.kernels * (in_shape[0] // conv.groups)
    return _window_macs(pairs, resolve_window(layer, in_shape))


def _partial_macs(layer: PartialConv, in_shape: Shape) -> tuple[int, int]:
    return _window_macs(_pairs(layer), resolve_window(layer, in_shape))


def _transposed_macs(layer: TransposedConv, in_shape: Shape) -> tuple[int, int]:
    pairs = in_shape[0] * (layer.kernels // layer.groups)
    return _window_macs(pairs, resolve_transposed(layer, in_shape))


def _window_macs(pairs: int, window: Window) -> tuple[int, int]:
    """The MACs of so many pairs of an input map and a kernel, and those of them on padding."""
    macs = pairs * prod(window.out) * prod(window.kernel)
    return macs, macs - pairs * prod(axis.real_taps for axis in window.axes)


def _pairs(layer: PartialConv) -> int:
    return sum(map(len, layer.table))


def _foreign_macs(layer: Foreign, *in_shapes: Shape) -> tuple[int, int]:
    return layer.macs, 0


def _linear_macs(layer: Linear, in_shape: Shape) -> tuple[int, int]:
    return layer.features * in_shape[0], 0


def _no_connections(layer: Layer, real_macs: int, *in_shapes: Shape) -> int:
    return 0


def _with_bias(
    layer: Conv | DepthwiseConv | PartialConv | TransposedConv | Linear,
    real_macs: int,
    in_shape: Shape,
) -> int:
    """The products with real values, and one for every output value that gets a bias."""
    return real_macs + layer.bias * prod(SHAPES[type(layer)](layer, in_shape))


def _window_values(layer: Subsample, real_macs: int, in_shape: Shape) -> int:
    """The real values of every window, and its bias."""
    window = resolve_window(layer, in_shape)
    values = prod(axis.real_taps for axis in window.axes)
    return in_shape[0] * (values + prod(window.out))


def _all_pairs(layer: RadialBasis, real_macs: int, in_shape: Shape) -> int:
    return layer.features * in_shape[0]


# Kind → rule: (layer, input shape…) → parameter name → shape.
PARAMETERS: dict[type[Layer], Callable[..., Parameters]] = {
    Input: _nothing,
    Conv: _conv_parameters,
    DepthwiseConv: _conv_parameters,
    PartialConv: _partial_parameters,
    TransposedConv: _transposed_parameters,
    **dict.fromkeys((MaxPool, AvgPool, SumPool, L2Pool), _nothing),
    Subsample: _affine,
    **dict.fromkeys((*ADAPTIVE_POOLS, *GLOBAL_POOLS, Flatten), _nothing),
    Linear: _linear_parameters,
    RadialBasis: _nothing,
    **dict.fromkeys(ACTIVATIONS, _nothing),
    PReLU: _prelu_parameters,
    BatchNorm: _batch_norm_parameters,
    LayerNorm: _affine,
    GroupNorm: _affine,
    LocalResponseNorm: _nothing,
    ChannelScale: _scale_parameters,
    **dict.fromkeys((ChannelShuffle, ChannelSplit, ChannelPad, Upsample), _nothing),
    **dict.fromkeys((*NOISES, *JOINS), _nothing),
    Foreign: _foreign_parameters,
}

# What neither multiplies in the sense of the convention nor keeps values.
_PLAIN: tuple[type[Layer], ...] = (
    Input,
    *(MaxPool, AvgPool, SumPool, L2Pool),
    *ADAPTIVE_POOLS,
    *GLOBAL_POOLS,
    Flatten,
    *ACTIVATIONS,
    PReLU,
    *(LayerNorm, GroupNorm, LocalResponseNorm),
    *(ChannelScale, ChannelShuffle, ChannelSplit, ChannelPad, Upsample),
    *NOISES,
    *JOINS,
)

# Kind → rule: (layer, input shape…) → buffer name → shape.
BUFFERS: dict[type[Layer], Callable[..., Parameters]] = {
    **dict.fromkeys(_PLAIN, _nothing),
    **dict.fromkeys((Conv, DepthwiseConv, PartialConv, TransposedConv, Linear), _nothing),
    **dict.fromkeys((Subsample, RadialBasis), _nothing),
    BatchNorm: _running_statistics,
    Foreign: _foreign_buffers,
}

# Kind → rule: (layer, input shape…) → (MACs, those of them that lie on padding).
MACS: dict[type[Layer], Callable[..., tuple[int, int]]] = {
    **dict.fromkeys((*_PLAIN, BatchNorm, Subsample, RadialBasis), _no_macs),
    Conv: _conv_macs,
    DepthwiseConv: _conv_macs,
    PartialConv: _partial_macs,
    TransposedConv: _transposed_macs,
    Linear: _linear_macs,
    Foreign: _foreign_macs,
}

# Kind → rule: (layer, MACs not on padding, input shape…) → connections.
CONNECTIONS: dict[type[Layer], Callable[..., int]] = {
    **dict.fromkeys((*_PLAIN, BatchNorm, Foreign), _no_connections),
    **dict.fromkeys((Conv, DepthwiseConv, PartialConv, TransposedConv, Linear), _with_bias),
    Subsample: _window_values,
    RadialBasis: _all_pairs,
}
