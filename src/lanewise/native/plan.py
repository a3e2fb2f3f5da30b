"""Operations → calls of kernels on places in memory.

A plan is a list of phases with a barrier after each. Within a phase every slice of 16 images takes
the same calls, forward, loss, backward; a net whose layers look at one image at a time has one
phase. Where a layer needs something of the whole batch (batch normalisation: its statistics) a
new phase begins: first every worker computes for itself what all slices have left for it, then
the slices go on.

Most calls concern one slice. The full connections are `wide`: they take several slices at once,
because one slice alone leaves the multiply–adds waiting for weights. So a worker runs the calls up
to a wide one for each of its slices, then the wide one for all, and so on (`segments`).

Places come in four kinds. An arena slot belongs to one worker and is shared by values that never
live together; a worker's slot stays the same for all its slices; a kept slot has a value of its
own for every slice of the batch, because it is needed in a later phase or by the jobs that follow;
a region is an array that outlives the step (parameters, gradients, images …).

Gradients of all parameters but those of full connections are summed per group of slices in
`partials`, and the groups are added in their order by the jobs that follow (`Job`): which worker
did what never shows in the bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal, TypeAlias

from lanewise.native.chains import form_chains
from lanewise.native.fuse import Operation, consumers
from lanewise.native.lifetimes import lifetimes
from lanewise.native.memory import Arena, rounded
from lanewise.native.nest import LANES, Kernel
from lanewise.native.sharing import GradientSharing, value_places
from lanewise.native.target import Target
from lanewise.net.layers import Input, Linear
from lanewise.size.cost import layer_parameters

FLOAT = 4


@dataclass(frozen=True)
class Slot:
    """A value of one slice: `size` bytes, in the worker's arena or kept for the whole batch.

    Those of several slices stand end to end, so `size` is a multiple of 64 (whole cache lines).
    A value that is part of a larger one has the larger one's name and size, and its own `offset`.
    `worker`: one for all slices of a worker.
    """

    name: str
    size: int
    kept: bool = False
    offset: int = 0
    worker: bool = False


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


#: who makes a call: every slice, every worker once at the beginning of a phase, or the first worker
Who: TypeAlias = Literal["slice", "worker", "leader"]


@dataclass(frozen=True)
class Call:
    """A kernel on places; symbols are fields of the context, or `slices` and `images` of the batch.

    `kernels[w]` is the kernel for w slices at once; only a wide call has more than `kernels[1]`.
    """

    kernels: Mapping[int, Kernel | Choice]
    places: tuple[Place, ...]
    symbols: tuple[str, ...] = ()
    wide: bool = False
    purpose: str = ""  # "conv1 forward": whose it is, and what for; shown by profiles and plans
    phase: int = 0
    who: Who = "slice"
    # Of a call that looks at one channel at a time: how many there are, bytes from one to the next
    # at each place, how many its kernel takes, its chain, and who makes the kernel (`chains.py`).
    channels: int = 0
    apart: tuple[int, ...] = ()
    block: int = 0
    chain: int = -1
    make: Callable[[int], Kernel] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Parameter:
    """A tensor in a flat array; offset in floats, a multiple of 16. `summed`: its gradient is
    summed by groups of slices."""

    name: str
    shape: tuple[int, ...]
    offset: int
    summed: bool

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def padded(self) -> int:
        """Floats it occupies."""
        return -(-self.size // LANES) * LANES


@dataclass(frozen=True)
class Layout:
    """All tensors in one array: those summed by groups first, then the full connections'."""

    parameters: dict[str, Parameter]
    summed_floats: int
    floats: int


def layout(shapes: Mapping[str, tuple[int, ...]], summed: set[str]) -> Layout:
    """Give each tensor its offset."""
    placed: dict[str, Parameter] = {}
    offset = 0
    first = [name for name in shapes if name in summed]
    for name in [*first, *(name for name in shapes if name not in summed)]:
        placed[name] = Parameter(name, shapes[name], offset, name in summed)
        offset += placed[name].padded
    floats = sum(placed[name].padded for name in first)
    return Layout({name: placed[name] for name in shapes}, floats, offset)


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
class Phase:
    """What happens between two barriers: calls of every worker, of the first one, of all slices."""

    worker: tuple[Call, ...]
    leader: tuple[Call, ...]
    slices: tuple[Call, ...]

    @property
    def segments(self) -> tuple[tuple[Call, ...], ...]:
        """Runs of narrow calls, and wide calls on their own."""
        return segments(self.slices)

    @property
    def wide(self) -> bool:
        """Whether any call takes several slices at once."""
        return any(call.wide for call in self.slices)

    @property
    def prologue(self) -> bool:
        """Whether a slice needs to know its images, labels, weights or keys."""
        return any(
            isinstance(place, Slot) and place.name in PROLOGUE
            for call in self.slices
            for place in call.places
        )


@dataclass(frozen=True)
class Plan:
    """Everything the driver needs to emit one direction: calls, their memory, their jobs."""

    calls: tuple[Call, ...]
    arena: Arena
    kept: Arena
    crossing: frozenset[str]
    jobs: tuple[Job, ...] = ()
    widths: tuple[int, ...] = (1,)

    @property
    def kept_bytes(self) -> int:
        """Bytes that the whole batch keeps, per slice."""
        return self.kept.size

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The calls, between barriers."""
        found = []
        for number in range(max((call.phase for call in self.calls), default=0) + 1):
            mine = [call for call in self.calls if call.phase == number]
            parts = (
                tuple(call for call in mine if call.who == who)
                for who in ("worker", "leader", "slice")
            )
            found.append(Phase(*parts))
        return tuple(found)

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
    buffers: Layout
    shelf: KernelShelf
    training: bool
    input_gradient: bool = False
    widths: tuple[int, ...] = (1,)
    purpose: str = ""
    phase: int = 0
    calls: list[Call] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    _written: set[str] = field(default_factory=set)
    _unmasked: set[str] = field(default_factory=set)
    _gradients: dict[str, Slot] = field(default_factory=dict)
    _endings: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.by_name = {operation.name: operation for operation in self.operations}
        self._learning = self._which_learn()
        self._parts = value_places(self.operations)
        self._sharing = GradientSharing(self.operations)
        self.uses = consumers(self.operations)

    # -- places

    def value(self, name: str) -> Slot:
        """The output of an operation, 16 images of it."""
        whole, before = self._parts.get(name, (name, 0))
        size = self.by_name[whole].elements * LANES * FLOAT
        return Slot(f"value {whole}", size, offset=before * LANES * FLOAT)

    def gradient(self, name: str) -> Slot:
        """The loss' gradient of that output (before a joined ReLU)."""
        if name in self._gradients:
            return self._gradients[name]
        operation = self.by_name[name]
        kept = isinstance(operation.layer, Linear)
        return Slot(f"gradient {name}", operation.elements * LANES * FLOAT, kept)

    def scratch(self, name: str, size: int, kept: bool = False) -> Slot:
        """Other bytes of one slice: pooling arguments, rows for the weight gradient …"""
        return Slot(name, rounded(size), kept)

    def constants(self, name: str, size: int) -> Slot:
        """Bytes that a worker computes once and reads for all its slices."""
        return Slot(name, rounded(size), worker=True)

    def parameter(self, operation: Operation, which: str, node: str = "") -> Region:
        """Where `weight` or `bias` of an operation stands."""
        name = f"{node or operation.node}.{which}"
        return Region("parameters", self.layout.parameters[name].offset * FLOAT)

    def partial(self, operation: Operation, which: str) -> Region:
        """Where this group of slices sums the gradient of a parameter."""
        parameter = self.layout.parameters[f"{operation.node}.{which}"]
        return Region("partials", parameter.offset * FLOAT)

    def buffer(self, node: str, which: str) -> Region:
        """Where a layer's running statistic stands."""
        return Region("buffers", self.buffers.parameters[f"{node}.{which}"].offset * FLOAT)

    # -- calls

    def call(
        self,
        stem: str,
        key: object,
        write: Callable[[str], Kernel],
        *places: Place,
        symbols: Sequence[str] = (),
        who: Who = "slice",
    ) -> None:
        """Call a kernel for one slice (or once a phase: `who`)."""
        kernel = self.shelf.get(stem, key, write)
        self._add({1: kernel}, places, tuple(symbols), who=who)

    def call_channels(
        self,
        stem: str,
        key: object,
        write: Callable[[str, int], Kernel],
        channels: int,
        *places: tuple[Place, int],
    ) -> None:
        """Call a kernel that looks at one channel at a time; `write(name, block)` makes it for
        `block` channels. With every place: bytes from one channel to the next."""

        def make(block: int) -> Kernel:
            return self.shelf.get(stem, (key, block), lambda name: write(name, block))

        call = Call(
            {},
            tuple(place for place, _ in places),
            purpose=self.purpose,
            phase=self.phase,
            channels=channels,
            apart=tuple(apart for _, apart in places),
            make=make,
        )
        self.calls.append(call)

    def call_wide(
        self, stem: str, key: object, write: Callable[[str, int], Kernel], *places: Place
    ) -> None:
        """Call a kernel for several slices at once; `write(name, slices)`."""

        def writer(width: int) -> Callable[[str], Kernel]:
            return lambda name: write(name, width)

        kernels = {w: self.shelf.get(stem, (key, w), writer(w)) for w in self.widths}
        self._add(kernels, places, wide=True)

    def _add(
        self,
        kernels: Mapping[int, Kernel],
        places: tuple[Place, ...],
        symbols: tuple[str, ...] = (),
        wide: bool = False,
        who: Who = "slice",
    ) -> None:
        call = Call(kernels, places, symbols, wide, self.purpose, self.phase, who)
        self.calls.append(call)

    def barrier(self) -> None:
        """All slices must have come this far before any goes on."""
        self.phase += 1

    def at_end(self, emit: Callable[[], None]) -> None:
        """Calls of the first worker for when all slices are through."""
        self._endings.append(emit)

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

    def contribute(
        self,
        name: str,
        emit: Callable[[Slot], None],
        add: Callable[[Slot], None] | None = None,
    ) -> None:
        """Write a gradient of a value, or add to it where another reader already wrote one.

        `emit` writes all of the slot it is given; `add`, where a kernel can do that itself, adds to
        what stands there. Both set it to zero where the value went through a joined ReLU and is
        not positive: of the sum, where they add.
        """
        target = self.gradient(name)
        if name not in self._written:
            self.has_gradient(name)
            emit(target)
        elif add is not None:
            add(target)
            self._unmasked.discard(name)
        else:
            more = Slot(f"more {len(self.calls)} {name}", self.by_name[name].elements * 64)
            emit(more)
            self._sum(name, more, target)

    def _sum(self, name: str, more: Slot, target: Slot) -> None:
        from lanewise.native.kernels import joins

        elements, mask = self.by_name[name].elements, self.joined_relu(name)
        self.call(
            "add",
            (elements, mask),
            lambda n: joins.add_to(n, elements, mask=mask),
            more,
            *([self.value(name)] if mask else []),
            target,
        )
        self._unmasked.discard(name)

    def pass_gradient(self, operation: Operation, source: str, before: int = 0) -> None:
        """The gradient of `source` gets that of an operation, element `before` and the following,
        as it is; the operation itself needs it no more.

        Where possible both are one place. Then later readers of `source` add to the operation's
        gradient, so nobody else may still have to read it.
        """
        if not self.wants_gradient(source):
            return
        own = self.gradient(operation.name)
        here = replace(own, offset=own.offset + before * LANES * FLOAT)
        if source in self._written:
            self._sum(source, here, self.gradient(source))
        elif not isinstance(self.by_name[source].layer, Linear) and self._sharing.may_share(
            operation, source, here
        ):
            self._gradients[source] = here
            self.has_gradient(source)
            if self.joined_relu(source):
                self._unmasked.add(source)
        else:
            self._copy(source, here)

    def _copy(self, source: str, here: Slot) -> None:
        from lanewise.native.kernels import joins

        elements, mask = self.by_name[source].elements, self.joined_relu(source)
        self.contribute(
            source,
            lambda target: self.call(
                "copy",
                (elements, mask),
                lambda n: joins.copy(n, elements, mask=mask),
                here,
                *([self.value(source)] if mask else []),
                target,
            ),
        )

    def settle(self, operation: Operation) -> None:
        """Before an operation's gradient is used: mask it, if what was added last did not."""
        from lanewise.native.kernels import joins

        if operation.name not in self._unmasked:
            return
        self._unmasked.discard(operation.name)
        self.call(
            "mask",
            operation.elements,
            lambda n: joins.mask(n, operation.elements),
            self.value(operation.name),
            self.gradient(operation.name),
        )

    def job(
        self, parameter: Parameter, rows: int, kernel: Kernel, places: tuple[Slot, ...]
    ) -> None:
        """Finish a full connection's parameter in blocks of `rows` rows of its shape."""
        self.jobs.append(Job(parameter, parameter.shape[0] // rows, rows, kernel, places))

    def _which_learn(self) -> frozenset[str]:
        learning: set[str] = set()
        for operation in self.operations:
            own = bool(layer_parameters(operation.layer, *operation.input_shapes))
            image = isinstance(operation.layer, Input) and self.input_gradient
            if own or image or any(name in learning for name in operation.inputs):
                learning.add(operation.name)
        return frozenset(learning)

    # -- the result

    def finish(self) -> Plan:
        """Lifetimes → one arena for a worker, and one for what is kept of every slice."""
        if self._endings:
            self.barrier()
        for emit in self._endings:
            emit()
        self.calls = form_chains(self.calls)
        arena, kept, crossing = lifetimes(self.calls, self.jobs, self.widths[0])
        return Plan(tuple(self.calls), arena, kept, crossing, tuple(self.jobs), self.widths)


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
