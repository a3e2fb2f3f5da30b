"""Kernels that move, gate and join channels, and radial basis functions, against PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from lanewise.native.kernels import channels, gating, radial
from native_kernel import aligned, execute, placed

torch = pytest.importorskip("torch", reason="the definitions are PyTorch's")
LANES = 16


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return placed(np.random.default_rng(seed).normal(size=shape))


# ---- channels -----------------------------------------------------------------------------------

MOVES = {
    "shuffle": (channels.shuffled(12, 3), 12),
    "shuffle of one group": (channels.shuffled(4, 1), 4),
    "shuffle of every channel": (channels.shuffled(4, 4), 4),
    "split": (channels.split(6, 2, 3), 6),
    "pad": (channels.padded(3, 2, 1), 3),
    "pad after": (channels.padded(3, 0, 4), 3),
}


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("pixels", [1, 4, 7])
def test_channels_are_moved(name: str, pixels: int) -> None:
    origins, sources = MOVES[name]
    x, y = normal(sources, pixels, LANES), aligned((len(origins), pixels, LANES))
    execute(channels.copy_channels("f", origins, sources, pixels), x, y)
    for target, origin in zip(y, origins, strict=True):
        assert (target == (0 if origin is None else x[origin])).all()
    dy, dx = normal(*y.shape, seed=1), aligned(x.shape)
    wanted = np.zeros(x.shape, np.float32)
    for gradient, origin in zip(dy, origins, strict=True):
        if origin is not None:
            wanted[origin] += gradient
    back = channels.backward(origins, sources)
    for mask in (False, True):
        kernel = channels.copy_channels("b", back, len(origins), pixels, mask=mask)
        execute(kernel, dy, *[x] * mask, dx)
        assert (dx == (wanted * (x > 0) if mask else wanted)).all()


@pytest.mark.parametrize("name", MOVES)
def test_channels_are_added(name: str) -> None:
    origins, sources = MOVES[name]
    x, before = normal(sources, 7, LANES), normal(len(origins), 7, LANES, seed=1)
    y = placed(before)
    execute(channels.add_channels("a", origins, sources, 7), x, y)
    for target, start, origin in zip(y, before, origins, strict=True):
        assert (target == (start if origin is None else start + x[origin])).all()


def test_shuffle_is_pytorchs() -> None:
    x = torch.arange(12.0).reshape(1, 12, 1, 1)
    for groups in (1, 2, 3, 4, 6, 12):
        wanted = torch.nn.ChannelShuffle(groups)(x).ravel().tolist()
        assert list(channels.shuffled(12, groups)) == wanted


# ---- products and sums of maps ------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["mul", "add"])
@pytest.mark.parametrize("pixels", [1, 4, 11])
@pytest.mark.parametrize("narrow", [(False, False), (False, True), (True, False), (0, 1, 0, 1)])
def test_join(operation: str, pixels: int, narrow: tuple) -> None:
    sizes = gating.Join(operation, 3, pixels, tuple(bool(n) and pixels > 1 for n in narrow))
    inputs = [
        normal(3, 1 if thin else pixels, LANES, seed=n) for n, thin in enumerate(sizes.narrow)
    ]
    exact = [torch.tensor(x.astype(float), requires_grad=True) for x in inputs]
    wanted = exact[0]
    for other in exact[1:]:
        wanted = wanted * other if operation == "mul" else wanted + other
    y, dy = aligned((3, pixels, LANES)), normal(3, pixels, LANES, seed=9)
    for relu in (True, False):
        execute(gating.join("f", sizes, relu=relu), *inputs, y)
        result = wanted.detach().numpy()
        np.testing.assert_allclose(y, np.maximum(result, 0) if relu else result, atol=1e-5)
    wanted.backward(torch.tensor(dy.astype(float)))
    for which, x in enumerate(inputs):
        others = [other for n, other in enumerate(inputs) if n != which] * (operation == "mul")
        for mask in (False, True):
            dx = aligned(x.shape)
            kernel = gating.join_gradient("b", sizes, which, mask=mask)
            execute(kernel, dy, *others, *[x] * mask, dx)
            result = exact[which].grad.numpy() * ((x > 0) if mask else 1)
            np.testing.assert_allclose(dx, result, rtol=1e-4, atol=1e-5)


# ---- radial basis functions ---------------------------------------------------------------------


@pytest.mark.parametrize(("outputs", "inputs", "maps"), [(10, 84, 24), (3, 5, 2), (1, 1, 4)])
def test_radial(outputs: int, inputs: int, maps: int) -> None:
    signs = np.random.default_rng(3).choice([-1.0, 1.0], (outputs, inputs))
    codes = tuple(tuple(line) for line in signs)
    x, y = normal(inputs, LANES), aligned((outputs, LANES))
    execute(radial.radial("f", codes, maps=maps), x, y)
    exact = torch.tensor(x.astype(float), requires_grad=True)
    wanted = -((exact[None] - torch.tensor(signs)[..., None]) ** 2).sum(1)
    np.testing.assert_allclose(y, wanted.detach(), rtol=1e-5)
    dy, dx = normal(outputs, LANES, seed=1), aligned(x.shape)
    wanted.backward(torch.tensor(dy.astype(float)))
    for mask in (False, True):
        execute(radial.radial_gradient("b", codes, maps=maps, mask=mask), dy, x, dx)
        result = exact.grad.numpy() * ((x > 0) if mask else 1)
        np.testing.assert_allclose(dx, result, rtol=1e-4, atol=1e-4)
