"""Proof that a loop nest is right, before it is compiled.

`check(kernel)` refuses a kernel unless

- every index of every load, store and table look-up stays inside its array, on each axis;
- every element of an array with access "write" is written exactly once, "read" arrays never,
  and only "read" and "update" arrays are read;
- every register is assigned before it is read, also when a loop makes no turn;
- what threads that share it do is in a loop that they share, or written to a buffer of their own;
- types and lanes of values, operations and targets agree (`nest_types.py`).

Alignment is not looked at. A fault is a bug in the code that wrote the kernel: `NestError`.

Symbols: without values, every symbol is taken as 1, then 3, then 4096 (the last for the bounds
only; bounds are affine in a symbol, so what holds at both ends holds between). Symbols are at
least 1, and all are equal in such a sample: give values where that is not what you mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lanewise.native.nest import (
    MATRIX_STATEMENTS,
    Assign,
    Buffer,
    Constant,
    Fetch,
    FromIndex,
    Index,
    Kernel,
    Load,
    Loop,
    Matrix,
    MatrixDot,
    MatrixLoad,
    MatrixStatement,
    MatrixStore,
    Op,
    Read,
    Register,
    Statement,
    Store,
    Transpose,
    Value,
)
from lanewise.native.nest_domain import Domain, NestError, Span, TooManyPointsError
from lanewise.native.nest_show import show_index, show_statement
from lanewise.native.nest_types import type_faults
from lanewise.native.nest_writes import Box, box, faulty_element

__all__ = ["NestError", "check"]

SMALL_SAMPLES = (1, 3)
LARGE_SAMPLE = 4096


def check(kernel: Kernel, symbols: Mapping[str, int] | None = None) -> tuple[str, ...]:
    """Prove a kernel right; raise NestError with kernel, statement and values if it is not.

    Returns what could not be proven for want of a cheap proof (one sentence each); mostly ().
    """
    _check_names(kernel)
    for statement, fault in type_faults(kernel.body):
        raise NestError(_message(kernel, fault, statement, []))
    if symbols is not None or not kernel.symbols:
        return tuple(_Check(kernel, symbols or {}).run())
    notes: dict[str, None] = {}
    for value in SMALL_SAMPLES:
        sample = {symbol.name: min(value, symbol.most or value) for symbol in kernel.symbols}
        notes.update(dict.fromkeys(_Check(kernel, sample).run()))
    large = {symbol.name: symbol.most or LARGE_SAMPLE for symbol in kernel.symbols}
    _Check(kernel, large, writes=False).run()
    return tuple(notes)


def _check_names(kernel: Kernel) -> None:
    names = [buffer.name for buffer in kernel.buffers] + [s.name for s in kernel.symbols]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise NestError(f"kernel {kernel.name}: two parameters are named {', '.join(twice)}")
    numbers = [matrix.number for matrix in kernel.matrices]
    if len(numbers) > len(set(numbers)):
        raise NestError(f"kernel {kernel.name}: a matrix has more than one size")
    for buffer in kernel.buffers:
        if buffer.access not in ("read", "write", "update"):
            raise NestError(f"kernel {kernel.name}: {buffer.name} has access {buffer.access!r}")


def _message(kernel: Kernel, fault: str, statement: Statement | None, loops: list[Loop]) -> str:
    lines = [f"kernel {kernel.name}: {fault}"]
    if statement is not None:
        lines.append(f"    in  {show_statement(statement)}")
    lines += [f"    in  {show_statement(loop)[:-2]}" for loop in reversed(loops)]
    return "\n".join(lines)


class _Check:
    """One pass over a kernel, for given values of the symbols."""

    def __init__(self, kernel: Kernel, symbols: Mapping[str, int], writes: bool = True) -> None:
        self.kernel = kernel
        names = [symbol.name for symbol in kernel.symbols]
        self.symbols = {name: symbols[name] for name in names if name in symbols}
        self.writes = writes
        self.domain = Domain(self.symbols, kernel.buffers)
        self.statement: Statement | None = None
        self.assigned: set[Register | Matrix] = set()
        self.sizes: dict[Buffer, tuple[int, ...]] = {}
        self.boxes: dict[Buffer, list[Box]] = {}
        self.unproven: dict[Buffer, str] = {}
        self.memo: dict[Any, Any] = {}

    def run(self) -> list[str]:
        try:
            self.prepare()
            self.body(self.kernel.body)
        except NestError as error:
            raise self.fault(str(error)) from None
        return [note for buffer in self.boxes for note in self.written(buffer)]

    def fault(self, text: str) -> NestError:
        values = ", ".join(f"{name} = {value}" for name, value in self.symbols.items())
        text = f"{text} (where {values})" if values else text
        return NestError(_message(self.kernel, text, self.statement, self.domain.loops))

    def prepare(self) -> None:
        given = {symbol.name for symbol in self.kernel.symbols}
        missing = given - set(self.symbols)
        if missing:
            raise NestError(f"no value is given for symbol {', '.join(sorted(missing))}")
        for buffer in self.kernel.buffers:
            self.sizes[buffer] = tuple(map(self.domain.resolve, buffer.shape))
            if buffer.access == "write" and self.writes:
                self.boxes[buffer] = []

    # -- statements

    def body(self, body: tuple[Statement, ...]) -> None:
        for statement in body:
            self.statement = statement
            if isinstance(statement, Assign):
                self.value(statement.value)
                self.assigned.add(statement.register)
            elif isinstance(statement, Loop):
                self.loop(statement)
            elif isinstance(statement, Store):
                self.store(statement)
            elif isinstance(statement, Transpose):
                for value in statement.values:
                    self.value(value)
                self.assigned.update(statement.registers)
            elif isinstance(statement, MATRIX_STATEMENTS):
                self.matrix(statement)
            elif isinstance(statement, Fetch):
                pass  # wherever it is, nothing is read
            else:
                raise NestError(f"{statement!r} is no statement")

    def loop(self, loop: Loop) -> None:
        """What a loop assigns counts afterwards only if its bounds are numbers and it turns."""
        self.domain.enter(loop)
        if not self.domain.never_runs():
            before = set(self.assigned)
            self.memo.clear()
            self.body(loop.body)
            self.statement = None
            if loop.start.terms or loop.stop.terms:
                self.assigned = before
        self.domain.leave()
        self.memo.clear()

    def store(self, store: Store) -> None:
        self.value(store.value)
        buffer, lanes = store.buffer, store.value.lanes
        self.may_write(buffer)
        self.in_bounds(buffer, store.index, lanes)
        if buffer in self.boxes and buffer not in self.unproven:
            try:
                piece = box(self.domain, store.index, self.sizes[buffer], lanes, self.memo)
                self.boxes[buffer].append(piece)
            except TooManyPointsError as error:
                self.unproven[buffer] = str(error)

    def matrix(self, statement: MatrixStatement) -> None:
        """Where a matrix is stored is not counted: such an array is one to be updated."""
        if isinstance(statement, MatrixDot):
            for one in (statement.sums, statement.left, statement.right):
                self.has_been_assigned(one)
            return
        matrix = statement.matrix
        if isinstance(statement, MatrixLoad):
            if statement.buffer.access == "write":
                raise NestError(f"{statement.buffer.name} is only to be written")
        elif isinstance(statement, MatrixStore):
            self.has_been_assigned(matrix)
            self.may_write(statement.buffer)
            if statement.buffer.access != "update":
                raise NestError(f"{statement.buffer.name}: matrices are stored where 'update' is")
        if isinstance(statement, MatrixLoad | MatrixStore):
            rows = (statement.axis, matrix.rows)
            self.in_bounds(statement.buffer, statement.index, matrix.columns, rows)
        self.assigned.add(matrix)

    def has_been_assigned(self, matrix: Matrix) -> None:
        if matrix not in self.assigned:
            raise NestError(f"matrix {matrix.number} may be read before it is assigned")

    def may_write(self, buffer: Buffer) -> None:
        if self.kernel.shares and not (buffer.own or any(one.shared for one in self.domain.loops)):
            raise NestError(f"{buffer.name} is written by every thread that shares the kernel")
        if buffer.access == "read":
            raise NestError(f"{buffer.name} is only to be read, yet it is written")

    # -- values

    def value(self, value: Value) -> None:
        if isinstance(value, Op):
            for argument in value.arguments:
                self.value(argument)
        elif isinstance(value, Constant):
            pass
        elif isinstance(value, Read):
            if value.register not in self.assigned:
                raise NestError(f"register {value.register.name} may be read before it is assigned")
        elif isinstance(value, Load):
            if value.buffer.access == "write":
                raise NestError(
                    f"{value.buffer.name} is only to be written; reading needs 'update'"
                )
            self.in_bounds(value.buffer, value.index, value.lanes)
        elif isinstance(value, FromIndex):
            self.domain.span(value.index)

    def in_bounds(
        self,
        buffer: Buffer,
        index: tuple[Index, ...],
        lanes: int,
        rows: tuple[int, int] = (0, 1),
    ) -> None:
        """`rows`: an axis along which so many such runs of neighbours follow each other."""
        sizes = self.sizes.get(buffer) or self.table_size(buffer)
        if len(index) != len(sizes):
            raise NestError(f"{buffer.name} has {len(sizes)} axes, not {len(index)}")
        last = len(sizes) - 1
        for axis, part in enumerate(index):
            low, high = self.domain.span(part) if part.terms else (part.constant, part.constant)
            over = lanes - 1 if axis == last else rows[1] - 1 if axis == rows[0] else 0
            if low < 0 or high + over >= sizes[axis]:
                self.exactly_in_bounds(buffer, axis, part, over)

    def exactly_in_bounds(self, buffer: Buffer, axis: int, index: Index, over: int) -> None:
        span: Span | None = self.domain.exact_span(index)
        if span is None or (span[0] >= 0 and span[1] + over < self.sizes[buffer][axis]):
            return
        lanes = f", and {over + 1} lanes from there" if over else ""
        raise NestError(
            f"{buffer.name} has size {self.sizes[buffer][axis]} on axis {axis};"
            f" index {show_index(index)} goes from {span[0]} to {span[1]}{lanes}"
        )

    def table_size(self, buffer: Buffer) -> tuple[int, ...]:
        if buffer.data is None:
            raise NestError(f"{buffer.name} is no parameter of the kernel")
        self.sizes[buffer] = tuple(map(self.domain.resolve, buffer.shape))
        return self.sizes[buffer]

    # -- outputs

    def written(self, buffer: Buffer) -> list[str]:
        """Raise if the buffer is not written exactly once; a note if that is left open."""
        shape = self.sizes[buffer]
        self.statement = None
        try:
            found = faulty_element(self.boxes[buffer], shape)
        except TooManyPointsError as error:
            self.unproven[buffer] = str(error)
        if buffer in self.unproven:
            start = f"kernel {self.kernel.name}: not proven that {buffer.name} is written once"
            return [f"{start}: {self.unproven[buffer]}"]
        if found is not None:
            place = "".join(f"[{coordinate}]" for coordinate in found[0])
            times = {0: "never", 2: "twice"}.get(found[1], f"{found[1]} times")
            raise self.fault(f"{buffer.name}{place} is written {times}, not once")
        return []
