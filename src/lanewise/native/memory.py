"""The memory plan: lifetimes → offsets in one arena.

Two intervals may share bytes only if they never live at the same moment. Placing the largest first
at the lowest free offset is within a few percent of the bound on the nets of the zoo.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT = 64


@dataclass(frozen=True)
class Interval:
    """`size` bytes that are needed from moment `first` to moment `last`, both included."""

    name: str
    size: int
    first: int
    last: int

    def meets(self, other: Interval) -> bool:
        """Whether both live at some moment."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Arena:
    """Where each interval lies, in bytes, and how many bytes all take together."""

    offsets: dict[str, int]
    size: int


def plan_arena(intervals: Sequence[Interval]) -> Arena:
    """Offsets for all intervals, each a multiple of 64 bytes, none overlapping while alive."""
    placed: list[tuple[int, int, Interval]] = []  # in the order of their offsets
    for number, interval in enumerate(sorted(intervals, key=lambda i: (-i.size, i.first, i.name))):
        offset = 0
        for start, _, other in placed:
            if interval.meets(other):
                if offset + interval.size <= start:
                    break
                offset = max(offset, start + rounded(other.size))
        insort(placed, (offset, number, interval))
    size = max((start + rounded(interval.size) for start, _, interval in placed), default=0)
    return Arena({interval.name: start for start, _, interval in placed}, size)


def rounded(size: int) -> int:
    """Up to the next multiple of the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT
