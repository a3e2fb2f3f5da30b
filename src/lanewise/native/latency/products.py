"""Rules for convolutions and full connections of one image: output channels in the lanes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from lanewise.native.fuse import Operation
from lanewise.native.kernels import depthwise, image_products
from lanewise.native.kernels.image_products import ImageCorrelation, ImageTile
from lanewise.native.kernels.in_lanes import parameters_in_lanes
from lanewise.native.kernels.taps import LONGEST_LINE, Taps, forward_taps, gradient_taps, joined
from lanewise.native.latency.columns import convolution_in_columns, fits_columns
from lanewise.native.latency.planner import (
    VECTOR,
    Ending,
    ImagePlanner,
    moved,
    size_of,
    vectors_of,
)
from lanewise.native.latency.tiles import connection_vectors, cut, product_tile
from lanewise.native.latency.winograd import chosen, convolution_by_winograd
from lanewise.native.nest import LANES
from lanewise.native.plan import FLOAT, Region, Slot
from lanewise.native.rules.windows import taps, transposed_taps
from lanewise.native.tiles import map_tile
from lanewise.net.layers import Conv, DepthwiseConv, Linear, PartialConv, TransposedConv


@dataclass(frozen=True)
class Block:
    """Neighbouring blocks of output channels that read the same source channels."""

    first: int  # vector
    vectors: int
    count: int
    begin: int  # source channel
    channels: int


# ---- convolutions -------------------------------------------------------------------------------


def convolution(plan: ImagePlanner, operation: Operation) -> None:
    """A convolution of any kind: vectors of kernels that read the channels their groups see."""
    rows, columns = _taps(operation)
    source, shape = operation.inputs[0], operation.input_shapes[0]
    whole = shape == plan.by_name[source].shape
    groups = _groups(operation)
    planes = plan.planes(source) if whole and groups == 1 else None
    lanes = 1 if planes else LANES
    value = planes.slot if planes else plan.read(source, shape)
    pitch = planes.pitch if planes else shape[2]
    if pitch == shape[2]:
        rows, columns = joined(rows, columns, LONGEST_LINE)
        pitch = columns.source
    alike = _alike(operation.shape[0], groups)
    taken = rows.pairs * columns.pairs * shape[0] // groups * operation.shape[0]
    vectors, wide = product_tile(plan.target, alike, columns, taken)
    plan_blocks = list(_blocks(operation.shape[0], shape[0], groups, vectors, lanes))
    ending = plan.ending(operation)
    for number, block in enumerate(plan_blocks):
        sizes = ImageCorrelation(block.vectors, block.channels, lanes, rows, columns, pitch)
        last = number == len(plan_blocks) - 1
        _correlate(plan, operation, value, block, sizes, wide, ending, last)


def _correlate(
    plan: ImagePlanner,
    operation: Operation,
    source: Slot,
    block: Block,
    sizes: ImageCorrelation,
    columns: int,
    ending: Ending,
    barrier: bool,
) -> None:
    tile = ImageTile(columns, _groups_together(sizes))
    map_bytes = prod(operation.shape[1:]) * VECTOR
    begin = block.begin // LANES * prod(operation.input_shapes[0][1:]) * VECTOR
    weight, bias = _weights(plan, operation, block, sizes)
    maps = [
        (moved(slot, block.first * map_bytes), block.vectors * map_bytes)
        for slot in (*ending.summands, ending.target)
    ]
    relu, adds = ending.relu, bool(ending.summands)
    plan.tasks(
        "image_conv",
        (sizes, tile, relu, adds),
        lambda name: image_products.correlate(name, sizes, tile, relu=relu, adds=adds),
        block.count,
        (moved(source, begin), 0),
        (weight, prod(sizes.weight_shape) * FLOAT),
        (bias, block.vectors * VECTOR),
        *maps,
        barrier=barrier,
    )


def _weights(
    plan: ImagePlanner, operation: Operation, block: Block, sizes: ImageCorrelation
) -> tuple[Region, Region]:
    """The kernels of the blocks, and their biases."""
    norm = operation.norm[0] if operation.norm else ""
    total, kernels = vectors_of(operation.shape), operation.shape[0]
    weight = plan.pack(
        "kernels",
        operation.node,
        (block.count, *sizes.weight_shape),
        block.first * LANES,
        block.count,
        block.vectors,
        block.begin,
        block.channels,
        sizes.lanes,
        norm=norm,
    )
    bias = plan.pack("bias", operation.node, (total, LANES), kernels, total, norm=norm)
    return weight, moved(bias, block.first * VECTOR)


#: bytes of weights that a pass over the pixels should find in the first cache
WEIGHT_BYTES = 32 << 10


def _groups_together(sizes: ImageCorrelation) -> int:
    """Vectors of source channels whose weights stay in the first cache."""
    one = prod(sizes.weight_shape) // sizes.groups * FLOAT
    return max(1, WEIGHT_BYTES // one)


def _blocks(kernels: int, channels: int, groups: int, vectors: int, lanes: int) -> Iterator[Block]:
    """All blocks of output channels. With groups, each reads the channels of the groups it meets,
    from a multiple of 16 on; its weights are zero where a kernel does not see a channel."""
    total = -(-kernels // LANES)
    if groups == 1:
        whole, rest = divmod(total, vectors)
        if whole:
            yield Block(0, vectors, whole, 0, channels)
        if rest:
            yield Block(whole * vectors, rest, 1, 0, channels)
        return
    each, seen = kernels // groups, channels // groups
    alike = _alike(kernels, groups)
    first = 0
    while first < total:
        count = min(vectors, alike - first % alike, total - first)
        last = min(kernels, (first + count) * LANES) - 1
        begin = first * LANES // each * seen // lanes * lanes
        end = (last // each + 1) * seen
        yield Block(first, count, 1, begin, end - begin)
        first += count


def _alike(kernels: int, groups: int) -> int:
    """Neighbouring vectors of kernels that see the same channels."""
    each = kernels // groups
    return -(-each // LANES) if groups == 1 or each % LANES == 0 else 1


def _groups(operation: Operation) -> int:
    layer = operation.layer
    if isinstance(layer, DepthwiseConv):
        return operation.input_shapes[0][0]
    return layer.groups if isinstance(layer, Conv | TransposedConv) else 1


def _taps(operation: Operation) -> tuple[Taps, Taps]:
    layer = operation.layer
    if not isinstance(layer, TransposedConv):
        assert isinstance(layer, Conv | DepthwiseConv | PartialConv)
        return taps(operation, forward_taps)
    return transposed_taps(operation, gradient_taps)


def depthwise_convolution(plan: ImagePlanner, operation: Operation) -> None:
    """Each channel by itself: the kernel of sixteen images, with weights in lanes. With several
    kernels a channel, or where that kernel is not written out, as one with groups."""
    layer = operation.layer
    assert isinstance(layer, Conv | DepthwiseConv)
    rows, columns = _taps(operation)
    tile = map_tile(plan.target, rows, columns)
    same = operation.shape[0] == operation.input_shapes[0][0] == _groups(operation)
    if not same or tile is None:
        convolution(plan, operation)
        return
    vectors = vectors_of(operation.shape)
    norm = operation.norm[0] if operation.norm else ""
    area, count = rows.taps * columns.taps, vectors
    sizes = depthwise.Depthwise(1, 1, 1, rows, columns)
    weight = plan.pack("depthwise", operation.node, (vectors, area, LANES), vectors, norm=norm)
    bias = plan.pack(
        "bias", operation.node, (vectors, LANES), operation.shape[0], vectors, norm=norm
    )
    plan.tasks(
        "image_depthwise",
        (sizes, tile, operation.relu),
        lambda name: parameters_in_lanes(
            depthwise.correlate(name, sizes, tile, bias=True, relu=operation.relu),
            ("weight", "bias"),
        ),
        count,
        (
            plan.read(operation.inputs[0], operation.input_shapes[0]),
            size_of(operation.input_shapes[0])[1] * VECTOR,
        ),
        (weight, area * VECTOR),
        (bias, VECTOR),
        (plan.value(operation.name), size_of(operation.shape)[1] * VECTOR),
    )


def any_convolution(plan: ImagePlanner, operation: Operation) -> None:
    """A convolution: with columns in the lanes where it has few kernels, as a depthwise one where
    each channel is a group, else with kernels in the lanes."""
    if fits_columns(plan, operation):
        convolution_in_columns(plan, operation)
    elif _groups(operation) == operation.input_shapes[0][0] > 1:
        depthwise_convolution(plan, operation)
    elif algorithm := chosen(operation, plan):
        convolution_by_winograd(plan, operation, algorithm)
    else:
        convolution(plan, operation)


# ---- full connections ---------------------------------------------------------------------------


def connection(plan: ImagePlanner, operation: Operation) -> None:
    """Outputs in the lanes. Inputs are read in the order in which they lie in memory, so a value
    that was flattened need not be rearranged."""
    layer = operation.layer
    assert isinstance(layer, Linear)
    name = operation.inputs[0]
    shape = plan.by_name[name].shape
    planes = plan.planes(name)
    if planes and planes.pitch != shape[-1]:
        planes, shape = None, operation.input_shapes[0]
    lanes = 1 if planes else LANES
    source = planes.slot if planes else plan.read(name, shape)
    total, features = vectors_of(operation.shape), layer.features
    bias = plan.pack("bias", operation.node, (total, LANES), features, total)
    for first, vectors, count in cut(total, connection_vectors(plan.target, total)):
        block = Block(first, vectors, count, 0, shape[0])
        _connect(plan, operation, source, bias, block, (*size_of(shape), lanes))


def _connect(
    plan: ImagePlanner,
    operation: Operation,
    source: Slot,
    bias: Region,
    block: Block,
    lie: tuple[int, int, int],
) -> None:
    """Blocks of outputs. `lie`: how the inputs do: channels, pixels, lanes."""
    channels, pixels, lanes = lie
    inputs = -(-channels // lanes) * lanes * pixels
    first, vectors, count, relu = block.first, block.vectors, block.count, operation.relu
    shape = (count, inputs, vectors, LANES)
    weight = plan.pack(
        "connection", operation.node, shape, first * LANES, count, vectors, channels, pixels, lanes
    )
    plan.tasks(
        "image_linear",
        (inputs, vectors, relu),
        lambda name: image_products.connect(name, inputs, vectors, relu=relu),
        count,
        (source, 0),
        (weight, inputs * vectors * VECTOR),
        (moved(bias, first * VECTOR), vectors * VECTOR),
        (moved(plan.value(operation.name), first * VECTOR), vectors * VECTOR),
        barrier=first + vectors * count == vectors_of(operation.shape),
    )
