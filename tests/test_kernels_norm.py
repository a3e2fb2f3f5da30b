"""Normalisation over one image: kernels against PyTorch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lanewise.native.kernels.layer_norm import layer_norm, layer_norm_gradient
from lanewise.native.kernels.norm import Groups, group_norm, group_norm_gradient
from lanewise.native.kernels.response_norm import (
    Neighbours,
    response_norm,
    response_norm_gradient,
)
from native_kernel import aligned, execute, placed

torch = pytest.importorskip("torch", reason="the definitions are PyTorch's")

LANES = 16
EPS = 1e-3


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return placed(np.random.default_rng(seed).normal(size=shape))


def answer(function: Any, dy: np.ndarray, *given: np.ndarray) -> list[np.ndarray]:
    """y, and the gradients of all that is given; lanes last outside, first inside."""
    asked = [torch.from_numpy(array.astype("f8")).requires_grad_() for array in given]
    y = function(torch.movedim(asked[0], -1, 0), *asked[1:])
    y = torch.movedim(y, 0, -1)
    y.backward(torch.from_numpy(dy.astype("f8")))
    return [y.detach().numpy(), *[each.grad.numpy() for each in asked]]


def near(found: np.ndarray, wanted: np.ndarray, rough: float = 1.0) -> None:
    """Some last places of values of about 1."""
    found = found.reshape(wanted.shape)
    np.testing.assert_allclose(found, wanted, rtol=1e-5 * rough, atol=1e-5 * rough)


# ---- groups of channels -------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [0, 30])
@pytest.mark.parametrize(
    ("groups", "channels", "pixels"), [(2, 3, 5), (1, 7, 1), (3, 1, 9), (4, 2, 1), (1, 1, 1)]
)
def test_group_norm(groups, channels, pixels, mean):
    """Also where the mean is far from 0: Σ x² − (Σ x)² would be wrong there."""
    sizes, rough = Groups(groups, channels, pixels), 1 + mean
    shape = (groups * channels, pixels, LANES)
    x = placed((normal(*shape) + mean).reshape(sizes.shape))
    dy = placed(normal(*shape, seed=1).reshape(sizes.shape))
    weight, bias = (normal(groups * channels, seed=s) for s in (2, 3))
    dw, db, dx, y = placed(weight), placed(bias), aligned(x.shape), aligned(x.shape)

    def function(x: Any, w: Any, b: Any) -> Any:
        return torch.nn.functional.group_norm(x, groups, w, b, EPS)

    wanted = answer(function, dy.reshape(shape), x.reshape(shape), weight, bias)
    execute(group_norm("f", sizes, EPS, training=False, relu=True), x, weight, bias, y)
    near(y, np.maximum(wanted[0], 0), rough)
    statistics = aligned((groups, 2, LANES))
    execute(group_norm("f", sizes, EPS, training=True), x, weight, bias, y, statistics)
    near(y, wanted[0], rough)
    execute(group_norm_gradient("b", sizes), dy, x, statistics, weight, dw, db, dx)
    near(dx, wanted[1], rough)
    near(dw - weight, wanted[2], rough)
    near(db - bias, wanted[3])
    dw, db = placed(weight), placed(bias)
    execute(group_norm_gradient("b", sizes, inward=False), dy, x, statistics, weight, dw, db)
    near(dw - weight, wanted[2], rough)
    kernel = group_norm_gradient("b", sizes, mask=True)
    execute(kernel, dy, x, statistics, weight, dw, db, dx)
    near(dx, wanted[1] * (x > 0).reshape(shape), rough)


def test_group_norm_of_many_values():
    """The sum of a hundred thousand numbers, of which each is small beside it."""
    sizes = Groups(1, 2, 50000)
    x = placed(np.random.default_rng(4).uniform(0, 1, size=sizes.shape))
    one, none, y = placed(np.ones(2)), placed(np.zeros(2)), aligned(sizes.shape)
    statistics = aligned((1, 2, LANES))
    kernel = group_norm("f", sizes, EPS, training=True)
    execute(kernel, x, one, none, y, statistics, interpret=False)
    exact = x.astype(float)
    np.testing.assert_allclose(statistics[0, 0], exact.mean((0, 1)), rtol=1e-6)
    wanted = 1 / np.sqrt(exact.var((0, 1)) + EPS)
    np.testing.assert_allclose(statistics[0, 1], wanted, rtol=1e-6)


# ---- the channels of each pixel -----------------------------------------------------------------


@pytest.mark.parametrize("mean", [0, 30])
@pytest.mark.parametrize(("channels", "pixels", "wide"), [(5, 7, 3), (1, 3, 8), (9, 8, 4)])
def test_layer_norm(channels, pixels, wide, mean):
    shape, rough = (channels, pixels, LANES), 1 + mean
    x, dy = placed(normal(*shape) + mean), normal(*shape, seed=1)
    weight, bias = (normal(channels, seed=s) for s in (2, 3))
    dw, db, dx, y = placed(weight), placed(bias), aligned(shape), aligned(shape)

    def function(x: Any, w: Any, b: Any) -> Any:
        last = torch.nn.functional.layer_norm(x.mT, (channels,), w, b, EPS)
        return last.mT

    wanted = answer(function, dy, x, weight, bias)
    sizes = (channels, pixels, EPS, wide)
    execute(layer_norm("f", *sizes, training=False, relu=True), x, weight, bias, y)
    near(y, np.maximum(wanted[0], 0), rough)
    statistics, room = aligned((2, pixels, LANES)), aligned((2, channels, LANES))
    execute(layer_norm("f", *sizes, training=True), x, weight, bias, y, statistics)
    near(y, wanted[0], rough)
    sizes, read = (channels, pixels, wide), (dy, x, statistics, weight, room)
    execute(layer_norm_gradient("b", *sizes), *read, dw, db, dx)
    near(dx, wanted[1], rough)
    near(dw - weight, wanted[2], rough)
    near(db - bias, wanted[3])
    dw, db = placed(weight), placed(bias)
    execute(layer_norm_gradient("b", *sizes, inward=False), *read, dw, db)
    near(dw - weight, wanted[2], rough)
    execute(layer_norm_gradient("b", *sizes, mask=True), *read, dw, db, dx)
    near(dx, wanted[1] * (x > 0), rough)


def test_layer_norm_gives_the_same_bits_whatever_the_tile():
    """Machines with few registers use narrower tiles."""
    shape = (5, 9, LANES)
    x, dy, weight, bias = normal(*shape), normal(*shape, seed=1), normal(5), normal(5)
    results = []
    for wide in (1, 2, 4, 8):
        y, dx, dw, db = aligned(shape), aligned(shape), placed(weight), placed(bias)
        statistics, room = aligned((2, 9, LANES)), aligned((2, 5, LANES))
        kernel = layer_norm("f", 5, 9, EPS, wide, training=True)
        execute(kernel, x, weight, bias, y, statistics, interpret=False)
        kernel = layer_norm_gradient("b", 5, 9, wide)
        execute(kernel, dy, x, statistics, weight, room, dw, db, dx, interpret=False)
        results.append([array.tobytes() for array in (y, dx, dw, db)])
    assert all(result == results[0] for result in results)


# ---- neighbouring channels ----------------------------------------------------------------------

RESPONSES = [
    (Neighbours(7, 5, 5, 0.4, 0.75, 2.0), 4),
    (Neighbours(6, 3, 4, 2.0, 0.5, 1.0), 2),
    (Neighbours(3, 2, 9, 1.0, 1.3, 0.5), 8),
    (Neighbours(4, 1, 1, 1.0, 0.75, 1.0), 1),
    (Neighbours(5, 9, 2, 1e-4, 0.75, 1.0), 4),
]


@pytest.mark.parametrize(("sizes", "wide"), RESPONSES)
def test_response_norm(sizes, wide):
    x, dy = (placed(normal(*sizes.shape, seed=s) * 2) for s in range(2))
    y, dx, room = aligned(x.shape), aligned(x.shape), aligned((2, sizes.channels, wide, LANES))
    arithmetic = (sizes.size, sizes.alpha, sizes.beta, sizes.constant)
    wanted = answer(lambda x: torch.nn.functional.local_response_norm(x, *arithmetic), dy, x)
    execute(response_norm("f", sizes, wide), x, y)
    np.testing.assert_allclose(y, wanted[0], rtol=2e-6, atol=1e-6)
    execute(response_norm_gradient("b", sizes, wide), dy, x, room, dx)
    np.testing.assert_allclose(dx, wanted[1], rtol=5e-6, atol=5e-6)
    execute(response_norm_gradient("b", sizes, wide, mask=True), dy, x, room, dx)
    np.testing.assert_allclose(dx, wanted[1] * (x > 0), rtol=5e-6, atol=5e-6)


def test_response_norm_lets_nan_pass():
    """To every channel that sees it, and no further."""
    sizes = Neighbours(5, 1, 3, 1.0, 0.75, 1.0)
    x, y = placed(np.ones(sizes.shape)), aligned(sizes.shape)
    x[1, 0, 3] = np.nan
    execute(response_norm("f", sizes, 4), x, y, interpret=False)
    assert np.isnan(y[:, 0, 3]).tolist() == [True, True, True, False, False]
    assert np.isnan(y).sum() == 3
