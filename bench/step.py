"""A training step and batch inference beside PyTorch, ONNX Runtime and OpenVINO, in one run.

    python bench/step.py                     LeNet-5, batch 128; inference of 256 images
    python bench/step.py --net tiny-vgg --batch 64 --json

Claims: a LeNet-5 training step in fp32 is at least 5 times as fast as PyTorch's best fp32 setting
and 4 times as fast as its best of all; it reaches at least 55 % of the multiply–adds this machine
can do; batch inference is at least 2 times as fast as ONNX Runtime and OpenVINO.

Everybody uses the same number of threads, the same weights and images, and SGD with Nesterov
momentum. Ours begins with uint8 images in random order in memory and ends with updated weights;
the others are given finished float32 batches. Before anything is timed, the loss and the weights
after one step must agree, and so must the logits. The peak is measured in every round. The share of
the peak counts the multiply–adds that are done, not those on zero padding.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from lanewise.bridge import require_torch
from lanewise.errors import LanewiseError
from lanewise.native import Program, compile_net
from lanewise.native.optimizers import SGD
from lanewise.native.peak import Peak, PeakMeter
from lanewise.net.graph import Graph
from lanewise.net.layers import Conv, Linear
from lanewise.net.load import load as load_net
from lanewise.size.report import size
from measure import (
    Circumstances,
    Contender,
    Timing,
    circumstances,
    cores,
    interleave,
    labelled,
    load,
    timing_json,
    timing_table,
)
from rivals import (
    MOMENTUM,
    Rival,
    Skipped,
    Task,
    onnx_runtime,
    openvino,
    prepare_torch,
    torch_inference,
    torch_training,
)

PACKAGES = ("torch", "onnxruntime", "openvino")
BATCHES = 16
RATE = 1e-3  # small, so that nobody's weights run away from the others' in thousands of steps
MEAN, STD = 0.5, 0.25
TARGETS = (
    "5 × PyTorch's best fp32, 4 × its best of all, 55 % of the peak;"
    " inference 2 × ONNX Runtime and OpenVINO"
)


@dataclass(frozen=True)
class Result:
    """All that was measured."""

    net: str
    batch: int
    images: int
    threads: int
    training: list[Timing]
    inference: list[Timing]
    multiply_adds: int  # of one training step
    peak: Peak
    agreement: dict[str, float]  # contender → largest difference, relative to the largest value
    skipped: Skipped
    circumstances: Circumstances

    @property
    def gflops(self) -> float:
        """Of our training step, at the median."""
        return 2 * self.multiply_adds / _ours(self.training).median / 1e9


def main() -> int:
    """Measure and print."""
    args = _arguments()
    try:
        require_torch()
        result = measure(args)
    except LanewiseError as error:
        print(f"step.py: {error}", file=sys.stderr)
        return 2
    print(json.dumps(as_json(result), indent=2) if args.json else "\n".join(report(result)))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", default="lenet5", help="zoo name, .net file or text (lenet5)")
    parser.add_argument("--batch", type=int, default=128, help="images of a training step (128)")
    parser.add_argument("--images", type=int, default=256, help="images of an inference (256)")
    parser.add_argument("--threads", type=int, default=cores(), help="of everybody (all)")
    parser.add_argument("--rounds", type=int, default=15, help="turns of everybody (15)")
    parser.add_argument("--turn", type=float, default=0.12, help="seconds of a turn (0.12)")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    return parser.parse_args()


def measure(args: argparse.Namespace) -> Result:
    """Check everybody, then time training, then inference."""
    graph, before, skipped = load_net(args.net), load(), Skipped()
    prepare_torch(args.threads)
    optimizer = SGD(momentum=MOMENTUM, nesterov=True)
    with compile_net(graph, training=True, optimizer=optimizer, threads=args.threads) as program:
        bench = Bench(args, graph, program, PeakMeter(program.target, args.threads), skipped)
        training, agreed = bench.training()
        inference, agreed_too = bench.inference()
        return Result(
            net=args.net,
            batch=args.batch,
            images=args.images,
            threads=args.threads,
            training=training,
            inference=inference,
            multiply_adds=args.batch * _step_multiply_adds(graph),
            peak=bench.meter.peak,
            agreement=agreed | agreed_too,
            skipped=skipped,
            circumstances=circumstances(before, PACKAGES),
        )


class Bench:
    """The images, our program, and what is given to the others."""

    def __init__(
        self,
        args: argparse.Namespace,
        graph: Graph,
        program: Program,
        meter: PeakMeter,
        skipped: Skipped,
    ) -> None:
        self.args, self.program, self.meter, self.skipped = args, program, meter, skipped
        self.pixels, self.labels = _random_images(graph, max(args.images, BATCHES * args.batch))
        self.floats = ((self.pixels / np.float32(255) - MEAN) / STD).astype(np.float32)
        program.set_normalisation((MEAN,), (STD,))
        program.initialise(0)
        self.weights = {name: value.copy() for name, value in program.learned.items()}
        self._graph = graph

    def _task(self, *batches: slice) -> Task:
        pairs = [(self.floats[batch], self.labels[batch]) for batch in batches]
        return Task(self._graph, self.weights, pairs, self.args.threads, not self.args.no_compile)

    def _time(self, contenders: Sequence[Contender]) -> list[Timing]:
        return interleave(contenders, self.args.rounds, self.args.turn, self.meter.measure)

    def training(self) -> tuple[list[Timing], dict[str, float]]:
        """Everybody's training step, and how far their first ones differ."""
        batch = self.args.batch
        task = self._task(*(slice(i * batch, (i + 1) * batch) for i in range(BATCHES)))
        rivals = list(torch_training(task, RATE, self.skipped))
        agreed = _agree(_one_step(self.program, self.pixels, self.labels, batch), rivals)
        steps = _steps(self.program, self.pixels, self.labels, batch)
        ours = Contender("Lanewise", "fp32", steps, True)
        return self._time([ours, *(one.contender for one in rivals)]), agreed

    def inference(self) -> tuple[list[Timing], dict[str, float]]:
        """Everybody's logits of one batch, and how far they differ."""
        images = slice(0, self.args.images)
        task = self._task(images)
        rivals = [
            *torch_inference(task, self.skipped),
            *onnx_runtime(task, self.skipped),
            *openvino(task, self.skipped),
        ]
        self.program.set_learned(self.weights)
        agreed = _agree({"logits": self.program.forward(self.floats[images])}, rivals)
        ours = _forward(self.program, self.floats[images], self.pixels[images])
        return self._time([*ours, *(one.contender for one in rivals)]), agreed


# ---- ours ---------------------------------------------------------------------------------------


def _random_images(graph: Graph, count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    report = size(graph)
    classes = int(np.prod(report.rows[-1].output))
    pixels = random.integers(0, 256, (count, *report.input), np.uint8)
    return pixels, random.integers(0, classes, count).astype(np.int32)


def _one_step(
    program: Program, pixels: np.ndarray, labels: np.ndarray, batch: int
) -> dict[str, np.ndarray]:
    """Loss and weights of the first step on the first batch; then back to the start."""
    loss, _ = program.step(pixels[:batch], labels[:batch], lr=RATE)
    after = {name: value.copy() for name, value in program.learned.items()}
    return {"loss": np.array(loss), **after}


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


def _step_multiply_adds(graph: Graph) -> int:
    """Of one image: forward, gradient of the weights, and of the input but for the first layer."""
    layers = {node.name: node.layer for node in graph.nodes}
    done = [
        row.macs - row.padded_macs
        for row in size(graph).rows
        if isinstance(layers[row.name], Conv | Linear)
    ]
    return 3 * sum(done) - done[0]


# ---- agreement ----------------------------------------------------------------------------------


def _agree(ours: dict[str, np.ndarray], rivals: Sequence[Rival]) -> dict[str, float]:
    """The largest difference of each rival from ours; SystemExit where it is too large."""
    found = {}
    for rival in rivals:
        values = rival.check()
        name = f"{rival.contender.name} {rival.contender.setting}"
        differences = [_difference(ours[key], values[key]) for key in ours]
        found[name] = float(np.max(differences))  # NaN where one is NaN
        if not found[name] <= rival.tolerance:
            raise SystemExit(
                f"{name} computes something else: it differs by {found[name]:.1e} of the largest"
                f" value, {rival.tolerance:.0e} is allowed; nothing was timed"
            )
    return found


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))


# ---- printing -----------------------------------------------------------------------------------


def report(result: Result) -> list[str]:
    """Two tables, the verdicts, and the circumstances."""
    how = f"{result.threads} threads; medians of {len(result.training[0].seconds)} rounds"
    worst = max(result.agreement.values(), default=0.0)
    peak = result.peak
    foot = [
        ("aimed at", TARGETS),
        ("agreed", f"loss, weights after a step, logits: {worst:.0e} of the largest at most"),
        *(("skipped", line) for line in result.skipped),
        ("given", f"{100 * peak.given:.0f} % of the processors' time; other work had the rest"),
    ]
    return [
        f"{result.net}: one training step, batch {result.batch}, {how}",
        "",
        *timing_table(result.training, result.batch),
        "",
        f"{result.gflops:.0f} GFLOP/s, {100 * result.gflops / peak.best:.0f} % of this machine's"
        f" peak ({peak.best:.0f} GFLOP/s, median {peak.median:.0f})",
        *verdicts(result.training),
        "",
        f"{result.net}: logits of {result.images} images, {how}",
        "",
        *timing_table(result.inference, result.images),
        "",
        *verdicts(result.inference),
        "",
        *(line for label, text in foot for line in labelled(label, text)),
        *result.circumstances.lines(),
    ]


def verdicts(timings: Sequence[Timing]) -> list[str]:
    """How many times as fast as the best of each group."""
    return [f"{ratio:.2f} × as fast as {what}" for what, ratio in ratios(timings).items()]


def ratios(timings: Sequence[Timing]) -> dict[str, float]:
    """Group of rivals → the best one's median over ours."""
    ours = _ours(timings)
    others = [one for one in timings if one.contender.name != ours.contender.name]
    groups = {
        "PyTorch's best fp32": [one for one in others if _is_torch(one) and not _is_bf16(one)],
        "PyTorch's best of all": [one for one in others if _is_torch(one)],
        "ONNX Runtime": [one for one in others if one.contender.name == "ONNX Runtime"],
        "OpenVINO": [one for one in others if one.contender.name == "OpenVINO"],
    }
    return {
        f"{name} ({best.contender.setting})": best.times(ours)
        for name, group in groups.items()
        if group and (best := min(group, key=lambda one: one.median))
    }


def _ours(timings: Sequence[Timing]) -> Timing:
    return next(one for one in timings if one.contender.ours)


def _is_torch(timing: Timing) -> bool:
    return timing.contender.name == "PyTorch"


def _is_bf16(timing: Timing) -> bool:
    return "bf16" in timing.contender.setting


def as_json(result: Result) -> dict[str, object]:
    """The document of `--json`."""
    return {
        "net": result.net,
        "threads": result.threads,
        "training": {
            "batch": result.batch,
            "contenders": timing_json(result.training, result.batch),
            "ratios": ratios(result.training),
            "gflops": round(result.gflops, 1),
            "share_of_peak": round(result.gflops / result.peak.best, 4),
        },
        "inference": {
            "images": result.images,
            "contenders": timing_json(result.inference, result.images),
            "ratios": ratios(result.inference),
        },
        "peak_gflops": asdict(result.peak),
        "agreement": result.agreement,
        "skipped": result.skipped,
        "circumstances": asdict(result.circumstances),
    }


if __name__ == "__main__":
    sys.exit(main())
