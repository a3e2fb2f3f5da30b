"""The gradient that a 1 × 1 convolution sends to a batch normalisation, of which only the sums are
wanted (`rules/inverted_gradient.py`): they are told while it is in registers, and it goes nowhere.

With g what the convolution sends and dy = g through the rectifier, every lane tells Σ dy and
Σ dy·x̂, first as Σ dy·(x − mean). Each value is added by itself, in the order of the pixels: the
tile shows in no bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lanewise.native.kernels.batch_norm import INVERSE, MEAN, MOMENTS, SCALE, SHIFT
from lanewise.native.kernels.batch_norm_gradient import parameters_of, through
from lanewise.native.kernels.lanes import add_lanes, number
from lanewise.native.nest import LANES, Buffer, Index, Kernel, Read, Register, Value, op
from lanewise.native.writer import Writer


@dataclass(frozen=True)
class ToldProducts:
    """Buffers known (maps, pitch), the value before the normalisation, moments (maps, 5), told
    (maps, 2, 16), which is added to."""

    maps: int
    rectifier: str
    pitch: int
    known: Buffer = field(init=False)
    moments: Buffer = field(init=False)
    told: Buffer = field(init=False)

    def __post_init__(self) -> None:
        for name, buffer in (
            ("known", Buffer("known", (self.maps, self.pitch, LANES))),
            ("moments", Buffer("moments", (self.maps, MOMENTS), align=4)),
            ("told", Buffer("told", (self.maps, 2, LANES), access="update")),
        ):
            object.__setattr__(self, name, buffer)

    @property
    def buffers(self) -> list[Buffer]:
        return [self.known, self.moments, self.told]

    def start(self, writer: Writer, at: tuple[Index, Index]) -> Value:
        """What a sum begins with."""
        return number(0.0, LANES)

    def store(
        self, writer: Writer, places: Sequence[tuple[Index, Index]], cells: Sequence[Register]
    ) -> None:
        """Neighbouring pixels of one map."""
        k = places[0][0]
        scale, shift, mean = (
            writer.let(writer.splat(self.moments, k, row), "constant")
            for row in (SCALE, SHIFT, MEAN)
        )
        total, product = (
            writer.assign(writer.register("sum"), writer.load(self.told, k, row, 0))
            for row in range(2)
        )
        for (_, n), cell in zip(places, cells, strict=True):
            x = writer.let(writer.load(self.known, k, n, 0), "x")
            normalised = op("fma", x, scale, shift)
            dy: Value = writer.let(through(self.rectifier, normalised, Read(cell)), "dy")
            writer.assign(total, op("add", Read(total), dy))
            writer.assign(product, op("fma", op("sub", x, mean), dy, Read(product)))
        for row, register in enumerate((total, product)):
            writer.store(self.told, k, row, 0, value=Read(register))


def finish_told(name: str, maps: int, *, affine: bool) -> Kernel:
    """Buffers moments, told (maps, 2, 16), [weight, bias]: what has been told of a slice becomes
    Σ dy and Σ dy·x̂, and is added to the gradients of the normalisation's parameters."""
    moments = Buffer("moments", (maps, MOMENTS), align=4)
    told = Buffer("told", (maps, 2, LANES), access="update")
    parameters = parameters_of(maps) * affine
    writer = Writer(name, [moments, told, *parameters])
    with writer.loop("k", maps) as k:
        inverse = writer.splat(moments, k, INVERSE)
        product = writer.let(op("mul", writer.load(told, k, 1, 0), inverse), "product")
        writer.store(told, k, 1, 0, value=product)
        total = writer.let(writer.load(told, k, 0, 0), "total")
        for target, value in zip(parameters, (product, total), strict=False):
            add_lanes(writer, target, k, value=value)
    return writer.finish()
