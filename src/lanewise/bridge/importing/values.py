"""What a tensor of an imported network is: a layer's value, perhaps seen in another form, or a
constant.

Axes are counted without that of the images. A network written in another framework permutes,
reshapes and pads tensors between its layers, where the notation has one order of values and the pad
in the layer: so these steps only change how a value is seen (`View`, `Border`), until a layer reads
it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from lanewise.net.layers import Sides
from lanewise.size.shapes import Shape


@dataclass(frozen=True)
class Source:
    """A parameter or buffer of the imported network, under its own name there; `turned`: a matrix
    of inputs × outputs there, of outputs × inputs here."""

    name: str
    shape: Shape
    trained: bool = True
    turned: bool = False

    @property
    def count(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


@dataclass(frozen=True)
class Constant:
    """A tensor that does not depend on the image: its shape, and the parameters it is made of.

    `numbers` are its values where they are known (ONNX's initialisers).
    """

    shape: Shape
    sources: tuple[Source, ...] = ()
    numbers: Any = None


@dataclass(frozen=True)
class Border:
    """What was put around the maps (channels: before and behind them); negative cuts off."""

    sides: Sides
    fill: float = 0.0


@dataclass(frozen=True)
class Value:
    """What a tensor shows: entry `entry`'s value of shape `shape`, reshaped to `dims`, with its
    axes in the order `order`, and then a border around the maps."""

    entry: int
    shape: Shape
    dims: Shape
    order: tuple[int, ...]
    border: Border | None = field(default=None)

    @classmethod
    def plain(cls, entry: int, shape: Shape) -> Value:
        """A layer's value as it is."""
        return cls(entry, shape, shape, tuple(range(len(shape))))

    @property
    def visible(self) -> Shape:
        """The shape that the tensor has, without the axis of the images."""
        shape = tuple(self.dims[axis] for axis in self.order)
        if self.border is None:
            return shape
        (top, bottom), (left, right) = self.border.sides
        return (*shape[:-2], shape[-2] + top + bottom, shape[-1] + left + right)

    @property
    def in_order(self) -> bool:
        """Whether its values follow each other as in the layer's value."""
        return self.order == tuple(range(len(self.order)))

    @property
    def is_plain(self) -> bool:
        """Whether it is a layer's value as it is."""
        return self.in_order and self.dims == self.shape and self.border is None

    @property
    def is_channels_last(self) -> bool:
        """Whether it shows maps as height × width × channels."""
        return self.dims == self.shape and self.order == (1, 2, 0) and self.border is None

    def permuted(self, order: tuple[int, ...]) -> Value:
        """The axes in another order."""
        return replace(self, order=tuple(self.order[axis] for axis in order))

    def seen_as(self, other: Value) -> Value:
        """This layer's value, of the same shape, in the form in which `other` is seen."""
        return replace(other, entry=self.entry)
