"""The arithmetic behind every output size, with the layer's numbers filled in.

⌊(28 + 4 − 5)/1⌋ + 1 = 28       input + pads − kernel's extent, by the stride
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TypeAlias

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
    Pool,
    ReLU,
    Sigmoid,
    SumPool,
    Tanh,
)
from lanewise.size.axis import Axis
from lanewise.size.shapes import Shape, resolve_window

Formula: TypeAlias = Callable[..., str]

# Where nothing is computed.
GIVEN = "given"
UNCHANGED = "unchanged"


def axis_formula(axis: Axis) -> str:
    """The output size along one axis: `⌊(28 + 4 − 5)/1⌋ + 1 = 28`.

    A dilated kernel shows its extent, `⌊(28 + 4 − (2·4 + 1))/1⌋ + 1`; ceil rounds up, and
    `− 1` tells that the last window would start in the end padding and is left out.
    """
    left, right = "⌈⌉" if axis.ceil else "⌊⌋"
    extent = str(axis.kernel)
    if axis.dilation > 1:
        extent = f"({axis.dilation}·{axis.kernel - 1} + 1)"
    inside = f"{axis.n} + {axis.begin + axis.end} − {extent}"
    dropped = " − 1" if axis.drops else ""
    return f"{left}({inside})/{axis.stride}{right} + 1{dropped} = {axis.out}"


def _window(layer: Conv | Pool, in_shape: Shape) -> str:
    height, width = map(axis_formula, resolve_window(layer, in_shape).axes)
    return height if height == width else f"height {height}, width {width}"


def _given(layer: Layer) -> str:
    return GIVEN


def _whole_map(layer: Layer, in_shape: Shape) -> str:
    return f"{in_shape[1]}·{in_shape[2]} values → 1"


def _product(layer: Layer, in_shape: Shape) -> str:
    return f"{'·'.join(map(str, in_shape))} = {prod(in_shape)}"


def _features(layer: Linear, in_shape: Shape) -> str:
    return f"{in_shape[0]} → {layer.features}"


def _unchanged(layer: Layer, in_shape: Shape) -> str:
    return UNCHANGED


# Kind → rule: (layer, input shape…) → text.
FORMULAS: dict[type[Layer], Formula] = {
    Input: _given,
    Conv: _window,
    MaxPool: _window,
    AvgPool: _window,
    SumPool: _window,
    GlobalMax: _whole_map,
    GlobalAvg: _whole_map,
    GlobalSum: _whole_map,
    Flatten: _product,
    Linear: _features,
    ReLU: _unchanged,
    LeakyReLU: _unchanged,
    Tanh: _unchanged,
    Sigmoid: _unchanged,
    Dropout: _unchanged,
}
