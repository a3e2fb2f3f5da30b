"""The numbers of one step, as the kernels that update parameters read them.

Apart from those kernels, because a program from the cache needs no kernel written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SETTINGS = 16


def sgd_settings(
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    first_step: bool = False,
) -> NDArray[np.float32]:
    """lr, what stays of the momentum, what is added to it, momentum of the look-ahead, decay."""
    keep, gain = (0.0, 1.0) if first_step else (momentum, 1.0 - dampening)
    return _settings(lr, keep, gain, momentum, float(nesterov), weight_decay)


def adamw_settings(
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    step: int = 1,
) -> NDArray[np.float32]:
    """1 − lr · decay, 1 − β1, β2, 1 − β2, 1 / √(1 − β2^step), ε, lr / (1 − β1^step).

    They are computed in double precision here: 1 − 0.999 in float32 is off by 1e-5.
    """
    first, second = betas
    root = (1.0 - second**step) ** 0.5
    step_size = lr / (1.0 - first**step)
    decay = 1.0 - lr * weight_decay
    return _settings(decay, 1.0 - first, second, 1.0 - second, 1.0 / root, eps, step_size)


def _settings(*numbers: float) -> NDArray[np.float32]:
    return np.array(numbers + (0.0,) * (SETTINGS - len(numbers)), np.float32)
