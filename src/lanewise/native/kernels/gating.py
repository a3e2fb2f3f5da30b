"""Values of several maps joined pixel by pixel, where some inputs are one value a channel.

    y[c,i] = Π_n x_n[c,i]  or  Σ_n x_n[c,i],    x_n[c,i] = x_n[c] where input n is C×1×1 (`narrow`)

    product:  dx_n[c,i] = dy[c,i] · Π_m≠n x_m[c,i];     sum:  dx_n[c,i] = dy[c,i]

and a narrow input gets the sum over the pixels of its channel. What narrow inputs contribute stays
in a register for the whole channel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lanewise.native.kernels.functions import is_positive, keep_where, rectified
from lanewise.native.kernels.register_tiles import blocks
from lanewise.native.nest import LANES, Buffer, Index, Kernel, Read, Value, Var, as_index, op
from lanewise.native.writer import Writer

UNROLLED = 4  # pixels a turn, and independent sums


@dataclass(frozen=True)
class Join:
    """`operation`: "mul" or "add"; `narrow[n]`: input n has one value a channel."""

    operation: str
    channels: int
    pixels: int
    narrow: tuple[bool, ...]

    def buffer(self, name: str, narrow: bool = False, access: str = "read") -> Buffer:
        """An array of maps, or of one value a channel."""
        return Buffer(name, (self.channels, 1 if narrow else self.pixels, LANES), access=access)

    def sources(self) -> list[Buffer]:
        return [self.buffer(f"source{n}", narrow) for n, narrow in enumerate(self.narrow)]


def join(name: str, sizes: Join, *, relu: bool = False) -> Kernel:
    """Buffers source0 … , target."""
    sources, target = sizes.sources(), sizes.buffer("target", access="write")
    writer = Writer(name, [*sources, target])
    with writer.loop("c", sizes.channels) as c:
        fixed = _narrow_part(writer, sizes, sources, c)
        for pixels in _pixels(writer, sizes.pixels):
            for i in pixels:
                wide = _wide_part(writer, sizes, sources, c, i)
                result = _joined(sizes.operation, [*wide, *fixed])
                writer.store(target, c, i, 0, value=rectified(result) if relu else result)
    return writer.finish()


def join_gradient(name: str, sizes: Join, which: int, *, mask: bool) -> Kernel:
    """The gradient of input `which`: buffers gradient, [value], target; of a product the other
    inputs stand after the gradient, in their order."""
    narrow = sizes.narrow[which]
    gradient = sizes.buffer("gradient")
    others = [source for n, source in enumerate(sizes.sources()) if n != which]
    others = others if sizes.operation == "mul" else []
    value = sizes.buffer("value", narrow)
    target = sizes.buffer("target", narrow, "write")
    writer = Writer(name, [gradient, *others, *[value] * mask, target])

    def store(c: Var, i: Index, result: Value) -> None:
        if mask:
            result = keep_where(is_positive(writer.load(value, c, i, 0)), result)
        writer.store(target, c, i, 0, value=result)

    with writer.loop("c", sizes.channels) as c:
        fixed = _narrow_part(writer, sizes, others, c)
        sums = writer.accumulators("dx", UNROLLED * narrow)
        for pixels in _pixels(writer, sizes.pixels):
            for n, i in enumerate(pixels):
                wide = _wide_part(writer, sizes, others, c, i)
                dy = writer.load(gradient, c, i, 0)
                if narrow:
                    dx = _joined("mul", [dy, *wide])
                    writer.assign(sums[n], op("add", Read(sums[n]), dx))
                else:
                    store(c, i, _joined("mul", [dy, *wide, *fixed]))
        if narrow:
            total = _joined("add", [Read(cell) for cell in sums])
            store(c, as_index(0), _joined("mul", [total, *fixed]))
    return writer.finish()


def _narrow_part(writer: Writer, sizes: Join, sources: Sequence[Buffer], c: Var) -> list[Value]:
    """What the narrow inputs contribute to every pixel of a channel: one value or none."""
    narrow: list[Value] = [writer.load(s, c, 0, 0) for s in sources if s.shape[1] == 1]
    return [writer.let(_joined(sizes.operation, narrow))] if narrow else []


def _wide_part(
    writer: Writer, sizes: Join, sources: Sequence[Buffer], c: Var, i: Index
) -> list[Value]:
    return [writer.load(s, c, i, 0) for s in sources if s.shape[1] != 1]


def _joined(operation: str, values: Sequence[Value]) -> Value:
    """All values, from left to right."""
    result = values[0]
    for value in values[1:]:
        result = op(operation, result, value)
    return result


def _pixels(writer: Writer, pixels: int) -> Iterator[list[Index]]:
    for first, count, times in blocks(pixels, UNROLLED):
        with writer.loop("i", first + count * times, first, count) as i:
            yield [as_index(i) + offset for offset in range(count)]
