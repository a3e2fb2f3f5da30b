"""Convolution over a table of connections: forward, weight, bias and input gradients."""

from __future__ import annotations

from lanewise.native.fuse import Operation
from lanewise.native.kernels import conv, partial_conv
from lanewise.native.kernels.taps import forward_taps, gradient_taps
from lanewise.native.plan import Slot
from lanewise.native.planner import Planner
from lanewise.native.rules.batch_norm import folded_norm
from lanewise.native.rules.windows import masked, taps
from lanewise.native.tiles import correlation_tile
from lanewise.native.weight_ways import weight_tile
from lanewise.net.layers import PartialConv


def partial_forward(plan: Planner, operation: Operation) -> None:
    layer = operation.layer
    assert isinstance(layer, PartialConv)
    connections = partial_conv.forward_connections(layer.table, operation.input_shapes[0][0])
    rows, columns = taps(operation, forward_taps)
    key = (connections, rows, columns, correlation_tile(plan.target, 1, columns).columns)
    affine = operation.norm is not None
    plan.call(
        "partial_forward",
        (key, layer.bias, affine, operation.relu),
        lambda name: partial_conv.correlate_connected(
            name, *key, bias=layer.bias, affine=affine, relu=operation.relu
        ),
        plan.value(operation.inputs[0]),
        plan.parameter(operation, "weight"),
        *([plan.parameter(operation, "bias")] if layer.bias else []),
        *folded_norm(plan, operation),
        plan.value(operation.name),
    )


def partial_gradient(plan: Planner, operation: Operation) -> None:
    layer = operation.layer
    assert isinstance(layer, PartialConv)
    connections = partial_conv.forward_connections(layer.table, operation.input_shapes[0][0])
    rows, columns = taps(operation, forward_taps)
    key = (connections, rows, columns, weight_tile(plan.target, 1, 1, rows, columns))
    dy = plan.gradient(operation.name)
    plan.call(
        "partial_weight_gradient",
        key,
        lambda name: partial_conv.weight_gradient_connected(name, *key),
        plan.value(operation.inputs[0]),
        dy,
        plan.partial(operation, "weight"),
    )
    if layer.bias:
        kernels, height, width = operation.shape
        plan.call(
            "conv_bias_gradient",
            (kernels, height * width),
            lambda name: conv.bias_gradient(name, kernels, height * width),
            dy,
            plan.partial(operation, "bias"),
        )
    if plan.wants_gradient(operation.inputs[0]):
        _input_gradient(plan, operation)


def _input_gradient(plan: Planner, operation: Operation) -> None:
    layer, source = operation.layer, operation.inputs[0]
    assert isinstance(layer, PartialConv)
    connections = partial_conv.gradient_connections(layer.table, operation.input_shapes[0][0])
    rows, columns = taps(operation, gradient_taps)
    key = (connections, rows, columns, correlation_tile(plan.target, 1, columns).columns)
    mask = plan.joined_relu(source)

    def emit(add: bool, target: Slot) -> None:
        plan.call(
            "partial_input_gradient",
            (key, mask, add),
            lambda name: partial_conv.correlate_connected(name, *key, mask=mask, accumulate=add),
            plan.gradient(operation.name),
            plan.parameter(operation, "weight"),
            *masked(plan, source),
            target,
        )

    plan.contribute(source, lambda target: emit(False, target), lambda target: emit(True, target))
