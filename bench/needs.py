"""What kernels need besides multiply–adds: counted, and put in seconds by what was measured.

Counted in the loop nest: loads, stores, turns of loops, sums of lanes, transpositions of 16 × 16
values, and the longest chain of multiply–adds that wait for one another. Lines of 64 bytes that
come from beyond the first cache are counted by running the machine code once more with a model of
three caches beside it (`caches.py`): every load and store tells its address.

Measured on this machine, again with every layer, in kernels of the same code generator: what a line
takes that is read or written in a row, or alone, from each cache and from memory; how large the
third cache is for us; what a load takes from the multiply–adds beside it; a turn of a loop; what a
multiply–add takes that waits for a line that comes alone. Few of them have room to wait: with 24
for a line, a line from the third cache takes thrice as long as with none, and twice as long as the
24.
"""

from __future__ import annotations

import ctypes
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from caches import Lines, cache_shapes, third_shape, watched_functions
from lanewise.native.arrays import aligned
from lanewise.native.lower import lower
from lanewise.native.machine_code import Library, compile_ir
from lanewise.native.nest import (
    Assign,
    Kernel,
    Load,
    Loop,
    Op,
    Read,
    Statement,
    Store,
    Transpose,
    Value,
    trips,
)
from lanewise.native.nest_domain import Domain
from lanewise.native.target import Target

LINE, FLOAT = 64, 4

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


def far_lines(
    calls: Sequence[Made], arrays: Sequence[np.ndarray], target: Target, rooms: tuple[int, int]
) -> Lines:
    """The lines of one round of calls that follows another; `rooms`: ways of the second cache, and
    bytes of the third, that are ours."""
    kernels = [made.kernel for made in calls]
    text = module(kernels, [driver("watched", calls, len(arrays))], watched=True)
    library = Library.load(compile_ir(text, target))
    numbers = (ctypes.c_int64 * 32).from_address(library.address("caches"))
    sets, ways, sets_beyond, _ = cache_shapes()
    third, ways_third = third_shape(rooms[1])
    numbers[:6] = [sets - 1, ways, sets_beyond - 1, rooms[0], third - 1, ways_third]
    run = runner(library, "watched", [array.ctypes.data for array in arrays])
    run(1)
    numbers[8:23] = [0] * 15
    run(1)
    return Lines.of(numbers[8:23])


# ---- counts of the nest -------------------------------------------------------------------------


def counted(kernel: Kernel) -> Counter[str]:
    """Loads, stores, turns of loops, lane sums, transpositions of one call, and links of chains of
    multiply–adds."""
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
                total["turns"] += 0 if _is_single(statement) else domain.trips()
                _add_body(statement.body, domain, total)
            domain.leave()
            continue
        if not isinstance(statement, Assign | Store | Transpose):
            continue  # what is fetched is counted where it is read; matrix registers are not
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


def _is_single(loop: Loop) -> bool:
    """Whether a loop is known to turn once: then it is written as its body alone."""
    return not (loop.start.terms or loop.stop.terms) and trips(loop) == 1


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
