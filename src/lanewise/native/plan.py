"""Operations → calls of kernels on places in memory.

A plan is a list of calls in the order one slice of 16 images takes them: forward, loss, backward.
Most calls concern one slice. The full connections are `wide`: they take several slices at once,
because one slice alone leaves the multiply–adds waiting for weights. So a worker runs the calls up
to a wide one for each of its slices, then the wide one for all, and so on (`segments`).

Places come in three kinds. An arena slot belongs to one worker and is shared by values that never
live together; a batch slot keeps its value for every slice of the batch, because the gradients of
the full connections are one matrix product over all of them; a region is an array that outlives
the step (parameters, gradients, images …).

Gradients of convolutions are summed per group of slices in `partials`, and the groups are added in
their order by the jobs that follow (`Job`): which worker did what never shows in the bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias

from lanewise.native.fuse import Operation
from lanewise.native.memory import Arena, Interval, plan_arena, rounded
from lanewise.native.nest import LANES, Kernel
from lanewise.native.target import Target
from lanewise.net.layers import Conv, Input, Linear

FLOAT = 4


@dataclass(frozen=True)
class Slot:
    """A value of one slice: `size` bytes, in the worker's arena or kept for the whole batch.

    Those of several slices stand end to end, so `size` is a multiple of 64 (whole cache lines).
    """

    name: str
    size: int
    kept: bool = False


@dataclass(frozen=True)
class Region:
    """A place in an array that outlives the step: byte offset, and bytes from slice to slice."""

    name: str
    offset: int = 0
    slice_stride: int = 0


Place: TypeAlias = Slot | Region


@dataclass(frozen=True)
class Choice:
    """Two kernels of one signature: the context's field says at run time which is meant."""

    name: str
    field: str
    one: Kernel
    zero: Kernel


@dataclass(frozen=True)
class Call:
    """A kernel on places; symbols are fields of the context.

    `kernels[w]` is the kernel for w slices at once; only a wide call has more than `kernels[1]`.
    """

    kernels: Mapping[int, Kernel | Choice]
    places: tuple[Place, ...]
    symbols: tuple[str, ...] = ()
    wide: bool = False
    purpose: str = ""  # "conv1 forward": whose it is, and what for; shown by profiles and plans


@dataclass(frozen=True)
class Parameter:
    """A tensor in the flat parameter array; offset in floats, a multiple of 16."""

    name: str
    shape: tuple[int, ...]
    offset: int
    convolution: bool

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def padded(self) -> int:
        """Floats it occupies."""
        return -(-self.size // LANES) * LANES


@dataclass(frozen=True)
class Layout:
    """All parameters in one array: convolutions first (summed by groups), then the rest."""

    parameters: dict[str, Parameter]
    convolution_floats: int
    floats: int


def layout(shapes: dict[str, tuple[int, ...]], convolutions: set[str]) -> Layout:
    """Give each parameter its offset."""
    placed: dict[str, Parameter] = {}
    offset = 0
    first = [name for name in shapes if name in convolutions]
    for name in [*first, *(name for name in shapes if name not in convolutions)]:
        placed[name] = Parameter(name, shapes[name], offset, name in convolutions)
        offset += placed[name].padded
    summed = sum(placed[name].padded for name in first)
    return Layout({name: placed[name] for name in shapes}, summed, offset)


@dataclass(frozen=True)
class Job:
    """A share of the work between two steps: the gradient of a full connection, then its update.

    The parameter's rows are cut into `blocks` of `rows`. The kernel reads `places` (the last of
    them the gradient of the outputs, of which it is shown its own rows), writes the parameter's
    gradient, and takes the number of slices.
    """

    parameter: Parameter
    blocks: int
    rows: int
    kernel: Kernel
    places: tuple[Slot, ...]

    @property
    def floats(self) -> int:
        """Floats of one block."""
        return self.parameter.padded // self.blocks


@dataclass(frozen=True)
class Plan:
    """Everything the driver needs to emit one direction: calls, their memory, their jobs."""

    calls: tuple[Call, ...]
    arena: Arena
    kept: dict[str, int]
    crossing: frozenset[str]
    jobs: tuple[Job, ...] = ()
    widths: tuple[int, ...] = (1,)

    @property
    def kept_bytes(self) -> int:
        """Bytes that the whole batch keeps, per slice."""
        return sum(rounded(size) for size in self.kept.values())

    @property
    def segments(self) -> tuple[tuple[Call, ...], ...]:
        """Runs of narrow calls, and wide calls on their own."""
        return segments(self.calls)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """Each kernel once."""
        found = {job.kernel.name: job.kernel for job in self.jobs}
        for kernel in (kernel for call in self.calls for kernel in call.kernels.values()):
            both = (kernel.one, kernel.zero) if isinstance(kernel, Choice) else (kernel,)
            found.update({each.name: each for each in both})
        return tuple(found.values())

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The kernels that are chosen at run time."""
        kernels = (kernel for call in self.calls for kernel in call.kernels.values())
        return tuple(kernel for kernel in kernels if isinstance(kernel, Choice))


def segments(calls: Sequence[Call]) -> tuple[tuple[Call, ...], ...]:
    """Cut the calls before and after every wide one."""
    runs: list[list[Call]] = []
    for call in calls:
        if call.wide or not runs or runs[-1][0].wide:
            runs.append([call])
        else:
            runs[-1].append(call)
    return tuple(tuple(run) for run in runs)


@dataclass
class KernelShelf:
    """Each distinct kernel is written once, whoever asks for it."""

    made: dict[object, Kernel] = field(default_factory=dict)

    def get(self, stem: str, key: object, write: Callable[[str], Kernel]) -> Kernel:
        """The kernel of this stem and key; `write(name)` makes it."""
        if (stem, key) not in self.made:
            self.made[stem, key] = write(f"{stem}_{len(self.made)}")
        return self.made[stem, key]


@dataclass
class Planner:
    """Collects calls while the rules walk the operations."""

    target: Target
    operations: tuple[Operation, ...]
    layout: Layout
    shelf: KernelShelf
    training: bool
    input_gradient: bool = False
    widths: tuple[int, ...] = (1,)
    purpose: str = ""
    calls: list[Call] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    _written: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.by_name = {operation.name: operation for operation in self.operations}
        self._learning = self._which_learn()

    # -- places

    def value(self, name: str) -> Slot:
        """The output of an operation, 16 images of it."""
        return Slot(f"value {name}", self.by_name[name].elements * LANES * FLOAT)

    def gradient(self, name: str) -> Slot:
        """The loss' gradient of that output (before a joined ReLU)."""
        operation = self.by_name[name]
        kept = isinstance(operation.layer, Linear)
        return Slot(f"gradient {name}", operation.elements * LANES * FLOAT, kept)

    def scratch(self, name: str, size: int, kept: bool = False) -> Slot:
        """Other bytes of one slice: pooling arguments, rows for the weight gradient …"""
        return Slot(name, rounded(size), kept)

    def parameter(self, operation: Operation, which: str) -> Region:
        """Where `weight` or `bias` of an operation stands."""
        return Region("parameters", self._parameter(operation, which).offset * FLOAT)

    def partial(self, operation: Operation, which: str) -> Region:
        """Where this group of slices sums the gradient of a convolution's parameter."""
        return Region("partials", self._parameter(operation, which).offset * FLOAT)

    def _parameter(self, operation: Operation, which: str) -> Parameter:
        return self.layout.parameters[f"{operation.node}.{which}"]

    # -- calls

    def call(
        self,
        stem: str,
        key: object,
        write: Callable[[str], Kernel],
        *places: Place,
        symbols: Sequence[str] = (),
    ) -> None:
        """Call a kernel for one slice."""
        kernel = self.shelf.get(stem, key, write)
        self.calls.append(Call({1: kernel}, places, tuple(symbols), purpose=self.purpose))

    def call_wide(
        self, stem: str, key: object, write: Callable[[str, int], Kernel], *places: Place
    ) -> None:
        """Call a kernel for several slices at once; `write(name, slices)`."""

        def writer(width: int) -> Callable[[str], Kernel]:
            return lambda name: write(name, width)

        kernels = {w: self.shelf.get(stem, (key, w), writer(w)) for w in self.widths}
        self.calls.append(Call(kernels, places, wide=True, purpose=self.purpose))

    # -- gradients

    def wants_gradient(self, name: str) -> bool:
        """Whether anything behind this value learns (or the caller asked for the input's)."""
        return name in self._learning

    def joined_relu(self, name: str) -> bool:
        """Whether the value went through a joined ReLU: its gradient must be masked."""
        return self.by_name[name].relu

    def has_gradient(self, name: str) -> None:
        """Note that the gradient of a value stands in its place: later readers add to it."""
        self._written.add(name)

    def contribute(self, name: str, emit: Callable[[Slot], None]) -> None:
        """Write a gradient of a value, or add to it where another reader already wrote one."""
        target = self.gradient(name)
        if name not in self._written:
            self.has_gradient(name)
            emit(target)
            return
        from lanewise.native.kernels import activation

        more = Slot(f"more {len(self.calls)} {name}", target.size)
        emit(more)
        elements = self.by_name[name].elements
        self.call("add", elements, lambda n: activation.add(n, elements), more, target)

    def job(
        self, parameter: Parameter, rows: int, kernel: Kernel, places: tuple[Slot, ...]
    ) -> None:
        """Finish a full connection's parameter in blocks of `rows` rows of its shape."""
        self.jobs.append(Job(parameter, parameter.shape[0] // rows, rows, kernel, places))

    def _which_learn(self) -> frozenset[str]:
        learning: set[str] = set()
        for operation in self.operations:
            own = isinstance(operation.layer, Conv | Linear)
            image = isinstance(operation.layer, Input) and self.input_gradient
            if own or image or any(name in learning for name in operation.inputs):
                learning.add(operation.name)
        return frozenset(learning)

    # -- the result

    def finish(self) -> Plan:
        """Lifetimes → one arena."""
        runs = segments(self.calls)
        bounds, at = [], 0
        for run in runs:
            bounds += [(at, at + len(run) - 1)] * len(run)
            at += len(run)
        lives: dict[str, tuple[Slot, int, int]] = {}
        for moment, call in enumerate(self.calls):
            for place in call.places:
                if isinstance(place, Slot):
                    first = lives.get(place.name, (place, moment, moment))[1]
                    lives[place.name] = (place, first, moment)
        if self.training:
            for name, size in PROLOGUE.items():
                lives.setdefault(name, (Slot(name, size), 0, len(self.calls) - 1))
        intervals, crossing = [], set()
        for name, (slot, first, last) in lives.items():
            if slot.kept:
                continue
            size = slot.size
            if bounds[first] != bounds[last] or self.calls[first].wide or slot.name in PROLOGUE:
                # Other slices run the same segments in between: each keeps its own, end to end.
                first = 0 if slot.name in PROLOGUE else bounds[first][0]
                last = bounds[last][1]
                size *= self.widths[0]
                crossing.add(name)
            intervals.append(Interval(name, size, first, last))
        kept = {name: slot.size for name, (slot, _, _) in lives.items() if slot.kept}
        return Plan(
            tuple(self.calls),
            plan_arena(intervals),
            kept,
            frozenset(crossing),
            tuple(self.jobs),
            self.widths,
        )


#: what the driver writes for each slice before its first call: which images, their labels …
PROLOGUE = {
    "lane_index": LANES * 8,
    "label": LANES * 4,
    "lane_weight": LANES * FLOAT,
    "keys": LANES * 4,
}


#: a job's share of a matrix: its gradient, parameters and state stay in the second-level cache
BLOCK_FLOATS = 8192
#: but never so few rows that the inputs, once loaded, meet too few outputs to keep a core busy
BLOCK_ROWS = 8


def block_rows(outputs: int, inputs: int) -> int:
    """Rows of an outputs × inputs matrix a job takes: they divide it, in whole cache lines."""
    fitting = [
        rows for rows in range(1, outputs + 1) if outputs % rows == 0 and rows * inputs % LANES == 0
    ]
    most = max(BLOCK_FLOATS // inputs, BLOCK_ROWS)
    small = [rows for rows in fitting if rows <= most]
    return max(small, default=min(fitting, default=outputs))
