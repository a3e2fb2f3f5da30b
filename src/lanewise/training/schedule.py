"""Learning-rate schedules: pure functions from the step to the rate.

Every schedule takes (step, steps, peak, warm_up): the step 0 … steps − 1, how many there are, the
highest rate, and the share of the steps in which the rate rises to it. Definitions are those of
PyTorch's schedulers of the same name, so that a recipe can be carried over.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Schedule: TypeAlias = Callable[[int, int, float, float], float]

# One-cycle begins at peak / 25 and ends at a ten-thousandth of that (Smith and Topin 2018, and
# PyTorch's defaults div_factor and final_div_factor).
START = 1 / 25
END = START / 1e4


def constant(step: int, steps: int, peak: float, warm_up: float) -> float:
    """The peak, after a linear rise."""
    return peak * _rise(step, steps, warm_up)


def cosine(step: int, steps: int, peak: float, warm_up: float) -> float:
    """A linear rise, then half a cosine from the peak towards 0 (CosineAnnealingLR)."""
    rising = _rising_steps(steps, warm_up)
    if step < rising:
        return peak * _rise(step, steps, warm_up)
    return _cosine(peak, 0.0, (step - rising) / max(1, steps - rising))


def one_cycle(step: int, steps: int, peak: float, warm_up: float) -> float:
    """Up from peak / 25 and down to nearly 0, both along half a cosine (OneCycleLR)."""
    top = warm_up * steps - 1
    if step <= top:
        return _cosine(peak * START, peak, step / top if top > 0 else 1.0)
    return _cosine(peak, peak * END, (step - top) / max(1.0, steps - 1 - top))


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "cosine": cosine,
    "one-cycle": one_cycle,
}


def learning_rates(
    name: str, first: int, count: int, steps: int, peak: float, warm_up: float
) -> npt.NDArray[np.float32]:
    """float32 (count,): the rates of the steps first … first + count − 1 of `steps`."""
    schedule = SCHEDULES[name]
    rates = [schedule(first + index, steps, peak, warm_up) for index in range(count)]
    return np.array(rates, np.float32)


def _rising_steps(steps: int, warm_up: float) -> int:
    return round(warm_up * steps)


def _rise(step: int, steps: int, warm_up: float) -> float:
    """The share of the peak in a linear warm-up, whose last step has the peak itself."""
    return min(1.0, (step + 1) / max(1, _rising_steps(steps, warm_up)))


def _cosine(start: float, end: float, share: float) -> float:
    """From `start` (share 0) to `end` (share 1) along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
