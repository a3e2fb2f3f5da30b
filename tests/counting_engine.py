"""A stand-in for the engine: one number of state that depends on everything a step is given.

If the loop ever shows it another image, order, learning rate, seed or batch than before, the number
changes; so the loop's bookkeeping is tested without compiling anything.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np


class CountingEngine:
    """A Program whose weight is a running checksum. `loss(step)` gives the loss of a step."""

    threads, compile_seconds, from_cache = 1, 0.0, True
    target = SimpleNamespace(name="none", cpu="none")

    def __init__(self, classes: int = 3, loss: Callable[[int], float] = lambda step: 1.0) -> None:
        self.classes, self._loss = classes, loss
        self.parameters = {"linear1.weight": np.zeros(2, np.float32)}
        self.learned = self.parameters
        self.optimizer_state = {"linear1.weight.momentum": np.zeros(2, np.float32)}
        self.steps_done = 0
        self.calls: list[int] = []

    def initialise(self, seed: int) -> None:
        self.parameters["linear1.weight"][:] = seed + 1
        self.optimizer_state["linear1.weight.momentum"][:] = 0
        self.steps_done = 0

    def set_normalisation(self, mean: object, std: object) -> None:
        self.normalisation = (mean, std)

    def run_steps(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        order: np.ndarray,
        batch: int,
        learning_rates: np.ndarray,
        *,
        seed: int = 0,
        smoothing: float = 0.0,
    ) -> SimpleNamespace:
        steps = len(learning_rates)
        assert steps == -(-len(order) // batch)
        self.calls.append(steps)
        losses, corrects = np.empty(steps), np.empty(steps, np.int64)
        for step in range(steps):
            rows = order[step * batch : (step + 1) * batch]
            losses[step] = self._loss(self.steps_done)
            corrects[step] = len(rows) // 2
            self._mix(images[rows], labels[rows], learning_rates[step], seed, smoothing)
        return SimpleNamespace(losses=losses, corrects=corrects)

    def _mix(self, *values: object) -> None:
        weight = self.parameters["linear1.weight"]
        momentum = self.optimizer_state["linear1.weight.momentum"]
        told = b"".join(np.asarray(value).tobytes() for value in (*values, self.steps_done))
        code = zlib.crc32(told + weight.tobytes() + momentum.tobytes())
        weight[:] = code % 65_521, code % 4_093
        momentum[:] = code % 251
        self.steps_done += 1

    def forward(self, images: np.ndarray) -> np.ndarray:
        logits = np.zeros((len(images), self.classes), np.float32)
        logits[:, int(self.parameters["linear1.weight"][0]) % self.classes] = 1
        return logits

    def close(self) -> None:
        self.closed = True
