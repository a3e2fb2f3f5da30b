"""What is done to a result on its way from the accumulators to memory; several kernels share it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from lanewise.native.kernels.functions import is_positive, keep_where, number, rectified
from lanewise.native.nest import Buffer, IndexLike, Value, Writer, op


@dataclass(frozen=True)
class Result:
    """The array `target` of (maps, rows, columns, lanes) or (maps, lanes), and the way there.

    A sum begins at `bias[map]`, or with `accumulate` at what stands in the target already (a value
    with several readers adds up their gradients). Then, in this order: `affine` makes it
    sum · scale[map] + shift[map] (a BatchNorm with fixed statistics); `relu`; `mask` keeps it only
    where `value` is positive (gradient through a joined ReLU). With `waits` the sums are written
    and taken up again before they are finished.
    """

    shape: tuple[int, ...]
    bias: bool = False
    affine: bool = False
    accumulate: bool = False
    relu: bool = False
    mask: bool = False
    waits: bool = False

    @cached_property
    def buffers(self) -> list[Buffer]:
        """The last of a kernel's buffers: [bias], [scale, shift], [value], target."""
        maps = (self.shape[0],)
        names = ["bias"] * self.bias + ["scale", "shift"] * self.affine
        found = [Buffer(name, maps, align=4) for name in names]
        if self.mask:
            found.append(Buffer("value", self.shape))
        access = "update" if self.accumulate or self.waits else "write"
        return [*found, Buffer("target", self.shape, access=access)]

    @property
    def changes(self) -> bool:
        """Whether finishing is more than storing."""
        return self.affine or self.relu or self.mask

    def start(self, writer: Writer, at: tuple[IndexLike, ...]) -> Value:
        """What the sum at an index begins with."""
        if self.accumulate:
            return writer.load(self.buffers[-1], *at)
        return writer.splat(self._buffer("bias"), at[0]) if self.bias else number(0.0)

    def go_on(self, writer: Writer, at: tuple[IndexLike, ...]) -> Value:
        """The sum that waits at an index."""
        return writer.load(self.buffers[-1], *at)

    def wait(self, writer: Writer, at: tuple[IndexLike, ...], value: Value) -> None:
        """Write a sum that is not finished."""
        writer.store(self.buffers[-1], *at, value=value)

    def store(
        self, writer: Writer, at: tuple[IndexLike, ...], value: Value, away: bool = False
    ) -> None:
        """Finish one vector and write it at the index, whose first entry is the map; `away`: past
        the caches."""
        if self.affine:
            scale, shift = (writer.splat(self._buffer(n), at[0]) for n in ("scale", "shift"))
            value = op("fma", value, scale, shift)
        if self.relu:
            value = rectified(value)
        if self.mask:
            value = keep_where(is_positive(writer.load(self._buffer("value"), *at)), value)
        writer.store(self.buffers[-1], *at, value=value, away=away)

    def _buffer(self, name: str) -> Buffer:
        return next(one for one in self.buffers if one.name == name)
