"""Which images a network takes: the smallest, and the sizes at which every division comes out even.

A size is legal where every window has an output and every join meets. It divides exactly where,
besides, no window leaves out rows at its end and none hangs over it: (n + b + e − K) is a multiple
of the stride, n of it under `pad same`, and an adaptive pool's windows are all of one length. Each
axis is looked at alone, the other one as it is, and what is found is tried on the whole network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Any, TypeAlias

from lanewise.errors import SizeError
from lanewise.net.graph import Graph, Node
from lanewise.net.layers import (
    ADAPTIVE_POOLS,
    GLOBAL_POOLS,
    JOINS,
    WINDOW_POOLS,
    Conv,
    DepthwiseConv,
    Flatten,
    Foreign,
    Input,
    Layer,
    Linear,
    Pair,
    PartialConv,
    Pool,
    RadialBasis,
    TransposedConv,
    Upsample,
)
from lanewise.size.axis import Axis
from lanewise.size.conventions import TORCH, Convention, most_pad, transposed, window, words
from lanewise.size.reading import read
from lanewise.size.shapes import infer_shapes

#: No size beyond the smallest plus this is looked at.
FURTHEST = 4096
#: So many exact sizes are looked for.
MANY = 4

#: The size along the axis behind a layer, None for features; and whether it divides exactly.
Step: TypeAlias = tuple[int | None, bool]


class _Illegal(Exception):
    """No such size: of a window (then no smaller image fits either), or of a join."""

    def __init__(self, join: bool) -> None:
        self.join = join


@dataclass(frozen=True)
class Sizes:
    """Along one axis: the smallest legal size, and those that divide exactly, from the first on.

    `exact` are the first few; `every` is their distance, if it is always the same.
    """

    smallest: int
    exact: tuple[int, ...]
    every: int | None

    def beside(self, n: int) -> tuple[int, ...]:
        """The nearest exact sizes to n, n itself alone if it is one: at most one on each side."""
        if not self.exact:
            return ()
        if self.every is None:
            below = [one for one in self.exact if one <= n][-1:]
            above = [one for one in self.exact if one >= n][:1]
            return tuple(sorted({*below, *above}))
        first = self.exact[0]
        if n <= first:
            return (first,)
        rest = (n - first) % self.every
        return (n,) if not rest else (n - rest, n - rest + self.every)

    def as_json(self, n: int) -> dict[str, Any]:
        """`exact_beside`: the exact sizes next to n."""
        return {
            "smallest": self.smallest,
            "exact": list(self.exact),
            "exact_every": self.every,
            "exact_beside": list(self.beside(n)),
        }


def infer_inputs(graph: Graph, rule: Convention = TORCH) -> tuple[Sizes, Sizes]:
    """(heights, widths) of a network whose text this convention reads; the graph as it was written.

    SizeError as `read` where the network's own image is not legal.
    """
    infer_shapes(read(graph, rule))
    first = graph.nodes[0].layer
    assert isinstance(first, Input)
    heights = _sizes(graph, rule, 0, first.height)
    alike = first.height == first.width and all(_is_square(node.layer) for node in graph.nodes)
    widths = heights if alike else _sizes(graph, rule, 1, first.width)
    least = _together(graph, rule, (heights.smallest, widths.smallest))
    return replace(heights, smallest=least[0]), replace(widths, smallest=least[1])


def _together(graph: Graph, rule: Convention, least: Pair) -> Pair:
    """The smallest of both axes at once: features that join or are told apart may need more."""
    image = graph.nodes[0].layer
    assert isinstance(image, Input)
    height, width = least
    for more in range(max(image.height - height, image.width - width) + 1):
        sizes = min(height + more, image.height), min(width + more, image.width)
        try:
            infer_shapes(read(graph.with_input(Input(image.channels, *sizes)), rule))
        except SizeError:
            continue
        return sizes
    return image.height, image.width


def _is_square(layer: Layer) -> bool:
    """Whether a layer treats both axes alike."""
    pairs = ("kernel", "stride", "dilation", "size", "scale", "output_pad")
    fields = vars(layer)
    alike = all(
        len(set(fields[name])) == 1 for name in pairs if isinstance(fields.get(name), tuple)
    )
    pad = fields.get("pad")
    return alike and (not isinstance(pad, tuple) or pad[0] == pad[1])


def _sizes(graph: Graph, rule: Convention, axis: int, known: int) -> Sizes:
    smallest = _smallest(graph, rule, axis, known)
    exact = tuple(islice(_exact(graph, rule, axis, smallest), MANY))
    apart = {later - sooner for sooner, later in pairwise(exact)}
    every = apart.pop() if len(exact) == MANY and len(apart) == 1 else None
    return Sizes(smallest, exact, every)


def _smallest(graph: Graph, rule: Convention, axis: int, known: int) -> int:
    """Windows need a least size, found by halving; joins may fit at some sizes only."""
    low, high = 1, known
    while low < high:
        middle = (low + high) // 2
        if _legal(graph, rule, axis, middle, joins=False):
            high = middle
        else:
            low = middle + 1
    fitting = (n for n in range(low, known) if _legal(graph, rule, axis, n))
    return next((n for n in fitting if _is_network(graph, rule, axis, n)), known)


def _is_network(graph: Graph, rule: Convention, axis: int, n: int) -> bool:
    """Whether the whole network exists, the other axis being as it is."""
    image = graph.nodes[0].layer
    assert isinstance(image, Input)
    sizes = (n, image.width) if axis == 0 else (image.height, n)
    try:
        infer_shapes(read(graph.with_input(Input(image.channels, *sizes)), rule))
    except SizeError:
        return False
    return True


def _legal(graph: Graph, rule: Convention, axis: int, n: int, joins: bool = True) -> bool:
    try:
        for _ in _walk(graph, rule, axis, n):
            pass
    except _Illegal as problem:
        return problem.join and not joins
    return True


def _exact(graph: Graph, rule: Convention, axis: int, smallest: int) -> Iterator[int]:
    for n in range(smallest, smallest + FURTHEST):
        try:
            if all(_walk(graph, rule, axis, n)) and _is_network(graph, rule, axis, n):
                yield n
        except _Illegal:
            continue


def _walk(graph: Graph, rule: Convention, axis: int, n: int) -> Iterator[bool]:
    """Whether each layer divides exactly for an image of n; _Illegal where it cannot exist."""
    sizes: dict[str, int | None] = {}
    for node in graph.nodes:
        if isinstance(node.layer, Input):
            sizes[node.name] = n
            continue
        step = STEPS.get(type(node.layer), _alike)
        sizes[node.name], exact = step(rule, node, axis, [sizes[name] for name in node.inputs])
        yield exact


def _alike(rule: Convention, node: Node, axis: int, sizes: list[int | None]) -> Step:
    return sizes[0], True


def _window(rule: Convention, node: Node, axis: int, sizes: list[int | None]) -> Step:
    (n,), layer = sizes, node.layer
    assert n is not None
    assert isinstance(layer, Conv | DepthwiseConv | PartialConv | Pool)
    pool, pad = isinstance(layer, Pool), layer.pad
    kernel, stride = layer.kernel[axis], layer.stride[axis]
    dilation = 1 if isinstance(layer, Pool) else layer.dilation[axis]
    ceil = isinstance(layer, Pool) and layer.ceil
    written = pad if isinstance(pad, str) else pad[axis]
    moves = window(
        rule, n, kernel, stride, written, dilation, ceil, pool=pool, padded=pad not in NO_PADS
    )
    if moves.out < 1 or (pool and max(moves.begin, moves.end) > most_pad(rule, moves)):
        raise _Illegal(join=False)
    return moves.out, _divides(rule, moves, written, ceil)


def _divides(rule: Convention, moves: Axis, written: str | Pair, ceil: bool) -> bool:
    if rule.numbers == "words" and not isinstance(written, str):
        n, kernel, stride = moves.n, moves.kernel, moves.stride
        written = words(n, kernel, stride, written, moves.dilation, ceil)[0]
    if written == "same":
        return moves.n % moves.stride == 0
    return moves.unread == 0 and moves.overhang == 0


NO_PADS: tuple[object, ...] = ("valid", ((0, 0), (0, 0)))


def _transposed(rule: Convention, node: Node, axis: int, sizes: list[int | None]) -> Step:
    (n,), layer = sizes, node.layer
    assert n is not None
    assert isinstance(layer, TransposedConv)
    kernel, stride, pad = layer.kernel[axis], layer.stride[axis], layer.pad[axis]
    grown = transposed(rule, n, kernel, stride, pad, layer.dilation[axis], layer.output_pad[axis])
    if grown.out < 1:
        raise _Illegal(join=False)
    return grown.out, True


def _adaptive(rule: Convention, node: Node, axis: int, sizes: list[int | None]) -> Step:
    (n,), out = sizes, vars(node.layer)["size"][axis]
    assert n is not None
    if n % out and not rule.adaptive:
        raise _Illegal(join=True)
    return out, n % out == 0


def _one(rule: Convention, node: Node, axis: int, sizes: list[int | None]) -> Step:
    return 1, True


def _features(rule: Convention, node: Node, axis: int, sizes: list[int | None]) -> Step:
    return None, True


def _upsampled(rule: Convention, node: Node, axis: int, sizes: list[int | None]) -> Step:
    (n,), layer = sizes, node.layer
    assert n is not None
    assert isinstance(layer, Upsample)
    return n * layer.scale[axis], True


def _joined(rule: Convention, node: Node, axis: int, sizes: list[int | None]) -> Step:
    """One size, or one value beside it; that this must be a single pixel is tried later."""
    found = {size for size in sizes if size is not None}
    if len(found - {1}) > 1:
        raise _Illegal(join=True)
    return (max(found) if found else None), True


def _given(rule: Convention, node: Node, axis: int, sizes: list[int | None]) -> Step:
    """A foreign layer has the shape that it had, whatever it reads."""
    assert isinstance(node.layer, Foreign)
    output = node.layer.output
    return (output[1 + axis] if len(output) == 3 else None), True


# Kind → rule: (convention, node, axis, sizes of its inputs) → its size and whether it divides.
# What is not here leaves sizes alone.
STEPS: dict[type[Layer], Callable[..., Step]] = {
    **dict.fromkeys((Conv, DepthwiseConv, PartialConv, *WINDOW_POOLS), _window),
    TransposedConv: _transposed,
    **dict.fromkeys(ADAPTIVE_POOLS, _adaptive),
    **dict.fromkeys(GLOBAL_POOLS, _one),
    **dict.fromkeys((Flatten, Linear, RadialBasis), _features),
    Upsample: _upsampled,
    **dict.fromkeys(JOINS, _joined),
    Foreign: _given,
}
