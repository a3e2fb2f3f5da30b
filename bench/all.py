"""Every claim of the README and of docs/performance.md, measured now, as their tables.

    python bench/all.py              prints the two tables in Markdown
    python bench/all.py --write      and puts them between the marks of the two pages
    python bench/all.py --quick      few rounds: a quarter of an hour in place of an hour
    python bench/all.py --keep DIR   and each part in a file, from which a later run goes on

Runs targets.py, mnist.py within it, startup.py and sizes.py in turn. Nothing else should be
running. Needs `pip install -e ".[dev,bench,peers]"`, or the peers in an environment of their own
(`--peers PYTHON`); who is missing is named. MNIST is left out where it is not at hand.

What other work takes of the processors, a virtual machine's host included, slows everybody, and
those with more threads at barriers the most: a share of s makes a ratio wrong by about s. So the
share that was ours is printed with the tables, parts below 97 % are named there, and `--write`
refuses where the middle part had less than 90 %: figures are quoted to a tenth.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

from measure import ROOT, milliseconds
from mnist import default_data

BEGIN, END = "<!-- measured -->\n", "<!-- end of measured -->\n"
QUIET = 0.97  # share of the processors' time below which a part is named
ENOUGH = 0.90  # that of the middle part, below which nothing is written
Document = dict[str, Any]
Row = tuple[str, ...]


def main() -> int:
    """Measure, print, and write where asked."""
    args = _arguments()
    how = ["--peers", args.peers, "--data", str(args.data), *["--quick"] * args.quick]
    how += ["--keep", str(args.keep)] if args.keep else []
    targets = run("targets.py", *how)
    few = ["--runs", "3"] if args.quick else []
    startup, sizes = run("startup.py", *few), run("sizes.py", *few)
    pages = {
        ROOT / "README.md": table(targets, startup, sizes),
        ROOT / "docs" / "performance.md": everybody(targets),
    }
    print("\n".join(pages.values()), end="")
    if args.write:
        refuse_if_busy(given(targets))
        for page, text in pages.items():
            write(page, text)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="into README.md and the docs")
    parser.add_argument("--data", type=Path, default=default_data(), help="MNIST's IDX files")
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="as of targets.py")
    parser.add_argument(
        "--peers", metavar="PYTHON", default=sys.executable, help="as of targets.py"
    )
    return parser.parse_args()


def shares(targets: Document) -> dict[str, float]:
    """Title of each part → the share of the processors' time that was ours in the turns told."""
    return {part["title"]: part["kept"] for part in targets["parts"] if "kept" in part}


def given(targets: Document) -> float:
    """The share of the processors' time that was ours in the middle part, all turns and other
    programs of this machine included."""
    parts = [one["peak_gflops"]["given"] for one in targets["parts"] if "peak_gflops" in one]
    return median(parts or [1.0])


def refuse_if_busy(given: float) -> None:
    """SystemExit where other work had a share of the processors: it slows the others most."""
    if given < ENOUGH:
        raise SystemExit(
            f"other work took {100 * (1 - given):.0f} % of the processors meanwhile; the pages are"
            " left as they were: measure again when the machine is quiet"
        )


def run(script: str, *options: str) -> Document:
    """The JSON document of one script; what it tells on the way is passed on."""
    command = [sys.executable, str(ROOT / "bench" / script), "--json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode and not done.stdout.strip():  # targets.py tells what failed in its document
        raise SystemExit(f"{script} ended with {done.returncode}")
    document: Document = json.loads(done.stdout)
    return document


# ---- the README ---------------------------------------------------------------------------------


def table(targets: Document, startup: Document, sizes: Document | None = None) -> str:
    """One line for each thing measured: ours, and the best of all others; then what begins it."""
    rows = [row for part in targets["parts"] for row in _best(part)]
    rows += [row for part in targets["parts"] if part["key"] == "mnist" for row in _mnist(part)]
    rows += _startup(startup)
    rows += _sized(sizes) if sizes else []
    lines = _markdown(("", "Lanewise", "best other", "ratio"), ("---", "---:", "---", "---:"), rows)
    return f"{lines}\n\n{_filled(_foot(targets))}\n"


def _markdown(titles: Row, alignment: Row, rows: Sequence[Row]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [titles, alignment, *rows])


def _best(part: Document) -> list[Row]:
    """The fastest of all others, whoever it is and in whatever number format."""
    others = [one for one in part["contenders"] if one["name"] != "Lanewise"]
    if not others:
        return []
    ours = part["contenders"][0]
    best = min(others, key=lambda one: float(one["median_ms"]))
    told = f"{_ms(best)}, {best['name']} ({best['setting']})"
    return [(part["title"], _ms(ours), told, f"{best['ratio']:.1f} ×")]


def _mnist(part: Document) -> list[Row]:
    cold, warm = part["summary"]["cold"], part["summary"]["warm"]
    seeds = len(part["runs"]) // 2
    reached = f"{100 * cold['lowest_accuracy']:.2f} % at least, {seeds} seed{'s' * (seeds > 1)}"
    memory = f"{max(cold['peak_bytes'], warm['peak_bytes']) / 1e6:.0f} MB at most"
    return [
        ("MNIST to 99 %, whole process, empty caches", f"{cold['seconds']:.1f} s", reached, ""),
        ("the same, warm", f"{warm['seconds']:.1f} s", memory, ""),
    ]


def _startup(startup: Document) -> list[Row]:
    return [
        (kind["name"], f"{kind['median']:.2f} s", "", "")
        for kind in startup["kinds"]
        if kind["target"] is not None
    ]


def _sized(sizes: Document) -> list[Row]:
    """A whole network's sizes, beside whoever else tells them fastest."""
    ours, *others = sizes["contenders"]
    what = f"sizes of {sizes['net']}, {sizes['layers']} layers, after start-up"
    own = f"{milliseconds(ours['median'])} ms"
    if not others:
        return [(what, own, "", "")]
    best = min(others, key=lambda one: one["median"])
    theirs = f"{milliseconds(best['median'])} ms, {best['name']} ({best['setting']})"
    return [(what, own, theirs, f"{best['median'] / ours['median']:.1f} ×")]


def _ms(one: Document) -> str:
    return f"{milliseconds(one['median_ms'] / 1e3)} ms"


def _foot(targets: Document) -> str:
    """Under what circumstances."""
    where, parts = targets["circumstances"], targets["parts"]
    peak = max((one["peak_gflops"]["best"] for one in parts if "peak_gflops" in one), default=0)
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    quick = " --quick" * ("--quick" in where["command"].split())
    return (
        f"{targets['threads']} threads for everybody, medians; in one run, in turns, results"
        f" compared first. {where['machine']}; peak {peak:.0f} GFLOP/s;"
        f" {_given(targets)}; load"
        f" {where['load_before']} before, {where['load_after']} after; {versions};"
        f" {where['commit']}. By `python bench/all.py{quick}`."
    )


def _given(targets: Document) -> str:
    """The share that was ours, and where it was noticeably less."""
    told = (
        f"{100 * given(targets):.0f} % of the processors' time was ours, and in the turns that are"
        f" told {100 * median(shares(targets).values() or [1.0]):.0f} %, because disturbed ones are"
        " measured again"
    )
    less = {title: share for title, share in shares(targets).items() if share < QUIET}
    if not less:
        return told
    named = ", ".join(f"{title} {100 * share:.0f} %" for title, share in less.items())
    return f"{told} (less in {named})"


def _filled(text: str) -> str:
    return fill(text, 100, break_on_hyphens=False)


# ---- docs/performance.md ------------------------------------------------------------------------


def everybody(targets: Document) -> str:
    """The rows that were to be reached, then every setting of everybody, then who is missing."""
    missing = [
        f"- {part['title']}: {line}" for part in targets["parts"] for line in part["skipped"]
    ]
    parts = [
        _targets_table(targets["rows"]),
        "Everybody, with medians and ranges:",
        _contenders_table(targets["parts"]),
        _filled(_foot(targets)),
        "Left out: nobody." if not missing else "Left out:\n\n" + "\n".join(missing),
    ]
    return "\n\n".join(parts) + "\n"


def _targets_table(rows: Sequence[Document]) -> str:
    head = ("", "Lanewise", "beside", "ratio", "at least", "aim", "reached", "best of all others")
    align = ("---", "---:", "---", "---:", "---:", "---:", "---", "---")
    return _markdown(head, align, [_target(row) for row in rows])


def _target(row: Document) -> Row:
    wanted = (row["at_least"], row["aim"])
    if "ours_ms" not in row:
        return (row["what"], "", row["beside"], "", *wanted, row["verdict"], "")
    theirs = f", {milliseconds(row['best_ms'] / 1e3)} ms" if "best_ms" in row else ""
    ratio = f"{row['ratio']:.2f} ×" if "ratio" in row else ""
    best = row.get("best_of_all")
    of_all = f"{row['ratio_to_best_of_all']:.2f} ×, {best}" if best else ""
    ours = f"{milliseconds(row['ours_ms'] / 1e3)} ms"
    return (row["what"], ours, f"{row['best']}{theirs}", ratio, *wanted, row["verdict"], of_all)


def _contenders_table(parts: Sequence[Document]) -> str:
    head = ("", "", "setting", "ms", "range", "images/s", "ratio")
    align = ("---", "---", "---", "---:", "---:", "---:", "---:")
    return _markdown(head, align, [row for part in parts for row in _contenders(part)])


def _contenders(part: Document) -> list[Row]:
    rows: list[Row] = []
    for number, each in enumerate(part["contenders"]):
        low, high = (milliseconds(ms / 1e3) for ms in each["range_ms"])
        rows.append(
            (
                "" if number else part["title"],
                each["name"],
                each["setting"],
                milliseconds(each["median_ms"] / 1e3),
                f"{low} – {high}",
                f"{each['images_per_second']:,.0f}",
                f"{each['ratio']:.2f} ×" if number else "",
            )
        )
    return rows


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
