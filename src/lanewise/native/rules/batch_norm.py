"""Batch normalisation: statistics of the whole batch between barriers, or of one slice (ghost)."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from lanewise.native.fuse import Operation
from lanewise.native.kernels import batch_norm
from lanewise.native.nest import LANES
from lanewise.native.plan import FLOAT, PROLOGUE, Place, Region, Slot
from lanewise.native.planner import Planner
from lanewise.native.rules.windows import masked
from lanewise.net.layers import BatchNorm


def _layer(operation: Operation) -> BatchNorm:
    assert isinstance(operation.layer, BatchNorm)
    return operation.layer


def _size(operation: Operation) -> tuple[int, int]:
    """Channels, and values of each in one image."""
    return operation.shape[0], prod(operation.shape[1:])


def _told(plan: Planner, operation: Operation, what: str) -> Slot:
    """What a slice tells of each channel: two vectors of lanes."""
    return plan.scratch(f"{what} {operation.name}", 2 * operation.shape[0] * LANES * FLOAT)


def _constants(plan: Planner, operation: Operation, what: str, rows: int) -> Slot:
    """Rows of a number a channel: a worker's, or in ghost normalisation every slice's own."""
    name, size = f"{what} {operation.name}", rows * operation.shape[0] * FLOAT
    return plan.scratch(name, size) if _layer(operation).ghost else plan.constants(name, size)


def _moments(plan: Planner, operation: Operation) -> Slot:
    return _constants(plan, operation, "moments", batch_norm.MOMENTS)


def _lane_weight() -> Slot:
    return Slot("lane_weight", PROLOGUE["lane_weight"])


def _parameters(plan: Planner, operation: Operation) -> list[Region]:
    affine = _layer(operation).affine
    return [plan.parameter(operation, which) for which in ("weight", "bias")] if affine else []


def _map_bytes(operation: Operation) -> int:
    """Bytes of one channel of a slice."""
    return _size(operation)[1] * LANES * FLOAT


_TOLD = 2 * LANES * FLOAT  # bytes that a slice tells of one channel


def forward(plan: Planner, operation: Operation) -> None:
    if plan.training:
        moments = _batch_moments(plan, operation)
        _normalise_channels(plan, operation, moments, plan.value(operation.name))
        return
    constants = inference_constants(plan, operation.node, _layer(operation), operation.shape)
    rectifier, plus = _rectifier(operation), len(operation.inputs) > 1
    plan.call(
        "normalise_fixed",
        (_size(operation), plus, rectifier),
        lambda name: batch_norm.normalise(
            name, *_size(operation), moments=False, plus=plus, rectifier=rectifier
        ),
        plan.value(operation.inputs[0]),
        constants,
        *map(plan.value, operation.inputs[1:]),
        plan.value(operation.name),
    )


def _rectifier(operation: Operation) -> str:
    """What follows in the same pass. (The gradient of a joined ReLU is masked by those who write
    it, that of a rectifier by this layer itself.)"""
    return "relu" if operation.relu else operation.rectifier


def _normalise_channels(plan: Planner, operation: Operation, moments: Slot, target: Slot) -> None:
    (channels, pixels), plus = _size(operation), len(operation.inputs) > 1
    rectifier, one = _rectifier(operation), _map_bytes(operation)
    plan.call_channels(
        "normalise",
        (pixels, plus, rectifier),
        lambda name, block: batch_norm.normalise(
            name, block, pixels, moments=True, plus=plus, rectifier=rectifier
        ),
        channels,
        (plan.value(operation.inputs[0]), one),
        (moments, batch_norm.MOMENTS * FLOAT),
        *((plan.value(name), one) for name in operation.inputs[1:]),
        (target, one),
    )


def value_again(plan: Planner, name: str) -> Slot:
    """An operation's value for its only reader's gradient: a normalised value is worked out anew
    from the value before it, which the gradient of the normalisation needs anyway. To keep it for
    every slice until then would cost more, in memory and in time to fetch it."""
    operation = plan.by_name[name]
    alone = plan.uses[name] == 1 and len(operation.inputs) == 1
    if not (isinstance(operation.layer, BatchNorm) and alone and len(operation.shape) == 3):
        return plan.value(name)
    again = plan.scratch(f"{name} again", operation.elements * LANES * FLOAT)
    reader, plan.purpose = plan.purpose, f"{name} gradient"
    _normalise_channels(plan, operation, _moments(plan, operation), again)
    plan.purpose = reader
    return again


def inference_constants(plan: Planner, node: str, layer: BatchNorm, shape: tuple[int, ...]) -> Slot:
    """Scale and shift from the running statistics, worked out by every worker when it begins."""
    parameters = ("weight", "bias") if layer.affine else ()
    target = plan.constants(f"scale and shift {node}", 2 * shape[0] * FLOAT)
    plan.call(
        "inference_constants",
        (shape[0], layer.eps, layer.affine),
        lambda name: batch_norm.inference_constants(name, shape[0], layer.eps, affine=layer.affine),
        plan.buffer(node, "running_mean"),
        plan.buffer(node, "running_var"),
        *(plan.parameter_of(node, which) for which in parameters),
        target,
        who="worker",
    )
    return target


def folded_norm(plan: Planner, operation: Operation) -> list[Slot]:
    """Scale and shift of the normalisation that an operation applies to its own result."""
    if operation.norm is None:
        return []
    both = inference_constants(plan, *operation.norm, operation.shape)
    return [both, replace(both, offset=operation.shape[0] * FLOAT)]


def _batch_moments(plan: Planner, operation: Operation) -> Slot:
    """Mean and deviation of this batch, and from them scale and shift."""
    layer, size = _layer(operation), _size(operation)
    told, moments = _told(plan, operation, "statistics"), _moments(plan, operation)
    plan.call_channels(
        "batch_statistics",
        size[1],
        lambda name, block: batch_norm.statistics(name, block, size[1]),
        size[0],
        (plan.value(operation.inputs[0]), _map_bytes(operation)),
        (told, _TOLD),
    )
    key = (*size, layer.eps, layer.affine)
    parameters = _parameters(plan, operation)
    if layer.ghost:
        plan.call(
            "collect_slice",
            key,
            lambda name: batch_norm.collect_slice(name, *key[:3], affine=layer.affine),
            told,
            _lane_weight(),
            *parameters,
            moments,
        )
        plan.at_end(lambda: _running_of_slices(plan, operation, moments))
    else:
        plan.barrier()
        plan.call(
            "collect",
            key,
            lambda name: batch_norm.collect(name, *key[:3], affine=layer.affine),
            told,
            *parameters,
            moments,
            symbols=("slices", "images"),
            who="worker",
        )
        _running(plan, operation, moments)
    return moments


def _running(plan: Planner, operation: Operation, moments: Slot) -> None:
    key = (operation.shape[0], _layer(operation).momentum)
    plan.call(
        "running",
        key,
        lambda name: batch_norm.running(name, *key),
        moments,
        plan.buffer(operation.node, "running_mean"),
        plan.buffer(operation.node, "running_var"),
        who="leader",
    )


def _running_of_slices(plan: Planner, operation: Operation, moments: Slot) -> None:
    """After all slices: the first worker reads the moments of each."""
    key = (moments.size // FLOAT, operation.shape[0], _layer(operation).momentum)
    plan.purpose = f"{operation.name} running"
    plan.call(
        "running_of_slices",
        key,
        lambda name: batch_norm.running_of_slices(name, *key),
        moments,
        plan.buffer(operation.node, "running_mean"),
        plan.buffer(operation.node, "running_var"),
        symbols=("slices",),
        who="leader",
    )


def gradient(plan: Planner, operation: Operation) -> None:
    layer, size = _layer(operation), _size(operation)
    source, dy = operation.inputs[0], plan.gradient(operation.name)
    wanted = plan.wants_gradient(source)
    if layer.affine or wanted:
        told = _told(plan, operation, "gradient sums")
        affine, rectifier = layer.affine, operation.rectifier
        plan.call_channels(
            "batch_gradient_sums",
            (size[1], affine, rectifier),
            lambda name, block: batch_norm.gradient_sums(
                name, block, size[1], affine=affine, rectifier=rectifier
            ),
            size[0],
            (plan.value(source), _map_bytes(operation)),
            (dy, _map_bytes(operation)),
            (_moments(plan, operation), batch_norm.MOMENTS * FLOAT),
            (told, _TOLD),
            *((plan.partial(operation, w), FLOAT) for w in ("weight", "bias") if affine),
        )
    if wanted:
        _input_gradient(plan, operation, told)
    for other in operation.inputs[1:]:
        plan.pass_gradient(operation, other)


def _input_gradient(plan: Planner, operation: Operation, told: Slot) -> None:
    source, size = operation.inputs[0], _size(operation)
    pull = _collect_pull(plan, operation, told)
    mask, rectifier = plan.joined_relu(source), operation.rectifier

    def emit(add: bool, target: Slot) -> None:
        one = _map_bytes(operation)
        plan.call_channels(
            "batch_gradient",
            (size[1], rectifier, mask, add),
            lambda name, block: batch_norm.gradient(
                name, block, size[1], rectifier=rectifier, mask=mask, add=add
            ),
            size[0],
            (plan.value(source), one),
            (plan.gradient(operation.name), one),
            (_moments(plan, operation), batch_norm.MOMENTS * FLOAT),
            (pull, 2 * FLOAT),
            (_lane_weight(), 0),
            *((value, one) for value in masked(plan, source)),
            (target, one),
        )

    plan.contribute(source, lambda target: emit(False, target), lambda target: emit(True, target))


def _collect_pull(plan: Planner, operation: Operation, told: Slot) -> Slot:
    """What all images pull at each of them, from the sums that the slices told."""
    size, moments = _size(operation), _moments(plan, operation)
    pull = _constants(plan, operation, "pull", 2)
    if _layer(operation).ghost:
        places: tuple[Place, ...] = (told, _lane_weight(), moments, pull)
        plan.call(
            "collect_gradient_slice",
            size,
            lambda name: batch_norm.collect_gradient_slice(name, *size),
            *places,
        )
        return pull
    plan.barrier()
    plan.call(
        "collect_gradient",
        size,
        lambda name: batch_norm.collect_gradient(name, *size),
        told,
        moments,
        pull,
        symbols=("slices", "images"),
        who="worker",
    )
    return pull
