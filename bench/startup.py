"""How long it takes to begin: importing, sizing, compiling LeNet-5 cold and from the cache.

    python bench/startup.py
    python bench/startup.py --runs 21 --json

Claims: `import lanewise` takes under 150 ms and `lanewise size lenet5` 0.15 s, whole processes;
LeNet-5 is compiled for training in 1.5 s, and loaded from the cache in 0.1 s.

Every run is a fresh process, and the kinds take turns. Beside each whole process stands a Python
that does nothing. "Inside" is measured within the process: the import statement alone, or
`compile_net` alone, from the description of the network to a program that can run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from measure import Circumstances, circumstances, load, run_process

IMPORT = """
import time
begin = time.perf_counter()
import lanewise
print(time.perf_counter() - begin)
"""
COMPILE = """
from lanewise.native import compile_net
from lanewise.net.load import load
program = compile_net(load("lenet5"), training=True)
assert program.from_cache is {warm}
print(program.compile_seconds)
"""


@dataclass(frozen=True)
class Kind:
    """What is started; `target` in seconds is for the figure inside where there is one."""

    name: str
    target: float | None
    seconds: tuple[float, ...]
    inside: tuple[float, ...] = ()

    @property
    def judged(self) -> tuple[float, ...]:
        """The figures that the target is about."""
        return self.inside if self.name.startswith("compile") else self.seconds


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=11, help="processes of each kind (11)")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    args = parser.parse_args()
    before = load()
    kinds = measure(args.runs)
    where = circumstances(before)
    if args.json:
        documents = [{**asdict(kind), "median": statistics.median(kind.judged)} for kind in kinds]
        print(json.dumps({"kinds": documents, "circumstances": asdict(where)}, indent=2))
    else:
        print("\n".join(report(kinds, where)))
    return 0


def measure(runs: int) -> list[Kind]:
    """`runs` rounds of all kinds."""
    found: dict[str, list[tuple[float, str]]] = {}
    with tempfile.TemporaryDirectory(prefix="lanewise-bench-") as folder:
        for number in range(runs):
            cache = {"LANEWISE_CACHE": str(Path(folder) / str(number))}
            for name, (_, command) in KINDS.items():
                done = run_process([sys.executable, *command()], cache)
                found.setdefault(name, []).append((done.seconds, done.output.strip()))
    kinds = []
    for name, results in found.items():
        whole = tuple(round(seconds, 4) for seconds, _ in results)
        texts = [text for _, text in results]
        inside = tuple(round(float(text), 4) for text in texts) if _is_number(texts[0]) else ()
        kinds.append(Kind(name, KINDS[name][0], whole, inside))
    return kinds


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).replace("e-", "", 1).isdecimal()


def _python(program: str) -> Callable[[], list[str]]:
    return lambda: ["-c", program]


#: name → (target in seconds, arguments of Python); each round begins with an empty cache
KINDS: dict[str, tuple[float | None, Callable[[], list[str]]]] = {
    "python, doing nothing": (None, _python("pass")),
    "import lanewise": (0.15, _python(IMPORT)),
    "lanewise size lenet5": (0.15, lambda: ["-m", "lanewise", "size", "lenet5"]),
    "compile lenet5, cold": (1.5, _python(COMPILE.format(warm=False))),
    "compile lenet5, from cache": (0.1, _python(COMPILE.format(warm=True))),
}


def report(kinds: list[Kind], where: Circumstances) -> list[str]:
    """One line a kind: whole process and inside, median and range, beside the target."""
    from lanewise.size.table import aligned

    rows = [("", "whole process", "range", "inside", "range", "aimed at")]
    for kind in kinds:
        target = "" if kind.target is None else f"{kind.target:g} s"
        rows.append((kind.name, *_cells(kind.seconds), *_cells(kind.inside), target))
    runs = len(kinds[0].seconds)
    lines = [f"Starting, {runs} fresh processes each, in seconds", ""]
    lines += aligned(rows, (False, True, True, True, True, True))
    return [*lines, "", "aimed at: the whole process; of compiling, inside", *where.lines()]


def _cells(seconds: tuple[float, ...]) -> tuple[str, str]:
    if not seconds:
        return "", ""
    return f"{statistics.median(seconds):.3f}", f"{min(seconds):.3f} – {max(seconds):.3f}"


if __name__ == "__main__":
    sys.exit(main())
