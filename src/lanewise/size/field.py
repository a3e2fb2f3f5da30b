"""The receptive field: how much of the image one output value sees, and how far apart two are.

Along one axis a window of extent K and stride s turns a field r with jump j into

    r + (K − 1)·j      and      j·s

A full connection sees the whole map. Padding counts as image, so a field may exceed the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

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
    Pair,
    Pool,
    ReLU,
    Sigmoid,
    SumPool,
    Tanh,
)
from lanewise.size.shapes import Shape, resolve_window


@dataclass(frozen=True)
class Field:
    """Sizes in input pixels, (height, width). `jump` is the distance of the fields of neighbouring
    outputs; `span` is the map over which the features of a flattened output spread."""

    size: Pair = (1, 1)
    jump: Pair = (1, 1)
    span: Pair = (1, 1)


def infer_fields(graph: Graph, shapes: dict[str, Shape]) -> dict[str, Field]:
    """Node name → receptive field of its output."""
    fields: dict[str, Field] = {}
    for node in graph.nodes:
        inputs = [(fields[name], shapes[name]) for name in node.inputs]
        fields[node.name] = FIELDS[type(node.layer)](node.layer, *inputs)
    return fields


def _widen(field: Field, extents: Pair) -> Field:
    """The field of a window with these extents over outputs that have `field`."""
    (height, width), (down, across) = field.size, field.jump
    size = (height + (extents[0] - 1) * down, width + (extents[1] - 1) * across)
    return replace(field, size=size)


def _one_pixel(layer: Input) -> Field:
    return Field()


def _window(layer: Conv | Pool, source: tuple[Field, Shape]) -> Field:
    field, in_shape = source
    height, width = resolve_window(layer, in_shape).axes
    jump = (field.jump[0] * height.stride, field.jump[1] * width.stride)
    return replace(_widen(field, (height.extent, width.extent)), jump=jump)


def _whole_map(layer: Layer, source: tuple[Field, Shape]) -> Field:
    field, (_, height, width) = source
    return _widen(field, (height, width))


def _flat(layer: Flatten, source: tuple[Field, Shape]) -> Field:
    field, in_shape = source
    return replace(field, span=in_shape[1:]) if len(in_shape) == 3 else field


def _all_features(layer: Linear, source: tuple[Field, Shape]) -> Field:
    field, _ = source
    return replace(_widen(field, field.span), span=(1, 1))


def _unchanged(layer: Layer, source: tuple[Field, Shape]) -> Field:
    return source[0]


# Kind → rule: (layer, (field, shape) of each input) → field.
FIELDS: dict[type[Layer], Callable[..., Field]] = {
    Input: _one_pixel,
    Conv: _window,
    MaxPool: _window,
    AvgPool: _window,
    SumPool: _window,
    GlobalMax: _whole_map,
    GlobalAvg: _whole_map,
    GlobalSum: _whole_map,
    Flatten: _flat,
    Linear: _all_features,
    ReLU: _unchanged,
    LeakyReLU: _unchanged,
    Tanh: _unchanged,
    Sigmoid: _unchanged,
    Dropout: _unchanged,
}
