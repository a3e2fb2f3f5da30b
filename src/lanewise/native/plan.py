"""What a plan is: calls of kernels on places in memory, in phases.

A plan is a list of phases with a barrier after each. Within a phase every slice of 16 images takes
the same calls, forward, loss, backward; a net whose layers look at one image at a time has one
phase. Where a layer needs something of the whole batch (batch normalisation: its statistics) a
new phase begins: first every worker computes for itself what all slices have left for it, then
the slices go on.

Most calls concern one slice. The full connections are `wide`: they take several slices at once,
because one slice alone leaves the multiply–adds waiting for weights. So a worker runs the calls up
to a wide one for each of its slices, then the wide one for all, and so on (`segments`).

Places come in four kinds. An arena slot belongs to one worker and is shared by values that never
live together; a worker's slot stays the same for all its slices (without training, for all workers
until the parameters change); a kept slot has a value of its
own for every slice of the batch, because it is needed in a later phase or by the jobs that follow;
a region is an array that outlives the step (parameters, gradients, images …).

Gradients of all parameters but those of full connections are summed per group of slices in
`partials`, and the groups are added in their order by the jobs that follow (`Job`): which worker
did what never shows in the bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Literal, TypeAlias

from lanewise.native.memory import Arena
from lanewise.native.target import LANES

if TYPE_CHECKING:
    from lanewise.native.nest import Kernel

FLOAT = 4


@dataclass(frozen=True)
class Slot:
    """A value of one slice: `size` bytes, in the worker's arena or kept for the whole batch.

    Those of several slices stand end to end, so `size` is a multiple of 64 (whole cache lines).
    A value that is part of a larger one has the larger one's name and size, and its own `offset`.
    `worker`: one for all slices of a worker. `maps`: fp32 values of the images side by side, which
    may be kept as bf16 instead (`precision.py`).
    """

    name: str
    size: int
    kept: bool = False
    offset: int = 0
    worker: bool = False
    maps: bool = False


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
    # Of a call that may be made piece by piece: the ways to do so. Once `chains.py` has chosen one:
    # of how many channels or pixels, bytes from one to the next at each place, how many the kernel
    # takes, and the chain.
    ways: tuple[Along, ...] = field(default=(), compare=False)
    extent: int = 0
    apart: tuple[int, ...] = ()
    block: int = 0
    chain: int = -1
    ahead: int = 0  # so many of the last places are shown the piece after


@dataclass(frozen=True)
class Along:
    """A way to make a call piece by piece: some channels, or some pixels of all, at a time.

    `extent`: how many there are. `apart`: at every place, bytes from one to the next; 0 where all
    pieces are shown the whole. `make(block, pitches)`: the kernel for `block` of them; for pixels,
    `pitches` are at every place of maps how many pixels lie from one map to the next.
    """

    axis: Literal["channels", "pixels"]
    extent: int
    apart: tuple[int, ...]
    make: Callable[[int, tuple[int, ...]], Kernel]
    opening: tuple[Call, ...] = ()  # calls before the first piece
    closing: tuple[Call, ...] = ()  # calls after the last
    # Numbers of maps that the kernel can fetch lines of beside its work, as its last buffer, and
    # who makes such a kernel (with maps and pitch of that place).
    fetches: tuple[int, ...] = ()
    make_fetching: Callable[[int, tuple[int, ...], tuple[int, int]], Kernel] | None = None
    # Channels or pixels of a piece where that is settled: a place may lie in strips of so many; and
    # at every place pixels from map to map, where it is laid out otherwise than whole.
    strip: int = 0
    pitches: tuple[int, ...] = ()
    # Calls of different parts never take turns.
    part: int = 0


@dataclass(frozen=True)
class Strips:
    """How a value of `maps` maps lies in memory that is read some `pixels` at a time: those of all
    maps, then the next of all maps. A line more from map to map keeps them in different sets of the
    caches, where whole maps, whose size is a power of two, would meet in one."""

    maps: int
    pixels: int

    @property
    def pitch(self) -> int:
        """Pixels from map to map."""
        return self.pixels + 1

    @property
    def apart(self) -> int:
        """Bytes from pixel to pixel, at the average."""
        return self.size(1)

    def size(self, pixels: int) -> int:
        """Bytes of so many pixels."""
        return pixels * self.maps * self.pitch * LANES * FLOAT // self.pixels

    def fits(self, pixels: int) -> bool:
        """Whether so many pixels can be laid out so, `apart` a whole number, in bf16 too."""
        return pixels % self.pixels == 0 and self.maps * LANES * FLOAT // 2 % self.pixels == 0


@dataclass(frozen=True)
class Rows:
    """Some rows of maps: a place from which on each has `pixels`, and all of a map `pitch`."""

    pixels: int
    pitch: int
    apart: int = LANES * FLOAT


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

    @cached_property
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
    constants: Arena = field(default_factory=lambda: Arena({}, 0))  # worked out of parameters alone

    @property
    def kept_bytes(self) -> int:
        """Bytes that the whole batch keeps, per slice."""
        return self.kept.size

    @cached_property
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
            for each in both:
                known = found.setdefault(each.name, each)
                assert known == each, f"two kernels are called {each.name}"
        return tuple(found.values())

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The kernels that are chosen at run time."""
        found: dict[str, Choice] = {}
        for kernel in (kernel for call in self.calls for kernel in call.kernels.values()):
            if isinstance(kernel, Choice):
                known = found.setdefault(kernel.name, kernel)
                assert known == kernel, f"two choices are called {kernel.name}"
        return tuple(found.values())


def segments(calls: Sequence[Call]) -> tuple[tuple[Call, ...], ...]:
    """Cut the calls before and after every wide one."""
    runs: list[list[Call]] = []
    for call in calls:
        if call.wide or not runs or runs[-1][0].wide:
            runs.append([call])
        else:
            runs[-1].append(call)
    return tuple(tuple(run) for run in runs)


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
