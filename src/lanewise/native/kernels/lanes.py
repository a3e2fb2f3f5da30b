"""Rows whose length is no multiple of 16: as vectors of 16 lanes, then 8, 4, 2 and 1.

So nothing is written twice, nothing is read beyond an end, and no memory needs padding.

And sums over lanes, which are the gradients of what all images share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lanewise.native.kernels.register_tiles import blocks
from lanewise.native.nest import (
    LANES,
    Buffer,
    Constant,
    Index,
    IndexLike,
    Op,
    Read,
    Register,
    Value,
    as_index,
    op,
)
from lanewise.native.writer import Writer

#: so many values are added up before their sum joins a larger one: small numbers that are added to
#: a large sum one by one would lose their last digits
STRIP = 512
#: and where there is one sum, so many: like terms are rounded the same way, and their errors add up
RUN = 64


@dataclass(frozen=True)
class Piece:
    """`count` neighbouring vectors of `lanes` elements, the first at `start`."""

    start: int
    lanes: int
    count: int

    @property
    def stop(self) -> int:
        return self.start + self.lanes * self.count


def pieces(size: int) -> tuple[Piece, ...]:
    """A row of `size` elements, cut: 84 → 5 vectors of 16 and one of 4."""
    found, start, lanes = [], 0, LANES
    while start < size:
        count = (size - start) // lanes
        if count:
            found.append(Piece(start, lanes, count))
            start += lanes * count
        lanes //= 2
    return tuple(found)


def spread(value: Value, lanes: int) -> Value:
    """One element in `lanes` lanes."""
    return value if lanes == 1 else Op("splat", (value,), value.dtype, lanes)


def number(value: float, lanes: int) -> Constant:
    """A float in `lanes` lanes."""
    return Constant(value, "f32", lanes)


def add_lanes(writer: Writer, sums: Buffer, *at: IndexLike, value: Value) -> None:
    """sums[at] += the sum of the value's lanes."""
    total = op("add", writer.load(sums, *at, lanes=1), op("lanesum", value))
    writer.store(sums, *at, value=total)


def total(cells: Sequence[Register]) -> Value:
    """The sum of registers, halves added to halves."""
    values: list[Value] = [Read(cell) for cell in cells]
    while len(values) > 1:
        pairs = [op("add", a, b) for a, b in zip(values[::2], values[1::2], strict=False)]
        values = pairs + values[len(pairs) * 2 :]
    return values[0]


def strip_sum(
    writer: Writer, size: int, together: int, put: Callable[[Register, Index], None]
) -> Value:
    """The sum of what `put` adds to a register for each of 0 … size − 1, in strips; inside them
    `together` independent sums."""
    (whole,) = writer.accumulators("whole", 1)
    for first, length, turns in blocks(size, STRIP):
        with writer.loop("s", first + length * turns, first, length) as s:
            cells = writer.accumulators("sum", min(together, length))
            for start, count, times in blocks(length, together):
                with writer.loop("i", start + count * times, start, count) as i:
                    for k in range(count):
                        put(cells[k], as_index(s) + i + k)
            writer.assign(whole, op("add", Read(whole), total(cells)))
    return Read(whole)


def in_runs(
    writer: Writer, name: str, size: int, sums: Sequence[Register]
) -> Iterator[tuple[Index, Sequence[Register]]]:
    """A loop over so many terms: which one, and registers to add it to, that begin anew after each
    RUN and are then added to the sums."""
    if size <= RUN:
        with writer.loop(name, size) as i:
            yield as_index(i), sums
        return
    for first, count, times in blocks(size, RUN):
        with writer.loop("run", first + count * times, first, count) as run:
            parts = writer.accumulators("part", len(sums))
            with writer.loop(name, count) as i:
                yield as_index(run) + i, parts
            for whole, part in zip(sums, parts, strict=True):
                writer.assign(whole, op("add", Read(whole), Read(part)))
