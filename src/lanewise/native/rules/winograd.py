"""Convolutions by Winograd's algorithm: when a layer gets it, and what it asks of the plan.

The transformed weights are worked out by every worker for itself at the beginning of a phase.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Generic, TypeVar

from lanewise.native import algorithms
from lanewise.native.fuse import Operation
from lanewise.native.kernels import (
    lane_weights,
    winograd,
    winograd_both,
    winograd_factors,
    winograd_gradient,
)
from lanewise.native.kernels.fused_norm import Reads, Tells
from lanewise.native.kernels.images import row_blocks
from lanewise.native.kernels.winograd_both import Weights
from lanewise.native.kernels.winograd_places import Winograd
from lanewise.native.nest import LANES
from lanewise.native.plan import FLOAT, Place, Slot
from lanewise.native.planner import Planner
from lanewise.net.layers import Conv, DepthwiseConv

Way = TypeVar("Way")


@dataclass(frozen=True)
class Fused(Generic[Way]):
    """What a kernel does beside its own work (`kernels/fused_norm.py`), and its places."""

    way: Way
    places: Sequence[Place] = ()


def chosen(plan: Planner, operation: Operation, forward: bool) -> Winograd | None:
    """The sizes of the quickest of Winograd's algorithms, where one pays and is allowed."""
    layer, shape = operation.layer, operation.input_shapes[0]
    assert isinstance(layer, Conv | DepthwiseConv)
    found = None if plan.exact else algorithms.convolution(layer, shape, forward)
    algorithm = algorithms.algorithm(found) if found else None
    return found.sizes(algorithm) if found and algorithm else None


def chosen_for_weights(plan: Planner, operation: Operation) -> Winograd | None:
    """The same for the gradient of the weights; the sizes are those of the forward direction."""
    layer, shape = operation.layer, operation.input_shapes[0]
    assert isinstance(layer, Conv | DepthwiseConv)
    found = None if plan.exact else algorithms.convolution(layer, shape, forward=True)
    algorithm = algorithms.gradient_algorithm(found) if found else None
    return found.sizes(algorithm) if found and algorithm else None


def chosen_for_both(plan: Planner, operation: Operation) -> Winograd | None:
    """The same for both gradients in one pass; the sizes are those of the input's."""
    sizes, other = chosen(plan, operation, forward=False), chosen_for_weights(plan, operation)
    if plan.precision != "fp32" or not sizes or not other or sizes.algorithm != other.algorithm:
        return None
    return sizes if algorithms.joins_gradients(sizes) else None


def correlate(
    plan: Planner,
    operation: Operation,
    sizes: Winograd,
    options: Mapping[str, bool],
    reads: Fused[Reads],
    tells: Fused[Tells | None],
    results: Sequence[Place],
    *,
    forward: bool,
    weights: Fused[Weights] | None = None,
) -> None:
    """Transform the weights, then convolve; `options` and `results` are those of a `Result`.
    `weights`: their gradient in the same pass, with the places that it has."""
    tile = algorithms.winograd_tile(plan.target, sizes, shared=not plan.training)
    if weights:
        tile = algorithms.tile_of_both(plan.target, sizes)
    part, others = (weights.way, weights.places) if weights else (None, ())
    direction = "forward" if forward else "gradient"
    factors = plan.constants(
        f"factors {operation.name} {direction}",
        prod(winograd_factors.factors_shape(sizes, tile)) * FLOAT,
    )
    plan.call(
        "winograd_factors",
        (sizes, tile, forward),
        lambda name: winograd_factors.transform_weights(name, sizes, tile, forward),
        plan.parameter(operation, "weight"),
        factors,
        who="worker",
    )
    shapes = winograd.workspace_shapes(sizes, tile, reads.way, part)
    plan.call(
        f"winograd_{direction}" + "s" * bool(part),
        (sizes, tile, tuple(options.items()), reads.way, tells.way, part),
        lambda name: winograd.correlate(
            name, sizes, tile, **options, reads=reads.way, tells=tells.way, weights=part
        ),
        *reads.places,
        factors,
        *_workspace(plan, operation, shapes),
        *tells.places,
        *others,
        *results,
    )


def _workspace(
    plan: Planner, operation: Operation, shapes: Mapping[str, tuple[int, ...]]
) -> list[Slot]:
    """Places of one call's own."""
    return [
        plan.scratch(f"{what} {len(plan.calls)} {operation.name}", prod(shape) * FLOAT)
        for what, shape in shapes.items()
    ]


def both_gradients(
    plan: Planner,
    operation: Operation,
    sizes: Winograd,
    options: Mapping[str, bool],
    reads: tuple[Fused[Reads], Fused[Reads]],
    tells: Fused[Tells | None],
    results: Sequence[Place],
) -> None:
    """That of the input and that of the weights in one pass; `reads`: dy and x."""
    errors, values = reads
    weights = algorithms.weights_of_both(plan.target, sizes, values.way)
    name, shape = operation.name, winograd_both.target_shape(sizes)
    sums = plan.scratch(f"sums {name}", prod(shape) * FLOAT)
    own = _workspace(plan, operation, winograd_both.workspace_shapes(sizes, weights))
    part = Fused(weights, [*values.places, *own, sums])
    correlate(plan, operation, sizes, options, errors, tells, results, forward=False, weights=part)
    key = sizes.sources, sizes.maps, sizes.algorithm.taps**2
    plan.call(
        "add_sums",
        key,
        lambda name: lane_weights.add_sums(name, *key),
        sums,
        plan.partial(operation, "weight"),
    )


def weight_gradient(
    plan: Planner,
    operation: Operation,
    sizes: Winograd,
    reads: Fused[Reads],
    dy: Place,
    partial: Place,
) -> None:
    """Kernels in the lanes; then 16 × 16 weights at a time into their place."""
    tile = algorithms.gradient_tile(plan.target, sizes)
    weights = sizes.sources * sizes.algorithm.taps**2
    sums = plan.scratch(f"sums {operation.name}", row_blocks(sizes.maps) * weights * LANES * FLOAT)
    shapes = winograd_gradient.workspace_shapes(sizes, tile, reads.way)
    plan.call(
        "winograd_weight_gradient",
        (sizes, tile, reads.way),
        lambda name: winograd_gradient.weight_gradient(name, sizes, tile, reads.way),
        *reads.places,
        dy,
        *_workspace(plan, operation, shapes),
        sums,
    )
    plan.call(
        "add_sums",
        (1, sizes.maps, weights),
        lambda name: lane_weights.add_sums(name, 1, sizes.maps, weights),
        sums,
        partial,
    )
