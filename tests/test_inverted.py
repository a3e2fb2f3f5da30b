"""Inverted residuals whose many maps are worked out again wherever they are needed."""

from __future__ import annotations

import numpy as np
import pytest

from lanewise.bridge.oracle import check
from lanewise.errors import EngineError
from lanewise.native import compile_net
from lanewise.native.directions import plan_directions
from lanewise.native.kernels import second_moments
from lanewise.native.plan import Plan, Slot
from lanewise.native.rules import batch_norm, pointwise, units
from lanewise.native.target import find_target
from lanewise.net.load import load
from lanewise.net.parse import parse
from native_kernel import aligned, execute, placed

HEAD = "input 2x7x7; conv 3 k3 pad1 nobias;"
TAIL = "globalavg; flatten; linear 3"
NETS = {
    "relu6": (
        f"{HEAD} bn; relu6; conv 20 k1 nobias; bn; relu6; depthwise k3 pad1 nobias; bn; relu;"
        f"conv 5 k1 nobias; bn; {TAIL}"
    ),
    "a stride, no parameters": (
        "input 2x9x7; conv 3 k3 pad1 nobias; bn; relu; conv 21 k1 nobias; bn noaffine; relu;"
        f"depthwise k3 stride2 pad1 nobias; bn; conv 5 k1 nobias; bn; {TAIL}"
    ),
    "no rectifier, an uneven kernel": (
        f"{HEAD} bn; conv 20 k1 nobias; bn; depthwise k 3x2 nobias; bn noaffine; relu; {TAIL}"
    ),
    "around it a sum": (
        f"{HEAD} bn; relu; residual {{ conv 12 k1 nobias; bn; relu6; depthwise k3 pad1 nobias; bn;"
        f"relu6; conv 3 k1 nobias; bn }}; conv 12 k1 nobias; bn; relu6;"
        f"depthwise k3 pad1 nobias; bn; {TAIL}"
    ),
    "a kernel too large for one pass": (
        f"{HEAD} bn; conv 20 k1 nobias; bn; relu6; depthwise k5 pad2 nobias; bn; {TAIL}"
    ),
    "more than lanes before it": (
        "input 2x5x6; conv 21 k1 nobias; bn; relu; conv 48 k1 nobias; bn; relu6;"
        f"depthwise k3 pad1 dilation 1x2 nobias; bn; relu6; {TAIL}"
    ),
}
#: so that several strips are taken, and of them the last is another
STRIPS = dict.fromkeys(NETS, (6 * 7 * 3 * 64, 4 * 7 * 20 * 64)) | {
    "more than lanes before it": (6 * 6 * 21 * 64, 3 * 6 * 48 * 64),
    "a kernel too large for one pass": (10 * 7 * 3 * 64, 4 * 7 * 20 * 64),
    "around it a sum": (6 * 7 * 3 * 64, 2 * 7 * 12 * 64),
    "no rectifier, an uneven kernel": (6 * 7 * 3 * 64, 7 * 20 * 64),  # a row at a time
}


@pytest.fixture(params=NETS)
def net(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A net small enough for the oracle, taken as if it were large."""
    forward, backward = STRIPS[request.param]
    for room, name, value in (
        (units, "LARGE", 0),
        (pointwise, "LARGE", 0),
        (batch_norm, "AWAY", 0),
        (units, "FORWARD_BYTES", forward),
        (units, "BACKWARD_BYTES", backward),
    ):
        monkeypatch.setattr(room, name, value)
    return NETS[request.param]


def _train_plan(text: str, **options: object) -> Plan:
    return plan_directions(load(text), find_target("avx512"), training=True, **options)["train"]


def _kernels(plan: Plan) -> list[str]:
    return [kernel.name for call in plan.calls for kernel in call.kernels.values()]


def _values(plan: Plan) -> set[str]:
    return {p.name for call in plan.calls for p in call.places if isinstance(p, Slot)}


def test_strips_are_the_same_as_the_whole(net: str) -> None:
    names = _kernels(_train_plan(net))
    assert sum(name.startswith("reached") for name in names) > 1
    assert sum(name.startswith("expand") for name in names) > 3
    check(parse(net), batch=19, cache=False)


def test_threads_do_not_show(net: str) -> None:
    def trained(threads: int) -> bytes:
        with compile_net(parse(net), training=True, threads=threads, cache=False) as program:
            program.initialise(0)
            for count in (70, 41):  # the last slice has few images
                shape = (count, *program.input_shape)
                images = np.random.default_rng(count).integers(0, 256, shape, np.uint8)
                program.step(images, np.arange(count) % 3, lr=0.05)
            return b"".join(value.tobytes() for value in program.learned.values())

    assert trained(1) == trained(2) == trained(3)


@pytest.mark.parametrize(
    "net", ["relu6", "a stride, no parameters", "around it a sum"], indirect=True
)
def test_registers_do_not_show(net: str) -> None:
    """Whatever their tiles, AVX2 and AVX-512 take every sum in the same order."""
    try:
        find_target("avx512")
    except EngineError as error:
        pytest.skip(str(error))
    graph, learned = parse(net), []
    for target in ("avx512", "avx2"):
        with compile_net(graph, training=True, target=target, cache=False) as program:
            program.initialise(0)
            images = np.random.default_rng(0).integers(0, 256, (41, *program.input_shape), np.uint8)
            for _ in range(2):
                program.step(images, np.arange(41) % 3, lr=0.05)
            learned.append([value.copy() for value in program.learned.values()])
    for wide, narrow in zip(*learned, strict=True):
        np.testing.assert_array_equal(wide, narrow)


def test_the_many_maps_are_never_kept() -> None:
    plan, exact = (_train_plan("mobilenet-v2-small", exact=exact) for exact in (False, True))
    for unit in (("conv2", "bn2"), ("conv4", "bn5"), ("conv6", "bn8"), ("conv8", "bn11")):
        for name in unit:
            assert f"value {name}" not in _values(plan)
            assert f"value {name}" in _values(exact)
    for name in ("bn3", "bn6", "bn9"):  # what comes back to these is worked out again, too
        assert f"gradient {name}" not in _values(plan)
        assert f"gradient {name}" in _values(exact)
    assert plan.kept_bytes < 0.75 * exact.kept_bytes


@pytest.mark.parametrize(
    "net",
    [
        "input 16x32x32; conv 64 k1 nobias; bn; relu6; conv 64 k3 pad1 nobias; bn",
        "input 16x32x32; conv 64 k1 nobias; bn; relu6; depthwise k3 pad1; bn",
        "input 16x32x32; conv 64 k1 nobias; bn ghost 16; relu6; depthwise k3 pad1 nobias; bn",
        "input 16x32x32; conv 64 k1 nobias; bn; gelu; depthwise k3 pad1 nobias; bn",
        "input 16x32x32; conv 64 k1 nobias; bn; x: relu6; depthwise k3 pad1 nobias; bn; add x",
    ],
)
def test_others_are_as_they_were(net: str) -> None:
    net = net.replace("add x", "y: relu; add x y") + "; globalavg; flatten; linear 3"
    assert not any(name.startswith("expand") for name in _kernels(_train_plan(net)))


@pytest.mark.parametrize(("sources", "pixels", "images"), [(3, 35, 41), (16, 64, 48), (21, 9, 17)])
@pytest.mark.parametrize("mean", [0.5, 300.0])
def test_moments_of_the_many_maps_follow(
    sources: int, pixels: int, images: int, mean: float
) -> None:
    """Those of W x, from the products of x about its mean: a large mean takes no digits away."""
    random = np.random.default_rng(0)
    slices, maps, eps = -(-images // 16), 2 * sources, 1e-5
    x = random.standard_normal((slices, sources, pixels, 16)) + mean * random.random(
        (sources, 1, 1)
    )
    x = x.astype(np.float32)
    w = random.standard_normal((maps, sources)).astype(np.float32)
    weight, bias = (random.standard_normal(maps).astype(np.float32) for _ in range(2))
    told = aligned((slices, second_moments.told_floats(sources)))
    for s in range(slices):
        living = placed((np.arange(16) < images - 16 * s).astype(np.float32))
        strip, totals = aligned((sources, second_moments.STRIP, 16)), aligned((sources, 16))
        products = aligned((sources, sources, 16))
        second, first = aligned((sources, sources)), aligned((sources,))
        write = second_moments.lane_products("lanes", sources, pixels)
        execute(write, placed(x[s]), strip, totals, products)
        write = second_moments.tell_products("tell", sources, pixels)
        execute(write, placed(x[s]), totals, products, living, told[s], second, first)
        mine = x[s].astype(float)[:, :, living > 0].reshape(sources, -1)
        assert np.allclose(first, mine.sum(axis=1), rtol=1e-6, atol=1e-3)
        assert np.allclose(second, mine @ mine.T, rtol=1e-5, atol=1e-2)
    moments = aligned((maps, 5))
    kernel = second_moments.collect("collect", maps, sources, pixels, eps, affine=True)
    given = (placed(w), placed(weight), placed(bias))
    execute(
        kernel,
        told,
        *given,
        aligned((sources,)),
        aligned((sources, sources)),
        moments,
        slices,
        images,
    )
    values = np.moveaxis(x.astype(float), 1, 0).swapaxes(2, 3).reshape(sources, slices * 16, pixels)
    u = w.astype(float) @ values[:, :images].reshape(sources, -1)
    size = np.abs(w).astype(float) @ np.abs(values[:, :images]).mean(axis=(1, 2))
    assert np.max(np.abs(moments[:, 0] - u.mean(axis=1)) / size) < 1e-6
    inverse = 1 / np.sqrt(u.var(axis=1) + eps)
    assert np.allclose(moments[:, 1], inverse, rtol=2e-5)
    assert np.allclose(moments[:, 2], weight * inverse, rtol=2e-5)
    assert np.allclose(moments[:, 4], u.var(axis=1, ddof=1), rtol=4e-5)
