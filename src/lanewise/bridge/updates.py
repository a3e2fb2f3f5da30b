"""The engine's optimizers against torch.optim, step by step.

Both start from the same parameters. After every step of the engine its own gradients (which the
oracle has judged already) are handed to torch.optim, which works in float64: what differs is the
update alone. Running statistics are judged by the last step: from the engine's own parameters and
statistics before it, PyTorch says what they become.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from lanewise.bridge.oracle import Trial, question
from lanewise.bridge.reference import Reference, Tensor, Values
from lanewise.bridge.sums import EPSILON
from lanewise.bridge.verdict import Row
from lanewise.native.optimizers import SGD, AdamW, Optimizer

if TYPE_CHECKING:
    import torch

    from lanewise.native.program import Program

STEPS = 3
MARGIN = 8.0  # over the rounding of one operation, for each step


def _sgd(optimizer: SGD, parameters: list[torch.Tensor], rate: float) -> torch.optim.Optimizer:
    import torch

    return torch.optim.SGD(
        parameters,
        lr=rate,
        momentum=optimizer.momentum,
        nesterov=optimizer.nesterov,
        weight_decay=optimizer.weight_decay,
    )


def _adamw(optimizer: AdamW, parameters: list[torch.Tensor], rate: float) -> torch.optim.Optimizer:
    import torch

    return torch.optim.AdamW(
        parameters,
        lr=rate,
        betas=optimizer.betas,
        eps=optimizer.eps,
        weight_decay=optimizer.weight_decay,
    )


# Kind → (torch's twin, our state arrays → torch's names for them, a learning rate to try).
TWINS: dict[type, tuple[Any, dict[str, str], float]] = {
    SGD: (_sgd, {"momentum": "momentum_buffer"}, 0.05),
    AdamW: (_adamw, {"exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}, 0.003),
}


def judge_updates(
    program: Program, optimizer: Optimizer, images: Values, labels: Values, steps: int = STEPS
) -> list[Row]:
    """Rows `<parameter>.step`, `<parameter>.<state>` and `<buffer>.step` after some steps on the
    same images.

    A parameter's error is relative to how far it was moved; rates differ from step to step, as in
    a schedule.
    """
    import torch

    make, states, rate = TWINS[type(optimizer)]
    before = {name: array.astype("f8") for name, array in program.parameters.items()}
    twins = {name: torch.from_numpy(array.copy()) for name, array in before.items()}
    reference = make(optimizer, list(twins.values()), rate)
    for number in range(1, steps + 1):
        reference.param_groups[0]["lr"] = rate / number
        running = _running(program, images, labels, number - 1) if number == steps else {}
        program.step(images, labels, lr=rate / number)
        for name, twin in twins.items():
            twin.grad = torch.from_numpy(program.gradients[name].astype("f8"))
        reference.step()
    rows = []
    for name, twin in twins.items():
        rows.append(_moved_row(name, program.parameters[name], twin.numpy(), before[name], steps))
        rows += _state_rows(program, name, reference.state[twin], states, steps)
    rows += (_buffer_row(name, program.buffers[name], tensor) for name, tensor in running.items())
    return rows


def _running(program: Program, images: Values, labels: Values, step: int) -> dict[str, Tensor]:
    """What the running statistics will be after this step (0, 1, …)."""
    if not program.buffers:
        return {}
    expected = Reference(question(program, Trial(len(images)), images, labels, step)).tensors
    return {name: expected[name] for name in program.buffers}


def _buffer_row(name: str, computed: Values, expected: Tensor) -> Row:
    error = float(np.abs(computed - expected.values).max(initial=0.0))
    return Row(f"{name}.step", error / expected.size, expected.tolerance / expected.size)


def _moved_row(name: str, computed: Values, wanted: Values, before: Values, steps: int) -> Row:
    moved = float(np.abs(wanted - before).max(initial=0.0)) or 1.0
    largest = float(np.abs(wanted).max(initial=0.0))
    error = float(np.abs(computed - wanted).max(initial=0.0))
    allowed = MARGIN * EPSILON * steps * (largest + moved)
    return Row(f"{name}.step", error / moved, allowed / moved)


def _state_rows(
    program: Program, name: str, torchs: dict[str, Any], states: dict[str, str], steps: int
) -> Iterator[Row]:
    for ours, theirs in states.items():
        if torchs.get(theirs) is None:  # plain SGD keeps no momentum
            continue
        wanted = torchs[theirs].numpy()
        largest = float(np.abs(wanted).max(initial=0.0)) or 1.0
        computed = program.optimizer_state[f"{name}.{ours}"]
        error = float(np.abs(computed - wanted).max(initial=0.0))
        yield Row(f"{name}.{ours}", error / largest, MARGIN * EPSILON * steps)
