"""How a window moves over its input: what the layer says, with every rule turned into numbers.

A shape is channels × height × width, or a single number of features after `flatten`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias, TypeGuard

from lanewise.errors import SizeError
from lanewise.net.layers import (
    NO_PAD,
    Conv,
    DepthwiseConv,
    Layer,
    Pair,
    PartialConv,
    Pool,
    Sides,
    TransposedConv,
)
from lanewise.net.values import PAD, PAIR
from lanewise.size.axis import Axis, same_pad, transposed_size

Shape: TypeAlias = tuple[int, ...]
Windowed: TypeAlias = Conv | DepthwiseConv | PartialConv | Pool


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


def show_shape(shape: Shape) -> str:
    """`6x28x28`, or `120` for features."""
    return "x".join(map(str, shape))


def require_maps(layer: Layer, in_shape: Shape) -> None:
    """SizeError (without a place) where the input was flattened before."""
    if len(in_shape) != 3:
        raise SizeError(
            f"input is {show_shape(in_shape)} features, and {layer.word} needs feature maps "
            f"(channels x height x width); put {layer.word} before `flatten`"
        )


def conv_of(layer: Conv | DepthwiseConv, in_shape: Shape) -> Conv:
    """The grouped convolution that a depthwise one is over this input; a convolution is itself."""
    if isinstance(layer, Conv):
        return layer
    channels = in_shape[0]
    return Conv(
        channels * layer.multiplier,
        layer.kernel,
        layer.stride,
        layer.pad,
        layer.dilation,
        channels,
        layer.bias,
    )


# Every view of a layer asks for its window, and deep networks repeat their layers.
@lru_cache(maxsize=1024)
def resolve_window(layer: Windowed, in_shape: Shape) -> Window:
    """The window of a layer over an input of shape (C, H, W), `same` and `valid` as numbers.

    SizeError (without a place) if there is no output position.
    """
    require_maps(layer, in_shape)
    axes = _axes(layer, in_shape[1:])
    if min(axes[0].out, axes[1].out) < 1:
        raise SizeError(_no_position(layer, in_shape, axes))
    return _window(axes)


def resolve_transposed(layer: TransposedConv, in_shape: Shape) -> Window:
    """The window of the convolution whose gradient the layer is, input and output swapped.

    It moves over the layer's output, whose height and width are `axes[0].n` and `axes[1].n`, and
    its `out` is the layer's input (H, W). Where `output_pad` is a stride or more, which a larger
    dilation allows, the convolution ends early: its end padding is less, or below zero.

    SizeError (without a place) if nothing is left of the output, or if `output_pad` is neither less
    than the stride nor than the dilation, where PyTorch refuses it.
    """
    require_maps(layer, in_shape)
    _check_output_pad(layer)
    height, width = (_swapped(layer, axis, n) for axis, n in enumerate(in_shape[1:]))
    if min(height.n, width.n) < 1:
        raise SizeError(_no_output(layer, in_shape))
    return _window((height, width))


def _window(axes: tuple[Axis, Axis]) -> Window:
    height, width = axes
    return Window(
        (height.kernel, width.kernel),
        (height.stride, width.stride),
        (height.dilation, width.dilation),
        ((height.begin, height.end), (width.begin, width.end)),
        (height.out, width.out),
        axes,
    )


def _axes(layer: Windowed, sizes: Shape) -> tuple[Axis, Axis]:
    height, width = (_axis(layer, axis, n) for axis, n in enumerate(sizes))
    return height, width


def _axis(layer: Windowed, axis: int, n: int) -> Axis:
    kernel, stride = layer.kernel[axis], layer.stride[axis]
    dilation = 1 if isinstance(layer, Pool) else layer.dilation[axis]
    if layer.pad == "same":
        begin, end = same_pad(n, kernel, stride, dilation)
    else:
        begin, end = (NO_PAD if layer.pad == "valid" else layer.pad)[axis]
    return Axis(n, kernel, stride, begin, end, dilation, isinstance(layer, Pool) and layer.ceil)


def _swapped(layer: TransposedConv, axis: int, n: int) -> Axis:
    """The axis of the convolution that reads the layer's output and has n positions."""
    kernel, stride, dilation = layer.kernel[axis], layer.stride[axis], layer.dilation[axis]
    begin, end = layer.pad[axis]
    longer = layer.output_pad[axis]
    out = transposed_size(n, kernel, stride, (begin, end), dilation, longer)
    return Axis(out, kernel, stride, begin, end - longer // stride * stride, dilation)


def check_pool_pad(layer: Pool, in_shape: Shape) -> None:
    """SizeError (without a place) if a pool's padding is more than half its window, which PyTorch
    refuses."""
    require_maps(layer, in_shape)
    axes = _axes(layer, in_shape[1:])
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


def _check_output_pad(layer: TransposedConv) -> None:
    most = [max(pair) - 1 for pair in zip(layer.stride, layer.dilation, strict=True)]
    if layer.output_pad[0] > most[0] or layer.output_pad[1] > most[1]:
        stride = [max(pair) for pair in zip(layer.stride, _more(layer.output_pad), strict=True)]
        raise SizeError(
            f"outputpad {PAIR.show(layer.output_pad)} is less neither than stride "
            f"{PAIR.show(layer.stride)} nor than dilation {PAIR.show(layer.dilation)}; "
            f"use outputpad <= {PAIR.show((most[0], most[1]))} "
            f"or stride >= {PAIR.show((stride[0], stride[1]))}"
        )


def _more(pair: Pair) -> Pair:
    return pair[0] + 1, pair[1] + 1


def _no_output(layer: TransposedConv, in_shape: Shape) -> str:
    """`input 8x1x1, kernel 3 stride 2 pad 2 leaves nothing of the output; use …`."""
    pads: list[int] = []
    kernels: list[int] = []
    for axis, n in enumerate(in_shape[1:]):
        kernel, stride, dilation = layer.kernel[axis], layer.stride[axis], layer.dilation[axis]
        longer = layer.output_pad[axis]
        uncut = transposed_size(n, kernel, stride, (0, 0), dilation, longer)
        pads.append((uncut - 1) // 2)
        missing = max(0, sum(layer.pad[axis]) + 1 - uncut)
        kernels.append(kernel - -missing // dilation)
    return (
        f"input {show_shape(in_shape)}, kernel {PAIR.show(layer.kernel)} "
        f"stride {PAIR.show(layer.stride)}: pad {PAD.show(layer.pad)} cuts off the whole output; "
        f"use pad <= {PAIR.show((pads[0], pads[1]))} "
        f"or kernel >= {PAIR.show((kernels[0], kernels[1]))}"
    )


def _no_position(layer: Windowed, in_shape: Shape, axes: tuple[Axis, Axis]) -> str:
    """`input 6x12x12, kernel 15 stride 1 pad 0 has no output position; use …`."""
    word = "window" if isinstance(layer, Pool) else "kernel"
    dilation = f" dilation {PAIR.show(layer.dilation)}" if _is_dilated(layer) else ""
    remedies = [
        text for text, changed in _remedies(layer, word, axes) if _fits(changed, in_shape[1:])
    ]
    return (
        f"input {show_shape(in_shape)}, {word} {PAIR.show(layer.kernel)}{dilation} "
        f"stride {PAIR.show(layer.stride)} pad {PAD.show(layer.pad)} has no output position; "
        f"use {' or '.join(remedies)}"
    )


def _is_dilated(layer: Windowed) -> TypeGuard[Conv | DepthwiseConv | PartialConv]:
    return not isinstance(layer, Pool) and layer.dilation != (1, 1)


def _remedies(
    layer: Windowed, word: str, axes: tuple[Axis, Axis]
) -> Iterator[tuple[str, Windowed]]:
    """Single changes that may give both axes an output position: (as told, the changed layer)."""
    pad = (_least_pad(axes[0]), _least_pad(axes[1]))
    yield f"pad >= {PAIR.show(pad)}", replace(layer, pad=((pad[0],) * 2, (pad[1],) * 2))
    kernel = (_largest_kernel(axes[0]), _largest_kernel(axes[1]))
    yield f"{word} <= {PAIR.show(kernel)}", replace(layer, kernel=kernel)
    if _is_dilated(layer):
        dilation = (_largest_dilation(axes[0]), _largest_dilation(axes[1]))
        yield f"dilation <= {PAIR.show(dilation)}", replace(layer, dilation=dilation)


def _fits(layer: Windowed, sizes: Shape) -> bool:
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
