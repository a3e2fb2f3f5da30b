"""What a convolution's store takes along: sums and max pools, the same bits as by themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lanewise.bridge import oracle
from lanewise.native import compile_net
from lanewise.native.directions import plan_directions
from lanewise.native.kernels import pool, winograd, winograd_factors
from lanewise.native.kernels.conv import correlate
from lanewise.native.kernels.correlation import Correlation, Tile
from lanewise.native.kernels.result import Result
from lanewise.native.kernels.taps import forward_taps
from lanewise.native.kernels.winograd_factors import WinogradTile
from lanewise.native.kernels.winograd_places import Axis, Winograd
from lanewise.native.kernels.winograd_transforms import Algorithm
from lanewise.native.rules import convolution
from lanewise.native.rules.stores import Store
from lanewise.native.target import find_target
from lanewise.native.ways import pooled_way
from lanewise.net.parse import parse
from native_kernel import aligned, execute, placed

LANES = 16

#: pools and sums behind direct convolutions (also of 1×1) and such by Winograd's algorithm
NET = (
    "input 3x16x16; conv 6 k5 pad2; maxpool 2; relu; conv 16 k3 pad1 nobias; relu; "
    "residual { conv 16 k3 pad1 }; relu; residual { conv 16 k1 }; "
    "conv 20 k3 pad1; relu; maxpool 2; residual { conv 20 k3 pad1 } { conv 20 k1 }; relu; "
    "conv 5 k3 pad2; maxpool 2; flatten; linear 4"
)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Small whole numbers: sums are exact, and there are ties."""
    return placed(np.random.default_rng(seed).integers(-3, 4, size=shape))


def pooled(y: np.ndarray, relu: bool) -> tuple[np.ndarray, np.ndarray]:
    """The pool's own kernel on maps y: target, argument."""
    maps, high, wide, _ = y.shape
    rows, columns = (forward_taps(n, n // 2, 2, 2, 0, 1) for n in (high, wide))
    shape = (maps, high // 2, wide // 2, LANES)
    target, argument = aligned(shape), aligned(shape, np.uint8)
    kernel = pool.max_pool("p", maps, rows, columns, relu=relu, argument=True)
    execute(kernel, placed(y), target, argument, interpret=False)
    return target, argument


@pytest.mark.parametrize("tile", [Tile(2, 4), Tile(3, 2, "kpn"), Tile(2, 6, "pnk", packs=2)])
@pytest.mark.parametrize(("kernel", "pad"), [(3, 1), (5, 4)])
def test_direct_sums_are_pooled_as_by_the_pool(tile: Tile, kernel: int, pad: int) -> None:
    out = [n + 2 * pad - kernel + 1 for n in (6, 10)]
    rows, columns = (
        forward_taps(n, o, kernel, 1, pad, 1) for n, o in zip((6, 10), out, strict=True)
    )
    area = kernel**2
    sizes = Correlation(1, 5, 3, rows, columns, 0, 3 * area, area)
    x, w, bias = normal(3, 6, 10, LANES), normal(5 * 3 * area, seed=1), normal(5, seed=2)
    y = aligned((5, *out, LANES))
    execute(correlate("f", sizes, Tile(1, 1), bias=True), x, w, bias, y, interpret=False)
    wanted = pooled(y, relu=True)
    options = {"bias": True, "relu": True, "pool": True, "argument": True}
    arrays = aligned(wanted[1].shape, np.uint8), aligned(wanted[0].shape)
    kernel_of = correlate("g", sizes, tile, **options)
    scratch = [aligned(kernel_of.buffers[2].shape)] if tile.packs else []
    execute(kernel_of, x, w, *scratch, bias, *arrays)
    np.testing.assert_array_equal(arrays[1], wanted[0])
    np.testing.assert_array_equal(arrays[0], wanted[1])


@pytest.mark.parametrize("algorithm", [Algorithm(4, 3), Algorithm(2, 3), Algorithm(4, 5)])
def test_results_of_tiles_are_pooled_as_by_the_pool(algorithm: Algorithm) -> None:
    pad = algorithm.taps // 2
    sizes = Winograd(algorithm, 5, 3, Axis(6, 6, pad), Axis(10, 10, pad))
    tile = WinogradTile(2, 2, 4, 4, 1)
    x, w, bias = normal(3, 6, 10, LANES), normal(5, 3, algorithm.taps**2, seed=1), normal(5)
    factors = aligned(winograd_factors.factors_shape(sizes, tile))
    execute(
        winograd_factors.transform_weights("u", sizes, tile, forward=True),
        w,
        factors,
        interpret=False,
    )
    room = [aligned(shape) for shape in winograd.workspace_shapes(sizes, tile).values()]
    y = aligned((5, 6, 10, LANES))
    kernel = winograd.correlate("f", sizes, tile, bias=True)
    execute(kernel, x, factors, *room, bias, y, interpret=False)
    wanted = pooled(y, relu=False)
    argument, target = aligned(wanted[1].shape, np.uint8), aligned(wanted[0].shape)
    kernel = winograd.correlate("g", sizes, tile, bias=True, pool=True, argument=True)
    execute(kernel, x, factors, *room, bias, argument, target, interpret=False)
    np.testing.assert_array_equal(target, wanted[0])
    np.testing.assert_array_equal(argument, wanted[1])


def test_finishing_is_more_than_storing_where_a_branch_is_added() -> None:
    """Sums that wait are taken up again for it."""
    assert Result((1, 2, 2, LANES), plus=True).changes
    rows = columns = forward_taps(4, 4, 3, 1, 1, 1)
    sizes = Correlation(1, 2, 4, rows, columns, 0, 36, 9)
    x, w, other = normal(4, 4, 4, LANES), normal(72, seed=1), normal(2, 4, 4, LANES, seed=2)
    results = []
    for tile in (Tile(2, 4), Tile(2, 4, sources=2)):
        y = aligned(other.shape)
        execute(correlate("f", sizes, tile, plus=True, relu=True), x, w, other, y)
        results.append(y)
    np.testing.assert_array_equal(*results)
    assert (results[0] > 0).any() and (results[0] == 0).any()


def test_pooling_tiles_are_even() -> None:
    for size in (2, 10, 14, 28, 56):
        taps = forward_taps(size, size, 3, 1, 1, 1)
        way = pooled_way(find_target(), Correlation(1, 16, 16, taps, taps, 0, 144, 9))
        assert way is None or (way.columns % 2 == 0 and way.sources == 0)


def kernels_of(training: bool) -> list[str]:
    plans = plan_directions(parse(NET), find_target(), training)
    plan = plans["train" if training else "forward"]
    return [kernel.name.rpartition("_")[0] for kernel in plan.kernels]


@pytest.mark.parametrize("training", [True, False])
def test_pools_and_sums_have_no_calls_of_their_own(training: bool) -> None:
    assert not {"max_pool", "add_values"} & set(kernels_of(training))


def test_bits_are_those_of_pools_and_sums_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).normal(size=(20, 3, 16, 16)).astype("f4")
    options: dict[str, Any] = {"training": True, "cache": False}
    results = []
    for rule in (convolution.store_of, lambda plan, operation: Store(operation)):
        monkeypatch.setattr(convolution, "store_of", rule)
        with compile_net(parse(NET), **options) as program:
            program.initialise(3)
            program.step(images, np.arange(20) % 4, lr=0.1)
            results.append([array.tobytes() for array in program.learned.values()])
            results[-1].append(program.forward(images).tobytes())
    assert results[0] == results[1]


def test_the_net_agrees_with_pytorch() -> None:
    oracle.check(parse(NET), cache=False)


@pytest.mark.parametrize(
    "branch", ["conv 1 k1; conv 4 k1", "conv 4 k3 pad1 groups 4", "conv 1 k3 pad1; conv 4 k3 pad1"]
)
def test_sums_behind_convolutions_of_single_channels_have_their_own_call(branch: str) -> None:
    """Their kernel, the depthwise one, takes nothing along."""
    pytest.importorskip("torch", reason="the oracle needs PyTorch (extra `torch`)")
    from lanewise.bridge.oracle import check

    graph = parse(f"input 4x5x6; residual {{ {branch} }}; flatten; linear 3")
    check(graph, training=False)
    check(graph, batch=3)
