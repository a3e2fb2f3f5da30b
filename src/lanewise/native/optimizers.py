"""The optimizers as the user names them; `kernels/optimizer.py` holds what they compute.

Both follow PyTorch's definitions of the same name to rounding. The learning rate is not a field:
it is given for every step, because a schedule changes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lanewise.errors import EngineError
from lanewise.native.update_settings import SETTINGS, adamw_settings, sgd_settings


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum; Nesterov needs momentum > 0."""

    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "0 or more and below 1")
        _require(not self.nesterov or self.momentum > 0, "nesterov", True, "with momentum > 0")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        fitting = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        _require(fitting, "betas", self.betas, "two numbers, 0 or more and below 1")
        _require(self.eps > 0, "eps", self.eps, "positive")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")


def _require(fits: bool, name: str, value: object, wanted: str) -> None:
    if not fits:
        raise EngineError(f"the optimizer's {name} is {value}; it must be {wanted}")


Optimizer: TypeAlias = SGD | AdamW

#: optimizer → names of its state arrays, each shaped like the parameters
STATES: dict[type, tuple[str, ...]] = {SGD: ("momentum",), AdamW: ("exp_avg", "exp_avg_sq")}


def step_settings(optimizer: Optimizer, learning_rates: np.ndarray, steps_done: int) -> np.ndarray:
    """One row of float32 per step, as the update kernels read them."""
    rows = np.zeros((len(learning_rates), SETTINGS), np.float32)
    for i, rate in enumerate(learning_rates.tolist()):
        rows[i] = _settings(optimizer, rate, steps_done + i + 1)
    return rows


def _settings(optimizer: Optimizer, rate: float, step: int) -> np.ndarray:
    if isinstance(optimizer, SGD):
        return sgd_settings(
            rate,
            optimizer.momentum,
            nesterov=optimizer.nesterov,
            weight_decay=optimizer.weight_decay,
            first_step=step == 1,
        )
    return adamw_settings(rate, optimizer.betas, optimizer.eps, optimizer.weight_decay, step)
