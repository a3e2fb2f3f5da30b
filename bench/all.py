"""Every claim of the README and of docs/performance.md, measured now, as their tables.

    python bench/all.py              prints the two tables in Markdown
    python bench/all.py --write      and puts them between the marks of the two pages
    python bench/all.py --quick      few rounds, without torch.compile: to try it out

Runs step.py, networks.py, mnist.py and startup.py, one after the other, about twelve minutes.
Nothing else should be running: `--write` refuses where other work had more than 3 % of the
processors' time. Needs `pip install -e ".[dev,bench]"`; MNIST is left out where it is not at hand.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from measure import ROOT, milliseconds
from mnist import default_data

BEGIN, END = "<!-- measured -->\n", "<!-- end of measured -->\n"
QUIET = 0.97  # share of the processors' time that a figure worth keeping was measured with
Document = dict[str, Any]
Row = tuple[str, ...]


def main() -> int:
    """Measure, print, and write where asked."""
    args = _arguments()
    quick = args.quick
    step = run("step.py", *(["--rounds", "3", "--turn", "0.05", "--no-compile"] if quick else []))
    networks = run("networks.py", *(["--quick"] if quick else []))
    startup = run("startup.py", *(["--runs", "3"] if quick else []))
    mnist = None
    if args.data.is_dir():
        mnist = run("mnist.py", "--data", str(args.data), "--seeds", "1" if quick else "5")
    pages = {
        ROOT / "README.md": table(step, networks, startup, mnist),
        ROOT / "docs" / "performance.md": networks_table(networks),
    }
    print("\n".join(pages.values()), end="")
    if args.write:
        refuse_if_busy(given(step, networks))
        for page, text in pages.items():
            write(page, text)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="into README.md and the docs")
    parser.add_argument("--data", type=Path, default=default_data(), help="MNIST's IDX files")
    parser.add_argument("--quick", action="store_true", help="few rounds, to try it out")
    return parser.parse_args()


def given(step: Document, networks: Document) -> float:
    """The least share of the processors' time that was ours in a part of the measurement."""
    return min(one["peak_gflops"]["given"] for one in (step, *networks["networks"]))


def refuse_if_busy(given: float) -> None:
    """SystemExit where other work had a share of the processors: it slows the others most."""
    if given < QUIET:
        raise SystemExit(
            f"other work took {100 * (1 - given):.0f} % of the processors meanwhile; the pages are"
            " left as they were: measure again when the machine is quiet"
        )


def run(script: str, *options: str) -> Document:
    """The JSON document of one script; what it tells on the way is passed on."""
    command = [sys.executable, str(ROOT / "bench" / script), "--json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode:
        raise SystemExit(f"{script} ended with {done.returncode}")
    document: Document = json.loads(done.stdout)
    return document


def table(step: Document, networks: Document, startup: Document, mnist: Document | None) -> str:
    """The README's table and what stands below it."""
    rows: list[Row] = [*_training_rows(step["training"]), *_inference_rows(step["inference"])]
    rows += [_network_row(one) for one in networks["networks"]]
    if mnist:
        rows += _mnist_rows(mnist)
    rows += _startup_rows(startup)
    lines = _markdown(("", "Lanewise", "others", "ratio"), ("---", "---:", "---", "---:"), rows)
    return f"{lines}\n\n{_circumstances(step, networks, mnist)}\n"


def _markdown(titles: Row, alignment: Row, rows: Sequence[Row]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [titles, alignment, *rows])


def _network_row(one: Document) -> Row:
    us, *others = one["training"]["contenders"]
    fp32 = [other for other in others if "bf16" not in other["setting"]]
    return _row(f"{one['net']}: training step, batch {one['training']['batch']}", us, fp32)


def networks_table(networks: Document) -> str:
    """The table of docs/performance.md and what stands below it."""
    head = ("network", "", "setting", "ms", "range", "images/s", "ratio", "of the peak")
    align = ("---", "---", "---", "---:", "---:", "---:", "---:", "---:")
    rows: list[Row] = [row for one in networks["networks"] for row in _contender_rows(one)]
    where, parts = networks["circumstances"], networks["networks"]
    left_out = [f"{one['net']}: {line}" for one in parts for line in one["skipped"]]
    quiet = min(one["peak_gflops"]["given"] for one in parts)
    peak = max(one["peak_gflops"]["best"] for one in parts)
    foot = (
        f"One training step, {networks['threads']} threads for everybody, medians and ranges; in"
        " one run, in turns, loss, changes of weights and running statistics compared first."
        f" {where['machine']}; peak {peak:.0f} GFLOP/s; {100 * quiet:.0f} % of the processors'"
        f" time was ours; {_where(where)}. By `{where['command'].replace(' --json', '')}`."
        f" Left out: {'; '.join(left_out) or 'nothing'}."
    )
    return f"{_markdown(head, align, rows)}\n\n{_filled(foot)}\n"


def _contender_rows(one: Document) -> list[Row]:
    """One network's, ours with its share of the peak and the claim."""
    rows: list[Row] = []
    for each in one["training"]["contenders"]:
        ours = each is one["training"]["contenders"][0]
        low, high = (milliseconds(ms / 1e3) for ms in each["range_ms"])
        rows.append(
            (
                f"{one['net']}, batch {one['training']['batch']}" if ours else "",
                each["name"],
                each["setting"],
                milliseconds(each["median_ms"] / 1e3),
                f"{low} – {high}",
                f"{each['images_per_second']:,.0f}",
                "" if ours else f"{each['ratio']:.2f} ×",
                f"{100 * one['training']['share_of_peak']:.0f} %" if ours else "",
            )
        )
    return rows


def _training_rows(training: Document) -> list[Row]:
    ours, *others = training["contenders"]
    fp32 = [one for one in others if "bf16" not in one["setting"]]
    share = f"{100 * training['share_of_peak']:.0f} % of the machine's peak"
    rate = f"{ours['images_per_second']:,.0f}"
    return [
        _row(f"training step, batch {training['batch']}", ours, fp32),
        _row("the same, bf16 allowed to others", ours, others),
        ("images trained on per second", rate, share, ""),
    ]


def _inference_rows(inference: Document) -> list[Row]:
    ours, *others = inference["contenders"]
    rows = []
    for name in ("PyTorch", "ONNX Runtime", "OpenVINO"):
        group = [one for one in others if one["name"] == name]
        if group:
            rows.append(_row(f"logits of {inference['images']} images", ours, group))
    return rows


def _row(what: str, ours: Document, others: list[Document]) -> Row:
    best = min(others, key=lambda one: one["median_ms"])
    name = f"{best['name']} ({best['setting']})"
    return (what, _ms(ours), f"{_ms(best)}, {name}", f"{best['ratio']:.1f} ×")


def _ms(one: Document) -> str:
    return f"{milliseconds(one['median_ms'] / 1e3)} ms"


def _mnist_rows(mnist: Document) -> list[Row]:
    cold, warm = mnist["summary"]["cold"], mnist["summary"]["warm"]
    seeds = len(mnist["runs"]) // 2
    reached = f"{100 * cold['lowest_accuracy']:.2f} % at least, {seeds} seeds"
    memory = f"{max(cold['peak_bytes'], warm['peak_bytes']) / 1e6:.0f} MB at most"
    return [
        ("MNIST to 99 %, whole process, empty caches", f"{cold['seconds']:.1f} s", reached, ""),
        ("the same, warm", f"{warm['seconds']:.1f} s", memory, ""),
    ]


def _startup_rows(startup: Document) -> list[Row]:
    return [
        (kind["name"], f"{kind['median']:.2f} s", "", "")
        for kind in startup["kinds"]
        if kind["target"] is not None
    ]


def _circumstances(step: Document, networks: Document, mnist: Document | None) -> str:
    where, peak = step["circumstances"], step["peak_gflops"]
    accuracy = " Accuracy is that of the 10,000 test images." if mnist else ""
    quiet = f"{100 * given(step, networks):.0f} % of the processors' time was ours"
    return _filled(
        f"fp32, {step['threads']} threads for everybody, medians; in one run, in turns, results"
        f" compared first; LeNet-5 where no network is named.{accuracy} {where['machine']}; peak"
        f" {peak['best']:.0f} GFLOP/s; {quiet}; {_where(where)}. By `python bench/all.py`."
    )


def _where(where: Document) -> str:
    """Load, versions and commit."""
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    loads = f"load {where['load_before']} before, {where['load_after']} after"
    return f"{loads}; {versions}; {where['commit']}"


def _filled(text: str) -> str:
    return fill(text, 100, break_on_hyphens=False)


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
