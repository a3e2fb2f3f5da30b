"""Products of values, and sums in which a C×1×1 input is added to every pixel of its channel."""

from __future__ import annotations

from math import prod

from lanewise.native.fuse import Operation
from lanewise.native.kernels import gating
from lanewise.native.kernels.gating import Join
from lanewise.native.nest import Kernel
from lanewise.native.planner import Planner
from lanewise.native.rules.windows import masked
from lanewise.net.layers import Multiply


def _sizes(operation: Operation) -> Join:
    kind = "mul" if isinstance(operation.layer, Multiply) else "add"
    narrow = tuple(shape != operation.shape for shape in operation.input_shapes)
    return Join(kind, operation.shape[0], prod(operation.shape[1:]), narrow)


def broadcasts(operation: Operation) -> bool:
    """Whether some input has one value a channel where the result has a map."""
    return any(_sizes(operation).narrow)


def join_forward(plan: Planner, operation: Operation) -> None:
    sizes = _sizes(operation)
    plan.call(
        f"join_{sizes.operation}",
        (sizes, operation.relu),
        lambda name: gating.join(name, sizes, relu=operation.relu),
        *map(plan.value, operation.inputs),
        plan.value(operation.name),
    )


def product_gradient(plan: Planner, operation: Operation) -> None:
    for which, source in enumerate(operation.inputs):
        if plan.wants_gradient(source):
            _input_gradient(plan, operation, which, source)


def broadcast_sum_gradient(plan: Planner, operation: Operation) -> None:
    """Narrow inputs first: they still read the gradient that the others may take as it is."""
    narrow = _sizes(operation).narrow
    for which, source in enumerate(operation.inputs):
        if narrow[which] and plan.wants_gradient(source):
            _input_gradient(plan, operation, which, source)
    wide = [source for source, thin in zip(operation.inputs, narrow, strict=True) if not thin]
    for source in sorted(wide, key=lambda name: plan.uses[name] > 1):
        plan.pass_gradient(operation, source)


def _input_gradient(plan: Planner, operation: Operation, which: int, source: str) -> None:
    sizes, mask = _sizes(operation), plan.joined_relu(source)
    others = [name for n, name in enumerate(operation.inputs) if n != which]

    def write(name: str) -> Kernel:
        return gating.join_gradient(name, sizes, which, mask=mask)

    plan.contribute(
        source,
        lambda target: plan.call(
            f"join_{sizes.operation}_gradient",
            (sizes, which, mask),
            write,
            plan.gradient(operation.name),
            *(map(plan.value, others) if sizes.operation == "mul" else ()),
            *masked(plan, source),
            target,
        ),
    )
