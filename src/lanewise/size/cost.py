"""What a layer costs: its parameters, and its multiply–adds (MACs) for one image.

The convention is torchvision's: MACs of convolutions and full connections only; no bias, no
pooling, no activation; a tap that lies on zero padding counts like any other. `padded_macs` says
how many of them do lie there, so `macs − padded_macs` is what a loop over real values performs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from lanewise.net.graph import Graph
from lanewise.net.layers import (
    AvgPool,
    Conv,
    Dropout,
    Flatten,
    GlobalAvg,
    GlobalMax,
    GlobalSum,
    Input,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool,
    ReLU,
    Sigmoid,
    SumPool,
    Tanh,
)
from lanewise.size.shapes import Shape, infer_shapes, resolve_window

Parameters: TypeAlias = dict[str, Shape]


@dataclass(frozen=True)
class Cost:
    """One layer's exact counts; MACs are for one image."""

    params: int = 0
    macs: int = 0
    padded_macs: int = 0


def cost(layer: Layer, *in_shapes: Shape) -> Cost:
    """The cost of a layer over inputs of these shapes."""
    macs, padded_macs = MACS[type(layer)](layer, *in_shapes)
    params = sum(prod(shape) for shape in layer_parameters(layer, *in_shapes).values())
    return Cost(params, macs, padded_macs)


def layer_parameters(layer: Layer, *in_shapes: Shape) -> Parameters:
    """The shapes of a layer's parameters as in PyTorch: `weight` first, then `bias`."""
    return PARAMETERS[type(layer)](layer, *in_shapes)


def parameter_shapes(graph: Graph) -> Parameters:
    """Every parameter of a network, in order: `conv1.weight` → (K, C/groups, R, S), …"""
    shapes = infer_shapes(graph)
    return {
        f"{node.name}.{name}": shape
        for node in graph.nodes
        for name, shape in layer_parameters(
            node.layer, *(shapes[source] for source in node.inputs)
        ).items()
    }


def _no_parameters(layer: Layer, *in_shapes: Shape) -> Parameters:
    return {}


def _conv_parameters(layer: Conv, in_shape: Shape) -> Parameters:
    weight = (layer.kernels, in_shape[0] // layer.groups, *layer.kernel)
    return {"weight": weight} | ({"bias": (layer.kernels,)} if layer.bias else {})


def _linear_parameters(layer: Linear, in_shape: Shape) -> Parameters:
    weight = (layer.features, in_shape[0])
    return {"weight": weight} | ({"bias": (layer.features,)} if layer.bias else {})


def _no_macs(layer: Layer, *in_shapes: Shape) -> tuple[int, int]:
    return 0, 0


def _conv_macs(layer: Conv, in_shape: Shape) -> tuple[int, int]:
    window = resolve_window(layer, in_shape)
    pairs = layer.kernels * in_shape[0] // layer.groups
    macs = pairs * prod(window.out) * prod(window.kernel)
    return macs, macs - pairs * prod(axis.real_taps for axis in window.axes)


def _linear_macs(layer: Linear, in_shape: Shape) -> tuple[int, int]:
    return layer.features * in_shape[0], 0


# Kind → rule: (layer, input shape…) → parameter name → shape.
PARAMETERS: dict[type[Layer], Callable[..., Parameters]] = {
    Input: _no_parameters,
    Conv: _conv_parameters,
    MaxPool: _no_parameters,
    AvgPool: _no_parameters,
    SumPool: _no_parameters,
    GlobalMax: _no_parameters,
    GlobalAvg: _no_parameters,
    GlobalSum: _no_parameters,
    Flatten: _no_parameters,
    Linear: _linear_parameters,
    ReLU: _no_parameters,
    LeakyReLU: _no_parameters,
    Tanh: _no_parameters,
    Sigmoid: _no_parameters,
    Dropout: _no_parameters,
}

# Kind → rule: (layer, input shape…) → (MACs, those of them that lie on padding).
MACS: dict[type[Layer], Callable[..., tuple[int, int]]] = {
    Input: _no_macs,
    Conv: _conv_macs,
    MaxPool: _no_macs,
    AvgPool: _no_macs,
    SumPool: _no_macs,
    GlobalMax: _no_macs,
    GlobalAvg: _no_macs,
    GlobalSum: _no_macs,
    Flatten: _no_macs,
    Linear: _linear_macs,
    ReLU: _no_macs,
    LeakyReLU: _no_macs,
    Tanh: _no_macs,
    Sigmoid: _no_macs,
    Dropout: _no_macs,
}
