"""Pooling: windows and whole maps."""

from __future__ import annotations

from math import prod

from lanewise.native.fuse import Operation
from lanewise.native.kernels import pool
from lanewise.native.kernels.taps import forward_taps, gradient_taps
from lanewise.native.nest import ELEMENT_BYTES, LANES
from lanewise.native.plan import Planner, Slot
from lanewise.native.rules.windows import masked, taps, window
from lanewise.net.layers import GlobalAvg, GlobalMax, GlobalSum, Layer, MaxPool, SumPool


def max_pool_forward(plan: Planner, operation: Operation) -> None:
    rows, columns = taps(operation, forward_taps)
    channels = operation.shape[0]
    argument = [_argument(plan, operation)] if plan.training else []
    plan.call(
        "max_pool",
        (channels, rows, columns, operation.relu, plan.training),
        lambda name: pool.max_pool(
            name, channels, rows, columns, relu=operation.relu, argument=plan.training
        ),
        plan.value(operation.inputs[0]),
        plan.value(operation.name),
        *argument,
    )


def _argument(plan: Planner, operation: Operation) -> Slot:
    """Which tap of each window, or which pixel of each map, was the largest."""
    layer = operation.layer
    kind = pool.argument_type(prod(layer.kernel)) if isinstance(layer, MaxPool) else "i32"
    size = operation.elements * LANES * ELEMENT_BYTES[kind]
    return plan.scratch(f"argument {operation.name}", size)


def max_pool_gradient(plan: Planner, operation: Operation) -> None:
    rows, columns = taps(operation, gradient_taps)
    channels, source = operation.shape[0], operation.inputs[0]
    mask = plan.joined_relu(source)
    plan.contribute(
        source,
        lambda target: plan.call(
            "max_pool_gradient",
            (channels, rows, columns, mask),
            lambda name: pool.max_pool_gradient(name, channels, rows, columns, mask=mask),
            _argument(plan, operation),
            plan.gradient(operation.name),
            *masked(plan, source),
            target,
        ),
    )


def _scale(operation: Operation) -> tuple[tuple[float, ...], ...] | None:
    """What each sum is multiplied by: the average's divisor, or nothing."""
    if isinstance(operation.layer, SumPool):
        return None
    return pool.average_scale(window(operation))


def sum_pool_forward(plan: Planner, operation: Operation) -> None:
    rows, columns = taps(operation, forward_taps)
    channels, scale = operation.shape[0], _scale(operation)
    plan.call(
        "sum_pool",
        (channels, rows, columns, scale),
        lambda name: pool.sum_pool(name, channels, rows, columns, scale=scale),
        plan.value(operation.inputs[0]),
        plan.value(operation.name),
    )


def sum_pool_gradient(plan: Planner, operation: Operation) -> None:
    rows, columns = taps(operation, gradient_taps)
    channels, source, scale = operation.shape[0], operation.inputs[0], _scale(operation)
    mask = plan.joined_relu(source)
    plan.contribute(
        source,
        lambda target: plan.call(
            "sum_pool_gradient",
            (channels, rows, columns, scale, mask),
            lambda name: pool.sum_pool_gradient(
                name, channels, rows, columns, scale=scale, mask=mask
            ),
            plan.gradient(operation.name),
            *masked(plan, source),
            target,
        ),
    )


_MODES: dict[type[Layer], str] = {GlobalMax: "max", GlobalAvg: "avg", GlobalSum: "sum"}


def global_pool_forward(plan: Planner, operation: Operation) -> None:
    mode, size = _MODES[type(operation.layer)], operation.input_shapes[0]
    argument = mode == "max" and plan.training
    plan.call(
        f"global_{mode}",
        (size, argument, operation.relu),
        lambda name: pool.global_pool(name, mode, *size, argument=argument, relu=operation.relu),
        plan.value(operation.inputs[0]),
        plan.value(operation.name),
        *([_argument(plan, operation)] if argument else []),
    )


def global_pool_gradient(plan: Planner, operation: Operation) -> None:
    mode, size = _MODES[type(operation.layer)], operation.input_shapes[0]
    source = operation.inputs[0]
    mask = plan.joined_relu(source)
    plan.contribute(
        source,
        lambda target: plan.call(
            f"global_{mode}_gradient",
            (size, mask),
            lambda name: pool.global_pool_gradient(name, mode, *size, mask=mask),
            *([_argument(plan, operation)] if mode == "max" else []),
            plan.gradient(operation.name),
            *masked(plan, source),
            target,
        ),
    )
