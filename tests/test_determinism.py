"""The same bits: twice with one seed, on any number of threads, compiled anew or from the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lanewise.native import Program, compile_net
from lanewise.native.optimizers import SGD, AdamW
from lanewise.net.parse import parse

NET = parse(
    "input 1x13x12; conv 7 k3 pad1; relu; maxpool 2; dropout 0.2; conv 18 k3; relu; avgpool 2;"
    "flatten; linear 30; tanh; dropout 0.5; linear 10"
)
IMAGES, BATCH = 300, 56


def train(seed: int = 1, threads: int = 1, **choices: Any) -> dict[str, np.ndarray]:
    """Two short epochs, the last batch of each incomplete; everything that came of them."""
    with compile_net(NET, training=True, threads=threads, **choices) as program:
        program.initialise(seed)
        return epochs(program, seed)


def epochs(program: Program, seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    images = random.integers(256, size=(IMAGES, 1, 13, 12), dtype=np.uint8)
    labels = random.integers(10, size=IMAGES)
    results: dict[str, np.ndarray] = {}
    for epoch in range(2):
        order = random.permutation(IMAGES)
        rates = np.full(-(-IMAGES // BATCH), 0.05, "f4")
        steps = program.run_steps(images, labels, order, BATCH, rates, seed=seed)
        results |= {f"losses {epoch}": steps.losses, f"corrects {epoch}": steps.corrects}
    results["logits"] = program.forward(images)
    results |= {f"gradient {name}": array for name, array in program.gradients.items()}
    return results | dict(program.parameters) | dict(program.optimizer_state)


def assert_same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert values.tobytes() == other[name].tobytes(), name


@pytest.fixture(scope="module")
def once() -> dict[str, np.ndarray]:
    return train()


def test_twice_with_one_seed(once: dict[str, np.ndarray]) -> None:
    assert np.isfinite(once["losses 1"]).all()
    assert_same_bits(train(), once)


def test_another_seed_gives_other_bits(once: dict[str, np.ndarray]) -> None:
    assert train(seed=2)["conv1.weight"].tobytes() != once["conv1.weight"].tobytes()


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_any_number_of_threads(once: dict[str, np.ndarray], threads: int) -> None:
    assert_same_bits(train(threads=threads), once)


def test_one_program_used_again(once: dict[str, np.ndarray]) -> None:
    with compile_net(NET, training=True, threads=2) as program:
        program.initialise(5)
        epochs(program, 5)
        program.initialise(1)
        assert_same_bits(epochs(program, 1), once)


def test_fresh_and_cached_code(
    once: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANEWISE_CACHE", str(tmp_path))
    for expected in (False, True):
        with compile_net(NET, training=True, threads=2) as program:
            assert program.from_cache is expected
            program.initialise(1)
            assert_same_bits(epochs(program, 1), once)


@pytest.mark.parametrize("optimizer", [SGD(), AdamW()], ids=["sgd", "adamw"])
def test_one_call_or_many(optimizer: SGD | AdamW) -> None:
    """Five steps in one native call, and the same five in five calls."""
    random = np.random.default_rng(0)
    images = random.integers(256, size=(50, 1, 13, 12), dtype=np.uint8)
    labels, order = random.integers(10, size=50), random.permutation(50)
    rates = np.linspace(0.1, 0.02, 5).astype("f4")
    with compile_net(NET, training=True, optimizer=optimizer, threads=2) as program:
        program.initialise(4)
        program.run_steps(images, labels, order, 10, rates)
        together = {name: array.copy() for name, array in program.parameters.items()}
        program.initialise(4)
        for i in range(5):
            part = order[10 * i : 10 * i + 10]
            program.run_steps(images, labels, part, 10, rates[i : i + 1])
        assert_same_bits(program.parameters, together)


def test_an_image_is_predicted_alike_in_any_company() -> None:
    random = np.random.default_rng(2)
    images = random.standard_normal((70, 1, 13, 12), dtype=np.float32)
    with compile_net(NET, threads=2) as program:
        program.initialise(0)
        together = program.forward(images)
        for i in (0, 15, 16, 37, 69):
            assert program.forward(images[i : i + 1]).tobytes() == together[i].tobytes()
        assert program.forward(images[::-1]).tobytes() == together[::-1].tobytes()
