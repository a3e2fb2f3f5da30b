"""A profiled program at work on random images: rounds, the machine's peak between them, clocks.

A round is a tenth of a second of training steps or of predictions, as many as fit. Of all rounds
the one with the median time is told.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lanewise.native.latency.program import ImageProgram
from lanewise.native.peak import Peak, PeakMeter, ticks_per_second
from lanewise.native.program import Program

ROUNDS = 9
ROUND_SECONDS = 0.12
LONGEST_SECONDS = 5.0  # no new round after this, where a single step takes long
POOL_BYTES = 16 << 20  # random images that the batches are drawn from: about this, or one batch


class Runs(Protocol):
    """Something that a program does again and again."""

    def seconds(self, times: int) -> float:
        """How long it takes so many times."""


@dataclass(frozen=True)
class Rounds:
    """What was measured: seconds of one step in each round, and the median round's clock."""

    step_seconds: tuple[float, ...]
    median_seconds: float
    spent_ms: dict[str, float]  # purpose of the kernels → milliseconds per step
    peak: Peak
    threads: int  # that had something to do


def measure(program: Program, batch: int) -> Rounds:
    """Train on, or predict, so many images at a time for some rounds."""
    program.initialise(0)
    training = program.facts.training
    threads = program.threads if training else program.threads_for(batch)
    meter = PeakMeter(program.target, threads)
    runs: Runs = Training(program, batch) if training else Inference(program, batch)
    runs.seconds(1)
    times = max(1, round(ROUND_SECONDS / runs.seconds(1)))
    rounds: list[tuple[float, Counter[str]]] = []
    meter.measure()
    begin = time.perf_counter()
    while len(rounds) < ROUNDS:
        if rounds and time.perf_counter() - begin > LONGEST_SECONDS:
            break
        program.profile()
        rounds.append((runs.seconds(times) / times, _ticks(program)))
        meter.measure()
    rounds.sort(key=lambda one: one[0])
    middle, ticks = rounds[(len(rounds) - 1) // 2]
    # The threads of one image meet after every step; only the first tells how long it took.
    clocks = 1 if isinstance(program, ImageProgram) else threads
    per_ms = ticks_per_second(program.target) / 1e3 * clocks * times
    spent = {purpose: count / per_ms for purpose, count in ticks.items()}
    return Rounds(tuple(seconds for seconds, _ in rounds), middle, spent, meter.peak, threads)


def _images(program: Program, batch: int) -> np.ndarray:
    """Random ones, as many as are several whole batches."""
    count = max(batch, POOL_BYTES // int(np.prod(program.input_shape)) // batch * batch)
    shape = (count, *program.input_shape)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


class Training:
    """Random images and labels, and steps on them."""

    def __init__(self, program: Program, batch: int) -> None:
        self._images = _images(program, batch)
        classes = int(np.prod(program.output_shape))
        labels = np.random.default_rng(1).integers(0, classes, len(self._images))
        self._labels = labels.astype(np.int32)
        self._program, self._batch = program, batch

    def seconds(self, times: int) -> float:
        """How long so many steps take, in one native call."""
        order = np.arange(times * self._batch, dtype=np.int64) % len(self._images)
        rates = np.full(times, 1e-4, np.float32)
        begin = time.perf_counter()
        self._program.run_steps(self._images, self._labels, order, self._batch, rates)
        return time.perf_counter() - begin


class Inference:
    """Random images, and predictions of them."""

    def __init__(self, program: Program, batch: int) -> None:
        images = _images(program, batch)
        self._batches = np.split(images, len(images) // batch)
        self._forward = program.forward

    def seconds(self, times: int) -> float:
        """How long so many calls from Python take."""
        batches, count, forward = self._batches, len(self._batches), self._forward
        begin = time.perf_counter()
        for number in range(times):
            forward(batches[number % count])
        return time.perf_counter() - begin


def _ticks(program: Program) -> Counter[str]:
    """Clock ticks by purpose: of training where it is compiled, else of inference."""
    total: Counter[str] = Counter()
    directions = program.profile()
    for direction in ("train", "jobs") if program.facts.training else ("forward",):
        for purpose, count in directions[direction]:
            total[purpose] += count
    return total
