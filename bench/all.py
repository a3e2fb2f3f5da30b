"""Every claim of the README, measured now, as its table.

    python bench/all.py              prints the table in Markdown
    python bench/all.py --write      and puts it into README.md

Runs step.py, mnist.py and startup.py, one after the other, about four minutes. Nothing else should
be running. Needs `pip install -e ".[dev,bench]"`; MNIST is left out where it is not at hand.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from textwrap import fill
from typing import Any

from measure import ROOT, milliseconds
from mnist import default_data

BEGIN, END = "<!-- measured -->\n", "<!-- end of measured -->\n"
QUIET = 0.97  # share of the processors' time that a figure worth keeping was measured with
Document = dict[str, Any]


def main() -> int:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="into README.md")
    parser.add_argument("--data", type=Path, default=default_data(), help="MNIST's IDX files")
    parser.add_argument("--quick", action="store_true", help="few rounds, to try it out")
    args = parser.parse_args()
    step = run("step.py", *(["--rounds", "3", "--turn", "0.05"] if args.quick else []))
    startup = run("startup.py", *(["--runs", "3"] if args.quick else []))
    mnist = None
    if args.data.is_dir():
        seeds = "1" if args.quick else "5"
        mnist = run("mnist.py", "--data", str(args.data), "--seeds", seeds)
    text = table(step, startup, mnist)
    print(text, end="")
    if args.write:
        refuse_if_busy(step["peak_gflops"]["given"])
        write(ROOT / "README.md", text)
    return 0


def refuse_if_busy(given: float) -> None:
    """SystemExit where other work had a share of the processors: it slows the others most."""
    if given < QUIET:
        raise SystemExit(
            f"other work took {100 * (1 - given):.0f} % of the processors meanwhile; README.md is"
            " left as it was: measure again when the machine is quiet"
        )


def run(script: str, *options: str) -> Document:
    """The JSON document of one script; what it tells on the way is passed on."""
    command = [sys.executable, str(ROOT / "bench" / script), "--json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode:
        raise SystemExit(f"{script} ended with {done.returncode}")
    document: Document = json.loads(done.stdout)
    return document


def table(step: Document, startup: Document, mnist: Document | None) -> str:
    """The README's table and what stands below it."""
    head = ("", "Lanewise", "others", "ratio")
    rows: list[tuple[str, ...]] = [head, ("---", "---:", "---", "---:")]
    rows += [*_training_rows(step["training"]), *_inference_rows(step["inference"])]
    if mnist:
        rows += _mnist_rows(mnist)
    rows += _startup_rows(startup)
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{lines}\n\n{_circumstances(step, mnist)}\n"


def _training_rows(training: Document) -> list[tuple[str, ...]]:
    ours, *others = training["contenders"]
    fp32 = [one for one in others if "bf16" not in one["setting"]]
    share = f"{100 * training['share_of_peak']:.0f} % of the machine's peak"
    rate = f"{ours['images_per_second']:,.0f}"
    return [
        _row(f"training step, batch {training['batch']}", ours, fp32),
        _row("the same, bf16 allowed to others", ours, others),
        ("images trained on per second", rate, share, ""),
    ]


def _inference_rows(inference: Document) -> list[tuple[str, ...]]:
    ours, *others = inference["contenders"]
    rows = []
    for name in ("PyTorch", "ONNX Runtime", "OpenVINO"):
        group = [one for one in others if one["name"] == name]
        if group:
            rows.append(_row(f"logits of {inference['images']} images", ours, group))
    return rows


def _row(what: str, ours: Document, others: list[Document]) -> tuple[str, ...]:
    best = min(others, key=lambda one: one["median_ms"])
    name = f"{best['name']} ({best['setting']})"
    return (what, _ms(ours), f"{_ms(best)}, {name}", f"{best['ratio']:.1f} ×")


def _ms(one: Document) -> str:
    return f"{milliseconds(one['median_ms'] / 1e3)} ms"


def _mnist_rows(mnist: Document) -> list[tuple[str, ...]]:
    cold, warm = mnist["summary"]["cold"], mnist["summary"]["warm"]
    seeds = len(mnist["runs"]) // 2
    reached = f"{100 * cold['lowest_accuracy']:.2f} % at least, {seeds} seeds"
    memory = f"{max(cold['peak_bytes'], warm['peak_bytes']) / 1e6:.0f} MB at most"
    return [
        ("MNIST to 99 %, whole process, empty caches", f"{cold['seconds']:.1f} s", reached, ""),
        ("the same, warm", f"{warm['seconds']:.1f} s", memory, ""),
    ]


def _startup_rows(startup: Document) -> list[tuple[str, ...]]:
    return [
        (kind["name"], f"{kind['median']:.2f} s", "", "")
        for kind in startup["kinds"]
        if kind["target"] is not None
    ]


def _circumstances(step: Document, mnist: Document | None) -> str:
    where, peak = step["circumstances"], step["peak_gflops"]
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    accuracy = " Accuracy is that of the 10,000 test images." if mnist else ""
    quiet = f"{100 * peak['given']:.0f} % of the processors' time was ours"
    return fill(
        f"LeNet-5, fp32, {step['threads']} threads for everybody, medians; in one run, in turns,"
        f" results compared first.{accuracy} {where['machine']}; peak {peak['best']:.0f} GFLOP/s;"
        f" {quiet}; load {where['load_before']} before, {where['load_after']} after; {versions};"
        f" {where['commit']}. By `python bench/all.py`.",
        100,
        break_on_hyphens=False,
    )


def write(file: Path, text: str) -> None:
    """Put the table between the two marks."""
    old = file.read_text(encoding="utf-8")
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{file}: the marks {BEGIN.strip()} and {END.strip()} are not there")
    file.write_text(before + begin + text + end + after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
