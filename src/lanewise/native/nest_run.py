"""The meaning of a loop nest: a slow interpreter, against which compiled code is held.

`run(kernel, arrays, symbols)` executes the statements one by one; every value is a NumPy array of
`lanes` numbers. Floating point is IEEE single precision, rounded to nearest even, with two
remarks: `fma` is computed in double precision and then rounded (in rare cases that rounds twice,
one unit in the last place from a true fused multiply–add), and denormals are kept, whereas the
engine's threads flush them to zero. A bf16 is the upper half of a float32, rounded to nearest even;
arrays hold its bits as uint16. Integers are 32 bits wide and wrap around. Where the result of
an operation is not defined (a shift by 32 or more, an index out of bounds, a float too large for an
integer), the interpreter raises NestError instead of inventing one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lanewise.native.nest import (
    MATRIX_STATEMENTS,
    Assign,
    Buffer,
    Constant,
    Entry,
    Fetch,
    FromIndex,
    Index,
    Kernel,
    LaneNumbers,
    Load,
    Loop,
    Matrix,
    MatrixDot,
    MatrixLoad,
    MatrixStatement,
    MatrixZero,
    Op,
    Read,
    Register,
    Statement,
    Store,
    Symbol,
    Value,
    Var,
)
from lanewise.native.nest_domain import NestError
from lanewise.native.nest_show import show_index, show_statement

Lanes = np.ndarray[Any, np.dtype[Any]]

DTYPES: dict[str, type] = {
    "f32": np.float32,
    "bf16": np.uint16,
    "i32": np.int32,
    "u8": np.uint8,
    "i64": np.int64,
    "i1": np.bool_,
}
MOST_INT = 1 << 31


def run(
    kernel: Kernel, arrays: Mapping[str, np.ndarray], symbols: Mapping[str, int] | None = None
) -> None:
    """Execute a kernel on arrays by name, in place.

    Each array must have its buffer's type and shape (checked, with the symbols' values); constant
    tables come from the kernel. Raises NestError for arrays that do not fit and for undefined
    behaviour, naming the statement.
    """
    state = _State(kernel, arrays, symbols or {})
    with np.errstate(all="ignore"):
        state.body(kernel.body)


class _State:
    """Arrays, loop variables and registers while a kernel runs."""

    def __init__(
        self, kernel: Kernel, arrays: Mapping[str, np.ndarray], symbols: Mapping[str, int]
    ) -> None:
        self.kernel = kernel
        self.symbols = symbols
        self.vars: dict[Var, int] = {}
        self.registers: dict[Register, Lanes] = {}
        self.matrices: dict[Matrix, Lanes] = {}  # their bits
        self.arrays = {buffer: self.fitting(buffer, arrays) for buffer in kernel.buffers}

    def fitting(self, buffer: Buffer, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The array of a buffer, if it is what the buffer says."""
        if buffer.data is not None:
            return np.array(buffer.data, DTYPES[buffer.dtype]).reshape(self.shape(buffer))
        if buffer.name not in arrays:
            raise NestError(f"kernel {self.kernel.name}: no array is given for {buffer.name}")
        array = arrays[buffer.name]
        if array.dtype != DTYPES[buffer.dtype] or array.shape != self.shape(buffer):
            raise NestError(
                f"kernel {self.kernel.name}: {buffer.name} is {buffer.dtype} {self.shape(buffer)},"
                f" the array given {array.dtype} {array.shape}"
            )
        return array

    def shape(self, buffer: Buffer) -> tuple[int, ...]:
        return tuple(
            self.symbols[size.name] if isinstance(size, Symbol) else size for size in buffer.shape
        )

    def array(self, buffer: Buffer) -> np.ndarray:
        if buffer not in self.arrays:
            self.arrays[buffer] = self.fitting(buffer, {})
        return self.arrays[buffer]

    # -- statements

    def body(self, body: tuple[Statement, ...]) -> None:
        for statement in body:
            if isinstance(statement, Loop):
                self.loop(statement)
                continue
            try:
                self.execute(statement)
            except NestError as error:
                text = f"kernel {self.kernel.name}: {error}\n    in  {show_statement(statement)}"
                raise NestError(text) from None

    def loop(self, loop: Loop) -> None:
        stop = self.integer(loop.stop)
        for turn in range(self.integer(loop.start), stop, loop.step):
            self.vars[loop.var] = turn
            self.body(loop.body)

    def execute(self, statement: Statement) -> None:
        if isinstance(statement, Assign):
            self.registers[statement.register] = self.value(statement.value)
        elif isinstance(statement, Store):
            value = self.value(statement.value)
            self.lanes(statement.buffer, statement.index, len(value))[:] = value
        elif isinstance(statement, MATRIX_STATEMENTS):
            self.matrix(statement)
        elif not isinstance(statement, Fetch):
            assert not isinstance(statement, Loop)
            rows = np.stack([self.value(value) for value in statement.values])
            groups = rows.reshape(len(rows), len(rows), -1).swapaxes(0, 1)
            for register, group in zip(statement.registers, groups, strict=True):
                self.registers[register] = group.flatten()

    def matrix(self, statement: MatrixStatement) -> None:
        if isinstance(statement, MatrixDot):
            left, right = self.matrices[statement.left], self.matrices[statement.right]
            sums = self.matrices[statement.sums].view(np.float32)
            self.matrices[statement.sums] = _matrix_dot(sums, left, right).view(np.int32)
            return
        matrix = statement.matrix
        if isinstance(statement, MatrixZero):
            self.matrices[matrix] = np.zeros((matrix.rows, matrix.columns), np.int32)
            return
        place = list(statement.index)
        rows = []
        for _ in range(matrix.rows):
            rows.append(self.lanes(statement.buffer, tuple(place), matrix.columns))
            place[statement.axis] += 1
        if isinstance(statement, MatrixLoad):
            self.matrices[matrix] = np.stack(rows).view(np.int32)
            return
        for row, bits in zip(rows, self.matrices[matrix], strict=True):
            row[:] = bits.view(row.dtype)

    # -- indices

    def integer(self, index: Index) -> int:
        total = index.constant
        for atom, factor in index.terms:
            if isinstance(atom, Var):
                total += factor * self.vars[atom]
            elif isinstance(atom, Symbol):
                total += factor * self.symbols[atom.name]
            else:
                total += factor * self.entry(atom)
        return total

    def entry(self, entry: Entry) -> int:
        number = int(self.lanes(entry.table, (entry.index,), 1)[0])
        below = entry.table.below
        if isinstance(below, Symbol):
            below = self.symbols[below.name]
        if below is not None and not 0 <= number < below:
            raise NestError(f"{entry.table.name} holds {number}, which is not below {below}")
        return number

    def lanes(self, buffer: Buffer, index: tuple[Index, ...], lanes: int) -> Lanes:
        """The `lanes` neighbours at an index, as a view."""
        array = self.array(buffer)
        place = [self.integer(part) for part in index]
        ends = [*place[:-1], place[-1] + lanes - 1]
        if min(place) < 0 or any(e >= size for e, size in zip(ends, array.shape, strict=True)):
            text = "".join(f"[{show_index(part)}]" for part in index)
            raise NestError(
                f"{buffer.name}{text} is {place}, {lanes} lanes: outside of {array.shape}"
            )
        at: tuple[Any, ...] = (*place[:-1], slice(place[-1], ends[-1] + 1))
        view: Lanes = array[at]
        return view

    # -- values

    def value(self, value: Value) -> Lanes:
        if isinstance(value, Op):
            if value.name == "splat":
                few = self.value(value.arguments[0])
                return np.tile(few, value.lanes // len(few))
            return OPERATION[value.name](*[self.value(a) for a in value.arguments])
        if isinstance(value, Read):
            if value.register not in self.registers:
                raise NestError(f"register {value.register.name} is read before it is assigned")
            return self.registers[value.register]
        if isinstance(value, Load):
            return self.lanes(value.buffer, value.index, value.lanes).copy()
        if isinstance(value, Constant):
            return filled(value.value, value.dtype, value.lanes)
        if isinstance(value, LaneNumbers):
            return np.arange(value.lanes, dtype=np.int32)
        assert isinstance(value, FromIndex)
        return filled(self.integer(value.index), value.dtype, value.lanes)


def filled(number: float | int, dtype: str, lanes: int) -> Lanes:
    """One number in every lane; an i32 wraps around."""
    if dtype == "i32":
        number = (int(number) + MOST_INT) % (2 * MOST_INT) - MOST_INT
    return np.full(lanes, number, DTYPES[dtype])


# ---- operations ---------------------------------------------------------------------------------


def _fma(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    exact = a.astype(np.float64) * b.astype(np.float64)  # 48 bits: no rounding
    return (exact + c).astype(np.float32)


def _lanesum(a: Lanes) -> Lanes:
    """Halves added to halves: the same tree as the compiled code."""
    while len(a) > 1:
        a = a[: len(a) // 2] + a[len(a) // 2 :]
    return a


def _max(a: Lanes, b: Lanes) -> Lanes:
    """a > b ? a : b, so b where a comparison with NaN fails."""
    return np.where(a > b, a, b)


def _min(a: Lanes, b: Lanes) -> Lanes:
    return np.where(a < b, a, b)


def _round(a: Lanes) -> Lanes:
    whole = np.rint(a)
    if not (np.abs(whole) < MOST_INT).all():
        raise NestError(f"round of {a[~(np.abs(whole) < MOST_INT)][0]} is no 32-bit integer")
    return whole.astype(np.int32)


def _to_float(a: Lanes) -> Lanes:
    """The number that an integer or a bf16 is."""
    if a.dtype == np.uint16:
        wide: Lanes = (a.astype(np.uint32) << 16).view(np.float32)
        return wide
    return a.astype(np.float32)


def to_bf16(a: Lanes) -> Lanes:
    """The bits of the nearest bf16, of two equally near ones the even; no number stays none."""
    bits = a.astype(np.float32).view(np.uint32)
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(a), bits >> 16 | 0x40, nearest).astype(np.uint16)


def _pair(low: Lanes, high: Lanes) -> Lanes:
    both: Lanes = low.astype(np.uint32) | high.astype(np.uint32) << 16
    return both.view(np.int32)


def _dot(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """The upper halves first, as the instruction does."""
    for upper in (True, False):
        x, y = (
            (bits & 0xFFFF0000 if upper else bits << 16).view(np.float32)
            for bits in (a.view(np.uint32), b.view(np.uint32))
        )
        c = _fma(x, y, c)
    return c


def _halves(bits: Lanes, upper: bool) -> Lanes:
    """The upper or the lower bf16 of each pair, as fp32."""
    words = bits.view(np.uint32)
    wide: Lanes = (words & np.uint32(0xFFFF0000) if upper else words << np.uint32(16)).view("f4")
    return wide


def _matrix_dot(sums: Lanes, left: Lanes, right: Lanes) -> Lanes:
    """Lower and upper halves each for themselves, as the instruction does."""
    partial = []
    for upper in (False, True):
        x, y = _halves(left, upper), _halves(right, upper)
        total = np.zeros_like(sums)
        for k in range(x.shape[1]):
            total = _fma(x[:, k : k + 1], y[k : k + 1], total)
        partial.append(total)
    summed: Lanes = sums + (partial[0] + partial[1])
    return summed


def _distance(b: Lanes) -> np.ndarray:
    if ((b < 0) | (b > 31)).any():
        raise NestError(f"shift by {b[(b < 0) | (b > 31)][0]}; 0 to 31 are defined")
    return b.view(np.uint32)


def _shift_left(a: Lanes, b: Lanes) -> Lanes:
    shifted: Lanes = np.left_shift(a.view(np.uint32), _distance(b))
    return shifted.view(np.int32)


def _shift_right(a: Lanes, b: Lanes) -> Lanes:
    """Zeros come in from the left."""
    shifted: Lanes = np.right_shift(a.view(np.uint32), _distance(b))
    return shifted.view(np.int32)


#: every operation but "splat", whose result depends on the lanes asked for
OPERATION: dict[str, Callable[..., Lanes]] = {
    "fma": _fma,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": _max,
    "min": _min,
    "neg": np.negative,
    "sqrt": np.sqrt,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt": np.less,
    "eq": np.equal,
    "select": np.where,
    "xor": np.bitwise_xor,
    "shl": _shift_left,
    "shr": _shift_right,
    "lanesum": _lanesum,
    "widen": lambda a: a.astype(np.int32),
    "narrow": lambda a: a.astype(np.uint8),  # the low 8 bits
    "tofloat": _to_float,
    "tobf16": to_bf16,
    "pair": _pair,
    "dot": _dot,
    "round": _round,
    "asfloat": lambda a: a.view(np.float32),
    "asint": lambda a: a.view(np.int32),
}
