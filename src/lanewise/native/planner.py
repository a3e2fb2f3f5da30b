"""Operations → a plan: the planner collects calls while the rules walk the operations.

It knows where every value and every gradient stands, adds up the gradients of a value that several
operations read, and at the end has a place found for everything (`chains.py`, `lifetimes.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lanewise.native.chains import form_chains
from lanewise.native.fuse import Operation, consumers
from lanewise.native.kernels import joins
from lanewise.native.kernels.fused_norm import Thin
from lanewise.native.lifetimes import lifetimes
from lanewise.native.memory import rounded
from lanewise.native.nest import LANES, Kernel
from lanewise.native.plan import (
    FLOAT,
    Along,
    Call,
    Job,
    Layout,
    Parameter,
    Place,
    Plan,
    Region,
    Rows,
    Slot,
    Strips,
    Who,
)
from lanewise.native.precision import Narrowed
from lanewise.native.precisions import multiplied_weights
from lanewise.native.sharing import GradientSharing, value_places
from lanewise.native.shelf import KernelShelf
from lanewise.native.target import Target
from lanewise.native.waiting import WaitingGradients
from lanewise.net.layers import Input, Linear
from lanewise.size.cost import layer_parameters


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
    exact: bool = False  # every sum as the layer defines it: no faster algorithm that rounds more
    precision: str = "fp32"  # how maps are kept
    purpose: str = ""
    phase: int = 0
    calls: list[Call] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    #: convolutions whose gradients their normalisation has worked out, but for what images pull
    pulled: dict[str, Operation] = field(default_factory=dict)
    #: what is near until its statistics or sums are told, and then written past the caches; and
    #: gradients that are written there besides
    near: dict[str, Slot] = field(default_factory=dict)
    near_gradients: dict[str, Slot] = field(default_factory=dict)
    kept_gradients: dict[str, Slot] = field(default_factory=dict)
    stored: set[str] = field(default_factory=set)  # written by a convolution in their place
    #: normalised values, and gradients, that their first reader makes (`rules/fused_norm.py`)
    unwritten: dict[str, Operation] = field(default_factory=dict)
    unpulled: dict[str, tuple[Operation, Slot]] = field(default_factory=dict)
    #: normalisations whose statistics, or sums of gradients, a convolution has told
    told: set[str] = field(default_factory=set)
    told_gradients: set[str] = field(default_factory=set)
    thin: dict[str, tuple[str, Thin]] = field(default_factory=dict)  # read in a larger map
    waiting: WaitingGradients = field(default_factory=WaitingGradients)
    written: set[str] = field(default_factory=set)  # have a gradient
    _unmasked: set[str] = field(default_factory=set)
    _gradients: dict[str, Slot] = field(default_factory=dict)
    _endings: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.by_name = {operation.name: operation for operation in self.operations}
        self.output = self.operations[-1].name  # whose numbers stay fp32, whatever the precision
        self._learning = self._which_learn()
        self._parts = value_places(self.operations)
        self.sharing = GradientSharing(self.operations)
        self.uses = consumers(self.operations)
        self.readers: dict[str, list[Operation]] = {}
        for operation in self.operations:
            for name in operation.inputs:
                self.readers.setdefault(name, []).append(operation)

    # -- places

    def value(self, name: str) -> Slot:
        """The output of an operation, 16 images of it."""
        whole, before = self._parts.get(name, (name, 0))
        size = self.by_name[whole].elements * LANES * FLOAT
        return Slot(
            f"value {whole}", size, offset=before * LANES * FLOAT, maps=whole != self.output
        )

    def gradient(self, name: str) -> Slot:
        """The loss' gradient of that output (before a joined ReLU)."""
        if name in self._gradients:
            return self._gradients[name]
        operation = self.by_name[name]
        kept = isinstance(operation.layer, Linear)
        size = operation.elements * LANES * FLOAT
        return Slot(f"gradient {name}", size, kept, maps=name != self.output)

    def scratch(self, name: str, size: int, kept: bool = False, maps: bool = False) -> Slot:
        """Other bytes of one slice: pooling arguments, rows for the weight gradient …; `maps`: they
        are values or gradients of maps."""
        return Slot(name, rounded(size), kept, maps=maps)

    def constants(self, name: str, size: int) -> Slot:
        """Bytes that a worker computes once and reads for all its slices."""
        return Slot(name, rounded(size), worker=True)

    def parameter(self, operation: Operation, which: str) -> Region:
        """Where `weight` or `bias` of an operation stands."""
        return self.parameter_of(operation.node, which)

    def parameter_of(self, node: str, which: str) -> Region:
        """Where `weight` or `bias` of a layer stands."""
        return Region("parameters", self.layout.parameters[f"{node}.{which}"].offset * FLOAT)

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
        way = self.by_channels(stem, key, write, channels, *(apart for _, apart in places))
        self.call_pieces((way,), *(place for place, _ in places))

    def call_pieces(self, ways: tuple[Along, ...], *places: Place) -> None:
        """Call a kernel that may be made for some channels or pixels at a time."""
        self.calls.append(Call({}, places, purpose=self.purpose, phase=self.phase, ways=ways))

    def by_channels(
        self,
        stem: str,
        key: object,
        write: Callable[[str, int], Kernel],
        channels: int,
        *apart: int,
        opening: tuple[Call, ...] = (),
        strip: int = 0,
        part: int = 0,
    ) -> Along:
        """Some channels at a time: `write(name, block)`; at every place, bytes from one channel to
        the next. `strip`: so many, if that is settled."""

        def make(block: int, pitches: tuple[int, ...]) -> Kernel:
            return self.shelf.get(stem, (key, block), lambda name: write(name, block))

        return Along("channels", channels, apart, make, opening, strip=strip, part=part)

    def by_pixels(
        self,
        stem: str,
        key: object,
        write: Callable[..., Kernel],
        pixels: int,
        *maps: bool | Strips | Rows,
        opening: tuple[Call, ...] = (),
        closing: tuple[Call, ...] = (),
        fetches: tuple[int, ...] = (),
        strip: int = 0,
        part: int = 0,
    ) -> Along:
        """Some pixels at a time: `write(name, block, pitches)`; `maps`: whether a place has maps of
        which a piece sees some pixels, else it sees all of it; `pitches` are of those. `fetches`:
        how many maps `write(…, ahead)` can fetch beside its work."""
        apart = tuple(LANES * FLOAT * m if isinstance(m, bool) else m.apart for m in maps)
        pitches = tuple(pixels if isinstance(m, bool) else m.pitch for m in maps)
        strip = max((m.pixels for m in maps if isinstance(m, Strips)), default=strip)

        def make(block: int, pitches: tuple[int, ...]) -> Kernel:
            mine = tuple(pitch for pitch, has in zip(pitches, maps, strict=True) if has)
            return self.shelf.get(
                f"{stem}_pixels", (key, block, mine), lambda name: write(name, block, mine)
            )

        def make_fetching(block: int, pitches: tuple[int, ...], ahead: tuple[int, int]) -> Kernel:
            mine = tuple(pitch for pitch, has in zip(pitches, maps, strict=True) if has)
            return self.shelf.get(
                f"{stem}_pixels",
                (key, block, mine, ahead),
                lambda name: write(name, block, mine, ahead=ahead),
            )

        pieces = (opening, closing, fetches, make_fetching, strip, pitches, part)
        return Along("pixels", pixels, apart, make, *pieces)

    def made(self, stem: str, key: object, write: Callable[[str], Kernel], *places: Place) -> Call:
        """A call that is not made here: for the opening or closing of another."""
        kernel = self.shelf.get(stem, key, write)
        return Call({1: kernel}, places, purpose=self.purpose, phase=self.phase)

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
        self.written.add(name)

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
        self.waiting.write(name)
        target = self.gradient(name)
        if name not in self.written:
            self.has_gradient(name)
            emit(target)
        elif add is not None:
            add(target)
            self._unmasked.discard(name)
        else:
            size = self.by_name[name].elements * LANES * FLOAT
            more = self.scratch(f"more {len(self.calls)} {name}", size, maps=target.maps)
            emit(more)
            self._sum(name, more, target)

    def _sum(self, name: str, more: Slot, target: Slot) -> None:
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
        self.waiting.write(source)
        own = self.gradient(operation.name)
        here = replace(own, offset=own.offset + before * LANES * FLOAT)
        if source in self.written:
            self._sum(source, here, self.gradient(source))
        elif not isinstance(self.by_name[source].layer, Linear) and self.sharing.may_share(
            operation, source, here
        ):
            self._gradients[source] = here
            self.has_gradient(source)
            if self.joined_relu(source):
                self._unmasked.add(source)
        else:
            self._copy(source, here)

    def _copy(self, source: str, here: Slot) -> None:
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
        self.waiting.write(operation.name)
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
        if self.precision == "bf16":
            layers = ((one.node, one.layer) for one in self.operations)
            narrow = Narrowed(self.layout, multiplied_weights(layers))
            self.calls, self.jobs = narrow.calls(self.calls), narrow.jobs(self.jobs)
        arena, kept, crossing, constants = lifetimes(
            self.calls, self.jobs, self.widths[0], self.training
        )
        return Plan(
            tuple(self.calls), arena, kept, crossing, tuple(self.jobs), self.widths, constants
        )
