"""What is done to a result on its way from the accumulators to memory; several kernels share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lanewise.native.kernels.functions import is_positive, keep_where, number, rectified
from lanewise.native.nest import Buffer, Constant, IndexLike, Value, op
from lanewise.native.writer import Writer

LOWEST = float("-inf")


@dataclass(frozen=True)
class Result:
    """The array `target` of (maps, rows, columns, lanes) or (maps, lanes), and the way there.

    A sum begins at `bias[map]`, or with `accumulate` at what stands in the target already (a value
    with several readers adds up their gradients). Of a `thin` map, which has a value for every
    second (third …) row and column, those places begin at its values. Then, in this order: `affine`
    makes it sum · scale[map] + shift[map] (a BatchNorm with fixed statistics); `plus` adds what
    another branch has given, the `summand`; `relu`; `mask` keeps it only where `value` is positive
    (gradient through a joined ReLU). With `waits` the sums are written and taken up again before
    they are finished.

    `pool`: of the results of each window of 2 × 2 only the largest is kept (then comes the ReLU),
    with `argument` also which of the four came first, as `pool.max_pool` does; `shape` is still
    that of all results, whose rows and columns are even.
    """

    shape: tuple[int, ...]
    bias: bool = False
    affine: bool = False
    accumulate: bool = False
    relu: bool = False
    mask: bool = False
    waits: bool = False
    plus: bool = False
    pool: bool = False
    argument: bool = False
    thin: tuple[int, ...] = ()  # its shape

    @cached_property
    def buffers(self) -> list[Buffer]:
        """The last of a kernel's buffers: [bias], [scale, shift], [thin], [value], [summand],
        [argument], target."""
        maps = (self.shape[0],)
        names = ["bias"] * self.bias + ["scale", "shift"] * self.affine
        found = [Buffer(name, maps, align=4) for name in names]
        if self.thin:
            found.append(Buffer("thin", (*self.thin, self.shape[-1])))
        if self.mask:
            found.append(Buffer("value", self.shape))
        if self.plus:
            found.append(Buffer("summand", self.shape))
        access = "update" if self.accumulate or self.waits or self.pool else "write"
        shape = self._pooled if self.pool else self.shape
        if self.argument:
            found.append(Buffer("argument", shape, "u8", access))
        return [*found, Buffer("target", shape, access=access)]

    @property
    def _pooled(self) -> tuple[int, ...]:
        maps, rows, columns, lanes = self.shape
        return maps, rows // 2, columns // 2, lanes

    @property
    def changes(self) -> bool:
        """Whether finishing is more than storing."""
        return self.affine or self.plus or self.relu or self.mask

    def start(self, writer: Writer, at: tuple[IndexLike, ...]) -> Value:
        """What the sum at an index begins with."""
        if self.accumulate:
            return writer.load(self.buffers[-1], *at)
        return writer.splat(self._buffer("bias"), at[0]) if self.bias else number(0.0)

    def start_thin(self, writer: Writer, at: tuple[IndexLike, ...]) -> Value:
        """The same where the thin map has a value, at this place of its own."""
        return writer.load(self._buffer("thin"), *at)

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
        value = self.finish(writer, at, value)
        writer.store(self.buffers[-1], *at, value=value, away=away)

    def finish(self, writer: Writer, at: tuple[IndexLike, ...], value: Value) -> Value:
        """What is written there."""
        value = self._normalised(writer, at, value)
        if self.plus:
            value = op("add", value, writer.load(self._buffer("summand"), *at))
        if self.relu:
            value = rectified(value)
        if self.mask:
            value = keep_where(is_positive(writer.load(self._buffer("value"), *at)), value)
        return value

    def _normalised(self, writer: Writer, at: tuple[IndexLike, ...], value: Value) -> Value:
        if not self.affine:
            return value
        scale, shift = (writer.splat(self._buffer(n), at[0]) for n in ("scale", "shift"))
        return op("fma", value, scale, shift)

    # -- windows of 2 × 2

    def store_pair(
        self, writer: Writer, at: tuple[IndexLike, ...], pair: Sequence[Value], row: int
    ) -> None:
        """The two results of row 0 of a window, or those of row 1, which come later: what row 0
        has given stands in the target meanwhile. `at`: of the window."""
        best: Value = Constant(LOWEST)
        first: Value = Constant(0, "i32")
        if row:
            best = writer.let(writer.load(self.buffers[-1], *at))
            if self.argument:
                first = writer.let(op("widen", writer.load(self._buffer("argument"), *at)))
        best, first = self._larger(writer, at, (best, first), pair, 2 * row)
        self._put(writer, at, best, first, last=bool(row))

    def store_window(
        self, writer: Writer, at: tuple[IndexLike, ...], four: Sequence[Value]
    ) -> None:
        """All results of a window, row by row. `at`: of the window."""
        begin = Constant(LOWEST), Constant(0, "i32")
        best, first = self._larger(writer, at, begin, four, 0)
        self._put(writer, at, best, first, last=True)

    def _larger(
        self,
        writer: Writer,
        at: tuple[IndexLike, ...],
        so_far: tuple[Value, Value],
        values: Sequence[Value],
        tap: int,
    ) -> tuple[Value, Value]:
        """The largest and its number, when these have been looked at; the first is tap `tap`."""
        best, first = so_far
        for place, value in enumerate(values, tap):
            x = writer.let(self._normalised(writer, at, value), "x")
            if self.argument:
                larger = writer.let(op("gt", x, best))
                first = writer.let(op("select", larger, Constant(place, "i32"), first), "tap")
            best = writer.let(op("max", x, best), "best")
        return best, first

    def _put(
        self, writer: Writer, at: tuple[IndexLike, ...], best: Value, first: Value, last: bool
    ) -> None:
        value = rectified(best) if self.relu and last else best
        writer.store(self.buffers[-1], *at, value=value)
        if self.argument:
            writer.store(self._buffer("argument"), *at, value=op("narrow", first))

    def _buffer(self, name: str) -> Buffer:
        return next(one for one in self.buffers if one.name == name)
