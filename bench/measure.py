"""How every script here measures: contenders take turns in one process, and medians are told.

A machine has quiet and noisy minutes, so nothing is timed on its own: in each round every contender
runs for about a tenth of a second, then the next one, and the round begins with another one each
time. Between turns everybody sleeps for `PAUSE` seconds, because threads that wait for work may
spin (OpenMP's, ONNX Runtime's, ours) and would take a core from whoever comes next; a turn begins
with one repetition that is not timed, which wakes the contender's own threads.

A virtual machine's processors are taken from it now and then, and a step on two threads waits for
both. Linux counts that time. A turn in which some was taken is measured again, `TRIES` times in
all, and the one that lost least is told: whichever it is, quick or slow, for everybody alike.
"""

from __future__ import annotations

import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import inf
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAUSE = 0.02
FEWEST = 3  # rounds of the slowest
TRIES = 4  # of a turn from which other work took processors
LITTLE = 0.01  # of the processors' time, which does not make a turn another one


@dataclass(frozen=True)
class Contender:
    """Something to be timed: `run(n)` does the work n times. Ratios are to the first of `ours`.

    Where `run` returns a number, that is how many seconds it took: who lives in another process
    measures there.
    """

    name: str
    setting: str
    run: Callable[[int], object]
    ours: bool = False


@dataclass(frozen=True)
class Timing:
    """Seconds of one repetition, a number for each round; of each, the share of the processors'
    time that other guests of the machine took."""

    contender: Contender
    seconds: tuple[float, ...]
    taken: tuple[float, ...] = ()

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.seconds)

    @property
    def best(self) -> float:
        """The fastest round."""
        return min(self.seconds)

    @property
    def worst(self) -> float:
        """The slowest round."""
        return max(self.seconds)

    def times(self, other: Timing) -> float:
        """How many times as long as the other it took, at the median."""
        return self.median / other.median


def interleave(
    contenders: Sequence[Contender],
    rounds: int,
    turn_seconds: float,
    each_round: Callable[[], object] = lambda: None,
    most_seconds: float = inf,
) -> list[Timing]:
    """Time all contenders in turns; `each_round` is called at the start of every round.

    Whoever would need more than about `most_seconds` for all rounds takes part in fewer, spread
    over the whole time, but in three.
    """
    paces = [_pace(one, turn_seconds) for one in contenders]
    repetitions = [max(1, round(turn_seconds / pace)) for pace in paces]
    costs = [(1 + count) * pace for count, pace in zip(repetitions, paces, strict=True)]
    turns = [int(min(rounds, max(FEWEST, most_seconds / cost))) for cost in costs]
    told: list[list[Turn]] = [[] for _ in contenders]
    for turn in range(rounds):
        each_round()
        for place in range(len(contenders)):
            i = (place + turn) % len(contenders)
            if _takes_part(turn, turns[i], rounds):
                told[i].append(_least_disturbed(contenders[i], repetitions[i]))
    return [
        Timing(one, tuple(turn.seconds for turn in turns), tuple(turn.taken for turn in turns))
        for one, turns in zip(contenders, told, strict=True)
    ]


def _takes_part(turn: int, turns: int, rounds: int) -> bool:
    """Whether one of `turns` turns, spread evenly over the rounds, is in this round."""
    return turn * turns // rounds > (turn - 1) * turns // rounds


class Turn(NamedTuple):
    """Seconds of one repetition, and the share of all processors' time that others took."""

    seconds: float
    taken: float


def _least_disturbed(contender: Contender, repetitions: int) -> Turn:
    """A turn, measured again where others took time of it; the quietest counts, quick or slow."""
    least = _turn(contender, repetitions)
    for _ in range(TRIES - 1):
        if least.taken <= LITTLE:
            break
        least = min(least, _turn(contender, repetitions), key=lambda turn: turn.taken)
    return least


def _turn(contender: Contender, repetitions: int) -> Turn:
    time.sleep(PAUSE)
    contender.run(1)
    begin, before = time.perf_counter(), stolen_seconds()
    seconds = _seconds(contender, repetitions)
    taken = (stolen_seconds() - before) / ((time.perf_counter() - begin) * (os.cpu_count() or 1))
    return Turn(seconds / repetitions, taken)


def stolen_seconds(statistics: Path = Path("/proc/stat")) -> float:
    """Seconds of all processors' time that a virtual machine's host gave to others since it began,
    in steps of a hundredth; 0 where nobody counts them. See proc_stat(5), "steal"."""
    try:
        fields = statistics.read_text(encoding="ascii").split("\n", 1)[0].split()
        return int(fields[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError, AttributeError):
        return 0.0


def kept_for_us(timings: Iterable[Timing]) -> float:
    """The share of the processors' time that was not taken, in all turns that are told."""
    taken = [share for one in timings for share in one.taken]
    return 1.0 - statistics.fmean(taken) if taken else 1.0


def _seconds(contender: Contender, repetitions: int) -> float:
    begin = time.perf_counter()
    told = contender.run(repetitions)
    return told if isinstance(told, float) else time.perf_counter() - begin


def _pace(contender: Contender, turn_seconds: float) -> float:
    """Seconds of a repetition: the faster of two trials, or the only one where it fills a turn."""
    contender.run(1)
    trials: list[float] = []
    for times in (1, 3, 3):
        trials.append(_seconds(contender, times) / times)
        if trials[0] > turn_seconds:
            break
    return min(trials)


# ---- whole processes ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Process:
    """A process that has ended: from its start to its end, its memory at most, its output."""

    seconds: float
    peak_bytes: int
    output: str


def run_process(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Process:
    """Run a program to its end. `environment` is added to ours. SystemExit where it fails.

    The memory is the largest resident set. It includes our own before the program was loaded, so
    whoever calls this must be smaller than what is measured.
    """
    added = {**os.environ, **(environment or {})}
    added.pop("PYTHONDONTWRITEBYTECODE", None)  # users' Pythons keep what they compiled
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out, tempfile.TemporaryFile() as errors:
        begin = time.perf_counter()
        child = subprocess.Popen(command, stdout=out, stderr=errors, env=added)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        if child.returncode:
            told = errors.read().decode(errors="replace").strip()
            raise SystemExit(f"{shlex.join(command)} ended with {child.returncode}:\n{told}")
        unit = 1 if sys.platform == "darwin" else 1024
        return Process(seconds, usage.ru_maxrss * unit, out.read())


# ---- who ran where ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Circumstances:
    """What a claim is worth nothing without."""

    machine: str
    versions: dict[str, str]
    commit: str
    command: str
    load_before: float
    load_after: float

    def lines(self) -> list[str]:
        """For the foot of a table."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return [
            *labelled("machine", self.machine),
            *labelled(
                "load", f"{self.load_before} before, {self.load_after} after (1-minute mean)"
            ),
            *labelled("with", versions),
            *labelled("at", self.commit),
            *labelled("command", self.command),
        ]


def labelled(label: str, text: str) -> list[str]:
    """`label    text`, wrapped at 80 columns."""
    return wrap(f"{label:<9}{text}", 80, subsequent_indent=" " * 9)


def load() -> float:
    """How many processes have been running or waiting to, in the last minute."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def circumstances(
    load_before: float, packages: Iterable[str] = (), elsewhere: Mapping[str, str] | None = None
) -> Circumstances:
    """Read after the measurement; `packages` that are installed are told with their versions, and
    those that others use `elsewhere`."""
    names = ["lanewise", "llvmlite", "numpy", *packages]
    found = {name: number for name in names if (number := installed(name))} | dict(elsewhere or {})
    return Circumstances(
        machine=machine(),
        versions={"Python": platform.python_version(), **found},
        commit=_commit(),
        command=shlex.join(["python", *_command()]),
        load_before=round(load_before, 2),
        load_after=round(load(), 2),
    )


def installed(package: str) -> str:
    """The version of a package, or nothing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """The processor's name, how many of its cores are ours, the operating system."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    return f"{name}, {cores()} cores, {platform.system()} {platform.machine()}"


def _command() -> list[str]:
    script = Path(sys.argv[0]).resolve()
    inside = script.is_relative_to(ROOT)
    return [str(script.relative_to(ROOT) if inside else script.name), *sys.argv[1:]]


def _commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, encoding="utf-8")
        return done.stdout.strip() if done.returncode == 0 else ""

    name = git("rev-parse", "--short", "HEAD")
    changed = " with changes in src" if name and git("status", "--porcelain", "--", "src") else ""
    return f"commit {name}{changed}" if name else "no commit: not a git checkout"


# ---- tables -------------------------------------------------------------------------------------


def milliseconds(seconds: float) -> str:
    """Three figures: `8.82`, `327`, `0.541`."""
    ms = 1e3 * seconds
    return f"{ms:.3f}" if ms < 1 else f"{ms:.2f}" if ms < 100 else f"{ms:.0f}"


def timing_table(timings: Sequence[Timing], images: int) -> list[str]:
    """One line a contender: median and range in ms, images per second, ratio to ours."""
    from lanewise.size.table import aligned

    ours = next(one for one in timings if one.contender.ours)
    rows = [("", "setting", "ms", "range", "images/s", "ratio")]
    for one in timings:
        span = f"{milliseconds(one.best)} – {milliseconds(one.worst)}"
        rate = f"{images / one.median:,.0f}"
        ratio = "" if one is ours else f"{one.times(ours):.2f} ×"
        name, setting = one.contender.name, one.contender.setting
        rows.append((name, setting, milliseconds(one.median), span, rate, ratio))
    return aligned(rows, (False, False, True, True, True, True))


def timing_json(timings: Sequence[Timing], images: int) -> list[dict[str, object]]:
    """The same for programs, with every round."""
    ours = next(one for one in timings if one.contender.ours)
    return [
        {
            "name": one.contender.name,
            "setting": one.contender.setting,
            "median_ms": round(1e3 * one.median, 4),
            "range_ms": [round(1e3 * one.best, 4), round(1e3 * one.worst, 4)],
            "images_per_second": round(images / one.median, 1),
            "ratio": round(one.times(ours), 3),
            "rounds_ms": [round(1e3 * seconds, 4) for seconds in one.seconds],
            "taken": [round(share, 3) for share in one.taken],
        }
        for one in timings
    ]
