"""The shape of every layer's output, or an error that says why there is none and what to change.

A shape is channels × height × width, or a single number of features after `flatten`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import gcd, prod
from typing import TypeAlias

from lanewise.errors import SizeError
from lanewise.net.graph import Graph
from lanewise.net.layers import (
    NO_PAD,
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
    Sides,
    Sigmoid,
    SumPool,
    Tanh,
)
from lanewise.net.values import PAD, PAIR
from lanewise.size.axis import Axis, same_pad

Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """How a convolution or pooling window moves over its input, all in numbers: pairs are
    (height, width), `pad` is ((top, bottom), (left, right)), `out` is the output's (P, Q).

    With ceil the last window may reach beyond the padding; `axes` knows how far (`overhang`).
    """

    kernel: Pair
    stride: Pair
    dilation: Pair
    pad: Sides
    out: Pair
    axes: tuple[Axis, Axis]


def infer_shapes(graph: Graph) -> dict[str, Shape]:
    """Node name → output shape, for every node. SizeError: `lenet.net:7 conv2: input …; use …`."""
    shapes: dict[str, Shape] = {}
    for node in graph.nodes:
        inputs = [shapes[name] for name in node.inputs]
        try:
            shapes[node.name] = SHAPES[type(node.layer)](node.layer, *inputs)
        except SizeError as error:
            raise SizeError(f"{graph.place(node)}: {error}") from None
    return shapes


def show_shape(shape: Shape) -> str:
    """`6x28x28`, or `120` for features."""
    return "x".join(map(str, shape))


def resolve_window(layer: Conv | Pool, in_shape: Shape) -> Window:
    """The window of a layer over an input of shape (C, H, W), `same` and `valid` as numbers.

    SizeError (without a place) if there is no output position, or if a pool's padding is more than
    half its window, where PyTorch refuses it.
    """
    _require_maps(layer, in_shape)
    height, width = _axes(layer, in_shape[1:])
    if isinstance(layer, Pool):
        _check_pool_pad(layer, (height, width))
    if min(height.out, width.out) < 1:
        raise SizeError(_no_position(layer, in_shape, (height, width)))
    return Window(
        layer.kernel,
        layer.stride,
        (height.dilation, width.dilation),
        ((height.begin, height.end), (width.begin, width.end)),
        (height.out, width.out),
        (height, width),
    )


def _axes(layer: Conv | Pool, sizes: Shape) -> tuple[Axis, Axis]:
    height, width = (_axis(layer, axis, n) for axis, n in enumerate(sizes))
    return height, width


def _axis(layer: Conv | Pool, axis: int, n: int) -> Axis:
    kernel, stride = layer.kernel[axis], layer.stride[axis]
    dilation = layer.dilation[axis] if isinstance(layer, Conv) else 1
    if layer.pad == "same":
        begin, end = same_pad(n, kernel, stride, dilation)
    else:
        begin, end = (NO_PAD if layer.pad == "valid" else layer.pad)[axis]
    return Axis(n, kernel, stride, begin, end, dilation, isinstance(layer, Pool) and layer.ceil)


def _require_maps(layer: Layer, in_shape: Shape) -> None:
    if len(in_shape) != 3:
        raise SizeError(
            f"input is {show_shape(in_shape)} features, and {layer.word} needs feature maps "
            f"(channels x height x width); put {layer.word} before `flatten`"
        )


def _check_pool_pad(layer: Pool, axes: tuple[Axis, Axis]) -> None:
    if _too_much_pad(axes):
        most = (axes[0].kernel // 2, axes[1].kernel // 2)
        least = (2 * max(axes[0].begin, axes[0].end), 2 * max(axes[1].begin, axes[1].end))
        window = (max(axes[0].kernel, least[0]), max(axes[1].kernel, least[1]))
        raise SizeError(
            f"pad {PAD.show(layer.pad)} is more than half of the window {PAIR.show(layer.kernel)}; "
            f"use pad <= {PAIR.show(most)} or window >= {PAIR.show(window)}"
        )


def _too_much_pad(axes: tuple[Axis, Axis]) -> bool:
    return any(max(axis.begin, axis.end) > axis.kernel // 2 for axis in axes)


def _no_position(layer: Conv | Pool, in_shape: Shape, axes: tuple[Axis, Axis]) -> str:
    """`input 6x12x12, kernel 15 stride 1 pad 0 has no output position; use …`."""
    word = "window" if isinstance(layer, Pool) else "kernel"
    dilation = ""
    if isinstance(layer, Conv) and layer.dilation != (1, 1):
        dilation = f" dilation {PAIR.show(layer.dilation)}"
    remedies = [
        text for text, changed in _remedies(layer, word, axes) if _fits(changed, in_shape[1:])
    ]
    return (
        f"input {show_shape(in_shape)}, {word} {PAIR.show(layer.kernel)}{dilation} "
        f"stride {PAIR.show(layer.stride)} pad {PAD.show(layer.pad)} has no output position; "
        f"use {' or '.join(remedies)}"
    )


def _remedies(
    layer: Conv | Pool, word: str, axes: tuple[Axis, Axis]
) -> Iterator[tuple[str, Conv | Pool]]:
    """Single changes that may give both axes an output position: (as told, the changed layer)."""
    pad = (_least_pad(axes[0]), _least_pad(axes[1]))
    yield f"pad >= {PAIR.show(pad)}", replace(layer, pad=((pad[0],) * 2, (pad[1],) * 2))
    kernel = (_largest_kernel(axes[0]), _largest_kernel(axes[1]))
    yield f"{word} <= {PAIR.show(kernel)}", replace(layer, kernel=kernel)
    if isinstance(layer, Conv) and layer.dilation != (1, 1):
        dilation = (_largest_dilation(axes[0]), _largest_dilation(axes[1]))
        yield f"dilation <= {PAIR.show(dilation)}", replace(layer, dilation=dilation)


def _fits(layer: Conv | Pool, sizes: Shape) -> bool:
    """Whether a changed layer is legal as a whole, its pad and dilation included."""
    axes = _axes(layer, sizes)
    legal = all(axis.dilation >= 1 and axis.out >= 1 for axis in axes)
    return legal and not (isinstance(layer, Pool) and _too_much_pad(axes))


def _room(axis: Axis) -> int:
    """The largest extent that has an output position (ceil lets the last window hang over)."""
    return axis.n + axis.begin + axis.end + (axis.stride - 1 if axis.ceil else 0)


def _least_pad(axis: Axis) -> int:
    """The least pad, alike at both sides, with an output position; 0 or more."""
    room = _room(replace(axis, begin=0, end=0))
    return max(0, -((room - axis.extent) // 2))


def _largest_kernel(axis: Axis) -> int:
    """The largest kernel with an output position, at most the one there is."""
    return min(axis.kernel, (_room(axis) - 1) // axis.dilation + 1)


def _largest_dilation(axis: Axis) -> int:
    """The largest dilation with an output position, at most the one there is; may be 0."""
    return min(axis.dilation, (_room(axis) - 1) // max(1, axis.kernel - 1))


def _input_shape(layer: Input) -> Shape:
    return (layer.channels, layer.height, layer.width)


def _conv_shape(layer: Conv, in_shape: Shape) -> Shape:
    _require_maps(layer, in_shape)
    for count, what in ((in_shape[0], "channels of the input"), (layer.kernels, "kernels")):
        if count % layer.groups:
            raise SizeError(
                f"input {show_shape(in_shape)}, {layer.kernels} kernels: {layer.groups} groups do "
                f"not divide the {count} {what}; use groups "
                f"{_or(_divisors(gcd(in_shape[0], layer.kernels)))}"
            )
    return (layer.kernels, *resolve_window(layer, in_shape).out)


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def _or(numbers: list[int]) -> str:
    return " or ".join(", ".join(map(str, numbers)).rsplit(", ", 1))


def _pool_shape(layer: Pool, in_shape: Shape) -> Shape:
    return (in_shape[0], *resolve_window(layer, in_shape).out)


def _global_shape(layer: Layer, in_shape: Shape) -> Shape:
    _require_maps(layer, in_shape)
    return (in_shape[0], 1, 1)


def _flat_shape(layer: Flatten, in_shape: Shape) -> Shape:
    return (prod(in_shape),)


def _linear_shape(layer: Linear, in_shape: Shape) -> Shape:
    if len(in_shape) != 1:
        raise SizeError(
            f"input {show_shape(in_shape)} is not flat, and linear needs one row of features; "
            "put `flatten` before it"
        )
    return (layer.features,)


def _same_shape(layer: Layer, in_shape: Shape) -> Shape:
    return in_shape


# Kind → rule: (layer, input shape…) → output shape.
SHAPES: dict[type[Layer], Callable[..., Shape]] = {
    Input: _input_shape,
    Conv: _conv_shape,
    MaxPool: _pool_shape,
    AvgPool: _pool_shape,
    SumPool: _pool_shape,
    GlobalMax: _global_shape,
    GlobalAvg: _global_shape,
    GlobalSum: _global_shape,
    Flatten: _flat_shape,
    Linear: _linear_shape,
    ReLU: _same_shape,
    LeakyReLU: _same_shape,
    Tanh: _same_shape,
    Sigmoid: _same_shape,
    Dropout: _same_shape,
}
