"""Convolutions of bf16 by small matrices: their weights, and the gradient of these."""

from __future__ import annotations

from math import prod

from lanewise.native.fuse import Operation
from lanewise.native.kernels import lane_weights, matrix_conv, matrix_gradient
from lanewise.native.kernels.correlation import Correlation
from lanewise.native.kernels.images import row_blocks
from lanewise.native.kernels.matrix_conv import MatrixTile
from lanewise.native.kernels.matrix_gradient import GradientSizes
from lanewise.native.kernels.matrix_weights import matrix_weights
from lanewise.native.kernels.taps import forward_taps, joined
from lanewise.native.kernels.winograd_places import Winograd
from lanewise.native.matrix_ways import gradient_rows
from lanewise.native.nest import LANES
from lanewise.native.plan import FLOAT, Place, Region, Slot
from lanewise.native.planner import Planner
from lanewise.native.rules.windows import taps
from lanewise.native.weight_ways import LANE_PIXELS


def weights(
    plan: Planner, operation: Operation, sizes: Correlation, tile: MatrixTile, direction: str
) -> Place:
    """The weights as the products take them: every worker lays them out at the beginning."""
    shape = matrix_conv.weights_shape(sizes, tile)
    laid_out = plan.constants(f"matrices {operation.name} {direction}", prod(shape) * FLOAT)
    plan.call(
        "matrix_weights",
        (sizes.weight_map, sizes.weight_source, sizes.maps, sizes.sources, tile, shape),
        lambda name: matrix_weights(name, sizes, tile),
        plan.parameter(operation, "weight"),
        laid_out,
        who="worker",
    )
    return laid_out


def weight_gradient(
    plan: Planner,
    operation: Operation,
    places: tuple[Slot, Slot],
    partial: Region,
    fast: Winograd | None,
) -> bool:
    """The gradient of the weights, from x and dy, where the processor has such matrices and nothing
    is quicker; whether it is. `fast`: Winograd's algorithm that would do it else."""
    kernels, channels = operation.shape[0], operation.input_shapes[0][0]
    if plan.precision != "bf16" or not all(place.maps for place in places):
        return False
    rows, columns = joined(*taps(operation, forward_taps), LANE_PIXELS)
    sizes = GradientSizes(kernels, channels, rows, columns)
    height = gradient_rows(plan.target, sizes, fast)
    if height is None:
        return False
    shapes = {
        "turned": matrix_gradient.turned_shape(sizes, height),
        "sums": (row_blocks(kernels), channels, sizes.area, LANES),
    }
    own = {
        what: plan.scratch(f"{what} {operation.name}", prod(shape) * FLOAT)
        for what, shape in shapes.items()
    }
    plan.call(
        "matrix_weight_gradient",
        (sizes, height),
        lambda name: matrix_gradient.weight_gradient(name, sizes, height),
        *places,
        *own.values(),
    )
    turns = channels * sizes.area
    plan.call(
        "add_sums",
        (1, kernels, turns),
        lambda name: lane_weights.add_sums(name, 1, kernels, turns),
        own["sums"],
        partial,
    )
    return True
