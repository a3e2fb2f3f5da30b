"""Convolutions of many sizes on one core: does the speed fall off somewhere?

    python bench/sweep.py                      the whole grid (some minutes)
    python bench/sweep.py --quick              a part of it (under a minute)
    python bench/sweep.py --only "k3 16→"      only layers whose label holds these words
    python bench/sweep.py --json sweep.json    the same for programs

A point is one layer as the engine runs it on 16 images: the calls of its forward direction, of the
gradient of its input and of its weights, taken from the plan of a net of that layer alone. In each
round every point of a layer is timed next to a loop of multiply–adds that never leaves the
registers; told is its share of that peak, the median of the rounds, on one core, in processor time
(other work on the machine counts less). Arrays are as warm as the call before left them.

A point under half of the peak is listed with what its kernels must do besides multiply–adds, as the
share that each would allow, about: `loads` of vectors and weights (one a cycle, from the first
cache), `memory` (each array once, from the cache that holds them all; what is written comes and
goes), `sums` of lanes. `all` is what they take one after the other, with the multiply–adds under
the loads: a point that reaches three quarters of it is explained. For depthwise convolutions the
table shows the share of `all` instead.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from lanewise.native.directions import plan_training
from lanewise.native.lower import lower
from lanewise.native.machine_code import Library, compile_ir
from lanewise.native.nest import LANES, Buffer, Kernel, Read, Writer, as_index, op
from lanewise.native.nest_count import count
from lanewise.native.peak import PeakMeter
from lanewise.native.plan import Call, Region
from lanewise.native.planner import KernelShelf
from lanewise.native.program import aligned
from lanewise.native.target import Target, find_target
from lanewise.native.tiles import LANE_SUM
from lanewise.net.parse import parse
from lanewise.size.table import aligned as table_of
from measure import circumstances, load

DIRECTIONS = ("forward", "input", "weight")
PIXELS = (4, 8, 16, 32, 64)
MOST_PRODUCTS = 2.6e9  # of a slice of 16 images; more would take too long
ENOUGH, EXPLAINED = 0.5, 0.75
SQUARE = [(1, 16), (3, 16), (16, 16), (32, 32), (64, 64), (128, 128), (256, 256)]
OTHERS = [(1, 1), (16, 64), (64, 16), (64, 256), (256, 64)]
CHANNELS = (16, 64, 256)


@dataclass(frozen=True)
class Layer:
    """One line of the table: a layer at several sizes. `kernels` is 0 for a depthwise one."""

    channels: int
    kernels: int
    kernel: int
    stride: int = 1

    @property
    def label(self) -> str:
        """`k3 16→64`, `k3 /2 16→64` with stride 2, `k3 depthwise 16`."""
        wide = f"{self.channels}→{self.kernels}" if self.kernels else f"depthwise {self.channels}"
        return f"k{self.kernel} {'/2 ' if self.stride == 2 else ''}{wide}"

    def net(self, size: int) -> str:
        """The net of this one layer."""
        word = f"conv {self.kernels}" if self.kernels else "depthwise"
        window = f"k{self.kernel} stride{self.stride} pad{self.kernel // 2} nobias"
        return f"input {self.channels}x{size}x{size}; {word} {window}"

    def products(self, size: int) -> int:
        """Multiply–adds of 16 images, about."""
        pairs = self.channels * (self.kernels or 1)
        return LANES * pairs * (self.kernel * size // self.stride) ** 2


def layers(quick: bool) -> Iterator[Layer]:
    """The grid."""
    for kernel in (1, 3, 5, 7):
        pairs = SQUARE + OTHERS if kernel < 5 else SQUARE
        for channels, kernels in pairs[::2] if quick else pairs:
            yield Layer(channels, kernels, kernel)
    for kernel in (1, 3) if quick else (1, 3, 5, 7):
        pairs = SQUARE if kernel < 5 else SQUARE[1:6:2]
        for channels, kernels in pairs[1::3] if quick else pairs:
            yield Layer(channels, kernels, kernel, 2)
    for kernel in (3, 5, 7):
        for stride in (1, 2):
            for channels in CHANNELS[1:2] if quick else CHANNELS:
                yield Layer(channels, 0, kernel, stride)


# ---- what one core can do -----------------------------------------------------------------------


def driver(name: str, calls: Sequence[tuple[str, Sequence[int]]], arrays: int) -> str:
    """LLVM IR of name(times, arrays …), which makes the calls that many times.

    A call is a kernel's name and, for each of its buffers, the number of an array.
    """
    pointers = [f"ptr %p{i}" for i in range(arrays)]
    made = [f"  call void @{f}({', '.join(pointers[i] for i in at)})" for f, at in calls]
    return "\n".join(
        [
            f"define void @{name}(i64 %times, {', '.join(pointers)}) nounwind {{",
            "entry:",
            "  br label %head",
            "head:",
            "  %i = phi i64 [ 0, %entry ], [ %next, %head ]",
            *made,
            "  %next = add i64 %i, 1",
            "  %more = icmp slt i64 %next, %times",
            "  br i1 %more, label %head, label %done",
            "done:",
            "  ret void",
            "}",
        ]
    )


def module(kernels: Sequence[Kernel], drivers: Sequence[str]) -> str:
    """LLVM IR of the kernels, each once, and of what calls them."""
    lowered = [lower(kernel) for kernel in {one.name: one for one in kernels}.values()]
    declarations = sorted(set[str]().union(*(one.declarations for one in lowered)))
    tables = [line for one in lowered for line in one.tables]
    return "\n".join([*tables, *declarations, *(one.function for one in lowered), *drivers])


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


def reading(vectors: int) -> Kernel:
    """Adds up an array, eight sums at a time."""
    source, total = Buffer("source", (vectors, LANES)), Buffer("total", (8, LANES), access="write")
    writer = Writer("reading", [source, total])
    cells = writer.accumulators("a", 8)
    with writer.loop("i", vectors, 0, 8) as i:
        for j, cell in enumerate(cells):
            value = writer.load(source, as_index(i) + j, 0)
            writer.assign(cell, op("add", Read(cell), value))
    for j, cell in enumerate(cells):
        writer.store(total, j, 0, value=Read(cell))
    return writer.finish()


@dataclass(frozen=True)
class Machine:
    """One core: GFLOP/s, cycles a second, and GB/s of reading arrays up to a size."""

    peak: float
    clock: float
    bandwidth: dict[int, float]

    def read(self, size: int) -> float:
        """GB/s where all arrays together have this many bytes."""
        fitting = [speed for most, speed in self.bandwidth.items() if size <= most]
        return fitting[0] if fitting else min(self.bandwidth.values())


def measured_machine(target: Target, meter: PeakMeter) -> Machine:
    """Peak, and arrays that fill half of the first and second cache, and one in neither."""
    peak = statistics.median(meter.measure() for _ in range(5))
    found = {}
    for size, most in ((16 << 10, 40 << 10), (512 << 10, 1 << 20), (8 << 20, 1 << 40)):
        kernel = reading(size // 64)
        library = Library.load(
            compile_ir(module([kernel], [driver("run", [(kernel.name, (0, 1))], 2)]), target)
        )
        arrays = random_numbers(size // 4, 0), aligned(8 * LANES)
        run = runner(library, "run", [array.ctypes.data for array in arrays])
        times = max(1, (64 << 20) // size)
        found[most] = size / min(seconds_of(run, times) for _ in range(5)) / 1e9
    per_cycle = 2 * target.register_lanes * target.fma_per_cycle
    return Machine(peak, 1e9 * peak / per_cycle, found)


# ---- one direction of one layer -----------------------------------------------------------------


@dataclass
class Point:
    """One direction of a layer at one size, ready to run."""

    layer: Layer
    size: int
    direction: str
    kernels: list[Kernel]
    run: Callable[[int], None]
    bytes: int
    repetitions: int = 0
    seconds: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    @property
    def products(self) -> int:
        """Multiply–adds of all its kernels."""
        return sum(count(kernel).multiply_adds for kernel in self.kernels)

    @property
    def share(self) -> float:
        """Of the measured peak, the median."""
        return statistics.median(self.shares)

    def measure(self, peak: float, turn: float, products: int) -> None:
        """One turn of about so many seconds."""
        if not self.repetitions:
            self.run(1)
            self.repetitions = max(1, round(turn / max(1e-7, seconds_of(self.run, 2))))
        self.seconds.append(seconds_of(self.run, self.repetitions))
        self.shares.append(2 * products / self.seconds[-1] / 1e9 / peak)

    def limits(self, machine: Machine) -> dict[str, float]:
        """The share of the peak that each of its needs would allow."""
        products = 2 * self.products / machine.peak / 1e9
        loads = sum(loads_of(kernel) for kernel in self.kernels)
        needs = {
            "loads": loads * 64 / machine.read(0) / 1e9,
            "memory": self.bytes / machine.read(self.bytes) / 1e9,
            "sums": sum(lane_sums(kernel) for kernel in self.kernels) * LANE_SUM / machine.clock,
        }
        together = max(products, needs["loads"]) + needs["memory"] + needs["sums"]
        return {name: products / need for name, need in needs.items() if need} | {
            "all": products / together
        }


def loads_of(kernel: Kernel) -> int:
    """Loads of one call: a vector of 64 bytes or less, or one number for all lanes."""
    loaded = count(kernel).loaded
    sizes = dict.fromkeys(("weight", "bias", "scale", "shift"), 4)
    if any(buffer.name == "gradient" and len(buffer.shape) == 5 for buffer in kernel.buffers):
        sizes["source"] = 4  # kernels are in the lanes, values are copied into all of them
    return sum(size // sizes.get(name, 64) for name, size in loaded.items())


def lane_sums(kernel: Kernel) -> int:
    """How many vectors end in the sum of their lanes."""
    updated = [b for b in kernel.buffers if b.name == "weight" and b.access == "update"]
    if not updated or not any(buffer.name == "gradient" for buffer in kernel.buffers):
        return 0
    return prod(int(axis) for axis in updated[0].shape if isinstance(axis, int))


def points(layer: Layer, size: int, target: Target) -> list[Point]:
    """Forward, input gradient, weight gradient, in machine code and with arrays of their own."""
    graph = parse(layer.net(size))
    plan = plan_training(graph, target, shelf=KernelShelf(), widths=(1,), input_gradient=True)
    calls = {name: [one for one in plan.calls if belongs(one, name)] for name in DIRECTIONS}
    arrays = Arrays()
    drivers, kernels = [], []
    for name, some in calls.items():
        places = [(kernel_of(call).name, arrays.of(call)) for call in some]
        drivers.append(partial(driver, name, places))
        kernels += [kernel_of(call) for call in some]
    count_of_arrays = len(arrays.sizes)
    text = module(kernels, [make(count_of_arrays) for make in drivers])
    library = Library.load(compile_ir(text, target))
    memory = arrays.filled()
    addresses = [array.ctypes.data for array in memory]
    found = []
    for name, some in calls.items():
        run = runner(library, name, addresses)
        run.held = library, memory  # type: ignore[attr-defined]  # outlive the function
        moved = sum(traffic(kernel_of(one)) for one in some)
        found.append(Point(layer, size, name, [kernel_of(one) for one in some], run, moved))
    return found


def traffic(kernel: Kernel) -> int:
    """Bytes that the kernel's arrays move if each is read once; written ones come and go."""
    return sum(
        4
        * prod(int(axis) for axis in buffer.shape if isinstance(axis, int))
        * (1 if buffer.access == "read" else 2)
        for buffer in kernel.buffers
    )


class Arrays:
    """The places of a plan, numbered: one array each."""

    def __init__(self) -> None:
        self.numbers: dict[object, int] = {}
        self.sizes: list[int] = []

    def of(self, call: Call) -> list[int]:
        """The arrays of a call's buffers, which become as large as the buffers."""
        found = []
        for buffer, place in zip(kernel_of(call).buffers, call.places, strict=True):
            key = (place.name, place.offset) if isinstance(place, Region) else place.name
            number = self.numbers.setdefault(key, len(self.sizes))
            if number == len(self.sizes):
                self.sizes.append(0)
            floats = prod(int(axis) for axis in buffer.shape if isinstance(axis, int))
            self.sizes[number] = max(self.sizes[number], floats)
            found.append(number)
        return found

    def filled(self) -> list[np.ndarray]:
        """In memory, with random numbers."""
        return [random_numbers(size, seed) for seed, size in enumerate(self.sizes)]


def kernel_of(call: Call) -> Kernel:
    """The kernel for one slice."""
    kernel = call.kernels[1]
    assert isinstance(kernel, Kernel)
    return kernel


def belongs(call: Call, direction: str) -> bool:
    """Whether a call is part of the layer's direction: its kernel says what it writes."""
    layer, _, purpose = call.purpose.partition(" ")
    if layer == "input" or purpose not in ("forward", "gradient"):
        return False
    if purpose == "gradient":
        purpose = "input" if "_input_gradient" in kernel_of(call).name else "weight"
    return purpose == direction


def sweep(
    wanted: Sequence[Layer], target: Target, meter: PeakMeter, rounds: int, turn: float
) -> Iterator[list[Point]]:
    """The points of one layer after the other, each round next to the peak."""
    for layer in wanted:
        sizes = [n for n in PIXELS if layer.products(n) <= MOST_PRODUCTS]
        ready = [points(layer, size, target) for size in sizes]
        products = [[point.products for point in some] for some in ready]
        for _ in range(rounds):
            for some, each in zip(ready, products, strict=True):
                peak = meter.measure()
                for point, operations in zip(some, each, strict=True):
                    point.measure(peak, turn, operations)
        yield [point for some in ready for point in some]


# ---- tables -------------------------------------------------------------------------------------


def shown(points: Sequence[Point], machine: Machine) -> list[str]:
    """The cells of a layer's line: three directions, each at every size."""
    cells = {(point.direction, point.size): point for point in points}

    def cell(direction: str, size: int) -> str:
        point = cells.get((direction, size))
        if point is None:
            return "·"
        share = point.share
        if not point.layer.kernels:
            share /= point.limits(machine)["all"]
        return f"{100 * share:.0f}"

    return [cell(direction, size) for direction in DIRECTIONS for size in PIXELS]


def heading() -> list[str]:
    """Forward (y), input gradient (dx), weight gradient (dw), each at every size."""
    blank = [""] * (len(PIXELS) - 1)
    titles = [text for title in ("y", "dx", "dw") for text in (title, *blank)]
    return [line("", titles), line("pixels", [str(size) for _ in DIRECTIONS for size in PIXELS])]


def line(label: str, cells: Sequence[str]) -> str:
    """One line of the table: it is printed as soon as it is known."""
    groups = [cells[i : i + len(PIXELS)] for i in range(0, len(cells), len(PIXELS))]
    return f"{label:<18}" + " ".join("".join(f"{cell:>4}" for cell in group) for group in groups)


def explained(points: Sequence[Point], machine: Machine) -> list[str]:
    """The points under half of the peak, the slowest first, and their limits."""
    rows: list[tuple[str, ...]] = [("layer", "pixels", "direction", "share", *NEEDS, "")]
    for point in sorted(points, key=lambda one: one.share):
        if point.share >= ENOUGH:
            continue
        limits = point.limits(machine)
        told = [f"{100 * limits[name]:.0f}" if name in limits else "" for name in NEEDS]
        reached = point.share >= EXPLAINED * limits["all"]
        size, share = str(point.size), f"{100 * point.share:.0f}"
        verdict = "" if reached else "not explained"
        rows.append((point.layer.label, size, point.direction, share, *told, verdict))
    return table_of(rows, (False, True, False, *[True] * 5, False))


NEEDS = ("loads", "memory", "sums", "all")


def as_json(points: Sequence[Point], machine: Machine) -> list[dict[str, object]]:
    """The same for programs."""
    return [
        {
            "layer": point.layer.label,
            "pixels": point.size,
            "direction": point.direction,
            "share": round(point.share, 3),
            "microseconds": round(1e6 * statistics.median(point.seconds), 2),
            "limits": {name: round(share, 3) for name, share in point.limits(machine).items()},
            "kernels": [kernel.name for kernel in point.kernels],
        }
        for point in points
    ]


def one_core(core: int | None) -> str:
    """Stay on one core, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        return "one thread"
    chosen = max(os.sched_getaffinity(0)) if core is None else core
    os.sched_setaffinity(0, {chosen})
    return f"core {chosen}"


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a part of the grid")
    parser.add_argument("--only", default="", help="part of a layer's label")
    parser.add_argument("--target", default="host", choices=["host", "avx512", "avx2", "neon"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turn", type=float, default=0.008, help="seconds of a turn")
    parser.add_argument("--core", type=int, help="which core to stay on")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    before, where, target = load(), one_core(options.core), find_target(options.target)
    meter = PeakMeter(target, 1)
    machine = measured_machine(target, meter)
    speeds = ", ".join(f"{speed:.0f}" for speed in machine.bandwidth.values())
    print(f"{where}, {target.name}: {machine.peak:.0f} GFLOP/s; reads {speeds} GB/s from the")
    print("first and the second cache and beyond. Shares in percent of the peak; depthwise: of")
    print("what loads, memory and sums allow beside the multiply–adds.\n")
    wanted = [one for one in layers(options.quick) if options.only in one.label]
    done: list[Point] = []
    print("\n".join(heading()))
    for some in sweep(wanted, target, meter, options.rounds, options.turn):
        for point in some:
            point.run = lambda times: None  # lets go of the arrays
        print(line(some[0].layer.label, shown(some, machine)), flush=True)
        done += some
    slow = [point for point in done if point.share < ENOUGH]
    print(f"\n{len(done)} points, {len(slow)} under {100 * ENOUGH:.0f} %")
    print("\n".join(explained(slow, machine)) if slow else "", "\n")
    around = circumstances(before)
    print("\n".join(around.lines()))
    if options.json:
        figures = {"peak": machine.peak, "at": around.commit, "points": as_json(done, machine)}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
