"""Shapes of a network in which `?` stands for kernels and features: channels as `Amount`s.

Heights and widths are numbers: the window of a layer was chosen before (`choices`). Where nothing
is unknown the rules are those of `shapes`; here stands, for each kind, what it does to a count of
channels or features, and what it requires of it.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import prod
from typing import Any, TypeAlias

from lanewise.errors import SizeError
from lanewise.net.layers import (
    ACTIVATIONS,
    ADAPTIVE_POOLS,
    GLOBAL_POOLS,
    NOISES,
    WINDOW_POOLS,
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
    GroupNorm,
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
from lanewise.net.unknown import unknowns_of, with_numbers
from lanewise.size.amounts import (
    Count,
    Impossible,
    System,
    product,
    require_equal,
    require_least,
    require_multiple,
    symbol,
    total,
)
from lanewise.size.shapes import SHAPES

# (channels, height, width) or (features,).
OpenShape: TypeAlias = "tuple[Count, ...]"
Rule: TypeAlias = "Callable[..., tuple[Count, System]]"


def open_shape(
    name: str, layer: Layer, system: System, *in_shapes: OpenShape
) -> tuple[OpenShape, System]:
    """The output shape of a layer whose window is known, and the system with what it requires.
    Impossible where there is none."""
    unknown = bool(unknowns_of(layer))
    if not unknown and all(isinstance(count, int) for shape in in_shapes for count in shape):
        return _plain(layer, *in_shapes), system
    if isinstance(layer, (Add, Multiply, Concat)):
        return _joined(layer, system, *in_shapes)
    if isinstance(layer, Flatten):
        return (product(in_shapes[0][0], _pixels(in_shapes[0])),), system
    count, system = COUNTS[type(layer)](name, layer, system, in_shapes[0][0])
    return (count, *_map(layer, in_shapes[0])), system


def map_size(shape: OpenShape) -> tuple[int, int]:
    """Height and width of maps, which are numbers always."""
    _, height, width = shape
    assert isinstance(height, int) and isinstance(width, int), "only channels hang on a `?`"
    return height, width


def _pixels(shape: OpenShape) -> int:
    """Height · width of maps, 1 of features."""
    return prod(side for side in shape[1:] if isinstance(side, int))


def _plain(layer: Layer, *in_shapes: Any) -> OpenShape:
    try:
        return SHAPES[type(layer)](layer, *in_shapes)
    except SizeError as error:
        raise Impossible from error


def _map(layer: Any, in_shape: OpenShape) -> OpenShape:
    """Height and width of the output, by the rule of `shapes` with a stand-in for what hangs on a
    `?`: the least count of channels that the rule takes."""
    stand_in = layer.of if isinstance(layer, ChannelSplit) else getattr(layer, "groups", 1)
    if isinstance(layer, PartialConv):
        stand_in = max(map(max, layer.table)) + 1
    if isinstance(layer, RadialBasis):
        layer, stand_in = with_numbers(layer, dict.fromkeys(unknowns_of(layer), 1)), 64
    known = with_numbers(layer, dict.fromkeys(unknowns_of(layer), stand_in))
    return _plain(known, (stand_in, *in_shape[1:]))[1:]


def _joined(layer: Layer, system: System, *in_shapes: OpenShape) -> tuple[OpenShape, System]:
    if isinstance(layer, Concat):
        if any(shape[1:] != in_shapes[0][1:] for shape in in_shapes):
            raise Impossible
        return (total(tuple(shape[0] for shape in in_shapes)), *in_shapes[0][1:]), system
    full = next((shape for shape in in_shapes if shape[1:] != (1, 1)), in_shapes[0])
    for shape in in_shapes:
        if shape[1:] != full[1:] and not (shape[1:] == (1, 1) and len(full) == 3):
            raise Impossible
        system = require_equal(system, full[0], shape[0])
    return full, system


def _same(name: str, layer: Layer, system: System, count: Count) -> tuple[Count, System]:
    return count, system


def _kernels(name: str, layer: Any, system: System, count: Count) -> tuple[Count, System]:
    kernels = _found(name, layer.kernels)
    system = require_multiple(system, count, layer.groups)
    return kernels, require_multiple(system, kernels, layer.groups)


def _features(name: str, layer: Any, system: System, count: Count) -> tuple[Count, System]:
    return _found(name, layer.features), system


def _radial(name: str, layer: Any, system: System, count: Count) -> tuple[Count, System]:
    """So many features of ±1 tell no more outputs apart than there are rows of them."""
    features = _found(name, layer.features)
    if isinstance(features, int):
        return features, require_least(system, count, (features - 1).bit_length())
    if isinstance(count, int):
        return features, require_least(system, product(features, -1), -(1 << min(count, 64)))
    return features, system


def _found(name: str, number: Any) -> Count:
    return number if isinstance(number, int) else symbol(name, number)


def _multiplied(name: str, layer: Any, system: System, count: Count) -> tuple[Count, System]:
    return product(count, layer.multiplier), system


def _table(name: str, layer: Any, system: System, count: Count) -> tuple[Count, System]:
    return len(layer.table), require_least(system, count, max(map(max, layer.table)) + 1)


def _grouped(name: str, layer: Any, system: System, count: Count) -> tuple[Count, System]:
    return count, require_multiple(system, count, layer.groups)


def _part(name: str, layer: Any, system: System, count: Count) -> tuple[Count, System]:
    system = require_multiple(system, count, layer.of)
    return product(count, Fraction(1, layer.of)), system


def _padded(name: str, layer: Any, system: System, count: Count) -> tuple[Count, System]:
    return total((layer.before, count, layer.after)), system


# Kind → rule: (node name, layer, system, channels or features) → theirs and the system. Input,
# flatten and the joins have none: `open_shape` itself knows them.
COUNTS: dict[type[Layer], Rule] = {
    Conv: _kernels,
    TransposedConv: _kernels,
    DepthwiseConv: _multiplied,
    PartialConv: _table,
    **dict.fromkeys((*WINDOW_POOLS, *ADAPTIVE_POOLS, *GLOBAL_POOLS), _same),
    Linear: _features,
    RadialBasis: _radial,
    **dict.fromkeys((*ACTIVATIONS, PReLU, *NOISES), _same),
    **dict.fromkeys((BatchNorm, LayerNorm, LocalResponseNorm, ChannelScale, Upsample), _same),
    GroupNorm: _grouped,
    ChannelShuffle: _grouped,
    ChannelSplit: _part,
    ChannelPad: _padded,
}
