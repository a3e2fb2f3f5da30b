"""A call of a Keras layer, as the rules of `keras_rules.py` and `keras_activations.py` see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from lanewise.bridge.importing.builder import Builder, NoLayer
from lanewise.bridge.importing.values import Constant, Value


@dataclass(frozen=True)
class KerasStep:
    """A call of a layer: what it reads and its variables. `last`: whether the channels of the
    network's maps come last there."""

    layer: Any
    reads: list[Value]
    parts: dict[str, Constant]
    last: bool = True

    @property
    def read(self) -> Value:
        """The only value that it reads."""
        if len(self.reads) != 1:
            raise NoLayer(f"{len(self.reads)} values where one is read")
        return self.reads[0]

    def require_format(self) -> None:
        """NoLayer where this layer orders its axes otherwise than the network."""
        if (self.layer.data_format == "channels_last") != self.last:
            raise NoLayer("another order of axes than in the rest of the network")

    def require_channels(self, axis: Any, read: Value) -> None:
        """NoLayer unless `axis` (of Keras, that of the images included) is the channels'."""
        axes = list(axis) if isinstance(axis, (list, tuple)) else [axis]
        rank = len(read.visible) + 1
        channels = rank - 1 if self.last or rank == 2 else 1
        if [one % rank for one in axes] != [channels]:
            raise NoLayer("over another axis than the channels")


Rule: TypeAlias = Callable[[Builder, KerasStep], Value]
