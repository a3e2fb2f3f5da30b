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
    placed: list[tuple[int, int, int, int, int]] = []  # start, number, end, first, last
    offsets: dict[str, int] = {}
    for number, interval in enumerate(sorted(intervals, key=lambda i: (-i.size, i.first, i.name))):
        size, born, dies = interval.size, interval.first, interval.last
        offset = 0
        for start, _, end, first, last in placed:
            if first <= dies and born <= last:
                if offset + size <= start:
                    break
                offset = max(offset, end)
        offsets[interval.name] = offset
        insort(placed, (offset, number, offset + rounded(size), born, dies))
    return Arena(offsets, max((end for _, _, end, _, _ in placed), default=0))


def rounded(size: int) -> int:
    """Up to the next multiple of the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT
