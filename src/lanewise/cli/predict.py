"""`lanewise predict RUN PATH...`: labels for images and folders."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from lanewise.cli.arguments import count
from lanewise.cli.terminal import print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lanewise.training.prediction import Failure, Prediction

EXAMPLES = """\
A line an image: its label, how sure the model is, the second choice, the path.
What cannot be read is said on standard error; the exit code is 2 only if
nothing could be read.

examples:
  lanewise predict runs/photos-small-vgg-1 holiday.jpg
  lanewise predict runs/photos-small-vgg-1 inbox/ more/*.png
  lanewise predict runs/photos-small-vgg-1 inbox/ --json > labels.json
"""


def add(parser: ArgumentParser) -> None:
    """The arguments of `lanewise predict`."""
    parser.epilog = EXAMPLES
    parser.add_argument("run", metavar="RUN", help="folder of a run")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="image, or folder of images")
    parser.add_argument("--threads", metavar="N", type=count, help="threads (all)")
    parser.add_argument("--json", action="store_true", help="one JSON document, top five")
    parser.add_argument("--quiet", action="store_true", help="label and path alone")


def run(args: Namespace) -> int:
    """Prints the labels; 2 where no image could be read."""
    from lanewise.training.model import load
    from lanewise.training.prediction import predict_paths

    model = load(args.run)
    model.threads = args.threads
    answers = predict_paths(model, args.paths)
    if args.json:
        entries = [answer.to_json() for answer in answers]
        print_json(entries)
        return 0 if any("label" in entry for entry in entries) else 2
    return _print(answers, model.class_names, args.quiet)


def _print(answers: Iterator[Prediction | Failure], names: tuple[str, ...], quiet: bool) -> int:
    from lanewise.training.prediction import Failure

    width = max(map(len, names))
    labelled = False
    for answer in answers:
        if isinstance(answer, Failure):
            print(f"lanewise: {answer.path}: {answer.error}", file=sys.stderr)
            continue
        labelled = True
        print(f"{answer.label}  {answer.path}" if quiet else _line(answer, width))
    return 0 if labelled else 2


def _line(answer: Prediction, width: int) -> str:
    """`cat   97.3 %  (dog    2.1 %)  photos/1.jpg`."""
    (label, first), (second, next_share) = answer.top[:2]
    return (
        f"{label:<{width}}  {100 * first:5.1f} %  ({second:<{width}} {100 * next_share:5.1f} %)  "
        f"{answer.path}"
    )
