"""Trained factors, normalisation over one image: kernels against their definitions in float64."""

from __future__ import annotations

import numpy as np
import pytest

from lanewise.native.kernels.factors import factor, factor_gradient
from native_kernel import aligned, execute, placed

LANES = 16


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return placed(np.random.default_rng(seed).normal(size=shape))


# ---- a factor a channel -------------------------------------------------------------------------

#: word → y(x, w), dx(dy, x, w), and the terms of dw
FACTORS = {
    "scale": (lambda x, w: w * x, lambda dy, x, w: w * dy, lambda dy, x: dy * x),
    "prelu": (
        lambda x, w: np.where(x > 0, x, w * x),
        lambda dy, x, w: np.where(x > 0, dy, w * dy),
        lambda dy, x: np.where(x > 0, 0, dy * x),
    ),
}


@pytest.mark.parametrize("word", FACTORS)
@pytest.mark.parametrize(("channels", "pixels"), [(3, 9), (7, 1), (1, 3), (5, 8)])
def test_factor(word, channels, pixels):
    x, dy = (normal(channels, pixels, LANES, seed=s) for s in range(2))
    w, before = normal(channels, seed=2), normal(channels, seed=3)
    x[0, 0, :2] = 0.0, -0.0
    y, dx, dw = aligned(x.shape), aligned(x.shape), before.copy()
    forward, backward, terms = FACTORS[word]
    wide = w[:, None, None].astype(float)
    execute(factor("f", word, channels, pixels), x, w, y)
    np.testing.assert_allclose(y, forward(x, wide), rtol=1e-6)
    wanted = backward(dy, x, wide)
    sums = before + terms(dy.astype(float), x).sum((1, 2))
    dw = placed(before)
    execute(factor_gradient("b", word, channels, pixels, inward=True), dy, x, w, dw, dx)
    np.testing.assert_allclose(dx, wanted, rtol=1e-6)
    np.testing.assert_allclose(dw, sums, rtol=1e-5, atol=1e-5)
    dw = placed(before)
    execute(factor_gradient("b", word, channels, pixels, inward=False), dy, x, w, dw)
    np.testing.assert_allclose(dw, sums, rtol=1e-5, atol=1e-5)
    kernel = factor_gradient("b", word, channels, pixels, inward=True, mask=True)
    execute(kernel, dy, x, w, placed(before), dx)
    np.testing.assert_allclose(dx, wanted * (x > 0), rtol=1e-6)
