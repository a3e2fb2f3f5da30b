"""`lanewise bench --inference`: where a prediction's time goes, on either path."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lanewise.cli.bench import _report
from lanewise.cli.main import main
from lanewise.native import profile_rounds
from lanewise.native.peak import Peak
from lanewise.native.profile import LayerWork, Profile, Work, profile_net
from lanewise.net.load import load
from lanewise.size.report import size

NET = (
    "input 3x32x32; conv 16 k3 pad1; relu; maxpool 2; groupnorm 4; depthwise k3 pad1; conv 40 k1;"
    " conv 32 k3 pad1; bn; relu; flatten; linear 10"
)
#: threads have something to share of one slice
LARGE = "input 16x32x32; conv 32 k3 pad1; relu; conv 32 k3 pad1; flatten; linear 2"


@pytest.fixture(scope="module", autouse=True)
def short_rounds() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(profile_rounds, "ROUNDS", 2)
        patch.setattr(profile_rounds, "ROUND_SECONDS", 0.01)
        yield


@pytest.fixture(scope="module", params=[1, 16])
def profile(request: pytest.FixtureRequest) -> Profile:
    return profile_net(load(NET), request.param, 1, training=False)


def test_layers_and_the_rest_add_up_to_the_call(profile: Profile) -> None:
    assert profile.one_by_one == (profile.batch == 1)
    spent = sum(layer.forward.ms for layer in profile.layers) + sum(profile.others.values())
    assert spent == pytest.approx(profile.step_ms, rel=0.02)
    assert set(profile.others) == {"logits", "waiting"}
    assert not any(layer.backward.ms for layer in profile.layers)


def test_the_work_is_that_of_the_calculus(profile: Profile) -> None:
    rows = size(load(NET)).rows
    expected = {row.name: profile.batch * (row.macs - row.padded_macs) for row in rows if row.macs}
    assert {
        layer.name: layer.forward.multiply_adds
        for layer in profile.layers
        if layer.forward.multiply_adds
    } == expected
    assert profile.step.multiply_adds == sum(expected.values())


def test_each_layer_tells_its_algorithm_on_its_path(profile: Profile) -> None:
    ways = {layer.name: layer.forward.algorithm for layer in profile.layers}
    alone = profile.one_by_one
    assert ways == {
        "input": "",
        "conv1": "direct",
        "maxpool1": "",
        "groupnorm1": "16 copies" if alone else "",
        "depthwise1": "direct",
        "conv2": "direct",
        "conv3": "Winograd",
        "linear1": "product",
    }


def test_exact_and_bf16_reach_the_program() -> None:
    layers = profile_net(load(NET), 1, 1, exact=True, precision="bf16", training=False).layers
    assert {layer.name: layer.forward.algorithm for layer in layers}["conv3"] == "direct"


@pytest.mark.parametrize(
    ("net", "batch", "threads"),
    [("lenet5", 1, 1), ("lenet5", 16, 1), ("lenet5", 32, 2), (LARGE, 16, 2)],
)
def test_the_peak_is_that_of_the_threads_with_something_to_do(
    net: str, batch: int, threads: int
) -> None:
    assert profile_net(load(net), batch, 2, training=False).threads == threads


def test_the_document_says_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "lenet5", "--inference", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["mode"], document["batch"]) == ("inference", 1)
    assert document["one_by_one"] is True
    assert document["images_per_second"] == pytest.approx(1e3 / document["step_ms"], rel=1e-3)
    assert all(each["backward"]["ms"] == 0 for each in document["layers"])


def _made_up(step_ms: float, training: bool = False) -> Profile:
    layers = (
        LayerWork("input", ("input",), Work(0.0005), Work()),
        LayerWork("conv1", ("conv", "relu"), Work(0.01, 1_000_000, "Winograd"), Work()),
        LayerWork("maxpool1", ("maxpool",), Work(), Work()),
    )
    return Profile(
        target="avx512",
        cpu="sapphirerapids",
        threads=1,
        batch=1,
        peak=Peak(1, 400.0, 390.0, 1.0),
        step_ms=step_ms,
        range_ms=(step_ms, step_ms),
        layers=layers,
        others={"waiting": 0.00025},
        training=training,
        one_by_one=True,
    )


def test_short_calls_are_told_in_microseconds() -> None:
    lines = _report(_made_up(0.0125), "lenet5")
    assert lines[0] == "lenet5: inference, batch 1"
    assert lines[2] == "one image at a time"
    assert [line.split() for line in lines[4:9]] == [
        ["layer", "µs", "share", "by"],
        ["input", "0.50"],
        ["conv1", "+", "relu", "10.00", "50", "%", "Winograd"],
        ["maxpool1"],
        ["waiting", "0.25"],
    ]
    assert lines[-1] == "call 12.5 µs, 80,000 images/s, 160 GFLOP/s: 40 % of the peak"
    assert _report(_made_up(12.5), "lenet5")[4].split() == ["layer", "ms", "share", "by"]


def test_who_trains_on_one_image_is_told_how_to_predict_one() -> None:
    assert "--inference" in _report(_made_up(1.0, training=True), "lenet5")[-1]
    assert not any("--inference" in line for line in _report(_made_up(1.0), "lenet5"))
