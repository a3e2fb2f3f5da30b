"""Dropout and its relatives: what happens in training only."""

from __future__ import annotations

from zlib import crc32

from lanewise.native.fuse import Operation
from lanewise.native.kernels import dropout
from lanewise.native.nest import LANES
from lanewise.native.planner import Planner
from lanewise.native.rules.windows import masked
from lanewise.net.layers import Noise


def dropout_salt(node: str) -> int:
    """A number for each noise layer, so that two of them do not drop the same elements."""
    return crc32(node.encode())


def _noise(operation: Operation) -> tuple[tuple[int, float, int], int]:
    """Elements, rate and salt; and how many elements fall together."""
    layer, elements = operation.layer, operation.elements
    assert isinstance(layer, Noise)
    together = elements // dropout.decisions(layer, operation.shape)
    return (elements, layer.rate, dropout_salt(operation.node)), together


def noise_forward(plan: Planner, operation: Operation) -> None:
    key, together = _noise(operation)
    plan.call(
        "dropout_forward",
        (*key, together),
        lambda name: dropout.dropout(name, *key, together=together, mask=False),
        plan.value(operation.inputs[0]),
        plan.scratch("keys", LANES * 4),
        plan.value(operation.name),
    )


def noise_gradient(plan: Planner, operation: Operation) -> None:
    key, together = _noise(operation)
    source = operation.inputs[0]
    mask = plan.joined_relu(source)
    plan.contribute(
        source,
        lambda target: plan.call(
            "dropout_gradient",
            (*key, together, mask),
            lambda name: dropout.dropout(name, *key, together=together, mask=mask),
            plan.gradient(operation.name),
            plan.scratch("keys", LANES * 4),
            *masked(plan, source),
            target,
        ),
    )
