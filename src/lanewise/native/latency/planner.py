"""Operations → a plan for one image: calls of kernels, in steps with a barrier after each.

A call is made of `extent` tasks (the field of `plan.Call`): its kernel is called once for each,
with every pointer `apart` bytes further. The threads share out the tasks of a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from typing import TypeVar

from lanewise.native.fuse import Operation, consumers
from lanewise.native.kernels import image_moves as moves
from lanewise.native.latency.packing import Pack, floats_of
from lanewise.native.memory import Arena, Interval, plan_arena, rounded
from lanewise.native.nest import LANES, Kernel
from lanewise.native.plan import FLOAT, Call, Choice, Layout, Place, Plan, Region, Slot
from lanewise.native.shelf import KernelShelf
from lanewise.native.target import Target
from lanewise.net.layers import Add
from lanewise.size.shapes import Shape

VECTOR = LANES * FLOAT
PAGE = 4096
#: tasks that a layer is cut into at most, and multiply–adds or values below which it is one task
MOST_TASKS = 16
LEAST_VECTORS = 64


def size_of(shape: Shape) -> tuple[int, int]:
    """Channels and pixels of a value; features are channels of one pixel."""
    return shape[0], prod(shape[1:])


def vectors_of(shape: Shape) -> int:
    """Vectors of 16 channels."""
    return moves.vectors_of(shape[0])


Bytes = TypeVar("Bytes", Slot, Region)


def moved(place: Bytes, by: int) -> Bytes:
    """The place so many bytes further on."""
    return replace(place, offset=place.offset + by)


@dataclass(frozen=True)
class ImagePlan(Plan):
    """A plan for one image. Behind the values stand clock ticks, a word a step, if they are
    counted; behind these, `thread_bytes` of each thread's own."""

    thread_bytes: int = 0

    @property
    def ticks_at(self) -> int:
        """Where the ticks stand."""
        return -(-self.arena.size // PAGE) * PAGE

    @property
    def threads_at(self) -> int:
        """Where the first thread's own bytes stand."""
        return self.ticks_at + -(-8 * len(self.phases) // PAGE) * PAGE

    @property
    def bytes(self) -> int:
        """For one thread; every further one needs no more than this again."""
        return self.threads_at + self.thread_bytes


@dataclass(frozen=True)
class Planes:
    """A value as [C][H][pitch]: rows of `pitch` places, of which the width holds values."""

    slot: Slot
    pitch: int


@dataclass(frozen=True)
class Ending:
    """Where a result goes, whether it is rectified, and what is added to it before."""

    target: Slot
    relu: bool
    summands: tuple[Slot, ...]


@dataclass
class ImagePlanner:
    """Collects calls while the rules walk the operations."""

    target: Target
    operations: tuple[Operation, ...]
    layout: Layout
    buffers: Layout
    exact: bool = False  # no faster algorithm that rounds more
    shelf: KernelShelf = field(default_factory=KernelShelf)
    purpose: str = ""
    step: int = 0
    calls: list[Call] = field(default_factory=list)
    packs: list[Pack] = field(default_factory=list)
    done: set[str] = field(default_factory=set)  # carried out together with what they read
    _planes: dict[str, Planes] = field(default_factory=dict)
    _lasting: set[str] = field(default_factory=set)
    _forms: dict[tuple[str, str], Slot] = field(default_factory=dict)
    _room: int = 0

    def __post_init__(self) -> None:
        self.by_name = {operation.name: operation for operation in self.operations}
        self.uses = consumers(self.operations)
        self.image = self.operations[0].name

    # -- values

    def value(self, name: str) -> Slot:
        """Where the value of an operation stands, blocked."""
        shape = self.by_name[name].shape
        channels, pixels = vectors_of(shape), size_of(shape)[1]
        return Slot(f"value {name}", channels * pixels * VECTOR)

    def planes(self, name: str) -> Planes | None:
        """The value as planes, where it comes in this form: the image, and what says so."""
        if name == self.image and name not in self._planes:
            channels, *size = self.by_name[name].shape
            slot = Slot(f"planes {name}", rounded(self.by_name[name].elements * FLOAT))
            self._planes[name] = Planes(slot, size[1])
            load_image(self, slot, channels, prod(size))
        return self._planes.get(name)

    def set_planes(self, name: str, planes: Planes) -> None:
        """This value is not blocked."""
        self._planes[name] = planes

    def read(self, name: str, shape: Shape) -> Slot:
        """The value, blocked, as an operation reads it that takes it for one of this shape."""
        own = self.by_name[name].shape
        slot = self._blocked(name)
        flattened = size_of(shape) != size_of(own)
        return self._features(name, slot) if flattened else slot

    def _blocked(self, name: str) -> Slot:
        """What comes as planes is rearranged, once, for whoever wants it blocked."""
        planes, key = self.planes(name), (name, "blocked")
        if planes is not None and key not in self._forms:
            channels, *size = self.by_name[name].shape
            sizes = (channels, *size, planes.pitch)
            there = self._forms[key] = self.value(name)
            self.call("to_blocks", sizes, lambda n: moves.to_blocks(n, *sizes), planes.slot, there)
        return self.value(name)

    def _features(self, name: str, slot: Slot) -> Slot:
        """The value flattened: in the order channel, pixel."""
        key = (name, "features")
        if key not in self._forms:
            shape = self.by_name[name].shape
            size = size_of(shape)
            there = Slot(f"features {name}", moves.vectors_of(prod(shape)) * VECTOR)
            self.call("to_features", size, lambda n: moves.to_features(n, *size), slot, there)
            self._forms[key] = there
        return self._forms[key]

    def copies(self, name: str, shape: Shape) -> Slot:
        """The value with every number in all lanes, as kernels of sixteen images read it."""
        size = size_of(shape)
        key = (name, f"copies {size}")
        if key not in self._forms:
            source = self.read(name, shape)
            there = Slot(f"copies {name} {size[0]}", prod(shape) * VECTOR)
            self.call("to_copies", size, lambda n: moves.to_copies(n, *size), source, there)
            self._forms[key] = there
        return self._forms[key]

    def reader(self, name: str) -> Operation | None:
        """Who alone reads a value."""
        if self.uses[name] != 1:
            return None
        return next(one for one in self.operations if name in one.inputs)

    def scratch(self, name: str, size: int) -> Slot:
        """Other bytes that a call needs."""
        return Slot(name, rounded(size))

    def lasting(self, name: str, size: int) -> Slot:
        """Bytes that are zero at first and belong to nobody else."""
        self._lasting.add(name)
        return Slot(name, rounded(size))

    # -- weights

    def pack(
        self, kind: str, node: str, shape: tuple[int, ...], *sizes: int, norm: str = ""
    ) -> Region:
        """Weights of a layer laid out as an array of this shape (`packing.py`)."""
        floats = floats_of(shape)
        one = Pack(kind, node, norm, sizes, self._room, floats)
        same = next((p for p in self.packs if replace(p, offset=self._room) == one), None)
        if same is None:
            self.packs.append(one)
            self._room += floats
        return Region("packed", (same or one).offset * FLOAT)

    # -- endings

    def ending(self, operation: Operation) -> Ending:
        """Where a convolution's result goes: into the sum that alone reads it, if the other part
        of that sum is there already."""
        plain = Ending(self.value(operation.name), operation.relu, ())
        reader = self.reader(operation.name)
        if reader is None or not isinstance(reader.layer, Add) or operation.relu:
            return plain
        others = [name for name in reader.inputs if name != operation.name]
        shapes = {operation.shape, reader.shape, *reader.input_shapes}
        if len(others) != 1 or shapes != {self.by_name[others[0]].shape}:
            return plain
        order = [one.name for one in self.operations]
        if order.index(others[0]) > order.index(operation.name):
            return plain
        self.done.add(reader.name)
        other = self.read(others[0], operation.shape)
        return Ending(self.value(reader.name), reader.relu, (other,))

    # -- calls

    def call(self, stem: str, key: object, write: Callable[[str], Kernel], *places: Place) -> None:
        """A step of one task."""
        self.tasks(stem, key, write, 1, *((place, 0) for place in places))

    def tasks(
        self,
        stem: str,
        key: object,
        write: Callable[[str], Kernel],
        count: int,
        *places: tuple[Place, int],
        barrier: bool = True,
    ) -> None:
        """`count` calls of a kernel; with every place: bytes from one task to the next. Without a
        barrier the next call belongs to the same step: it must not read what this one writes."""
        kernel = self.shelf.get(stem, key, write)
        self.add(
            Call(
                {1: kernel},
                tuple(place for place, _ in places),
                purpose=self.purpose,
                extent=count,
                apart=tuple(apart for _, apart in places),
            ),
            barrier,
        )

    def add(self, call: Call, barrier: bool = True) -> None:
        """A call in the present step; with a barrier the step ends."""
        apart = call.apart or (0,) * len(call.places)
        self.calls.append(replace(call, phase=self.step, extent=max(1, call.extent), apart=apart))
        self.step += barrier

    def blocks_of_vectors(self, vectors: int, pixels: int) -> tuple[int, int]:
        """(tasks, vectors of each) for a layer that works vector by vector."""
        fitting = [
            count
            for count in range(1, min(vectors, MOST_TASKS) + 1)
            if vectors % count == 0 and (vectors // count) * pixels >= LEAST_VECTORS
        ]
        count = max(fitting, default=1)
        return count, vectors // count

    # -- the result

    def finish(self) -> ImagePlan:
        """Every value gets a place in one block of memory, from the first to the last step that
        names it. What a thread needs for one task stands in a place of the thread."""
        own: dict[str, int] = {}
        lives: dict[str, tuple[int, int, int]] = {}
        for call in self.calls:
            for place in call.places:
                if isinstance(place, Slot) and place.worker:
                    own[place.name] = max(place.size, own.get(place.name, 0))
                elif isinstance(place, Slot):
                    size, first, _ = lives.get(place.name, (place.size, call.phase, 0))
                    lives[place.name] = (max(size, place.size), first, call.phase)
        for name in self._lasting:
            lives[name] = (lives[name][0], 0, self.step)
        intervals = [Interval(name, *life) for name, life in lives.items()]
        room = -(-max(own.values(), default=0) // PAGE) * PAGE
        return ImagePlan(
            tuple(self.calls),
            plan_arena(intervals),
            Arena({}, 0),
            frozenset(),
            thread_bytes=room,
        )


def load_image(plan: ImagePlanner, planes: Slot, channels: int, pixels: int) -> None:
    """The caller's image as planes; bytes are normalised, floats are not."""
    key = (channels, pixels)
    call_with_image(
        plan, "load", key, lambda name, dtype: moves.load_image(name, *key, dtype), planes
    )


def call_with_image(
    plan: ImagePlanner,
    stem: str,
    key: object,
    write: Callable[[str, str], Kernel],
    target: Slot,
) -> None:
    """A kernel that reads the caller's image, one for either type of pixel: `write(name, type)`."""
    both = [
        plan.shelf.get(f"{stem}_{dtype}", key, lambda name, dtype=dtype: write(name, dtype))  # type: ignore[misc]
        for dtype in ("u8", "f32")
    ]
    # By its kernel's name: two layers of different sizes may each lay out the image.
    choice = Choice(f"{both[0].name}_image", "images_are_bytes", *both)
    regions = (Region("images"), Region("scale"), Region("shift"), Region("faults"))
    purpose = f"{plan.image} {stem}"
    plan.add(Call({1: choice}, (*regions, target), purpose=purpose))


def store_row(plan: ImagePlanner, name: str, elements: int) -> None:
    """The output in the caller's memory, in the order channel, pixel."""
    shape = plan.by_name[name].shape
    size = size_of(shape)
    assert prod(shape) == elements
    source = plan.read(name, shape)
    plan.call("to_row", size, lambda n: moves.to_row(n, *size), source, Region("logits"))
