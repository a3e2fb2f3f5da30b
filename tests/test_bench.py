"""The scripts of bench/: turns, tables, and the refusal to time what computes something else."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"
sys.path.insert(0, str(BENCH))

import measure  # noqa: E402
import rivals  # noqa: E402
import step  # noqa: E402
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

    found = step.ratios(
        [
            timing("Lanewise", "fp32", 1.0),
            timing("Lanewise", "fp32, from uint8", 0.5),
            timing("PyTorch", "NCHW fp32", 9.0),
            timing("PyTorch", "NHWC fp32, compiled", 8.0),
            timing("PyTorch", "NHWC bf16", 4.0),
            timing("OpenVINO", "fp32, one stream", 3.0),
        ]
    )
    assert found == {
        "PyTorch's best fp32 (NHWC fp32, compiled)": 8.0,
        "PyTorch's best of all (NHWC bf16)": 4.0,
        "OpenVINO (fp32, one stream)": 3.0,
    }


def rival(logits: list[float], tolerance: float) -> rivals.Rival:
    contender = Contender("Other", "fp32", print)
    return rivals.Rival(contender, lambda: {"logits": np.array(logits)}, tolerance)


def test_who_computes_something_else_is_not_timed() -> None:
    ours = {"logits": np.array([1.0, 2.0])}
    assert step._agree(ours, [rival([1.0, 2.001], 1e-3)])["Other fp32"] == pytest.approx(5e-4, 1e-2)
    with pytest.raises(SystemExit, match="nothing was timed"):
        step._agree(ours, [rival([1.0, 2.1], 1e-3)])
    with pytest.raises(SystemExit, match="nothing was timed"):
        step._agree(ours, [rival([1.0, float("nan")], 1e-3)])


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
    command = [sys.executable, str(BENCH / "step.py"), "--net", net, *few, "--no-compile", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    document = json.loads(done.stdout)
    names = [one["name"] for one in document["training"]["contenders"]]
    assert names == ["Lanewise", "PyTorch", "PyTorch", "PyTorch"]
    assert document["training"]["contenders"][0]["ratio"] == 1.0
    assert max(document["agreement"].values()) < 0.05
    assert document["peak_gflops"]["best"] > 0
    assert document["circumstances"]["command"].startswith("python bench/step.py --net ")


def test_a_wrong_network_is_one_message() -> None:
    command = [sys.executable, str(BENCH / "step.py"), "--net", "lenet6"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    assert done.stderr.startswith("step.py: ")
    assert "lenet5" in done.stderr
    assert "Traceback" not in done.stderr


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
