"""What kernels need besides multiply–adds: counted, and put in seconds by what was measured.

Counted in the loop nest: loads, sums of lanes, transpositions of 16 × 16 values, and the longest
chain of multiply–adds that wait for one another. Lines of 64 bytes that come from beyond the first
and the second cache are counted by running the machine code once more with a model of the caches
beside it: every load and store tells its address, sets and ways are this machine's, and the line
that was used longest ago leaves. A line whose left neighbour is in the cache comes in a row;
one that comes alone takes longer. A line that is written comes and goes.
"""

from __future__ import annotations

import ctypes
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lanewise.native.lower import lower
from lanewise.native.machine_code import Library, compile_ir
from lanewise.native.nest import (
    LANES,
    Assign,
    Buffer,
    Kernel,
    Load,
    Loop,
    Op,
    Read,
    Statement,
    Store,
    Transpose,
    Value,
    Writer,
    as_index,
    op,
)
from lanewise.native.nest_domain import Domain
from lanewise.native.program import aligned
from lanewise.native.target import Target
from lanewise.native.tiles import LATENCY

LINE = 64
NEEDS = ("loads", "chains", "second", "beyond", "lanes", "all")

# ---- machine code of kernels --------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """A call of a kernel: for each of its buffers the number of an array, and how many bytes
    further it begins at each of `pieces` calls."""

    kernel: Kernel
    arrays: tuple[int, ...]
    pieces: int = 1
    further: tuple[int, ...] = ()


def driver(name: str, calls: Sequence[Made], arrays: int) -> str:
    """LLVM IR of name(times, arrays …), which makes the calls that many times."""
    pointers = [f"ptr %p{i}" for i in range(arrays)]
    return "\n".join(
        [
            f"define void @{name}(i64 %times, {', '.join(pointers)}) nounwind {{",
            "entry:",
            "  br label %head",
            "head:",
            "  %i = phi i64 [ 0, %entry ], [ %next, %head ]",
            *(line for number, made in enumerate(calls) for line in _pieces(number, made)),
            "  %next = add i64 %i, 1",
            "  %more = icmp slt i64 %next, %times",
            "  br i1 %more, label %head, label %done",
            "done:",
            "  ret void",
            "}",
        ]
    )


def _pieces(number: int, made: Made) -> Iterator[str]:
    """The calls, piece by piece."""
    steps = made.further or (0,) * len(made.arrays)
    for piece in range(made.pieces):
        places = []
        for i, (array, step) in enumerate(zip(made.arrays, steps, strict=True)):
            place = f"%at.{number}.{piece}.{i}"
            yield f"  {place} = getelementptr i8, ptr %p{array}, i64 {piece * step}"
            places.append(f"ptr {place}")
        yield f"  call void @{made.kernel.name}({', '.join(places)})"


def module(kernels: Sequence[Kernel], drivers: Sequence[str], watched: bool = False) -> str:
    """LLVM IR of the kernels, each once, and of what calls them; `watched` by a model of caches."""
    lowered = [lower(kernel) for kernel in {one.name: one for one in kernels}.values()]
    declarations = sorted(set[str]().union(*(one.declarations for one in lowered)))
    tables = [line for one in lowered for line in one.tables]
    functions = [one.function for one in lowered]
    if watched:
        functions = [MODEL, *(_ACCESS.sub(_told, one) for one in functions)]
    return "\n".join([*tables, *declarations, *functions, *drivers])


def runner(library: Library, name: str, addresses: Sequence[int]) -> Callable[[int], None]:
    """run(times) of a driver on these arrays."""
    kinds = [ctypes.c_int64, *[ctypes.c_void_p] * len(addresses)]
    function = ctypes.CFUNCTYPE(None, *kinds)(library.address(name))
    return lambda times: function(times, *addresses)


def seconds_of(run: Callable[[int], None], times: int) -> float:
    """Processor seconds of one repetition."""
    begin = time.thread_time()
    run(times)
    return (time.thread_time() - begin) / times


def random_numbers(floats: int, seed: int) -> np.ndarray:
    """An aligned array of normal numbers (a few thousand of them, repeated)."""
    array = aligned(floats)
    array[:] = np.resize(np.random.default_rng(seed).normal(size=9973), floats)
    return array


# ---- the model of the caches --------------------------------------------------------------------

#: a load or a store of floats; tables of integers stay unseen
_ACCESS = re.compile(r"^  (?:%\S+ = load|store) (?:<\d+ x float>|float)[^\n]*ptr (%[^,\s]+),", re.M)


def _told(access: re.Match[str]) -> str:
    """The access, after it has told its address and whether it writes."""
    writes = int(access.group().startswith("  store"))
    return f"  call void @touch(ptr {access.group(1)}, i64 {writes})\n{access.group()}"


#: @caches: sets − 1 and ways of both caches, then counts: lines from the second cache, from beyond
#: in a row, from beyond alone; then tags. `look` moves a line to the front of its set.
_MOST_SETS, _MOST_WAYS = 4096, 32
MODEL = f"""
@caches = global [8 x i64] zeroinitializer
@near = global [{_MOST_SETS * _MOST_WAYS} x i64] zeroinitializer
@far = global [{_MOST_SETS * _MOST_WAYS} x i64] zeroinitializer

define internal i1 @look(i64 %line, ptr %tags, i64 %mask, i64 %ways, i1 %moves) nounwind {{
entry:
  %set = and i64 %line, %mask
  %start = mul i64 %set, %ways
  %row = getelementptr i64, ptr %tags, i64 %start
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %again ]
  %carried = phi i64 [ %line, %entry ], [ %tag, %again ]
  %at = getelementptr i64, ptr %row, i64 %i
  %tag = load i64, ptr %at
  br i1 %moves, label %move, label %compare
move:
  store i64 %carried, ptr %at
  br label %compare
compare:
  %hit = icmp eq i64 %tag, %line
  br i1 %hit, label %done, label %again
again:
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %ways
  br i1 %more, label %head, label %done
done:
  ret i1 %hit
}}

define internal void @add(i64 %counter, i64 %lines) alwaysinline {{
  %at = getelementptr i64, ptr @caches, i64 %counter
  %before = load i64, ptr %at
  %after = add i64 %before, %lines
  store i64 %after, ptr %at
  ret void
}}

define internal void @touch(ptr %pointer, i64 %writes) nounwind {{
entry:
  %address = ptrtoint ptr %pointer to i64
  %line = lshr i64 %address, 6
  %lines = add i64 %writes, 1
  %mask = load i64, ptr @caches
  %ways.at = getelementptr i64, ptr @caches, i64 1
  %ways = load i64, ptr %ways.at
  %here = call i1 @look(i64 %line, ptr @near, i64 %mask, i64 %ways, i1 1)
  br i1 %here, label %done, label %second
second:
  %mask2.at = getelementptr i64, ptr @caches, i64 2
  %mask2 = load i64, ptr %mask2.at
  %ways2.at = getelementptr i64, ptr @caches, i64 3
  %ways2 = load i64, ptr %ways2.at
  call void @add(i64 4, i64 %lines)
  %there = call i1 @look(i64 %line, ptr @far, i64 %mask2, i64 %ways2, i1 1)
  br i1 %there, label %done, label %beyond
beyond:
  %left = sub i64 %line, 1
  %neighbour = call i1 @look(i64 %left, ptr @far, i64 %mask2, i64 %ways2, i1 0)
  %alone = select i1 %neighbour, i64 5, i64 6
  call void @add(i64 %alone, i64 %lines)
  br label %done
done:
  ret void
}}
"""


def cache_shapes() -> tuple[int, int, int, int]:
    """Sets and ways of the first and the second cache, as the system tells, or usual ones."""
    found = {}
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        told = {
            name: (folder / name).read_text(encoding="utf-8").strip()
            for name in ("level", "type", "number_of_sets", "ways_of_associativity")
        }
        if told["type"] != "Instruction":
            sets, ways = int(told["number_of_sets"]), int(told["ways_of_associativity"])
            found[told["level"]] = sets, ways
    shapes = found.get("1", (64, 8)), found.get("2", (1024, 16))
    return *shapes[0], *shapes[1]


def far_lines(
    calls: Sequence[Made], arrays: Sequence[np.ndarray], target: Target
) -> tuple[int, int, int]:
    """Lines from the second cache, from beyond in a row, from beyond alone, of one round of calls
    that follows another."""
    kernels = [made.kernel for made in calls]
    text = module(kernels, [driver("watched", calls, len(arrays))], watched=True)
    library = Library.load(compile_ir(text, target))
    numbers = (ctypes.c_int64 * 8).from_address(library.address("caches"))
    sets, ways, sets_beyond, ways_beyond = cache_shapes()
    numbers[:4] = [sets - 1, ways, sets_beyond - 1, ways_beyond]
    run = runner(library, "watched", [array.ctypes.data for array in arrays])
    run(1)
    numbers[4:7] = [0, 0, 0]
    run(1)
    return numbers[4], numbers[5], numbers[6]


# ---- counts of the nest -------------------------------------------------------------------------


def counted(kernel: Kernel) -> Counter[str]:
    """Loads, lane sums, transpositions of one call, and links of chains of multiply–adds."""
    total: Counter[str] = Counter()
    _add_body(kernel.body, Domain({}, kernel.buffers), total)
    return total


def _add_body(body: tuple[Statement, ...], domain: Domain, total: Counter[str]) -> None:
    here: Counter[str] = Counter()
    chains: Counter[int] = Counter()
    for statement in body:
        if isinstance(statement, Loop):
            domain.enter(statement)
            if not domain.never_runs():
                _add_body(statement.body, domain, total)
            domain.leave()
            continue
        values = statement.values if isinstance(statement, Transpose) else (statement.value,)
        here["transpositions"] += isinstance(statement, Transpose)
        seen: set[int] = set()
        for value in values:
            _add_value(value, here, seen)
        if isinstance(statement, Assign) and _goes_on(statement):
            chains[id(statement.register)] += 1
        here["stores"] += isinstance(statement, Store)
    here["links"] = max(chains.values(), default=0)
    trips = domain.trips() if any(here.values()) else 0
    for name, amount in here.items():
        total[name] += amount * trips


def _goes_on(statement: Assign) -> bool:
    """Whether a register's new value is a multiply–add to its old one."""
    value = statement.value
    return (
        isinstance(value, Op)
        and value.name == "fma"
        and isinstance(value.arguments[2], Read)
        and value.arguments[2].register is statement.register
    )


def _add_value(value: Value, here: Counter[str], seen: set[int]) -> None:
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Load):
        here["loads"] += 1
    elif isinstance(value, Op):
        here["sums"] += value.name == "lanesum"
        for argument in value.arguments:
            _add_value(argument, here, seen)


# ---- what one core can do -----------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """One core: GFLOP/s, cycles a second; seconds of a line of 64 bytes from the first cache, the
    second, from beyond in a row and alone, as a kernel that reads nothing else gets them; seconds
    of a sum of lanes and of a transposition."""

    peak: float
    clock: float
    near: float
    second: float
    beyond: float
    alone: float
    lane_sum: float
    transposition: float

    def __str__(self) -> str:
        speeds = (LINE / s / 1e9 for s in (self.near, self.second, self.beyond, self.alone))
        reads = ", ".join(f"{speed:.0f}" for speed in speeds)
        lanes = f"{self.lane_sum * self.clock:.0f}"
        turned = f"{self.transposition * self.clock:.0f}"
        return (
            f"{self.peak:.0f} GFLOP/s; reads {reads} GB/s from the\nfirst cache, the second, and "
            f"beyond in rows and line by line; a sum of lanes takes\n{lanes} cycles, a "
            f"transposition {turned}."
        )

    def seconds(self, needs: Counter[str], lines: tuple[int, int, int]) -> dict[str, float]:
        """What each of the needs takes alone."""
        second, row, alone = lines
        beyond = row * (self.beyond - self.second) + alone * (self.alone - self.second)
        return {
            "loads": needs["loads"] * self.near,
            "chains": needs["links"] * LATENCY / self.clock,
            "second": second * max(0.0, self.second - self.near),
            "beyond": max(0.0, beyond),
            "lanes": needs["sums"] * self.lane_sum + needs["transpositions"] * self.transposition,
        }


def together(products: float, needs: dict[str, float]) -> float:
    """Seconds of all: multiply–adds under loads or chains; the rest one after the other."""
    under = max(products, needs["loads"], needs["chains"])
    return under + needs["second"] + needs["beyond"] + needs["lanes"]


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


def measured_machine(target: Target, peak: float) -> Machine:
    """The rest of what is known of a core, beside its peak."""

    def of(kernel: Kernel, parts: int) -> float:
        """Seconds of one of its parts, the best of nine turns."""
        text = module([kernel], [driver("run", [Made(kernel, (0, 1))], 2)])
        library = Library.load(compile_ir(text, target))
        floats = [int(np.prod([int(n) for n in one.shape])) for one in kernel.buffers]  # type: ignore[arg-type]
        arrays = [random_numbers(size, 0) for size in floats]
        run = runner(library, "run", [array.ctypes.data for array in arrays])
        return min(seconds_of(run, max(1, (1 << 19) // parts)) for _ in range(9)) / parts

    sizes = {"near": 16 << 10, "second": 512 << 10, "beyond": 8 << 20}
    lines = {name: size // LINE for name, size in sizes.items()}
    alone = of(reading(lines["beyond"], 16), lines["beyond"])
    found = {name: of(reading(number, 1), number) for name, number in lines.items()}
    clock = 1e9 * peak / (2 * target.register_lanes * target.fma_per_cycle)
    return Machine(
        peak,
        clock,
        **found,
        alone=alone,
        lane_sum=of(summing(), 64),
        transposition=of(turning(), 8),
    )
