"""Rows whose length is no multiple of 16: as vectors of 16 lanes, then 8, 4, 2 and 1.

So nothing is written twice, nothing is read beyond an end, and no memory needs padding.
"""

from __future__ import annotations

from dataclasses import dataclass

from lanewise.native.nest import LANES, Constant, Op, Value


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
