"""What this machine can do at most: multiply–adds with nothing else in the way; and its clock.

A kernel's share of the peak is its rate divided by that of a loop of independent fused
multiply–adds that never leaves the registers, made by the engine's own code generator for the same
target and run by all threads at once. No kernel can be faster, so the share says how much of the
machine is in use.
"""

from __future__ import annotations

import ctypes
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import Any

from lanewise.native.machine_code import Library, compile_ir
from lanewise.native.target import Target

#: of the vector registers, the share that accumulates (24 of 32, 12 of 16); one holds the factor
ACCUMULATING = 0.75
ROUND_SECONDS = 0.02
CLOCK_SECONDS = 0.02


@dataclass(frozen=True)
class Peak:
    """GFLOP/s of `threads` threads together (a multiply–add is two operations).

    `given`: the share of the time that the threads had a processor to themselves, 0 to 1. The rates
    are of that time only, so other work on the machine does not make the peak smaller.
    """

    threads: int
    best: float
    median: float
    given: float


class PeakMeter:
    """The loop of multiply–adds, compiled (about 20 ms) and ready to be timed again and again."""

    def __init__(self, target: Target, threads: int) -> None:
        self.threads = threads
        self._library = Library.load(compile_ir(code(target), target))
        spin = ctypes.CFUNCTYPE(None, ctypes.c_int64)
        self._spin = spin(self._library.address("multiply_adds"))
        self._operations = 2 * accumulators(target) * target.register_lanes
        self._turns = 1 << 16
        self._rates: list[float] = []
        self._given: list[float] = []
        while self._seconds()[0] < ROUND_SECONDS:
            self._turns *= 2

    def measure(self) -> float:
        """GFLOP/s of all threads at once, over 0.02 to 0.04 s."""
        seconds, given = self._seconds()
        self._given.append(given)
        self._rates.append(self.threads * self._operations * self._turns / seconds / 1e9)
        return self._rates[-1]

    @property
    def peak(self) -> Peak:
        """Of all measurements so far."""
        return Peak(self.threads, max(self._rates), median(self._rates), median(self._given))

    def _seconds(self) -> tuple[float, float]:
        """Processor seconds of a thread (the mean), and what share of the time it had one."""
        gate = threading.Barrier(self.threads)
        spans: list[tuple[float, float]] = []
        others = [
            threading.Thread(target=self._run, args=(gate, spans)) for _ in range(self.threads - 1)
        ]
        for thread in others:
            thread.start()
        self._run(gate, spans)
        for thread in others:
            thread.join()
        used, passed = (sum(span[i] for span in spans) / self.threads for i in (0, 1))
        return used, min(1.0, used / passed)

    def _run(self, gate: threading.Barrier, spans: list[tuple[float, float]]) -> None:
        gate.wait()
        used, passed = time.thread_time(), time.perf_counter()
        self._spin(self._turns)
        spans.append((time.thread_time() - used, time.perf_counter() - passed))


def measure_peak(target: Target, threads: int, rounds: int = 9) -> Peak:
    """The best and the median of several rounds of about 0.03 s."""
    meter = PeakMeter(target, threads)
    for _ in range(rounds):
        meter.measure()
    return meter.peak


@lru_cache(maxsize=1)
def ticks_per_second(target: Target) -> float:
    """How fast the counter runs that profiled programs read (`Program.profile`)."""
    library = Library.load(compile_ir(CLOCK, target))
    read: Any = ctypes.CFUNCTYPE(ctypes.c_int64)(library.address("ticks"))
    first, begin = read(), time.perf_counter()
    while time.perf_counter() - begin < CLOCK_SECONDS:
        pass
    last, end = read(), time.perf_counter()
    return float(last - first) / (end - begin)


CLOCK = """
declare i64 @llvm.readcyclecounter()
define i64 @ticks() nounwind {
  %now = call i64 @llvm.readcyclecounter()
  ret i64 %now
}
"""


def accumulators(target: Target) -> int:
    """Independent sums: enough to hide the latency, few enough to stay in registers."""
    return int(ACCUMULATING * target.vector_registers)


def code(target: Target) -> str:
    """LLVM IR of `multiply_adds(turns)`: turns times one multiply–add of every accumulator.

    The empty assembly hides the factor's value from the compiler, and uses the sums.
    """
    lanes, sums = target.register_lanes, range(accumulators(target))
    vector, fma = f"<{lanes} x float>", f"@llvm.fma.v{lanes}f32"
    letter = _REGISTER[target.name]
    heads = [f"%a{i} = phi {vector} [ %x, %entry ], [ %b{i}, %head ]" for i in sums]
    steps = [f"%b{i} = call {vector} {fma}({vector} %x, {vector} %x, {vector} %a{i})" for i in sums]
    uses = [f'call void asm sideeffect "", "{letter}"({vector} %b{i})' for i in sums]
    return f"""declare {vector} {fma}({vector}, {vector}, {vector})
define void @multiply_adds(i64 %turns) nounwind {{
entry:
  %x = call {vector} asm sideeffect "", "={letter},0"({vector} zeroinitializer)
  br label %head
head:
  %turn = phi i64 [ %turns, %entry ], [ %left, %head ]
  {_lines(heads)}
  {_lines(steps)}
  %left = sub i64 %turn, 1
  %more = icmp ne i64 %left, 0
  br i1 %more, label %head, label %done
done:
  {_lines(uses)}
  ret void
}}
"""


#: LLVM's letter for "any vector register"
_REGISTER = {"avx512": "v", "avx2": "x", "neon": "w"}


def _lines(instructions: list[str]) -> str:
    return "\n  ".join(instructions)
