"""What bf16 costs in accuracy and brings in speed: the same trainings in fp32 and in bf16.

    python bench/precision.py                          MNIST and CIFAR-10, seeds 0, 1 and 2
    python bench/precision.py --quick                  one epoch each, two minutes
    python bench/precision.py --only mnist --seeds 5   one of them, more seeds
    python bench/precision.py --cifar10 DIR            CIFAR-10 as class folders in train/ and test/
    python bench/precision.py --keep DIR               trainings of this commit found there are done

Claim: bf16 loses no accuracy that the choice of a seed would not lose too.

LeNet-5 learns MNIST's digits, the three convolutions with batch normalisation `bn3` CIFAR-10's
photographs, each with the recipe that is chosen for its data; nets, images, order and seeds are the
same in both precisions. The accuracy is that on the test images, which no decision of a training
looks at. Steps are timed apart, both precisions in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import lanewise
from lanewise.native.optimizers import SGD
from lanewise.native.precisions import PRECISIONS
from lanewise.net.load import load as load_net
from lanewise.size.table import aligned
from measure import (
    ROOT,
    Contender,
    Timing,
    circumstances,
    interleave,
    load,
    milliseconds,
    timing_json,
)
from mnist import default_data

BATCH = 128
RATE = 1e-3
QUICK_EPOCHS = 1


@dataclass(frozen=True)
class Study:
    """A network and what it learns."""

    key: str
    net: str
    name: str
    epochs: int


STUDIES = (
    Study("mnist", "lenet5", "LeNet-5, MNIST", 4),
    Study("cifar10", "bn3", "3-conv BN net, CIFAR-10", 6),
)


@dataclass(frozen=True)
class Run:
    """One training."""

    study: str
    precision: str
    seed: int
    test_accuracy: float
    last_loss: float


def main() -> int:
    """Train and print."""
    args, before = _arguments(), load()
    studies = [one for one in STUDIES if not args.only or one.key in args.only]
    runs: list[Run] = []
    timings: dict[str, list[Timing]] = {}
    for study in studies:
        with _data(study, args) as data:
            if data is None:
                print(f"{study.name}: left out, no such data", file=sys.stderr)
                continue
            runs += _trained(study, data, args)
        timings[study.key] = _steps(study, args.quick)
    if args.json:
        print(json.dumps(_document(runs, timings, before), indent=2))
    else:
        print("\n".join([*table(runs, timings), "", *circumstances(before).lines()]))
    return 0 if runs else 2


def _arguments() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    keys = [one.key for one in STUDIES]
    parser.add_argument("--only", action="append", choices=keys, help="one of them")
    parser.add_argument("--seeds", type=int, default=3, help="how many (3)")
    parser.add_argument("--epochs", type=int, help="of every training, in place of its own number")
    parser.add_argument("--mnist", type=Path, default=default_data(), help="the four IDX files")
    parser.add_argument("--cifar10", type=Path, default=_photographs(), help="folder or .tar.xz")
    parser.add_argument("--quick", action="store_true", help="one epoch each, few turns")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a file there for each training")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    return parser.parse_args()


def _photographs() -> Path:
    """LANEWISE_DATA/cifar10-jpeg.tar.xz, or in ../shared/data beside the checkout."""
    folder = os.environ.get("LANEWISE_DATA")
    return (Path(folder) if folder else ROOT.parent / "shared" / "data") / "cifar10-jpeg.tar.xz"


# ---- data ---------------------------------------------------------------------------------------


@contextmanager
def _data(study: Study, args: argparse.Namespace) -> Iterator[Path | None]:
    """What a study learns; an archive is unpacked for as long as it is needed."""
    place: Path = getattr(args, study.key)
    if not place.exists():
        yield None
    elif place.is_dir():
        yield place
    else:
        with tempfile.TemporaryDirectory(prefix="lanewise-bench-") as folder:
            with tarfile.open(place) as archive:
                archive.extractall(folder, filter="data")
            inside = [path.parent for path in sorted(Path(folder).rglob("train"))]
            yield inside[0] if inside else None


# ---- accuracy -----------------------------------------------------------------------------------


def _trained(study: Study, data: Path, args: argparse.Namespace) -> Iterator[Run]:
    """One precision after the other for each seed."""
    for seed in range(args.seeds):
        for precision in PRECISIONS:
            run = _kept(study, data, precision, seed, args)
            print(f"{study.name}, {precision}, seed {seed}: {_percent(run.test_accuracy)}",
                  file=sys.stderr, flush=True)  # fmt: skip
            yield run


def _kept(study: Study, data: Path, precision: str, seed: int, args: argparse.Namespace) -> Run:
    """As `_train`, but what was kept of this commit is not trained again."""
    if args.keep is None:
        return _train(study, data, precision, seed, args)
    commit = circumstances(0).commit
    file = args.keep / f"{study.key}-{precision}-{seed}-{_epochs(study, args)}.json"
    if file.is_file():
        document = json.loads(file.read_text(encoding="utf-8"))
        if document.pop("commit") == commit:
            return Run(**document)
    run = _train(study, data, precision, seed, args)
    args.keep.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**asdict(run), "commit": commit}), encoding="utf-8")
    return run


def _epochs(study: Study, args: argparse.Namespace) -> int:
    return int(args.epochs or (QUICK_EPOCHS if args.quick else study.epochs))


def _train(study: Study, data: Path, precision: str, seed: int, args: argparse.Namespace) -> Run:
    model = lanewise.train(
        study.net,
        data,
        epochs=_epochs(study, args),
        batch=BATCH,
        seed=seed,
        precision=precision,
        quiet=True,
    )
    accuracy = model.test_accuracy
    assert accuracy is not None, "the data has test images"
    model.close()
    return Run(study.key, precision, seed, accuracy, model.history[-1].loss)


# ---- speed --------------------------------------------------------------------------------------


def _steps(study: Study, quick: bool) -> list[Timing]:
    """A training step of each precision, in turns."""
    random = np.random.default_rng(0)
    with ExitStack() as stack:
        contenders = []
        for precision in PRECISIONS:
            program = stack.enter_context(
                lanewise.compile(
                    load_net(study.net), training=True, optimizer=SGD(), precision=precision
                )
            )
            program.initialise(0)
            images = random.integers(0, 256, (16 * BATCH, *program.input_shape), np.uint8)
            labels = random.integers(0, 10, len(images)).astype(np.int32)
            run = _runner(program, images, labels)
            contenders.append(Contender("Lanewise", precision, run, precision == "fp32"))
        return interleave(contenders, rounds=5 if quick else 15, turn_seconds=0.12)


def _runner(program: Any, images: np.ndarray, labels: np.ndarray) -> Any:
    def run(times: int) -> None:
        order = np.arange(times * BATCH, dtype=np.int64) % len(images)
        program.run_steps(images, labels, order, BATCH, np.full(times, RATE, np.float32))

    return run


# ---- tables -------------------------------------------------------------------------------------


def table(runs: Sequence[Run], timings: dict[str, list[Timing]]) -> list[str]:
    """A row for each study and precision: mean accuracy and range, milliseconds of a step."""
    rows = [("", "", "test accuracy", "range", "loss", "step ms", "range")]
    for study in STUDIES:
        for precision in PRECISIONS:
            mine = [r for r in runs if (r.study, r.precision) == (study.key, precision)]
            if mine:
                time = next(t for t in timings[study.key] if t.contender.setting == precision)
                rows.append((study.name, precision, *_accuracy(mine), *_times(time)))
    return aligned(rows, (False, False, True, True, True, True, True))


def _accuracy(runs: Sequence[Run]) -> tuple[str, str, str]:
    found = [run.test_accuracy for run in runs]
    losses = statistics.mean(run.last_loss for run in runs)
    return (
        _percent(statistics.mean(found)),
        f"{_percent(min(found))} to {_percent(max(found))}",
        (f"{losses:.4f}"),
    )


def _times(timing: Timing) -> tuple[str, str]:
    low, high = milliseconds(timing.best), milliseconds(timing.worst)
    return milliseconds(timing.median), f"{low} to {high}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _document(runs: Sequence[Run], timings: dict[str, list[Timing]], before: Any) -> dict[str, Any]:
    return {
        "runs": [asdict(run) for run in runs],
        "steps": {key: timing_json(found, BATCH) for key, found in timings.items()},
        "circumstances": asdict(circumstances(before)),
    }


if __name__ == "__main__":
    sys.exit(main())
