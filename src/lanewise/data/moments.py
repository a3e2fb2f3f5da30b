"""Mean and standard deviation of each channel, exact whatever the order of summing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lanewise.data.data_set import Images

_BLOCK = 256
# 256 squares of bytes add up to less than 2^24, so float32 sums of them are exact in any order,
# on any CPU; the sums of those are added as integers.
_EXACT = 256


def channel_moments(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """uint8 (N, C, H, W) → (mean, std) per channel in units of 0..1, rounded to six digits.

    A channel without any variation gets std 1, so that dividing by it is harmless.
    """
    means, deviations = [], []
    count = images[:, 0].size
    for channel in range(images.shape[1]):
        total, squares = _sums(images[:, channel])
        variance = (squares * count - total * total) / max(count, 1) ** 2
        means.append(round(total / max(count, 1) / 255, 6))
        deviations.append(round(variance**0.5 / 255, 6) or 1.0)
    return tuple(means), tuple(deviations)


def _sums(channel: Images) -> tuple[int, int]:
    """(sum, sum of squares) of uint8 (N, H, W)."""
    total = squares = 0
    for start in range(0, len(channel), _BLOCK):
        values = channel[start : start + _BLOCK].reshape(-1)
        whole = values.size // _EXACT * _EXACT
        rows = values[:whole].astype(np.float32).reshape(-1, _EXACT)
        rest = values[whole:].astype(np.int64)
        total += _exact(np.einsum("ij->i", rows)) + int(rest.sum())
        squares += _exact(np.einsum("ij,ij->i", rows, rows)) + int((rest * rest).sum())
    return total, squares


def _exact(sums: npt.NDArray[np.float32]) -> int:
    return int(sums.sum(dtype=np.float64))
