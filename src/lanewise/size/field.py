"""The receptive field: how much of the image one output value sees, and how far apart two are.

Along one axis a window of extent K, stride s and b zeros at the begin turns a field r with jump j
and its middle m into

    r + (K − 1)·j      j·s      m + ((K − 1)/2 − b)·j

Upsampling and transposed convolutions divide the jump, so that it may be a fraction of a pixel:
then both are means over the outputs.
Where branches meet, the field spans those of all of them. A full connection sees the whole map.
Padding counts as image, so a field may exceed the image. The statistics of norms are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd, lcm
from typing import TypeAlias

from lanewise.net.graph import Graph
from lanewise.net.layers import (
    ACTIVATIONS,
    ADAPTIVE_POOLS,
    GLOBAL_POOLS,
    NOISES,
    NORMS,
    WINDOW_POOLS,
    AdaptivePool,
    Add,
    ChannelPad,
    ChannelScale,
    ChannelShuffle,
    ChannelSplit,
    Concat,
    Conv,
    DepthwiseConv,
    Flatten,
    Foreign,
    Input,
    Layer,
    Linear,
    Multiply,
    PartialConv,
    PReLU,
    RadialBasis,
    TransposedConv,
    Upsample,
)
from lanewise.size.axis import longest_window
from lanewise.size.windows import Shape, Windowed, resolve_window

Pixels: TypeAlias = int | float


@dataclass(frozen=True)
class Reach:
    """The field of a value along one axis, exact in integers: all counts are of 1/`parts` pixel.

    `middle` is twice the distance from the first pixel's middle to the middle of the first output's
    field. `spread` is how much further all features of a flattened output see than one of them.
    `fixed` is what every output sees, wherever it lies: the map behind a squeeze and excitation.
    """

    size: int = 1
    jump: int = 1
    middle: int = 0
    spread: int = 0
    parts: int = 1
    fixed: int = 0

    def under(self, extent: int, stride: int = 1, begin: int = 0) -> Reach:
        """The reach of a window of this extent, moved by the stride from `begin` before."""
        size = self.size + (extent - 1) * self.jump
        middle = self.middle + (extent - 1 - 2 * begin) * self.jump
        return Reach(size, self.jump * stride, middle, self.spread, self.parts, self.fixed)

    def in_parts(self, parts: int) -> Reach:
        """The same reach counted in smaller parts (a multiple of the parts there are)."""
        times = parts // self.parts
        if times == 1:
            return self
        size, jump, middle = self.size * times, self.jump * times, self.middle * times
        return Reach(size, jump, middle, self.spread * times, parts, self.fixed * times)

    def finer(self, times: int, extent: int = 1, shift: int = 0) -> Reach:
        """The reach of a layer that gives `times` outputs for each input, reads `extent` inputs
        for each, and whose first output lies `shift` half outputs behind the first input."""
        reach = self.in_parts(self.parts * times // gcd(self.jump, times))
        jump = reach.jump // times
        size = reach.size + (extent - 1) * reach.jump
        middle = reach.middle + shift * jump
        return Reach(size, jump, middle, reach.spread, reach.parts, reach.fixed)

    def flat(self, n: int) -> Reach:
        """The reach of the features of a flattened axis of n values."""
        spread = (n - 1) * self.jump
        return Reach(self.size, self.jump, self.middle, spread, self.parts, self.fixed)

    def whole(self) -> Reach:
        """The reach of what sees all features."""
        size, middle = self.size + self.spread, self.middle + self.spread
        return Reach(size, self.jump, middle, 0, self.parts, self.fixed)


@dataclass(frozen=True)
class Field:
    """The reach along both axes; `size` and `jump` tell it in pixels of the input."""

    height: Reach = Reach()
    width: Reach = Reach()

    @property
    def size(self) -> tuple[Pixels, Pixels]:
        """(height, width) of what an output sees."""
        height, width = self.height, self.width
        return (
            _pixels(max(height.size, height.fixed), height),
            _pixels(max(width.size, width.fixed), width),
        )

    @property
    def jump(self) -> tuple[Pixels, Pixels]:
        """The distance of the fields of neighbouring outputs; below 1 where maps grew enough."""
        return _pixels(self.height.jump, self.height), _pixels(self.width.jump, self.width)

    @property
    def centre(self) -> tuple[Pixels, Pixels]:
        """Where the middle of the first output's field lies, in pixels from the middle of the first
        pixel; a field of size r reaches (r − 1)/2 to each side of it."""
        height, width = self.height, self.width
        return _halves(height.middle, height), _halves(width.middle, width)


Source: TypeAlias = tuple[Field, Shape]


def infer_fields(graph: Graph, shapes: dict[str, Shape]) -> dict[str, Field]:
    """Node name → receptive field of its output."""
    fields: dict[str, Field] = {}
    for node in graph.nodes:
        inputs = [(fields[name], shapes[name]) for name in node.inputs]
        fields[node.name] = FIELDS[type(node.layer)](node.layer, *inputs)
    return fields


def _pixels(count: int, reach: Reach) -> Pixels:
    return count / reach.parts if count % reach.parts else count // reach.parts


def _halves(count: int, reach: Reach) -> Pixels:
    whole = 2 * reach.parts
    return count / whole if count % whole else count // whole


def _one_pixel(layer: Input) -> Field:
    return Field()


def _window(layer: Windowed, source: Source) -> Field:
    field, in_shape = source
    height, width = resolve_window(layer, in_shape).axes
    return Field(
        field.height.under(height.extent, height.stride, height.begin),
        field.width.under(width.extent, width.stride, width.begin),
    )


def _transposed(layer: TransposedConv, source: Source) -> Field:
    field, _ = source
    return Field(_spread_out(field.height, layer, 0), _spread_out(field.width, layer, 1))


def _spread_out(reach: Reach, layer: TransposedConv, axis: int) -> Reach:
    """An output reads every s-th place under the kernel; between its taps all places count."""
    stride, further = layer.stride[axis], layer.dilation[axis] * (layer.kernel[axis] - 1)
    return reach.finer(stride, further // stride + 1, 2 * layer.pad[axis][0] - further)


def _upsampled(layer: Upsample, source: Source) -> Field:
    field, _ = source
    height, width = layer.scale
    return Field(
        field.height.finer(height, 1 + (layer.bilinear and height > 1), 1 - height),
        field.width.finer(width, 1 + (layer.bilinear and width > 1), 1 - width),
    )


def _adaptive(layer: AdaptivePool, source: Source) -> Field:
    field, (_, height, width) = source
    return Field(
        _cut(field.height, height, layer.size[0]),
        _cut(field.width, width, layer.size[1]),
    )


def _cut(reach: Reach, n: int, out: int) -> Reach:
    """The widest of `out` windows over n values; they lie n/out values apart on average."""
    if out == 1:
        return reach.under(n)
    common = gcd(n, out)
    window = reach.under(longest_window(n, out), n // common)
    return window.finer(out // common, shift=0)


def _whole_map(layer: Layer, source: Source) -> Field:
    field, (_, height, width) = source
    return Field(field.height.under(height), field.width.under(width))


def _flat(layer: Flatten, source: Source) -> Field:
    field, in_shape = source
    if len(in_shape) == 1:
        return field
    return Field(field.height.flat(in_shape[1]), field.width.flat(in_shape[2]))


def _all_features(layer: Linear | RadialBasis, source: Source) -> Field:
    field, _ = source
    return Field(field.height.whole(), field.width.whole())


def _unchanged(layer: Layer, source: Source) -> Field:
    return source[0]


def _together(layer: Layer, *sources: Source) -> Field:
    """The span of the branches. A C×1×1 input beside maps is seen by every pixel."""
    full = max(shape[1:] for _, shape in sources)
    beside = [field for field, shape in sources if shape[1:] == full]
    for_all = [field for field, shape in sources if shape[1:] != full]
    return Field(
        _span([field.height for field in beside], [field.height for field in for_all]),
        _span([field.width for field in beside], [field.width for field in for_all]),
    )


def _unknown(layer: Foreign, *sources: Source) -> Field:
    """Everything that its inputs see, for nobody knows what it reads."""
    fields = [_all_of(field, shape) for field, shape in sources] or [Field()]
    return Field(
        _span([field.height for field in fields], []),
        _span([field.width for field in fields], []),
    )


def _all_of(field: Field, shape: Shape) -> Field:
    if len(shape) == 3:
        return Field(field.height.under(shape[1]), field.width.under(shape[2]))
    return Field(field.height.whole(), field.width.whole())


def _span(beside: Sequence[Reach], for_all: Sequence[Reach]) -> Reach:
    """From the first begin to the last end of those side by side; the others are seen by all."""
    if len(set(beside)) == 1 and not for_all:
        return beside[0]
    parts = lcm(*(reach.parts for reach in (*beside, *for_all)))
    branches = [reach.in_parts(parts) for reach in beside]
    begin = min(reach.middle - reach.size for reach in branches)
    end = max(reach.middle + reach.size for reach in branches)
    size = -(-(end - begin) // 2)
    jump = max(reach.jump for reach in branches)
    spread = max(reach.size + reach.spread for reach in branches) - size
    whole = [reach.in_parts(parts) for reach in for_all]
    fixed = max(0, *(reach.fixed for reach in branches + whole), *(reach.size for reach in whole))
    return Reach(size, jump, (begin + end) // 2, max(0, spread), parts, fixed)


# Kind → rule: (layer, (field, shape) of each input) → field.
FIELDS: dict[type[Layer], Callable[..., Field]] = {
    Input: _one_pixel,
    **dict.fromkeys((Conv, DepthwiseConv, PartialConv, *WINDOW_POOLS), _window),
    TransposedConv: _transposed,
    **dict.fromkeys(ADAPTIVE_POOLS, _adaptive),
    **dict.fromkeys(GLOBAL_POOLS, _whole_map),
    Flatten: _flat,
    Linear: _all_features,
    RadialBasis: _all_features,
    **dict.fromkeys((*ACTIVATIONS, PReLU, *NORMS, ChannelScale), _unchanged),
    **dict.fromkeys((ChannelShuffle, ChannelSplit, ChannelPad), _unchanged),
    Upsample: _upsampled,
    **dict.fromkeys(NOISES, _unchanged),
    **dict.fromkeys((Add, Multiply, Concat), _together),
    Foreign: _unknown,
}
