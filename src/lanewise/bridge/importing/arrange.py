"""PyTorch's functions that only arrange values: reshape, permute, pad, cut, repeat. Rules: see
`functions`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from lanewise.bridge.importing.builder import Builder, NoLayer
from lanewise.bridge.importing.values import Border, Constant, Value
from lanewise.net import layers as kinds


def image_axis(axis: int, value: Value) -> int:
    """An axis of the tensor, counted without that of the images."""
    found = axis - 1 if axis >= 0 else axis + len(value.visible)
    if not 0 <= found < len(value.visible):
        raise NoLayer("a step along the axis of the images")
    return found


def same(b: Builder, input: Value, *others: Any, **options: Any) -> Value:
    """Nothing that the notation would say."""
    return input


def _numbers(values: Sequence[Any]) -> list[Any]:
    """`f(x, 1, 2)` and `f(x, (1, 2))` alike."""
    first = values[0] if len(values) == 1 else values
    return list(first) if isinstance(first, (tuple, list)) else [first]


def reshape(b: Builder, input: Value, *shape: Any, **named: Any) -> Value:
    """Its first number must be that of the images; `b.images` of them are in the recording."""
    wanted = _numbers(shape or (named["shape"],))
    if any(not isinstance(number, int) for number in wanted):
        raise NoLayer("a view of another type")
    known = -prod(wanted) if -1 in wanted else 0
    whole = b.images * prod(input.visible)
    dims = [whole // known if number == -1 and known else number for number in wanted]
    if dims[:1] != [b.images] or prod(dims) != whole:
        raise NoLayer("a reshape that moves values from image to image")
    return b.reshaped(input, tuple(dims[1:]))


def flatten(b: Builder, input: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    first, last = image_axis(start_dim, input), image_axis(end_dim, input)
    shape = input.visible
    joined = prod(shape[first : last + 1])
    return b.reshaped(input, (*shape[:first], joined, *shape[last + 1 :]))


def unflatten(b: Builder, input: Value, dim: int, sizes: Sequence[int]) -> Value:
    axis = image_axis(dim, input)
    shape, known = input.visible, -prod(sizes)
    parts = [shape[axis] // known if size == -1 else size for size in sizes]
    return b.reshaped(input, (*shape[:axis], *parts, *shape[axis + 1 :]))


def squeeze(b: Builder, input: Value, dim: Any = None) -> Value:
    shape = input.visible
    if dim is None:
        axes = [axis for axis, n in enumerate(shape) if n == 1]
    else:
        axes = [image_axis(axis, input) for axis in (_numbers((dim,)))]
    kept = [n for axis, n in enumerate(shape) if n != 1 or axis not in axes]
    return b.reshaped(input, tuple(kept))


def unsqueeze(b: Builder, input: Value, dim: int) -> Value:
    axis = dim - 1 if dim > 0 else dim + len(input.visible) + 1
    if axis < 0 or dim == 0:
        raise NoLayer("a new axis before the images")
    shape = input.visible
    return b.reshaped(input, (*shape[:axis], 1, *shape[axis:]))


def permute(b: Builder, input: Value, *dims: Any, **named: Any) -> Value:
    axes = _numbers(dims or (named["dims"],))
    total = len(input.visible) + 1
    if axes[0] % total:
        raise NoLayer("an exchange of the images with another axis")
    return _unbordered(input).permuted(tuple(axis % total - 1 for axis in axes[1:]))


def transpose(b: Builder, input: Value, dim0: int, dim1: int) -> Value:
    order = list(range(len(input.visible)))
    first, second = image_axis(dim0, input), image_axis(dim1, input)
    order[first], order[second] = order[second], order[first]
    return _unbordered(input).permuted(tuple(order))


def _unbordered(value: Value) -> Value:
    if value.border is not None:
        raise NoLayer("an exchange of axes of padded maps")
    return value


def expand(b: Builder, input: Value, *sizes: Any) -> Value:
    """C×1×1 as large as maps: joins do that themselves."""
    return input


def shuffle(b: Builder, input: Value, groups: int) -> Value:
    return b.add(kinds.ChannelShuffle(groups), input)


# Borders ------------------------------------------------------------------------------------------


def pad(
    b: Builder, input: Value, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Value:
    """Around the maps: a border, that the next window takes as its pad. Of channels: a layer."""
    fill = float(value or 0.0)
    if mode != "constant" or len(pad) % 2:
        raise NoLayer(f"padding by {mode}")
    numbers = [int(number) for number in pad]
    while len(numbers) > 2 and numbers[-2:] == [0, 0]:
        numbers = numbers[:-2]
    if not any(numbers):
        return input
    if len(numbers) == 2 * len(input.visible) and not any(numbers[:-2]):
        return _pad_channels(b, input, numbers[-2], numbers[-1], fill)
    return _pad_maps(b, input, numbers, fill)


def _pad_channels(b: Builder, input: Value, before: int, after: int, fill: float) -> Value:
    if fill or min(before, after) < 0:
        raise NoLayer("channels that are cut off, or of something else than zeros")
    if len(input.visible) == 1:
        raise NoLayer("features of zeros")
    return b.add(kinds.ChannelPad(before, after), input)


def _pad_maps(b: Builder, input: Value, numbers: list[int], fill: float) -> Value:
    if len(numbers) > 4 or len(input.visible) != 3 or not input.is_plain:
        raise NoLayer("padding of other axes than height and width")
    left, right, top, bottom = (*numbers, 0, 0)[:4]
    made = b.entries[input.entry]
    if isinstance(made.layer, kinds.TransposedConv) and max(numbers) <= 0:
        return _cut(b, input, ((-top, -bottom), (-left, -right)))
    sides = ((top, bottom), (left, right))
    return Value(input.entry, input.shape, input.dims, input.order, Border(sides, fill))


def _cut(b: Builder, input: Value, sides: kinds.Sides) -> Value:
    """A transposed convolution whose output is cut: that is its pad."""
    from dataclasses import replace

    made = b.entries[input.entry]
    assert isinstance(made.layer, kinds.TransposedConv)
    ((a, c), (e, g)), ((h, i), (j, k)) = made.layer.pad, sides
    layer = replace(made.layer, pad=((a + h, c + i), (e + j, g + k)))
    reads = [Value.plain(index, b.entries[index].shape) for index in made.inputs]
    sources = {name: Constant(source.shape, (source,)) for name, source in made.sources.items()}
    b.step = made.step
    return b.add(layer, *reads, **sources)


def interpolate(
    b: Builder,
    input: Value,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Value:
    if mode not in ("nearest", "bilinear") or align_corners or antialias:
        raise NoLayer(f"interpolation by {mode} with corners aligned or smoothing")
    shape = input.visible
    if len(shape) != 3:
        raise NoLayer("interpolation of something else than maps")
    if size is not None:
        numbers = _numbers((size,)) * 2
        scale = [out / n for out, n in zip(numbers, shape[1:], strict=False)]
    else:
        scale = [float(factor) for factor in (_numbers((scale_factor,)) * 2)[:2]]
    if any(factor != int(factor) for factor in scale):
        raise NoLayer("interpolation to something else than a multiple of the size")
    if scale == [1.0, 1.0]:
        return input
    return b.add(kinds.Upsample((int(scale[0]), int(scale[1])), mode == "bilinear"), input)


# Parts --------------------------------------------------------------------------------------------


def part(b: Builder, input: Value, first: int, count: int) -> Value:
    """So many channels from `first`: one of equal parts."""
    channels = input.visible[0]
    if (first, count) == (0, channels):
        return input
    if count < 1 or channels % count or first % count or first + count > channels:
        raise NoLayer(f"channels {first} to {first + count - 1} of {channels}: no equal parts")
    return b.add(kinds.ChannelSplit(first // count + 1, channels // count), input)


def _require_channels(dim: int, input: Value) -> None:
    if image_axis(dim, input) != 0 or len(input.visible) != 3:
        raise NoLayer("a cut along another axis than the channels")


def chunk(b: Builder, input: Value, chunks: int, dim: int = 0) -> list[Value]:
    _require_channels(dim, input)
    return split(b, input, -(-input.visible[0] // chunks), dim)


def split(b: Builder, tensor: Value, split_size_or_sections: Any, dim: int = 0) -> list[Value]:
    _require_channels(dim, tensor)
    channels, sizes = tensor.visible[0], split_size_or_sections
    if isinstance(sizes, int):
        sizes = [min(sizes, channels - first) for first in range(0, channels, sizes)]
    firsts = [sum(sizes[:index]) for index in range(len(sizes))]
    return [part(b, tensor, first, n) for first, n in zip(firsts, sizes, strict=True)]


def narrow(b: Builder, input: Value, dim: int, start: int, length: int) -> Value:
    _require_channels(dim, input)
    return part(b, input, start, length)


def getitem(b: Builder, input: Value, key: Any) -> Value:
    """`x[:, 2:4]` is a part of the channels, `x[:, :, ::2, ::2]` each second pixel."""
    keys = key if isinstance(key, tuple) else (key,)
    slices = [one for one in keys if isinstance(one, slice)]
    if len(slices) < len(keys) or slices[0] != slice(None) or len(input.visible) != 3:
        raise NoLayer("an index that is no plain cut")
    ranges = [range(n)[one] for one, n in zip(slices[1:], input.visible, strict=False)]
    ranges += [range(n) for n in input.visible[len(ranges) :]]
    channels, rows, columns = ranges
    steps = (rows.step, columns.step)
    if channels.step != 1 or rows.start or columns.start:
        raise NoLayer("an index that is no plain cut")
    whole = [-(-n // step) for n, step in zip(input.visible[1:], steps, strict=True)]
    if [len(rows), len(columns)] != whole:
        raise NoLayer("maps that are cut")
    value = part(b, input, channels.start, len(channels))
    return value if steps == (1, 1) else b.add(kinds.MaxPool((1, 1), steps), value)


RULES: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("contiguous", "clone", "detach", "to", "type", "float", "double"), same),
    **dict.fromkeys(("type_as", "data", "cuda", "cpu", "requires_grad"), same),
    **dict.fromkeys(("view", "reshape"), reshape),
    "flatten": flatten,
    "unflatten": unflatten,
    "squeeze": squeeze,
    "unsqueeze": unsqueeze,
    "permute": permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), transpose),
    **dict.fromkeys(("expand", "expand_as"), expand),
    "channel_shuffle": shuffle,
    "native_channel_shuffle": shuffle,
    "pad": pad,
    "interpolate": interpolate,
    "chunk": chunk,
    **dict.fromkeys(("split", "split_with_sizes"), split),
    "narrow": narrow,
    "__getitem__": getitem,
}
