"""Convolutions: forward, weight and bias gradients, input gradient."""

from __future__ import annotations

from lanewise.native.fuse import Operation
from lanewise.native.kernels import conv, weights
from lanewise.native.kernels.taps import forward_taps, gradient_taps
from lanewise.native.nest import LANES
from lanewise.native.plan import FLOAT, Planner, Slot
from lanewise.native.rules.batch_norm import folded_norm
from lanewise.native.rules.windows import masked, taps
from lanewise.native.tiles import correlation_tile, weight_tile
from lanewise.net.layers import Conv


def conv_forward(plan: Planner, operation: Operation) -> None:
    layer = operation.layer
    assert isinstance(layer, Conv)
    rows, columns = taps(operation, forward_taps)
    kernels, channels = layer.kernels // layer.groups, operation.input_shapes[0][0] // layer.groups
    area = rows.taps * columns.taps
    sizes = conv.Correlation(
        layer.groups,
        kernels,
        channels,
        rows,
        columns,
        weight_group=kernels * channels * area,
        weight_map=channels * area,
        weight_source=area,
    )
    tile = correlation_tile(plan.target, kernels, columns)
    bias = [plan.parameter(operation, "bias")] if layer.bias else []
    affine = operation.norm is not None
    plan.call(
        "conv_forward",
        (sizes, tile, layer.bias, affine, operation.relu),
        lambda name: conv.correlate(
            name, sizes, tile, bias=layer.bias, affine=affine, relu=operation.relu
        ),
        plan.value(operation.inputs[0]),
        plan.parameter(operation, "weight"),
        *bias,
        *folded_norm(plan, operation),
        plan.value(operation.name),
    )


def conv_gradient(plan: Planner, operation: Operation) -> None:
    layer = operation.layer
    assert isinstance(layer, Conv)
    kernels, channels = layer.kernels // layer.groups, operation.input_shapes[0][0] // layer.groups
    rows, columns = taps(operation, forward_taps)
    tile = weight_tile(plan.target, kernels, channels, rows, columns)
    dy = plan.gradient(operation.name)
    sums = layer.kernels * channels * rows.taps * columns.taps * LANES * FLOAT
    plan.call(
        "conv_weight_gradient",
        (layer.groups, kernels, channels, rows, columns, tile),
        lambda name: weights.weight_gradient(
            name, layer.groups, kernels, channels, rows, columns, tile
        ),
        plan.value(operation.inputs[0]),
        dy,
        *([plan.scratch(f"sums {operation.name}", sums)] if tile.rows else []),
        plan.partial(operation, "weight"),
    )
    if layer.bias:
        pixels = operation.shape[1] * operation.shape[2]
        plan.call(
            "conv_bias_gradient",
            (layer.kernels, pixels),
            lambda name: conv.bias_gradient(name, layer.kernels, pixels),
            dy,
            plan.partial(operation, "bias"),
        )
    if plan.wants_gradient(operation.inputs[0]):
        conv_input_gradient(plan, operation, kernels, channels)


def conv_input_gradient(plan: Planner, operation: Operation, kernels: int, channels: int) -> None:
    layer, source = operation.layer, operation.inputs[0]
    assert isinstance(layer, Conv)
    rows, columns = taps(operation, gradient_taps)
    area = rows.taps * columns.taps
    sizes = conv.Correlation(
        layer.groups,
        channels,
        kernels,
        rows,
        columns,
        weight_group=kernels * channels * area,
        weight_map=area,
        weight_source=channels * area,
    )
    tile = correlation_tile(plan.target, channels, columns)
    mask = plan.joined_relu(source)

    def emit(add: bool, target: Slot) -> None:
        plan.call(
            "conv_input_gradient",
            (sizes, tile, mask, add),
            lambda name: conv.correlate(name, sizes, tile, mask=mask, accumulate=add),
            plan.gradient(operation.name),
            plan.parameter(operation, "weight"),
            *masked(plan, source),
            target,
        )

    plan.contribute(source, lambda target: emit(False, target), lambda target: emit(True, target))
