"""One network, ours and the others': first they must agree, then they take turns.

`step.py` and `networks.py` are made of this. Everybody uses the same number of threads, the same
weights and images, and SGD with Nesterov momentum. Ours begins with uint8 images in random order in
memory and ends with updated weights; the others are given finished float32 batches. What is
compared after the first step is the loss and what the step changed, the weights as one vector and
the running statistics as one: how long the difference is, relative to the vector.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path

import numpy as np

import lanewise
from agreement import agree
from lanewise.errors import EngineError
from lanewise.native import Program, compile_net
from lanewise.native.optimizers import SGD
from lanewise.native.peak import Peak, PeakMeter
from lanewise.net.graph import Graph
from lanewise.net.layers import DepthwiseConv
from lanewise.size.report import size
from measure import Contender, Timing, interleave, timing_json
from peers.work import Kind, Work
from rivals import (
    EXACT,
    FIRST_RATE,
    MOMENTUM,
    ROUGH,
    SETTINGS,
    Arrays,
    Rival,
    Setting,
    Skipped,
    Task,
    step_outcome,
)
from runtimes import onnx_runtime, openvino, small
from served import PATIENCE, Guests, Peer, guests
from torch_rivals import torch_inference, torch_training

PACKAGES = ("torch", "onnxruntime", "openvino")
BATCHES = 16
RATE = 1e-3  # small, so that nobody's weights run away from the others' in thousands of steps
MEAN, STD = 0.5, 0.25
# Keras keeps the variance of the batch itself, others that of what it was drawn from: they differ
# by one part in as many as pixels were seen. Transformed convolutions round a little more.
GUESTS = {**EXACT, "statistics": 2e-3}
TRANSFORMED = {**GUESTS, "logits": 1e-3}


@dataclass(frozen=True)
class Terms:
    """How everybody is measured."""

    batch: int = 128  # images of a training step
    images: int = 256  # of an inference
    threads: int = 1
    rounds: int = 15
    turn: float = 0.12  # seconds
    settings: Sequence[Setting] = SETTINGS  # of PyTorch
    compile_seconds: float = 0.0  # at most, for each of them; 0: any time
    most_seconds: float = inf  # of everybody in all rounds, see `interleave`
    peers: Sequence[Peer] = ()  # those in processes of their own
    python: str = sys.executable  # whose packages they use
    patience: float = PATIENCE  # seconds that they may take to build and to compile
    slow_up_to: float = inf  # multiply–adds of a step, beyond which slow ones are not tried
    exact: bool = False  # ours without Winograd's algorithm
    bfloat16: bool = False  # ours in bf16 too
    longest: float = inf  # seconds of one repetition, beyond which they are told but take no turns


@dataclass(frozen=True)
class Training:
    """Everybody's training step."""

    batch: int
    timings: list[Timing]
    multiply_adds: int  # of one step
    peak: Peak

    @property
    def gflops(self) -> float:
        """Of our step, at the median."""
        return 2 * self.multiply_adds / ours(self.timings).median / 1e9

    @property
    def share(self) -> float:
        """Of the machine's peak."""
        return self.gflops / self.peak.best

    def line(self) -> str:
        """Rate and share of the peak."""
        return (
            f"{self.gflops:.0f} GFLOP/s, {100 * self.share:.0f} % of this machine's"
            f" peak ({self.peak.best:.0f} GFLOP/s, median {self.peak.median:.0f})"
        )

    def as_json(self) -> dict[str, object]:
        """For programs; the peak stands beside it."""
        return {
            "batch": self.batch,
            "contenders": timing_json(self.timings, self.batch),
            "ratios": ratios(self.timings),
            "gflops": round(self.gflops, 1),
            "share_of_peak": round(self.share, 4),
        }


class Contest:
    """The images, our program, and what is given to the others."""

    def __init__(self, graph: Graph, program: Program, terms: Terms, training: bool = True) -> None:
        self.graph, self.program, self.terms = graph, program, terms
        self.meter = PeakMeter(program.target, terms.threads)
        self.skipped: Skipped = []
        self.agreement: dict[str, float] = {}  # "contender: what" → relative difference
        self.versions: dict[str, str] = {}  # of those in processes of their own
        self.rough: Program | None = None  # ours in bf16
        count = max(terms.images, BATCHES * terms.batch * training)
        self.pixels, self.labels = _random_images(graph, count)
        self.floats = ((self.pixels / np.float32(255) - MEAN) / STD).astype(np.float32)
        _begin(program)
        self.weights = {name: value.copy() for name, value in program.learned.items()}

    def _task(self, *batches: slice) -> Task:
        pairs = [(self.floats[batch], self.labels[batch]) for batch in batches]
        terms = self.terms
        settings, seconds = terms.settings, terms.compile_seconds
        return Task(self.graph, self.weights, pairs, terms.threads, settings, seconds)

    def _time(self, contenders: Sequence[Contender]) -> list[Timing]:
        terms = self.terms
        measure = self.meter.measure
        return interleave(contenders, terms.rounds, terms.turn, measure, terms.most_seconds)

    def training(self) -> Training:
        """Everybody's training step, once the first ones agree."""
        batch = self.terms.batch
        task = self._task(*(slice(i * batch, (i + 1) * batch) for i in range(BATCHES)))
        first = _first_step(self.program, self.weights, self.pixels[:batch], self.labels[:batch])
        rivals = [*self._ours_in_bfloat16(), *torch_training(task, RATE, self.skipped)]
        self.agreement |= agree(first, rivals)
        with self._guests("training", task) as others:
            rivals += self._admitted(first, others)
            timings = self._time([self.alone("fp32"), *(one.contender for one in rivals)])
        return Training(batch, timings, batch * step_multiply_adds(self.graph), self.meter.peak)

    def alone(self, setting: str) -> Contender:
        """Our training step, to be beside another of ours."""
        return Contender("Lanewise", setting, self._steps(self.program), True)

    def _steps(self, program: Program) -> Callable[[int], None]:
        return _steps(program, self.pixels, self.labels, self.terms.batch)

    def _ours_in_bfloat16(self) -> list[Rival]:
        """It must agree with fp32 as everybody's bf16 must."""
        if self.rough is None:
            return []
        batch = slice(self.terms.batch)
        first = _first_step(self.rough, self.weights, self.pixels[batch], self.labels[batch])
        contender = Contender("Lanewise", "bf16", self._steps(self.rough))
        return [Rival(contender, lambda: first, ROUGH)]

    def inference(self) -> list[Timing]:
        """Everybody's logits of one batch, once they agree."""
        images = slice(0, self.terms.images)
        task = self._task(images)
        rivals = [
            *torch_inference(task, self.skipped),
            *onnx_runtime(task, self.skipped),
            *openvino(task, self.skipped),
        ]
        self.program.set_learned(self.weights)
        first = {"logits": self.program.forward(self.floats[images])}
        self.agreement |= agree(first, rivals)
        contenders = _forward(self.program, self.floats[images], self.pixels[images])
        with self._guests("inference", task) as others:
            rivals += self._admitted(first, others)
            return self._time([*contenders, *(one.contender for one in rivals)])

    @contextmanager
    def _guests(self, kind: Kind, task: Task) -> Iterator[Guests]:
        terms = self.terms
        peers = [one for one in terms.peers if one.kind == kind and self._worth_while(one)]
        slow = [one for one in peers if self._slow(one)]
        self.skipped += [f"{one}: not tried, it is slow" for one in slow]
        peers = [one for one in peers if one not in slow]
        model = task.model if any(one.model for one in peers) else b""
        batches, where = list(task.batches), Path()
        work = Work(kind, self.graph, self.weights, batches, terms.threads, FIRST_RATE, RATE,
                    MOMENTUM, where)  # fmt: skip
        with guests(work, peers, terms.python, terms.patience, model) as found:
            self.skipped += found.skipped
            self.versions |= found.versions
            yield found

    def _slow(self, peer: Peer) -> bool:
        """Whether a quick look does not wait for it. XLA's gradients of depthwise convolutions take
        seconds: a step of the small MobileNetV2 5.9 s on TensorFlow, 10.7 s on JAX."""
        if peer.slow_at_depthwise and self.terms.slow_up_to < inf:
            return any(isinstance(node.layer, DepthwiseConv) for node in self.graph.nodes)
        much = self.terms.batch * step_multiply_adds(self.graph) > self.terms.slow_up_to
        return peer.slow and much

    def _worth_while(self, peer: Peer) -> bool:
        """Whether fewer threads than everybody's could be the best setting of so much work."""
        if peer.options.get("threads", self.terms.threads) == self.terms.threads:
            return "threads" not in peer.options
        return small(self.graph, self.terms.images)

    def _admitted(self, expected: Arrays, others: Guests) -> list[Rival]:
        """The guests who computed the same; the others are named."""
        admitted = []
        for contender, peer, outcome in others.contenders():
            values = outcome
            if peer.kind == "training":
                loss, learned = float(outcome["loss"]), {**outcome}
                del learned["loss"]
                statistics = {name: learned.pop(name) for name in self.program.buffers}
                values = step_outcome(loss, self.weights, learned, statistics)
            tolerances = TRANSFORMED if peer.winograd else GUESTS
            rival = Rival(contender, lambda values=values: values, tolerances)  # type: ignore[misc]
            try:
                self.agreement |= agree(expected, [rival])
            except SystemExit as refusal:
                self.skipped.append(str(refusal))
                continue
            seconds = self._one(contender)
            if seconds > self.terms.longest:
                self.skipped.append(f"{peer}: too slow for turns, one took {seconds:.1f} s")
            else:
                admitted.append(rival)
        return admitted

    def _one(self, contender: Contender) -> float:
        """Seconds of a repetition, as the contender tells them."""
        return float(contender.run(1))  # type: ignore[arg-type]


@contextmanager
def contest(graph: Graph, terms: Terms) -> Iterator[Contest]:
    """With our program compiled, and that in bf16 where it is asked for; their threads end with
    them."""
    optimizer = SGD(momentum=MOMENTUM, nesterov=True)
    compiled = partial(
        compile_net,
        graph,
        training=True,
        optimizer=optimizer,
        threads=terms.threads,
        exact=terms.exact,
    )
    with ExitStack() as stack:
        everybody = Contest(graph, stack.enter_context(compiled()), terms)
        if terms.bfloat16:
            try:
                everybody.rough = stack.enter_context(compiled(precision="bf16"))
                _begin(everybody.rough)
            except EngineError as error:
                everybody.skipped.append(f"Lanewise bf16: {error}")
        yield everybody


@contextmanager
def inference_contest(graph: Graph, terms: Terms) -> Iterator[Contest]:
    """With our program compiled for inference of so many images alone."""
    with lanewise.compile(graph, batch=terms.images, threads=terms.threads) as program:
        yield Contest(graph, program, terms, training=False)


# ---- ours ---------------------------------------------------------------------------------------


def _begin(program: Program) -> None:
    program.set_normalisation((MEAN,), (STD,))
    program.initialise(0)


def _random_images(graph: Graph, count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    report = size(graph)
    classes = int(np.prod(report.rows[-1].output))
    pixels = random.integers(0, 256, (count, *report.input), np.uint8)
    return pixels, random.integers(0, classes, count).astype(np.int32)


def _first_step(program: Program, before: Arrays, pixels: np.ndarray, labels: np.ndarray) -> Arrays:
    """What the first step on the first batch gave; then back to the start."""
    loss, _ = program.step(pixels, labels, lr=FIRST_RATE)
    outcome = step_outcome(loss, before, program.parameters, program.buffers)
    program.initialise(0)
    return outcome


def _steps(
    program: Program, pixels: np.ndarray, labels: np.ndarray, batch: int
) -> Callable[[int], None]:
    random = np.random.default_rng(1)

    def run(times: int) -> None:
        order = random.integers(0, len(pixels), times * batch)
        program.run_steps(pixels, labels, order, batch, np.full(times, RATE, np.float32))

    return run


def _forward(program: Program, floats: np.ndarray, pixels: np.ndarray) -> list[Contender]:
    def runner(images: np.ndarray) -> Callable[[int], None]:
        def run(times: int) -> None:
            for _ in range(times):
                program.forward(images)

        return run

    return [
        Contender("Lanewise", "fp32", runner(floats), True),
        Contender("Lanewise", "fp32, from uint8", runner(pixels)),
    ]


def step_multiply_adds(graph: Graph) -> int:
    """Of one image: forward, gradient of the weights, and of the input but for the first layer."""
    done = [row.macs - row.padded_macs for row in size(graph).rows if row.macs]
    return 3 * sum(done) - done[0]


# ---- ratios -------------------------------------------------------------------------------------


def verdicts(timings: Sequence[Timing]) -> list[str]:
    """How many times as fast as the best of each group."""
    return [f"{ratio:.2f} × as fast as {what}" for what, ratio in ratios(timings).items()]


def ratios(timings: Sequence[Timing]) -> dict[str, float]:
    """Group of rivals → the best one's median over ours."""
    us = ours(timings)
    others = [one for one in timings if one.contender.name != us.contender.name]
    groups = {
        "PyTorch's best fp32": [one for one in others if _is_torch(one) and not _is_bf16(one)],
        "PyTorch's best of all": [one for one in others if _is_torch(one)],
        **{
            name: [one for one in others if one.contender.name == name]
            for name in dict.fromkeys(one.contender.name for one in others)
            if name != "PyTorch"
        },
    }
    return {
        f"{name} ({best.contender.setting})": best.times(us)
        for name, group in groups.items()
        if group and (best := min(group, key=lambda one: one.median))
    }


def ours(timings: Sequence[Timing]) -> Timing:
    """The first of ours."""
    return next(one for one in timings if one.contender.ours)


def _is_torch(timing: Timing) -> bool:
    return timing.contender.name == "PyTorch"


def _is_bf16(timing: Timing) -> bool:
    return "bf16" in timing.contender.setting
