"""What is done to a result on its way from the accumulators to memory; several kernels share it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from lanewise.native.kernels.functions import is_positive, keep_where, number, rectified
from lanewise.native.nest import Buffer, IndexLike, Value, Writer, op


@dataclass(frozen=True)
class Result:
    """The array `target` of (maps, rows, columns, lanes) or (maps, lanes), and the way there.

    In this order: the sum begins at `bias[map]`; `affine` makes it result · scale[map] + shift[map]
    (a BatchNorm with fixed statistics); `accumulate` adds it to what stands in the target already
    (a value with several readers adds up their gradients); `relu`; `mask` keeps it only where
    `value` is positive (gradient through a joined ReLU).
    """

    shape: tuple[int, ...]
    bias: bool = False
    affine: bool = False
    accumulate: bool = False
    relu: bool = False
    mask: bool = False

    @cached_property
    def buffers(self) -> list[Buffer]:
        """The last of a kernel's buffers: [bias], [scale, shift], [value], target."""
        maps = (self.shape[0],)
        names = ["bias"] * self.bias + ["scale", "shift"] * self.affine
        found = [Buffer(name, maps, align=4) for name in names]
        if self.mask:
            found.append(Buffer("value", self.shape))
        access = "update" if self.accumulate else "write"
        return [*found, Buffer("target", self.shape, access=access)]

    def start(self, writer: Writer, at: IndexLike) -> Value:
        """What the sums of a map begin with."""
        return writer.splat(self._buffer("bias"), at) if self.bias else number(0.0)

    def store(self, writer: Writer, at: tuple[IndexLike, ...], value: Value) -> None:
        """Finish one vector and write it at the index, whose first entry is the map."""
        target = self.buffers[-1]
        if self.affine:
            scale, shift = (writer.splat(self._buffer(n), at[0]) for n in ("scale", "shift"))
            value = op("fma", value, scale, shift)
        if self.accumulate:
            value = op("add", writer.load(target, *at), value)
        if self.relu:
            value = rectified(value)
        if self.mask:
            value = keep_where(is_positive(writer.load(self._buffer("value"), *at)), value)
        writer.store(target, *at, value=value)

    def _buffer(self, name: str) -> Buffer:
        return next(one for one in self.buffers if one.name == name)
