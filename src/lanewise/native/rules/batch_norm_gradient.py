"""Gradients of batch normalisation: every slice tells its sums, and after a barrier (or at once, in
ghost normalisation) learns what all images pull at each."""

from __future__ import annotations

from functools import partial

from lanewise.native.fuse import Operation
from lanewise.native.kernels import batch_norm_gradient
from lanewise.native.kernels.batch_norm import MOMENTS
from lanewise.native.plan import FLOAT, Along, Place, Slot, Strips
from lanewise.native.planner import Planner
from lanewise.native.rules import fused_norm
from lanewise.native.rules.batch_norm import cleared, sends_away
from lanewise.native.rules.norm_places import (
    VECTOR,
    constants_of,
    lane_weight,
    layer_of,
    map_bytes,
    moments_of,
    partials_of,
    size_of,
    sums_of,
)
from lanewise.native.rules.windows import masked


def gradient_before_sums(plan: Planner, name: str) -> Slot | None:
    """The same for the gradient of a normalised value with one reader."""
    norm = plan.by_name[name]
    if plan.uses[name] > 1 or len(norm.inputs) != 1 or not sends_away(norm, norm.inputs[0]):
        return None
    near = plan.scratch(f"near gradient {name}", norm.elements * VECTOR, maps=True)
    plan.near_gradients[name] = near
    plan.has_gradient(name)
    return near


def gradient(plan: Planner, operation: Operation) -> None:
    source = operation.inputs[0]
    wanted = plan.wants_gradient(source)
    if layer_of(operation).affine or wanted:
        told = tell_sums(plan, operation)
    if wanted:
        _input_gradient(plan, operation, told)
    for other in operation.inputs[1:]:
        plan.pass_gradient(operation, other)


def tell_sums(plan: Planner, operation: Operation, *, keep: bool = True) -> Slot:
    """What the slice tells for the gradient. `keep`: what is near is kept, too."""
    told = sums_of(plan, operation)
    if operation.name not in plan.told_gradients:
        _gradient_sums(plan, operation, told, keep=keep)
    return told


def _gradient_sums(
    plan: Planner,
    operation: Operation,
    told: Slot,
    pushed: Slot | None = None,
    strips: Strips | None = None,
    keep: bool = True,
) -> None:
    parameters = tuple(partials_of(plan, operation))
    kept = plan.gradient(operation.name)
    near = plan.near_gradients.get(operation.name)
    further = (pushed,) if pushed else (kept,) * bool(near and keep)
    plan.call_pieces(
        _ways_to_sum(plan, operation, told, strips, len(parameters), bool(pushed), len(further)),
        plan.value(operation.inputs[0]),
        near or kept,
        moments_of(plan, operation),
        told,
        *parameters,
        *further,
    )


def _ways_to_sum(
    plan: Planner,
    operation: Operation,
    told: Slot,
    strips: Strips | None,
    parameters: int,
    push: bool,
    further: int,
) -> tuple[Along, ...]:
    """By channels or by pixels; as many `parameters`, and further maps to which is pushed or
    copied."""
    (channels, pixels), one = size_of(operation), map_bytes(operation)
    copy = bool(further) and not push
    key = (bool(parameters), operation.rectifier, push, copy)
    laid_out = (strips.pixels, strips.maps, strips.pitch) if strips else None
    write = partial(
        batch_norm_gradient.gradient_sums,
        affine=bool(parameters),
        rectifier=operation.rectifier,
        push=push,
        copy=copy,
    )
    by_channels = plan.by_channels(
        "batch_gradient_sums",
        (pixels, key, strips),
        lambda name, block: write(name, block, pixels, strips=laid_out),
        channels,
        *(one, one, MOMENTS * FLOAT, 2 * VECTOR, *(FLOAT,) * parameters),
        *(strips.pitch * VECTOR if strips else one,) * further,
    )
    by_pixels = plan.by_pixels(
        "batch_gradient_sums",
        (channels, key),
        lambda name, block, pitches: write(name, channels, block, pitches=pitches, join=True),
        pixels,
        *(True, True, False, False, *(False,) * parameters),
        *(strips or True,) * further,
        opening=(cleared(plan, told),),
    )
    return by_channels, by_pixels


def gradient_sums(plan: Planner, operation: Operation, strips: Strips) -> tuple[Slot, Slot]:
    """What the slice tells for the gradient, and its source's gradient but for what all images pull
    at each, laid out in strips."""
    told = sums_of(plan, operation)
    size = strips.size(size_of(operation)[1])
    pushed = plan.scratch(f"pushed {operation.name}", size, maps=True)
    _gradient_sums(plan, operation, told, pushed, strips)
    return told, pushed


def _input_gradient(plan: Planner, operation: Operation, told: Slot) -> None:
    source = operation.inputs[0]
    pull = collect_pull(plan, operation, told)
    if fused_norm.pulls_later(plan, operation, pull):
        return
    plan.contribute(
        source,
        lambda target: emit_gradient(plan, operation, pull, False, target),
        lambda target: emit_gradient(plan, operation, pull, True, target),
    )


def emit_gradient(plan: Planner, operation: Operation, pull: Slot, add: bool, target: Slot) -> None:
    source, (channels, pixels) = operation.inputs[0], size_of(operation)
    values, one = masked(plan, source), map_bytes(operation)
    kept = [plan.kept_gradients[source]] if source in plan.kept_gradients else []
    mask, copy = bool(values), bool(kept)
    key = (operation.rectifier, mask, add, copy)
    write = partial(
        batch_norm_gradient.gradient,
        rectifier=operation.rectifier,
        mask=mask,
        add=add,
        copy=copy,
    )
    rows = (MOMENTS * FLOAT, 2 * FLOAT, 0)
    plan.call_pieces(
        (
            plan.by_channels(
                "batch_gradient",
                (pixels, key),
                lambda name, block: write(name, block, pixels),
                channels,
                *(one, one, *rows, *(one for _ in values), one, *(one for _ in kept)),
            ),
            plan.by_pixels(
                "batch_gradient",
                (channels, key),
                lambda name, block, pitches: write(
                    name,
                    channels,
                    block,
                    pitches=(*pitches[:2], pitches[1 + mask], *pitches[2 + mask :]),
                ),
                pixels,
                *(True, True, False, False, False, *(True for _ in values), True),
                *(True for _ in kept),
            ),
        ),
        plan.value(source),
        plan.gradient(operation.name),
        moments_of(plan, operation),
        pull,
        lane_weight(),
        *values,
        target,
        *kept,
    )


def pull_of(plan: Planner, operation: Operation) -> Slot:
    """What all images pull at each of them: two numbers a channel."""
    return constants_of(plan, operation, "pull", 2)


def collect_pull(plan: Planner, operation: Operation, told: Slot) -> Slot:
    """What all images pull at each of them, from the sums that the slices told."""
    size, moments = size_of(operation), moments_of(plan, operation)
    pull = pull_of(plan, operation)
    if layer_of(operation).ghost:
        places: tuple[Place, ...] = (told, lane_weight(), moments, pull)
        plan.call(
            "collect_gradient_slice",
            size,
            lambda name: batch_norm_gradient.collect_gradient_slice(name, *size),
            *places,
        )
        return pull
    plan.barrier()
    plan.call(
        "collect_gradient",
        size,
        lambda name: batch_norm_gradient.collect_gradient(name, *size),
        told,
        moments,
        pull,
        symbols=("slices", "images"),
        who="worker",
    )
    return pull
