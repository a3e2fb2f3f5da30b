"""The two directions of a net as plans: forward alone, and forward with loss and backward."""

from __future__ import annotations

from lanewise.errors import EngineError
from lanewise.native.fuse import Operation, operations
from lanewise.native.kernels import images, loss
from lanewise.native.layouts import buffer_layout, parameter_layout
from lanewise.native.nest import LANES, Kernel
from lanewise.native.plan import (
    FLOAT,
    PROLOGUE,
    Call,
    Choice,
    Plan,
    Region,
    Slot,
)
from lanewise.native.planner import Planner
from lanewise.native.rules import FORWARD, GRADIENT
from lanewise.native.shelf import KernelShelf
from lanewise.native.target import Target
from lanewise.native.tiles import slices_together
from lanewise.net.graph import Graph
from lanewise.net.layers import Input

#: a worker's arena stays below this where working on fewer slices at once can help
ARENA_BYTES = 512 << 20


def plan_directions(
    graph: Graph,
    target: Target,
    training: bool,
    input_gradient: bool = False,
    exact: bool = False,
    precision: str = "fp32",
) -> dict[str, Plan]:
    """The plans "forward" and, for training, "train": as many slices at once as memory allows."""
    shelf = KernelShelf()
    all_widths = slices_together(target)
    for number in range(len(all_widths)):
        widths = all_widths[number:]
        plans = {"forward": plan_forward(graph, target, shelf, widths, exact, precision)}
        if training:
            plans["train"] = plan_training(
                graph, target, shelf, widths, input_gradient, exact, precision
            )
        if max(plan.arena.size for plan in plans.values()) <= ARENA_BYTES:
            break
    return plans


def plan_forward(
    graph: Graph,
    target: Target,
    shelf: KernelShelf,
    widths: tuple[int, ...] = (1,),
    exact: bool = False,
    precision: str = "fp32",
) -> Plan:
    """Images → logits."""
    steps = operations(graph, training=False)
    plan = Planner(
        target,
        steps,
        parameter_layout(graph),
        buffer_layout(graph),
        shelf,
        False,
        widths=widths,
        exact=exact,
        precision=precision,
    )
    _forward(plan, steps)
    _rows_out(plan, plan.value(steps[-1].name), steps[-1].elements, "logits")
    return plan.finish()


def plan_training(
    graph: Graph,
    target: Target,
    shelf: KernelShelf,
    widths: tuple[int, ...] = (1,),
    input_gradient: bool = False,
    exact: bool = False,
    precision: str = "fp32",
) -> Plan:
    """Images and labels → loss and all gradients."""
    steps = operations(graph, training=True)
    plan = Planner(
        target,
        steps,
        parameter_layout(graph),
        buffer_layout(graph),
        shelf,
        True,
        input_gradient,
        widths,
        exact,
        precision,
    )
    if not plan.wants_gradient(steps[-1].name):
        raise EngineError(
            f"{graph.origin}: there is nothing to train: the net has no convolution and no full"
            " connection; add a conv or a linear layer"
        )
    _forward(plan, steps)
    _loss(plan, steps[-1])
    for operation in reversed(steps):
        if not isinstance(operation.layer, Input) and plan.wants_gradient(operation.name):
            plan.purpose = f"{operation.name} gradient"
            plan.settle(operation)
            GRADIENT[type(operation.layer)](plan, operation)
    if input_gradient:
        _rows_out(plan, plan.gradient(steps[0].name), steps[0].elements, "input_gradient")
    return plan.finish()


def _forward(plan: Planner, steps: tuple[Operation, ...]) -> None:
    _gather(plan, steps[0])
    for operation in steps[1:]:
        plan.purpose = f"{operation.name} forward"
        FORWARD[type(operation.layer)](plan, operation)


def _gather(plan: Planner, image: Operation) -> None:
    """Sixteen images, anywhere in memory, into lanes; bytes are normalised, floats are not."""
    channels, height, width = image.shape

    def kernel(dtype: str) -> Kernel:
        return plan.shelf.get(
            f"gather_{dtype}",
            image.shape,
            lambda name: images.gather(name, channels, height, width, dtype),
        )

    places = (
        Region("images"),
        Slot("lane_index", PROLOGUE["lane_index"]),
        Region("scale"),
        Region("shift"),
        plan.value(image.name),
    )
    choice = Choice("gather", "images_are_bytes", kernel("u8"), kernel("f32"))
    plan.calls.append(Call({1: choice}, places, ("image_count",), purpose=f"{image.name} gather"))


def _rows_out(plan: Planner, slot: Slot, elements: int, region: str) -> None:
    """Lanes back to one row per image."""
    plan.purpose = region
    plan.call(
        "scatter",
        elements,
        lambda name: images.scatter(name, elements),
        slot,
        Region(region, 0, LANES * elements * FLOAT),
    )


def _loss(plan: Planner, output: Operation) -> None:
    classes = output.elements
    plan.purpose = "loss"
    plan.call(
        "softmax_cross_entropy",
        classes,
        lambda name: loss.softmax_cross_entropy(name, classes, gradient=True),
        plan.value(output.name),
        Slot("label", PROLOGUE["label"]),
        Slot("lane_weight", PROLOGUE["lane_weight"]),
        Region("loss_settings"),
        plan.gradient(output.name),
        Slot("loss", 64, kept=True),
        Slot("correct", 64, kept=True),
    )
    plan.has_gradient(output.name)
