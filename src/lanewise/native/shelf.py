"""The kernels of a plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lanewise.native.nest import Kernel


@dataclass
class KernelShelf:
    """Each distinct kernel is written once, whoever asks for it."""

    made: dict[object, Kernel] = field(default_factory=dict)

    def get(self, stem: str, key: object, write: Callable[[str], Kernel]) -> Kernel:
        """The kernel of this stem and key; `write(name)` makes it."""
        if (stem, key) not in self.made:
            self.made[stem, key] = write(f"{stem}_{len(self.made)}")
        return self.made[stem, key]
