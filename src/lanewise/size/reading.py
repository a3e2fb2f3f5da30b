"""A text read by another convention: the same network with every padding as plain numbers.

`read` goes through a graph that was parsed, asks `conventions` how each window would lie, and
writes that down as Lanewise itself means it. What comes out is an ordinary graph: sizes, the engine
and PyTorch take it as any other.

    conv 64 k7 stride2 pad3      keras, on 224 pixels      conv 64 k7 stride2 pad 2:3
    maxpool 3 stride2            caffe                     maxpool 3 stride2 ceil
    avgpool 3 stride1 pad1       onnx                      avgpool 3 stride1 pad1 unpadded
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from lanewise.errors import SizeError
from lanewise.net.graph import Graph, Node
from lanewise.net.layers import (
    ADAPTIVE_POOLS,
    NO_PAD,
    WINDOW_POOLS,
    AdaptivePool,
    AvgPool,
    Conv,
    DepthwiseConv,
    Layer,
    PartialConv,
    Pool,
    TransposedConv,
)
from lanewise.net.values import PAIR
from lanewise.size.axis import Axis
from lanewise.size.conventions import (
    TORCH,
    Convention,
    Grown,
    Word,
    Written,
    adaptive,
    most_pad,
    transposed,
    window,
    words,
)
from lanewise.size.shapes import output_shape
from lanewise.size.wanted import require_solved
from lanewise.size.windows import Shape, Windowed, require_maps

Reading: TypeAlias = Callable[..., Layer]


def read(graph: Graph, rule: Convention) -> Graph:
    """The network as this convention reads it. SizeError, with a place, for what it cannot say and
    for layers that cannot exist."""
    if rule is TORCH or graph.convention == rule.name:
        return graph
    nodes, problem = read_until(graph, rule)
    if problem:
        raise problem
    return replace(graph, nodes=nodes, convention=rule.name)


def read_until(graph: Graph, rule: Convention) -> tuple[tuple[Node, ...], SizeError | None]:
    """As many nodes, from the first, as can be read, and what is wrong with the next, if one is."""
    require_solved(graph)
    own = graph if rule is TORCH else replace(graph, convention=rule.name)
    shapes: dict[str, Shape] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = [shapes[name] for name in node.inputs]
        try:
            node = _read_node(own, node, rule, inputs)
            shapes[node.name] = output_shape(own, node, inputs)
        except SizeError as problem:
            return tuple(nodes), problem
        nodes.append(node)
    return tuple(nodes), None


def _read_node(graph: Graph, node: Node, rule: Convention, inputs: list[Shape]) -> Node:
    try:
        return replace(node, layer=read_layer(rule, node.layer, *inputs))
    except SizeError as error:
        raise SizeError(f"{graph.place(node)}: {error}") from None


def read_layer(rule: Convention, layer: Layer, *in_shapes: Shape) -> Layer:
    """One layer over inputs of these shapes. SizeError (without a place) if it cannot be said."""
    reading = READINGS.get(type(layer))
    if reading is None or rule is TORCH:
        return layer
    return reading(rule, layer, *in_shapes)


def zeros_around(rule: Convention, layer: Layer, in_shape: Shape) -> bool:
    """Whether the padding is no word of Keras', so that its users lay zeros around the input."""
    if rule.numbers != "words" or not isinstance(layer, Windowed) or isinstance(layer.pad, str):
        return False
    return _common_word(layer, in_shape) == "zeros" and layer.pad != NO_PAD


def _windowed(rule: Convention, layer: Windowed, in_shape: Shape) -> Layer:
    height, width = _axes(rule, layer, in_shape)
    return replace(layer, pad=((height.begin, height.end), (width.begin, width.end)))


def _pooled(rule: Convention, layer: Pool, in_shape: Shape) -> Layer:
    """With Caffe's windows behind the image as padding at the end, where there are any."""
    axes = height, width = _axes(rule, layer, in_shape)
    _check_pads(rule, axes)
    ceil = height.ceil and not _stands_behind(axes)
    ends = [axis.end + (0 if ceil else axis.overhang) for axis in axes]
    pad = (height.begin, ends[0]), (width.begin, ends[1])
    changed = replace(layer, pad=pad, ceil=ceil)
    if isinstance(changed, AvgPool) and not rule.counts and any(map(any, pad)):
        return replace(
            changed, unpadded=changed.unpadded or not zeros_around(rule, layer, in_shape)
        )
    return changed


def _stands_behind(axes: tuple[Axis, Axis]) -> bool:
    """Whether PyTorch would drop a window that stays here."""
    return any(axis.keeps and replace(axis, keeps=False).out != axis.out for axis in axes)


def _axes(rule: Convention, layer: Windowed, in_shape: Shape) -> tuple[Axis, Axis]:
    require_maps(layer, in_shape)
    word = _common_word(layer, in_shape) if rule.numbers == "words" else None
    height, width = (
        window(
            rule,
            n,
            layer.kernel[axis],
            layer.stride[axis],
            written(layer, axis),
            _dilation(layer, axis),
            isinstance(layer, Pool) and layer.ceil,
            pool=isinstance(layer, Pool),
            padded=not isinstance(layer.pad, str) and any(layer.pad[1 - axis]),
            word=word,
        )
        for axis, n in enumerate(in_shape[1:])
    )
    return height, width


def _common_word(layer: Windowed, in_shape: Shape) -> Word | None:
    """What Keras calls the padding of both axes: it has one word for them."""
    if isinstance(layer.pad, str):
        return None
    height, width = (
        words(
            n,
            layer.kernel[axis],
            layer.stride[axis],
            layer.pad[axis],
            _dilation(layer, axis),
            isinstance(layer, Pool) and layer.ceil,
        )
        for axis, n in enumerate(in_shape[1:])
    )
    return next(word for word in height if word in width)


def written(layer: Windowed | TransposedConv, axis: int) -> Written:
    """The padding of one axis as the text has it."""
    return layer.pad if isinstance(layer.pad, str) else layer.pad[axis]


def _dilation(layer: Windowed, axis: int) -> int:
    return 1 if isinstance(layer, Pool) else layer.dilation[axis]


def _check_pads(rule: Convention, axes: tuple[Axis, Axis]) -> None:
    for axis in axes:
        if max(axis.begin, axis.end) > most_pad(rule, axis):
            raise SizeError(
                f"pad {axis.begin}:{axis.end} is more than {rule.name} allows beside a window of "
                f"{axis.kernel}; use pad <= {most_pad(rule, axis)}"
            )


def _transposed(rule: Convention, layer: TransposedConv, in_shape: Shape) -> Layer:
    require_maps(layer, in_shape)
    height, width = (_grown(rule, layer, axis, n) for axis, n in enumerate(in_shape[1:]))
    return replace(
        layer,
        pad=((height.begin, height.end), (width.begin, width.end)),
        output_pad=(height.output_pad, width.output_pad),
    )


def _grown(rule: Convention, layer: TransposedConv, axis: int, n: int) -> Grown:
    kernel, stride, pad = layer.kernel[axis], layer.stride[axis], layer.pad[axis]
    return transposed(rule, n, kernel, stride, pad, layer.dilation[axis], layer.output_pad[axis])


def _adaptive(rule: Convention, layer: AdaptivePool, in_shape: Shape) -> Layer:
    require_maps(layer, in_shape)
    for n, out in zip(in_shape[1:], layer.size, strict=True):
        try:
            adaptive(rule, n, out)
        except SizeError as error:
            raise SizeError(f"size {PAIR.show(layer.size)}: {error}") from None
    return layer


# Kind → rule: (convention, layer, input shape) → the layer with plain numbers.
READINGS: dict[type[Layer], Reading] = {
    **dict.fromkeys((Conv, DepthwiseConv, PartialConv), _windowed),
    **dict.fromkeys(WINDOW_POOLS, _pooled),
    TransposedConv: _transposed,
    **dict.fromkeys(ADAPTIVE_POOLS, _adaptive),
}
