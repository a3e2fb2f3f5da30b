"""Gradients of some pixels of a map that are not written yet (`rules/shortcuts.py`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lanewise.native.plan import Slot


@dataclass(frozen=True)
class Waiting:
    """What every `stride`-th row and column of a map gets stands in `place`, with the axes `shape`:
    until another reader of the map takes it along, or `emit` writes it."""

    place: Slot
    stride: tuple[int, int]
    shape: tuple[int, ...]
    emit: Callable[[], None]


class WaitingGradients(dict[str, Waiting]):
    """By the map's name."""

    def write(self, name: str) -> None:
        """Write what waits for a map, if anything does: somebody needs its gradient."""
        waiting = self.pop(name, None)
        if waiting:
            waiting.emit()
