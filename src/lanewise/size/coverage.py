"""What becomes of every row and column: which nobody reads, and which outputs see padding.

Along one axis a window reads rows of its layer's input. Followed forwards, this tells which outputs
of a layer depend on padding anywhere above it; followed backwards from the network's output, which
rows of a map, and in the end of the image, the result does not depend on at all. Both are sets of
positions, kept as the bits of an integer. The statistics of norms are not followed; a layer that
the notation does not have is taken to read everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from lanewise.net.graph import Graph, Node
from lanewise.net.layers import (
    ACTIVATIONS,
    ADAPTIVE_POOLS,
    GLOBAL_POOLS,
    JOINS,
    NOISES,
    NORMS,
    WINDOW_POOLS,
    AdaptivePool,
    ChannelPad,
    ChannelScale,
    ChannelShuffle,
    ChannelSplit,
    Conv,
    DepthwiseConv,
    Flatten,
    Foreign,
    Input,
    Layer,
    Linear,
    PartialConv,
    PReLU,
    RadialBasis,
    TransposedConv,
    Upsample,
)
from lanewise.size.axis import adaptive_windows
from lanewise.size.windows import Shape, Windowed, resolve_transposed, resolve_window

#: For each output along an axis, the positions of the input that it reads (others are padding).
Reads: TypeAlias = tuple[Sequence[int], ...]
#: (height, width) of sets of positions: bit i stands for position i.
Sets: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Coverage:
    """Of one layer's output, a map: `inner` (rows, columns) whose values depend on no padding, of
    its own or of a layer above, and `unused` (rows, columns) that the network's output does not
    depend on."""

    shape: Shape
    inner: tuple[int, int]
    unused: tuple[int, int]

    @property
    def padded_share(self) -> float:
        """The share of its values that depend on padding, 0 to 1."""
        _, height, width = self.shape
        return 1 - self.inner[0] * self.inner[1] / (height * width)


def infer_coverage(graph: Graph, shapes: Mapping[str, Shape]) -> dict[str, Coverage]:
    """Node name → coverage, for every node whose output is a map."""
    inner, used = _inner(graph, shapes), _used(graph, shapes)
    return {
        name: Coverage(shapes[name], _counts(sets), _missing(used[name], shapes[name]))
        for name, sets in inner.items()
        if sets is not None
    }


def _counts(sets: Sets) -> tuple[int, int]:
    return sets[0].bit_count(), sets[1].bit_count()


def _missing(sets: Sets, shape: Shape) -> tuple[int, int]:
    rows, columns = _counts(sets)
    return shape[1] - rows, shape[2] - columns


def _whole(shape: Shape) -> Sets:
    return (1 << shape[1]) - 1, (1 << shape[2]) - 1


# ---- forwards ------------------------------------------------------------------------------------


def _inner(graph: Graph, shapes: Mapping[str, Shape]) -> dict[str, Sets | None]:
    """The positions that depend on no padding; None for features."""
    inner: dict[str, Sets | None] = {}
    for node in graph.nodes:
        shape = shapes[node.name]
        inputs = [(inner[name], shapes[name]) for name in node.inputs]
        inner[node.name] = None if len(shape) != 3 else _inner_of(node, shape, inputs)
    return inner


def _inner_of(node: Node, shape: Shape, inputs: list[tuple[Sets | None, Shape]]) -> Sets:
    rows, columns = _whole(shape)
    for sets, in_shape in inputs:
        if sets is None:
            continue
        if isinstance(node.layer, Foreign):
            rows, columns = (0, 0) if sets != _whole(in_shape) else (rows, columns)
            continue
        if in_shape[1:] == (1, 1) != shape[1:] and isinstance(node.layer, JOINS):
            alone = sets == (1, 1)  # every pixel sees it
            rows, columns = rows * alone, columns * alone
            continue
        rows &= _forward(_reads(node.layer, in_shape, 0), sets[0], in_shape[1])
        columns &= _forward(_reads(node.layer, in_shape, 1), sets[1], in_shape[2])
    return rows, columns


def _forward(reads: Reads | None, inner: int, n: int) -> int:
    return inner if reads is None else _kept(reads, inner, n)


@lru_cache(maxsize=2048)
def _kept(reads: Reads, inner: int, n: int) -> int:
    """The outputs all of whose positions are in the set."""
    outputs = 0
    for output, mask in enumerate(_masks(reads, n)):
        read = reads[output]
        inside = not read or (read[0] >= 0 and read[-1] < n)
        outputs |= (inside and not mask & ~inner) << output
    return outputs


# ---- backwards -----------------------------------------------------------------------------------


def _used(graph: Graph, shapes: Mapping[str, Shape]) -> dict[str, Sets]:
    """The positions that the output depends on."""
    used = {node.name: (0, 0) for node in graph.nodes}
    if len(shapes[graph.output.name]) == 3:
        used[graph.output.name] = _whole(shapes[graph.output.name])
    for node in reversed(graph.nodes):
        for name in node.inputs:
            if len(shapes[name]) == 3:
                here = _used_by(node, used[node.name], shapes[name], shapes[node.name])
                used[name] = (used[name][0] | here[0], used[name][1] | here[1])
    return used


def _used_by(node: Node, used: Sets, in_shape: Shape, shape: Shape) -> Sets:
    if len(shape) != 3 or isinstance(node.layer, Foreign):
        return _whole(in_shape)
    if in_shape[1:] == (1, 1) != shape[1:] and isinstance(node.layer, JOINS):
        return int(used[0] > 0), int(used[1] > 0)
    rows, columns = (
        _backward(_reads(node.layer, in_shape, axis), used[axis], in_shape[1 + axis])
        for axis in (0, 1)
    )
    return rows, columns


def _backward(reads: Reads | None, used: int, n: int) -> int:
    return used if reads is None else _gathered(reads, used, n)


@lru_cache(maxsize=2048)
def _gathered(reads: Reads, used: int, n: int) -> int:
    """All positions that the outputs of the set read."""
    positions = 0
    for output, mask in enumerate(_masks(reads, n)):
        if used >> output & 1:
            positions |= mask
    return positions


@lru_cache(maxsize=1024)
def _masks(reads: Reads, n: int) -> tuple[int, ...]:
    return tuple(_mask(at for at in read if 0 <= at < n) for read in reads)


def _mask(positions: Iterable[int]) -> int:
    mask = 0
    for position in positions:
        mask |= 1 << position
    return mask


# ---- what each kind reads ------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _reads(layer: Layer, in_shape: Shape, axis: int) -> Reads | None:
    return READS[type(layer)](layer, in_shape, axis)


def _alike(layer: Layer, in_shape: Shape, axis: int) -> None:
    """Output i reads position i."""


def _window(layer: Windowed, in_shape: Shape, axis: int) -> Reads:
    return resolve_window(layer, in_shape).axes[axis].reads


def _transposed(layer: TransposedConv, in_shape: Shape, axis: int) -> Reads:
    """Who writes each output: the convolution that it is the gradient of, turned round."""
    moves = resolve_transposed(layer, in_shape).axes[axis]
    readers: list[list[int]] = [[] for _ in range(moves.n)]
    for value, read in enumerate(moves.reads):
        for output in read:
            if 0 <= output < moves.n:
                readers[output].append(value)
    return tuple(map(tuple, readers))


def _adaptive(layer: AdaptivePool, in_shape: Shape, axis: int) -> Reads:
    return tuple(range(*ends) for ends in adaptive_windows(in_shape[1 + axis], layer.size[axis]))


def _everything(layer: Layer, in_shape: Shape, axis: int) -> Reads:
    return (range(in_shape[1 + axis]),)


def _upsampled(layer: Upsample, in_shape: Shape, axis: int) -> Reads:
    """Bilinear values lie between two pixels, at the border on one."""
    n, scale = in_shape[1 + axis], layer.scale[axis]
    if not layer.bilinear or scale == 1:
        return tuple(range(i // scale, i // scale + 1) for i in range(n * scale))
    firsts = ((2 * i + 1 - scale) // (2 * scale) for i in range(n * scale))
    return tuple(range(max(0, first), min(n, first + 2)) for first in firsts)


def _features(layer: Layer, in_shape: Shape, axis: int) -> Reads | None:
    raise AssertionError(f"{layer.word} has no rows")


# Kind → rule: (layer, input shape, axis) → what each output reads, or None for its own position.
READS: dict[type[Layer], Callable[..., Reads | None]] = {
    Input: _features,
    **dict.fromkeys((Conv, DepthwiseConv, PartialConv, *WINDOW_POOLS), _window),
    TransposedConv: _transposed,
    **dict.fromkeys(ADAPTIVE_POOLS, _adaptive),
    **dict.fromkeys(GLOBAL_POOLS, _everything),
    **dict.fromkeys((Flatten, Linear, RadialBasis), _features),
    **dict.fromkeys((*ACTIVATIONS, PReLU, *NORMS, ChannelScale), _alike),
    **dict.fromkeys((ChannelShuffle, ChannelSplit, ChannelPad), _alike),
    Upsample: _upsampled,
    **dict.fromkeys((*NOISES, *JOINS), _alike),
    Foreign: _features,
}
