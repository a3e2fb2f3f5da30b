"""A training step and batch inference beside all the others, in one run.

    python bench/step.py                     LeNet-5, batch 128; inference of 256 images
    python bench/step.py --net tiny-vgg --batch 64 --json

Claims: a LeNet-5 training step in fp32 is at least 5 times as fast as PyTorch's best fp32 setting
and 4 times as fast as its best of all; it reaches at least 55 % of the multiply–adds this machine
can do; batch inference is at least 2 times as fast as ONNX Runtime and OpenVINO.

Before anything is timed, the loss and the changes of one step must agree, and so must the logits
(`contest.py`). The peak is measured in every round. The share of the peak counts the multiply–adds
that are done, not those on zero padding.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass

from agreement import agreed
from contest import PACKAGES, Terms, Training, contest, ratios, verdicts
from lanewise.bridge import require_torch
from lanewise.errors import LanewiseError
from lanewise.net.load import load as load_net
from measure import (
    Circumstances,
    Timing,
    circumstances,
    cores,
    kept_for_us,
    labelled,
    load,
    timing_json,
    timing_table,
)
from rivals import SETTINGS, Skipped, eager
from served import add_peer_options, peers_of
from torch_rivals import prepare_torch

TARGETS = (
    "5 × PyTorch's best fp32, 4 × its best of all, 55 % of the peak;"
    " inference 2 × ONNX Runtime and OpenVINO"
)


@dataclass(frozen=True)
class Result:
    """All that was measured."""

    net: str
    images: int
    threads: int
    training: Training
    inference: list[Timing]
    agreement: dict[str, float]  # "contender: what" → relative difference
    skipped: Skipped
    circumstances: Circumstances


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
    add_peer_options(parser)
    return parser.parse_args()


def measure(args: argparse.Namespace) -> Result:
    """Check everybody, then time training, then inference."""
    graph, before = load_net(args.net), load()
    settings = eager() if args.no_compile else SETTINGS
    terms = Terms(
        args.batch, args.images, args.threads, args.rounds, args.turn, settings,
        peers=peers_of(args), python=args.peers, patience=args.patience,
    )  # fmt: skip
    prepare_torch(args.threads)
    with contest(graph, terms) as everybody:
        training, inference = everybody.training(), everybody.inference()
        return Result(
            net=args.net,
            images=args.images,
            threads=args.threads,
            training=training,
            inference=inference,
            agreement=everybody.agreement,
            skipped=everybody.skipped,
            circumstances=circumstances(before, PACKAGES, everybody.versions),
        )


def report(result: Result) -> list[str]:
    """Two tables, the verdicts, and the circumstances."""
    training = result.training
    how = f"{result.threads} threads; medians of {len(training.timings[0].seconds)} rounds"
    foot = [
        ("aimed at", TARGETS),
        ("agreed", agreed(result.agreement)),
        *(("skipped", line) for line in result.skipped),
        ("given", f"{100 * kept_for_us(training.timings):.0f} % of the processors' time in the"
        f" turns told, {100 * training.peak.given:.0f} % in all; other work had the rest"),
    ]  # fmt: skip
    return [
        f"{result.net}: one training step, batch {training.batch}, {how}",
        "",
        *timing_table(training.timings, training.batch),
        "",
        training.line(),
        *verdicts(training.timings),
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


def as_json(result: Result) -> dict[str, object]:
    """The document of `--json`."""
    return {
        "net": result.net,
        "threads": result.threads,
        "training": result.training.as_json(),
        "inference": {
            "images": result.images,
            "contenders": timing_json(result.inference, result.images),
            "ratios": ratios(result.inference),
        },
        "peak_gflops": asdict(result.training.peak),
        "agreement": result.agreement,
        "skipped": result.skipped,
        "circumstances": asdict(result.circumstances),
    }


if __name__ == "__main__":
    sys.exit(main())
