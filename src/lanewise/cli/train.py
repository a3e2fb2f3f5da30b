"""`lanewise train [DATA]`: trains a network on images, in a run folder."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from lanewise.cli.arguments import PRECISION, count, number, place, precision, rate, share
from lanewise.cli.networks import NET
from lanewise.cli.terminal import print_json

if TYPE_CHECKING:
    from lanewise.training.progress import Silent
    from lanewise.training.run_folder import RunFolder
    from lanewise.training.scores import Scores
    from lanewise.training.start import Job, Outcome

EXAMPLES = """\
DATA is `digits` (built in), a folder of class folders (also with train/, val/
and test/ above them), a folder with the four MNIST-style IDX files, or an .npz
with images and labels.

examples:
  lanewise train                             the built-in digits, in seconds
  lanewise train photos/                     a folder of class folders
  lanewise train mnist/ --net lenet5 --epochs 10 --run runs/mine
  lanewise train photos/ --net "resnet20 width=2"      a net with settings
  lanewise train photos/ --net "input 3x32x32; conv 8 k3; flatten; linear 2"
  lanewise train --resume runs/mine          go on, to the same bits

The result does not depend on --threads, nor on interruptions. Ctrl-C saves.
"""

# Option → the setting of the recipe that it is.
SETTINGS = {
    "epochs": "epochs",
    "batch": "batch",
    "lr": "learning_rate",
    "schedule": "schedule",
    "optimizer": "optimizer",
    "weight_decay": "weight_decay",
    "smoothing": "smoothing",
    "seed": "seed",
    "exact": "exact",
    "precision": "precision",
}


def add(parser: ArgumentParser) -> None:
    """The arguments of `lanewise train`."""
    parser.epilog = EXAMPLES
    parser.add_argument("data", metavar="DATA", nargs="?", help="images with labels (digits)")
    parser.add_argument("--net", metavar="NET", help=f"{NET} (each + settings)")
    parser.add_argument("--epochs", metavar="N", type=count, help="passes over the images")
    parser.add_argument("--batch", metavar="N", type=count, help="images per update")
    parser.add_argument("--lr", metavar="X", type=rate, help="highest learning rate")
    parser.add_argument("--schedule", metavar="NAME", help="constant, cosine or one-cycle")
    parser.add_argument("--optimizer", metavar="NAME", help="sgd or adamw")
    parser.add_argument("--weight-decay", metavar="X", type=share, help="0 for none")
    parser.add_argument("--smoothing", metavar="X", type=share, help="of the labels (0)")
    parser.add_argument("--seed", metavar="N", type=number, help="what is drawn (0)")
    parser.add_argument(
        "--exact", action="store_const", const=True, help="no Winograd: slower, rounds less"
    )
    parser.add_argument("--precision", type=precision, help=PRECISION)
    parser.add_argument("--fit", metavar="HOW", help="crop, pad or stretch to the net's input")
    parser.add_argument("--threads", metavar="N", type=count, help="threads (all)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--run", metavar="DIR", type=place, help="new folder (runs/DATA-NET-N)")
    where.add_argument(
        "--resume", metavar="DIR", type=place, help="go on with the run in this folder"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--quiet", action="store_true", help="no header and no progress")


def run(args: Namespace) -> int:
    """Trains; 130 after Ctrl-C."""
    from lanewise.training.interrupt import Interrupt
    from lanewise.training.progress import choose
    from lanewise.training.start import execute

    with choose(args.quiet) as watcher:
        job, folder = _resumed(args, watcher) if args.resume else _begun(args, watcher)
        for line in [*job.header(), f"run: {folder}"]:
            watcher.tell(line)
        with Interrupt() as interrupt:
            options = {"threads": args.threads, "resume": bool(args.resume)}
            outcome = execute(job, folder, **options, watcher=watcher, interrupt=interrupt)
            if not outcome.finished:
                interrupt.leave_ignored()
                return _interrupted(outcome)
    if args.json:
        print_json(outcome.result())
    else:
        print("\n".join(_summary(outcome)))
    return 0


def _begun(args: Namespace, watcher: Silent) -> tuple[Job, RunFolder]:
    from lanewise.api import Net
    from lanewise.training.run_folder import create_numbered_run, create_run
    from lanewise.training.start import prepare

    job = prepare(
        None if args.net is None else Net(args.net),
        "digits" if args.data is None else args.data,
        fit=args.fit,
        settings={name: getattr(args, option) for option, name in SETTINGS.items()},
        watcher=watcher,
    )
    if args.run:
        return job, create_run(args.run)
    return job, create_numbered_run(job.data.name, job.choice.name)


def _resumed(args: Namespace, watcher: Silent) -> tuple[Job, RunFolder]:
    from lanewise.cli.main import UsageError
    from lanewise.training.run_folder import continue_run
    from lanewise.training.start import prepare_again

    for option in ("net", "fit", *SETTINGS):
        if getattr(args, option) is not None:
            raise UsageError(
                f"--{option.replace('_', '-')} beside --resume: a run goes on as it began; leave "
                "it out, or train anew without --resume"
            )
    folder = continue_run(args.resume)
    return prepare_again(folder, args.data, watcher=watcher), folder


def _interrupted(outcome: Outcome) -> int:
    done, epochs = outcome.checkpoint.epoch, outcome.job.recipe.epochs
    print(
        f"lanewise: interrupted in epoch {done + 1} of {epochs}, state saved; go on with\n"
        f"  lanewise train --resume {_quoted(str(outcome.run))}",
        file=sys.stderr,
    )
    return 130


def _summary(outcome: Outcome) -> list[str]:
    """The last lines: how good, where it is, what to try next. Commands are never broken."""
    result, best = outcome.result(), outcome.checkpoint.best
    place = _quoted(str(outcome.run))
    lines = []
    if result["val_accuracy"] is not None:
        lines.append(("val", f"{100 * result['val_accuracy']:.2f} % (best epoch: {best})"))
    if outcome.judged and outcome.judged_on == "test":
        lines.append(("test", _judgement(outcome.judged)))
    seconds, speed = result["train_seconds"], result["images_per_second"]
    lines += [
        ("time", f"{seconds:.1f} s, {speed:,.0f} images/s"),
        ("run", str(outcome.run)),
        ("next", f"lanewise test {place}"),
        ("", f"lanewise predict {place} IMAGE"),
    ]
    return [f"{name:12}{text}" for name, text in lines]


def _judgement(scores: Scores) -> str:
    low, high = scores.interval
    return (
        f"{100 * scores.accuracy:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f}, "
        f"{scores.count:,} images)"
    )


def _quoted(path: str) -> str:
    import shlex

    return shlex.quote(path)
