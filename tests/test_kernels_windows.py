"""Pools of other kinds (l2, subsample, adaptive) and upsampling against PyTorch in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lanewise.native.kernels import l2_pool, pool, subsample, upsample
from lanewise.native.kernels.taps import (
    Taps,
    adaptive_gradient_taps,
    adaptive_taps,
    forward_taps,
    gradient_taps,
)
from lanewise.net.layers import AvgPool
from lanewise.size.shapes import resolve_window
from native_kernel import aligned, execute, placed

torch = pytest.importorskip("torch", reason="the definitions are PyTorch's")
functional = torch.nn.functional
LANES = 16


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return placed(np.random.default_rng(seed).normal(size=shape))


def images(lanes: np.ndarray) -> torch.Tensor:
    """(C, H, W, 16) → (16, C, H, W), in float64 and with a gradient."""
    return torch.tensor(np.moveaxis(lanes, -1, 0).astype(float), requires_grad=True)


def lanes(tensor: torch.Tensor) -> np.ndarray:
    return np.moveaxis(tensor.detach().numpy(), 0, -1)


def close(computed: np.ndarray, wanted: torch.Tensor) -> None:
    np.testing.assert_allclose(computed, lanes(wanted), rtol=2e-5, atol=2e-5)


# ---- windows ------------------------------------------------------------------------------------

#: (channels, height, width), kernel, stride, pad
WINDOWS = [
    ((2, 8, 8), (2, 2), (2, 2), (0, 0)),
    ((3, 7, 9), (3, 2), (2, 2), (1, 0)),
    ((2, 9, 8), (3, 3), (1, 1), (1, 1)),
    ((1, 7, 7), (1, 1), (3, 2), (0, 0)),
    ((1, 20, 20), (13, 13), (3, 2), (6, 5)),
]


def window_taps(case: tuple) -> tuple[list[Taps], list[Taps], tuple[int, ...]]:
    """Forward taps, gradient taps and the shape of the result."""
    shape, kernel, stride, pad = case
    window = resolve_window(AvgPool(kernel, stride, ((pad[0],) * 2, (pad[1],) * 2)), shape)
    forward, backward = (
        [make(shape[1 + a], window.out[a], kernel[a], stride[a], pad[a], 1) for a in (0, 1)]
        for make in (forward_taps, gradient_taps)
    )
    return forward, backward, (shape[0], *window.out, LANES)


def window_sum(x: torch.Tensor, case: tuple) -> torch.Tensor:
    _, kernel, stride, pad = case
    mean = functional.avg_pool2d(x, kernel, stride, pad, count_include_pad=True)
    return mean * (kernel[0] * kernel[1])


@pytest.mark.parametrize("case", WINDOWS)
def test_l2_pool(case: tuple) -> None:
    forward, backward, out = window_taps(case)
    x, y = normal(*case[0], LANES), aligned(out)
    small = forward[0].taps * forward[1].taps < 12
    execute(l2_pool.l2_pool("f", case[0][0], *forward), x, y, interpret=small)
    exact = images(x)
    wanted = window_sum(exact**2, case).sqrt()
    close(y, wanted)
    dy, dx = normal(*out, seed=1), aligned(x.shape)
    wanted.backward(images(dy))
    execute(l2_pool.l2_pool_gradient("b", case[0][0], *backward), dy, y, x, dx, interpret=small)
    close(dx, exact.grad)


def test_l2_pool_of_zeros_has_no_slope() -> None:
    case = ((1, 4, 4), (2, 2), (2, 2), (0, 0))
    forward, backward, out = window_taps(case)
    x, y, dy = normal(1, 4, 4, LANES), aligned(out), normal(*out, seed=1)
    x[0, :2, :2] = 0
    dx = aligned(x.shape)
    execute(l2_pool.l2_pool("f", 1, *forward), x, y)
    execute(l2_pool.l2_pool_gradient("b", 1, *backward), dy, y, x, dx)
    assert (y[0, 0, 0] == 0).all() and (dx[0, :2, :2] == 0).all() and np.isfinite(dx).all()
    assert (dx[0, 2:] != 0).all()


@pytest.mark.parametrize("case", WINDOWS)
def test_subsample(case: tuple) -> None:
    forward, backward, out = window_taps(case)
    channels = case[0][0]
    small = forward[0].taps * forward[1].taps < 12
    x, dy, y, dx = normal(*case[0], LANES), normal(*out, seed=1), aligned(out), aligned((1,))
    weight, bias = normal(channels, seed=2), normal(channels, seed=3)
    kernel = subsample.subsample("f", channels, *forward)
    execute(kernel, x, weight, bias, y, interpret=small)
    exact = [
        images(x),
        *(torch.tensor(v.astype(float), requires_grad=True) for v in (weight, bias)),
    ]
    sums = window_sum(exact[0], case)
    wanted = exact[1][:, None, None] * sums + exact[2][:, None, None]
    close(y, wanted)
    wanted.backward(images(dy))
    dx, dw, db = aligned(x.shape), placed(np.ones(channels)), placed(np.full(channels, 2.0))
    kernel = subsample.parameter_gradients("p", channels, *forward)
    execute(kernel, x, dy, dw, db, interpret=False)
    np.testing.assert_allclose(dw - 1, exact[1].grad, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(db - 2, exact[2].grad, rtol=1e-4, atol=1e-4)
    kernel = subsample.input_gradient("b", channels, *backward, mask=False)
    execute(kernel, dy, weight, dx, interpret=small)
    close(dx, exact[0].grad)
    kernel = subsample.input_gradient("m", channels, *backward, mask=True)
    execute(kernel, dy, weight, x, dx, interpret=small)
    close(dx, exact[0].grad * (exact[0] > 0))


# ---- adaptive windows ---------------------------------------------------------------------------

#: height × width → rows × columns
ADAPTIVE = [
    ((6, 9), (3, 3)),
    ((7, 9), (6, 4)),
    ((5, 8), (2, 3)),
    ((9, 6), (6, 4)),
    ((4, 3), (4, 3)),
    ((2, 3), (5, 6)),
    ((1, 1), (3, 2)),
    ((3, 2), (7, 1)),
    ((13, 17), (7, 7)),
    ((18, 19), (1, 2)),
]


def adaptive(make: Callable[[int, int], Taps], size: tuple, out: tuple) -> list[Taps]:
    return [make(n, o) for n, o in zip(size, out, strict=True)]


@pytest.mark.parametrize(("size", "out"), ADAPTIVE)
def test_adaptive_average(size: tuple, out: tuple) -> None:
    forward, backward = (adaptive(m, size, out) for m in (adaptive_taps, adaptive_gradient_taps))
    x, y, dx = normal(2, *size, LANES), aligned((2, *out, LANES)), aligned((2, *size, LANES))
    scale = pool.adaptive_scale(*forward)
    execute(pool.sum_pool("f", 2, *forward, scale=scale), x, y)
    exact = images(x)
    wanted = functional.adaptive_avg_pool2d(exact, out)
    close(y, wanted)
    dy = normal(*y.shape, seed=1)
    wanted.backward(images(dy))
    execute(pool.sum_pool_gradient("b", 2, *backward, scale=scale, mask=True), dy, x, dx)
    close(dx, exact.grad * (exact > 0))


@pytest.mark.parametrize(("size", "out"), ADAPTIVE)
def test_adaptive_maximum(size: tuple, out: tuple) -> None:
    forward, backward = (adaptive(m, size, out) for m in (adaptive_taps, adaptive_gradient_taps))
    x = placed(np.round(normal(2, *size, LANES)))  # many maxima are met twice
    y, dx = aligned((2, *out, LANES)), aligned(x.shape)
    argument = aligned(y.shape, np.uint8 if size[0] * size[1] <= 255 else np.int32)
    kernel = pool.max_pool("f", 2, *forward, relu=False, argument=True, pixels=True)
    execute(kernel, x, y, argument)
    exact = images(x)
    wanted, at = functional.adaptive_max_pool2d(exact, out, return_indices=True)
    close(y, wanted)
    assert (argument == lanes(at)).all()
    dy = normal(*y.shape, seed=1)
    wanted.backward(images(dy))
    for mask in (False, True):
        kernel = pool.max_pool_gradient("b", 2, *backward, mask=mask, pixels=True)
        execute(kernel, argument, dy, *[x] * mask, dx)
        close(dx, exact.grad * (exact > 0) if mask else exact.grad)


def test_adaptive_windows_are_cut_as_pytorch_cuts_them() -> None:
    """Every size: the mean of ramps tells where each window begins and ends."""
    for size in range(1, 14):
        ramp = torch.arange(size, dtype=torch.float64)
        for out in range(1, 16):
            taps, back = adaptive_taps(size, out), adaptive_gradient_taps(size, out)
            windows = [[s for s in line if s is not None] for line in taps.sources]
            means = functional.adaptive_avg_pool1d(torch.stack([ramp, ramp**2])[None], out)[0]
            for power in (1, 2):
                computed = [np.mean(np.array(window) ** power) for window in windows]
                np.testing.assert_allclose(computed, means[power - 1])
            pairs = {(o, i) for o, window in enumerate(windows) for i in window}
            assert pairs == {
                (o, i) for i, line in enumerate(back.sources) for o in line if o is not None
            }
            assert taps.pairs == back.pairs == len(pairs)


# ---- upsampling ---------------------------------------------------------------------------------

UPSAMPLES = [
    ((3, 4), (2, 2)),
    ((5, 1), (3, 2)),
    ((1, 2), (1, 5)),
    ((4, 9), (4, 2)),
    ((2, 3), (8, 9)),
]


@pytest.mark.parametrize(("size", "scale"), UPSAMPLES)
@pytest.mark.parametrize("bilinear", [False, True])
def test_upsample(size: tuple, scale: tuple, bilinear: bool) -> None:
    x, out = normal(2, *size, LANES), (2, size[0] * scale[0], size[1] * scale[1], LANES)
    y, dx = aligned(out), aligned(x.shape)
    axes = list(zip(size, scale, strict=True))
    if bilinear:
        forward = upsample.weighted_sums("f", 2, *(upsample.interpolation(*a) for a in axes))
    else:
        forward = upsample.nearest("f", 2, size, scale)
    execute(forward, x, y)
    exact = images(x)
    mode = {"mode": "bilinear", "align_corners": False} if bilinear else {"mode": "nearest"}
    wanted = functional.interpolate(exact, scale_factor=scale, **mode)
    close(y, wanted)
    dy = normal(*out, seed=1)
    wanted.backward(images(dy))
    for mask in (False, True):
        if bilinear:
            back = [upsample.interpolation_gradient(*a) for a in axes]
            kernel = upsample.weighted_sums("b", 2, *back, mask=mask)
        else:
            kernel = upsample.nearest_gradient("b", 2, size, scale, mask=mask)
        execute(kernel, dy, *[x] * mask, dx)
        close(dx, exact.grad * (exact > 0) if mask else exact.grad)
