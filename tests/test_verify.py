"""`lanewise verify`: table, document, exit codes. The comparison itself is a given one here."""

from __future__ import annotations

import json
from typing import Any

import pytest

import lanewise.bridge
import lanewise.bridge.oracle
from lanewise.bridge.verdict import Comparison, Row
from lanewise.cli.main import main
from lanewise.net.graph import Graph

GOOD, BAD = Row("logits", 1e-7, 2e-6), Row("conv1.weight.grad", 0.5, 3e-5)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The choices that reach the oracle; `rows` is what it answers."""
    asked: dict[str, Any] = {"rows": (GOOD,)}

    def compare(graph: Graph, **choices: Any) -> Comparison:
        asked.update(choices)
        batch, seed, target = choices["batch"], choices["seed"], choices["target"]
        return Comparison(graph, batch, seed, target, asked["rows"])

    monkeypatch.setattr(lanewise.bridge.oracle, "compare", compare)
    monkeypatch.setattr("lanewise.cli.verify.require_torch", lambda: None)
    return asked


def test_agreement(asked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "lenet5"]) == 0
    out = capsys.readouterr().out
    assert "logits  1.0e-07    2.0e-06  ok\n\n1 of 1 tensors agree with PyTorch (batch 17, s" in out
    assert (asked["batch"], asked["seed"], asked["target"]) == (17, 0, "host")


def test_disagreement(asked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    asked["rows"] = (GOOD, BAD)
    assert main(["verify", "lenet5", "--batch", "3", "--seed", "8"]) == 1
    assert (
        "1 of 2 tensors agree with PyTorch (batch 3, seed 8, host); not conv1.weight.grad"
        in capsys.readouterr().out
    )
    assert main(["verify", "lenet5", "--quiet"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "1 of 2 tensors agree with PyTorch (batch 17, seed 0, host); not conv1" in printed.err


def test_document(asked: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    asked["rows"] = (GOOD, BAD)
    assert main(["verify", "lenet5", "--json"]) == 1
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["ok"] is False
    assert document["tensors"][1] == {
        "name": "conv1.weight.grad",
        "error": 0.5,
        "tolerance": 3e-5,
    }
    assert printed.err == ""


def test_the_engine_itself(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch", reason="the oracle needs PyTorch (extra `torch`)")
    net = "input 1x6x5; conv 3 k3; relu; flatten; linear 4"
    assert main(["verify", net, "--json", "--batch", "5", "--pixels"]) == 0
    document = json.loads(capsys.readouterr().out)
    names = [row["name"] for row in document["tensors"]]
    assert names[:3] == ["logits", "loss", "input.grad"] and "linear1.bias.grad" in names
    assert all(row["error"] <= row["tolerance"] < 1e-3 for row in document["tensors"])


def test_large_networks_get_few_images(asked: dict[str, Any]) -> None:
    assert main(["verify", "vgg16", "--quiet"]) == 0
    assert asked["batch"] == 2


def test_without_torch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["verify", "lenet5"]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "pip install 'lanewise[torch]'" in printed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonet"], "neither a network"),
        (["lenet5", "--batch", "0"], "use a whole number from 1"),
        (["lenet5", "--seed", "-1"], "--seed"),
        (["input 1x2x2; conv 1 k9"], "no output position"),
    ],
)
def test_bad_input(
    arguments: list[str], message: str, asked: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", *arguments]) == 2
    assert message in capsys.readouterr().err
