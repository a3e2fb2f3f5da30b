"""The loop-nest language: what a kernel is before it is machine code.

A kernel is a value: buffers, and statements over them. There are five statements:

    Loop(var, start, stop, step, body)      counted loop; the stop may be looked up in a table
    Assign(register, value)                 a register is a mutable vector or scalar
    Store(buffer, index, value)             write `value.lanes` neighbours at an index
    Fetch(buffer, index)                    have a cache line brought near
    Transpose(registers, values)            L vectors of L lanes (or groups), rows become columns

four more for processors that multiply small matrices (`Matrix`)

    MatrixZero(matrix)                      all of it is zero
    MatrixLoad(matrix, buffer, index, axis) its rows stand one after the other along an axis
    MatrixDot(sums, left, right)            sums += left · right, of pairs of bf16
    MatrixStore(matrix, buffer, index, axis)

and a handful of values: `Constant`, `Load`, `Read` (of a register), `FromIndex`, `LaneNumbers`
and `Op`. An expression is evaluated where its statement stands, so a value that several statements
share goes through a register (`writer.Writer.let`).

An index is affine in the loop variables, and may contain entries of integer tables: that is how
padding, stride and dilation appear without a single branch (see `kernels/taps.py`). Because
indices are affine over known ranges, a checker can prove them in bounds (`nest_check.py`), a
counter can count every multiply–add (`nest_count.py`), and a slow interpreter (`nest_run.py`) is
the definition against which the compiled code is held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

from lanewise.native.names import SHARE as SHARE
from lanewise.native.nest_index import Atom as Atom
from lanewise.native.nest_index import Entry as Entry
from lanewise.native.nest_index import Index as Index
from lanewise.native.nest_index import IndexLike as IndexLike
from lanewise.native.nest_index import Symbol as Symbol
from lanewise.native.nest_index import Var as Var
from lanewise.native.nest_index import as_index as as_index
from lanewise.native.target import LANES as LANES

#: bf16: the upper half of a float32; it is loaded and stored, and widened for arithmetic
ELEMENT_BYTES = {"f32": 4, "bf16": 2, "i32": 4, "u8": 1, "i64": 8, "i1": 1}


# ---- buffers and values -------------------------------------------------------------------------
#
# What a kernel has thousands of is not `frozen`, which triples the time it takes to make one: that
# nobody changes it (`Final`) is for the type checker to see.


@dataclass(frozen=True, eq=False, slots=True)
class Buffer:
    """An array a kernel is given. The last axis is contiguous; `align` is in bytes.

    `access`: "read", "write" (every element written exactly once), "update" (read and written).
    `below`: for an i64 buffer used as an index, every entry is in 0 … below − 1.
    `data`: the entries of a constant table, which lives in the code itself.
    `own`: room for what a kernel works out on its way: each of several threads has its own.
    """

    name: str
    shape: tuple[int | Symbol, ...]
    dtype: str = "f32"
    access: str = "read"
    align: int = 64
    below: int | Symbol | None = None
    data: tuple[int | float, ...] | None = None
    own: bool = False

    @property
    def strides(self) -> tuple[int, ...]:
        """Elements from one index to the next, per axis; only the first axis may be a symbol."""
        strides = [1]
        for size in reversed(self.shape[1:]):
            assert isinstance(size, int), "only the first axis of a buffer may be symbolic"
            strides.append(strides[-1] * size)
        return tuple(reversed(strides))


def table(name: str, entries: Sequence[int], below: int | None = None) -> Buffer:
    """A constant table of integers, to be used as part of an index."""
    bound = max(entries, default=0) + 1 if below is None else below
    return Buffer(name, (len(entries),), "i64", "read", 64, bound, tuple(entries))


@dataclass(eq=False, slots=True)
class Register:
    """A named mutable scalar or vector; becomes SSA values and phis when lowered."""

    name: str
    dtype: str
    lanes: int


@dataclass(eq=False, slots=True)
class Constant:
    """One number in every lane."""

    value: Final[float | int]
    dtype: Final[str] = "f32"
    lanes: Final[int] = LANES


@dataclass(frozen=True, eq=False, slots=True)
class LaneNumbers:
    """0, 1, 2 … in the lanes (i32)."""

    dtype: str = "i32"
    lanes: int = LANES


@dataclass(eq=False, slots=True)
class Load:
    """`lanes` neighbours along the last axis, starting at the index."""

    buffer: Final[Buffer]
    index: Final[tuple[Index, ...]]
    lanes: Final[int]

    @property
    def dtype(self) -> str:
        return self.buffer.dtype


@dataclass(eq=False, slots=True)
class Read:
    """The present value of a register."""

    register: Final[Register]

    @property
    def dtype(self) -> str:
        return self.register.dtype

    @property
    def lanes(self) -> int:
        return self.register.lanes


@dataclass(frozen=True, eq=False, slots=True)
class FromIndex:
    """An index as a number in every lane (i32)."""

    index: Index
    dtype: str = "i32"
    lanes: int = LANES


@dataclass(eq=False, slots=True)
class Op:
    """An operation of `OPERATIONS` on values."""

    name: Final[str]
    arguments: Final[tuple[Value, ...]]
    dtype: Final[str]
    lanes: Final[int]


Value: TypeAlias = Constant | LaneNumbers | Load | Read | FromIndex | Op

#: name → (number of arguments, type of the result; None: that of the last argument)
OPERATIONS: dict[str, tuple[int, str | None]] = {
    "fma": (3, None),
    "add": (2, None),
    "sub": (2, None),
    "mul": (2, None),
    "div": (2, None),
    "max": (2, None),
    "min": (2, None),
    "neg": (1, None),
    "sqrt": (1, None),
    "gt": (2, "i1"),
    "ge": (2, "i1"),
    "lt": (2, "i1"),
    "eq": (2, "i1"),
    "select": (3, None),
    "xor": (2, None),
    "shl": (2, None),
    "shr": (2, None),
    "splat": (1, None),
    "lanesum": (1, None),
    "widen": (1, "i32"),
    "narrow": (1, "u8"),
    "tofloat": (1, "f32"),
    "tobf16": (1, "bf16"),
    "pair": (2, "i32"),  # two bf16 in the lower and the upper half of each lane
    "dot": (3, None),  # c + upper halves' product, then + lower halves', each rounded once
    "round": (1, "i32"),
    "asfloat": (1, "f32"),
    "asint": (1, "i32"),
}


def op(name: str, *arguments: Value) -> Op:
    """Apply an operation; lanes and type follow from the arguments."""
    count, dtype = OPERATIONS[name]
    assert len(arguments) == count, f"{name} takes {count} values, not {len(arguments)}"
    last = arguments[-1]
    lanes = {"splat": LANES, "lanesum": 1}.get(name, last.lanes)
    return Op(name, arguments, dtype or last.dtype, lanes)


# ---- statements ---------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class Loop:
    """var = start, start + step, … below stop. `shared`: its turns may be shared out to threads."""

    var: Var
    start: Index
    stop: Index
    step: int
    body: tuple[Statement, ...]
    shared: bool = False


@dataclass(eq=False, slots=True)
class Assign:
    register: Final[Register]
    value: Final[Value]


@dataclass(eq=False, slots=True)
class Store:
    """`away`: past the caches, straight to memory; for what nobody reads before the next barrier,
    whose atomic addition waits for such stores."""

    buffer: Final[Buffer]
    index: Final[tuple[Index, ...]]
    value: Final[Value]
    away: Final[bool] = False


@dataclass(frozen=True, eq=False, slots=True)
class Transpose:
    """registers[i], lane j ← values[j], lane i; as many values as each has lanes. Of fewer values
    groups of neighbouring lanes, as many as there are values, stay together."""

    registers: tuple[Register, ...]
    values: tuple[Value, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Fetch:
    """Bring the cache line of an element near, while other things are worked out; no more than a
    hint: the element may lie beyond the array."""

    buffer: Buffer
    index: tuple[Index, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """One of the eight registers that hold a small matrix: `rows` × `columns` numbers of 32 bits,
    at most 16 × 16. Whoever multiplies them gives each number one size throughout a kernel."""

    number: int
    rows: int
    columns: int


@dataclass(frozen=True, eq=False, slots=True)
class MatrixZero:
    """Every element is zero."""

    matrix: Matrix


@dataclass(frozen=True, eq=False, slots=True)
class MatrixLoad:
    """Row r: the neighbours at the index, r further along `axis`."""

    matrix: Matrix
    buffer: Buffer
    index: tuple[Index, ...]
    axis: int


@dataclass(frozen=True, eq=False, slots=True)
class MatrixStore:
    """Row r goes to the index, r further along `axis`."""

    matrix: Matrix
    buffer: Buffer
    index: tuple[Index, ...]
    axis: int


@dataclass(frozen=True, eq=False, slots=True)
class MatrixDot:
    """sums[i, j] += Σ_k left[i, k] · right[k, j], where left and right hold pairs of bf16 and the
    sums are fp32: lower halves and upper halves are summed each for itself from zero on, in the
    order of k, then added to each other and to the sum, each rounded once."""

    sums: Matrix
    left: Matrix
    right: Matrix


MatrixStatement: TypeAlias = MatrixZero | MatrixLoad | MatrixStore | MatrixDot
MATRIX_STATEMENTS = (MatrixZero, MatrixLoad, MatrixStore, MatrixDot)
#: matrix registers, and rows and columns of each at most
MATRICES, MATRIX_SIZE = 8, 16

Statement: TypeAlias = Loop | Assign | Store | Transpose | Fetch | MatrixStatement


@dataclass(frozen=True, eq=False)
class Kernel:
    """A finished loop nest: a function of its buffers and symbols, in that order."""

    name: str
    buffers: tuple[Buffer, ...]
    symbols: tuple[Symbol, ...]
    body: tuple[Statement, ...]

    @cached_property
    def shares(self) -> bool:
        """Whether several threads may carry it out together, each its turns of the shared loops."""
        return any(trips(loop) > 1 for loop in shared_loops(self.body))

    @cached_property
    def matrices(self) -> frozenset[Matrix]:
        """The matrix registers that it uses."""
        return _matrices(self.body)


def _matrices(body: Iterable[Statement]) -> frozenset[Matrix]:
    found: set[Matrix] = set()
    for one in body:
        if isinstance(one, Assign):
            continue
        if isinstance(one, Loop):
            found |= _matrices(one.body)
        elif isinstance(one, MatrixDot):
            found |= {one.sums, one.left, one.right}
        elif isinstance(one, MATRIX_STATEMENTS):
            found.add(one.matrix)
    return frozenset(found)


def shared_loops(body: tuple[Statement, ...]) -> Iterator[Loop]:
    """The loops whose turns may be shared out."""
    for one in body:
        if isinstance(one, Loop):
            if one.shared:
                yield one
            else:
                yield from shared_loops(one.body)


def trips(loop: Loop) -> int:
    """Turns of a loop between numbers."""
    return max(0, -(-(loop.stop.constant - loop.start.constant) // loop.step))
