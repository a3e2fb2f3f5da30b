"""How long it takes to begin: importing, sizing, compiling networks cold and from the cache.

    python bench/startup.py
    python bench/startup.py --runs 21 --json
    python bench/startup.py --stages resnet20

Claims: `import lanewise` takes under 150 ms and `lanewise size lenet5` 0.15 s, whole processes;
LeNet-5 is compiled for training in 1.5 s, ResNet-20 in 5 s, ResNet-18 for inference in 10 s; from
the cache they are loaded in 0.1, 0.2 and 0.2 s.

Every run is a fresh process, and the kinds take turns. Beside each whole process stand a Python
that does nothing and one that only imports NumPy. "Inside" is measured within the process: the
import statement alone, or `compile_net` alone, from the description of the network to a program
that can run.

`--stages` instead tells what one compilation for training and one for inference are made of, one
stage after the other; `compile_net` has LLVM at work on the first kernels while the last are still
being lowered.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from measure import Circumstances, circumstances, load, run_process

T = TypeVar("T")

IMPORT = """
import time
begin = time.perf_counter()
import lanewise
print(time.perf_counter() - begin)
"""
COMPILE = """
from lanewise.native import compile_net
from lanewise.net.load import load
program = compile_net(load("{net}"), training={training})
assert program.from_cache is {warm}
print(program.compile_seconds)
"""

STAGES = """
import json, sys
sys.path.insert(0, {folder!r})
from startup import stages
from lanewise.native.compile import collector_paused
with collector_paused():
    print(json.dumps(stages({net!r}, {training})))
"""

#: network, whether for training, seconds aimed at: cold, and from the cache
NETWORKS: tuple[tuple[str, bool, float | None, float | None], ...] = (
    ("lenet5", True, 1.5, 0.1),
    ("resnet20", True, 5.0, 0.2),
    ("resnet18", False, 10.0, 0.2),
    ("mobilenet-v2-small", True, None, 0.2),
    ("densenet121", False, None, 0.2),
)


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
    parser.add_argument("--stages", metavar="NET", help="what its compilation is made of")
    args = parser.parse_args()
    if args.stages:
        print("\n".join(stage_report(args.stages)))
        return 0
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
    "python, importing numpy": (None, _python("import numpy")),
    "import lanewise": (0.15, _python(IMPORT)),
    "lanewise size lenet5": (0.15, lambda: ["-m", "lanewise", "size", "lenet5"]),
}
for _net, _training, *_aims in NETWORKS:
    _use = "training" if _training else "inference"
    for _warm, _aim in zip((False, True), _aims, strict=True):
        _name = f"compile {_net} for {_use}, {'from cache' if _warm else 'cold'}"
        KINDS[_name] = (_aim, _python(COMPILE.format(net=_net, training=_training, warm=_warm)))


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


# ---- stages -------------------------------------------------------------------------------------


def stage_report(net: str) -> list[str]:
    """Seconds of each stage of a compilation, for training and inference, a process for each."""
    from lanewise.size.table import aligned

    uses = {"training": "True", "inference": "False"}
    columns = []
    for training in uses.values():
        program = STAGES.format(folder=str(Path(__file__).parent), net=net, training=training)
        columns.append(json.loads(run_process([sys.executable, "-c", program]).output))
    rows = [("", *uses)]
    rows += [(stage, *(f"{column[stage]:.3f}" for column in columns)) for stage in columns[0]]
    rows.append(("all", *(f"{sum(column.values()):.3f}" for column in columns)))
    head = f"Compiling {net}, one stage after the other on one core, in seconds"
    return [head, "", *aligned(rows, (False, True, True))]


def stages(net: str, training: bool) -> dict[str, float]:
    """What compiling a network is made of, nothing from the cache."""
    from lanewise.native import compile_net, lower, nest_check
    from lanewise.native.compile import write_modules
    from lanewise.native.directions import plan_directions
    from lanewise.native.machine_code import CompileTimes, Library, compile_modules
    from lanewise.native.optimizers import SGD
    from lanewise.native.target import find_target
    from lanewise.net.load import load as read

    compile_net(
        read("input 1x4x4; flatten; linear 2"), cache=False
    ).close()  # imports what is used late
    seconds: dict[str, float] = {}
    target = find_target("host")
    graph = _timed(seconds, "read", lambda: read(net))
    plans = _timed(seconds, "plan, write nests", lambda: plan_directions(graph, target, training))
    kernels = {kernel.name: kernel for plan in plans.values() for kernel in plan.kernels}.values()
    _timed(seconds, "check nests", lambda: [nest_check.check(kernel) for kernel in kernels])
    _timed(seconds, "lower nests", lambda: [lower.lower(kernel) for kernel in kernels])
    modules, _ = write_modules(graph, target, training, SGD())
    times = CompileTimes()
    objects = compile_modules(list(modules), target, 1, times)
    seconds |= {f"LLVM: {name}": getattr(times, name) for name in ("parse", "verify", "codegen")}
    _timed(seconds, "link, load", lambda: Library.load(objects).address("run"))
    return seconds


def _timed(seconds: dict[str, float], stage: str, work: Callable[[], T]) -> T:
    begin = time.perf_counter()
    result = work()
    seconds[stage] = time.perf_counter() - begin
    return result


def _cells(seconds: tuple[float, ...]) -> tuple[str, str]:
    if not seconds:
        return "", ""
    return f"{statistics.median(seconds):.3f}", f"{min(seconds):.3f} – {max(seconds):.3f}"


if __name__ == "__main__":
    sys.exit(main())
