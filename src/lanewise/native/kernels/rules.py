"""The table from layer kind to kernels: what computes it, and what computes its gradients.

A rule reads an operation's sizes, asks the planner for places, and calls kernels. `FORWARD` and
`GRADIENT` have the same keys; `flatten` is in neither because it moves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from zlib import crc32

from lanewise.native.fuse import Operation
from lanewise.native.kernels import activation, conv, dropout, images, linear, pool
from lanewise.native.kernels.taps import Taps, forward_taps, gradient_taps
from lanewise.native.nest import ELEMENT_BYTES, LANES
from lanewise.native.plan import FLOAT, Planner, Slot, block_rows
from lanewise.native.tiles import (
    correlation_tile,
    linear_gradient_tile,
    linear_maps,
    weight_tile,
)
from lanewise.net.layers import (
    AvgPool,
    Conv,
    Dropout,
    GlobalAvg,
    GlobalMax,
    GlobalSum,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool,
    Pool,
    ReLU,
    Sigmoid,
    SumPool,
    Tanh,
)
from lanewise.size.shapes import Window, resolve_window

Rule = Callable[[Planner, Operation], None]


# ---- convolution --------------------------------------------------------------------------------


def _window(operation: Operation) -> Window:
    layer = operation.layer
    assert isinstance(layer, Conv | Pool)
    return resolve_window(layer, operation.input_shapes[0])


def _taps(operation: Operation, make: Callable[..., Taps]) -> tuple[Taps, Taps]:
    """Row taps and column taps of a window, forward or gradient."""
    window = _window(operation)
    _, *sizes = operation.input_shapes[0]
    rows, columns = (
        make(
            sizes[axis],
            window.out[axis],
            window.kernel[axis],
            window.stride[axis],
            window.pad[axis][0],
            window.dilation[axis],
        )
        for axis in (0, 1)
    )
    return rows, columns


def conv_forward(plan: Planner, operation: Operation) -> None:
    layer = operation.layer
    assert isinstance(layer, Conv)
    rows, columns = _taps(operation, forward_taps)
    kernels, channels = layer.kernels // layer.groups, operation.input_shapes[0][0] // layer.groups
    taps = rows.taps * columns.taps
    sizes = conv.Correlation(
        layer.groups,
        kernels,
        channels,
        rows,
        columns,
        weight_group=kernels * channels * taps,
        weight_map=channels * taps,
        weight_source=taps,
    )
    tile = correlation_tile(plan.target, kernels, columns)
    bias = [plan.parameter(operation, "bias")] if layer.bias else []
    plan.call(
        "conv_forward",
        (sizes, tile, layer.bias, operation.relu),
        lambda name: conv.correlate(name, sizes, tile, bias=layer.bias, relu=operation.relu),
        plan.value(operation.inputs[0]),
        plan.parameter(operation, "weight"),
        *bias,
        plan.value(operation.name),
    )


def conv_gradient(plan: Planner, operation: Operation) -> None:
    layer = operation.layer
    assert isinstance(layer, Conv)
    kernels, channels = layer.kernels // layer.groups, operation.input_shapes[0][0] // layer.groups
    rows, columns = _taps(operation, forward_taps)
    tile = weight_tile(plan.target, kernels, channels, rows, columns)
    dy = plan.gradient(operation.name)
    sums = layer.kernels * channels * rows.taps * columns.taps * LANES * FLOAT
    plan.call(
        "conv_weight_gradient",
        (layer.groups, kernels, channels, rows, columns, tile),
        lambda name: conv.weight_gradient(
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
    rows, columns = _taps(operation, gradient_taps)
    taps = rows.taps * columns.taps
    sizes = conv.Correlation(
        layer.groups,
        channels,
        kernels,
        rows,
        columns,
        weight_group=kernels * channels * taps,
        weight_map=taps,
        weight_source=channels * taps,
    )
    tile = correlation_tile(plan.target, channels, columns)
    mask = plan.joined_relu(source)
    plan.contribute(
        source,
        lambda target: plan.call(
            "conv_input_gradient",
            (sizes, tile, mask),
            lambda name: conv.correlate(name, sizes, tile, mask=mask),
            plan.gradient(operation.name),
            plan.parameter(operation, "weight"),
            *_masked(plan, source),
            target,
        ),
    )


def _masked(plan: Planner, source: str) -> list[Slot]:
    """The value whose sign masks a gradient, where a ReLU was joined to its producer."""
    return [plan.value(source)] if plan.joined_relu(source) else []


# ---- full connection ----------------------------------------------------------------------------


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
    rows = plan.scratch(f"rows {source}", images.row_blocks(inputs) * LANES * LANES * FLOAT, True)
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
                *_masked(plan, source),
                target,
            ),
        )


# ---- pooling ------------------------------------------------------------------------------------


def max_pool_forward(plan: Planner, operation: Operation) -> None:
    rows, columns = _taps(operation, forward_taps)
    channels = operation.shape[0]
    argument = [_argument(plan, operation)] if plan.training else []
    plan.call(
        "max_pool",
        (channels, rows, columns, operation.relu, plan.training),
        lambda name: pool.max_pool(
            name, channels, rows, columns, relu=operation.relu, argument=plan.training
        ),
        plan.value(operation.inputs[0]),
        plan.value(operation.name),
        *argument,
    )


def _argument(plan: Planner, operation: Operation) -> Slot:
    """Which tap of each window, or which pixel of each map, was the largest."""
    layer = operation.layer
    kind = pool.argument_type(prod(layer.kernel)) if isinstance(layer, MaxPool) else "i32"
    size = operation.elements * LANES * ELEMENT_BYTES[kind]
    return plan.scratch(f"argument {operation.name}", size)


def max_pool_gradient(plan: Planner, operation: Operation) -> None:
    rows, columns = _taps(operation, gradient_taps)
    channels, source = operation.shape[0], operation.inputs[0]
    mask = plan.joined_relu(source)
    plan.contribute(
        source,
        lambda target: plan.call(
            "max_pool_gradient",
            (channels, rows, columns, mask),
            lambda name: pool.max_pool_gradient(name, channels, rows, columns, mask=mask),
            _argument(plan, operation),
            plan.gradient(operation.name),
            *_masked(plan, source),
            target,
        ),
    )


def _scale(operation: Operation) -> tuple[tuple[float, ...], ...] | None:
    """What each sum is multiplied by: the average's divisor, or nothing."""
    if isinstance(operation.layer, SumPool):
        return None
    return pool.average_scale(_window(operation))


def sum_pool_forward(plan: Planner, operation: Operation) -> None:
    rows, columns = _taps(operation, forward_taps)
    channels, scale = operation.shape[0], _scale(operation)
    plan.call(
        "sum_pool",
        (channels, rows, columns, scale),
        lambda name: pool.sum_pool(name, channels, rows, columns, scale=scale),
        plan.value(operation.inputs[0]),
        plan.value(operation.name),
    )


def sum_pool_gradient(plan: Planner, operation: Operation) -> None:
    rows, columns = _taps(operation, gradient_taps)
    channels, source, scale = operation.shape[0], operation.inputs[0], _scale(operation)
    mask = plan.joined_relu(source)
    plan.contribute(
        source,
        lambda target: plan.call(
            "sum_pool_gradient",
            (channels, rows, columns, scale, mask),
            lambda name: pool.sum_pool_gradient(
                name, channels, rows, columns, scale=scale, mask=mask
            ),
            plan.gradient(operation.name),
            *_masked(plan, source),
            target,
        ),
    )


_MODES: dict[type[Layer], str] = {GlobalMax: "max", GlobalAvg: "avg", GlobalSum: "sum"}


def global_pool_forward(plan: Planner, operation: Operation) -> None:
    mode, size = _MODES[type(operation.layer)], operation.input_shapes[0]
    argument = mode == "max" and plan.training
    plan.call(
        f"global_{mode}",
        (size, argument, operation.relu),
        lambda name: pool.global_pool(name, mode, *size, argument=argument, relu=operation.relu),
        plan.value(operation.inputs[0]),
        plan.value(operation.name),
        *([_argument(plan, operation)] if argument else []),
    )


def global_pool_gradient(plan: Planner, operation: Operation) -> None:
    mode, size = _MODES[type(operation.layer)], operation.input_shapes[0]
    source = operation.inputs[0]
    mask = plan.joined_relu(source)
    plan.contribute(
        source,
        lambda target: plan.call(
            f"global_{mode}_gradient",
            (size, mask),
            lambda name: pool.global_pool_gradient(name, mode, *size, mask=mask),
            *([_argument(plan, operation)] if mode == "max" else []),
            plan.gradient(operation.name),
            *_masked(plan, source),
            target,
        ),
    )


# ---- activations and dropout --------------------------------------------------------------------


def _activation(operation: Operation) -> tuple[str, int, float]:
    layer = operation.layer
    slope = layer.slope if isinstance(layer, LeakyReLU) else 0.0
    return layer.word, operation.elements, slope


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
    plan.contribute(
        source,
        lambda target: plan.call(
            f"{key[0]}_gradient",
            (key, mask),
            lambda name: activation.activation_gradient(name, *key, mask=mask),
            plan.gradient(operation.name),
            plan.value(operation.name),
            *_masked(plan, source),
            target,
        ),
    )


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
            *_masked(plan, source),
            target,
        ),
    )


FORWARD: dict[type[Layer], Rule] = {
    Conv: conv_forward,
    MaxPool: max_pool_forward,
    AvgPool: sum_pool_forward,
    SumPool: sum_pool_forward,
    GlobalMax: global_pool_forward,
    GlobalAvg: global_pool_forward,
    GlobalSum: global_pool_forward,
    Linear: linear_forward,
    ReLU: activation_forward,
    LeakyReLU: activation_forward,
    Tanh: activation_forward,
    Sigmoid: activation_forward,
    Dropout: dropout_forward,
}

GRADIENT: dict[type[Layer], Rule] = {
    Conv: conv_gradient,
    MaxPool: max_pool_gradient,
    AvgPool: sum_pool_gradient,
    SumPool: sum_pool_gradient,
    GlobalMax: global_pool_gradient,
    GlobalAvg: global_pool_gradient,
    GlobalSum: global_pool_gradient,
    Linear: linear_gradient,
    ReLU: activation_gradient,
    LeakyReLU: activation_gradient,
    Tanh: activation_gradient,
    Sigmoid: activation_gradient,
    Dropout: dropout_gradient,
}
