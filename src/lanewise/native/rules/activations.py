"""Activations: value by value."""

from __future__ import annotations

from lanewise.native.fuse import Operation
from lanewise.native.kernels import activation
from lanewise.native.plan import Planner
from lanewise.native.rules.windows import masked
from lanewise.net.layers import ELU, Layer, LeakyReLU


def _activation(operation: Operation) -> tuple[str, int, float]:
    return operation.layer.word, operation.elements, _parameter(operation.layer)


def _parameter(layer: Layer) -> float:
    if isinstance(layer, LeakyReLU):
        return layer.slope
    return layer.alpha if isinstance(layer, ELU) else 0.0


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
    if activation.ACTIVATIONS[key[0]].reads_input:
        read = [plan.value(source)]
    else:
        read = [plan.value(operation.name), *masked(plan, source)]
    plan.contribute(
        source,
        lambda target: plan.call(
            f"{key[0]}_gradient",
            (key, mask),
            lambda name: activation.activation_gradient(name, *key, mask=mask),
            plan.gradient(operation.name),
            *read,
            target,
        ),
    )
