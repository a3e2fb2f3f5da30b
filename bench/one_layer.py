"""One convolution alone, as the engine runs it on 16 images: the calls of its three directions."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod

import numpy as np

from lanewise.native.directions import plan_training
from lanewise.native.machine_code import Library, compile_ir
from lanewise.native.nest import LANES, Kernel
from lanewise.native.nest_count import count
from lanewise.native.plan import FLOAT, Call, Region
from lanewise.native.shelf import KernelShelf
from lanewise.native.target import Target
from lanewise.net.parse import parse
from needs import (
    Lines,
    Made,
    counted,
    driver,
    far_lines,
    module,
    random_numbers,
    runner,
    seconds_of,
)
from one_core import Machine, together

DIRECTIONS = ("forward", "input", "weight")


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


# ---- one direction of one layer -----------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """What was found out of one direction of a layer at one size: seconds of its turns and their
    shares of the peak; what its kernels need, and the lines that come from afar."""

    layer: Layer
    size: int
    direction: str
    products: int
    kernels: tuple[str, ...]
    seconds: tuple[float, ...]
    shares: tuple[float, ...]
    counts: Mapping[str, int]
    lines: Lines

    @property
    def share(self) -> float:
        """Of the measured peak, the median."""
        return statistics.median(self.shares)

    def limits(self, machine: Machine) -> dict[str, float]:
        """The share of the peak that each of its needs would allow, and all of them."""
        products = 2 * self.products / machine.peak / 1e9
        needs = machine.seconds(products, Counter(self.counts), self.lines)
        needs["all"] = together(needs)
        return {name: products / need for name, need in needs.items() if need}

    def bound(self, machine: Machine) -> float:
        """The share of the peak that the strictest of its needs would allow, if all others were
        hidden behind it; lines from the second cache, the third and memory are one need."""
        times = {name: 1 / share for name, share in self.limits(machine).items() if name != "all"}
        lines = sum(times.pop(name, 0.0) for name in ("second", "third", "memory", "alone"))
        return 1 / max(lines, *times.values())


@dataclass
class Point:
    """One direction of a layer at one size, ready to run."""

    layer: Layer
    size: int
    direction: str
    calls: list[Made]
    run: Callable[[int], None]
    far: Callable[[tuple[int, int]], Lines]
    repetitions: int = 0
    seconds: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    @property
    def products(self) -> int:
        """Multiply–adds of all its kernels."""
        return sum(made.pieces * count(made.kernel).multiply_adds for made in self.calls)

    def measure(self, peak: float, turn: float, products: int) -> None:
        """One turn of about so many seconds."""
        if not self.repetitions:
            self.run(1)
            self.repetitions = max(1, round(turn / max(1e-7, seconds_of(self.run, 2))))
        self.seconds.append(seconds_of(self.run, self.repetitions))
        self.shares.append(2 * products / self.seconds[-1] / 1e9 / peak)

    def measured(self, enough: float, rooms: tuple[int, int]) -> Measured:
        """All of it, no longer changeable. Lines from afar are counted for what is slower than
        `enough`, and for depthwise layers; `rooms`: what of the caches is ours."""
        counts: Counter[str] = Counter()
        for made in self.calls:
            for name, number in counted(made.kernel).items():
                counts[name] += made.pieces * number
        slow = statistics.median(self.shares) < enough or not self.layer.kernels
        return Measured(
            self.layer,
            self.size,
            self.direction,
            self.products,
            tuple(made.kernel.name for made in self.calls),
            tuple(self.seconds),
            tuple(self.shares),
            dict(counts),
            self.far(rooms) if slow else Lines(),
        )


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
