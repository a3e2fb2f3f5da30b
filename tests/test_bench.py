"""The scripts of bench/: turns, tables, and the refusal to time what computes something else."""

from __future__ import annotations

import json
import operator
import os
import subprocess
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from lanewise.bridge.torch_module import to_torch
from lanewise.net.family import zoo_names
from lanewise.net.parse import parse

BENCH = Path(__file__).resolve().parent.parent / "bench"
sys.path.insert(0, str(BENCH))

import agreement  # noqa: E402
import contest  # noqa: E402
import measure  # noqa: E402
import rivals  # noqa: E402
import torch_rivals  # noqa: E402
from measure import Contender, Timing  # noqa: E402


def script(name: str) -> ModuleType:
    """A script whose name another module has too."""
    spec = spec_from_file_location(f"bench_{name}", BENCH / f"{name}.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_contenders_take_turns_and_begin_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "PAUSE", 0.0)
    monkeypatch.setattr(measure, "stolen_seconds", lambda: 0.0)
    told: list[str] = []
    rounds: list[int] = []

    def contender(name: str) -> Contender:
        return Contender(name, "", lambda times: told.append(name))

    timings = measure.interleave(
        [contender("a"), contender("b")], 3, 1e-9, lambda: rounds.append(len(told))
    )
    assert len(rounds) == 3
    after = [told[at : at + 4] for at in rounds]  # each turn: one untimed call, one timed
    assert after == [list("aabb"), list("bbaa"), list("aabb")]
    assert [len(one.seconds) for one in timings] == [3, 3]


def test_a_disturbed_turn_is_measured_again_and_the_quietest_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measure, "PAUSE", 0.0)
    monkeypatch.setattr(measure.os, "cpu_count", lambda: 2)
    clock = {"now": 0.0, "stolen": 0.0}
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock["now"])
    monkeypatch.setattr(measure, "stolen_seconds", lambda: clock["stolen"])

    def told(*turns: tuple[float, float]) -> tuple[measure.Turn, int]:
        """Of turns of so many seconds, of which so many were stolen: which counts, how many ran."""
        left = [step for turn in turns for step in ((0.0, 0.0), turn)]  # each begins untimed

        def run(times: int) -> None:
            seconds, stolen = left.pop(0)
            clock["now"] += seconds
            clock["stolen"] += stolen

        found = measure._least_disturbed(Contender("a", "", run), 1)
        return found, len(turns) - len(left) // 2

    quiet, ran = told((1.0, 0.0), (0.5, 0.0))
    assert (quiet.taken, ran) == (0.0, 1) and quiet.seconds == pytest.approx(1.0)
    calmer, ran = told((1.0, 0.4), (2.0, 0.02), (0.5, 0.0))
    assert ran == 2 and calmer.seconds == pytest.approx(2.0)  # not the quicker
    assert calmer.taken == pytest.approx(0.005)
    least, ran = told((1.0, 0.4), (1.1, 0.3), (1.2, 0.2), (1.3, 0.5), (0.1, 0.0))
    assert ran == measure.TRIES and least.seconds == pytest.approx(1.2)
    kept = measure.kept_for_us([Timing(Contender("a", "", print), (1.0, 1.0), (0.1, 0.3))])
    assert kept == pytest.approx(0.8) and measure.kept_for_us([]) == 1.0


def test_stolen_time_is_that_of_the_first_line(tmp_path: Path) -> None:
    file = tmp_path / "stat"
    file.write_text("cpu  10 0 5 900 3 0 1 250 0 0\ncpu0 5 0 5 450 3 0 1 125 0 0\n")
    assert measure.stolen_seconds(file) == 250 / os.sysconf("SC_CLK_TCK")
    assert measure.stolen_seconds(tmp_path / "none") == 0.0
    file.write_text("cpu  10 0 5\n")
    assert measure.stolen_seconds(file) == 0.0


def test_a_table_tells_median_range_rate_and_ratio_to_ours() -> None:
    timings = [
        Timing(Contender("Lanewise", "fp32", print, ours=True), (0.002, 0.001, 0.004)),
        Timing(Contender("PyTorch", "NCHW fp32", print), (0.010, 0.011, 0.5)),
    ]
    title, ours, theirs = measure.timing_table(timings, images=128)
    assert title.split() == ["setting", "ms", "range", "images/s", "ratio"]
    assert ours.split() == ["Lanewise", "fp32", "2.00", "1.00", "–", "4.00", "64,000"]
    assert theirs.split()[3:] == ["11.00", "10.00", "–", "500", "11,636", "5.50", "×"]
    document = measure.timing_json(timings, images=128)
    assert [one["ratio"] for one in document] == [1.0, 5.5]


def test_the_best_of_each_group_is_quoted() -> None:
    def timing(name: str, setting: str, seconds: float) -> Timing:
        return Timing(Contender(name, setting, print, name == "Lanewise"), (seconds,))

    found = contest.ratios(
        [
            timing("Lanewise", "fp32", 1.0),
            timing("Lanewise", "fp32, from uint8", 0.5),
            timing("PyTorch", "NCHW fp32", 9.0),
            timing("PyTorch", "NHWC fp32, compiled", 8.0),
            timing("PyTorch", "NHWC bf16", 4.0),
            timing("OpenVINO", "fp32, latency", 3.0),
            timing("Keras, JAX", "fp32, XLA", 5.0),
        ]
    )
    assert found == {
        "PyTorch's best fp32 (NHWC fp32, compiled)": 8.0,
        "PyTorch's best of all (NHWC bf16)": 4.0,
        "OpenVINO (fp32, latency)": 3.0,
        "Keras, JAX (fp32, XLA)": 5.0,
    }


def rival(logits: list[float], tolerance: float) -> rivals.Rival:
    contender = Contender("Other", "fp32", print)
    return rivals.Rival(contender, lambda: {"logits": np.array(logits)}, {"logits": tolerance})


def test_who_computes_something_else_is_not_timed() -> None:
    ours = {"logits": np.array([3.0, 4.0])}
    found = agreement.agree(ours, [rival([3.0, 4.002], 1e-3)])
    assert found == {"Other fp32: logits": pytest.approx(4e-4, 1e-2)}
    assert agreement.agreed(found) == "relative differences at most: fp32 logits 4e-04"
    with pytest.raises(SystemExit, match=r"logits differ by .* nothing was timed"):
        agreement.agree(ours, [rival([3.0, 4.1], 1e-3)])
    with pytest.raises(SystemExit, match="nothing was timed"):
        agreement.agree(ours, [rival([3.0, float("nan")], 1e-3)])


def test_what_a_step_changed_is_compared_not_what_it_left() -> None:
    before = {"w": np.array([1.0, 2.0]), "bias": np.array([0.5]), "mean": np.array([0.0])}
    weights = {"w": np.array([1.0, 2.5]), "bias": np.array([0.25])}
    outcome = rivals.step_outcome(2.0, before, weights, {"mean": np.array([0.125])})
    assert {key: value.tolist() for key, value in outcome.items()} == {
        "loss": 2.0,
        "weights": [-0.25, 0.0, 0.5],
        "statistics": [0.125],
    }
    assert "statistics" not in rivals.step_outcome(2.0, before, weights, {})


def test_who_is_slow_takes_part_in_fewer_rounds_spread_over_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measure, "PAUSE", 0.0)
    rounds: list[list[str]] = []

    def contender(name: str, seconds: float) -> Contender:
        def run(times: int) -> float:
            if rounds:
                rounds[-1].append(name)
            return times * seconds  # as one in another process tells it

        return Contender(name, "", run)

    pair = [contender("quick", 1e-4), contender("slow", 0.02)]
    timings = measure.interleave(pair, 9, 1e-3, lambda: rounds.append([]), most_seconds=0.05)
    assert [len(one.seconds) for one in timings] == [9, 3]
    assert [i for i, told in enumerate(rounds) if "slow" in told] == [0, 3, 6]


def test_what_takes_too_long_is_stopped_and_named() -> None:
    with pytest.raises(TimeoutError, match="more than 0 s"), torch_rivals.limited(0.01):
        try:
            time.sleep(5)
        except TimeoutError as error:
            raise RuntimeError("wrapped") from error
    with pytest.raises(KeyError), torch_rivals.limited(60):
        raise KeyError
    with torch_rivals.limited(0.01):
        pass
    time.sleep(0.02)  # no alarm is left


def test_sums_and_activations_are_in_place_where_nobody_else_reads() -> None:
    net = parse(
        "input 2x4x4; conv 4 k1; bn; first: relu; tanh; kept: relu;"
        " residual { conv 4 k1; bn }; last: relu; flatten; linear 3"
    )
    module = torch_rivals._in_place(to_torch(net), sums=True)
    in_place = {name for name, layer in module.named_modules() if getattr(layer, "inplace", False)}
    assert in_place == {"first", "last"}  # tanh needs its result for its gradient
    images = torch.ones(3, 2, 4, 4, requires_grad=True)
    module(images).sum().backward()  # torch objects where what it needs was overwritten
    assert images.grad is not None
    assert operator.iadd in [node.target for node in module.graph.nodes]


def test_depthwise_products_are_in_the_rate() -> None:
    net = parse("input 2x4x4; conv 4 k1; depthwise k3; flatten; linear 3")
    assert contest.step_multiply_adds(net) == 2 * 2 * 4 * 16 + 3 * (4 * 9 * 4) + 3 * (16 * 3)


def test_a_process_is_measured_and_a_failing_one_is_told() -> None:
    code = "import os; block = bytearray(60_000_000); print(os.environ['GIVEN'])"
    done = measure.run_process([sys.executable, "-c", code], {"GIVEN": "here"})
    assert done.output == "here\n"
    assert 60e6 < done.peak_bytes < 10e9
    assert 0 < done.seconds < 60
    with pytest.raises(SystemExit, match=r"ended with 3:\nno luck"):
        bad = "import sys; print('no luck', file=sys.stderr); sys.exit(3)"
        measure.run_process([sys.executable, "-c", bad])


def test_the_whole_script_runs_and_agrees_with_pytorch() -> None:
    net = "input 1x12x12; conv 4 k3; relu; maxpool 2; flatten; linear 3"
    few = ["--batch", "20", "--images", "33", "--rounds", "1", "--turn", "0.01", "--threads", "1"]
    few += ["--no-compile", "--no-peers", "--json"]
    command = [sys.executable, str(BENCH / "step.py"), "--net", net, *few]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    document = json.loads(done.stdout)
    names = [one["name"] for one in document["training"]["contenders"]]
    assert names == ["Lanewise", "PyTorch", "PyTorch", "PyTorch"]
    assert document["training"]["contenders"][0]["ratio"] == 1.0
    assert max(document["agreement"].values()) < 0.05
    assert document["peak_gflops"]["best"] > 0
    assert document["circumstances"]["command"].startswith("python bench/step.py --net ")


@pytest.fixture(scope="module")
def networks_document() -> dict:
    nets = (
        "input 1x12x12; conv 4 k3 nobias; bn; relu; maxpool 2; flatten; linear 3",
        "input 1x6x6; conv 4 k3; residual { depthwise k3 pad1 }; flatten; linear 3",
    )
    few = ["--batch", "20", "--rounds", "2", "--turn", "0.01", "--threads", "1", "--no-compile"]
    few.append("--no-peers")
    chosen = [word for net in nets for word in ("--net", net)]
    command = [sys.executable, str(BENCH / "networks.py"), *chosen, *few, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    return json.loads(done.stdout)


def test_several_networks_in_one_run(networks_document: dict) -> None:
    first, second = networks_document["networks"]
    for one in (first, second):
        assert one["claim"] is None
        names = [each["name"] for each in one["training"]["contenders"]]
        assert names == ["Lanewise", "PyTorch", "PyTorch", "PyTorch"]
        assert len(one["training"]["contenders"][0]["rounds_ms"]) == 2
        assert one["training"]["batch"] == 20
        assert one["training"]["gflops"] > 0
        assert 0 < one["peak_gflops"]["given"] <= 1
        assert len([line for line in one["skipped"] if line.endswith("not tried")]) == 3
    assert first["agreement"]["PyTorch NCHW fp32: statistics"] < 1e-4
    assert "PyTorch NCHW fp32: weights" in second["agreement"]
    assert "PyTorch NCHW fp32: statistics" not in second["agreement"]
    assert networks_document["circumstances"]["versions"]["torch"]


def test_the_networks_of_the_claims_exist() -> None:
    networks = script("networks")
    assert set(networks.CLAIMS) <= set(zoo_names())


def test_everybody_has_some_time_to_get_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = script("networks")
    monkeypatch.setattr(sys, "argv", ["networks.py"])
    assert networks._terms("bn3", networks._arguments()).patience > 0


def test_the_networks_script_says_how_to_use_it() -> None:
    command = [sys.executable, str(BENCH / "networks.py"), "--help"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    for word in ("--net", "--quick", "--json", "--compile-seconds", "Claims"):
        assert word in done.stdout


@pytest.mark.parametrize("name", ["step.py", "networks.py"])
def test_a_wrong_network_is_one_message(name: str) -> None:
    command = [sys.executable, str(BENCH / name), "--net", "lenet6"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    assert done.stderr.startswith(f"{name}: ")
    assert "lenet5" in done.stderr
    assert "Traceback" not in done.stderr


def test_sizes_are_compared_and_timed_beside_torchinfo(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = script("sizes")
    assert sizes.layers_of("resnet152") >= 150
    monkeypatch.setattr(sys, "argv", ["sizes.py", "--net", "lenet5", "--runs", "1", "--json"])
    assert sizes.main() == 0
    ours, *others = (document := json.loads(capsys.readouterr().out))["contenders"]
    assert (ours["name"], ours["params"]) == ("Lanewise", 61706)
    assert [one["setting"] for one in others] == ["device meta", "device cpu"]
    assert all(one["params"] == 61706 and one["first"][0] > 0 for one in others)
    everything = script("all")
    ((what, own, theirs, ratio),) = everything._sized(document)
    assert what == "sizes of lenet5, 5 layers, after start-up"
    assert own.endswith(" ms")
    assert "torchinfo" in theirs
    assert ratio.endswith(" ×")


def test_other_sizes_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = script("sizes")

    def run(command: list[str]) -> object:
        counted = 61707 if "torchinfo" in command[-1] else 61706
        told = json.dumps({"first": 0.1, "again": 0.1, "params": counted, "macs": 1})
        return SimpleNamespace(output=told)

    monkeypatch.setattr(sizes, "run_process", run)
    with pytest.raises(SystemExit, match="61,707 parameters and Lanewise 61,706"):
        sizes.measure("lenet5", 1)


def test_the_readme_gets_its_table(tmp_path: Path) -> None:
    everything = script("all")
    page = tmp_path / "README.md"
    page.write_text("a\n<!-- measured -->\nold\n<!-- end of measured -->\nb\n")
    everything.write(page, "| new |\n")
    assert page.read_text() == "a\n<!-- measured -->\n| new |\n<!-- end of measured -->\nb\n"
    page.write_text("no marks\n")
    with pytest.raises(SystemExit, match="marks"):
        everything.write(page, "| new |\n")
    assert page.read_text() == "no marks\n"


def test_a_busy_machine_writes_no_table() -> None:
    everything = script("all")
    everything.refuse_if_busy(0.99)
    with pytest.raises(SystemExit, match="took 20 % of the processors"):
        everything.refuse_if_busy(0.8)


def test_the_sweep_times_what_the_engine_runs(tmp_path: Path) -> None:
    from lanewise.native.peak import PeakMeter
    from lanewise.native.target import find_target

    sweep = script("sweep")
    target = find_target("host")
    layer = sweep.Layer(2, 3, 3, 2)
    assert layer.label == "k3 /2 2→3" and sweep.Layer(4, 0, 5).label == "k5 depthwise 4"
    found = sweep.points(layer, 6, target)
    assert [point.direction for point in found] == ["forward", "input", "weight"]
    levels = {name: (i * 1e-9,) * 4 for i, name in enumerate(script("one_core").LEVELS, 1)}
    machine = sweep.Machine(
        100.0, 3e9, levels, 3e-9, 0.3, (5e-10, 1e-9), 1e-9, 2e-9, 2e-8, 16, 8 << 20
    )
    meter = PeakMeter(target, 1)
    for point in found:
        assert point.products == 16 * 2 * 3 * 8 * 8  # of 9 × 9 pairs, 17 lie on padding
        point.measure(meter.measure(), 1e-4, point.products)
    done = [point.measured(2.0, machine.rooms) for point in found]
    for one in done:
        assert 0 < one.share < 1.5
        # small arrays, which stay in the first cache
        assert one.lines == script("caches").Lines()
        assert 0 < one.limits(machine)["all"] <= one.bound(machine) <= 1
    assert "lanes" in done[2].limits(machine) and "lanes" not in done[0].limits(machine)
    assert len(sweep.line("x", sweep.shown(done, machine)).split()) == 16
    kept = sweep.Kept(tmp_path / "kept", "commit 1")
    assert kept.read(layer) is None
    kept.write(layer, done, [{"peak": 100.0}])
    assert kept.read(layer) == (done, [{"peak": 100.0}])
    assert sweep.Kept(tmp_path / "kept", "commit 2").read(layer) is None
    assert sweep.block(done, machine, "commit 1").endswith(".")


def test_the_model_of_the_caches_counts_lines() -> None:
    from lanewise.native.target import find_target

    script("sweep")
    needs, core = script("needs"), script("one_core")
    target, lines = find_target("host"), 1 << 16
    sets, ways, sets_beyond, ways_beyond = script("caches").cache_shapes()
    if lines < 2 * max(sets * ways, sets_beyond * ways_beyond):
        pytest.skip("this machine's second cache holds 4 MiB")
    arrays = [needs.random_numbers(lines * 16, 0), needs.random_numbers(24 * 16, 1)]

    def far(kernel, third, turned=False):
        places = (1, 0) if turned else (0, 1)
        return needs.far_lines([needs.Made(kernel, places)], arrays, target, (ways_beyond, third))

    pages = lines // 64  # whose first lines come alone
    row = far(core.reading(lines, 1), 32 << 20)
    assert row.third[0] > 0.9 * (lines - pages) and sum(row.memory) < 0.1 * lines
    row = far(core.reading(lines, 1), 1 << 20)
    assert row.memory[0] > 0.9 * (lines - pages) and sum(row.third) < 0.1 * lines
    alone = far(core.reading(lines, 64), 32 << 20)
    assert alone.third[1] > 0.9 * lines and alone.third[0] < 0.1 * lines
    assert alone.waiting[0] == 8 * alone.third[1]  # nothing waits for them
    waiting = far(core.multiplying(lines, 64, 24), 32 << 20)
    assert waiting.waiting[0] >= 24 * 0.9 * lines
    assert far(core.writing(lines, away=True), 32 << 20, turned=True).away == lines
    assert far(core.reading(128, 1), 32 << 20) == needs.Lines()
    written = far(core.writing(lines), 32 << 20, turned=True)
    assert written.third[2] > 0.9 * (lines - pages) and sum(written.third[:2]) == 0
    counts = needs.counted(core.turning()) + needs.counted(core.summing())
    assert (counts["transpositions"], counts["sums"], counts["loads"]) == (8, 64, 256)


def test_the_ways_that_are_ours_follow_from_what_is_read_twice() -> None:
    """Pages that lie anywhere: with all ways some sets of a cache that is four fifths full are
    still too full, and the fewer ways the more."""
    script("sweep")
    core = script("one_core")
    sets, ways, pages = core._second()
    chance = 1 / max(1, sets * 64 // 4096)

    def told(fewer: int) -> dict[str, float]:
        share = core._at_least(fewer, pages - 1, chance)
        return {"second 0": 1e-9, "third 0": 3e-9, "crowded": 1e-9 + share * 2e-9 + 1e-15}

    for fewer in range(ways // 2, ways + 1):
        assert core._ways(told(fewer)) == fewer
    assert core._ways({"second 0": 1e-9, "third 0": 3e-9, "crowded": 1e-9}) == ways
