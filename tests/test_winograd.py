"""Winograd's algorithm: its matrices exactly, its kernels against float64, when it is taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lanewise.bridge import oracle
from lanewise.native import algorithms, compile_net
from lanewise.native.algorithms import Convolution
from lanewise.native.directions import plan_directions
from lanewise.native.kernels import winograd, winograd_factors, winograd_gradient
from lanewise.native.kernels.images import row_blocks
from lanewise.native.kernels.lane_weights import add_sums
from lanewise.native.kernels.winograd_factors import WinogradTile
from lanewise.native.kernels.winograd_gradient import GradientTile
from lanewise.native.kernels.winograd_places import Axis, Winograd
from lanewise.native.kernels.winograd_transforms import POINTS, Algorithm
from lanewise.native.nest_count import count
from lanewise.native.target import find_target
from lanewise.net.load import load
from lanewise.net.parse import parse
from native_kernel import aligned, execute, placed

LANES = 16
F4, F2, F4_5, F2_5 = Algorithm(4, 3), Algorithm(2, 3), Algorithm(4, 5), Algorithm(2, 5)


@pytest.fixture
def always() -> Iterator[None]:
    """Winograd's algorithm wherever it can be, quick or not."""
    before, algorithms.WORTH = algorithms.WORTH, 0.0
    algorithms.algorithm.cache_clear()
    algorithms.gradient_algorithm.cache_clear()
    yield
    algorithms.WORTH = before
    algorithms.algorithm.cache_clear()
    algorithms.gradient_algorithm.cache_clear()


# Matrices ----------------------------------------------------------------------------------------


def exactly(matrix: Any, other: Any) -> np.ndarray:
    return np.array(matrix, dtype=object) @ np.array(other, dtype=object)


@pytest.mark.parametrize("algorithm", [F4, F2, F4_5, F2_5])
def test_the_matrices_compute_a_convolution_exactly(algorithm: Algorithm) -> None:
    """And their transposes its gradients: in fractions nothing is rounded."""
    m, r, n = algorithm.outputs, algorithm.taps, algorithm.size
    random = np.random.default_rng(0)
    x, w, dy = (
        np.array([Fraction(int(v)) for v in random.integers(-99, 99, size)], dtype=object)
        for size in (n, r, m)
    )
    b, g, a = (np.array(each, dtype=object) for each in _matrices(algorithm))
    assert list(a.T @ ((g @ w) * (b @ x))) == [sum(w * x[i : i + r]) for i in range(m)]
    dw = [sum(dy[i] * x[i + t] for i in range(m)) for t in range(r)]
    assert list(g.T @ ((a @ dy) * (b @ x))) == dw


def _matrices(algorithm: Algorithm) -> tuple[Any, Any, Any]:
    return algorithm.source.rows, algorithm.kernel.rows, algorithm.result.rows


def test_the_points_are_accurate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors are half of those with 0, ±1, ±2, and the growth tells them about right."""
    error = rounding(F4)
    for algorithm, found in ((F4, error), (F4_5, rounding(F4_5))):
        assert 0.2 < found / (2.0**-24 * algorithm.growth) < 3
    assert F2.growth < 9 < F4.growth < 30
    assert F2_5.growth < 36 and F4_5.growth < 150
    monkeypatch.setitem(POINTS, 6, (Fraction(1), Fraction(2)))
    assert error < 0.75 * rounding(Algorithm(4, 3))


def rounding(algorithm: Algorithm) -> float:
    """Root mean square error of one tile of one pair of maps."""
    random = np.random.default_rng(1)
    m, n, taps = algorithm.outputs, algorithm.size, algorithm.taps
    x, w = random.normal(size=(2000, n, n)), random.normal(size=(2000, taps, taps))
    b, g, a = (np.array(each, dtype=np.float32) for each in _matrices(algorithm))
    exact = np.zeros((2000, m, m))
    for r in range(taps):
        for s in range(taps):
            exact += w[:, r, s, None, None] * x[:, r : r + m, s : s + m]
    x32, w32 = x.astype("f4"), w.astype("f4")
    rounded = a.T @ ((g @ w32 @ g.T) * (b @ x32 @ b.T)) @ a
    return float(np.sqrt(np.mean((rounded - exact) ** 2)))


# Kernels -----------------------------------------------------------------------------------------


def convolved(x: np.ndarray, w: np.ndarray, rows: Axis, columns: Axis) -> np.ndarray:
    """The definition in float64; x: C, H, W, L; w: K, C, R, R."""
    y = np.zeros((len(w), rows.destination, columns.destination, x.shape[-1]))
    for p in range(rows.destination):
        for q in range(columns.destination):
            for r in range(w.shape[2]):
                for s in range(w.shape[2]):
                    i, j = p + r - rows.before, q + s - columns.before
                    if 0 <= i < rows.source and 0 <= j < columns.source:
                        y[:, p, q] += w[:, :, r, s].astype("f8") @ x[:, i, j].astype("f8")
    return y


def sizes_of(
    algorithm: Algorithm, channels: int, kernels: int, size: tuple[int, int], pad: tuple[int, int]
) -> Winograd:
    less = algorithm.taps - 1
    rows, columns = (Axis(n + 2 * p - less, n, p) for n, p in zip(size, pad, strict=True))
    return Winograd(algorithm, kernels, channels, rows, columns)


def backward(sizes: Winograd) -> Winograd:
    """Of the same layer the gradient of its input."""
    last = sizes.algorithm.taps - 1
    rows, columns = (
        Axis(axis.source, axis.destination, last - axis.before)
        for axis in (sizes.rows, sizes.columns)
    )
    return replace(sizes, maps=sizes.sources, sources=sizes.maps, rows=rows, columns=columns)


def arrays(sizes: Winograd, tile: WinogradTile) -> tuple[np.ndarray, list[np.ndarray]]:
    """Factors and workspace."""
    shapes = winograd.workspace_shapes(sizes, tile).values()
    return aligned(winograd_factors.factors_shape(sizes, tile)), [
        aligned(shape) for shape in shapes
    ]


def close(ours: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=4e-5 * max(1, abs(wanted).max()))


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return placed(np.random.default_rng(seed).normal(size=shape))


CASES = [
    (F4, 3, 5, (7, 9), (1, 1), WinogradTile(2, 2, 4, 4, 1)),
    (F4, 4, 7, (4, 8), (1, 1), WinogradTile(4, 1, 2, 8, 4)),
    (F2, 5, 3, (6, 5), (2, 0), WinogradTile(3, 4, 8, 3, 5)),
    (F4, 2, 2, (1, 1), (1, 1), WinogradTile(1, 1, 1, 1, 2)),
    (F2, 1, 4, (1, 3), (1, 1), WinogradTile(4, 2, 2, 4, 1)),
    (F4, 2, 3, (3, 17), (0, 2), WinogradTile(2, 3, 3, 2, 1)),
    (F4_5, 3, 5, (7, 9), (2, 2), WinogradTile(2, 2, 4, 4, 1)),
    (F4_5, 4, 9, (4, 18), (4, 0), WinogradTile(4, 1, 2, 8, 4)),
    (F4_5, 1, 2, (1, 2), (2, 3), WinogradTile(2, 1, 1, 2, 1)),
    (F2_5, 5, 3, (6, 5), (2, 1), WinogradTile(3, 4, 8, 3, 5)),
]


@pytest.mark.parametrize(("algorithm", "channels", "kernels", "size", "pad", "tile"), CASES)
def test_forward_and_input_gradient(algorithm, channels, kernels, size, pad, tile) -> None:
    sizes, taps = sizes_of(algorithm, channels, kernels, size, pad), algorithm.taps
    x, w = normal(channels, *size, LANES), normal(kernels, channels, taps**2, seed=1)
    factors, workspace = arrays(sizes, tile)
    execute(winograd_factors.transform_weights("u", sizes, tile, forward=True), w, factors)
    wanted = convolved(x, w.reshape(kernels, channels, taps, taps), sizes.rows, sizes.columns)
    y, bias = aligned(wanted.shape), normal(kernels, seed=2)
    execute(winograd.correlate("f", sizes, tile), x, factors, *workspace, y)
    close(y, wanted)
    kernel = winograd.correlate("f", sizes, tile, bias=True, relu=True)
    execute(kernel, x, factors, *workspace, bias, y, interpret=False)
    close(y, np.maximum(wanted + bias[:, None, None, None], 0))
    other = backward(sizes)
    tile = replace(tile, sources=1)
    factors, workspace = arrays(other, tile)
    execute(winograd_factors.transform_weights("v", other, tile, forward=False), w, factors)
    dy, dx = normal(*wanted.shape, seed=3), aligned(x.shape)
    turned = w.reshape(kernels, channels, taps, taps)[:, :, ::-1, ::-1].swapaxes(0, 1)
    slope = convolved(dy, turned, other.rows, other.columns)
    kernel = winograd.correlate("b", other, tile, mask=True)
    execute(kernel, dy, factors, *workspace, x, dx)
    close(dx, slope * (x > 0))
    kernel = winograd.correlate("b", other, tile, accumulate=True)
    execute(kernel, dy, factors, *workspace, dx, interpret=False)
    close(dx, slope * (x > 0) + slope)


@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_any_size(data: st.DataObject) -> None:
    """Any number of maps, any map, any padding, the engine's own tiles."""
    draw = data.draw
    algorithm = draw(st.sampled_from([F4, F2, F4_5]))
    taps = algorithm.taps
    pad = draw(st.integers(0, taps - 1)), draw(st.integers(0, taps - 1))
    size = tuple(draw(st.integers(max(1, taps - 2 * p), 19)) for p in pad)
    channels, kernels = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    sizes = sizes_of(algorithm, channels, kernels, size, pad)
    tile = algorithms.winograd_tile(find_target(), sizes)
    x, w = normal(channels, *size, LANES), normal(kernels, channels, taps**2, seed=1)
    factors, workspace = arrays(sizes, tile)
    kernel = winograd_factors.transform_weights("u", sizes, tile, forward=True)
    execute(kernel, w, factors, interpret=False)
    y = aligned((kernels, sizes.rows.destination, sizes.columns.destination, LANES))
    execute(winograd.correlate("f", sizes, tile), x, factors, *workspace, y, interpret=False)
    close(y, convolved(x, w.reshape(kernels, channels, taps, taps), sizes.rows, sizes.columns))


def test_multiply_adds_are_those_of_the_formula() -> None:
    """Products of every point, tile, map and source; 144 for a tile's source, 40 for its map."""
    sizes = sizes_of(F4, 8, 12, (16, 12), (1, 1))
    tile = WinogradTile(4, 3, 6, 12, 8)
    transforms = sizes.tiles * (144 * sizes.sources + 40 * sizes.maps)
    products = 36 * sizes.tiles * sizes.maps * sizes.sources
    counted = count(winograd.correlate("f", sizes, tile)).multiply_adds
    assert sizes.tiles == 12
    assert counted == LANES * (products + transforms)


@pytest.mark.parametrize(
    ("channels", "kernels", "size", "pad"),
    [
        (3, 5, (7, 9), (1, 1)),
        (4, 17, (4, 4), (1, 1)),
        (2, 3, (1, 6), (2, 0)),
        (3, 18, (6, 9), (2, 2)),
    ],
)
@pytest.mark.parametrize("algorithm", [F4, F2, F4_5])
@pytest.mark.parametrize("tile", [GradientTile(3, 1, 2), GradientTile(2, 2, 4)])
def test_weight_gradient(algorithm, channels, kernels, size, pad, tile) -> None:
    if algorithm.taps == 5:
        pad = pad[0] + 1, pad[1] + 1
    sizes, weights = sizes_of(algorithm, channels, kernels, size, pad), algorithm.taps**2
    rows, columns = sizes.rows, sizes.columns
    x = normal(channels, *size, LANES)
    dy = normal(kernels, rows.destination, columns.destination, LANES, seed=1)
    wanted = slopes(x, dy, sizes)
    dw = normal(kernels, channels * weights, seed=2)
    wanted += dw.reshape(wanted.shape)
    workspace = [
        aligned(shape) for shape in winograd_gradient.workspace_shapes(sizes, tile).values()
    ]
    sums = aligned((row_blocks(kernels), channels * weights, LANES))
    kernel = winograd_gradient.weight_gradient("w", sizes, tile)
    execute(kernel, x, dy, *workspace, sums)
    execute(add_sums("a", 1, kernels, channels * weights), sums, dw, interpret=False)
    close(dw.reshape(wanted.shape), wanted)


def slopes(x: np.ndarray, dy: np.ndarray, sizes: Winograd) -> np.ndarray:
    """The gradient of the weights in float64."""
    rows, columns, taps = sizes.rows, sizes.columns, sizes.algorithm.taps
    dw = np.zeros((len(dy), len(x), taps, taps))
    for p in range(rows.destination):
        for q in range(columns.destination):
            for r in range(taps):
                for s in range(taps):
                    i, j = p + r - rows.before, q + s - columns.before
                    if 0 <= i < rows.source and 0 <= j < columns.source:
                        dw[:, :, r, s] += dy[:, p, q].astype("f8") @ x[:, i, j].astype("f8").T
    return dw


# When it is taken --------------------------------------------------------------------------------


def kernels_of(net: str, exact: bool = False) -> set[str]:
    plan = plan_directions(load(net), find_target(), True, exact=exact)["train"]
    return {kernel.name.rpartition("_")[0] for kernel in plan.kernels}


def test_it_is_taken_where_it_pays_and_only_if_allowed() -> None:
    assert {"winograd_forward", "winograd_gradients"} <= kernels_of("resnet20")
    assert not any(name.startswith("winograd") for name in kernels_of("resnet20", exact=True))
    assert not any(name.startswith("winograd") for name in kernels_of("lenet5"))


@pytest.mark.parametrize(
    "layer", ["k3 stride2", "k5 stride2", "k3 dilation2", "k3 groups 2", "k1", "k7", "k 3x5"]
)
def test_other_convolutions_are_computed_directly(layer: str) -> None:
    net = f"input 32x16x16; conv 32 {layer}; globalavg; flatten; linear 2"
    assert not any(name.startswith("winograd") for name in kernels_of(net))


def test_small_maps_and_few_channels_are_computed_directly() -> None:
    def chosen(channels: int, size: int, taps: int = 3) -> Algorithm | None:
        axis = Axis(size, size, taps // 2)
        return algorithms.algorithm(Convolution(channels, channels, taps, axis, axis))

    assert chosen(64, 32) == chosen(16, 32) == F4
    assert chosen(2, 32) is None and chosen(64, 1) is None and chosen(64, 2) is None
    assert chosen(64, 32, 5) == chosen(16, 8, 5) == F4_5
    assert chosen(4, 32, 5) is None and chosen(64, 4, 5) is None


def test_five_by_five_is_taken_in_all_directions() -> None:
    ours = {"winograd_forward", "winograd_gradients"}
    net = "input 16x8x8; conv 16 k5 pad2; conv 16 k5 pad2; globalavg; flatten; linear 2"
    assert ours <= kernels_of(net)


NET = (
    "input 3x9x11; conv 17 k3 pad1; relu; conv 20 k3 pad1 nobias; bn; relu; "
    "residual { conv 20 k5 pad2; relu; conv 20 k3 pad1 }; relu; conv 6 k5 pad1; flatten; linear 4"
)


@pytest.mark.usefixtures("always")
def test_nets_agree_with_pytorch() -> None:
    """Joined ReLUs, masks, gradients that add up, folded norms."""
    plan = plan_directions(parse(NET), find_target(), True)["train"]
    assert sum(kernel.name.startswith("winograd_forward") for kernel in plan.kernels) > 3
    oracle.check(parse(NET), cache=False)


@pytest.mark.usefixtures("always")
def test_the_same_bits_for_any_threads_and_registers() -> None:
    random = np.random.default_rng(0)
    images = random.normal(size=(70, 3, 9, 11)).astype("f4")
    labels = random.integers(4, size=70)
    net = parse("input 3x9x11; conv 17 k3 pad1; relu; conv 20 k3 pad1; flatten; linear 4")
    results = []
    for threads, target in ((1, "host"), (3, "host"), (2, "avx2")):
        options: dict[str, Any] = {"threads": threads, "target": target, "cache": False}
        with compile_net(net, training=True, **options) as program:
            program.initialise(3)
            program.step(images, labels, lr=0.1)
            results.append([array.tobytes() for array in program.learned.values()])
    assert all(result == results[0] for result in results)


def test_exact_is_another_result_within_rounding() -> None:
    """And its key in the cache is another one."""
    images = np.random.default_rng(0).normal(size=(16, 16, 16, 16)).astype("f4")
    net = parse("input 16x16x16; conv 32 k3 pad1; flatten")
    logits = []
    for exact in (True, False):
        with compile_net(net, exact=exact) as program:
            program.initialise(0)
            assert program.facts.exact is exact
            logits.append(program.forward(images))
    assert not np.array_equal(*logits)
    np.testing.assert_allclose(*logits, atol=2e-5 * abs(logits[0]).max())
