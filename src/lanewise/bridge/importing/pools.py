"""PyTorch's pools, also those that are written as a mean over the maps. Rules: see `functions`."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from lanewise.bridge.importing.arrange import image_axis
from lanewise.bridge.importing.builder import Builder, NoLayer
from lanewise.bridge.importing.values import Value
from lanewise.bridge.importing.windows import pair, sides, with_filled_border
from lanewise.net import layers as kinds
from lanewise.net.layers import Layer, Pair


def max_pool2d(
    b: Builder,
    input: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    if pair(dilation) != (1, 1) or return_indices:
        raise NoLayer("max pooling with dilation or indices")
    window = _window(kernel_size, stride)
    read, pad = with_filled_border(input, sides(padding), float("-inf"))
    return b.add(kinds.MaxPool(*window, pad, ceil_mode), read)


def avg_pool2d(
    b: Builder,
    input: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    """A fixed divisor of 1 makes a sum; that of the window's size is the mean of full windows."""
    window = _window(kernel_size, stride)
    read, pad = with_filled_border(input, sides(padding), 0.0)
    if divisor_override == 1:
        return b.add(kinds.SumPool(*window, pad, ceil_mode), read)
    unpadded = not count_include_pad and pad != kinds.NO_PAD
    if divisor_override is not None and (divisor_override != prod(window[0]) or ceil_mode):
        raise NoLayer(f"average pooling by the divisor {divisor_override}")
    if unpadded and read is not input:
        raise NoLayer("average pooling of padded maps that does not count its own padding")
    return b.add(kinds.AvgPool(*window, pad, ceil_mode, unpadded), read)


def _window(kernel_size: Any, stride: Any) -> tuple[Pair, Pair]:
    # torch takes an empty list for "as large as the window".
    return pair(kernel_size), pair(kernel_size if stride in (None, [], ()) else stride)


def adaptive(many: type[kinds.AdaptivePool], one: type[Layer]) -> Callable[..., Value]:
    """The rule of an adaptive pool, that is a global one where it leaves one value a map."""

    def rule(b: Builder, input: Value, output_size: Any, return_indices: bool = False) -> Value:
        if return_indices:
            raise NoLayer("adaptive pooling with indices")
        numbers = (output_size,) * 2 if isinstance(output_size, int) else output_size
        height, width = (
            n if wanted is None else int(wanted)
            for wanted, n in zip(numbers, input.visible[-2:], strict=True)
        )
        if (height, width) == (1, 1):
            return b.add(one(), input)
        if (height, width) == input.visible[-2:]:
            return input
        return b.add(many((height, width)), input)

    return rule


def whole_map(kind: type[Layer]) -> Callable[..., Value]:
    """The rule of a reduction that is a global pool where it is over height and width."""

    def rule(b: Builder, input: Value, dim: Any = None, keepdim: bool = False) -> Value:
        axes = dim if isinstance(dim, (tuple, list)) else [dim]
        if None in axes or len(input.visible) != 3:
            raise NoLayer("a reduction over other axes than height and width")
        found = sorted(image_axis(axis, input) for axis in axes)
        if found == [0, 1] and input.is_channels_last and not keepdim:
            input = input.permuted((2, 0, 1))
        elif found != [1, 2]:
            raise NoLayer("a reduction over other axes than height and width")
        pooled = b.add(kind(), input)
        return pooled if keepdim else b.reshaped(pooled, pooled.shape[:1])

    return rule


RULES: dict[str, Callable[..., Any]] = {
    "max_pool2d": max_pool2d,
    "avg_pool2d": avg_pool2d,
    "adaptive_avg_pool2d": adaptive(kinds.AdaptiveAvg, kinds.GlobalAvg),
    "adaptive_max_pool2d": adaptive(kinds.AdaptiveMax, kinds.GlobalMax),
    "mean": whole_map(kinds.GlobalAvg),
    "sum": whole_map(kinds.GlobalSum),
    "amax": whole_map(kinds.GlobalMax),
}
