"""`lanewise test RUN [DATA]`: how good a trained network is, class by class."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from lanewise.cli.arguments import count
from lanewise.cli.terminal import print_json, width
from lanewise.size.table import aligned

if TYPE_CHECKING:
    from lanewise.data import Split
    from lanewise.training.progress import Silent
    from lanewise.training.scores import Mistake, Scores

EXAMPLES = """\
Without DATA the run's own test images are used, or its validation images if it
has none. precision: how many of those called so are so. recall: how many of
these were found.

examples:
  lanewise test runs/mnist-lenet5-1
  lanewise test runs/mnist-lenet5-1 other/       a folder with the same classes
  lanewise test runs/mnist-lenet5-1 --json
"""
MOST_PAIRS = 10


def add(parser: ArgumentParser) -> None:
    """The arguments of `lanewise test`."""
    parser.epilog = EXAMPLES
    parser.add_argument("run", metavar="RUN", help="folder of a run")
    parser.add_argument("data", metavar="DATA", nargs="?", help="other images with labels")
    parser.add_argument("--threads", metavar="N", type=count, help="threads (all)")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--quiet", action="store_true", help="the accuracy alone")


def run(args: Namespace) -> int:
    """Prints the scores."""
    from lanewise.training.model import load
    from lanewise.training.progress import choose

    model = load(args.run)
    model.threads = args.threads
    with choose(args.quiet) as watcher:
        split, what = _images(args, watcher)
    scores = model.judge(split)
    if args.json:
        print_json(scores.to_json())
    elif args.quiet:
        print(f"{100 * scores.accuracy:.2f} %")
    else:
        print("\n".join(_text(scores, what)))
    return 0


def _images(args: Namespace, watcher: Silent) -> tuple[Split, str]:
    """What to judge by, and what it is called."""
    from lanewise.training.start import other_images, own_images

    if args.data is None:
        return own_images(args.run, watcher)
    return other_images(args.run, args.data, watcher), f"images of {args.data}"


def _text(scores: Scores, what: str) -> list[str]:
    low, high = scores.interval
    lines = [
        f"accuracy {100 * scores.accuracy:.2f} %, 95 % interval {100 * low:.2f} to "
        f"{100 * high:.2f}, {scores.count:,} {what}",
        "",
        *_classes(scores),
        "",
        *_confusion(scores, width()),
    ]
    return [*lines, "", *_mistakes(scores.worst)] if scores.worst else lines


def _classes(scores: Scores) -> list[str]:
    rows = [("class", "precision", "recall", "images")]
    rows += [
        (item.name, _percent(item.precision), _percent(item.recall), f"{item.count:,}")
        for item in scores.classes
    ]
    return aligned(rows, (False, True, True, True))


def _confusion(scores: Scores, columns: int) -> list[str]:
    """The whole matrix where it fits the screen, else the most frequent confusions."""
    names = [item.name for item in scores.classes]
    rows = [["true \\ called", *names]]
    rows += [
        [name, *(str(cell) if cell else "·" for cell in cells)]
        for name, cells in zip(names, scores.confusion.tolist(), strict=True)
    ]
    table = aligned(rows, [False, *[True] * len(names)])
    return table if max(map(len, table)) <= columns else _pairs(scores, names)


def _pairs(scores: Scores, names: list[str]) -> list[str]:
    cells = [
        (number, true, called)
        for true, row in enumerate(scores.confusion.tolist())
        for called, number in enumerate(row)
        if number and true != called
    ]
    cells.sort(key=lambda cell: (-cell[0], cell[1], cell[2]))
    rows = [("images", "true", "called")]
    rows += [(f"{number:,}", names[true], names[called]) for number, true, called in cells]
    more = len(cells) - MOST_PAIRS
    table = aligned(rows[: MOST_PAIRS + 1], (True, False, False))
    return [*table, f"and {more:,} rarer confusions"] if more > 0 else table


def _mistakes(worst: tuple[Mistake, ...]) -> list[str]:
    rows = [("sure", "true", "called", "worst mistakes")]
    rows += [
        (f"{100 * item.confidence:.1f} %", item.true, item.predicted, item.source) for item in worst
    ]
    return aligned(rows, (True, False, False, False))


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
