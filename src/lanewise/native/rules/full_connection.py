"""Full connections: forward, input gradient; weight and bias gradients as jobs."""

from __future__ import annotations

from math import prod

from lanewise.native.fuse import Operation
from lanewise.native.kernels import images, linear
from lanewise.native.nest import LANES
from lanewise.native.plan import FLOAT, block_rows
from lanewise.native.planner import Planner
from lanewise.native.rules.windows import masked
from lanewise.native.tiles import linear_gradient_tile, linear_maps
from lanewise.net.layers import Linear


def _features(operation: Operation) -> tuple[int, int]:
    layer = operation.layer
    assert isinstance(layer, Linear)
    return layer.features, prod(operation.input_shapes[0])


def linear_forward(plan: Planner, operation: Operation) -> None:
    layer = operation.layer
    assert isinstance(layer, Linear)
    outputs, inputs = _features(operation)
    bias = [plan.parameter(operation, "bias")] if layer.bias else []
    plan.call_wide(
        "linear_forward",
        (outputs, inputs, layer.bias, operation.relu),
        lambda name, slices: linear.forward(
            name,
            outputs,
            inputs,
            slices,
            bias=layer.bias,
            relu=operation.relu,
            maps=linear_maps(plan.target, outputs, slices),
        ),
        plan.value(operation.inputs[0]),
        plan.parameter(operation, "weight"),
        *bias,
        plan.value(operation.name),
    )


def linear_gradient(plan: Planner, operation: Operation) -> None:
    layer, source = operation.layer, operation.inputs[0]
    assert isinstance(layer, Linear)
    outputs, inputs = _features(operation)
    size = images.row_blocks(inputs) * LANES * LANES * FLOAT
    rows = plan.scratch(f"rows {source}", size, kept=True, maps=True)
    plan.call("to_rows", inputs, lambda n: images.to_rows(n, inputs), plan.value(source), rows)
    dy = plan.gradient(operation.name)
    block = block_rows(outputs, inputs)
    weight = plan.shelf.get(
        "linear_weight_gradient",
        (outputs, inputs, block),
        lambda n: linear.weight_gradient(
            n, outputs, inputs, block, linear_gradient_tile(plan.target, block, inputs)
        ),
    )
    plan.job(plan.layout.parameters[f"{operation.node}.weight"], block, weight, (rows, dy))
    if layer.bias:
        bias = plan.shelf.get(
            "linear_bias_gradient", outputs, lambda n: linear.bias_gradient(n, outputs)
        )
        plan.job(plan.layout.parameters[f"{operation.node}.bias"], outputs, bias, (dy,))
    if plan.wants_gradient(source):
        mask = plan.joined_relu(source)
        plan.contribute(
            source,
            lambda target: plan.call_wide(
                "linear_input_gradient",
                (outputs, inputs, mask),
                lambda name, slices: linear.input_gradient(
                    name,
                    outputs,
                    inputs,
                    slices,
                    mask=mask,
                    maps=linear_maps(plan.target, inputs, slices),
                ),
                dy,
                plan.parameter(operation, "weight"),
                *masked(plan, source),
                target,
            ),
        )
