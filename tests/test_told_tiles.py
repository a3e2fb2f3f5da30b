"""What direct convolutions tell of their results for the normalisations beside them: each kernel
beside those it stands for, and nets against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lanewise.bridge import oracle
from lanewise.native import compile_net
from lanewise.native.directions import plan_directions
from lanewise.native.kernels import batch_norm, batch_norm_gradient, conv, correlation, points
from lanewise.native.kernels.correlation import Correlation, Tile
from lanewise.native.kernels.fused_norm import Moments, SumGradients
from lanewise.native.kernels.points import PointTile
from lanewise.native.kernels.taps import forward_taps, gradient_taps
from lanewise.native.target import find_target
from lanewise.net.parse import parse
from native_kernel import aligned, execute, placed

LANES = 16
MAPS, CHANNELS = 5, 3


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return placed(np.random.default_rng(seed).normal(size=shape))


def close(ours: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(ours, wanted, rtol=2e-4, atol=6e-5 * max(1, abs(wanted).max()))


def sizes_of(
    size: tuple[int, int], kernel: int, stride: int, pad: int, groups: int = 1, back: bool = False
) -> Correlation:
    """CHANNELS → MAPS of a group, or the gradient of MAPS → CHANNELS."""
    out = [(n + 2 * pad - kernel) // stride + 1 for n in size]
    make, area = gradient_taps if back else forward_taps, kernel * kernel
    rows, columns = (make(n, m, kernel, stride, pad, 1) for n, m in zip(size, out, strict=True))
    distances = (area, MAPS * area) if back else (CHANNELS * area, area)
    return Correlation(groups, MAPS, CHANNELS, rows, columns, MAPS * CHANNELS * area, *distances)


def shapes(sizes: Correlation) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of sources and results."""
    return (
        (sizes.groups * sizes.sources, sizes.rows.source, sizes.columns.source, LANES),
        (sizes.groups * sizes.maps, sizes.rows.destination, sizes.columns.destination, LANES),
    )


def flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1, LANES)


#: size, kernel, stride, pad, groups; and the tile
CASES = [
    (((6, 7), 3, 1, 1, 1), Tile(2, 4, "pkn")),
    (((6, 7), 3, 1, 1, 1), Tile(4, 2, "pnk", sources=2, packs=2)),
    (((9, 8), 3, 2, 1, 1), Tile(3, 3, "pnk", sources=1)),
    (((9, 8), 3, 2, 1, 1), Tile(4, 2, "pnk", packs=2)),
    (((1, 1), 3, 1, 1, 1), Tile(1, 1, "kpn")),
    (((5, 6), 2, 1, 0, 2), Tile(2, 4, "kpn", sources=2)),
    (((5, 9), 1, 2, 0, 1), PointTile(4, 3, 2)),
    (((5, 9), 1, 1, 0, 1), PointTile(3, 2, 3, maps_first=True, away=True)),
    (((4, 5), 1, 2, 1, 1), PointTile(2, 4, 1, packs=False)),
]


def packed_of(sizes: Correlation, tile: Tile | PointTile) -> list[np.ndarray]:
    if not tile.packs:
        return []
    kind = points if isinstance(tile, PointTile) else correlation
    return [aligned(kind.packed_shape(sizes, tile))]  # type: ignore[arg-type]


def write(sizes: Correlation, tile: Tile | PointTile, **options: Any) -> Any:
    correlate = points.products if isinstance(tile, PointTile) else conv.correlate
    return correlate("f", sizes, tile, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "tile"), CASES)
def test_statistics(size, tile) -> None:
    """The same results; mean and squares about it as those of a pass of their own."""
    sizes = sizes_of(*size)
    source, target = shapes(sizes)
    x, w, b = normal(*source), normal(sizes.weights, seed=1), normal(target[0], seed=2)
    wanted, y, packed = aligned(target), aligned(target), packed_of(sizes, tile)
    execute(write(sizes, tile, bias=True), x, w, *packed, b, wanted, interpret=False)
    statistics, told = (aligned((target[0], batch_norm.TOLD, LANES)) for _ in range(2))
    kernel = batch_norm.statistics("s", target[0], target[1] * target[2])
    execute(kernel, flat(wanted), statistics, interpret=False)
    kernel = write(sizes, tile, bias=True, tells=Moments(), away=size[1] == 1)
    execute(kernel, x, w, *packed, told, b, y)
    np.testing.assert_array_equal(y, wanted)
    close(told[:, :2], statistics[:, :2])


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize(("size", "tile"), CASES)
def test_gradient_sums(size, tile, accumulate: bool) -> None:
    """Of the gradient of the input, also where it meets no tap and where it is added to another."""
    sizes, rectifier = sizes_of(*size, back=True), "relu6" if accumulate else ""
    source, target = shapes(sizes)
    maps, pixels = target[0], target[1] * target[2]
    dy, w, before = normal(*source), normal(sizes.weights, seed=1), normal(*target, seed=3)
    x, moments = normal(*target, seed=4), normal(maps, batch_norm.MOMENTS, seed=5)
    wanted, dx, packed = placed(before), placed(before), packed_of(sizes, tile)
    kernel = write(sizes, tile, accumulate=accumulate)
    execute(kernel, dy, w, *packed, wanted, interpret=False)
    sums, told = aligned((maps, 2, LANES)), aligned((maps, 2, LANES))
    parameters = [normal(maps, seed=6), normal(maps, seed=7)]
    ours = [placed(one) for one in parameters]
    kernel = batch_norm_gradient.gradient_sums("s", maps, pixels, affine=True, rectifier=rectifier)
    execute(kernel, flat(x), flat(wanted), moments, sums, *parameters, interpret=False)
    kernel = write(sizes, tile, accumulate=accumulate, tells=SumGradients(rectifier, affine=True))
    view = flat if isinstance(tile, PointTile) else np.asarray
    execute(kernel, view(dy), w, *packed, view(x), moments, told, *ours, view(dx))
    np.testing.assert_array_equal(dx, wanted)
    close(told, sums)
    for mine, other in zip(ours, parameters, strict=True):
        close(mine, other)


@settings(max_examples=8, deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([(1, 0), (2, 1), (3, 1), (3, 2)]),
    st.integers(1, 2),
    st.builds(
        Tile,
        st.integers(1, 6),
        st.integers(1, 5),
        st.sampled_from(["pkn", "pnk", "kpn"]),
        st.integers(0, 3),
    ),
)
def test_any_sizes(size, kernel, stride, tile) -> None:
    if min(size) + 2 * kernel[1] < kernel[0]:
        return
    sizes = sizes_of(size, kernel[0], stride, kernel[1])
    source, target = shapes(sizes)
    x, w, y = normal(*source), normal(sizes.weights, seed=1), aligned(target)
    told = aligned((MAPS, batch_norm.TOLD, LANES))
    execute(write(sizes, tile, tells=Moments()), x, w, told, y)
    exact = y.astype(float)
    close(told[:, 0], exact.mean((1, 2)))
    close(told[:, 1], exact.var((1, 2)) * target[1] * target[2])


@pytest.mark.parametrize("tile", [Tile(1, 1, "kpn"), Tile(2, 4, "pnk", sources=2)])
def test_a_border_does_not_spoil_the_squares(tile) -> None:
    """All results are equal but where padding shows, which is where sums begin."""
    sizes = sizes_of((16, 16), 3, 1, 1)
    source, target = shapes(sizes)
    x, w, y = aligned(source), placed(np.ones(sizes.weights)), aligned(target)
    x[:] = 1000.0
    told = aligned((MAPS, batch_norm.TOLD, LANES))
    kernel = write(sizes, tile, tells=Moments())
    execute(kernel, x, w, *packed_of(sizes, tile), told, y, interpret=False)
    exact = y.astype(float)
    np.testing.assert_allclose(told[:, 0], exact.mean((1, 2)), rtol=3e-7)
    np.testing.assert_allclose(told[:, 1], exact.var((1, 2)) * 256, rtol=1e-5)


#: a first layer, strides, 1 × 1 of both sorts, groups, a bias, a ghost, no parameters, a value with
#: two readers, a sum of another branch first
NETS = [
    "input 3x9x11; conv 9 k3 pad1 nobias; bn; relu; conv 7 k3 stride 2 pad1; bn; relu6; "
    "residual { conv 12 k3 pad1; bn; relu; conv 12 k1; bn noaffine } { conv 12 k1; bn }; relu; "
    "conv 10 k1 stride 2; bn momentum 0.3; globalavg; flatten; linear 4",
    "input 4x8x7; conv 8 k3 pad1 groups 2; bn ghost 16; relu; conv 8 k5 pad2; bn; silu; "
    "conv 10 k1; bn; residual { conv 10 k1; bn }; relu; concat { conv 5 k3 pad1; bn } { bn }; "
    "conv 4 k3; flatten; linear 3",
]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("net", NETS)
def test_nets_agree_with_pytorch(net: str, exact: bool) -> None:
    """Values, all gradients, running statistics, of a slice and one image more."""
    found = oracle.check(parse(net), cache=False, threads=2, exact=exact)
    assert any("running_var" in row.name for row in found.rows)


def test_the_same_bits_for_any_threads() -> None:
    graph, results = parse(NETS[0]), []
    for threads in (1, 2):
        random = np.random.default_rng(0)
        with compile_net(graph, training=True, threads=threads, exact=True, cache=False) as program:
            images = random.normal(size=(70, *program.input_shape)).astype("f4")
            program.initialise(3)
            program.step(images, np.arange(70) % 3, lr=0.1)
            results.append([array.tobytes() for array in program.learned.values()])
    assert results[0] == results[1]


def test_what_is_told_has_no_call_of_its_own() -> None:
    net = "input 3x9x9; conv 8 k3; bn; relu; conv 8 k1; bn; relu; conv 8 k3; flatten; linear 2"
    plan = plan_directions(parse(net), find_target(), True, exact=True)["train"]
    stems = [kernel.name.rpartition("_")[0] for kernel in plan.kernels]
    assert not {"batch_statistics", "batch_gradient_sums"} & set(stems)
