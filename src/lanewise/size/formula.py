"""The arithmetic behind every output size, with the layer's numbers filled in.

⌊(28 + 4 − 5)/1⌋ + 1 = 28       input + pads − kernel's extent, by the stride
(14 − 1)·2 + 4 − 2 = 28         transposed: the steps + kernel's extent − pads
64x28x28 + 64x28x28             what a join brings together
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TypeAlias

from lanewise.net.layers import (
    ACTIVATIONS,
    ADAPTIVE_POOLS,
    GLOBAL_POOLS,
    NOISES,
    WINDOW_POOLS,
    AdaptivePool,
    Add,
    BatchNorm,
    ChannelPad,
    ChannelScale,
    ChannelShuffle,
    ChannelSplit,
    Concat,
    Conv,
    DepthwiseConv,
    Flatten,
    Foreign,
    GroupNorm,
    Input,
    Layer,
    LayerNorm,
    Linear,
    LocalResponseNorm,
    Multiply,
    PartialConv,
    PReLU,
    RadialBasis,
    TransposedConv,
    Upsample,
)
from lanewise.size.axis import Axis
from lanewise.size.windows import Shape, Windowed, resolve_transposed, resolve_window, show_shape

Formula: TypeAlias = Callable[..., str]

# Where nothing is computed; more may follow what is unchanged.
GIVEN = "given"
UNCHANGED = "unchanged"


def axis_formula(axis: Axis) -> str:
    """The output size along one axis: `⌊(28 + 4 − 5)/1⌋ + 1 = 28`.

    A dilated kernel shows its extent, `⌊(28 + 4 − (2·4 + 1))/1⌋ + 1`; ceil rounds up, and
    `− 1` tells that the last window would start in the end padding and is left out.
    """
    left, right = "⌈⌉" if axis.ceil else "⌊⌋"
    inside = f"{axis.n} + {axis.begin + axis.end} − {_extent(axis)}"
    dropped = " − 1" if axis.drops else ""
    return f"{left}({inside})/{axis.stride}{right} + 1{dropped} = {axis.out}"


def _extent(axis: Axis) -> str:
    return f"({axis.dilation}·{axis.kernel - 1} + 1)" if axis.dilation > 1 else str(axis.kernel)


def _both(height: str, width: str) -> str:
    return height if height == width else f"height {height}, width {width}"


def _window(layer: Windowed, in_shape: Shape) -> str:
    height, width = map(axis_formula, resolve_window(layer, in_shape).axes)
    return _both(height, width)


def _transposed(layer: TransposedConv, in_shape: Shape) -> str:
    height, width = resolve_transposed(layer, in_shape).axes
    return _both(_grown(layer, height, 0), _grown(layer, width, 1))


def _grown(layer: TransposedConv, axis: Axis, place: int) -> str:
    longer = layer.output_pad[place]
    more = f" + {longer}" if longer else ""
    steps = f"({axis.out} − 1)·{axis.stride}"
    return f"{steps} + {_extent(axis)} − {sum(layer.pad[place])}{more} = {axis.n}"


def _adaptive(layer: AdaptivePool, in_shape: Shape) -> str:
    return _both(_cut(in_shape[1], layer.size[0]), _cut(in_shape[2], layer.size[1]))


def _cut(n: int, out: int) -> str:
    if n % out:
        return f"⌊i·{n}/{out}⌋ … ⌈(i + 1)·{n}/{out}⌉ − 1 → i"
    return f"windows of {n}/{out} = {n // out}"


def _given(layer: Layer) -> str:
    return GIVEN


def _whole_map(layer: Layer, in_shape: Shape) -> str:
    return f"{in_shape[1]}·{in_shape[2]} values → 1"


def _product(layer: Layer, in_shape: Shape) -> str:
    return f"{'·'.join(map(str, in_shape))} = {prod(in_shape)}"


def _features(layer: Linear | RadialBasis, in_shape: Shape) -> str:
    return f"{in_shape[0]} → {layer.features}"


def _unchanged(layer: Layer, in_shape: Shape) -> str:
    return UNCHANGED


def _running(layer: BatchNorm, in_shape: Shape) -> str:
    return f"{UNCHANGED}, 2·{in_shape[0]} running values"


def _normalised(layer: LayerNorm, in_shape: Shape) -> str:
    what = "channels of each pixel" if len(in_shape) == 3 else "features"
    return f"{UNCHANGED}, over {in_shape[0]} {what}"


def _grouped(layer: GroupNorm, in_shape: Shape) -> str:
    return f"{UNCHANGED}, {layer.groups} groups of {in_shape[0] // layer.groups} channels"


def _neighbours(layer: LocalResponseNorm, in_shape: Shape) -> str:
    return f"{UNCHANGED}, over {layer.size} neighbouring channels"


def _shuffled(layer: ChannelShuffle, in_shape: Shape) -> str:
    return f"{layer.groups}·{in_shape[0] // layer.groups} channels, column by column"


def _part(layer: ChannelSplit, in_shape: Shape) -> str:
    return f"{in_shape[0]}/{layer.of} = {in_shape[0] // layer.of}"


def _padded(layer: ChannelPad, in_shape: Shape) -> str:
    total = layer.before + in_shape[0] + layer.after
    return f"{layer.before} + {in_shape[0]} + {layer.after} = {total}"


def _upsampled(layer: Upsample, in_shape: Shape) -> str:
    height, width = (
        f"{n}·{scale} = {n * scale}" for n, scale in zip(in_shape[1:], layer.scale, strict=True)
    )
    return _both(height, width)


def _sum(layer: Add, *in_shapes: Shape) -> str:
    return " + ".join(map(show_shape, in_shapes))


def _values_product(layer: Multiply, *in_shapes: Shape) -> str:
    return " · ".join(map(show_shape, in_shapes))


def _channels(layer: Concat, *in_shapes: Shape) -> str:
    channels = [shape[0] for shape in in_shapes]
    return f"{' + '.join(map(str, channels))} = {sum(channels)}"


def _as_found(layer: Foreign, *in_shapes: Shape) -> str:
    once = "; once for all images" if layer.once else ""
    return f"{layer.operator}, not a layer of Lanewise{once}"


# Kind → rule: (layer, input shape…) → text.
FORMULAS: dict[type[Layer], Formula] = {
    Input: _given,
    **dict.fromkeys((Conv, DepthwiseConv, PartialConv, *WINDOW_POOLS), _window),
    TransposedConv: _transposed,
    **dict.fromkeys(ADAPTIVE_POOLS, _adaptive),
    **dict.fromkeys(GLOBAL_POOLS, _whole_map),
    Flatten: _product,
    Linear: _features,
    RadialBasis: _features,
    **dict.fromkeys((*ACTIVATIONS, PReLU, ChannelScale), _unchanged),
    BatchNorm: _running,
    LayerNorm: _normalised,
    GroupNorm: _grouped,
    LocalResponseNorm: _neighbours,
    ChannelShuffle: _shuffled,
    ChannelSplit: _part,
    ChannelPad: _padded,
    Upsample: _upsampled,
    **dict.fromkeys(NOISES, _unchanged),
    Add: _sum,
    Multiply: _values_product,
    Concat: _channels,
    Foreign: _as_found,
}
