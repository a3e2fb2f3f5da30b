"""Pooling: windows, adaptive windows and whole maps."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from lanewise.native.fuse import Operation
from lanewise.native.kernels import l2_pool, pool, subsample
from lanewise.native.kernels.taps import (
    Taps,
    adaptive_gradient_taps,
    adaptive_taps,
    forward_taps,
    gradient_taps,
)
from lanewise.native.memory import ALIGNMENT
from lanewise.native.nest import ELEMENT_BYTES, LANES, Kernel
from lanewise.native.plan import FLOAT, Place, Slot
from lanewise.native.planner import Planner
from lanewise.native.rules import shortcuts, thin_values
from lanewise.native.rules.windows import masked, taps, window
from lanewise.net.layers import (
    AdaptiveAvg,
    AdaptiveMax,
    AdaptivePool,
    AvgPool,
    GlobalAvg,
    GlobalMax,
    GlobalSum,
    Layer,
    MaxPool,
)


def forward_windows(operation: Operation) -> tuple[Taps, Taps]:
    """Output × tap → input, of windows of either sort."""
    if isinstance(operation.layer, AdaptivePool):
        return _adaptive(operation, adaptive_taps)
    return taps(operation, forward_taps)


def _gradient_taps(operation: Operation) -> tuple[Taps, Taps]:
    """Input × tap → output."""
    if isinstance(operation.layer, AdaptivePool):
        return _adaptive(operation, adaptive_gradient_taps)
    return taps(operation, gradient_taps)


def _adaptive(operation: Operation, make: Callable[[int, int], Taps]) -> tuple[Taps, Taps]:
    sizes = zip(operation.input_shapes[0][1:], operation.shape[1:], strict=True)
    rows, columns = (make(size, out) for size, out in sizes)
    return rows, columns


# ---- the largest --------------------------------------------------------------------------------


def max_pool_forward(plan: Planner, operation: Operation) -> None:
    if operation.name in plan.stored or thin_values.passed_over(plan, operation):
        return
    rows, columns = forward_windows(operation)
    channels, pixels = operation.shape[0], isinstance(operation.layer, AdaptiveMax)
    chooses = plan.training and not shortcuts.leaves_out(operation)
    chosen = (argument_of(plan, operation), _argument_bytes(operation))
    argument = [chosen] if chooses else []
    _call_channels(
        plan,
        "max_pool",
        (rows, columns, operation.relu, chooses, pixels),
        channels,
        lambda name, block: pool.max_pool(
            name,
            block,
            rows,
            columns,
            relu=operation.relu,
            argument=chooses,
            pixels=pixels,
        ),
        (plan.value(operation.inputs[0]), _map_bytes(operation.input_shapes[0])),
        (plan.value(operation.name), _map_bytes(operation.shape)),
        *argument,
    )


def argument_of(plan: Planner, operation: Operation) -> Slot:
    """Which tap of each window, or which pixel of each map, was the largest."""
    size = operation.elements * LANES * ELEMENT_BYTES[_argument_type(operation)]
    return plan.scratch(f"argument {operation.name}", size)


def _argument_type(operation: Operation) -> str:
    layer = operation.layer
    if isinstance(layer, MaxPool):
        return pool.argument_type(prod(layer.kernel))
    if isinstance(layer, AdaptiveMax):
        return pool.argument_type(prod(operation.input_shapes[0][1:]))
    return "i32"


def _argument_bytes(operation: Operation) -> int:
    """Bytes of one channel of a slice."""
    return prod(operation.shape[1:]) * LANES * ELEMENT_BYTES[_argument_type(operation)]


def _map_bytes(shape: tuple[int, ...]) -> int:
    return prod(shape[1:]) * LANES * FLOAT


def _call_channels(
    plan: Planner,
    stem: str,
    key: object,
    channels: int,
    write: Callable[[str, int], Kernel],
    *places: tuple[Place, int],
) -> None:
    """A channel at a time, where every channel begins on a cache line."""
    if any(apart % ALIGNMENT for _, apart in places):
        maps = [place for place, _ in places]
        plan.call(stem, (channels, key), lambda name: write(name, channels), *maps)
    else:
        plan.call_channels(stem, key, write, channels, *places)


def max_pool_gradient(plan: Planner, operation: Operation) -> None:
    if shortcuts.leaves_out(operation):
        sum_pool_gradient(plan, operation)
        return
    rows, columns = _gradient_taps(operation)
    channels, pixels = operation.shape[0], isinstance(operation.layer, AdaptiveMax)
    source, one = operation.inputs[0], _map_bytes(operation.input_shapes[0])
    mask = plan.joined_relu(source)
    plan.contribute(
        source,
        lambda target: _call_channels(
            plan,
            "max_pool_gradient",
            (rows, columns, mask, pixels),
            channels,
            lambda name, block: pool.max_pool_gradient(
                name, block, rows, columns, mask=mask, pixels=pixels
            ),
            (argument_of(plan, operation), _argument_bytes(operation)),
            (plan.gradient(operation.name), _map_bytes(operation.shape)),
            *((value, one) for value in masked(plan, source)),
            (target, one),
        ),
    )


# ---- sums and means -----------------------------------------------------------------------------


def pool_scale(operation: Operation) -> pool.Scale | None:
    """What each sum is multiplied by: the average's divisor, or nothing."""
    if isinstance(operation.layer, AvgPool):
        return pool.average_scale(window(operation), operation.layer.unpadded)
    if isinstance(operation.layer, AdaptiveAvg):
        return pool.adaptive_scale(*forward_windows(operation))
    return None


def sum_pool_forward(plan: Planner, operation: Operation) -> None:
    if thin_values.passed_over(plan, operation):
        return
    rows, columns = forward_windows(operation)
    channels, scale = operation.shape[0], pool_scale(operation)
    plan.call(
        "sum_pool",
        (channels, rows, columns, scale),
        lambda name: pool.sum_pool(name, channels, rows, columns, scale=scale),
        plan.value(operation.inputs[0]),
        plan.value(operation.name),
    )


def sum_pool_gradient(plan: Planner, operation: Operation) -> None:
    rows, columns = _gradient_taps(operation)
    channels, source, scale = operation.shape[0], operation.inputs[0], pool_scale(operation)
    mask = plan.joined_relu(source)

    def write(target: Slot) -> None:
        plan.call(
            "sum_pool_gradient",
            (channels, rows, columns, scale, mask),
            lambda name: pool.sum_pool_gradient(
                name, channels, rows, columns, scale=scale, mask=mask
            ),
            plan.gradient(operation.name),
            *masked(plan, source),
            target,
        )

    if shortcuts.leaves_out(operation):
        shortcuts.wait(plan, operation, lambda: plan.contribute(source, write))
    else:
        plan.contribute(source, write)


# ---- roots and coefficients ---------------------------------------------------------------------


def l2_pool_forward(plan: Planner, operation: Operation) -> None:
    key = (operation.shape[0], *taps(operation, forward_taps))
    plan.call(
        "l2_pool",
        key,
        lambda name: l2_pool.l2_pool(name, *key),
        plan.value(operation.inputs[0]),
        plan.value(operation.name),
    )


def l2_pool_gradient(plan: Planner, operation: Operation) -> None:
    key, source = (operation.shape[0], *taps(operation, gradient_taps)), operation.inputs[0]
    plan.contribute(
        source,
        lambda target: plan.call(
            "l2_pool_gradient",
            key,
            lambda name: l2_pool.l2_pool_gradient(name, *key),
            plan.gradient(operation.name),
            plan.value(operation.name),
            plan.value(source),
            target,
        ),
    )


def subsample_forward(plan: Planner, operation: Operation) -> None:
    key = (operation.shape[0], *taps(operation, forward_taps))
    plan.call(
        "subsample",
        key,
        lambda name: subsample.subsample(name, *key),
        plan.value(operation.inputs[0]),
        plan.parameter(operation, "weight"),
        plan.parameter(operation, "bias"),
        plan.value(operation.name),
    )


def subsample_gradient(plan: Planner, operation: Operation) -> None:
    key, source = (operation.shape[0], *taps(operation, forward_taps)), operation.inputs[0]
    plan.call(
        "subsample_parameter_gradients",
        key,
        lambda name: subsample.parameter_gradients(name, *key),
        plan.value(source),
        plan.gradient(operation.name),
        plan.partial(operation, "weight"),
        plan.partial(operation, "bias"),
    )
    if not plan.wants_gradient(source):
        return
    back, mask = (operation.shape[0], *taps(operation, gradient_taps)), plan.joined_relu(source)
    plan.contribute(
        source,
        lambda target: plan.call(
            "subsample_input_gradient",
            (back, mask),
            lambda name: subsample.input_gradient(name, *back, mask=mask),
            plan.gradient(operation.name),
            plan.parameter(operation, "weight"),
            *masked(plan, source),
            target,
        ),
    )


# ---- whole maps ---------------------------------------------------------------------------------

_MODES: dict[type[Layer], str] = {GlobalMax: "max", GlobalAvg: "avg", GlobalSum: "sum"}


def global_mode(operation: Operation) -> str:
    """What becomes of a whole map: "max", "avg" or "sum"."""
    return _MODES[type(operation.layer)]


def global_pool_forward(plan: Planner, operation: Operation) -> None:
    mode, size = global_mode(operation), operation.input_shapes[0]
    argument = mode == "max" and plan.training
    plan.call(
        f"global_{mode}",
        (size, argument, operation.relu),
        lambda name: pool.global_pool(name, mode, *size, argument=argument, relu=operation.relu),
        plan.value(operation.inputs[0]),
        plan.value(operation.name),
        *([argument_of(plan, operation)] if argument else []),
    )


def global_pool_gradient(plan: Planner, operation: Operation) -> None:
    mode, size = global_mode(operation), operation.input_shapes[0]
    source = operation.inputs[0]
    mask = plan.joined_relu(source)
    plan.contribute(
        source,
        lambda target: plan.call(
            f"global_{mode}_gradient",
            (size, mask),
            lambda name: pool.global_pool_gradient(name, mode, *size, mask=mask),
            *([argument_of(plan, operation)] if mode == "max" else []),
            plan.gradient(operation.name),
            *masked(plan, source),
            target,
        ),
    )
