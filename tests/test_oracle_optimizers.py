"""Updates against torch.optim, single steps and whole trajectories; label smoothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lanewise.native import compile_net
from lanewise.native.optimizers import SGD, AdamW
from lanewise.net.parse import parse

pytest.importorskip("torch", reason="the oracle needs PyTorch (extra `torch`)")

import torch

from lanewise.bridge.oracle import Trial, draw, judge
from lanewise.bridge.torch_module import copy_weights, to_torch
from lanewise.bridge.updates import TWINS, judge_updates

NET = parse("input 2x8x7; conv 5 k3; relu; maxpool 2; conv 9 k2 nobias; tanh; flatten; linear 6")
OPTIMIZERS = {
    "plain sgd": SGD(momentum=0.0, nesterov=False),
    "sgd, decay": SGD(momentum=0.0, nesterov=False, weight_decay=0.05),
    "sgd, momentum": SGD(momentum=0.9, nesterov=False),
    "sgd, nesterov": SGD(momentum=0.8, nesterov=True),
    "sgd, everything": SGD(momentum=0.9, nesterov=True, weight_decay=0.02),
    "adamw": AdamW(),
    "adamw, everything": AdamW(betas=(0.7, 0.95), eps=1e-5, weight_decay=0.1),
    "adamw, no decay": AdamW(weight_decay=0.0),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_step_is_torchs(name: str) -> None:
    optimizer = OPTIMIZERS[name]
    with compile_net(NET, training=True, optimizer=optimizer) as program:
        program.initialise(3)
        rows = judge_updates(program, optimizer, *draw(NET, Trial(19, 3), 0), steps=6)
    assert [row for row in rows if not row.ok] == []
    states = {row.name for row in rows}
    assert "conv1.weight.step" in states and "linear1.bias.step" in states


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_label_smoothing(smoothing: float) -> None:
    with compile_net(NET, training=True, input_gradient=True) as program:
        for batch in (1, 18):
            rows = judge(program, NET, Trial(batch, seed=7, label_smoothing=smoothing))
            assert [row for row in rows if not row.ok] == []


@pytest.mark.parametrize("name", ["sgd, everything", "adamw, everything"])
@pytest.mark.parametrize("pixels", [False, True], ids=["floats", "pixels"])
def test_many_steps_in_one_call_follow_torch(name: str, pixels: bool) -> None:
    """Eleven batches of a shuffled epoch, the last one short, each with its own learning rate."""
    optimizer, trial = OPTIMIZERS[name], Trial(87, pixels=pixels)
    images, labels = draw(NET, trial, 0)
    order = np.random.default_rng(1).permutation(87)
    rates = np.linspace(0.02, 0.002, 11).astype("f4")
    with compile_net(NET, training=True, optimizer=optimizer) as program:
        program.initialise(1)
        program.set_normalisation((0.4, 0.6), (0.3, 0.2))
        start = {key: array.copy() for key, array in program.parameters.items()}
        steps = program.run_steps(images, labels, order, 8, rates, smoothing=0.05)
        end = {key: array.copy() for key, array in program.parameters.items()}
    losses, corrects, wanted = torch_epoch(optimizer, start, trial, order, rates)
    np.testing.assert_allclose(steps.losses, losses, rtol=2e-5)
    assert steps.corrects.tolist() == corrects
    for key, array in wanted.items():
        moved = np.abs(array - start[key]).max()
        assert np.abs(end[key] - array).max() < 1e-3 * moved, key


def torch_epoch(
    optimizer: SGD | AdamW, start: dict, trial: Trial, order: np.ndarray, rates: np.ndarray
) -> tuple[list[float], list[int], dict[str, Any]]:
    """The same training in float64: losses, numbers of correct images, final parameters."""
    images, labels = draw(NET, trial, 0)
    x = images.astype("f8")
    if trial.pixels:
        mean, std = (np.array(row)[:, None, None] for row in ((0.4, 0.6), (0.3, 0.2)))
        x = (x / 255 - mean) / std
    x, y = torch.from_numpy(x), torch.from_numpy(labels)
    model = to_torch(NET).double()
    copy_weights(start, model)
    stepper = TWINS[type(optimizer)][0](optimizer, list(model.parameters()), 1.0)
    losses, corrects = [], []
    for rate, chosen in zip(rates, np.split(order, range(8, 87, 8)), strict=True):
        stepper.param_groups[0]["lr"] = float(rate)
        stepper.zero_grad()
        logits = model(x[chosen])
        loss = torch.nn.functional.cross_entropy(logits, y[chosen], label_smoothing=0.05)
        loss.backward()
        stepper.step()
        losses.append(loss.item())
        corrects.append(int((logits.argmax(1) == y[chosen]).sum()))
    return losses, corrects, {key: value.numpy() for key, value in model.state_dict().items()}
