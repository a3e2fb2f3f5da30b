"""Convolution kernels against their definition in float64, odd shapes and every option."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import pytest

from lanewise.native.kernels import conv, lane_weights, weights
from lanewise.native.kernels.correlation import Correlation, Tile, packed_shape
from lanewise.native.kernels.images import row_blocks
from lanewise.native.kernels.lane_weights import LaneTile, add_sums, turned_shape
from lanewise.native.kernels.taps import Taps, forward_taps, gradient_taps
from lanewise.native.kernels.weights import WeightTile
from lanewise.native.nest_count import count
from native_kernel import aligned, execute, placed

LANES = 16


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return placed(np.random.default_rng(seed).normal(size=shape))


@dataclass(frozen=True)
class Case:
    """A convolution of one group: channels, size, kernels, then per axis kernel … dilation."""

    channels: int
    size: tuple[int, int]
    kernels: int
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def out(self) -> tuple[int, int]:
        reach = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True)]
        rows, columns = (
            (self.size[a] + 2 * self.pad[a] - reach[a]) // self.stride[a] + 1 for a in (0, 1)
        )
        return rows, columns

    @property
    def weight(self) -> tuple[int, int, int, int]:
        return self.kernels, self.channels, *self.kernel

    def taps(self, make=forward_taps) -> tuple[Taps, Taps]:
        rows, columns = (
            make(
                self.size[a],
                self.out[a],
                self.kernel[a],
                self.stride[a],
                self.pad[a],
                self.dilation[a],
            )
            for a in (0, 1)
        )
        return rows, columns

    def forward(self) -> Correlation:
        area = self.kernel[0] * self.kernel[1]
        return Correlation(
            1, self.kernels, self.channels, *self.taps(), 0, self.channels * area, area
        )

    def backward(self) -> Correlation:
        area = self.kernel[0] * self.kernel[1]
        taps = self.taps(gradient_taps)
        return Correlation(1, self.channels, self.kernels, *taps, 0, area, self.channels * area)


CASES = [
    Case(1, (5, 6), 1, (1, 1)),
    Case(3, (4, 4), 7, (1, 1)),
    Case(2, (5, 7), 3),
    Case(3, (4, 4), 5, pad=(1, 1)),
    Case(2, (9, 8), 3, stride=(2, 2), pad=(1, 1)),
    Case(2, (7, 9), 2, (5, 3), (1, 2), (2, 1)),
    Case(1, (9, 11), 2, (3, 2), (2, 1), (2, 0), (2, 3)),
    Case(2, (6, 6), 2, (1, 1), (2, 2)),
    Case(2, (3, 3), 2, (7, 7), pad=(3, 3)),
]
PACKING = [Tile(2, 4, "pnk", packs=1), Tile(3, 2, "pnk", sources=2, packs=3)]
TILES = [Tile(1, 1), Tile(2, 3, "pnk"), Tile(4, 6, "kpn", sources=1)]


def definition(case: Case, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, ...]:
    """y, dx and dw in float64, tap by tap."""
    y, dx, dw = np.zeros(dy.shape), np.zeros(x.shape), np.zeros(w.shape)
    rows, columns = case.taps()
    for p, row in enumerate(rows.sources):
        for q, column in enumerate(columns.sources):
            for r, h in enumerate(row):
                for s, v in enumerate(column):
                    if h is not None and v is not None:
                        y[:, p, q] += w[:, :, r, s].astype(float) @ x[:, h, v]
                        dx[:, h, v] += w[:, :, r, s].astype(float).T @ dy[:, p, q]
                        dw[:, :, r, s] += dy[:, p, q].astype(float) @ x[:, h, v].T
    return y, dx, dw


def close(ours: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=2e-5 * max(1, abs(wanted).max()))


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("case", CASES)
def test_forward_and_input_gradient(case, tile):
    x, w = normal(case.channels, *case.size, LANES), normal(*case.weight, seed=1)
    b, dy = normal(case.kernels, seed=2), normal(case.kernels, *case.out, LANES, seed=3)
    y, dx = aligned(dy.shape), aligned(x.shape)
    wanted, slope, _ = definition(case, x, w, dy)
    small = case.kernel[0] < 7
    execute(conv.correlate("f", case.forward(), tile), x, w.ravel(), y, interpret=small)
    close(y, wanted)
    kernel = conv.correlate("f", case.forward(), tile, bias=True, relu=True)
    execute(kernel, x, w.ravel(), b, y, interpret=small)
    close(y, np.maximum(wanted + b[:, None, None, None], 0))
    kernel = conv.correlate("b", case.backward(), tile, mask=True)
    execute(kernel, dy, w.ravel(), x, dx, interpret=small)
    close(dx, slope * (x > 0))


@pytest.mark.parametrize("tile", TILES)
def test_the_affine_comes_before_the_relu(tile):
    case = CASES[3]
    x, w = normal(case.channels, *case.size, LANES), normal(*case.weight, seed=1)
    scale, shift = normal(case.kernels, seed=2), normal(case.kernels, seed=3)
    y = aligned((case.kernels, *case.out, LANES))
    wanted = definition(case, x, w, y)[0] * scale[:, None, None, None] + shift[:, None, None, None]
    execute(conv.correlate("f", case.forward(), tile, affine=True), x, w.ravel(), scale, shift, y)
    close(y, wanted)
    kernel = conv.correlate("f", case.forward(), tile, affine=True, relu=True)
    execute(kernel, x, w.ravel(), scale, shift, y)
    close(y, np.maximum(wanted, 0))


@pytest.mark.parametrize("tile", [Tile(2, 4), Tile(2, 2, "kpn", sources=1), PACKING[0]])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("case", [CASES[4], CASES[5]])
def test_a_second_reader_adds_its_gradient(case, mask, tile):
    """Also where a stride leaves places that meet no tap."""
    x, w = normal(case.channels, *case.size, LANES), normal(*case.weight, seed=1)
    dy, dx = normal(case.kernels, *case.out, LANES, seed=3), normal(*x.shape, seed=4)
    wanted = dx + definition(case, x, w, dy)[1]
    kernel = conv.correlate("b", case.backward(), tile, accumulate=True, mask=mask)
    packed = [aligned(packed_shape(case.backward(), tile))] * bool(tile.packs)
    execute(kernel, dy, w.ravel(), *packed, *[x] * mask, dx)
    close(dx, np.where(x > 0, wanted, 0) if mask else wanted)


@pytest.mark.parametrize(
    "tile", [WeightTile(1, 1, 1, 1), WeightTile(2, 2, 3, 2), WeightTile(2, 1, 2, 1, rows=2)]
)
@pytest.mark.parametrize("case", CASES)
def test_weight_gradient(case, tile):
    x, dy = normal(case.channels, *case.size, LANES), normal(case.kernels, *case.out, LANES, seed=1)
    dw = normal(*case.weight, seed=2)
    wanted = dw + definition(case, x, np.zeros(case.weight), dy)[2]
    sums = [aligned((*case.weight, LANES))] * bool(tile.rows)
    kernel = weights.weight_gradient("w", 1, case.kernels, case.channels, *case.taps(), tile)
    execute(kernel, x, dy, *sums, dw, interpret=case.kernel[0] < 7)
    close(dw, wanted)


@pytest.mark.parametrize(
    "tile", [LaneTile(1, 1), LaneTile(2, 2, rows=2, taps=2), LaneTile(2, 1, 1, 3, taps=3)]
)
@pytest.mark.parametrize("case", CASES)
def test_weight_gradient_with_kernels_in_the_lanes(case, tile):
    x, dy = normal(case.channels, *case.size, LANES), normal(case.kernels, *case.out, LANES, seed=1)
    dw = normal(*case.weight, seed=2)
    wanted = dw + definition(case, x, np.zeros(case.weight), dy)[2]
    small = case.kernel[0] < 7
    turned = aligned(turned_shape(case.kernels, *case.taps(), tile))
    sums = aligned((row_blocks(case.kernels), dw[0].size, LANES))
    key = (1, case.kernels, case.channels, *case.taps(), tile)
    kernel = lane_weights.weight_gradient("w", *key)
    rows, columns = case.taps()
    pairs = rows.pairs * columns.pairs
    assert count(kernel).multiply_adds == LANES * case.kernels * case.channels * pairs
    execute(kernel, x, dy, turned, sums, interpret=small)
    add = add_sums("a", 1, case.kernels, dw[0].size)
    execute(add, sums, dw.reshape(case.kernels, -1), interpret=small)
    close(dw, wanted)


@pytest.mark.parametrize("case", [one for one in CASES if one.kernel[1] > 1])
def test_sums_with_kernels_in_the_lanes_are_the_same_in_every_tile(case):
    """Only strips show: there the sums wait."""
    x, dy = normal(case.channels, *case.size, LANES), normal(case.kernels, *case.out, LANES, seed=1)
    shape = row_blocks(case.kernels), case.channels * prod(case.kernel), LANES
    found = []
    for tile in (LaneTile(1, 1), LaneTile(2, 2, taps=2), LaneTile(3, 1, taps=case.kernel[1])):
        key = (1, case.kernels, case.channels, *case.taps(), tile)
        sums, turned = aligned(shape), turned_shape(case.kernels, *case.taps(), tile)
        kernel = lane_weights.weight_gradient("w", *key)
        execute(kernel, x, dy, aligned(turned), sums, interpret=False)
        found.append(sums)
    for sums in found[1:]:
        np.testing.assert_array_equal(sums, found[0])


@pytest.mark.parametrize("kernels", [5, 16, 37])
def test_groups_with_kernels_in_the_lanes(kernels):
    case, groups = Case(3, (4, 5), kernels, pad=(1, 1)), 2
    x = normal(groups, 3, 4, 5, LANES)
    dy, dw = normal(groups, kernels, 4, 5, LANES, seed=1), normal(groups, *case.weight, seed=2)
    wanted = [
        dw[g] + definition(case, x[g], np.zeros(case.weight), dy[g])[2] for g in range(groups)
    ]
    blocks = groups * row_blocks(kernels)
    tile, sums = LaneTile(2, 2, rows=3), aligned((blocks, 27, LANES))
    turned = aligned(turned_shape(kernels, *case.taps(), tile))
    kernel = lane_weights.weight_gradient("w", groups, kernels, 3, *case.taps(), tile)
    execute(kernel, x, dy, turned, sums, interpret=False)
    execute(add_sums("a", groups, kernels, 27), sums, dw.reshape(-1, 27), interpret=False)
    close(dw, np.array(wanted))


@pytest.mark.parametrize("case", CASES)
def test_sums_are_the_same_in_every_tile(case):
    x, w = normal(case.channels, *case.size, LANES), normal(*case.weight, seed=1)
    dy, b = normal(case.kernels, *case.out, LANES, seed=3), normal(case.kernels, seed=2)
    results: list[list[np.ndarray]] = [[], []]
    small = case.kernel[0] < 7
    for tile in [*TILES, *PACKING, Tile(2, 2, "kpn", sources=2)]:
        y, dx = aligned(dy.shape), normal(*x.shape, seed=4)
        forward = conv.correlate("f", case.forward(), tile, bias=True, relu=True)
        packed = [aligned(packed_shape(case.forward(), tile))] * bool(tile.packs)
        execute(forward, x, w.ravel(), *packed, b, y, interpret=bool(tile.packs) and small)
        backward = conv.correlate("b", case.backward(), tile, accumulate=True, mask=True)
        packed = [aligned(packed_shape(case.backward(), tile))] * bool(tile.packs)
        execute(backward, dy, w.ravel(), *packed, x, dx, interpret=bool(tile.packs) and small)
        for found, one in zip(results, (y, dx), strict=True):
            found.append(one)
    for found in results:
        assert all((one == found[0]).all() for one in found)


def test_bias_gradient():
    dy, db = normal(3, 7, LANES), normal(3, seed=1)
    wanted = db + dy.sum((1, 2), dtype=float)
    execute(conv.bias_gradient("b", 3, 7), dy, db)
    close(db, wanted)
