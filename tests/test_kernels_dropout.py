"""Dropout and its relatives: kernels against masks, masks against chance."""

from __future__ import annotations

import numpy as np
import pytest

from lanewise.native.kernels.dropout import (
    decisions,
    dropout,
    dropout_mask,
    kept_scale,
    lane_keys,
    mix,
    noise_mask,
)
from lanewise.net.layers import Dropout, SpatialDropout, StochasticDepth
from native_kernel import aligned, execute, placed

LANES = 16


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return placed(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 0.999, 1.0])
def test_dropout_is_its_definition(rate):
    keys = lane_keys(3, 7, np.arange(100, 100 + LANES))
    lanes = placed(keys.view(np.int32), np.int32)
    x, value = normal(50, LANES), normal(50, LANES, seed=1)
    y = aligned(x.shape)
    kept = np.where(dropout_mask(keys, 50, rate, 123456789), x * np.float32(kept_scale(rate)), 0)
    execute(dropout("d", 50, rate, 123456789), x, lanes, y)
    assert (y == kept).all()
    execute(dropout("d", 50, rate, 123456789, mask=True), x, lanes, value, y)
    assert (y == np.where(value > 0, kept, 0)).all()


@pytest.mark.parametrize("kind", [Dropout, SpatialDropout, StochasticDepth])
@pytest.mark.parametrize("shape", [(3, 2, 5), (1, 1, 3), (5, 1, 1), (6,)])
def test_noise_falls_together(kind, shape):
    """Single values, feature maps, images; the kernel and the mask agree."""
    layer = kind(0.5)
    elements = int(np.prod(shape))
    keys = lane_keys(3, 7, np.arange(LANES))
    lanes, x = placed(keys.view(np.int32), np.int32), normal(elements, LANES)
    kept = noise_mask(layer, keys, shape, 77)
    assert kept[0].size == decisions(layer, shape)
    y = aligned(x.shape)
    together = elements // decisions(layer, shape)
    execute(dropout("d", elements, 0.5, 77, together=together), x, lanes, y)
    wide = np.broadcast_to(kept, (LANES, *shape)).reshape(LANES, elements)
    assert (y == np.where(wide.T, x * np.float32(2.0), 0)).all()
    value = normal(elements, LANES, seed=1)
    execute(dropout("d", elements, 0.5, 77, together=together, mask=True), x, lanes, value, y)
    assert (y == np.where(wide.T & (value > 0), x * np.float32(2.0), 0)).all()


def test_dropout_masks_are_fair_and_differ():
    keys = lane_keys(1, 2, np.arange(1000))
    assert len(set(keys)) == 1000
    mask = dropout_mask(keys, 500, 0.3, 1)
    assert abs(mask.mean() - 0.7) < 5 * (0.21 / mask.size) ** 0.5
    assert abs(mask.mean(0) - 0.7).max() < 6 * (0.21 / 500) ** 0.5
    assert abs(mask.mean(1) - 0.7).max() < 6 * (0.21 / 1000) ** 0.5
    for other in (
        dropout_mask(keys, 500, 0.3, 2),
        dropout_mask(lane_keys(1, 3, np.arange(1000)), 500, 0.3, 1),
        dropout_mask(lane_keys(2, 2, np.arange(1000)), 500, 0.3, 1),
        mask[::-1],
    ):
        assert abs((mask == other).mean() - 0.58) < 0.01


def test_mix_is_one_to_one_here():
    numbers = np.arange(1 << 16, dtype=np.uint32)
    assert len(np.unique(mix(numbers))) == numbers.size
    assert len(np.unique(mix(numbers << np.uint32(16)))) == numbers.size
