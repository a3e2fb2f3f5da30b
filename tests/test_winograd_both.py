"""Gradients of input and weights by Winograd's algorithm in one pass, beside a pass for each."""

from __future__ import annotations

import numpy as np
import pytest

from lanewise.native.directions import plan_directions
from lanewise.native.kernels import (
    batch_norm,
    winograd,
    winograd_both,
    winograd_factors,
    winograd_gradient,
)
from lanewise.native.kernels.fused_norm import AsItStands, Normalise, Pull, Reads, SumGradients
from lanewise.native.kernels.images import row_blocks
from lanewise.native.kernels.winograd_both import Weights
from lanewise.native.kernels.winograd_factors import WinogradTile
from lanewise.native.kernels.winograd_gradient import GradientTile
from lanewise.native.kernels.winograd_places import Axis, Winograd
from lanewise.native.kernels.winograd_transforms import Algorithm
from lanewise.native.target import find_target
from lanewise.net.parse import parse
from native_kernel import aligned, execute, placed

LANES = 16

#: channels, kernels, map, padding, algorithm, tile, images in the lanes, registers
CASES = [
    (5, 3, (8, 8), 1, Algorithm(4, 3), WinogradTile(2, 2, 4, 8, 3), 2, (2, 1)),
    (18, 3, (5, 6), 0, Algorithm(4, 3), WinogradTile(3, 1, 1, 18, 3), 1, (3, 2)),
    (9, 4, (6, 3), 2, Algorithm(2, 3), WinogradTile(2, 2, 4, 4, 4), 4, (3, 3)),
    (3, 2, (6, 7), 2, Algorithm(4, 5), WinogradTile(2, 2, 2, 4, 2), 2, (2, 2)),
]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return placed(np.random.default_rng(seed).normal(size=shape))


def moments_of(maps: int, seed: int) -> np.ndarray:
    moments = normal(maps, batch_norm.MOMENTS, seed=seed)
    moments[:, batch_norm.INVERSE] = abs(moments[:, batch_norm.INVERSE]) + 0.5
    return moments


def sizes_of(case: tuple) -> tuple[Winograd, Winograd]:
    """Those of the input's gradient, and those of the forward direction."""
    channels, kernels, size, padding, algorithm, *_ = case
    more = 2 * padding - algorithm.taps + 1
    inward = [Axis(n, n + more, algorithm.taps - 1 - padding) for n in size]
    onward = [Axis(n + more, n, padding) for n in size]
    return (
        Winograd(algorithm, channels, kernels, *inward),
        Winograd(algorithm, kernels, channels, *onward),
    )


def separate(case: tuple, pull: Pull, x_reads: Reads, arrays: dict) -> tuple[np.ndarray, ...]:
    """Each gradient by a kernel of its own: (input, weights as (kernels, channels, taps))."""
    inward, onward = sizes_of(case)
    tile, area = case[5], case[4].taps ** 2
    tells, kept = SumGradients("relu", affine=False), aligned(arrays["y"].shape)
    spaces = [aligned(s) for s in winograd.workspace_shapes(inward, tile, pull).values()]
    dx, told = aligned(arrays["x"].shape), aligned((inward.maps, 2, LANES))
    kernel = winograd.correlate("d", inward, tile, reads=pull, tells=tells)
    dy = [arrays[name] for name in ("y", "dy", "moments", "pull", "lanes")]
    told_by = [arrays["x"], arrays["norm"], told]
    execute(kernel, *dy, kept, arrays["factors"], *spaces, *told_by, dx, interpret=False)
    own = GradientTile(2, 1, 2)
    spaces = [aligned(s) for s in winograd_gradient.workspace_shapes(onward, own, x_reads).values()]
    sums = aligned((row_blocks(onward.maps), onward.sources * area, LANES))
    kernel = winograd_gradient.weight_gradient("w", onward, own, x_reads)
    execute(kernel, *arrays["read"], kept, *spaces, sums, interpret=False)
    weights = sums.reshape(-1, onward.sources, area, LANES).transpose(0, 3, 1, 2)
    return dx, told, weights.reshape(-1, onward.sources, area)[: onward.maps]


@pytest.mark.parametrize("reads", [AsItStands(), Normalise("relu", plus=False, keep=False)])
@pytest.mark.parametrize("case", CASES)
def test_as_separate_passes(case: tuple, reads: Reads) -> None:
    inward, onward = sizes_of(case)
    tile, images, registers = case[5:]
    channels, kernels, size = case[:3]
    out = onward.rows.destination, onward.columns.destination
    factors = aligned(winograd_factors.factors_shape(inward, tile))
    weight = normal(kernels, channels, case[4].taps ** 2, seed=9)
    kernel = winograd_factors.transform_weights("u", inward, tile, forward=False)
    execute(kernel, weight, factors, interpret=False)
    arrays = {
        "y": normal(kernels, *out, LANES),
        "dy": normal(kernels, *out, LANES, seed=1),
        "x": normal(channels, *size, LANES, seed=2),
        "moments": moments_of(kernels, 3),
        "norm": moments_of(channels, 4),
        "pull": normal(kernels, 2, seed=5),
        "lanes": placed(np.arange(LANES) < 11),
        "factors": factors,
    }
    arrays["read"] = [arrays["x"], arrays["norm"]][: 1 + isinstance(reads, Normalise)]
    wanted = separate(case, Pull("relu6"), reads, arrays)
    pull, weights = Pull("relu6", keep=False), Weights(reads, images, *registers)
    spaces = [aligned(s) for s in winograd.workspace_shapes(inward, tile, pull, weights).values()]
    own = [aligned(s) for s in winograd_both.workspace_shapes(inward, weights).values()]
    found, told = aligned(winograd_both.target_shape(inward)), aligned((channels, 2, LANES))
    dx, tells = aligned(arrays["x"].shape), SumGradients("relu", affine=False)
    kernel = winograd.correlate("b", inward, tile, reads=pull, tells=tells, weights=weights)
    dy = [arrays[name] for name in ("y", "dy", "moments", "pull", "lanes")]
    told_by = [arrays["x"], arrays["norm"], told]
    arguments = [*dy, factors, *spaces, *told_by, *arrays["read"], *own, found, dx]
    execute(kernel, *arguments, interpret=False)
    np.testing.assert_array_equal(dx, wanted[0])
    np.testing.assert_array_equal(told, wanted[1])
    ours = found.transpose(0, 1, 3, 2).reshape(kernels, -1, case[4].taps ** 2)[:, :channels]
    np.testing.assert_allclose(ours, wanted[2], rtol=2e-4, atol=2e-5 * abs(wanted[2]).max())


def test_the_interpreter_agrees() -> None:
    inward, onward = sizes_of(CASES[0])
    tile, weights = CASES[0][5], Weights(AsItStands(), 4, 2, 3)
    kernel = winograd.correlate("b", inward, tile, accumulate=True, weights=weights)
    shapes = {buffer.name: buffer.shape for buffer in kernel.buffers}
    arrays = [normal(*shape, seed=i) for i, shape in enumerate(shapes.values())]
    del onward
    execute(kernel, *arrays)


def test_chosen_where_a_cache_holds_both() -> None:
    def calls(net: str, **options: str) -> list[str]:
        plan = plan_directions(parse(net), find_target("avx512"), True, **options)["train"]
        return [kernel.name.rpartition("_")[0] for kernel in plan.kernels]

    net = "input 3x8x8; conv {0} k3 pad1; relu; conv 32 k3 pad1; flatten; linear 2"
    assert calls(net.format(32)).count("winograd_gradients") == 1
    assert "winograd_gradients" not in calls(net.format(32), precision="bf16")
    apart = {"winograd_gradient", "winograd_weight_gradient"}
    assert apart <= set(calls(net.format(900))) and not apart & set(calls(net.format(32)))
