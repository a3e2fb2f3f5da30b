"""The shape of every layer's output, or an error that says why there is none and what to change.

A shape is channels × height × width, or a single number of features after `flatten`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd, prod

from lanewise.errors import SizeError
from lanewise.net.graph import Graph, Node
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
    Pool,
    PReLU,
    RadialBasis,
    TransposedConv,
    Upsample,
)
from lanewise.size.joins import Mismatch, concat_shape, elementwise_shape
from lanewise.size.wanted import check_wants, require_solved
from lanewise.size.windows import (
    Shape,
    Window,
    Windowed,
    check_pool_pad,
    conv_of,
    require_maps,
    resolve_transposed,
    resolve_window,
    show_shape,
)

__all__ = [
    "SHAPES",
    "Shape",
    "Window",
    "Windowed",
    "conv_of",
    "infer_shapes",
    "resolve_transposed",
    "resolve_window",
    "show_shape",
]


def infer_shapes(graph: Graph) -> dict[str, Shape]:
    """Node name → output shape, for every node. SizeError: `lenet.net:7 conv2: input …; use …`.
    NetError where a `?` stands for a number."""
    require_solved(graph)
    shapes: dict[str, Shape] = {}
    for node in graph.nodes:
        shapes[node.name] = output_shape(graph, node, [shapes[name] for name in node.inputs])
    check_wants(graph, shapes)
    return shapes


def output_shape(graph: Graph, node: Node, inputs: Sequence[Shape]) -> Shape:
    """The shape of one node's output. SizeError as `infer_shapes`."""
    rules = SHAPES if graph.convention == "torch" else ELSEWHERE
    try:
        return rules[type(node.layer)](node.layer, *inputs)
    except Mismatch as error:
        places = [_whereabouts(graph.node(name)) for name in node.inputs]
        readers = sum(node.inputs[-1] in other.inputs for other in graph.nodes)
        told = error.told(node.inputs, places, shortcut=readers > 1)
        raise SizeError(f"{graph.place(node)}: {told}") from None
    except SizeError as error:
        raise SizeError(f"{graph.place(node)}: {error}") from None


def _whereabouts(node: Node) -> str:
    """`conv2`, and where it was written: `conv2 (line 7)`, `conv2 (line 7, called in line 20)`."""
    if not node.line:
        return node.name
    calls = "".join(f", called in line {line}" for _, line in reversed(node.within))
    return f"{node.name} (line {node.line}{calls})"


def _input_shape(layer: Input) -> Shape:
    return (layer.channels, layer.height, layer.width)


def _conv_shape(layer: Conv, in_shape: Shape) -> Shape:
    _check_groups(layer, in_shape)
    return (layer.kernels, *resolve_window(layer, in_shape).out)


def _transposed_shape(layer: TransposedConv, in_shape: Shape) -> Shape:
    _check_groups(layer, in_shape)
    return (layer.kernels, *(axis.n for axis in resolve_transposed(layer, in_shape).axes))


def _check_groups(layer: Conv | TransposedConv, in_shape: Shape) -> None:
    require_maps(layer, in_shape)
    for count, what in ((in_shape[0], "channels of the input"), (layer.kernels, "kernels")):
        if count % layer.groups:
            raise SizeError(
                f"input {show_shape(in_shape)}, {layer.kernels} kernels: {layer.groups} groups do "
                f"not divide the {count} {what}; use groups "
                f"{_or(_divisors(gcd(in_shape[0], layer.kernels)))}"
            )


def _depthwise_shape(layer: DepthwiseConv, in_shape: Shape) -> Shape:
    return (in_shape[0] * layer.multiplier, *resolve_window(layer, in_shape).out)


def _partial_shape(layer: PartialConv, in_shape: Shape) -> Shape:
    require_maps(layer, in_shape)
    for kernel, maps in enumerate(layer.table):
        for one in maps:
            if not 0 <= one < in_shape[0]:
                raise SizeError(
                    f"input {show_shape(in_shape)}: kernel {kernel} reads map {one}, which does "
                    f"not exist; use maps 0 to {in_shape[0] - 1}"
                )
    return (len(layer.table), *resolve_window(layer, in_shape).out)


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def _or(numbers: list[int]) -> str:
    return " or ".join(", ".join(map(str, numbers)).rsplit(", ", 1))


def _pool_shape(layer: Pool, in_shape: Shape) -> Shape:
    check_pool_pad(layer, in_shape)
    return _read_pool_shape(layer, in_shape)


def _read_pool_shape(layer: Pool, in_shape: Shape) -> Shape:
    return (in_shape[0], *resolve_window(layer, in_shape).out)


def _adaptive_shape(layer: AdaptivePool, in_shape: Shape) -> Shape:
    require_maps(layer, in_shape)
    return (in_shape[0], *layer.size)


def _global_shape(layer: Layer, in_shape: Shape) -> Shape:
    require_maps(layer, in_shape)
    return (in_shape[0], 1, 1)


def _flat_shape(layer: Flatten, in_shape: Shape) -> Shape:
    return (prod(in_shape),)


def _radial_shape(layer: RadialBasis, in_shape: Shape) -> Shape:
    shape = _features_shape(layer, in_shape)
    least = (layer.features - 1).bit_length()
    if in_shape[0] < least:
        raise SizeError(
            f"input {show_shape(in_shape)}: so few features of ±1 cannot tell {layer.features} "
            f"outputs apart; use rbf <= {1 << in_shape[0]} or features >= {least}"
        )
    return shape


def _features_shape(layer: Linear | RadialBasis, in_shape: Shape) -> Shape:
    if len(in_shape) != 1:
        raise SizeError(
            f"input {show_shape(in_shape)} is not flat, and {layer.word} needs one row of "
            "features; put `flatten` before it"
        )
    return (layer.features,)


def _same_shape(layer: Layer, in_shape: Shape) -> Shape:
    return in_shape


def _same_maps(layer: Layer, in_shape: Shape) -> Shape:
    require_maps(layer, in_shape)
    return in_shape


def _grouped_shape(layer: GroupNorm | ChannelShuffle, in_shape: Shape) -> Shape:
    require_maps(layer, in_shape)
    if in_shape[0] % layer.groups:
        raise SizeError(
            f"input {show_shape(in_shape)}: {layer.groups} groups do not divide the {in_shape[0]} "
            f"channels; use {layer.word} {_or(_divisors(in_shape[0]))}"
        )
    return in_shape


def _split_shape(layer: ChannelSplit, in_shape: Shape) -> Shape:
    require_maps(layer, in_shape)
    if layer.part > layer.of:
        raise SizeError(f"there is no part {layer.part} of {layer.of}; use part 1 to {layer.of}")
    if in_shape[0] % layer.of:
        raise SizeError(
            f"input {show_shape(in_shape)}: {layer.of} parts do not divide the {in_shape[0]} "
            f"channels; use {_or(_divisors(in_shape[0]))} parts"
        )
    return (in_shape[0] // layer.of, *in_shape[1:])


def _padded_channels(layer: ChannelPad, in_shape: Shape) -> Shape:
    require_maps(layer, in_shape)
    return (layer.before + in_shape[0] + layer.after, *in_shape[1:])


def _as_found(layer: Foreign, *in_shapes: Shape) -> Shape:
    return layer.output


def _upsampled(layer: Upsample, in_shape: Shape) -> Shape:
    require_maps(layer, in_shape)
    return (in_shape[0], in_shape[1] * layer.scale[0], in_shape[2] * layer.scale[1])


# Kind → rule: (layer, input shape…) → output shape.
SHAPES: dict[type[Layer], Callable[..., Shape]] = {
    Input: _input_shape,
    Conv: _conv_shape,
    DepthwiseConv: _depthwise_shape,
    PartialConv: _partial_shape,
    TransposedConv: _transposed_shape,
    **dict.fromkeys(WINDOW_POOLS, _pool_shape),
    **dict.fromkeys(ADAPTIVE_POOLS, _adaptive_shape),
    **dict.fromkeys(GLOBAL_POOLS, _global_shape),
    Flatten: _flat_shape,
    Linear: _features_shape,
    RadialBasis: _radial_shape,
    **dict.fromkeys(ACTIVATIONS, _same_shape),
    PReLU: _same_shape,
    BatchNorm: _same_shape,
    LayerNorm: _same_shape,
    GroupNorm: _grouped_shape,
    LocalResponseNorm: _same_maps,
    ChannelScale: _same_shape,
    ChannelShuffle: _grouped_shape,
    ChannelSplit: _split_shape,
    ChannelPad: _padded_channels,
    Upsample: _upsampled,
    **dict.fromkeys(NOISES, _same_shape),
    Add: elementwise_shape,
    Multiply: elementwise_shape,
    Concat: concat_shape,
    Foreign: _as_found,
}

# The same for what was read by another convention, which has its own bound on a pool's padding.
ELSEWHERE: dict[type[Layer], Callable[..., Shape]] = {
    **SHAPES,
    **dict.fromkeys(WINDOW_POOLS, _read_pool_shape),
}
