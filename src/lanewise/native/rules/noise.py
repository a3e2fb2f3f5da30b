"""Dropout and its relatives: what happens in training only."""

from __future__ import annotations

from zlib import crc32

from lanewise.native.fuse import Operation
from lanewise.native.kernels import dropout
from lanewise.native.nest import LANES
from lanewise.native.plan import Planner
from lanewise.native.rules.windows import masked
from lanewise.net.layers import Dropout


def dropout_salt(node: str) -> int:
    """A number for each dropout layer, so that two of them do not drop the same elements."""
    return crc32(node.encode())


def dropout_forward(plan: Planner, operation: Operation) -> None:
    layer = operation.layer
    assert isinstance(layer, Dropout)
    key = (operation.elements, layer.rate, dropout_salt(operation.node))
    plan.call(
        "dropout_forward",
        key,
        lambda name: dropout.dropout(name, *key, mask=False),
        plan.value(operation.inputs[0]),
        plan.scratch("keys", LANES * 4),
        plan.value(operation.name),
    )


def dropout_gradient(plan: Planner, operation: Operation) -> None:
    layer, source = operation.layer, operation.inputs[0]
    assert isinstance(layer, Dropout)
    key = (operation.elements, layer.rate, dropout_salt(operation.node))
    mask = plan.joined_relu(source)
    plan.contribute(
        source,
        lambda target: plan.call(
            "dropout_gradient",
            (key, mask),
            lambda name: dropout.dropout(name, *key, mask=mask),
            plan.gradient(operation.name),
            plan.scratch("keys", LANES * 4),
            *masked(plan, source),
            target,
        ),
    )
