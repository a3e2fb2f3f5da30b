"""bf16 maps: a plan whose calls keep maps in fp32 → one whose maps are half as large.

A bf16 is the upper half of a float32: 8 bits of exponent, 8 of precision. With `precision="bf16"`

- every map between layers and the gradient of every map is rounded to the nearest bf16 as it is
  stored (of two equally near ones to the even one; NaN stays NaN), and widened as it is loaded;
- the weights of convolutions and full connections are rounded to bf16 before they are multiplied;
- all else is fp32: sums (no sum is rounded before it is complete), statistics, biases and the
  parameters of normalisations, the net's output, its loss and the gradient of the output, gradients
  of parameters, the optimizer, and the weights that it changes.

Where layers are joined (`fuse.py`), a map between them does not exist and is not rounded. A product
of two bf16 is exact in fp32.

The rules write kernels and plan memory as for fp32, and mark what holds maps (`Slot.maps`). Here,
last of all, every kernel is rewritten for the places it is called with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lanewise.native.memory import rounded
from lanewise.native.nest import (
    LANES,
    MATRIX_STATEMENTS,
    Assign,
    Buffer,
    Fetch,
    Kernel,
    Load,
    Loop,
    Op,
    Statement,
    Transpose,
    Value,
    op,
)
from lanewise.native.plan import FLOAT, Call, Choice, Job, Layout, Parameter, Place, Region, Slot
from lanewise.native.writer import Writer

# ---- kernels ------------------------------------------------------------------------------------


def narrowed(kernel: Kernel, which: frozenset[int], name: str) -> Kernel:
    """The kernel with some of its fp32 buffers, by number, as bf16."""
    halved = {
        buffer: replace(buffer, dtype="bf16", align=max(1, buffer.align // 2))
        for number, buffer in enumerate(kernel.buffers)
        if number in which
    }
    buffers = tuple(halved.get(buffer, buffer) for buffer in kernel.buffers)
    return Kernel(name, buffers, kernel.symbols, _Narrowing(halved).body(kernel.body))


@dataclass(frozen=True)
class _Narrowing:
    """Statements over fp32 buffers → the same over their halves."""

    halved: Mapping[Buffer, Buffer]

    def body(self, body: Sequence[Statement]) -> tuple[Statement, ...]:
        return tuple(self.statement(one) for one in body)

    def statement(self, one: Statement) -> Statement:
        if isinstance(one, Loop):
            return replace(one, body=self.body(one.body))
        if isinstance(one, Fetch):
            return replace(one, buffer=self.halved.get(one.buffer, one.buffer))
        if isinstance(one, MATRIX_STATEMENTS):
            return one  # matrices hold pairs of bf16 already, or sums
        memo: dict[int, Value] = {}
        if isinstance(one, Transpose):
            return replace(one, values=tuple(self.value(each, memo) for each in one.values))
        value = self.value(one.value, memo)
        if isinstance(one, Assign):
            return replace(one, value=value)
        half = self.halved.get(one.buffer)
        return (
            replace(one, buffer=half, value=op("tobf16", value))
            if half
            else replace(one, value=value)
        )

    def value(self, value: Value, memo: dict[int, Value]) -> Value:
        """What a statement names twice stays one value."""
        if id(value) not in memo:
            memo[id(value)] = self._changed(value, memo)
        return memo[id(value)]

    def _changed(self, value: Value, memo: dict[int, Value]) -> Value:
        if isinstance(value, Op):
            return replace(value, arguments=tuple(self.value(a, memo) for a in value.arguments))
        if isinstance(value, Load) and value.buffer in self.halved:
            return op("tofloat", replace(value, buffer=self.halved[value.buffer]))
        return value


def round_weights(name: str, blocks: int) -> Kernel:
    """target = source, rounded to bf16 and kept as fp32: what is multiplied."""
    source = Buffer("source", (blocks, LANES))
    target = Buffer("target", (blocks, LANES), access="write")
    writer = Writer(name, [source, target])
    with writer.loop("i", blocks, shared=True) as i:
        short = op("tobf16", writer.load(source, i, 0))
        writer.store(target, i, 0, value=op("tofloat", short))
    return writer.finish()


# ---- plans --------------------------------------------------------------------------------------


@dataclass
class Narrowed:
    """Rewrites the calls and jobs of one plan. `weights`: names of parameters to be rounded."""

    layout: Layout
    weights: frozenset[str]
    _kernels: dict[tuple[str, frozenset[int]], Kernel] = field(default_factory=dict)
    _rounded: dict[str, Slot] = field(default_factory=dict)

    def calls(self, calls: Sequence[Call]) -> list[Call]:
        """The calls on halved maps; before them every worker rounds the weights for itself."""
        narrow = [self._call(call) for call in calls]
        return [*self._rounding(), *narrow]

    def jobs(self, jobs: Sequence[Job]) -> list[Job]:
        """Jobs on halved maps."""
        return [
            replace(
                job,
                kernel=self._kernel(job.kernel, job.places),
                places=tuple(_halved(place) for place in job.places),
            )
            for job in jobs
        ]

    def _call(self, call: Call) -> Call:
        kernels = {w: self._chosen(kernel, call.places) for w, kernel in call.kernels.items()}
        apart = tuple(
            step // 2 if _holds_maps(place) else step
            for place, step in zip(call.places, call.apart, strict=False)
        )
        places = tuple(self._place(place) for place in call.places)
        return replace(call, kernels=kernels, places=places, apart=apart)

    def _place(self, place: Place) -> Place:
        if isinstance(place, Slot):
            return _halved(place)
        parameter = self._weight_at(place) if place.name == "parameters" else None
        if parameter is None:
            return place
        slot = Slot(f"rounded {parameter.name}", rounded(parameter.padded * FLOAT), worker=True)
        self._rounded[parameter.name] = slot
        return replace(slot, offset=place.offset - parameter.offset * FLOAT)

    def _weight_at(self, region: Region) -> Parameter | None:
        for name in self.weights:
            parameter = self.layout.parameters[name]
            if 0 <= region.offset // FLOAT - parameter.offset < parameter.padded:
                return parameter
        return None

    def _rounding(self) -> list[Call]:
        return [
            Call(
                {1: self._round_weights(self.layout.parameters[name].padded // LANES)},
                (Region("parameters", self.layout.parameters[name].offset * FLOAT), slot),
                purpose="round weights",
                who="worker",
            )
            for name, slot in self._rounded.items()
        ]

    def _round_weights(self, blocks: int) -> Kernel:
        name = f"round_weights_bf16_{blocks}"
        return self._kernels.setdefault((name, frozenset()), round_weights(name, blocks))

    def _chosen(self, kernel: Kernel | Choice, places: Sequence[Place]) -> Kernel | Choice:
        if isinstance(kernel, Kernel):
            return self._kernel(kernel, places)
        one, zero = (self._kernel(each, places) for each in (kernel.one, kernel.zero))
        return replace(kernel, one=one, zero=zero)

    def _kernel(self, kernel: Kernel, places: Sequence[Place]) -> Kernel:
        """One for each set of places that hold maps; they have the numbers of these."""
        which = frozenset(
            number
            for number, (buffer, place) in enumerate(zip(kernel.buffers, places, strict=False))
            if _holds_maps(place) and buffer.dtype == "f32"
        )
        if not which:
            return kernel
        key = (kernel.name, which)
        if key not in self._kernels:
            stem, _, number = kernel.name.rpartition("_")
            marks = "".join(str(int(i in which)) for i in range(len(kernel.buffers)))
            self._kernels[key] = narrowed(kernel, which, f"{stem}_bf16_{number}_{marks}")
        return self._kernels[key]


def _holds_maps(place: Place) -> bool:
    return isinstance(place, Slot) and place.maps


def _halved(place: Slot) -> Slot:
    if not place.maps:
        return place
    return replace(place, size=place.size // 2, offset=place.offset // 2)
