"""1 × 1 convolutions some pixels at a time, of any stride: values, gradients, and the same bits as
tap by tap."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from lanewise.native.kernels import conv, points
from lanewise.native.kernels.correlation import Correlation, Tile
from lanewise.native.kernels.points import PointTile, packed_shape, points_of
from lanewise.native.kernels.taps import forward_taps, gradient_taps
from lanewise.native.nest import LANES
from lanewise.native.point_ways import point_tile
from lanewise.native.target import find_target
from native_kernel import aligned, execute, placed

CHANNELS, KERNELS = 5, 7
#: height and width, strides, padding
SIZES = [
    ((1, 1), (1, 1), 0),
    ((5, 6), (1, 1), 0),
    ((5, 6), (2, 2), 0),
    ((7, 4), (3, 1), 0),
    ((6, 5), (2, 1), 1),
]
TILES = [
    PointTile(4, 3, 2),
    PointTile(3, 2, 3, maps_first=True, away=True),
    PointTile(2, 4, 1, packs=False),
    PointTile(7, 1, 40, packs=False, ahead=False),
]


def correlations(size: tuple[int, int], stride: tuple[int, int], pad: int) -> list[Correlation]:
    """Forward and input gradient."""
    out = [(n + 2 * pad - 1) // step + 1 for n, step in zip(size, stride, strict=True)]
    forward, back = (
        [make(size[axis], out[axis], 1, stride[axis], pad, 1) for axis in (0, 1)]
        for make in (forward_taps, gradient_taps)
    )
    weights = KERNELS * CHANNELS
    return [
        Correlation(1, KERNELS, CHANNELS, *forward, weights, CHANNELS, 1),
        Correlation(1, CHANNELS, KERNELS, *back, weights, 1, CHANNELS),
    ]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return placed(np.random.default_rng(seed).normal(size=shape))


def shape(maps: int, *axes: int) -> tuple[int, ...]:
    return maps, *axes, LANES


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("size", SIZES)
def test_the_same_bits_as_the_general_kernel(size, tile):
    for sizes, options in product(
        correlations(*size),
        [
            {},
            {"bias": True, "relu": True},
            {"accumulate": True},
            {"accumulate": True, "mask": True},
        ],
    ):
        rows, columns = sizes.rows, sizes.columns
        x = normal(*shape(sizes.sources, rows.source, columns.source))
        places = shape(sizes.maps, rows.destination, columns.destination)
        w, value, before = normal(sizes.weights, seed=1), normal(*places, seed=2), normal(*places)
        others = [normal(sizes.maps, seed=3)] * ("bias" in options) + [value] * ("mask" in options)
        wanted, found = placed(before), placed(before)
        general = conv.correlate("c", sizes, Tile(2, 3), **options)
        execute(general, x, w, *others, wanted, interpret=False)
        packed = [aligned(packed_shape(sizes, tile))] * tile.packs
        kernel = points.products("p", sizes, tile, **options)
        execute(kernel, x, w, *packed, *others, found, interpret=tile is TILES[0])
        np.testing.assert_array_equal(found, wanted)


def test_where_a_result_lies_that_meets_no_source():
    _, back = correlations((3, 3), (2, 2), 0)
    found = points_of(back)
    assert found
    assert found.sources == (0, 1, 2, 3)
    assert found.targets == (0, 2, 6, 8)
    assert sorted(place for _, place in found.rest) == [1, 3, 4, 5, 7]


def test_only_1x1_of_one_group_is_taken():
    taps = forward_taps(6, 4, 3, 1, 0, 1)
    assert points_of(Correlation(1, 8, 8, taps, taps, 576, 72, 9)) is None
    still = forward_taps(6, 6, 1, 1, 0, 1)
    assert points_of(Correlation(2, 8, 8, still, still, 64, 8, 1)) is None


def test_results_that_leave_the_caches_go_past_them():
    def tile(pixels: int, maps: int) -> PointTile | None:
        still = forward_taps(pixels, pixels, 1, 1, 0, 1)
        sizes = Correlation(1, maps, 64, still, still, 64 * maps, 64, 1)
        return point_tile(find_target("avx512"), sizes)

    small, large, few = tile(8, 64), tile(64, 64), tile(64, 4)
    assert small and small.packs and not small.away
    assert large and large.packs and large.away
    assert few is None
