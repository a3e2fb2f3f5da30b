"""Whole networks against PyTorch: values, loss, all gradients, in training and in inference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lanewise.native import compile_net
from lanewise.native.optimizers import SGD, AdamW
from lanewise.net.load import load
from lanewise.net.parse import parse

pytest.importorskip("torch", reason="the oracle needs PyTorch (extra `torch`)")

import torch

from lanewise.bridge.oracle import check, compare
from lanewise.bridge.torch_module import copy_weights, to_torch

OVERLAPPING = """
input 3x23x21
conv 12 k3 pad1
relu
maxpool 3 stride2
conv 20 k3 pad1
relu
maxpool 3 stride2 ceil
conv 16 k 3x1 pad 1x0
relu
avgpool 3 stride2 pad1 ceil
flatten
linear 10
"""
SMOOTH = """
input 1x14x14
conv 5 k3
tanh
sumpool 2
conv 7 k3 stride2 pad same
sigmoid
conv 6 k2
leakyrelu 0.1
globalavg
flatten
linear 9
tanh
linear 4
"""
THIN = """
input 3x15x15
conv 8 k3 stride2 pad1
relu
conv 8 k3 pad1 groups8
relu
conv 16 k1
relu
conv 16 k3 stride2 pad1 groups16
relu
conv 24 k1
relu
globalavg
flatten
linear 7
"""
FORGETFUL = """
input 1x12x12
conv 8 k3
relu
dropout 0.25
maxpool 2
conv 12 k3
dropout 0.5
relu
flatten
linear 20
relu
dropout 0.5
linear 10
"""
NETS = {"overlapping": OVERLAPPING, "smooth": SMOOTH, "thin": THIN, "forgetful": FORGETFUL}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("batch", [1, 37])
def test_net(name: str, batch: int) -> None:
    check(parse(NETS[name], name), batch=batch, seed=batch)


@pytest.mark.parametrize(
    "choices",
    [
        {"batch": 128},
        {"batch": 1},
        {"batch": 19, "threads": 1},
        {"batch": 19, "target": "avx2"},
        {"batch": 16, "pixels": True},
        {"batch": 33, "label_smoothing": 0.1},
        {"batch": 21, "training": False},
        {"batch": 250, "training": False, "pixels": True},
    ],
    ids=str,
)
def test_lenet5(choices: dict[str, Any]) -> None:
    check(load("lenet5"), **choices)


@pytest.mark.parametrize("name", ["lenet5-32", "caffe-lenet"])
def test_other_lenets(name: str) -> None:
    check(load(name), batch=18)


def test_tiny_vgg() -> None:
    check(load("tiny-vgg"), batch=3)


@pytest.mark.parametrize("optimizer", [SGD(), AdamW()], ids=["sgd", "adamw"])
def test_dropout_differs_from_step_to_step(optimizer: SGD | AdamW) -> None:
    """Three steps in a row, each with its own masks; then inference, without any."""
    comparison = compare(parse(FORGETFUL), batch=20, optimizer=optimizer)
    assert comparison.ok, comparison.as_text()
    assert any(row.name == "conv1.weight.step" for row in comparison.rows)


def test_weights_go_from_the_engine_to_torch_and_back() -> None:
    graph = load("lenet5")
    images = np.random.default_rng(0).standard_normal((5, 1, 28, 28), dtype=np.float32)
    model = to_torch(graph)
    with compile_net(graph) as program:
        program.initialise(1)
        before = {name: array.copy() for name, array in program.parameters.items()}
        copy_weights(program, model)
        logits = model(torch.from_numpy(images)).detach().numpy()
        np.testing.assert_allclose(program.forward(images), logits, rtol=1e-4, atol=1e-5)
        program.initialise(2)
        copy_weights(model, program)
        assert all(np.array_equal(program.parameters[name], before[name]) for name in before)


def test_random_nets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "fuzz"))
    import nets

    failures = {}
    for seed in range(15):
        case = nets.random_case(seed)
        if reason := nets.failure(case, nets.ask_oracle):
            failures[case.command] = reason
    assert not failures, "\n\n".join(f"{case}\n{reason}" for case, reason in failures.items())
