"""Where branches meet: sums and concatenations. Products, and sums with a C×1×1 input, are in
`gating.py`."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from lanewise.native.fuse import Operation
from lanewise.native.kernels import joins
from lanewise.native.plan import FLOAT, LANES
from lanewise.native.planner import Planner
from lanewise.native.rules import gating


def add_forward(plan: Planner, operation: Operation) -> None:
    if operation.name in plan.stored:
        return
    if gating.broadcasts(operation):
        gating.join_forward(plan, operation)
        return
    key = (operation.elements, len(operation.inputs), operation.relu)
    plan.call(
        "add_values",
        key,
        lambda name: joins.add(name, key[0], key[1], relu=key[2]),
        *map(plan.value, operation.inputs),
        plan.value(operation.name),
    )


def add_gradient(plan: Planner, operation: Operation) -> None:
    if gating.broadcasts(operation):
        gating.broadcast_sum_gradient(plan, operation)
        return
    # Those that only read the bytes first: whoever adds to them must know of all that read.
    for source in sorted(operation.inputs, key=lambda name: plan.uses[name] > 1):
        plan.pass_gradient(operation, source)


def _starts(operation: Operation) -> list[int]:
    """Elements before each part."""
    sizes = [prod(shape) for shape in operation.input_shapes]
    return [sum(sizes[:i]) for i in range(len(sizes))]


def concat_forward(plan: Planner, operation: Operation) -> None:
    """Most parts were written where they belong; the others are copied."""
    whole = plan.value(operation.name)
    for source, before in zip(operation.inputs, _starts(operation), strict=True):
        there = replace(whole, offset=whole.offset + before * LANES * FLOAT)
        value = plan.value(source)
        if value == there:
            continue
        elements = plan.by_name[source].elements
        plan.call(
            "copy",
            (elements, False),
            lambda name, elements=elements: joins.copy(name, elements),  # type: ignore[misc]
            value,
            there,
        )


def concat_gradient(plan: Planner, operation: Operation) -> None:
    for source, before in zip(operation.inputs, _starts(operation), strict=True):
        plan.pass_gradient(operation, source, before)
