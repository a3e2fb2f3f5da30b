"""Shortcuts that leave out pixels: a strided convolution's sums begin with their gradient."""

from __future__ import annotations

import numpy as np
import pytest

from lanewise.bridge import oracle
from lanewise.native import compile_net
from lanewise.native.directions import plan_directions
from lanewise.native.kernels import conv, winograd
from lanewise.native.kernels.correlation import Correlation, Tile, packed_shape
from lanewise.native.kernels.fused_norm import Normalise, Thin
from lanewise.native.kernels.taps import gradient_taps
from lanewise.native.target import find_target
from lanewise.net.parse import parse
from native_kernel import aligned, execute, placed
from test_fused_norm import CASES, CHANNELS, always, moments_of, sizes_of, workspace

__all__ = ["always"]  # a fixture

LANES = 16
MAPS, SOURCES = 3, 5

UNIT = "conv 8 k3 stride 2 pad1 nobias; bn; relu; conv 8 k3 pad1 nobias; bn"
HEAD = "input 3x9x7; conv 4 k3 pad1; bn; relu;"
TAIL = "; relu; conv 3 k3; globalavg; flatten; linear 3"

#: text, and whether a convolution takes the shortcut's gradient along
NETS = {
    "pool and channels of zeros": (
        f"{HEAD} residual {{ {UNIT} }} {{ maxpool 1 stride 2; padchannels 2:2 }}{TAIL}",
        True,
    ),
    "channels on one side, means": (
        f"{HEAD} residual {{ {UNIT} }} {{ avgpool 1 stride 2; padchannels 1:3 }}{TAIL}",
        True,
    ),
    "strides that differ, no mask, a kernel of one": (
        "input 3x9x7; conv 4 k3 pad1; residual { conv 6 k1 stride 2x1; relu; conv 6 k3 pad1 } "
        "{ maxpool 1 stride 2x1; padchannels 0:2 }; relu; flatten; linear 3",
        True,
    ),
    "another branch's stride": (
        f"{HEAD} residual {{ conv 8 k3 pad1; bn; relu; maxpool 2 }} "
        f"{{ maxpool 1 stride 2 ; padchannels 2:2 }} {TAIL}".replace("9x7", "8x6"),
        False,
    ),
    "somebody adds to the same bytes before": (
        f"{HEAD} add {{ conv 4 k3 stride 2 pad1; residual {{ conv 4 k3 pad1 }} }} "
        "{ maxpool 1 stride 2 }; conv 4 k3 pad1; flatten; linear 3",
        False,
    ),
    "two pools": (
        f"{HEAD} add {{ conv 4 k3 stride 2 pad1; relu }} {{ maxpool 1 stride 2 }} "
        "{ avgpool 1 stride 2 }; flatten; linear 3",
        False,
    ),
    "nobody else reads": (f"{HEAD} maxpool 1 stride 2; relu; flatten; linear 3", False),
}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return placed(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("tile", [Tile(2, 4), Tile(3, 2, "kpn"), Tile(2, 3, "pnk", packs=2)])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize(("kernel", "pad"), [(3, 1), (1, 0), (2, 0)])
def test_sums_begin_with_a_thin_map(tile: Tile, mask: bool, kernel: int, pad: int) -> None:
    """The bits of a second reader that adds its gradient."""
    out = [(n + 2 * pad - kernel) // 2 + 1 for n in (7, 9)]
    rows, columns = (
        gradient_taps(n, o, kernel, 2, pad, 1) for n, o in zip((7, 9), out, strict=True)
    )
    sizes = Correlation(1, MAPS, SOURCES, rows, columns, 0, kernel**2, MAPS * kernel**2)
    dy, w = normal(SOURCES, *out, LANES), normal(SOURCES, MAPS, kernel, kernel, seed=1)
    thin, x = normal(MAPS, 4, 5, LANES, seed=2), normal(MAPS, 7, 9, LANES, seed=3)
    wanted, dx = aligned(x.shape), aligned(x.shape)
    wanted[:] = 0
    wanted[:, ::2, ::2] = thin
    packed = [aligned(packed_shape(sizes, tile))] * bool(tile.packs)
    adding = conv.correlate("a", sizes, tile, accumulate=True, mask=mask)
    execute(adding, dy, w.ravel(), *packed, *[x] * mask, wanted, interpret=False)
    beginning = conv.correlate("b", sizes, tile, mask=mask, thin=(MAPS, 4, 5))
    execute(beginning, dy, w.ravel(), *packed, thin, *[x] * mask, dx)
    np.testing.assert_array_equal(dx, wanted)


@pytest.mark.parametrize("name", NETS)
def test_nets_agree_with_pytorch(name: str) -> None:
    oracle.check(parse(NETS[name][0]), cache=False, threads=2)


@pytest.mark.parametrize("name", NETS)
def test_a_shortcut_writes_nothing(name: str) -> None:
    """Nor is there an argument of a window of one value, or a copy of channels back."""
    text, taken = NETS[name]
    plan = plan_directions(parse(text), find_target("host"), training=True)["train"]
    places = [place.name for call in plan.calls for place in call.places]
    assert not any(place.startswith("argument") for place in places) or "maxpool 2" in text
    stems = [kernel.name.rpartition("_")[0] for kernel in plan.kernels]
    assert "copy_channels_gradient" not in stems
    assert ("sum_pool_gradient" in stems) != taken


def test_the_same_bits_for_any_threads() -> None:
    graph, results = parse(NETS["pool and channels of zeros"][0]), []
    for threads in (1, 2):
        with compile_net(graph, training=True, threads=threads, cache=False) as program:
            images = np.random.default_rng(0).normal(size=(70, *program.input_shape)).astype("f4")
            program.initialise(3)
            program.step(images, np.arange(70) % 3, lr=0.1)
            results.append([array.tobytes() for array in program.learned.values()])
    assert results[0] == results[1]


@pytest.mark.parametrize(("before", "stride"), [(1, (2, 2)), (0, (2, 1))])
@pytest.mark.parametrize(("size", "algorithm", "tile"), CASES[:3])
def test_a_thin_map_is_added_where_it_stands(size, algorithm, tile, before, stride) -> None:
    """The bits of a map of its values, with channels of zeros, that is added."""
    sizes, source = sizes_of(size, algorithm), normal(CHANNELS, *size, LANES)
    wide = [s * (n - 1) + 1 for s, n in zip(stride, size, strict=True)]
    larger, moments = normal(1, *wide, LANES, seed=1), moments_of(CHANNELS, 2)
    other = placed(np.zeros(source.shape))
    other[before] = larger[0, :: stride[0], :: stride[1]]
    results = []
    for added, thin in ((other, None), (larger, Thin((1, *wide), stride, before))):
        reads = Normalise("relu", plus=True, keep=True, thin=thin)
        factors, _, own = workspace(sizes, tile, reads)
        kept, y = aligned(source.shape), aligned((sizes.maps, *size, LANES))
        kernel = winograd.correlate("f", sizes, tile, reads=reads)
        execute(kernel, source, moments, added, kept, factors, *own, y, interpret=bool(thin))
        results.append((kept, y))
    np.testing.assert_array_equal(*(kept for kept, _ in results))
    np.testing.assert_array_equal(*(y for _, y in results))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(("between", "passed"), [("", True), ("relu;", False)])
def test_pool_and_channels_of_zeros_are_passed_over(between: str, passed: bool) -> None:
    """Where the next convolution normalises what it reads."""
    text = (
        f"{HEAD} residual {{ {UNIT} }} {{ maxpool 1 stride 2; {between} padchannels 1:3 }}; relu; "
        "residual { conv 8 k3 pad1; bn; relu; conv 8 k3 pad1; bn }; relu; flatten; linear 3"
    )
    plan = plan_directions(parse(text), find_target("host"), training=True)["train"]
    forward = [call.purpose for call in plan.calls]
    assert ("padchannels1 forward" not in forward) == passed
    assert ("maxpool1 forward" not in forward) == passed
    oracle.check(parse(text), cache=False, threads=2)
