"""Batch normalisation of what a large 1 × 1 convolution makes of few maps: its gradient, without
keeping the gradient of the many maps.

    y = normalised(W x)      dW x = t + p      t = scale · dy,  p = slope · (W x − mean) + offset

What all images pull at each, p, is known only after all slices have told their sums. But both
gradients that the convolution needs are linear in it:

    dx = Wᵀ t + Wᵀ p                  Wᵀ p = (Wᵀ slope W) x + Wᵀ (offset − slope · mean)
    dW = Σ t xᵀ + Σ p xᵀ              Σ p xᵀ from Σ x xᵀ and Σ x

So the slices work out the parts of t while the many maps are near, and after the barrier what is
left concerns the few maps alone. Exact, but for rounding.
"""

from __future__ import annotations

from lanewise.native.fuse import Operation
from lanewise.native.kernels import pointwise as kernels
from lanewise.native.kernels import pulls
from lanewise.native.nest import LANES
from lanewise.native.plan import FLOAT, Call, Slot
from lanewise.native.planner import Planner
from lanewise.native.rules import batch_norm_gradient, convolution, pointwise
from lanewise.native.rules.batch_norm import cleared, value_again
from lanewise.native.rules.norm_places import lane_weight, moments_of
from lanewise.native.rules.windows import masked
from lanewise.native.tiles import pair_tile
from lanewise.net.layers import BatchNorm

#: so many times as many maps behind the convolution as before it, at least
WIDER = 2


def norm_gradient(plan: Planner, operation: Operation) -> None:
    """The gradient of a batch normalisation; here with those of the convolution before it."""
    before = plan.by_name[operation.inputs[0]]
    if not expands(plan, operation, before):
        batch_norm_gradient.gradient(plan, operation)
        return
    strips = pointwise.strips_of(before, pointwise.pixels_of(before))
    told, pushed = batch_norm_gradient.gradient_sums(plan, operation, strips)
    own, plan.purpose = plan.purpose, f"{before.name} gradient"
    pointwise.gradients_from(plan, before, pushed, strips)
    plan.purpose = own
    _sum_moments(plan, before)
    pull_later(plan, operation, before, told)


def pull_later(plan: Planner, operation: Operation, before: Operation, told: Slot) -> None:
    """After the barrier every worker learns what all images pull; the convolution's gradient
    applies it."""
    pull = batch_norm_gradient.collect_pull(plan, operation, told)
    maps, sources = pointwise.maps_of(before)
    plan.call(
        "pull_matrix",
        (maps, sources),
        lambda name: pulls.pull_matrix(name, maps, sources),
        plan.parameter(before, "weight"),
        moments_of(plan, operation),
        pull,
        *_matrix(plan, before),
        who="worker",
    )
    plan.pulled[before.name] = operation


def convolution_gradient(plan: Planner, operation: Operation) -> None:
    """The gradient of a convolution: of one whose normalisation worked out most of it, the rest."""
    norm = plan.pulled.get(operation.name)
    if norm is None:
        convolution.conv_gradient(plan, operation)
        return
    plan.purpose = f"{norm.name} gradient"
    _pull_weights(plan, operation, norm)
    source = operation.inputs[0]
    plan.contribute(
        source,
        lambda target: None,
        lambda target: _pull_source(plan, operation, target),
    )


def expands(plan: Planner, norm: Operation, before: Operation) -> bool:
    """Whether a normalisation follows such a convolution, and nobody else reads between them."""
    layer, (maps, *_) = norm.layer, norm.shape
    if not isinstance(layer, BatchNorm) or not pointwise.applies(plan, before):
        return False
    alone = plan.uses[before.name] == 1 and len(norm.inputs) == 1 and not layer.ghost
    wide = maps >= WIDER * before.input_shapes[0][0]
    position = {one.name: i for i, one in enumerate(plan.operations)}
    neighbours = position[norm.name] == position[before.name] + 1
    return alone and wide and neighbours and plan.wants_gradient(before.inputs[0])


def _matrix(plan: Planner, operation: Operation) -> tuple[Slot, Slot]:
    """Wᵀ slope W, and what is added: a worker's."""
    sources = operation.input_shapes[0][0]
    return (
        plan.constants(f"pulled {operation.name}", sources * sources * FLOAT),
        plan.constants(f"pulled begin {operation.name}", sources * FLOAT),
    )


def few_moments(plan: Planner, operation: Operation) -> tuple[Slot, Slot]:
    """Σ x xᵀ and Σ x of a slice."""
    sources = operation.input_shapes[0][0]
    return (
        plan.scratch(f"second moments {operation.name}", sources * sources * FLOAT),
        plan.scratch(f"first moments {operation.name}", sources * FLOAT),
    )


def _sum_moments(plan: Planner, operation: Operation) -> None:
    sources, pixels = operation.input_shapes[0][0], pointwise.pixels_of(operation)
    second, first = few_moments(plan, operation)
    x = value_again(plan, operation.inputs[0])
    tile = pair_tile(plan.target, sources, sources)
    sums = _lane_sums(plan, operation, "second", sources * sources)
    way = plan.by_pixels(
        "second_moments",
        (sources, tile),
        lambda name, block, pitches: kernels.weight_sums(
            name, sources, sources, block, tile, pitches
        ),
        pixels,
        *(True, True, False),
        opening=(cleared(plan, sums),),
        closing=(_living(plan, sums, second),),
    )
    plan.call_pieces((way,), x, x, sums)
    sums = _lane_sums(plan, operation, "first", sources)
    way = plan.by_pixels(
        "first_moments",
        sources,
        lambda name, block, pitches: pulls.map_sums(name, sources, block, pitches),
        pixels,
        *(True, False),
        opening=(cleared(plan, sums),),
        closing=(_living(plan, sums, first),),
    )
    plan.call_pieces((way,), x, sums)


def _lane_sums(plan: Planner, operation: Operation, which: str, sums: int) -> Slot:
    return plan.scratch(f"{which} sums {operation.name}", sums * LANES * FLOAT)


def _living(plan: Planner, sums: Slot, target: Slot) -> Call:
    count = sums.size // (LANES * FLOAT)
    return plan.made(
        "living_lanes",
        count,
        lambda name: pulls.living_lanes(name, count),
        sums,
        lane_weight(),
        target,
    )


def _pull_weights(plan: Planner, operation: Operation, norm: Operation) -> None:
    maps, sources = pointwise.maps_of(operation)
    plan.call(
        "pull_weights",
        (maps, sources),
        lambda name: pulls.pull_weights(name, maps, sources),
        plan.parameter(operation, "weight"),
        moments_of(plan, norm),
        batch_norm_gradient.pull_of(plan, norm),
        *few_moments(plan, operation),
        plan.partial(operation, "weight"),
    )


def _pull_source(plan: Planner, operation: Operation, target: Slot) -> None:
    source, pixels = operation.inputs[0], pointwise.pixels_of(operation)
    sources = operation.input_shapes[0][0]
    more = plan.scratch(f"pulled source {operation.name}", sources * pixels * LANES * FLOAT)
    x = value_again(plan, source)
    matrix, begin = _matrix(plan, operation)
    pointwise.multiply(plan, operation, x, matrix, begin, more)
    values = masked(plan, source)
    mask = bool(values)
    way = plan.by_pixels(
        "add_living",
        (sources, mask),
        lambda name, block, pitches: pulls.add_living(
            name, sources, block, mask=mask, pitches=pitches
        ),
        pixels,
        *(True, False, *(True for _ in values), True),
    )
    plan.call_pieces((way,), more, lane_weight(), *values, target)
