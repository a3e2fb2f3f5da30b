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

A point under half of the peak is listed with what its kernels need besides multiply–adds
(`needs.py`), each as the share of the peak that it alone would allow: `loads` of vectors and
numbers, `chains` of multiply–adds that wait for one another, lines from the `second` cache and from
`beyond` it (counted by running the kernel beside a model of the caches), `lanes`: sums of lanes and
transpositions. `all` is what they take together, each at the speed that was measured in the same
run: multiply–adds under loads and chains, lines from beyond half under all that. A point is
explained where that is at least three quarters of the time it took. For depthwise convolutions the
table shows the share of `all` instead of the peak's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from lanewise.native.directions import plan_training
from lanewise.native.machine_code import Library, compile_ir
from lanewise.native.nest import LANES, Kernel
from lanewise.native.nest_count import count
from lanewise.native.peak import PeakMeter
from lanewise.native.plan import FLOAT, Call, Region
from lanewise.native.planner import KernelShelf
from lanewise.native.target import Target, find_target
from lanewise.net.parse import parse
from lanewise.size.table import aligned as table_of
from measure import circumstances, load
from needs import (
    NEEDS,
    Lines,
    Machine,
    MachineMeter,
    Made,
    counted,
    driver,
    far_lines,
    module,
    random_numbers,
    runner,
    seconds_of,
    together,
)

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


# ---- one direction of one layer -----------------------------------------------------------------


@dataclass
class Point:
    """One direction of a layer at one size, ready to run."""

    layer: Layer
    size: int
    direction: str
    calls: list[Made]
    run: Callable[[int], None]
    far: Callable[[int], Lines]
    lines: Lines = field(default_factory=Lines)
    repetitions: int = 0
    seconds: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    @property
    def products(self) -> int:
        """Multiply–adds of all its kernels."""
        return sum(made.pieces * count(made.kernel).multiply_adds for made in self.calls)

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

    def look(self, third: int) -> None:
        """Counts the lines that come from afar; `third`: bytes that the third cache has for us."""
        self.lines = self.far(third)

    def limits(self, machine: Machine) -> dict[str, float]:
        """The share of the peak that each of its needs would allow, and all of them."""
        products = 2 * self.products / machine.peak / 1e9
        counts: Counter[str] = Counter()
        for made in self.calls:
            for name, number in counted(made.kernel).items():
                counts[name] += made.pieces * number
        needs = machine.seconds(products, counts, self.lines)
        needs["all"] = together(needs)
        return {name: products / need for name, need in needs.items() if need}


def points(layer: Layer, size: int, target: Target) -> list[Point]:
    """Forward, input gradient, weight gradient, in machine code and with arrays of their own."""
    graph = parse(layer.net(size))
    plan = plan_training(
        graph, target, shelf=KernelShelf(), widths=(1,), input_gradient=True, exact=True
    )
    calls = {name: [one for one in plan.calls if belongs(one, name)] for name in DIRECTIONS}
    arrays = Arrays()
    made = {name: [arrays.made(call) for call in some] for name, some in calls.items()}
    drivers = [driver(name, some, len(arrays.sizes)) for name, some in made.items()]
    kernels = [one.kernel for some in made.values() for one in some]
    library = Library.load(compile_ir(module(kernels, drivers), target))
    memory = arrays.filled()
    found = []
    for name in DIRECTIONS:
        run = runner(library, name, [array.ctypes.data for array in memory])
        run.held = library, memory  # type: ignore[attr-defined]  # outlive the function
        far = partial(far_lines, made[name], memory, target)
        found.append(Point(layer, size, name, made[name], run, far))
    return found


class Arrays:
    """The places of a plan, numbered: one array each."""

    def __init__(self) -> None:
        self.numbers: dict[object, int] = {}
        self.sizes: list[int] = []

    def made(self, call: Call) -> Made:
        """The call, piece by piece as the engine makes it, on arrays that become large enough."""
        kernel, found = kernel_of(call), []
        pieces = -(-call.extent // call.block) if call.block else 1
        further = tuple(step * call.block for step in call.apart) if pieces > 1 else ()
        for i, (buffer, place) in enumerate(zip(kernel.buffers, call.places, strict=True)):
            key = (place.name, place.offset) if isinstance(place, Region) else place.name
            number = self.numbers.setdefault(key, len(self.sizes))
            if number == len(self.sizes):
                self.sizes.append(0)
            floats = prod(int(axis) for axis in buffer.shape if isinstance(axis, int))
            floats += (pieces - 1) * further[i] // FLOAT if further else 0
            self.sizes[number] = max(self.sizes[number], floats)
            found.append(number)
        return Made(kernel, tuple(found), pieces, further)

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
    rows: list[tuple[str, ...]] = [("layer", "px", "", "%", *NEEDS, "")]
    for point in sorted(points, key=lambda one: one.share):
        if point.share >= ENOUGH:
            continue
        limits = point.limits(machine)
        told = [f"{100 * limits[name]:.0f}" if name in limits else "" for name in NEEDS]
        reached = point.share >= EXPLAINED * limits["all"]
        size, share = str(point.size), f"{100 * point.share:.0f}"
        verdict = "" if reached else "not explained"
        rows.append((point.layer.label, size, point.direction, share, *told, verdict))
    return table_of(rows, (False, True, False, *[True] * (1 + len(NEEDS)), False))


def told(points: Sequence[Point], machine: Machine) -> str:
    """How many are slow, and how well that is explained."""
    slow = [point for point in points if point.layer.kernels and point.share < ENOUGH]
    ratios = [point.share / point.limits(machine)["all"] for point in slow]
    near = sum(EXPLAINED <= ratio <= 1 / EXPLAINED for ratio in ratios)
    over = sum(ratio > 1 / EXPLAINED for ratio in ratios)
    plain = sum(1 for point in points if point.layer.kernels)
    return (
        f"{plain} points that are not depthwise, {len(slow)} under {100 * ENOUGH:.0f} %: what they "
        f"need tells the time of {near}\nwithin a factor of {1 / EXPLAINED:.2f}, "
        f"{over} were faster than that, {len(slow) - near - over} slower and not explained"
    )


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
            "kernels": [made.kernel.name for made in point.calls],
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
    meter, machines = PeakMeter(target, 1), MachineMeter(target)
    print(f"{where}, {target.name}")
    print("Percent of the peak; depthwise: of what loads, caches and sums allow.\n")
    wanted = [one for one in layers(options.quick) if options.only in one.label]
    done: list[Point] = []
    print("\n".join(heading()))
    machines.measure(meter.measure())
    for some in sweep(wanted, target, meter, options.rounds, options.turn):
        machines.measure(meter.measure())
        machine = machines.machine()
        for point in some:
            if point.share < ENOUGH or not point.layer.kernels:
                point.look(machine.third)
            point.run, point.far = (lambda times: None), (lambda size: Lines())  # lets go of arrays
        print(line(some[0].layer.label, shown(some, machine)), flush=True)
        done += some
    machine = machines.machine()
    print(f"\n{machine}")
    slow = [point for point in done if point.share < ENOUGH]
    print(f"\n{told(done, machine)}")
    print("\n".join(explained(slow, machine)) if slow else "", "\n")
    around = circumstances(before)
    print("\n".join(around.lines()))
    if options.json:
        figures = {"peak": machine.peak, "at": around.commit, "points": as_json(done, machine)}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
