"""What a compiled net tells the program that holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Facts:
    """What a compiled net tells the program; stored beside the machine code."""

    arena_bytes: int
    kept_bytes: int
    phases: int  # of a training step, jobs not counted
    training: bool
    input_gradient: bool
    exact: bool  # no algorithm that rounds more than the sums as the layers define them
    precision: str  # how maps are kept: "fp32" or "bf16"
    width: int  # slices that full connections take at once
    ticks: Mapping[str, Sequence[str]]  # direction → purpose of each call, if profiled
    ticks_at: int  # where in each arena their clock ticks stand
    # Purpose → names of the kernels that serve it, without their numbers, if profiled.
    kernels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    constant_bytes: int = 0  # what inference works out of the parameters, for all threads
    shares: bool = False  # whether threads can share a slice of inference
