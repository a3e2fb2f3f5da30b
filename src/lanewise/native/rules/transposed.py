"""Transposed convolution: a convolution's kernels with input and output swapped.

The forward is that convolution's input gradient, the input gradient its forward; its weight
gradient takes the layer's gradient as source and the layer's input as gradient. The weights lie as
(channels, kernels / groups, R, S), which are the convolution's own axes.
"""

from __future__ import annotations

from lanewise.native.fuse import Operation
from lanewise.native.kernels import conv, weights
from lanewise.native.kernels.correlation import Correlation
from lanewise.native.kernels.taps import forward_taps, gradient_taps
from lanewise.native.nest import LANES
from lanewise.native.plan import FLOAT, Slot
from lanewise.native.planner import Planner
from lanewise.native.rules.batch_norm import folded_norm
from lanewise.native.rules.windows import masked, packed, transposed_taps
from lanewise.native.ways import correlation_way
from lanewise.native.weight_ways import weight_tile
from lanewise.net.layers import TransposedConv


def _layer(operation: Operation) -> TransposedConv:
    assert isinstance(operation.layer, TransposedConv)
    return operation.layer


def _maps(operation: Operation) -> tuple[int, int]:
    """Kernels and channels of a group."""
    groups = _layer(operation).groups
    return operation.shape[0] // groups, operation.input_shapes[0][0] // groups


def transposed_forward(plan: Planner, operation: Operation) -> None:
    layer, (kernels, channels) = _layer(operation), _maps(operation)
    rows, columns = transposed_taps(operation, gradient_taps)
    area = rows.taps * columns.taps
    sizes = Correlation(
        layer.groups,
        kernels,
        channels,
        rows,
        columns,
        weight_group=kernels * channels * area,
        weight_map=area,
        weight_source=kernels * area,
    )
    tile = correlation_way(plan.target, sizes, plan.precision)
    affine = operation.norm is not None
    plan.call(
        "conv_transposed_forward",
        (sizes, tile, layer.bias, affine, operation.relu),
        lambda name: conv.correlate(
            name, sizes, tile, bias=layer.bias, affine=affine, relu=operation.relu
        ),
        plan.value(operation.inputs[0]),
        plan.parameter(operation, "weight"),
        *packed(plan, operation, sizes, tile),
        *([plan.parameter(operation, "bias")] if layer.bias else []),
        *folded_norm(plan, operation),
        plan.value(operation.name),
    )


def transposed_gradient(plan: Planner, operation: Operation) -> None:
    layer = _layer(operation)
    _weight_gradient(plan, operation)
    if layer.bias:
        kernels, height, width = operation.shape
        plan.call(
            "conv_bias_gradient",
            (kernels, height * width),
            lambda name: conv.bias_gradient(name, kernels, height * width),
            plan.gradient(operation.name),
            plan.partial(operation, "bias"),
        )
    if plan.wants_gradient(operation.inputs[0]):
        _input_gradient(plan, operation)


def _weight_gradient(plan: Planner, operation: Operation) -> None:
    layer, (kernels, channels) = _layer(operation), _maps(operation)
    rows, columns = transposed_taps(operation, forward_taps)
    tile = weight_tile(plan.target, channels, kernels, rows, columns)
    key = (layer.groups, channels, kernels, rows, columns, tile)
    sums = layer.groups * channels * kernels * rows.taps * columns.taps * LANES * FLOAT
    plan.call(
        "conv_transposed_weight_gradient",
        key,
        lambda name: weights.weight_gradient(name, *key),
        plan.gradient(operation.name),
        plan.value(operation.inputs[0]),
        *([plan.scratch(f"sums {operation.name}", sums)] if tile.rows else []),
        plan.partial(operation, "weight"),
    )


def _input_gradient(plan: Planner, operation: Operation) -> None:
    layer, source, (kernels, channels) = _layer(operation), operation.inputs[0], _maps(operation)
    rows, columns = transposed_taps(operation, forward_taps)
    area = rows.taps * columns.taps
    sizes = Correlation(
        layer.groups,
        channels,
        kernels,
        rows,
        columns,
        weight_group=kernels * channels * area,
        weight_map=kernels * area,
        weight_source=area,
    )
    tile, mask = correlation_way(plan.target, sizes, plan.precision), plan.joined_relu(source)

    def emit(add: bool, target: Slot) -> None:
        plan.call(
            "conv_transposed_input_gradient",
            (sizes, tile, mask, add),
            lambda name: conv.correlate(name, sizes, tile, mask=mask, accumulate=add),
            plan.gradient(operation.name),
            plan.parameter(operation, "weight"),
            *packed(plan, operation, sizes, tile),
            *masked(plan, source),
            target,
        )

    plan.contribute(source, lambda target: emit(False, target), lambda target: emit(True, target))
