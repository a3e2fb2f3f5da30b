"""What all kinds of layers are, and the types of their fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

Pair: TypeAlias = tuple[int, int]
Sides: TypeAlias = tuple[Pair, Pair]
Pad: TypeAlias = Sides | Literal["same", "valid"]

NO_PAD: Sides = ((0, 0), (0, 0))


@dataclass(frozen=True)
class Layer:
    """One step of a network. `word` is its name in the notation."""

    word: ClassVar[str]
