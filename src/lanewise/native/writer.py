"""Kernels are written statement by statement; what comes out is a value of `nest.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from lanewise.native.nest import (
    LANES,
    Assign,
    Buffer,
    Constant,
    Fetch,
    IndexLike,
    Kernel,
    Load,
    Loop,
    Matrix,
    MatrixDot,
    MatrixLoad,
    MatrixStore,
    MatrixZero,
    Op,
    Read,
    Register,
    Statement,
    Store,
    Symbol,
    Transpose,
    Value,
    Var,
    as_index,
    op,
)


@dataclass
class Writer:
    """Builds a kernel statement by statement; `with writer.loop(...)` opens a body."""

    name: str
    buffers: Sequence[Buffer]
    symbols: Sequence[Symbol] = ()
    _bodies: list[list[Statement]] = field(default_factory=lambda: [[]])
    _registers: int = 0

    @contextmanager
    def loop(
        self,
        name: str,
        stop: IndexLike,
        start: IndexLike = 0,
        step: int = 1,
        shared: bool = False,
    ) -> Iterator[Var]:
        """A loop over start, start + step … below stop. `shared`: no turn needs what another one
        does, and no register lives from one to the next."""
        var = Var(name)
        self._bodies.append([])
        yield var
        body = tuple(self._bodies.pop())
        self._add(Loop(var, as_index(start), as_index(stop), step, body, shared))

    def let(self, value: Value, name: str = "v") -> Read:
        """Evaluate now, use many times."""
        return Read(self.assign(self.register(name, value.dtype, value.lanes), value))

    def register(self, name: str, dtype: str = "f32", lanes: int = LANES) -> Register:
        """A fresh register; assign to it before it is read."""
        self._registers += 1
        return Register(f"{name}{self._registers}", dtype, lanes)

    def assign(self, register: Register, value: Value) -> Register:
        """Set a register."""
        self._add(Assign(register, value))
        return register

    def accumulators(self, name: str, count: int, start: Value | None = None) -> list[Register]:
        """`count` registers that begin at `start` (zero)."""
        begin = start or Constant(0.0)
        cells = [self.register(name, begin.dtype, begin.lanes) for _ in range(count)]
        return [self.assign(cell, begin) for cell in cells]

    def load(self, buffer: Buffer, *index: IndexLike, lanes: int = LANES) -> Load:
        """`lanes` neighbours at an index with one entry per axis."""
        assert len(index) == len(buffer.shape), f"{buffer.name} has {len(buffer.shape)} axes"
        return Load(buffer, tuple([as_index(i) for i in index]), lanes)

    def splat(self, buffer: Buffer, *index: IndexLike, lanes: int = 1) -> Op:
        """One element of a buffer in every lane; or some neighbours, over and over."""
        return op("splat", self.load(buffer, *index, lanes=lanes))

    def store(self, buffer: Buffer, *index: IndexLike, value: Value, away: bool = False) -> None:
        """Write `value` at an index with one entry per axis; `away`: past the caches."""
        assert len(index) == len(buffer.shape), f"{buffer.name} has {len(buffer.shape)} axes"
        self._add(Store(buffer, tuple([as_index(i) for i in index]), value, away))

    def fetch(self, buffer: Buffer, *index: IndexLike) -> None:
        """Bring the cache line of an element near."""
        self._add(Fetch(buffer, tuple(as_index(i) for i in index)))

    def transpose(self, values: Sequence[Value]) -> list[Read]:
        """As many vectors as they have lanes, or groups of lanes → the transposed vectors."""
        assert all(value.lanes % len(values) == 0 for value in values)
        cells = tuple(self.register("t", values[0].dtype, values[0].lanes) for _ in values)
        self._add(Transpose(cells, tuple(values)))
        return [Read(cell) for cell in cells]

    def matrix_zero(self, matrix: Matrix) -> None:
        """Every element is zero."""
        self._add(MatrixZero(matrix))

    def matrix_load(self, matrix: Matrix, buffer: Buffer, *index: IndexLike, axis: int) -> None:
        """Rows that follow each other along an axis."""
        self._add(MatrixLoad(matrix, buffer, tuple(as_index(i) for i in index), axis))

    def matrix_store(self, matrix: Matrix, buffer: Buffer, *index: IndexLike, axis: int) -> None:
        """Rows that follow each other along an axis."""
        self._add(MatrixStore(matrix, buffer, tuple(as_index(i) for i in index), axis))

    def matrix_dot(self, sums: Matrix, left: Matrix, right: Matrix) -> None:
        """sums += left · right, of pairs of bf16."""
        self._add(MatrixDot(sums, left, right))

    def finish(self) -> Kernel:
        """The kernel, no longer changeable."""
        assert len(self._bodies) == 1, "a loop is still open"
        return Kernel(self.name, tuple(self.buffers), tuple(self.symbols), tuple(self._bodies[0]))

    def _add(self, statement: Statement) -> None:
        self._bodies[-1].append(statement)
