"""Every target keeps its accumulators in registers, and what cannot run is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lanewise.errors import EngineError
from lanewise.native.compile import compile_net, write_modules
from lanewise.native.kernels.lane_weights import LaneTile, weight_gradient
from lanewise.native.kernels.taps import Taps, forward_taps
from lanewise.native.lower import lower
from lanewise.native.machine_code import assembly, count_spills
from lanewise.native.optimizers import SGD
from lanewise.native.target import find_target
from lanewise.native.weight_ways import lane_tile
from lanewise.net.load import load
from lanewise.net.parse import parse

#: the kernels in which a spill costs half the speed; others may move a value through memory once
HOT = ("conv_", "linear_")
#: Winograd's transforms keep 24 values beside 6 factors; three of them may go to memory and come
#: back, in each of the two loops that write results: of whole tiles, and of those at the edge
FEW = 3 * 2 * 2
#: what the nets of the zoo have not: depthwise, strided and pointwise convolutions
MIXED = (
    "input 16x13x13; depthwise k3 pad1; conv 48 k1; depthwise k3 stride2 pad1; conv 32 k1 stride2; "
    "depthwise k5 pad2; conv 40 k3 stride2 pad1; flatten; linear 3"
)
#: and convolutions by Winograd's algorithm
WINOGRAD = "input 16x18x18; conv 32 k3 pad1; relu; conv 32 k3 pad1; flatten; linear 3"


@pytest.mark.parametrize("target", ["avx512", "avx2", "neon"])
@pytest.mark.parametrize("net", ["lenet5", "tiny-vgg", MIXED, WINOGRAD])
def test_hot_kernels_do_not_spill(net: str, target: str) -> None:
    try:
        machine = find_target(target)
    except EngineError as error:
        pytest.skip(str(error))
    modules, _ = write_modules(parse(net) if ";" in net else load(net), machine, True, SGD())
    spills: dict[str, int] = {}
    for module in modules:
        spills.update(count_spills(assembly(module.text, machine, module.quick), machine))
    hot = {name: count for name, count in spills.items() if name.startswith(HOT)}
    if target == "avx512":
        transforms = {n: count for n, count in spills.items() if n.startswith("winograd_")}
        hot |= {name: count for name, count in transforms.items() if count > FEW}
    assert len(hot) > 4
    assert {name: count for name, count in hot.items() if count} == {}


@pytest.mark.parametrize("target", ["avx512", "avx2", "neon"])
def test_kernels_in_the_lanes_spill_only_where_they_transpose(target: str) -> None:
    """16 × 16 values do not fit the registers of all targets; the products must."""
    try:
        machine = find_target(target)
    except EngineError as error:
        pytest.skip(str(error))

    def spills(tile: LaneTile, kernels: int, axis: Taps) -> int:
        kernel = lower(weight_gradient("kernel", 1, kernels, 24, axis, axis, tile))
        text = "\n".join([*kernel.tables, *sorted(kernel.declarations), kernel.function])
        return sum(count_spills(assembly(text, machine), machine).values())

    for kernels, taps, stride in ((16, 3, 1), (64, 3, 1), (20, 5, 1), (48, 3, 2), (16, 7, 2)):
        axis = forward_taps(8, (7 + stride) // stride, taps, stride, taps // 2, 1)
        best = lane_tile(machine, kernels, 24, axis, axis)
        small = replace(best, sources=1, taps=1)
        found = [spills(tile, kernels, axis) for tile in (best, small)]
        assert found[0] <= found[1] <= (0 if target == "avx512" else 120)


def test_foreign_target_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_target("neon").native:
        pytest.skip("this machine runs NEON itself")
    with pytest.raises(EngineError, match="can compile for it but not run it"):
        compile_net(parse("input 1x4x4; flatten; linear 2"), target="neon")


@pytest.mark.parametrize(
    "net",
    [
        "input 2x9x7; conv 5 k3 pad1; tanh; maxpool 2; flatten; linear 12; relu; linear 4",
        "input 2x9x7; conv 20 k3 stride2 pad1; depthwise k3 pad1; relu; conv 40 k1; relu; "
        "conv 36 k3 stride2 pad1; depthwise k5 pad2; flatten; linear 4",
        # direct convolutions that tell statistics and sums of normalisations, tile by tile
        "input 2x9x7; conv 20 k3 pad1 nobias; bn; relu; conv 24 k3 stride2 pad1; bn; relu6; "
        "conv 40 k2 groups2; bn; flatten; linear 4",
        "input 2x9x7; conv 20 k3 nobias; bn; relu; residual { conv 20 k1 nobias; bn; relu; "
        "conv 24 k3 stride2 pad1 nobias; bn } { conv 24 k1 stride2 nobias; bn }; relu; "
        "conv 70 k1; bn; flatten; linear 4",
        # Winograd's, with normalisations on both sides
        "input 2x9x7; conv 16 k3 pad1 nobias; bn; relu; residual { conv 16 k3 pad1 nobias; bn; "
        "relu; conv 16 k3 pad1 nobias; bn }; relu; conv 32 k3 pad1; bn; relu; flatten; linear 4",
    ],
)
def test_avx2_and_avx512_give_the_same_bits(net: str) -> None:
    """Lanes do not depend on the register width, so neither do sums."""
    try:
        find_target("avx512")
    except EngineError as error:
        pytest.skip(str(error))
    graph = parse(net)
    random = np.random.default_rng(3)
    images = random.normal(size=(37, 2, 9, 7)).astype(np.float32)
    labels = random.integers(0, 4, 37)
    results = []
    for target in ("avx512", "avx2"):
        with compile_net(graph, training=True, target=target, threads=1) as program:
            program.initialise(1)
            losses = [program.step(images, labels, lr=0.1)[0] for _ in range(3)]
            weights = {name: value.copy() for name, value in program.learned.items()}
            results.append((losses, weights))
    assert results[0][0] == results[1][0]
    for name, value in results[0][1].items():
        np.testing.assert_array_equal(value, results[1][1][name], err_msg=name)
