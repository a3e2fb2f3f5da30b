"""Pooling and loss kernels against their definitions in numpy and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from lanewise.native.kernels.loss import softmax, softmax_cross_entropy
from lanewise.native.kernels.pool import (
    average_scale,
    global_pool,
    global_pool_gradient,
    max_pool,
    max_pool_gradient,
    sum_pool,
    sum_pool_gradient,
)
from lanewise.native.kernels.taps import Taps, forward_taps, gradient_taps
from lanewise.net.layers import AvgPool
from lanewise.size.shapes import Window, resolve_window
from native_kernel import aligned, execute, placed

LANES = 16


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return placed(np.random.default_rng(seed).normal(size=shape))


# ---- pooling ------------------------------------------------------------------------------------

#: (channels, height, width), kernel, stride, pad, ceil
POOLS = [
    ((2, 8, 8), (2, 2), (2, 2), (0, 0), False),
    ((1, 7, 9), (2, 2), (2, 2), (0, 0), False),
    ((1, 7, 9), (2, 2), (2, 2), (0, 0), True),
    ((2, 9, 8), (3, 3), (2, 2), (1, 1), False),
    ((1, 6, 6), (3, 3), (2, 2), (0, 0), True),
    ((1, 9, 8), (3, 3), (1, 1), (1, 1), False),
    ((1, 10, 11), (3, 2), (2, 3), (1, 0), True),
    ((1, 7, 7), (1, 1), (3, 2), (0, 0), False),
    ((1, 13, 13), (2, 2), (5, 5), (0, 0), False),
    ((1, 5, 30), (2, 13), (2, 13), (1, 6), True),
    ((1, 20, 20), (13, 13), (3, 2), (6, 5), True),
    ((1, 17, 18), (17, 17), (1, 1), (8, 8), False),
]


def window_of(shape, kernel, stride, pad, ceil) -> Window:
    sides = ((pad[0], pad[0]), (pad[1], pad[1]))
    return resolve_window(AvgPool(kernel, stride, sides, ceil), shape)


def taps(make, window: Window, shape) -> list[Taps]:
    return [
        make(shape[1 + a], window.out[a], window.kernel[a], window.stride[a], window.pad[a][0], 1)
        for a in (0, 1)
    ]


def windows(window: Window, shape) -> dict[tuple[int, int], list[tuple[int, int, int]]]:
    """(p, q) → (tap number, h, w) of every tap inside the input: the definition."""
    return {
        (p, q): [
            (r * window.kernel[1] + s, h, w)
            for r in range(window.kernel[0])
            for s in range(window.kernel[1])
            if 0 <= (h := p * window.stride[0] + r - window.pad[0][0]) < shape[1]
            and 0 <= (w := q * window.stride[1] + s - window.pad[1][0]) < shape[2]
        ]
        for p in range(window.out[0])
        for q in range(window.out[1])
    }


def coarse(*shape: int) -> np.ndarray:
    """Few different values, so that many maxima are met twice."""
    return placed(np.round(normal(*shape) * 2) / 2)


@pytest.mark.parametrize("case", POOLS)
def test_max_pool(case):
    shape, window = case[0], window_of(*case)
    x = coarse(*shape, LANES)
    out = (shape[0], *window.out, LANES)
    kind = np.uint8 if window.kernel[0] * window.kernel[1] <= 255 else np.int32
    y, argument, dy = aligned(out), aligned(out, kind), normal(*out, seed=1)
    forward, backward = taps(forward_taps, window, shape), taps(gradient_taps, window, shape)
    small = window.kernel[0] * window.kernel[1] < 12
    execute(max_pool("f", shape[0], *forward, relu=True, argument=False), x, y, interpret=small)
    positive = y.copy()
    kernel = max_pool("f", shape[0], *forward, relu=False, argument=True)
    execute(kernel, x, y, argument, interpret=small)
    wanted = np.zeros(x.shape)
    for (p, q), met in windows(window, shape).items():
        values = np.stack([x[:, h, w] for _, h, w in met])
        first = values.argmax(0)
        assert (y[:, p, q] == values.max(0)).all()
        assert (argument[:, p, q] == np.array([tap for tap, _, _ in met])[first]).all()
        for i, (_, h, w) in enumerate(met):
            wanted[:, h, w] += np.where(first == i, dy[:, p, q], 0)
    assert (positive == np.maximum(y, 0)).all()
    dx = aligned(x.shape)
    kernel = max_pool_gradient("b", shape[0], *backward, mask=False)
    execute(kernel, argument, dy, dx, interpret=small)
    np.testing.assert_allclose(dx, wanted, rtol=1e-5, atol=1e-5)
    kernel = max_pool_gradient("b", shape[0], *backward, mask=True)
    execute(kernel, argument, dy, x, dx, interpret=small)
    np.testing.assert_allclose(dx, wanted * (x > 0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", POOLS)
@pytest.mark.parametrize("mean", [False, True])
def test_sum_and_average_pool(case, mean):
    shape, window = case[0], window_of(*case)
    x, y = normal(*shape, LANES), aligned((shape[0], *window.out, LANES))
    dy, dx = normal(*y.shape, seed=1), aligned(x.shape)
    scale = average_scale(window) if mean else None
    factors = np.array(scale) if scale else np.ones(window.out)
    small = window.kernel[0] * window.kernel[1] < 12
    kernel = sum_pool("f", shape[0], *taps(forward_taps, window, shape), scale=scale)
    execute(kernel, x, y, interpret=small)
    backward = taps(gradient_taps, window, shape)
    kernel = sum_pool_gradient("b", shape[0], *backward, scale=scale, mask=True)
    execute(kernel, dy, x, dx, interpret=small)
    wanted = np.zeros(x.shape)
    for (p, q), met in windows(window, shape).items():
        total = sum(x[:, h, w].astype(np.float64) for _, h, w in met) * factors[p, q]
        np.testing.assert_allclose(y[:, p, q], total, rtol=1e-5, atol=3e-5)
        for _, h, w in met:
            wanted[:, h, w] += dy[:, p, q] * factors[p, q]
    np.testing.assert_allclose(dx, wanted * (x > 0), rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize("case", POOLS)
def test_average_divisor_is_pytorchs(case):
    torch = pytest.importorskip("torch", reason="the divisor is PyTorch's convention")
    shape, kernel, stride, pad, ceil = case
    window = window_of(*case)
    ones = torch.ones(1, *shape, dtype=torch.float64)
    mean = torch.nn.functional.avg_pool2d(ones, kernel, stride, pad, ceil)[0, 0].numpy()
    taken = np.zeros(window.out)
    for place, met in windows(window, shape).items():
        taken[place] = len(met)
    np.testing.assert_allclose(np.array(average_scale(window)) * taken, mean, rtol=1e-12)


@pytest.mark.parametrize("mode", ["max", "avg", "sum"])
@pytest.mark.parametrize("channels", [1, 4, 7])
def test_global_pool(mode, channels):
    x, y = coarse(channels, 15, LANES), aligned((channels, LANES))
    at = [aligned(y.shape, np.int32)] * (mode == "max")
    execute(global_pool("g", mode, channels, 5, 3, argument=mode == "max"), x, y, *at)
    pixels = {"max": x.max(1), "avg": x.mean(1), "sum": x.sum(1)}[mode]
    np.testing.assert_allclose(y, pixels, rtol=1e-5, atol=1e-6)
    share = {"max": np.arange(15)[:, None] == x.argmax(1)[:, None], "avg": 1 / 15, "sum": 1.0}
    dy, dx = normal(channels, LANES, seed=1), aligned(x.shape)
    execute(global_pool_gradient("g", mode, channels, 5, 3, mask=True), *at, dy, x, dx)
    np.testing.assert_allclose(dx, dy[:, None] * share[mode] * (x > 0), rtol=1e-5)
    execute(global_pool("g", mode, channels, 5, 3, relu=True), x, y)
    np.testing.assert_allclose(y, np.maximum(pixels, 0), rtol=1e-5, atol=1e-6)


# ---- loss ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "smoothing"), [(1, 0.0), (3, 0.2), (10, 0.0), (1000, 0.1)])
@pytest.mark.parametrize("images", [11, 16])
def test_softmax_cross_entropy(classes, smoothing, images):
    random = np.random.default_rng(2)
    z = placed(np.round(random.normal(size=(classes, LANES)) * 4))  # some maxima are met twice
    label = placed(random.integers(0, classes, LANES), np.int32)
    weight = placed(np.where(np.arange(LANES) < images, 1 / images, 0))
    epsilon = placed(np.array([smoothing]))
    dz, loss, correct = aligned(z.shape), aligned((1,)), aligned((1,))
    small = classes < 50
    kernel = softmax_cross_entropy("t", classes, gradient=True)
    execute(kernel, z, label, weight, epsilon, dz, loss, correct, interpret=small)
    share = np.exp(z - z.max(0, keepdims=True).astype(float))
    share /= share.sum(0)
    aim = smoothing / classes + (1 - smoothing) * (np.arange(classes)[:, None] == label)
    np.testing.assert_allclose(dz, weight * (share - aim), rtol=1e-5, atol=1e-7)
    each = -(aim * np.log(share)).sum(0)
    np.testing.assert_allclose(loss[0], (each * weight).sum(), rtol=2e-6, atol=1e-7)
    assert correct[0] == (z.argmax(0) == label)[:images].sum()
    kernel = softmax_cross_entropy("e", classes, gradient=False)
    again, hits = aligned((1,)), aligned((1,))
    execute(kernel, z, label, weight, epsilon, again, hits, interpret=small)
    assert again[0] == loss[0] and hits[0] == correct[0]
    execute(softmax("p", classes), z, dz, interpret=small)
    np.testing.assert_allclose(dz, share, rtol=1e-5, atol=1e-7)


def test_sums_of_thousands_of_like_terms_keep_their_digits():
    """Added one by one they are rounded alike, here by 368 and 2164 halves of the last place."""
    classes, pixels, half = 5000, 113 * 113, 2.0**-24
    z = placed(np.zeros((classes, LANES)))
    z[0] = np.log(3.7)  # the other exponentials are no whole numbers
    probabilities = aligned(z.shape)
    execute(softmax("p", classes), z, probabilities, interpret=False)
    np.testing.assert_allclose(probabilities[0], 3.7 / (3.7 + classes - 1), rtol=20 * half)
    x, mean = placed(np.full((3, pixels, LANES), 0.1)), aligned((3, LANES))
    execute(global_pool("m", "avg", 3, 113, 113), x, mean, interpret=False)
    np.testing.assert_allclose(mean, np.float64(x[0, 0, 0]), rtol=40 * half)


def test_loss_is_pytorchs_and_shows_nan():
    torch = pytest.importorskip("torch", reason="label smoothing is PyTorch's convention")
    z, label = normal(10, LANES), placed(np.arange(LANES) % 10, np.int32)
    weight, epsilon = placed(np.full(LANES, 1 / LANES)), placed(np.array([0.1]))
    loss, correct = aligned((1,)), aligned((1,))
    kernel = softmax_cross_entropy("e", 10, gradient=False)
    execute(kernel, z, label, weight, epsilon, loss, correct)
    logits, labels = torch.from_numpy(z.T.copy()), torch.from_numpy(label.astype(np.int64))
    wanted = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    np.testing.assert_allclose(loss[0], wanted.item(), rtol=1e-6)
    z[3, 2] = np.nan
    execute(kernel, z, label, weight, epsilon, loss, correct, interpret=False)
    assert np.isnan(loss[0])
