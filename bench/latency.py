"""One image from Python beside ONNX Runtime and OpenVINO (and PyTorch), in one run.

    python bench/latency.py                        LeNet-5, ResNet-18, VGG-16, ResNet-50
    python bench/latency.py --nets lenet5 --json

Claims: one image of LeNet-5 is at least 4 times as fast as with ONNX Runtime and OpenVINO, VGG-16
1.5 times, ResNet-18 1.4 times and ResNet-50 1.1 times as fast as with the better of the two.

Everybody gets a finished float32 array of one image that lies ready in memory and gives back an
array, by the call that its users make; the best setting of each is quoted. The logits are compared
before anything is timed. `bench/targets.py` measures the same rows beside more of the others.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass

import numpy as np

from agreement import agree, agreed
from contest import PACKAGES, ratios, verdicts
from lanewise.bridge import require_torch
from lanewise.errors import LanewiseError
from lanewise.native import Program, compile_net
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
from rivals import Rival, Skipped, Task, eager
from runtimes import onnx_runtime, openvino
from torch_rivals import prepare_torch, torch_inference

NETS = ("lenet5", "resnet18", "vgg16", "resnet50")


@dataclass(frozen=True)
class OneNet:
    """Everybody's time for one image of a network."""

    net: str
    macs: int
    timings: list[Timing]
    agreement: dict[str, float]
    skipped: Skipped

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "net": self.net,
            "macs": self.macs,
            "contenders": timing_json(self.timings, 1),
            "ratios": ratios(self.timings),
            "agreement": self.agreement,
            "skipped": self.skipped,
        }


def main() -> int:
    """Measure and print."""
    args = _arguments()
    before = load()
    try:
        require_torch()
        prepare_torch(args.threads)
        found = [measure(net, args) for net in args.nets]
    except LanewiseError as error:
        print(f"latency.py: {error}", file=sys.stderr)
        return 2
    where = circumstances(before, PACKAGES)
    print(json.dumps(as_json(found, args, where)) if args.json else report(found, args, where))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", nargs="+", default=NETS, help="zoo names, files or texts")
    parser.add_argument("--threads", type=int, default=cores(), help="of everybody, at most (all)")
    parser.add_argument("--rounds", type=int, default=15, help="turns of everybody (15)")
    parser.add_argument("--turn", type=float, default=0.1, help="seconds of a turn (0.1)")
    parser.add_argument("--no-torch", action="store_true", help="without PyTorch")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    return parser.parse_args()


def measure(net: str, args: argparse.Namespace) -> OneNet:
    """Compare everybody's logits, then time them in turns."""
    graph = load_net(net)
    with compile_net(graph, batch=1, threads=args.threads) as program:
        program.initialise(0)
        image = np.random.default_rng(0).standard_normal((1, *program.input_shape), np.float32)
        weights = {name: value.copy() for name, value in program.learned.items()}
        labels = np.zeros(1, np.int32)
        task = Task(graph, weights, [(image, labels)], args.threads, eager())
        skipped: Skipped = []
        rivals = _rivals(task, skipped, torch=not args.no_torch)
        agreement = agree({"logits": program.forward(image)}, rivals)
        contenders = [_ours(program, image), *(one.contender for one in rivals)]
        timings = interleave(contenders, args.rounds, args.turn)
    return OneNet(net, size(graph).totals.macs, timings, agreement, skipped)


def _rivals(task: Task, skipped: Skipped, torch: bool) -> list[Rival]:
    """In all their settings; PyTorch without its compiler."""
    found = [rival for make in (onnx_runtime, openvino) for rival in make(task, skipped)]
    return found + (list(torch_inference(task, skipped)) if torch else [])


def _ours(program: Program, image: np.ndarray) -> Contender:
    def run(times: int) -> None:
        for _ in range(times):
            program.forward(image)

    setting = f"fp32, {program.threads} thread{'s' * (program.threads > 1)}"
    return Contender("Lanewise", setting, run, True)


def report(found: list[OneNet], args: argparse.Namespace, where: Circumstances) -> str:
    """A table and the verdicts for each network, and the circumstances."""
    lines: list[str] = []
    for one in found:
        lines += [f"{one.net}: one image, medians of {args.rounds} rounds", ""]
        lines += [*timing_table(one.timings, 1), "", *verdicts(one.timings)]
        lines += [*labelled("agreed", agreed(one.agreement))]
        lines += [line for text in one.skipped for line in labelled("skipped", text)]
        lines.append("")
    return "\n".join([*lines, *where.lines()])


def as_json(
    found: list[OneNet], args: argparse.Namespace, where: Circumstances
) -> dict[str, object]:
    """The document of `--json`."""
    return {
        "threads": args.threads,
        "networks": [one.as_json() for one in found],
        "circumstances": asdict(where),
    }


if __name__ == "__main__":
    sys.exit(main())
