"""Batch normalisation: statistics of the whole batch between barriers, or of one slice (ghost)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from lanewise.native.fuse import Operation
from lanewise.native.kernels import batch_norm, joins
from lanewise.native.plan import FLOAT, Call, Region, Slot
from lanewise.native.planner import Planner
from lanewise.native.rules import fused_norm
from lanewise.native.rules.fused_norm import made_again
from lanewise.native.rules.norm_places import (
    VECTOR,
    lane_weight,
    layer_of,
    map_bytes,
    moments_of,
    rectifier_of,
    size_of,
    statistics_of,
)
from lanewise.net.layers import BatchNorm


def cleared(plan: Planner, place: Slot) -> Call:
    """Zeros for what the pieces of a call add to."""
    vectors = place.size // VECTOR
    return plan.made("clear", vectors, lambda name: joins.clear(name, vectors), place)


def affine_parameters(plan: Planner, operation: Operation) -> list[Region]:
    affine = layer_of(operation).affine
    return [plan.parameter(operation, which) for which in ("weight", "bias")] if affine else []


def forward(plan: Planner, operation: Operation) -> None:
    if plan.training:
        moments = _batch_moments(plan, operation)
        if not fused_norm.reads_unwritten(plan, operation):
            _normalise(plan, operation, moments, plan.value(operation.name))
        return
    constants = inference_constants(plan, operation.node, layer_of(operation), operation.shape)
    rectifier, plus = rectifier_of(operation), len(operation.inputs) > 1
    plan.call(
        "normalise_fixed",
        (size_of(operation), plus, rectifier),
        lambda name: batch_norm.normalise(
            name, *size_of(operation), moments=False, plus=plus, rectifier=rectifier
        ),
        plan.value(operation.inputs[0]),
        constants,
        *map(plan.value, operation.inputs[1:]),
        plan.value(operation.name),
    )


def _normalise(plan: Planner, operation: Operation, moments: Slot, target: Slot) -> None:
    (channels, pixels), plus = size_of(operation), len(operation.inputs) > 1
    rectifier, one = rectifier_of(operation), map_bytes(operation)
    others = tuple(plan.value(name) for name in operation.inputs[1:])
    key = (plus, rectifier)
    write = partial(batch_norm.normalise, moments=True, plus=plus, rectifier=rectifier)
    plan.call_pieces(
        (
            plan.by_channels(
                "normalise",
                (pixels, key),
                lambda name, block: write(name, block, pixels),
                channels,
                *(one, batch_norm.MOMENTS * FLOAT, *(one for _ in others), one),
            ),
            plan.by_pixels(
                "normalise",
                (channels, key),
                lambda name, block, pitches: write(name, channels, block, pitches=pitches),
                pixels,
                *(True, False, *(True for _ in others), True),
            ),
        ),
        plan.value(operation.inputs[0]),
        moments,
        *others,
        target,
    )


def value_again(plan: Planner, name: str) -> Slot:
    """An operation's value for its only reader's gradient: a normalised value is worked out anew
    from the value before it, which the gradient of the normalisation needs anyway. To keep it for
    every slice until then would cost more, in memory and in time to fetch it."""
    operation = plan.by_name[name]
    if not (isinstance(operation.layer, BatchNorm) and made_again(plan, operation)):
        return plan.value(name)
    size = operation.elements * VECTOR
    again = plan.scratch(f"{name} again {plan.phase}", size, maps=True)
    reader, plan.purpose = plan.purpose, f"{name} gradient"
    _normalise(plan, operation, moments_of(plan, operation), again)
    plan.purpose = reader
    return again


def inference_constants(plan: Planner, node: str, layer: BatchNorm, shape: tuple[int, ...]) -> Slot:
    """Scale and shift from the running statistics, worked out by every worker when it begins."""
    parameters = ("weight", "bias") if layer.affine else ()
    target = plan.constants(f"scale and shift {node}", 2 * shape[0] * FLOAT)
    plan.call(
        "inference_constants",
        (shape[0], layer.eps, layer.affine),
        lambda name: batch_norm.inference_constants(name, shape[0], layer.eps, affine=layer.affine),
        plan.buffer(node, "running_mean"),
        plan.buffer(node, "running_var"),
        *(plan.parameter_of(node, which) for which in parameters),
        target,
        who="worker",
    )
    return target


def folded_norm(plan: Planner, operation: Operation) -> list[Slot]:
    """Scale and shift of the normalisation that an operation applies to its own result."""
    if operation.norm is None:
        return []
    both = inference_constants(plan, *operation.norm, operation.shape)
    return [both, replace(both, offset=operation.shape[0] * FLOAT)]


def _batch_moments(plan: Planner, operation: Operation) -> Slot:
    """Mean and deviation of this batch, and from them scale and shift."""
    layer, size = layer_of(operation), size_of(operation)
    told = statistics_of(plan, operation)
    moments = moments_of(plan, operation)
    if operation.name not in plan.told:
        _statistics(plan, operation, told)
    key = (*size, layer.eps, layer.affine)
    parameters = affine_parameters(plan, operation)
    if layer.ghost:
        plan.call(
            "collect_slice",
            key,
            lambda name: batch_norm.collect_slice(name, *key[:3], affine=layer.affine),
            told,
            lane_weight(),
            *parameters,
            moments,
        )
        plan.at_end(lambda: _running_of_slices(plan, operation, moments))
    else:
        plan.barrier()
        plan.call(
            "collect",
            key,
            lambda name: batch_norm.collect(name, *key[:3], affine=layer.affine),
            told,
            *parameters,
            moments,
            symbols=("slices", "images"),
            who="worker",
        )
        update_running(plan, operation, moments)
    return moments


#: bytes of a slice's value from which it is written past the caches: when it is read again, in
#: another phase, it would have left them anyway
AWAY = 1 << 20


def before_norm(plan: Planner, operation: Operation) -> Slot:
    """Where a convolution writes that looks at a channel or a pixel at a time: a large value that
    only a normalisation reads is near until its statistics are told, and then goes away."""
    readers = plan.readers.get(operation.name, [])
    alone = plan.training and plan.uses[operation.name] == 1
    if not alone or not sends_away(readers[0], operation.name):
        return plan.value(operation.name)
    size = operation.elements * VECTOR
    plan.near[operation.name] = plan.scratch(f"near {operation.name}", size, maps=True)
    return plan.near[operation.name]


def sends_away(norm: Operation, source: str) -> bool:
    """Whether this is a normalisation that sends a large source away."""
    layer = norm.layer
    if not isinstance(layer, BatchNorm) or layer.ghost or norm.inputs[0] != source:
        return False
    return len(norm.shape) == 3 and norm.elements * VECTOR >= AWAY


def _statistics(plan: Planner, operation: Operation, told: Slot) -> None:
    (channels, pixels), source = size_of(operation), operation.inputs[0]
    near, one = plan.near.get(source), map_bytes(operation)
    kept = (plan.value(source),) if near else ()
    write = partial(batch_norm.statistics, copy=bool(near))
    plan.call_pieces(
        (
            plan.by_channels(
                "batch_statistics",
                (pixels, bool(near)),
                lambda name, block: write(name, block, pixels),
                channels,
                *(one, batch_norm.TOLD * VECTOR, *(one for _ in kept)),
            ),
            plan.by_pixels(
                "batch_statistics",
                (channels, bool(near)),
                lambda name, block, pitches: write(
                    name, channels, block, pitches=pitches, join=True
                ),
                pixels,
                *(True, False, *(True for _ in kept)),
                opening=(cleared(plan, told),),
            ),
        ),
        near or plan.value(source),
        told,
        *kept,
    )


def update_running(plan: Planner, operation: Operation, moments: Slot) -> None:
    key = (operation.shape[0], layer_of(operation).momentum)
    plan.call(
        "running",
        key,
        lambda name: batch_norm.running(name, *key),
        moments,
        plan.buffer(operation.node, "running_mean"),
        plan.buffer(operation.node, "running_var"),
        who="leader",
    )


def _running_of_slices(plan: Planner, operation: Operation, moments: Slot) -> None:
    """After all slices: the first worker reads the moments of each."""
    key = (moments.size // FLOAT, operation.shape[0], layer_of(operation).momentum)
    plan.purpose = f"{operation.name} running"
    plan.call(
        "running_of_slices",
        key,
        lambda name: batch_norm.running_of_slices(name, *key),
        moments,
        plan.buffer(operation.node, "running_mean"),
        plan.buffer(operation.node, "running_var"),
        symbols=("slices",),
        who="leader",
    )
