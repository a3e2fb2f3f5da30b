"""The rule for a first convolution with few kernels: output columns in the lanes.

A max pool of 2 × 2 that follows is taken along.
"""

from __future__ import annotations

from math import prod

from lanewise.native.fuse import Operation
from lanewise.native.kernels import image_columns
from lanewise.native.kernels.image_columns import Columns
from lanewise.native.latency.planner import ImagePlanner, Planes, call_with_image
from lanewise.native.latency.tiles import accumulators
from lanewise.native.nest import LANES
from lanewise.native.plan import FLOAT, Slot
from lanewise.native.rules.windows import window
from lanewise.net.layers import Conv, MaxPool

#: with more kernels, vectors of kernels are full enough
MOST_KERNELS = 11


def fits_columns(plan: ImagePlanner, operation: Operation) -> bool:
    """Whether a convolution slides over the image step by step, with few kernels."""
    layer, source = operation.layer, operation.inputs[0]
    return (
        isinstance(layer, Conv)
        and source == plan.image
        and operation.input_shapes[0] == plan.by_name[source].shape
        and layer.kernels <= MOST_KERNELS
        and (layer.stride, layer.dilation, layer.groups) == ((1, 1), (1, 1), 1)
        and operation.shape[2] >= LANES // 2
    )


def _pool(plan: ImagePlanner, operation: Operation) -> Operation | None:
    """A max pool of 2 × 2 that alone reads the convolution."""
    reader = plan.reader(operation.name)
    if reader is None or not isinstance(reader.layer, MaxPool):
        return None
    moves = window(reader)
    halved = tuple(size // 2 for size in operation.shape[1:])
    fits = (
        (moves.kernel, moves.stride) == ((2, 2), (2, 2))
        and not any(moves.pad[0] + moves.pad[1])
        and reader.shape[1:] == halved
        and reader.input_shapes[0] == operation.shape
    )
    return reader if fits else None


def convolution_in_columns(plan: ImagePlanner, operation: Operation) -> None:
    """The image spread, then the convolution, and the pool that follows it."""
    pool = _pool(plan, operation)
    sizes = _sizes(operation, 2 if pool else 1)
    result = pool or operation
    relu = operation.relu or result.relu
    spread = plan.lasting(f"spread {operation.name}", prod(sizes.spread_shape) * FLOAT)
    call_with_image(
        plan,
        "spread",
        sizes,
        lambda name, dtype: image_columns.spread_image(name, sizes, dtype),
        spread,
    )
    norm = operation.norm[0] if operation.norm else ""
    shape = (sizes.kernels, sizes.channels, *sizes.kernel)
    there = Slot(f"planes {result.name}", sizes.kernels * sizes.pooled[0] * sizes.pitch * FLOAT)
    most = max(1, accumulators(plan.target) // sizes.pool**2)
    maps = -(-sizes.kernels // -(-sizes.kernels // most))
    plan.call(
        "image_columns",
        (sizes, maps, relu),
        lambda name: image_columns.correlate_columns(name, sizes, maps, relu=relu),
        spread,
        plan.pack("plain", operation.node, shape, norm=norm),
        plan.pack("plain bias", operation.node, (sizes.kernels,), sizes.kernels, norm=norm),
        there,
    )
    plan.set_planes(result.name, Planes(there, sizes.pitch))
    plan.done.add(result.name)


def _sizes(operation: Operation, pool: int) -> Columns:
    moves = window(operation)
    channels, height, width = operation.input_shapes[0]
    kernels, rows, columns = operation.shape
    pads = (moves.pad[0][0], moves.pad[1][0])
    return Columns(channels, kernels, (height, width), moves.kernel, pads, (rows, columns), pool)
