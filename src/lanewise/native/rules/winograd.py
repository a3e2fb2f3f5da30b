"""Convolutions by Winograd's algorithm: when a layer gets it, and what it asks of the plan.

The transformed weights are worked out by every worker for itself at the beginning of a phase.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from lanewise.native import algorithms
from lanewise.native.fuse import Operation
from lanewise.native.kernels import winograd
from lanewise.native.kernels.winograd import Winograd
from lanewise.native.plan import FLOAT, Place
from lanewise.native.planner import Planner
from lanewise.net.layers import Conv, DepthwiseConv


def chosen(plan: Planner, operation: Operation, forward: bool) -> Winograd | None:
    """The sizes of the quickest of Winograd's algorithms, where one pays and is allowed."""
    layer, shape = operation.layer, operation.input_shapes[0]
    assert isinstance(layer, Conv | DepthwiseConv)
    found = None if plan.exact else algorithms.convolution(layer, shape, forward)
    algorithm = algorithms.algorithm(found) if found else None
    return found.sizes(algorithm) if found and algorithm else None


def correlate(
    plan: Planner,
    operation: Operation,
    sizes: Winograd,
    options: Mapping[str, bool],
    source: Place,
    results: Sequence[Place],
    *,
    forward: bool,
) -> None:
    """Transform the weights, then convolve; `options` and `results` are those of a `Result`."""
    tile = algorithms.winograd_tile(plan.target, sizes)
    direction = "forward" if forward else "gradient"
    factors = plan.constants(
        f"factors {operation.name} {direction}",
        prod(winograd.factors_shape(sizes, tile)) * FLOAT,
    )
    plan.call(
        "winograd_factors",
        (sizes, tile, forward),
        lambda name: winograd.transform_weights(name, sizes, tile, forward),
        plan.parameter(operation, "weight"),
        factors,
        who="worker",
    )
    shapes = winograd.workspace_shapes(sizes, tile)
    plan.call(
        f"winograd_{direction}",
        (sizes, tile, tuple(options.items())),
        lambda name: winograd.correlate(name, sizes, tile, **options),
        source,
        factors,
        *(
            plan.scratch(f"{what} {len(plan.calls)} {operation.name}", prod(shape) * FLOAT)
            for what, shape in shapes.items()
        ),
        *results,
    )
