"""Every figure that this engine shall reach, beside everybody, in one run.

    python bench/targets.py                            all of it, about forty minutes
    python bench/targets.py --quick                    few rounds: a quarter of an hour
    python bench/targets.py --only vgg16-1             one part; repeatable; --list names them
    python bench/targets.py --peers other/bin/python   Keras, tinygrad, ncnn, MNN from there
    python bench/targets.py --keep DIR                 each part into a file; those there are kept

Training steps stand beside PyTorch (eager and compiled, fp32 and bf16), Keras 3 on TensorFlow and
on JAX, and tinygrad; inference beside ONNX Runtime, OpenVINO, ncnn, MNN and PyTorch. Everybody has
the same weights, images and number of threads; who computes something else is refused, who is
missing is named. A row is the ratio to the best setting of those it names, measured in the same
turns; the last column is the best of all who took part, in any number format.

What cannot be measured is told in its row, and does not stop the others; the exit status is then 1.
Keras's compilers take minutes for a large network. What they compiled is kept for the next run: a
first one wants `--patience 900`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from math import inf
from pathlib import Path
from typing import Any

from agreement import agreed
from aims import PARTS, TARGETS, Part, judge
from contest import PACKAGES, Contest, Terms, contest, inference_contest
from lanewise.bridge import require_torch
from lanewise.errors import LanewiseError
from lanewise.net.load import load as load_net
from lanewise.size.table import aligned
from measure import (
    ROOT,
    Timing,
    circumstances,
    cores,
    interleave,
    kept_for_us,
    labelled,
    load,
    milliseconds,
    timing_json,
    timing_table,
)
from mnist import default_data
from networks import native_settings
from rivals import first_line
from served import PATIENCE, add_peer_options, peers_of
from torch_rivals import prepare_torch

QUICK_ROUNDS, QUICK_TURN, QUICK_MOST, QUICK_COMPILE = 5, 0.1, 3.0, 30.0
COMPILE = 100.0  # seconds of torch.compile for each setting
LONGEST, QUICK_LONGEST = 4.0, 1.5  # seconds of a step of somebody who takes turns
QUICK_PATIENCE, QUICK_SLOW = 75.0, 5e8  # seconds; multiply–adds of a step
Document = dict[str, Any]


def main() -> int:
    """Measure part by part, tell each, then the rows."""
    args, before = _arguments(), load()
    chosen = [part for part in PARTS if not args.only or part.key in args.only]
    if args.list:
        print("\n".join(f"{part.key:<19}{part.title}" for part in PARTS))
        return 0
    try:
        require_torch()
        prepare_torch(args.threads)
        parts = [told for part in chosen if (told := kept(part, args))]
    except LanewiseError as error:
        print(f"targets.py: {error}", file=sys.stderr)
        return 2
    rows = [row for target in TARGETS for row in judge(target, parts)]
    elsewhere = {name: number for part in parts for name, number in part["versions"].items()}
    where = circumstances(before, PACKAGES, elsewhere)
    if args.json:
        document = {"threads": args.threads, "parts": parts, "rows": rows}
        print(json.dumps({**document, "circumstances": asdict(where)}, indent=2))
    else:
        print("\n".join([*table(rows), "", *where.lines()]))
    return int(any(part.get("failed") for part in parts))


def _arguments() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    keys = [part.key for part in PARTS]
    parser.add_argument("--only", action="append", metavar="PART", choices=keys, help="a part")
    parser.add_argument("--list", action="store_true", help="the parts")
    parser.add_argument("--threads", type=int, default=cores(), help="of everybody (all)")
    parser.add_argument("--rounds", type=int, default=11, help="turns of everybody (11)")
    parser.add_argument("--turn", type=float, default=0.3, help="seconds of a turn (0.3)")
    parser.add_argument("--most", type=float, default=12.0, help="seconds of everybody (12)")
    parser.add_argument(
        "--compile-seconds",
        type=float,
        help=f"torch.compile's limit ({COMPILE:.0f}, in a quick look {QUICK_COMPILE:.0f})",
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds, short turns")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a file there for each part")
    parser.add_argument("--data", type=Path, default=default_data(), help="MNIST's IDX files")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    add_peer_options(parser)
    return parser.parse_args()


def _terms(part: Part, args: argparse.Namespace) -> Terms:
    settings = native_settings()
    if part.kind == "inference":  # their rows are of fp32, and of runtimes
        settings = [one for one in settings if not (one.bfloat16 or (one.compiled and args.quick))]
    return Terms(
        batch=part.images,
        images=part.images,
        threads=args.threads,
        rounds=QUICK_ROUNDS if args.quick else args.rounds,
        turn=QUICK_TURN if args.quick else args.turn,
        settings=settings,
        compile_seconds=args.compile_seconds or (QUICK_COMPILE if args.quick else COMPILE),
        most_seconds=QUICK_MOST if args.quick else args.most,
        peers=peers_of(args),
        python=args.peers,
        patience=args.patience or (QUICK_PATIENCE if args.quick else PATIENCE),
        slow_up_to=QUICK_SLOW if args.quick else inf,
        longest=QUICK_LONGEST if args.quick else LONGEST,
        bfloat16=part.bfloat16,
    )


# ---- parts --------------------------------------------------------------------------------------


def kept(part: Part, args: argparse.Namespace) -> Document | None:
    """As `measure`, but what was kept of this commit is not measured again."""
    if args.keep is None:
        return measure(part, args)
    file, commit = args.keep / f"{part.key}.json", circumstances(0).commit
    if file.is_file():
        document: Document = json.loads(file.read_text(encoding="utf-8"))
        if document["commit"] == commit and not document.get("failed"):
            return document
    found = measure(part, args)
    if found is not None:
        args.keep.mkdir(parents=True, exist_ok=True)
        found = {**found, "commit": commit}
        file.write_text(json.dumps(found), encoding="utf-8")
    return found


def measure(part: Part, args: argparse.Namespace) -> Document | None:
    """One part, told on the way; None where it cannot be measured here."""
    begin = time.monotonic()
    try:
        found = MEASURES[part.kind](part, args)
    except (Exception, SystemExit) as error:
        ended = isinstance(error, SystemExit) and isinstance(error.code, int)  # by a signal
        if ended or isinstance(error, LanewiseError):
            raise
        found = _failed(error)
    if found is None:
        print(f"{part.title}: left out, no data in {args.data}", file=sys.stderr)
        return None
    whole = {"key": part.key, "title": part.title, "images": part.images, **found}
    whole["took_seconds"] = round(time.monotonic() - begin, 1)
    if not args.json:
        print("\n".join([*report(whole), ""]), flush=True)
    else:
        print(f"{part.title}: {whole['took_seconds']:.0f} s", file=sys.stderr, flush=True)
    return whole


def _failed(error: BaseException) -> Document:
    """A part that could not be measured; the others may still be."""
    traceback.print_exception(error)
    reason = str(error) if isinstance(error, SystemExit) else first_line(error)
    return {"failed": reason, "contenders": [], "table": [], "skipped": [reason], "versions": {}}


def _trained(part: Part, args: argparse.Namespace) -> Document:
    with contest(load_net(part.net), _terms(part, args)) as everybody:
        training = everybody.training()
        return {**_common(everybody, training.timings, part.images), **training.as_json()}


def _inferred(part: Part, args: argparse.Namespace) -> Document:
    with inference_contest(load_net(part.net), _terms(part, args)) as everybody:
        return _common(everybody, everybody.inference(), part.images)


def _common(everybody: Contest, timings: Sequence[Timing], images: int) -> Document:
    return {
        "contenders": timing_json(timings, images),
        "table": timing_table(timings, images),
        "kept": kept_for_us(timings),
        "peak_gflops": asdict(everybody.meter.peak),
        "agreement": everybody.agreement,
        "skipped": everybody.skipped,
        "versions": everybody.versions,
    }


def _threads(part: Part, args: argparse.Namespace) -> Document:
    """Ours on all threads beside ours on one. They are two, so a quick look has time for all their
    turns, which are as long as ever: whoever waits at barriers feels what the host does."""
    graph, terms = load_net(part.net), _terms(part, args)
    with ExitStack() as stack:
        meter, contenders = None, []
        for count in dict.fromkeys((args.threads, 1)):
            own = stack.enter_context(contest(graph, replace(terms, threads=count)))
            meter = meter or own.meter
            contenders.append(own.alone(f"fp32, {count} thread{'s' * (count > 1)}"))
        assert meter
        timings = interleave(contenders, args.rounds, args.turn, meter.measure)
        return {
            "contenders": timing_json(timings, part.images),
            "table": timing_table(timings, part.images),
            "kept": kept_for_us(timings),
            "peak_gflops": asdict(meter.peak),
            "agreement": {},
            "skipped": [],
            "versions": {},
        }


def _mnist(part: Part, args: argparse.Namespace) -> Document | None:
    """By the script of its own, as whole processes."""
    if not args.data.is_dir():
        return None
    script = str(ROOT / "bench" / "mnist.py")
    seeds = "1" if args.quick else "5"
    command = [sys.executable, script, "--json", "--data", str(args.data), "--seeds", seeds]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode:
        raise SystemExit(f"mnist.py ended with {done.returncode}")
    told: Document = json.loads(done.stdout)
    table = [f"{start}: {one['seconds']:.2f} s" for start, one in told["summary"].items()]
    return {"contenders": [], "table": table, "skipped": [], "versions": {}, **told}


MEASURES: dict[str, Callable[[Part, argparse.Namespace], Document | None]] = {
    "training": _trained,
    "inference": _inferred,
    "threads": _threads,
    "mnist": _mnist,
}

# ---- tables -------------------------------------------------------------------------------------


def report(part: Document) -> list[str]:
    """A part: everybody, how well they agree, who is missing."""
    foot: list[tuple[str, str]] = []
    if part.get("agreement"):
        foot.append(("agreed", agreed(part["agreement"])))
    foot += [("skipped", line) for line in part["skipped"]]
    if "peak_gflops" in part:
        foot.append(("given", f"{100 * part['kept']:.0f} % of the processors' time"))
    lines = [part["title"], "", *part["table"], ""]
    return [*lines, *(line for label, text in foot for line in labelled(label, text))]


def table(rows: Sequence[Document]) -> list[str]:
    """All rows: ours, the best of those meant, ratio, what is wanted; below each who that was."""
    heads = ("", "ours ms", "theirs", "ratio", "at least", "aim", "reached")
    lines = aligned([heads, *map(_cells, rows)], (False, *[True] * 5, False))
    told = [line for row, shown in zip(rows, lines[1:], strict=True) for line in (shown, _who(row))]
    return [lines[0], *told]


def _cells(row: Document) -> tuple[str, ...]:
    wanted = row["at_least"], row["aim"]
    if "ours_ms" not in row:
        return (row["what"], "", "", "", *wanted, "not measured")
    theirs = milliseconds(row["best_ms"] / 1e3) if "best_ms" in row else ""
    ratio = f"{row['ratio']:.2f} ×" if "ratio" in row else ""
    mine = milliseconds(row["ours_ms"] / 1e3)
    return (row["what"], mine, theirs, ratio, *wanted, row["verdict"])


def _who(row: Document) -> str:
    """`  beside PyTorch: NHWC fp32; best of all Keras, JAX fp32, XLA: 2.10 ×`."""
    if "ours_ms" not in row:
        return f"  beside {row['beside']}: {row['verdict']}"
    of_all = row.get("best_of_all")
    more = f"; best of all {of_all}: {row['ratio_to_best_of_all']:.2f} ×" if of_all else ""
    return f"  beside {row['beside']}: {row['best']}" + more * (of_all != row["best"])


if __name__ == "__main__":
    sys.exit(main())
