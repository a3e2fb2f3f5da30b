"""Normalisations that Winograd's algorithm takes along: each kernel beside those it stands for, and
nets against PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from lanewise.bridge import oracle
from lanewise.native import algorithms, compile_net
from lanewise.native.directions import plan_directions
from lanewise.native.kernels import (
    batch_norm,
    batch_norm_gradient,
    winograd,
    winograd_factors,
    winograd_gradient,
)
from lanewise.native.kernels.fused_norm import (
    AsItStands,
    Moments,
    Normalise,
    Pull,
    Reads,
    SumGradients,
)
from lanewise.native.kernels.images import row_blocks
from lanewise.native.kernels.winograd_factors import WinogradTile
from lanewise.native.kernels.winograd_gradient import GradientTile
from lanewise.native.kernels.winograd_places import Axis, Winograd
from lanewise.native.kernels.winograd_transforms import Algorithm
from lanewise.native.target import find_target
from lanewise.net.parse import parse
from native_kernel import aligned, execute, placed

LANES = 16
MAPS, CHANNELS = 5, 3

#: map, algorithm and tile: parts of the sources, chunks of maps, blocks of rows and of parts
CASES = [
    ((8, 8), Algorithm(4, 3), WinogradTile(2, 2, 4, 8, 3)),
    ((7, 9), Algorithm(4, 3), WinogradTile(2, 2, 2, 4, 1)),
    ((9, 6), Algorithm(2, 3), WinogradTile(3, 2, 6, 3, 3)),
    ((3, 1), Algorithm(4, 3), WinogradTile(2, 1, 1, 8, 3)),
    ((6, 7), Algorithm(4, 5), WinogradTile(2, 2, 2, 8, 3)),
]


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


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return placed(np.random.default_rng(seed).normal(size=shape))


def close(ours: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(ours, wanted, rtol=2e-4, atol=6e-5 * max(1, abs(wanted).max()))


def sizes_of(size: tuple[int, int], algorithm: Algorithm) -> Winograd:
    rows, columns = (Axis(n, n, algorithm.taps // 2) for n in size)
    return Winograd(algorithm, MAPS, CHANNELS, rows, columns)


def moments_of(maps: int, seed: int) -> np.ndarray:
    """Mean, inverse deviation, scale, shift and variance of each map."""
    moments = normal(maps, batch_norm.MOMENTS, seed=seed)
    moments[:, batch_norm.INVERSE] = abs(moments[:, batch_norm.INVERSE]) + 0.5
    return moments


def workspace(
    sizes: Winograd, tile: WinogradTile, reads: Reads
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Transformed weights, and arrays of the call's own: of the plain one, and of this."""
    factors = aligned(winograd_factors.factors_shape(sizes, tile))
    weights = normal(sizes.maps, sizes.sources, sizes.algorithm.taps**2, seed=9)
    kernel = winograd_factors.transform_weights("u", sizes, tile, forward=True)
    execute(kernel, weights, factors, interpret=False)
    plain, own = (winograd.workspace_shapes(sizes, tile, way) for way in (AsItStands(), reads))
    return factors, [aligned(one) for one in plain.values()], [aligned(one) for one in own.values()]


def flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1, LANES)


@pytest.mark.parametrize(("plus", "away"), [(False, True), (True, False)])
@pytest.mark.parametrize(("size", "algorithm", "tile"), CASES)
def test_forward(size, algorithm, tile, plus: bool, away: bool) -> None:
    """Normalised on the way in, statistics told on the way out."""
    sizes, pixels = sizes_of(size, algorithm), size[0] * size[1]
    source, other = normal(CHANNELS, *size, LANES), normal(CHANNELS, *size, LANES, seed=1)
    reads, moments = Normalise("relu", plus, keep=True, away=away), moments_of(CHANNELS, 2)
    factors, plain, own = workspace(sizes, tile, reads)
    middle, wanted = aligned((CHANNELS, pixels, LANES)), aligned((MAPS, *size, LANES))
    statistics = aligned((MAPS, batch_norm.TOLD, LANES))
    options: dict[str, Any] = {"moments": True, "plus": plus, "rectifier": "relu"}
    others = [other] * plus
    kernel = batch_norm.normalise("n", CHANNELS, pixels, **options)
    execute(kernel, flat(source), moments, *map(flat, others), middle, interpret=False)
    middle = middle.reshape(source.shape)
    execute(winograd.correlate("p", sizes, tile), middle, factors, *plain, wanted, interpret=False)
    kernel = batch_norm.statistics("s", MAPS, pixels)
    execute(kernel, flat(wanted), statistics, interpret=False)
    kept, told, y = aligned(source.shape), aligned(statistics.shape), aligned(wanted.shape)
    kernel = winograd.correlate("f", sizes, tile, reads=reads, tells=Moments(), away=away)
    execute(kernel, source, moments, *others, kept, factors, *own, told, y)
    np.testing.assert_array_equal(kept, middle)
    np.testing.assert_array_equal(y, wanted)
    close(told[:, :2], statistics[:, :2])


@pytest.mark.parametrize(
    ("rectifier", "accumulate"), [("", True), ("relu", False), ("relu6", False)]
)
@pytest.mark.parametrize(("size", "algorithm", "tile"), CASES)
def test_gradient(size, algorithm, tile, rectifier: str, accumulate: bool) -> None:
    """A normalisation's gradient worked out on the way in, the sums of another's on the way out;
    a lane without an image is left out."""
    sizes, pixels = sizes_of(size, algorithm), size[0] * size[1]
    x, dy = normal(CHANNELS, *size, LANES), normal(CHANNELS, *size, LANES, seed=1)
    moments, pull, lanes = moments_of(CHANNELS, 2), normal(CHANNELS, 2, seed=3), aligned((LANES,))
    lanes[:11] = 1.0
    before, norm = normal(MAPS, *size, LANES, seed=4), moments_of(MAPS, 5)
    factors, plain, own = workspace(sizes, tile, Pull(rectifier))
    middle, wanted = aligned(flat(x).shape), normal(MAPS, *size, LANES, seed=6)
    target = placed(wanted.copy())
    kernel = batch_norm_gradient.gradient("g", CHANNELS, pixels, rectifier=rectifier)
    execute(kernel, flat(x), flat(dy), moments, pull, lanes, middle, interpret=False)
    middle = middle.reshape(x.shape)
    kernel = winograd.correlate("p", sizes, tile, accumulate=accumulate)
    execute(kernel, middle, factors, *plain, wanted, interpret=False)
    sums, parameters = aligned((MAPS, 2, LANES)), [normal(MAPS, seed=7), normal(MAPS, seed=8)]
    ours = [placed(one.copy()) for one in parameters]
    kernel = batch_norm_gradient.gradient_sums("s", MAPS, pixels, affine=True, rectifier=rectifier)
    execute(kernel, flat(before), flat(wanted), norm, sums, *parameters, interpret=False)
    kept, told = aligned(x.shape), aligned(sums.shape)
    kernel = winograd.correlate(
        "f",
        sizes,
        tile,
        accumulate=accumulate,
        reads=Pull(rectifier),
        tells=SumGradients(rectifier, affine=True),
    )
    arrays = [x, dy, moments, pull, lanes, kept, factors, *own, before, norm, told, *ours]
    execute(kernel, *arrays, target)
    np.testing.assert_array_equal(kept, middle)
    close(told, sums)
    for mine, other in zip(ours, parameters, strict=True):
        close(mine, other)


@pytest.mark.parametrize(("size", "algorithm", "tile"), CASES[:3])
def test_weight_gradient(size, algorithm, tile) -> None:
    """The source is normalised again on the way in."""
    del tile
    sizes, tile = sizes_of(size, algorithm), GradientTile(2, 1, 2)
    x, dy = normal(CHANNELS, *size, LANES), normal(MAPS, *size, LANES, seed=1)
    moments, middle = moments_of(CHANNELS, 2), aligned(flat(x).shape)
    options: dict[str, Any] = {"moments": True, "plus": False, "rectifier": "relu6"}
    kernel = batch_norm.normalise("n", CHANNELS, size[0] * size[1], **options)
    execute(kernel, flat(x), moments, middle, interpret=False)
    reads, shapes = Normalise("relu6", plus=False, keep=False), winograd_gradient.workspace_shapes
    plain, own = (
        [aligned(one) for one in shapes(sizes, tile, way).values()] for way in (AsItStands(), reads)
    )
    shape = row_blocks(MAPS), CHANNELS * algorithm.taps**2, LANES
    wanted, ours = aligned(shape), aligned(shape)
    kernel = winograd_gradient.weight_gradient("p", sizes, tile)
    execute(kernel, middle.reshape(x.shape), dy, *plain, wanted, interpret=False)
    kernel = winograd_gradient.weight_gradient("w", sizes, tile, reads)
    execute(kernel, x, moments, dy, *own, ours)
    np.testing.assert_array_equal(ours, wanted)


#: sums inside and outside, a sum of another branch first, a value with two readers, a bias, other
#: rectifiers, no parameters, a norm that is read twice, a max pool between, a ghost
NETS = [
    "input 3x9x11; conv 17 k3 pad1 nobias; bn; relu; residual { conv 17 k3 pad1 nobias; bn; relu; "
    "conv 17 k3 pad1 nobias; bn }; relu; residual { conv 17 k3 pad1; bn; relu6; conv 17 k3 pad1; "
    "bn noaffine }; relu; globalavg; flatten; linear 4",
    "input 4x6x7; conv 6 k3 pad1; bn; silu; conv 9 k5 pad2; bn momentum 0.3; "
    "residual { conv 9 k3 pad1; bn }; bn; conv 6 k3; bn; maxpool 2; relu; conv 7 k3 pad2; "
    "bn ghost 16; relu; conv 5 k3 pad1; bn ghost 16; flatten; linear 3",
    "input 4x8x6; conv 8 k1; bn; relu; conv 9 k3 pad1; bn; relu; "
    "residual { conv 9 k3 pad1; bn } { conv 9 k1; bn }; relu; conv 8 k3 stride 2 pad1; bn; relu; "
    "concat { conv 5 k3 pad1; bn } { bn }; conv 4 k3 pad1; flatten; linear 3",
]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("net", NETS)
def test_nets_agree_with_pytorch(net: str) -> None:
    """Values, all gradients, running statistics."""
    found = oracle.check(parse(net), cache=False, threads=2)
    assert any("running_var" in row.name for row in found.rows)


@pytest.mark.usefixtures("always")
def test_the_same_bits_for_any_threads() -> None:
    graph, results = parse(NETS[1]), []
    for threads in (1, 2):
        random = np.random.default_rng(0)
        with compile_net(graph, training=True, threads=threads, cache=False) as program:
            images = random.normal(size=(70, *program.input_shape)).astype("f4")
            program.initialise(3)
            program.step(images, np.arange(70) % 3, lr=0.1)
            results.append([array.tobytes() for array in program.learned.values()])
    assert results[0] == results[1]


@pytest.mark.usefixtures("always")
def test_what_is_taken_along_has_no_call_of_its_own() -> None:
    net = "input 4x9x9; conv 8 k3; bn; relu; conv 8 k3; bn; relu; conv 8 k3; flatten; linear 2"
    plan = plan_directions(parse(net), find_target(), True)["train"]
    stems = [kernel.name.rpartition("_")[0] for kernel in plan.kernels]
    assert not {"batch_statistics", "normalise", "batch_gradient_sums"} & set(stems)
