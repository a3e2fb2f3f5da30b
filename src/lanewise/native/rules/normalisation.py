"""Normalisation over one image: groups of channels, channels of a pixel, neighbouring channels."""

from __future__ import annotations

from math import prod

from lanewise.native.fuse import Operation
from lanewise.native.kernels import layer_norm, norm, response_norm
from lanewise.native.kernels.taps import balanced_width
from lanewise.native.nest import LANES
from lanewise.native.plan import FLOAT, Region, Slot
from lanewise.native.planner import Planner
from lanewise.native.target import Target
from lanewise.net.layers import GroupNorm, LayerNorm, LocalResponseNorm


def _tile(target: Target, pixels: int) -> int:
    """Pixels that walk through the channels together. Each needs two registers or a little more,
    and the wider the tile, the longer the pieces that are read from memory."""
    registers = target.vector_registers * target.register_lanes // LANES
    return balanced_width(pixels, registers * 3 // 8)


def _statistics(plan: Planner, operation: Operation, means: int) -> Slot:
    """What the forward pass of training found out: mean and 1 / deviation."""
    return plan.scratch(f"statistics {operation.name}", 2 * means * LANES * FLOAT)


def _affine(plan: Planner, operation: Operation) -> list[Region]:
    """Where the gradients of weight and bias are summed."""
    return [plan.partial(operation, which) for which in ("weight", "bias")]


# ---- groups of channels -------------------------------------------------------------------------


def _groups(operation: Operation) -> norm.Groups:
    """A group norm's groups; a layer norm of features, or of a single pixel, is one group."""
    layer, (channels, *sizes) = operation.layer, operation.shape
    groups = layer.groups if isinstance(layer, GroupNorm) else 1
    return norm.Groups(groups, channels // groups, prod(sizes))


def group_norm_forward(plan: Planner, operation: Operation) -> None:
    layer, sizes = operation.layer, _groups(operation)
    assert isinstance(layer, GroupNorm | LayerNorm)
    plan.call(
        "group_norm",
        (sizes, layer.eps, plan.training, operation.relu),
        lambda name: norm.group_norm(
            name, sizes, layer.eps, training=plan.training, relu=operation.relu
        ),
        plan.value(operation.inputs[0]),
        plan.parameter(operation, "weight"),
        plan.parameter(operation, "bias"),
        plan.value(operation.name),
        *([_statistics(plan, operation, sizes.groups)] if plan.training else []),
    )


def group_norm_gradient(plan: Planner, operation: Operation) -> None:
    sizes, source = _groups(operation), operation.inputs[0]
    inward, mask = plan.wants_gradient(source), plan.joined_relu(source)

    def call(*target: Slot) -> None:
        plan.call(
            "group_norm_gradient",
            (sizes, inward, mask),
            lambda name: norm.group_norm_gradient(name, sizes, inward=inward, mask=mask),
            plan.gradient(operation.name),
            plan.value(source),
            _statistics(plan, operation, sizes.groups),
            plan.parameter(operation, "weight"),
            *_affine(plan, operation),
            *target,
        )

    if inward:
        plan.contribute(source, call)
    else:
        call()


# ---- the channels of each pixel -----------------------------------------------------------------


def layer_norm_forward(plan: Planner, operation: Operation) -> None:
    layer, (channels, *sizes) = operation.layer, operation.shape
    assert isinstance(layer, LayerNorm)
    pixels = prod(sizes)
    if pixels == 1:
        group_norm_forward(plan, operation)
        return
    key = (channels, pixels, layer.eps, _tile(plan.target, pixels))
    plan.call(
        "layer_norm",
        (key, plan.training, operation.relu),
        lambda name: layer_norm.layer_norm(name, *key, training=plan.training, relu=operation.relu),
        plan.value(operation.inputs[0]),
        plan.parameter(operation, "weight"),
        plan.parameter(operation, "bias"),
        plan.value(operation.name),
        *([_statistics(plan, operation, pixels)] if plan.training else []),
    )


def layer_norm_gradient(plan: Planner, operation: Operation) -> None:
    (channels, *sizes), source = operation.shape, operation.inputs[0]
    pixels = prod(sizes)
    if pixels == 1:
        group_norm_gradient(plan, operation)
        return
    key = (channels, pixels, _tile(plan.target, pixels))
    inward, mask = plan.wants_gradient(source), plan.joined_relu(source)

    def call(*target: Slot) -> None:
        plan.call(
            "layer_norm_gradient",
            (key, inward, mask),
            lambda name: layer_norm.layer_norm_gradient(name, *key, inward=inward, mask=mask),
            plan.gradient(operation.name),
            plan.value(source),
            _statistics(plan, operation, pixels),
            plan.parameter(operation, "weight"),
            plan.scratch(f"sums {operation.name}", 2 * channels * LANES * FLOAT),
            *_affine(plan, operation),
            *target,
        )

    if inward:
        plan.contribute(source, call)
    else:
        call()


# ---- neighbouring channels ----------------------------------------------------------------------


def neighbours(operation: Operation) -> response_norm.Neighbours:
    """What is summed, and the layer's arithmetic."""
    layer, (channels, *sizes) = operation.layer, operation.shape
    assert isinstance(layer, LocalResponseNorm)
    arithmetic = (layer.size, layer.alpha, layer.beta, layer.constant)
    return response_norm.Neighbours(channels, prod(sizes), *arithmetic)


def response_norm_forward(plan: Planner, operation: Operation) -> None:
    sizes = neighbours(operation)
    key = (sizes, _tile(plan.target, sizes.pixels))
    plan.call(
        "response_norm",
        key,
        lambda name: response_norm.response_norm(name, *key),
        plan.value(operation.inputs[0]),
        plan.value(operation.name),
    )


def response_norm_gradient(plan: Planner, operation: Operation) -> None:
    source, sizes = operation.inputs[0], neighbours(operation)
    wide = _tile(plan.target, sizes.pixels)
    key, mask = (sizes, wide), plan.joined_relu(source)
    room = 2 * operation.shape[0] * wide * LANES * FLOAT
    plan.contribute(
        source,
        lambda target: plan.call(
            "response_norm_gradient",
            (key, mask),
            lambda name: response_norm.response_norm_gradient(name, *key, mask=mask),
            plan.gradient(operation.name),
            plan.value(source),
            plan.scratch(f"room {operation.name}", room),
            target,
        ),
    )
