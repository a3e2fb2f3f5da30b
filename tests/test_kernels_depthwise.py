"""Depthwise kernels against their definition in float64, odd shapes and every option."""

from __future__ import annotations

import numpy as np
import pytest

from lanewise.native.kernels import conv, depthwise, weights
from lanewise.native.kernels.correlation import Correlation, Tile
from lanewise.native.kernels.depthwise import Depthwise, MapTile, RowTile
from lanewise.native.kernels.taps import forward_taps, gradient_taps
from lanewise.native.kernels.weights import WeightTile
from lanewise.native.nest import Kernel
from lanewise.native.nest_check import check
from lanewise.native.nest_count import count
from native_kernel import aligned, compile_kernel, execute
from test_kernels_conv import Case, close, normal

LANES = 16
#: (channels, multiplier) and the window
CASES = [
    (2, 1, Case(1, (4, 4), 1, pad=(1, 1))),
    (3, 1, Case(1, (7, 9), 1, pad=(1, 1))),
    (2, 1, Case(1, (9, 8), 1, stride=(2, 2), pad=(1, 1))),
    (2, 2, Case(1, (5, 6), 1, (2, 3), pad=(1, 0))),
    (1, 3, Case(1, (8, 7), 1, stride=(1, 2), pad=(2, 1), dilation=(2, 1))),
    (1, 1, Case(1, (9, 10), 1, (5, 5), (2, 1), (2, 2))),
    (2, 1, Case(1, (3, 3), 1, (1, 1), (2, 2))),
]
TILES = [MapTile(1, 1, keep=False), MapTile(2, 4), MapTile(3, 2, keep=False)]


def sizes_of(channels: int, multiplier: int, case: Case) -> tuple[Depthwise, Depthwise]:
    """Forward and backward."""
    return (
        Depthwise(channels, multiplier, 1, *case.taps(forward_taps)),
        Depthwise(channels, 1, multiplier, *case.taps(gradient_taps)),
    )


def definition(case: Case, m: int, x: np.ndarray, w: np.ndarray, dy: np.ndarray):
    """y, dx and dw in float64, tap by tap."""
    y, dx, dw = np.zeros(dy.shape), np.zeros(x.shape), np.zeros(w.shape)
    rows, columns = case.taps()
    for p, row in enumerate(rows.sources):
        for q, column in enumerate(columns.sources):
            for r, h in enumerate(row):
                for s, v in enumerate(column):
                    if h is None or v is None:
                        continue
                    for k in range(len(w)):
                        y[k, p, q] += float(w[k, r, s]) * x[k // m, h, v]
                        dx[k // m, h, v] += float(w[k, r, s]) * dy[k, p, q]
                        dw[k, r, s] += dy[k, p, q].astype(float) @ x[k // m, h, v]
    return y, dx, dw


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("case", CASES)
def test_depthwise(case, tile):
    channels, m, window = case
    x, w = normal(channels, *window.size, LANES), normal(channels * m, *window.kernel, seed=1)
    b, dy = normal(channels * m, seed=2), normal(channels * m, *window.out, LANES, seed=3)
    y, dx, dw = aligned(dy.shape), aligned(x.shape), normal(*w.shape, seed=4)
    wanted, slope, turn = definition(window, m, x, w, dy)
    forward, backward = sizes_of(*case)
    execute(depthwise.correlate("f", forward, tile), x, w.ravel(), y)
    close(y, wanted)
    kernel = depthwise.correlate("f", forward, tile, bias=True, relu=True)
    execute(kernel, x, w.ravel(), b, y)
    close(y, np.maximum(wanted + b[:, None, None, None], 0))
    execute(depthwise.correlate("b", backward, tile, mask=True), dy, w.ravel(), x, dx)
    close(dx, slope * (x > 0))
    before = dw.copy()
    line = RowTile(tile.columns, tile.rows, tile.keep)
    execute(depthwise.weight_gradient("w", forward, line), x, dy, dw)
    close(dw, before + turn)


def test_affine_and_a_second_reader():
    channels, m, window = case = CASES[1]
    x, w = normal(channels, *window.size, LANES), normal(channels * m, *window.kernel, seed=1)
    scale, shift = normal(channels, seed=2), normal(channels, seed=3)
    dy, dx = normal(channels, *window.out, LANES, seed=3), normal(*x.shape, seed=4)
    y = aligned(dy.shape)
    wanted, slope, _ = definition(window, m, x, w, dy)
    forward, backward = sizes_of(*case)
    kernel = depthwise.correlate("f", forward, TILES[1], affine=True, relu=True)
    execute(kernel, x, w.ravel(), scale, shift, y)
    by_map = (slice(None), None, None, None)
    close(y, np.maximum(wanted * scale[by_map] + shift[by_map], 0))
    before = dx.copy()
    kernel = depthwise.correlate("b", backward, TILES[1], accumulate=True, mask=True)
    execute(kernel, dy, w.ravel(), x, dx)
    close(dx, np.where(x > 0, before + slope, 0))


@pytest.mark.parametrize("case", CASES)
def test_sums_are_the_same_in_every_tile_and_in_the_general_nests(case):
    channels, m, window = case
    x, w = normal(channels, *window.size, LANES), normal(channels * m, *window.kernel, seed=1)
    dy = normal(channels * m, *window.out, LANES, seed=3)
    forward, backward = sizes_of(*case)
    area = window.kernel[0] * window.kernel[1]
    results: list[list[np.ndarray]] = [[], [], []]

    def compute(*kernels: Kernel) -> None:
        y, dx, dw = aligned(dy.shape), aligned(x.shape), np.zeros_like(w)
        compile_kernel(kernels[0])(x, w.ravel(), y)
        compile_kernel(kernels[1])(dy, w.ravel(), dx)
        compile_kernel(kernels[2])(x, dy, dw)
        for found, one in zip(results, (y, dx, dw), strict=True):
            found.append(one)

    for tile in TILES:
        line = RowTile(tile.columns, tile.rows, tile.keep)
        compute(
            depthwise.correlate("f", forward, tile),
            depthwise.correlate("b", backward, tile),
            depthwise.weight_gradient("w", forward, line),
        )
    taps = forward.rows, forward.columns
    ahead = Correlation(channels, m, 1, *taps, m * area, area, area)
    back = Correlation(channels, 1, m, backward.rows, backward.columns, m * area, area, area)
    for columns in (1, 3):
        compute(
            conv.correlate("f", ahead, Tile(1, columns)),
            conv.correlate("b", back, Tile(1, columns)),
            weights.weight_gradient("w", channels, m, 1, *taps, WeightTile(1, 1, 2, columns)),
        )
    for found in results:
        assert all((one == found[0]).all() for one in found)


def test_no_multiply_add_on_padding():
    for case in CASES:
        forward, backward = sizes_of(*case)
        pairs = forward.rows.pairs * forward.columns.pairs
        for kernel in (
            depthwise.correlate("f", forward, TILES[1]),
            depthwise.correlate("b", backward, TILES[1]),
            depthwise.weight_gradient("w", forward, RowTile(4, 2)),
        ):
            assert check(kernel) == ()
            assert count(kernel).multiply_adds == LANES * case[0] * case[1] * pairs
