"""The forecast of a training step: its arithmetic by hand, its place on disk, and on screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lanewise.cli import main as cli
from lanewise.native import forecast as module
from lanewise.native.forecast import CACHE_BYTES, MOVED, REACHED, Machine, forecast, this_machine
from lanewise.native.fuse import operations
from lanewise.net.layers import Conv, Linear
from lanewise.net.parse import parse

MACHINE = Machine("a machine", "avx2", 2, gflops=100.0, memory_rate=10.0, cache_rate=50.0)
TEXT = "input 3x8x8; conv 4 k3; relu; maxpool 2; conv 8 k3; flatten; linear 5"


def test_a_forecast_by_hand() -> None:
    told = {one.name: one for one in forecast(parse(TEXT), 10, MACHINE)}
    adds = 10 * 8 * 4 * 9 * 1  # conv2: 3 × 3 → 1 × 1
    there, back = REACHED[Conv]
    values = 10 * 4 * (4 * 3 * 3 + 8)
    params = 4 * (8 * 4 * 9 + 8)
    moving = values / (MOVED * 50e6) + params / 10e6
    assert told["conv2"].forward_ms == pytest.approx(max(2 * adds / (there * 100e6), moving))
    moving = 2 * values / (MOVED * 50e6) + 3 * params / 10e6
    # Its input depends on conv1's parameters, so there are two gradients …
    assert told["conv2"].backward_ms == pytest.approx(max(4 * adds / (back * 100e6), moving))
    # … and of conv1 one, of the image none.
    adds = 10 * 4 * 3 * 9 * 36
    assert told["conv1"].backward_ms == pytest.approx(2 * adds / (back * 100e6))
    assert told["input"].backward_ms == 0
    assert told["linear1"].forward_ms > 2 * 10 * 40 / (REACHED[Linear][0] * 100e6)
    assert [one.bound for one in told.values()][:2] == ["cache", "arithmetic"]


def test_large_maps_wait_for_memory() -> None:
    text = "input 16x128x128; maxpool 2; conv 1 k1"
    _, pool, _ = forecast(parse(text), 4, MACHINE)
    values = 4 * 4 * 16 * (128 * 128 + 64 * 64)
    assert values / 4 * 16 > CACHE_BYTES
    assert (pool.bound, pool.backward_ms) == ("memory", 0)
    assert pool.forward_ms == pytest.approx(values / (MOVED * 10e6))


def test_layers_are_those_of_the_engine() -> None:
    graph = parse(TEXT)
    assert [one.name for one in forecast(graph, 4, MACHINE)] == [
        one.node for one in operations(graph, training=True)
    ]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """A machine that counts how often it is measured, and an empty cache."""
    calls: list[int] = []

    def measure(target: Any, threads: int) -> tuple[Machine, bool]:
        calls.append(threads)
        return Machine(target.cpu, target.name, threads, 100.0, 10.0, 50.0), len(calls) > 1

    monkeypatch.setenv("LANEWISE_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "measure_machine", measure)
    return calls


def test_a_machine_is_measured_until_it_was_quiet(measured: list[int], tmp_path: Path) -> None:
    machines = [this_machine(1) for _ in range(4)]
    assert len(set(machines)) == 1
    assert measured == [1, 1]
    file = tmp_path / "machine.json"
    (rates,) = json.loads(file.read_text("utf-8")).values()
    assert rates == {"gflops": 100.0, "memory_rate": 10.0, "cache_rate": 50.0}
    assert this_machine(2).threads == 2
    file.write_text("no JSON", "utf-8")
    assert this_machine(1) == machines[0]


@pytest.mark.usefixtures("measured")
def test_on_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(("size", "lenet5", "--time")) == 0
    shown = capsys.readouterr().out
    assert "lenet5: one training step, batch 128" in shown
    assert "Add --measure" in shown
    assert cli.main(("size", TEXT, "--time", "--json", "--batch", "32")) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["batch"], document["step"]["measured_ms"]) == (32, None)
    assert document["layers"][1]["kinds"] == ["conv"]
    assert cli.main(("size", "lenet5", "--time", "--markdown")) == 2


@pytest.mark.usefixtures("measured")
def test_measured_beside_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        "input 3x8x8; a_name_that_leaves_little_room: convtranspose 4 k3; relu; flatten; linear 5"
    )
    assert cli.main(("size", text, "--measure", "--batch", "16")) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.split("\n"))) <= 80
    assert "images/s measured" in shown
    assert shown.count("measured") == 3


def test_this_machine_has_rates() -> None:
    machine, _ = module.measure_machine(module.find_target(), 1)
    assert machine.gflops > 1
    assert 0.1 < machine.memory_rate < machine.gflops
    assert machine.cache_rate > 0.1
