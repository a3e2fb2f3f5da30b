"""What one core can do: kernels of the engine's own code generator that each do one thing, timed
again and again beside other measurements (`needs.py` has what comes of it)."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import comb, log

import numpy as np

from caches import Lines, cache_shapes
from lanewise.native.machine_code import Library, compile_ir
from lanewise.native.nest import (
    LANES,
    Buffer,
    Constant,
    Entry,
    Kernel,
    Read,
    as_index,
    op,
    table,
)
from lanewise.native.target import Target
from lanewise.native.tiles import LATENCY
from lanewise.native.writer import Writer
from needs import FLOAT, LINE, Made, driver, module, random_numbers, runner, seconds_of

#: what kernels need, and all of it
NEEDS = ("loads", "turns", "stores", "chains", "second", "third", "memory", "alone", "lanes", "all")
#: the kinds of lines: read in a row or alone, written likewise
READ, READ_ALONE, WRITTEN, WRITTEN_ALONE = range(4)
#: bytes of the arrays that stand for the caches and for memory, and those between the last two
LEVELS = {"near": 16 << 10, "second": 512 << 10, "third": 3 << 20, "memory": 32 << 20}
BETWEEN = (4 << 20, 6 << 20, 8 << 20, 12 << 20, 16 << 20, 24 << 20)
#: bytes of a page of memory
PAGE = 4096
#: floats up to which a probe has arrays of its own, in pages of 4 KB as layers have (NumPy asks for
#: huge ones from 4 MB on)
OWN = 1 << 19
#: lines between two that come alone: as far as maps of 8 × 8 and more lie apart
APART = 64


@dataclass(frozen=True)
class Machine:
    """One core: GFLOP/s, cycles a second; seconds of a line of 64 bytes of each kind from each
    level, as a kernel takes that does nothing else, and past the caches; how much of the seconds of
    its loads a multiply–add loses beside them; seconds of a multiply–add that waits for a line that
    comes alone from the third cache, from memory; of a turn of a loop, of a sum of lanes, of a
    transposition; the ways of the second cache, and the bytes of the third, that are ours."""

    peak: float
    clock: float
    lines: dict[str, tuple[float, float, float, float]]
    away: float
    beside: float
    waiting: tuple[float, float]
    turn: float
    lane_sum: float
    transposition: float
    second: int
    third: int

    @property
    def rooms(self) -> tuple[int, int]:
        """Ways of the second cache, bytes of the third."""
        return self.second, self.third

    def __str__(self) -> str:
        def speeds(kind: int) -> str:
            return ", ".join(f"{LINE / one[kind] / 1e9:.0f}" for one in self.lines.values())

        waiting = " and ".join(f"{one * self.clock:.1f}" for one in self.waiting)
        return (
            f"{self.peak:.0f} GFLOP/s. GB/s of the first cache, the second, the third and memory:\n"
            f"reads {speeds(READ)}, alone {speeds(READ_ALONE)}; writes {speeds(WRITTEN)}, alone "
            f"{speeds(WRITTEN_ALONE)},\npast the caches {LINE / self.away / 1e9:.0f}; "
            f"{self.second} ways of the second and {self.third / 2**20:.0f} MB of the third are "
            f"ours. A load takes\n{100 * self.beside:.0f} % of its time from multiply–adds beside "
            f"it, one that waits for a line of the third\nor of memory {waiting} cycles, "
            f"a turn of a loop {self.turn * self.clock:.1f}, "
            f"a sum of lanes {self.lane_sum * self.clock:.0f}, a transposition "
            f"{self.transposition * self.clock:.0f}."
        )

    def seconds(self, products: float, needs: Counter[str], lines: Lines) -> dict[str, float]:
        """What each of the needs takes alone."""
        read, write = self.lines["near"][READ], self.lines["near"][WRITTEN]
        third = self._beyond((lines.third[0], 0, *lines.third[2:]), "third")
        memory = self._beyond((lines.memory[0], 0, *lines.memory[2:]), "memory")
        memory += lines.away * self.away
        alone = self._alone(lines)
        return {
            "loads": max(needs["loads"] * read, products + self.beside * needs["loads"] * read),
            "turns": needs["turns"] * self.turn,
            "stores": needs["stores"] * write,
            "chains": needs["links"] * LATENCY / self.clock,
            "second": self._beyond(lines.second, "second"),
            "third": third,
            "memory": memory,
            "alone": alone,
            "lanes": needs["sums"] * self.lane_sum + needs["transpositions"] * self.transposition,
        }

    def _beyond(self, counts: Sequence[int], level: str) -> float:
        """What lines take more than if they were near."""
        near = self.lines["near"]
        each = zip(counts, self.lines[level], (near[0], near[0], near[2], near[2]), strict=True)
        return sum(count * max(0.0, here - there) for count, here, there in each)

    def _alone(self, lines: Lines) -> float:
        """Lines from beyond the second cache for which the rest waits."""
        near, total = self.lines["near"][READ], 0.0
        levels = (("third", lines.third), ("memory", lines.memory))
        for (level, counts), wait, unit in zip(levels, lines.waiting, self.waiting, strict=True):
            own, single = self.lines[level][READ_ALONE], counts[READ_ALONE]
            total += max(single * own, wait * unit) - single * near
        return max(0.0, total)


def together(needs: dict[str, float]) -> float:
    """Seconds of all: multiply–adds among loads, and turns of loops, or chains; stores, lines of
    the second cache and work on lanes; those for which the rest waits; and rows of lines from the
    third cache, half of them under the work, and from memory (both shares are fitted to layers of
    1 × 1)."""
    work = max(needs["loads"] + needs["turns"], needs["chains"])
    work += needs["stores"] + needs["second"]
    work += needs["lanes"] + needs["alone"]
    return work + needs["third"] - min(work, needs["third"]) / 2 + needs["memory"]


def reading(lines: int, step: int) -> Kernel:
    """Adds up an array of so many lines, every `step`-th, then those beside them, …; eight sums."""
    source, total = Buffer("source", (lines, LANES)), Buffer("total", (8, LANES), access="write")
    writer = Writer("reading", [source, total])
    cells = writer.accumulators("a", 8)
    with writer.loop("r", step) as r, writer.loop("i", lines, 0, 8 * step) as i:
        for j, cell in enumerate(cells):
            value = writer.load(source, as_index(i) + j * step + r, 0)
            writer.assign(cell, op("add", Read(cell), value))
    for j, cell in enumerate(cells):
        writer.store(total, j, 0, value=Read(cell))
    return writer.finish()


def writing(lines: int, step: int = 1, away: bool = False) -> Kernel:
    """Writes zeros, every `step`-th line, then those beside them, …"""
    target = Buffer("target", (lines, LANES), access="write")
    writer = Writer("writing", [Buffer("unread", (1, LANES)), target])
    with writer.loop("r", step) as r, writer.loop("i", lines, 0, 8 * step) as i:
        for j in range(8):
            at = as_index(i) + j * step + r
            writer.store(target, at, 0, value=Constant(0.0), away=away)
    return writer.finish()


def multiplying(lines: int, step: int, products: int) -> Kernel:
    """Reads like `reading`; so many multiply–adds take each line, 24 sums in turn."""
    source, total = Buffer("source", (lines, LANES)), Buffer("total", (24, LANES), access="write")
    writer = Writer("multiplying", [source, total])
    cells = writer.accumulators("a", 24)
    factor = writer.let(writer.load(source, 0, 0), "factor")
    with writer.loop("r", step) as r, writer.loop("i", lines, 0, 8 * step) as i:
        for j in range(8):
            value = writer.let(writer.load(source, as_index(i) + j * step + r, 0), "x")
            for n in range(j * products, (j + 1) * products):
                cell = cells[n % len(cells)]
                writer.assign(cell, op("fma", factor, value, Read(cell)))
    for j, cell in enumerate(cells):
        writer.store(total, j, 0, value=Read(cell))
    return writer.finish()


def loading() -> Kernel:
    """256 turns of a product of 4 numbers and 6 vectors from the first cache."""
    vectors, numbers = Buffer("vectors", (32, 6, LANES)), Buffer("numbers", (32, 4), align=4)
    total = Buffer("total", (24, LANES), access="write")
    writer = Writer("loading", [vectors, total, numbers])
    cells = writer.accumulators("a", 24)
    with writer.loop("r", 8), writer.loop("c", 32) as c:
        values = [writer.let(writer.load(vectors, c, j, 0), "x") for j in range(6)]
        for i in range(4):
            weight = writer.let(writer.splat(numbers, c, i), "w")
            for cell, value in zip(cells[6 * i : 6 * i + 6], values, strict=True):
                writer.assign(cell, op("fma", weight, value, Read(cell)))
    for j, cell in enumerate(cells):
        writer.store(total, j, 0, value=Read(cell))
    return writer.finish()


def looping() -> Kernel:
    """256 turns of a loop, in each a single turn of another one, whose end stands in a table as
    that of a loop over kernel rows does; 24 multiply–adds and 2 vectors from the first cache."""
    vectors, ends = Buffer("vectors", (32, 2, LANES)), table("ends", [1] * 8, below=2)
    total = Buffer("total", (24, LANES), access="write")
    writer = Writer("looping", [vectors, total])
    cells = writer.accumulators("a", 24)
    factor = writer.let(writer.load(vectors, 0, 0, 0), "factor")
    with (
        writer.loop("r", 8) as r,
        writer.loop("c", 32) as c,
        writer.loop("m", Entry(ends, as_index(r))) as m,
    ):
        values = [writer.let(writer.load(vectors, as_index(c) + m, j, 0), "x") for j in range(2)]
        for j, cell in enumerate(cells):
            writer.assign(cell, op("fma", factor, values[j % 2], Read(cell)))
    for j, cell in enumerate(cells):
        writer.store(total, j, 0, value=Read(cell))
    return writer.finish()


def summing() -> Kernel:
    """64 sums of lanes, each added to a number."""
    source, total = Buffer("source", (64, LANES)), Buffer("total", (64,), access="update", align=4)
    writer = Writer("summing", [source, total])
    with writer.loop("i", 64) as i:
        value = op("lanesum", writer.load(source, i, 0))
        writer.store(total, i, value=op("add", writer.load(total, i, lanes=1), value))
    return writer.finish()


def turning() -> Kernel:
    """8 transpositions."""
    shape = (8, LANES, LANES)
    source, target = Buffer("source", shape), Buffer("target", shape, access="write")
    writer = Writer("turning", [source, target])
    with writer.loop("i", 8) as i:
        for j, value in enumerate(
            writer.transpose([writer.load(source, i, j, 0) for j in range(16)])
        ):
            writer.store(target, i, j, 0, value=value)
    return writer.finish()


@dataclass(frozen=True)
class _Probe:
    """A kernel that does one thing so many times."""

    run: Callable[[int], None]
    parts: int

    def measure(self) -> float:
        """Seconds of one of them, when the caches know the arrays."""
        self.run(1)
        return seconds_of(self.run, max(1, (1 << 17) // self.parts)) / self.parts


class MachineMeter:
    """The rest of what is known of a core, beside its peak: the medians of what was measured so
    far. Each measurement takes about a twentieth of a second."""

    def __init__(self, target: Target) -> None:
        self.target = target
        #: what each measurement told: seconds by the probes' names, and the peak beside them
        self.rounds: list[dict[str, float]] = []
        floats = max(*LEVELS.values(), *BETWEEN) // FLOAT
        self._array = random_numbers(floats, 0)
        self._probes = {name: self._probe(*one) for name, one in _probes().items()}

    def _probe(self, kernel: Kernel, parts: int) -> _Probe:
        call = Made(kernel, tuple(range(len(kernel.buffers))))
        text = module([kernel], [driver("run", [call], len(kernel.buffers))])
        library = Library.load(compile_ir(text, self.target))
        sizes = [int(np.prod([int(n) for n in one.shape])) for one in kernel.buffers]  # type: ignore[arg-type]
        arrays = [self._array if n > OWN else random_numbers(n, 0) for n in sizes]
        run = runner(library, "run", [array.ctypes.data for array in arrays])
        run.held = library, arrays  # type: ignore[attr-defined]  # outlive the function
        return _Probe(run, parts)

    def measure(self, peak: float) -> None:
        """Once more, beside this peak."""
        found = {name: probe.measure() for name, probe in self._probes.items()}
        self.rounds.append({"peak": peak, **found})

    def machine(self) -> Machine:
        """What is known so far."""
        names = self.rounds[0]
        found = {name: statistics.median(one[name] for one in self.rounds) for name in names}
        peak = found["peak"]
        product = 2 * LANES / peak / 1e9
        lines = {name: tuple(found[f"{name} {kind}"] for kind in range(4)) for name in LEVELS}
        waiting = tuple(
            max(0.0, found[f"{name} waiting"] / MANY - product) for name in ("third", "memory")
        )
        return Machine(
            peak,
            1e9 * peak / (2 * self.target.register_lanes * self.target.fma_per_cycle),
            lines,  # type: ignore[arg-type]
            found["away"],
            self._beside(),
            waiting,  # type: ignore[arg-type]
            self._turn(),
            found["sum"],
            found["transposition"],
            _ways(found),
            _room(found),
        )

    def _turn(self) -> float:
        """Seconds of a turn of a loop: of the two in which 24 multiply–adds and 2 loads stand,
        likewise."""
        beside = self._beside()
        turns = [
            (one["looping"] - 24 * 2 * LANES / one["peak"] / 1e9 - 2 * beside * one[f"near {READ}"])
            / 2
            for one in self.rounds
        ]
        return max(0.0, statistics.median(turns))

    def _beside(self) -> float:
        """The share of its own time that a load takes from multiply–adds: the median of what the
        neighbours of each measurement tell, for the clock may differ from one to the next."""
        shares = [
            (one["loading"] - 24 * 2 * LANES / one["peak"] / 1e9) / (10 * one[f"near {READ}"])
            for one in self.rounds
        ]
        return max(0.0, min(1.0, statistics.median(shares)))


#: multiply–adds that wait for a line where that is measured
MANY = 24


def _ways(found: dict[str, float]) -> int:
    """Ways of the second cache that are ours. An array of four fifths of it is read round and
    round; its pages lie anywhere, so some sets get more lines than they have ways, and read these
    from the third cache each time. With n pages in c places where a page can lie, a page has w or
    more others beside it with the chance of a binomial distribution: w is where that is the share
    that comes from the third cache, by the time that is taken."""
    sets, ways, pages = _second()
    near, far = found[f"second {READ}"], found[f"third {READ}"]
    share = (found["crowded"] - near) / max(1e-12, far - near)
    chance = 1 / max(1, sets * LINE // PAGE)
    found_ways = ways
    for fewer in range(ways, 0, -1):
        if _at_least(fewer, pages - 1, chance) > share:
            break
        found_ways = fewer
    return found_ways


def _at_least(few: int, of: int, chance: float) -> float:
    """The chance that of so many at least so few are there."""
    return 1 - sum(comb(of, i) * chance**i * (1 - chance) ** (of - i) for i in range(few))


def _second() -> tuple[int, int, int]:
    """Sets and ways of the second cache, and the pages in four fifths of it."""
    _, _, sets, ways = cache_shapes()
    return sets, ways, 4 * sets * ways * LINE // PAGE // 5


def _room(found: dict[str, float]) -> int:
    """Bytes of the third cache that are ours: where an array is read round and round and any line
    may leave, half of the lines of an array 2 · ln 2 times as large are still there."""
    middle = (found[f"third {READ}"] + found[f"memory {READ}"]) / 2
    known = [(LEVELS["third"], found[f"third {READ}"])]
    known += [(size, found[f"between {size}"]) for size in BETWEEN]
    for (small, before), (large, after) in pairwise(known):
        if before < middle <= after:
            half = small + (large - small) * (middle - before) / (after - before)
            return int(half / (2 * log(2)))
    return int(BETWEEN[-1] / (2 * log(2)))


def _probes() -> dict[str, tuple[Kernel, int]]:
    """Kernels, and how many lines, sums, turns … each works on."""
    found: dict[str, tuple[Kernel, int]] = {}
    for name, size in LEVELS.items():
        n, apart = size // LINE, min(APART, size // LINE // 8)
        kernels = reading(n, 1), reading(n, apart), writing(n), writing(n, apart)
        found |= {f"{name} {kind}": (kernel, n) for kind, kernel in enumerate(kernels)}
    for name in ("third", "memory"):
        n = LEVELS[name] // LINE
        found[f"{name} waiting"] = multiplying(n, APART, MANY), n
    found |= {f"between {size}": (reading(size // LINE, 1), size // LINE) for size in BETWEEN}
    found["crowded"] = reading(_second()[2] * PAGE // LINE, 1), _second()[2] * PAGE // LINE
    n = LEVELS["memory"] // LINE
    return found | {
        "away": (writing(n, away=True), n),
        "loading": (loading(), 256),
        "looping": (looping(), 256),
        "sum": (summing(), 64),
        "transposition": (turning(), 8),
    }
