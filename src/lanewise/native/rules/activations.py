"""Activations: value by value."""

from __future__ import annotations

from lanewise.native.fuse import Operation
from lanewise.native.kernels import activation
from lanewise.native.plan import Planner
from lanewise.native.rules.windows import masked
from lanewise.net.layers import LeakyReLU


def _activation(operation: Operation) -> tuple[str, int, float]:
    layer = operation.layer
    slope = layer.slope if isinstance(layer, LeakyReLU) else 0.0
    return layer.word, operation.elements, slope


def activation_forward(plan: Planner, operation: Operation) -> None:
    key = _activation(operation)
    plan.call(
        f"{key[0]}_forward",
        key,
        lambda name: activation.activation(name, *key),
        plan.value(operation.inputs[0]),
        plan.value(operation.name),
    )


def activation_gradient(plan: Planner, operation: Operation) -> None:
    key, source = _activation(operation), operation.inputs[0]
    mask = plan.joined_relu(source)
    plan.contribute(
        source,
        lambda target: plan.call(
            f"{key[0]}_gradient",
            (key, mask),
            lambda name: activation.activation_gradient(name, *key, mask=mask),
            plan.gradient(operation.name),
            plan.value(operation.name),
            *masked(plan, source),
            target,
        ),
    )
