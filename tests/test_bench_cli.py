"""`lanewise bench`: what it prints adds up, and the peak is a peak."""

from __future__ import annotations

import json
import re

import pytest

from lanewise.cli.bench import _report
from lanewise.cli.main import main
from lanewise.native import peak
from lanewise.native.directions import plan_directions
from lanewise.native.machine_code import assembly, count_spills
from lanewise.native.peak import Peak, measure_peak, ticks_per_second
from lanewise.native.profile import LayerWork, Profile, Work, algorithm, profile_net
from lanewise.native.target import find_target
from lanewise.net.layers import CONVOLUTIONS, Linear
from lanewise.net.load import load
from lanewise.size.report import size

NET = "input 2x12x12; conv 6 k3; relu; maxpool 2; flatten; linear 16; tanh; linear 5"


@pytest.fixture(scope="module")
def document() -> dict:
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["bench", NET, "--batch", "32", "--threads", "1", "--json"]) == 0
    return json.loads(out.getvalue())


def test_layers_and_the_rest_add_up_to_the_step(document: dict) -> None:
    layers = sum(each[d]["ms"] for each in document["layers"] for d in ("forward", "backward"))
    others = sum(document["others_ms"].values())
    assert layers + others == pytest.approx(document["step_ms"], rel=0.02)
    low, high = document["step_range_ms"]
    assert low <= document["step_ms"] <= high
    assert document["images_per_second"] == pytest.approx(32e3 / document["step_ms"], rel=1e-3)


def test_every_layer_that_computes_has_its_row(document: dict) -> None:
    kinds = {each["name"]: each["kinds"] for each in document["layers"]}
    assert kinds == {
        "input": ["input"],
        "conv1": ["conv"],
        "maxpool1": ["maxpool", "relu"],
        "linear1": ["linear"],
        "tanh1": ["tanh"],
        "linear2": ["linear"],
    }
    for each in document["layers"]:
        # a pool of 2×2 is taken along in its convolution's store
        assert (each["forward"]["ms"] > 0) == (each["name"] != "maxpool1")
        assert each["backward"]["ms"] > 0 or each["name"] == "input"
        assert each["forward"]["share"] >= 0
        assert each["backward"]["share"] >= 0


def test_the_work_is_that_of_the_calculus(document: dict) -> None:
    """The first layer needs no gradient of its input, the others do; padding is not computed."""
    macs = {row.name: row.macs for row in size(load(NET)).rows}
    done = 2 * 32 * (2 * macs["conv1"] + 3 * macs["linear1"] + 3 * macs["linear2"])
    gflops = done / document["step_ms"] / 1e6
    assert document["step_gflops"] == pytest.approx(gflops, rel=0.02, abs=0.1)
    share = document["step_gflops"] / document["peak_gflops"]
    assert document["step_share"] == pytest.approx(share, rel=0.02, abs=1e-3)


def made_up(given: float) -> Profile:
    layers = (
        LayerWork("input", ("input",), Work(0.05), Work()),
        LayerWork(
            "conv1",
            ("conv",),
            Work(0.5, 50_000_000, "Winograd"),
            Work(1.0, 50_000_000, "direct + Winograd"),
        ),
        LayerWork("maxpool1", ("maxpool", "relu"), Work(12.25), Work(0.125)),
    )
    return Profile(
        target="avx512",
        cpu="sapphirerapids",
        threads=2,
        batch=128,
        peak=Peak(2, 400.0, 390.0, given),
        step_ms=20.0,
        range_ms=(19.0, 22.0),
        layers=layers,
        others={"conv update": 0.01, "waiting": 0.5},
    )


def test_the_report_fits_80_columns_and_aligns() -> None:
    lines = _report(made_up(1.0), "lenet5")
    assert max(map(len, lines)) <= 80
    conv = next(line for line in lines if line.startswith("conv1"))
    told = ["conv1", "0.500", "50", "%", "Winograd", "1.000", "25", "%", "direct", "+", "Winograd"]
    assert conv.split() == told
    assert any(line.startswith("maxpool1 + relu ") for line in lines)
    titles = next(line for line in lines if line.startswith("layer"))
    ends = [found.end() for found in re.finditer("share", titles)]
    assert [conv[end - 4 : end] for end in ends] == ["50 %", "25 %"]
    assert lines[-1] == "step 20.00 ms, 6,400 images/s, 10 GFLOP/s: 2 % of the peak"


def test_the_algorithm_is_that_of_the_kernels_that_were_called() -> None:
    assert algorithm(["winograd_factors", "winograd_forward"]) == "Winograd"
    both = ["conv_weight_gradient", "conv_bias_gradient", "winograd_factors", "winograd_gradient"]
    assert algorithm(both) == "direct + Winograd"
    both = ["lane_weight_gradient", "add_sums", "conv_input_gradient"]
    assert algorithm(both) == "in lanes + direct"
    assert algorithm(["conv_forward_pixels"]) == algorithm(["linear_forward"]) == "product"
    assert algorithm(["max_pool", "normalise"]) == ""


def test_each_layer_tells_its_algorithm(document: dict) -> None:
    ways = {one["name"]: (one["forward"], one["backward"]) for one in document["layers"]}
    assert [way["algorithm"] for way in ways["linear2"]] == ["product", "product"]
    assert [way["algorithm"] for way in ways["tanh1"]] == ["", ""]
    assert all("direct" in way["algorithm"] for way in ways["conv1"])


def test_every_kind_that_multiplies_has_its_algorithm() -> None:
    net = load(
        "input 2x9x9; convtranspose 4 k2 stride2; depthwise k3; relu;"
        " partialconv 0,1/2,3 k3; conv 8 k3 groups 2; flatten; linear 3"
    )
    for layer in profile_net(net, 16, 1).layers:
        multiplies = bool(layer.forward.multiply_adds)
        assert bool(layer.forward.algorithm) == bool(layer.backward.algorithm) == multiplies


@pytest.mark.parametrize("net", ["mobilenet-v2-small", "resnet-cifar n=1"])
@pytest.mark.parametrize("exact", [False, True])
def test_every_way_to_multiply_is_known(net: str, exact: bool) -> None:
    """Whatever a rule calls for a convolution, one of its kernels tells the algorithm."""
    graph, kinds = load(net), (*CONVOLUTIONS, Linear)
    plans = plan_directions(graph, find_target("host"), training=True, exact=exact)
    called: dict[str, list[str]] = {}
    for call in plans["train"].calls:
        called.setdefault(call.purpose, []).extend(one.name for one in call.kernels.values())
    multiply = {node.name for node in graph.nodes if isinstance(node.layer, kinds)}
    ways = {
        purpose: algorithm(names)
        for purpose, names in called.items()
        if purpose.split()[0] in multiply
    }
    assert len(ways) > len(multiply)
    assert [purpose for purpose, way in ways.items() if not way] == []


def test_products_of_a_chain_are_counted_where_they_are_made() -> None:
    """A normalisation may take over the gradients of the 1×1 convolution before it."""
    net = load("input 16x8x8; conv 32 k1 nobias; bn; relu; conv 16 k1; flatten; linear 4")
    profile = profile_net(net, 32, 1)
    rows = {row.name: row.macs for row in size(net).rows if row.macs}
    expected = 32 * (2 * rows["conv1"] + 3 * rows["conv2"] + 3 * rows["linear1"])
    assert profile.step.multiply_adds == expected
    for layer in profile.layers:
        assert bool(layer.backward.multiply_adds) == bool(layer.backward.algorithm)


def test_a_busy_machine_is_told() -> None:
    lines = _report(made_up(0.6), "lenet5")
    assert "took 40 % of the processors" in lines[-2]
    assert max(map(len, lines)) <= 80


def test_quiet_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", NET, "--batch", "16", "--threads", "1", "--quiet"]) == 0
    assert re.fullmatch(r"step .* images/s, .* of the peak\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["lenet6"], "lenet5"),
        (["lenet5", "--batch", "0"], "whole number from 1"),
        (["input 1x4x4; relu; flatten"], "nothing to train"),
        (["input 1x4x4; conv 2 k9; flatten; linear 2"], "kernel 9"),
    ],
)
def test_what_cannot_be_measured_is_one_message(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 2
    message = capsys.readouterr().err
    assert told in message
    assert "Traceback" not in message


@pytest.mark.parametrize("name", ["avx512", "avx2", "neon"])
def test_the_peak_loop_is_multiply_adds_in_registers(name: str) -> None:
    """On every family: one instruction per accumulator and turn, none of them on the stack."""
    target = find_target("host")
    if target.name != name:
        target = _any_target(name)
    text = assembly(peak.code(target), target)
    assert text.count("vfmadd231ps") + text.count("fmla") == peak.accumulators(target)
    assert count_spills(text, target) == {"multiply_adds": 0}


def _any_target(name: str):  # type: ignore[no-untyped-def]
    """The plainest CPU of a family, to compile for."""
    from lanewise.native.target import FAMILIES, _target

    family = FAMILIES[name]
    return _target(
        name, family.generic_triple, family.generic_cpu, family.generic_features, native=False
    )


def test_the_peak_is_near_what_the_clock_allows() -> None:
    """Between a tenth of a multiply–add a tick and four: the counter runs near the core's clock."""
    target = find_target()
    measured = measure_peak(target, 1, rounds=3)
    ticks = ticks_per_second(target)
    per_tick = measured.best * 1e9 / ticks / (2 * target.register_lanes)
    assert 0.1 * target.fma_per_cycle < per_tick < 4 * target.fma_per_cycle
    assert 0 < measured.median <= measured.best
    assert 0 < measured.given <= 1
