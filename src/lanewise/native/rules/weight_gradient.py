"""The gradient of a convolution's weights: which kernel, and what it asks of the plan."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from lanewise.native.fuse import Operation
from lanewise.native.kernels import depthwise, lane_weights, weights
from lanewise.native.kernels.depthwise import Depthwise
from lanewise.native.kernels.images import row_blocks
from lanewise.native.kernels.taps import forward_taps, joined
from lanewise.native.nest import LANES, Kernel
from lanewise.native.plan import FLOAT, Region, Slot
from lanewise.native.planner import Planner
from lanewise.native.rules import fused_norm, matrices, winograd
from lanewise.native.rules.batch_norm import value_again
from lanewise.native.rules.grouped import is_depthwise, layer_of, parts
from lanewise.native.rules.windows import taps
from lanewise.native.tiles import map_weight_tile
from lanewise.native.weight_ways import LANE_PIXELS, lane_tile, prefers_lanes, weight_tile
from lanewise.net.layers import BatchNorm

#: bytes of a slice's maps that stay in the second cache beside a chain
NEAR = 256 << 10


def emit(plan: Planner, operation: Operation) -> None:
    """Ask for the calls."""
    groups, kernels, channels = parts(operation)
    rows, columns = taps(operation, forward_taps)
    partial = plan.partial(operation, "weight")
    fast = winograd.chosen_for_weights(plan, operation)
    reads = fused_norm.gradient_source(plan, operation) if fast else None
    if fast and reads:
        dy = plan.gradient(operation.name)
        winograd.weight_gradient(plan, operation, fast, reads, dy, partial)
        return
    places = value_again(plan, operation.inputs[0]), plan.gradient(operation.name)
    line = map_weight_tile(plan.target, rows, columns) if is_depthwise(operation) else None
    if line:
        sizes = Depthwise(1, kernels, 1, rows, columns)
        pixels = kernels * rows.destination * columns.destination
        plan.call_channels(
            "conv_weight_gradient",
            (sizes, line),
            lambda name, block: depthwise.weight_gradient(name, replace(sizes, groups=block), line),
            groups,
            (places[0], rows.source * columns.source * LANES * FLOAT),
            (places[1], pixels * LANES * FLOAT),
            (partial, kernels * sizes.taps * FLOAT),
        )
        return
    if groups == 1 and matrices.weight_gradient(plan, operation, places, partial, fast):
        return
    if fast:
        x, dy = places
        reads = fused_norm.as_it_stands(x)
        winograd.weight_gradient(plan, operation, fast, reads, dy, partial)
        return
    if prefers_lanes(kernels, channels, rows, columns):
        _gradient_in_lanes(plan, operation, places, partial)
        return
    _gradient_in_images(plan, operation, places, partial)


def _gradient_in_images(
    plan: Planner, operation: Operation, places: tuple[Slot, Slot], partial: Region
) -> None:
    """The weight gradient where images are in the lanes. Behind a first layer's normalisation some
    kernels at a time, which are still near."""
    groups, kernels, channels = parts(operation)
    rows, columns = taps(operation, forward_taps)
    tile = weight_tile(plan.target, kernels, channels, rows, columns)
    key = groups, channels, rows, columns, tile
    vector = channels * rows.taps * columns.taps * FLOAT
    sums = plan.scratch(f"sums {operation.name}", groups * kernels * vector * LANES)
    some = [sums] if tile.rows else []

    def write(name: str, maps: int) -> Kernel:
        return weights.weight_gradient(name, groups, maps, *key[1:])

    if not _only_weights(plan, operation) or kernels % tile.maps:
        plan.call(
            "conv_weight_gradient",
            (kernels, key),
            lambda name: write(name, kernels),
            *places,
            *some,
            partial,
        )
        return
    one = operation.shape[1] * operation.shape[2] * LANES * FLOAT
    apart = (0, one, *[vector * LANES] * len(some), vector)
    plan.call_pieces(
        (plan.by_channels("conv_weight_gradient", key, write, kernels, *apart, strip=tile.maps),),
        *places,
        *some,
        partial,
    )


def _only_weights(plan: Planner, operation: Operation) -> bool:
    """Whether a normalisation's gradient is wanted for these weights alone, and what they meet is
    small enough to be read for some kernels after the others."""
    readers = plan.readers.get(operation.name, [])
    source = operation.inputs[0]
    return (
        len(readers) == 1
        and isinstance(readers[0].layer, BatchNorm)
        and not plan.wants_gradient(source)
        and not layer_of(operation).bias
        and parts(operation)[0] == 1
        and plan.by_name[source].elements * LANES * FLOAT <= NEAR
    )


def _gradient_in_lanes(
    plan: Planner, operation: Operation, places: tuple[Slot, Slot], partial: Region
) -> None:
    """The weight gradient where kernels are in the lanes: transpose, then multiply."""
    groups, kernels, channels = parts(operation)
    rows, columns = joined(*taps(operation, forward_taps), LANE_PIXELS)
    tile = lane_tile(plan.target, kernels, channels, rows, columns)
    turned = prod(lane_weights.turned_shape(kernels, rows, columns, tile)) * FLOAT
    area, vectors = rows.taps * columns.taps, groups * row_blocks(kernels)
    sums = plan.scratch(f"sums {operation.name}", vectors * channels * area * LANES * FLOAT)
    key = (groups, kernels, channels, rows, columns, tile)
    plan.call(
        "lane_weight_gradient",
        key,
        lambda name: lane_weights.weight_gradient(name, *key),
        *places,
        plan.scratch(f"lanes {operation.name}", turned),
        sums,
    )
    plan.call(
        "add_sums",
        (groups, kernels, channels * area),
        lambda name: lane_weights.add_sums(name, groups, kernels, channels * area),
        sums,
        partial,
    )
