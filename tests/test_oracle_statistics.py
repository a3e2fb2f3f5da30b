"""Batch normalisation against PyTorch: running statistics, whole trainings, ghosts, threads."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from lanewise.errors import DataError
from lanewise.native import Program, compile_net
from lanewise.native.optimizers import SGD, AdamW, Optimizer
from lanewise.net.parse import parse

pytest.importorskip("torch", reason="the oracle needs PyTorch (extra `torch`)")

import torch

from lanewise.bridge.oracle import Trial, draw, judge
from lanewise.bridge.torch_module import copy_weights, to_torch
from lanewise.bridge.updates import TWINS, judge_updates

NET = parse(
    "input 2x7x6; conv 5 k3 pad1 nobias; bn; relu; residual { conv 5 k3 pad1 nobias; bn; relu;"
    "depthwise k3 pad1 nobias; bn momentum 0.3 }; relu; concat { maxpool 2 } { avgpool 2; bn };"
    "conv 6 k2; layernorm; relu; flatten; bn noaffine; linear 4"
)
# Without kinks, where rounding would send float32 another way than float64.
SMOOTH = parse(
    "input 2x7x6; conv 5 k3 pad1; bn; silu; residual { depthwise k3 pad1 nobias; bn momentum 0.3;"
    "tanh; conv 5 k1; bn }; avgpool 2; conv 6 k2; bn; flatten; gelu; linear 4"
)
GHOSTS = parse("input 2x5x5; conv 6 k3; bn ghost 16; relu; conv 4 k2; bn ghost 16; flatten")


def program_of(net: object = NET, **options: object) -> closing[Program]:
    return closing(compile_net(net, training=True, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("pixels", [False, True], ids=["floats", "pixels"])
@pytest.mark.parametrize("threads", [1, 2])
def test_every_batch_size(threads: int, pixels: bool) -> None:
    with program_of(input_gradient=True, threads=threads) as program:
        for batch in (5, 16, 17, 33, 130):
            rows = judge(program, NET, Trial(batch, seed=batch, pixels=pixels))
            assert {"bn1.running_mean", "bn5.running_var"} <= {row.name for row in rows}
            assert [row for row in rows if not row.ok] == []


@pytest.mark.parametrize("optimizer", [SGD(weight_decay=0.01), AdamW()], ids=["sgd", "adamw"])
def test_steps_of_an_optimizer(optimizer: Optimizer) -> None:
    with program_of(optimizer=optimizer) as program:
        program.initialise(1)
        rows = judge_updates(program, optimizer, *draw(NET, Trial(19), 0))
        assert [row for row in rows if not row.ok] == []
        names = {row.name for row in rows}
        assert {"bn1.weight.step", "bn1.running_mean.step", "layernorm1.bias.step"} <= names


def test_only_steps_move_the_running_statistics() -> None:
    images, labels = draw(NET, Trial(20), 0)
    with program_of() as program:
        program.initialise(3)
        assert program.buffers["bn2.running_var"].tolist() == [1] * 5
        before = {name: array.copy() for name, array in program.buffers.items()}
        program.forward(images)
        program.gradients_only(images, labels)
        assert all(np.array_equal(program.buffers[name], before[name]) for name in before)
        program.step(images, labels, lr=0.0)
        assert not any(np.array_equal(program.buffers[name], before[name]) for name in before)


def test_a_whole_epoch_follows_torch() -> None:
    """Nine batches of ten images and one of six, in one native call; then inference."""
    images, labels = draw(SMOOTH, Trial(96), 0)
    order, rates = np.random.default_rng(1).permutation(96), np.linspace(0.05, 0.005, 10)
    with program_of(SMOOTH, optimizer=SGD()) as program:
        program.initialise(1)
        model = to_torch(SMOOTH)
        copy_weights(program, model)
        steps = program.run_steps(images, labels, order, 10, rates.astype("f4"))
        logits = program.forward(images)
        learned = {**program.parameters, **program.buffers}
        losses = torch_epoch(model.double(), images, labels, order, rates)
        np.testing.assert_allclose(steps.losses, losses, rtol=1e-5)
        for name, wanted in model.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                np.testing.assert_allclose(learned[name], wanted, atol=1e-5, err_msg=name)
        wanted = model.eval()(torch.from_numpy(images).double()).detach().numpy()
        np.testing.assert_allclose(logits, wanted, atol=1e-5)


def torch_epoch(
    model: torch.nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    order: np.ndarray,
    rates: np.ndarray,
) -> list[float]:
    """The losses of the same training in float64."""
    stepper = TWINS[SGD][0](SGD(), list(model.train().parameters()), 1.0)
    x, y = torch.from_numpy(images).double(), torch.from_numpy(labels)
    losses = []
    for rate, chosen in zip(rates, np.split(order, range(10, 96, 10)), strict=True):
        stepper.param_groups[0]["lr"] = float(rate)
        stepper.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x[chosen]), y[chosen])
        loss.backward()
        stepper.step()
        losses.append(loss.item())
    return losses


def test_the_same_bits_on_one_and_two_threads() -> None:
    images, labels = draw(NET, Trial(70), 0)

    def trained(threads: int) -> dict[str, bytes]:
        with program_of(optimizer=AdamW(), threads=threads) as program:
            program.initialise(2)
            for _ in range(3):
                program.step(images, labels, lr=0.01)
            arrays = {**program.parameters, **program.buffers}
            return {name: array.tobytes() for name, array in arrays.items()}

    assert trained(1) == trained(2)


def test_ghosts_are_groups_of_sixteen() -> None:
    """Each slice has statistics of its own: images of the second do not change the first."""
    with program_of(GHOSTS, input_gradient=True) as program:
        for batch in (16, 40):
            rows = judge(program, GHOSTS, Trial(batch, seed=batch))
            assert [row for row in rows if not row.ok] == []
        images, labels = draw(GHOSTS, Trial(32), 0)
        program.gradients_only(images, labels)
        before = program.input_gradient[:16].copy()
        images[16:] *= 3
        program.gradients_only(images, labels)
        assert np.array_equal(program.input_gradient[:16], before)


def test_a_channel_that_is_constant() -> None:
    """Its variance is 0: what is left is the bias, and no gradient is infinite."""
    net = parse("input 2x3x3; conv 2 k2; bn; flatten; linear 3")
    with program_of(net, input_gradient=True) as program:
        program.initialise(0)
        program.parameters["conv1.weight"][0] = 0
        model = to_torch(net)
        copy_weights(program, model)
        images, labels = draw(net, Trial(19), 0)
        x = torch.from_numpy(images).requires_grad_()
        torch.nn.functional.cross_entropy(model(x), torch.from_numpy(labels)).backward()
        program.gradients_only(images, labels)
        assert np.abs(program.gradients["bn1.weight"][0]) < 1e-4
        np.testing.assert_allclose(program.input_gradient, x.grad, atol=1e-6)
        np.testing.assert_allclose(program.gradients["bn1.bias"], model.bn1.bias.grad, atol=1e-6)


@pytest.mark.parametrize("odd", [0.7, 1.9, 3.3])
def test_large_maps_of_one_odd_pixel(odd: float) -> None:
    """What a ReLU leaves of a channel may be a corner: no variance is below 0, and none is NaN."""
    net = parse("input 1x224x224; bn; globalmax; flatten; linear 2")
    images = np.zeros((2, 1, 224, 224), np.float32)
    images[:, :, 0, 0] = odd
    with program_of(net, threads=1) as program:
        program.initialise(0)
        loss, _ = program.step(images, np.zeros(2, np.int32))
        assert np.isfinite(loss)
        assert program.buffers["bn1.running_var"][0] >= np.float32(0.9)


def test_a_batch_too_small_for_its_statistics() -> None:
    net = parse("input 2x3x3; flatten; linear 4; bn; linear 3")
    with program_of(net) as program, pytest.raises(DataError, match=r"bn1.*single image"):
        program.step(*draw(net, Trial(1), 0))
