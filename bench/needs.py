"""What kernels need besides multiply–adds: counted, and put in seconds by what was measured.

Counted in the loop nest: loads, sums of lanes, transpositions of 16 × 16 values, and the longest
chain of multiply–adds that wait for one another. Lines of 64 bytes that come from beyond the first
and the second cache are counted by running the machine code once more with a model of the caches
beside it: every load and store tells its address, sets and ways are this machine's, and the line
that was used longest ago leaves. A line whose left neighbour is in the cache comes in a row;
one that comes alone takes longer. A line that is written comes and goes, at a speed of its own.

Lines from beyond the second cache may come while others are worked on. What all needs take is
between two figures, with all of that under the work and with none of it; told is the middle.
"""

from __future__ import annotations

import ctypes
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from caches import Lines, cache_shapes, watched_functions
from lanewise.native.lower import lower
from lanewise.native.machine_code import Library, compile_ir
from lanewise.native.nest import (
    LANES,
    Assign,
    Buffer,
    Constant,
    Fetch,
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
        functions = watched_functions(functions)
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


# ---- counts of the machine code ------------------------------------------------------------------


def far_lines(calls: Sequence[Made], arrays: Sequence[np.ndarray], target: Target) -> Lines:
    """The lines of one round of calls that follows another."""
    kernels = [made.kernel for made in calls]
    text = module(kernels, [driver("watched", calls, len(arrays))], watched=True)
    library = Library.load(compile_ir(text, target))
    numbers = (ctypes.c_int64 * 16).from_address(library.address("caches"))
    sets, ways, sets_beyond, ways_beyond = cache_shapes()
    numbers[:4] = [sets - 1, ways, sets_beyond - 1, ways_beyond]
    run = runner(library, "watched", [array.ctypes.data for array in arrays])
    run(1)
    numbers[4:9] = [0] * 5
    run(1)
    return Lines(*numbers[4:9])


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
        if isinstance(statement, Fetch):
            continue  # what it brings is counted where it is read
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
    """One core: GFLOP/s, cycles a second; seconds of a line of 64 bytes that is read from the first
    cache, the second, from beyond in a row and alone, and that is written in the first, the second
    and beyond, as a kernel takes that does nothing else; of a sum of lanes, of a transposition."""

    peak: float
    clock: float
    near: float
    second: float
    beyond: float
    alone: float
    write_near: float
    write_second: float
    write_beyond: float
    lane_sum: float
    transposition: float

    def __str__(self) -> str:
        def speeds(*seconds: float) -> str:
            return ", ".join(f"{LINE / one / 1e9:.0f}" for one in seconds)

        reads = speeds(self.near, self.second, self.beyond, self.alone)
        writes = speeds(self.write_near, self.write_second, self.write_beyond)
        lanes = f"{self.lane_sum * self.clock:.0f}"
        turned = f"{self.transposition * self.clock:.0f}"
        return (
            f"{self.peak:.0f} GFLOP/s; reads {reads} GB/s from the\nfirst cache, the second, "
            f"beyond in rows and line by line; writes {writes};\na sum of lanes takes {lanes} "
            f"cycles, a transposition {turned}."
        )

    def seconds(self, needs: Counter[str], lines: Lines) -> dict[str, float]:
        """What each of the needs takes alone."""
        beyond = lines.row * (self.beyond - self.second) + lines.alone * (self.alone - self.second)
        beyond += lines.written_beyond * (self.write_beyond - self.write_second)
        second = lines.read * max(0.0, self.second - self.near)
        second += lines.written * max(0.0, self.write_second - self.write_near)
        return {
            "loads": max(needs["loads"] * self.near, needs["stores"] * self.write_near),
            "chains": needs["links"] * LATENCY / self.clock,
            "second": second,
            "beyond": max(0.0, beyond),
            "lanes": needs["sums"] * self.lane_sum + needs["transpositions"] * self.transposition,
        }


def together(products: float, needs: dict[str, float]) -> float:
    """Seconds of all: multiply–adds under loads or chains, with lines from the second cache and
    work on lanes; halfway between all of `beyond` under that and none of it."""
    work = max(products, needs["loads"], needs["chains"]) + needs["second"] + needs["lanes"]
    return (max(work, needs["beyond"]) + work + needs["beyond"]) / 2


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


def writing(lines: int) -> Kernel:
    """Writes zeros."""
    target = Buffer("target", (lines, LANES), access="write")
    writer = Writer("writing", [Buffer("unread", (1, LANES)), target])
    with writer.loop("i", lines, 0, 8) as i:
        for j in range(8):
            writer.store(target, as_index(i) + j, 0, value=Constant(0.0))
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
    written = {f"write_{name}": of(writing(number), number) for name, number in lines.items()}
    clock = 1e9 * peak / (2 * target.register_lanes * target.fma_per_cycle)
    lanes = {"lane_sum": of(summing(), 64), "transposition": of(turning(), 8)}
    return Machine(peak, clock, **found, alone=alone, **written, **lanes)
