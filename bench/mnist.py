"""From images to a trained LeNet-5 on MNIST: whole processes, cold and warm, several seeds.

    python bench/mnist.py                    seeds 0, 1 and 2
    python bench/mnist.py --seeds 8 --data path/to/mnist --json

Claim: `lanewise train mnist --net lenet5` reaches 99 % test accuracy in 10 s with empty caches and
in 6 s warm, the whole process, in at most 500 MB.

A cold process finds an empty cache: it decodes the images and compiles the network. A warm one
finds what the cold one left. Time is from the start of Python to its end, the test included; the
accuracy is that of the 10,000 test images, which no decision of the training looks at.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from measure import ROOT, Circumstances, circumstances, labelled, load, run_process

TARGET_ACCURACY, TARGET_BYTES = 0.99, 500_000_000
TARGET_SECONDS = {"cold": 10.0, "warm": 6.0}
STARTS = ("cold", "warm")


@dataclass(frozen=True)
class Run:
    """One process."""

    seed: int
    start: str
    seconds: float
    compile_seconds: float
    train_seconds: float
    test_accuracy: float
    peak_bytes: int


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=default_data(), help="the four IDX files")
    parser.add_argument("--seeds", type=int, default=3, help="how many (3)")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    args = parser.parse_args()
    if not args.data.is_dir():
        print(f"{args.data}: no such folder; give --data, or LANEWISE_DATA with mnist/ in it")
        return 2
    before = load()
    runs = [run for seed in range(args.seeds) for run in train(args.data, seed)]
    where = circumstances(before, ("scikit-learn",))
    if args.json:
        summary = {start: summarise(runs, start) for start in STARTS}
        document = {"summary": summary, "runs": [asdict(run) for run in runs]}
        print(json.dumps({**document, "circumstances": asdict(where)}, indent=2))
    else:
        print("\n".join(report(runs, where)))
    return 0


def default_data() -> Path:
    """LANEWISE_DATA/mnist, or ../shared/data/mnist beside the checkout."""
    folder = os.environ.get("LANEWISE_DATA")
    return (Path(folder) if folder else ROOT.parent / "shared" / "data") / "mnist"


def train(data: Path, seed: int) -> list[Run]:
    """A cold process and a warm one after it, with a cache of their own."""
    with tempfile.TemporaryDirectory(prefix="lanewise-bench-") as folder:
        runs = []
        for start in STARTS:
            command = [sys.executable, "-m", "lanewise", "train", str(data), "--net", "lenet5"]
            command += ["--seed", str(seed), "--json", "--run", str(Path(folder) / start)]
            done = run_process(command, {"LANEWISE_CACHE": str(Path(folder) / "cache")})
            told = json.loads(done.output)
            runs.append(
                Run(
                    seed=seed,
                    start=start,
                    seconds=round(done.seconds, 3),
                    compile_seconds=told["compile_seconds"],
                    train_seconds=told["train_seconds"],
                    test_accuracy=told["test_accuracy"],
                    peak_bytes=done.peak_bytes,
                )
            )
        return runs


def summarise(runs: Sequence[Run], start: str) -> dict[str, float]:
    """Median and range of the seconds, the lowest accuracy, the largest memory."""
    mine = [run for run in runs if run.start == start]
    seconds = [run.seconds for run in mine]
    return {
        "seconds": round(statistics.median(seconds), 3),
        "fastest": min(seconds),
        "slowest": max(seconds),
        "lowest_accuracy": min(run.test_accuracy for run in mine),
        "mean_accuracy": round(statistics.mean(run.test_accuracy for run in mine), 5),
        "peak_bytes": max(run.peak_bytes for run in mine),
    }


def report(runs: Sequence[Run], where: Circumstances) -> list[str]:
    """One line a process, then the claims."""
    from lanewise.size.table import aligned

    rows = [["seed", "start", "seconds", "compiling", "training", "test accuracy", "memory"]]
    for run in runs:
        seconds = (f"{s:.2f}" for s in (run.seconds, run.compile_seconds, run.train_seconds))
        rows.append([str(run.seed), run.start, *seconds, *_reached(asdict(run))])
    verdicts = [["start", "median", "range", "aimed at", "lowest accuracy", "most memory"]]
    verdicts += [_verdict(summarise(runs, start), start) for start in STARTS]
    return [
        "LeNet-5 on MNIST: lanewise train mnist --net lenet5, whole processes",
        "",
        *aligned(rows, (True, False, True, True, True, True, True)),
        "",
        *aligned(verdicts, (False, True, True, True, True, True)),
        "",
        *labelled("aimed at", f"{100 * TARGET_ACCURACY:.0f} %, {TARGET_BYTES / 1e6:.0f} MB"),
        *where.lines(),
    ]


def _reached(run: dict[str, Any]) -> list[str]:
    return [f"{100 * run['test_accuracy']:.2f} %", f"{run['peak_bytes'] / 1e6:.0f} MB"]


def _verdict(found: dict[str, float], start: str) -> list[str]:
    span = f"{found['fastest']:.2f} – {found['slowest']:.2f}"
    reached = _reached({**found, "test_accuracy": found["lowest_accuracy"]})
    return [start, f"{found['seconds']:.2f} s", span, f"{TARGET_SECONDS[start]:.0f} s", *reached]


if __name__ == "__main__":
    sys.exit(main())
