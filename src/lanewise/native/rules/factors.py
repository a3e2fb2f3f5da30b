"""Layers with one trained factor a channel, or one for all: scale, prelu."""

from __future__ import annotations

from math import prod

from lanewise.native.fuse import Operation
from lanewise.native.kernels import factors
from lanewise.native.plan import Slot
from lanewise.native.planner import Planner
from lanewise.net.layers import PReLU


def _sizes(operation: Operation) -> tuple[str, int, int]:
    """Word, factors and how many values each of them meets."""
    layer = operation.layer
    if isinstance(layer, PReLU) and not layer.per_channel:
        return layer.word, 1, operation.elements
    return layer.word, operation.shape[0], prod(operation.shape[1:])


def factor_forward(plan: Planner, operation: Operation) -> None:
    key = _sizes(operation)
    plan.call(
        f"{key[0]}_forward",
        key,
        lambda name: factors.factor(name, *key),
        plan.value(operation.inputs[0]),
        plan.parameter(operation, "weight"),
        plan.value(operation.name),
    )


def factor_gradient(plan: Planner, operation: Operation) -> None:
    key, source = _sizes(operation), operation.inputs[0]
    inward, mask = plan.wants_gradient(source), plan.joined_relu(source)

    def call(*target: Slot) -> None:
        plan.call(
            f"{key[0]}_gradient",
            (key, inward, mask),
            lambda name: factors.factor_gradient(name, *key, inward=inward, mask=mask),
            plan.gradient(operation.name),
            plan.value(source),
            plan.parameter(operation, "weight"),
            plan.partial(operation, "weight"),
            *target,
        )

    if inward:
        plan.contribute(source, call)
    else:
        call()
