"""Each family of the zoo, built small: the same values as PyTorch, it learns from photos, and it
stays within the memory that its plan promised."""

from __future__ import annotations

import numpy as np
import pytest

from families import SMALL, cifar_sample, fitted
from lanewise.native import Program, compile_net
from lanewise.native.optimizers import SGD
from lanewise.net.load import load

STEPS, RATE = 12, 0.01
#: a slow start where nothing normalises, or distances are squared
SLOW = {"alexnet": 1e-3, "alexnet-2012": 1e-3, "zfnet": 1e-3, "lenet5-1998": 1e-4}


@pytest.fixture(scope="session")
def photos() -> tuple[np.ndarray, np.ndarray]:
    return cifar_sample()


@pytest.mark.parametrize("family", SMALL)
def test_agrees_with_pytorch(family: str) -> None:
    """Values, loss, all gradients and running statistics; 17 images: a second slice of one."""
    pytest.importorskip("torch", reason="the oracle needs PyTorch (extra `torch`)")
    from lanewise.bridge.oracle import check

    check(load(SMALL[family]), batch=17)


@pytest.mark.parametrize("family", SMALL)
def test_learns_from_photos(family: str, photos: tuple[np.ndarray, np.ndarray]) -> None:
    """A few steps on CIFAR-10 photos: the loss falls, and the memory is what was planned."""
    images, labels = photos
    graph = load(SMALL[family])
    # Compiled as the oracle compiles it, so that it comes from the cache.
    with compile_net(graph, training=True, optimizer=SGD(0.9), input_gradient=True) as program:
        program.initialise(1)
        program.set_normalisation((0.47,), (0.25,))
        images = fitted(images, program.input_shape)
        rate = SLOW.get(family, RATE)
        losses = [program.step(images, labels, lr=rate, seed=1)[0] for _ in range(STEPS)]
        _paint(program)
        losses.append(program.step(images, labels, lr=rate, seed=1)[0])
        assert np.isfinite(program.forward(images)).all()
        _check_memory(program)
        assert np.isfinite(losses).all()
        assert np.mean(losses[-3:]) < np.mean(losses[:3])


PAINT = 0xA5


def _paint(program: Program) -> None:
    """Every byte that a step may use, and those around, gets a colour."""
    program._arena[:] = PAINT
    program._kept[:] = PAINT


def _check_memory(program: Program) -> None:
    """What was painted over: all that was promised is used, and nothing beyond it."""
    arenas = program._arena.reshape(program.threads, -1)
    used = max(_last(arena) for arena in arenas)
    assert 0.8 * program.facts.arena_bytes < used <= program.facts.arena_bytes
    promised = program.facts.kept_bytes * program._capacity
    assert 0.8 * promised < _last(program._kept) <= promised


def _last(painted: np.ndarray) -> int:
    """How many bytes up to the last that lost its colour."""
    changed = np.flatnonzero(painted != PAINT)
    return int(changed[-1]) + 1 if len(changed) else 0
