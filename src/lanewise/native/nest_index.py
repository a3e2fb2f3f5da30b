"""Indices of the loop-nest language: affine in loop variables, and in entries of integer tables.

`nest.py` tells what they are for, and is where they are imported from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from lanewise.native.nest import Buffer


@dataclass(frozen=True, eq=False, slots=True)
class Var:
    """A loop variable. Two loops may use the same name; identity tells them apart."""

    name: str


@dataclass(frozen=True, slots=True)
class Symbol:
    """A size known only when the program runs (a count of slices, of images), at most `most`."""

    name: str
    most: int | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Entry:
    """The integer that stands in a table (or an i64 buffer) at an index."""

    table: Buffer
    index: Index


Atom: TypeAlias = Var | Symbol | Entry


@dataclass(eq=False, slots=True)
class Index:
    """A sum of atom × factor, plus a constant. Never changed (see `nest.py`)."""

    terms: Final[tuple[tuple[Atom, int], ...]] = ()
    constant: Final[int] = 0

    def __add__(self, other: IndexLike) -> Index:
        if isinstance(other, int):
            return Index(self.terms, self.constant + other)
        other = as_index(other)
        if not (self.terms and other.terms):
            return Index(self.terms or other.terms, self.constant + other.constant)
        merged = dict(self.terms)
        for atom, factor in other.terms:
            merged[atom] = merged.get(atom, 0) + factor
        terms = tuple((atom, factor) for atom, factor in merged.items() if factor)
        return Index(terms, self.constant + other.constant)

    __radd__ = __add__

    def __mul__(self, factor: int) -> Index:
        if factor == 1:
            return self
        if factor == 0:
            return Index()
        return Index(tuple((a, f * factor) for a, f in self.terms), self.constant * factor)

    __rmul__ = __mul__


IndexLike: TypeAlias = int | Var | Symbol | Entry | Index


def as_index(value: IndexLike) -> Index:
    """Any of the forms an index is written in → the sum."""
    if isinstance(value, Index):
        return value
    if isinstance(value, int):
        return _NUMBERS[value] if 0 <= value < len(_NUMBERS) else Index((), value)
    return Index(((value, 1),), 0)


#: what most indices are
_NUMBERS = [Index((), number) for number in range(256)]
