"""Published vectors of padding, numbers to draw, and images and weights that tell what was read."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lanewise.size import conventions
from lanewise.size.axis import Axis

# n, kernel, stride, dilation → out, begin, end (TensorFlow's SAME).
SAME = [
    ((13, 6, 5, 1), (3, 1, 2)),
    ((224, 7, 2, 1), (112, 2, 3)),
    ((6, 3, 2, 1), (3, 0, 1)),
    ((7, 3, 2, 1), (4, 1, 1)),
    ((5, 4, 1, 1), (5, 1, 2)),
    ((10, 3, 1, 2), (10, 2, 2)),
    ((10, 3, 2, 3), (5, 2, 3)),
    ((5, 1, 3, 1), (2, 0, 0)),
]

NUMBERS = {
    "n": st.integers(1, 20),
    "kernel": st.integers(1, 6),
    "stride": st.integers(1, 5),
    "dilation": st.integers(1, 3),
}
padded = given(**NUMBERS, pad=st.tuples(st.integers(0, 6), st.integers(0, 6)))  # type: ignore[arg-type]
few = settings(max_examples=150, deadline=None)


def image(n: int) -> np.ndarray[Any, Any]:
    return np.arange(1.0, n + 1)


def weights(kernel: int) -> np.ndarray[Any, Any]:
    return 7.0 ** np.arange(kernel)


def convolved(axis: Axis) -> list[float]:
    """By `reads` alone; what is no value of the image is 0."""
    values, taps = image(axis.n), weights(axis.kernel)
    return [
        sum(taps[i] * values[at] for i, at in enumerate(read) if 0 <= at < axis.n)
        for read in axis.reads
    ]


def spread(grown: conventions.Grown) -> list[float]:
    """Every value times the weights, laid where the convolution would have read."""
    out = [0.0] * grown.out
    for value, read in zip(image(grown.n), grown.axis.reads, strict=True):
        for weight, at in zip(weights(grown.kernel), read, strict=True):
            if 0 <= at < grown.out:
                out[at] += weight * value
    return out
