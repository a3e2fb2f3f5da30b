"""Where batch normalisations keep what they know: statistics, constants, sums of gradients."""

from __future__ import annotations

from math import prod

from lanewise.native.fuse import Operation
from lanewise.native.kernels import batch_norm
from lanewise.native.nest import LANES
from lanewise.native.plan import FLOAT, PROLOGUE, Region, Slot
from lanewise.native.planner import Planner
from lanewise.net.layers import BatchNorm

VECTOR = LANES * FLOAT  # bytes


def layer_of(operation: Operation) -> BatchNorm:
    assert isinstance(operation.layer, BatchNorm)
    return operation.layer


def size_of(operation: Operation) -> tuple[int, int]:
    """Channels, and values of each in one image."""
    return operation.shape[0], prod(operation.shape[1:])


def told_by(plan: Planner, operation: Operation, what: str, rows: int) -> Slot:
    """What a slice tells of each channel: some vectors of lanes."""
    return plan.scratch(f"{what} {operation.name}", rows * operation.shape[0] * VECTOR)


def statistics_of(plan: Planner, operation: Operation) -> Slot:
    """What a slice tells for the moments."""
    return told_by(plan, operation, "statistics", batch_norm.TOLD)


def sums_of(plan: Planner, operation: Operation) -> Slot:
    """What a slice tells for the gradient."""
    return told_by(plan, operation, "gradient sums", 2)


def constants_of(plan: Planner, operation: Operation, what: str, rows: int) -> Slot:
    """Rows of a number a channel: a worker's, or in ghost normalisation every slice's own."""
    name, size = f"{what} {operation.name}", rows * operation.shape[0] * FLOAT
    return plan.scratch(name, size) if layer_of(operation).ghost else plan.constants(name, size)


def moments_of(plan: Planner, operation: Operation) -> Slot:
    return constants_of(plan, operation, "moments", batch_norm.MOMENTS)


def lane_weight() -> Slot:
    return Slot("lane_weight", PROLOGUE["lane_weight"])


def map_bytes(operation: Operation) -> int:
    """Bytes of one channel of a slice."""
    return size_of(operation)[1] * LANES * FLOAT


def rectifier_of(operation: Operation) -> str:
    """What follows in the same pass. (The gradient of a joined ReLU is masked by those who write
    it, that of a rectifier by this layer itself.)"""
    return "relu" if operation.relu else operation.rectifier


def partials_of(plan: Planner, operation: Operation) -> list[Region]:
    """Where this group of slices sums the gradients of weight and bias."""
    affine = layer_of(operation).affine
    return [plan.partial(operation, which) for which in ("weight", "bias")] if affine else []
