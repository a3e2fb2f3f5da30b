"""The rows of what shall be reached, and the pages they are written to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"
sys.path.insert(0, str(BENCH))

import aims  # noqa: E402
import all as everything  # noqa: E402


def contender(name: str, setting: str, ms: float, ours: float = 2.0) -> dict:
    return {
        "name": name, "setting": setting, "median_ms": ms, "range_ms": [ms / 2, 2 * ms],
        "images_per_second": 1000 / ms, "ratio": ms / ours,
    }  # fmt: skip


PART = {
    "key": "resnet20",
    "title": "ResNet-20, step of 128",
    "contenders": [
        contender("Lanewise", "fp32", 2.0),
        contender("PyTorch", "NHWC fp32", 7.0),
        contender("PyTorch", "NCHW fp32, compiled", 6.4),
        contender("PyTorch", "NHWC bf16", 3.0),
        contender("Keras, JAX", "fp32, XLA", 2.5),
    ],
    "skipped": ["tinygrad fp32, JIT: not ready in time"],
    "peak_gflops": {"best": 340.0, "given": 0.94},
    "kept": 0.99,
}


def row(target: aims.Target, part: dict = PART) -> dict:
    (found,) = aims.judge(target, [part])
    return found


def test_a_row_is_the_ratio_to_the_best_of_those_it_names() -> None:
    first = row(aims.Target("resnet20", ("PyTorch",), 3, 4))
    assert (first["best"], first["ratio"]) == ("PyTorch NCHW fp32, compiled", 3.2)
    assert first["verdict"] == "yes"
    assert first["best_of_all"] == "Keras, JAX fp32, XLA" and first["ratio_to_best_of_all"] == 1.25
    rough = row(aims.Target("resnet20", ("PyTorch",), 1.7, 2.2, "bf16"))
    assert (rough["best"], rough["verdict"]) == ("PyTorch NHWC bf16", "no")
    either = row(aims.Target("resnet20", ("PyTorch",), 1.2, 1.4, "any"))
    assert (either["best"], either["verdict"]) == ("PyTorch NHWC bf16", "aim")


def test_an_aim_may_be_a_time() -> None:
    target = aims.Target("resnet20", ("PyTorch",), 3, 0, aim_ms=1.9)
    assert row(target)["verdict"] == "yes" and row(target)["aim"] == "≤ 1900 µs"
    assert row(aims.Target("resnet20", ("PyTorch",), 3, 0, aim_ms=2.0))["verdict"] == "aim"


def test_what_was_not_measured_is_said() -> None:
    ours = row(aims.Target("resnet20", ("PyTorch",), 1, 2, "bf16", "bf16"))
    assert ours["verdict"] == "not measured: Lanewise has no bf16 here"
    failed = row(aims.Target("resnet20", ("PyTorch",), 1, 2), {**PART, "failed": "no memory"})
    assert failed["verdict"] == "not measured: no memory"
    nobody = row(aims.Target("resnet20", ("ncnn",), 1, 2))
    assert nobody["verdict"] == "not measured: nobody to compare with"
    assert list(aims.judge(aims.Target("bn3", ("PyTorch",), 1, 2), [PART])) == []


MNIST = {
    "key": "mnist",
    "title": "MNIST to 99 %",
    "contenders": [],
    "skipped": [],
    "runs": [{}] * 2,
    "summary": {
        start: {"seconds": seconds, "lowest_accuracy": 0.9904, "peak_bytes": 10**8}
        for start, seconds in (("cold", 5.0), ("warm", 3.0))
    },
}


def test_mnist_is_judged_by_seconds_and_only_with_its_accuracy() -> None:
    target = aims.Target("mnist", (), 4, 2)
    assert row(target, MNIST)["verdict"] == "yes"
    worse = {"seconds": 1.0, "lowest_accuracy": 0.9899, "peak_bytes": 1}
    assert row(target, {**MNIST, "summary": {"warm": worse}})["verdict"] == "no: not 99 %"


def test_every_target_has_its_part_and_every_part_a_target() -> None:
    assert {target.part for target in aims.TARGETS} == {part.key for part in aims.PARTS}
    for part in aims.PARTS:
        assert len(part.title) <= 28


DOCUMENT = {
    "threads": 2,
    "parts": [PART, MNIST],
    "rows": [
        row(aims.Target("resnet20", ("PyTorch",), 3, 4)),
        row(aims.Target("resnet20", ("ncnn",), 1, 2)),
        row(aims.Target("mnist", (), 4, 2), MNIST),
    ],
    "circumstances": {
        "machine": "a machine", "versions": {"keras": "3.15"}, "commit": "commit abc",
        "command": "python bench/targets.py --json", "load_before": 0.1, "load_after": 1.5,
    },
}  # fmt: skip


def test_the_pages_get_every_setting_and_who_is_missing() -> None:
    text = everything.everybody(DOCUMENT)
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert {len(line.split(" | ")) for line in text.splitlines() if line.startswith("| ")} == {7, 8}
    assert sum("Keras, JAX" in one for one in rows) == 1
    assert "ResNet-20, step of 128: tinygrad fp32, JIT: not ready in time" in " ".join(text.split())
    assert "94 % of the processors' time was ours" in " ".join(text.split())
    readme = everything.table(DOCUMENT, {"kinds": [{"name": "import", "median": 0.1, "target": 1}]})
    assert (
        "| ResNet-20, step of 128 | 2.00 ms | 2.50 ms, Keras, JAX (fp32, XLA) | 1.2 × |" in readme
    )
    assert "| the same, warm | 3.0 s | 100 MB at most |  |" in readme
    assert everything.given(DOCUMENT) == 0.94
    disturbed = {**PART, "title": "VGG-like", "kept": 0.8}
    assert everything._given({"parts": [PART, disturbed, {**PART, "title": "3-conv"}]}) == (
        "94 % of the processors' time was ours, and in the turns that are told 99 %, because"
        " disturbed ones are measured again (less in VGG-like 80 %)"
    )
    everything.refuse_if_busy(0.9)
    with pytest.raises(SystemExit, match="other work took 11 %"):
        everything.refuse_if_busy(0.89)
    assert "By `python bench/all.py`." in " ".join(text.split())
    where = {**DOCUMENT["circumstances"], "command": "python bench/targets.py --json --quick"}
    assert "all.py --quick`." in everything._foot({**DOCUMENT, "circumstances": where})


def test_the_rows_fit_a_terminal() -> None:
    script = subprocess.run(
        [sys.executable, "-c", "import json, sys, targets; print(json.dumps("
         "targets.table(json.loads(sys.argv[1]))))", json.dumps(DOCUMENT["rows"])],
        cwd=BENCH, env={**os.environ, "PYTHONPATH": str(BENCH.parent / "src")},
        capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    lines = json.loads(script.stdout)
    assert max(len(line) for line in lines[:2]) <= 80
    assert lines[0].split()[0] == "ours" and lines[1].startswith("ResNet-20, step of 128")
    assert lines[2].startswith("  beside PyTorch: PyTorch NCHW fp32, compiled; best of all Keras")
