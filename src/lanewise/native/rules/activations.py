"""Activations: value by value."""

from __future__ import annotations

from lanewise.native.fuse import Operation
from lanewise.native.kernels import activation
from lanewise.native.nest import LANES
from lanewise.native.planner import Planner
from lanewise.native.rules.windows import masked
from lanewise.native.target import Target
from lanewise.net.layers import ELU, Layer, LeakyReLU


def _activation(operation: Operation) -> tuple[str, int, float]:
    return operation.layer.word, operation.elements, activation_parameter(operation.layer)


def activation_parameter(layer: Layer) -> float:
    """The number an activation is given: a slope, an alpha, or 0."""
    if isinstance(layer, LeakyReLU):
        return layer.slope
    return layer.alpha if isinstance(layer, ELU) else 0.0


def polynomials(target: Target) -> int:
    """How many polynomials over 16 lanes run side by side without leaving the registers."""
    return max(1, target.vector_registers * target.register_lanes // LANES // 8)


def activation_forward(plan: Planner, operation: Operation) -> None:
    key, chains = _activation(operation), polynomials(plan.target)
    plan.call(
        f"{key[0]}_forward",
        key,
        lambda name: activation.activation(name, *key, chains=chains),
        plan.value(operation.inputs[0]),
        plan.value(operation.name),
    )


def activation_gradient(plan: Planner, operation: Operation) -> None:
    key, source = _activation(operation), operation.inputs[0]
    mask, chains = plan.joined_relu(source), polynomials(plan.target)
    if activation.ACTIVATIONS[key[0]].reads_input:
        read = [plan.value(source)]
    else:
        read = [plan.value(operation.name), *masked(plan, source)]
    plan.contribute(
        source,
        lambda target: plan.call(
            f"{key[0]}_gradient",
            (key, mask),
            lambda name: activation.activation_gradient(name, *key, chains=chains, mask=mask),
            plan.gradient(operation.name),
            *read,
            target,
        ),
    )
