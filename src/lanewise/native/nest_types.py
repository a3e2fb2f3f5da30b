"""Types and lanes: which an operation takes (one table), and whether a kernel keeps to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, TypeAlias

from lanewise.native.nest import (
    ELEMENT_BYTES,
    MATRICES,
    MATRIX_SIZE,
    MATRIX_STATEMENTS,
    Assign,
    Constant,
    Fetch,
    FromIndex,
    LaneNumbers,
    Load,
    Loop,
    Matrix,
    MatrixDot,
    MatrixStatement,
    MatrixZero,
    Op,
    Read,
    Statement,
    Store,
    Transpose,
    Value,
)

Kind: TypeAlias = tuple[str, int]  # type and lanes

#: operation → the types it takes and gives, one line for each: "argument … argument result"
SIGNATURES: dict[str, tuple[str, ...]] = {
    "fma": ("f32 f32 f32 f32",),
    "add": ("f32 f32 f32", "i32 i32 i32"),
    "sub": ("f32 f32 f32", "i32 i32 i32"),
    "mul": ("f32 f32 f32", "i32 i32 i32"),
    "div": ("f32 f32 f32",),
    "max": ("f32 f32 f32",),
    "min": ("f32 f32 f32",),
    "neg": ("f32 f32",),
    "sqrt": ("f32 f32",),
    "gt": ("f32 f32 i1", "i32 i32 i1"),
    "ge": ("f32 f32 i1", "i32 i32 i1"),
    "lt": ("f32 f32 i1", "i32 i32 i1"),
    "eq": ("f32 f32 i1", "i32 i32 i1", "u8 u8 i1"),
    "select": ("i1 f32 f32 f32", "i1 i32 i32 i32", "i1 u8 u8 u8"),
    "xor": ("i32 i32 i32",),
    "shl": ("i32 i32 i32",),
    "shr": ("i32 i32 i32",),
    "splat": ("f32 f32", "i32 i32", "u8 u8"),
    "lanesum": ("f32 f32",),
    "widen": ("u8 i32",),
    "narrow": ("i32 u8",),
    "tofloat": ("i32 f32", "bf16 f32"),
    "tobf16": ("f32 bf16",),
    "pair": ("bf16 bf16 i32",),
    "dot": ("i32 i32 f32 f32",),
    "round": ("f32 i32",),
    "asfloat": ("i32 f32",),
    "asint": ("f32 i32",),
}

#: operations that change the number of lanes
WIDENS = ("splat",)
REDUCES = ("lanesum",)

#: smallest and largest integer constant; i32 may be written without a sign, bf16 as its bits
CONSTANT_RANGE = {
    "i32": (-(1 << 31), (1 << 32) - 1),
    "bf16": (0, 0xFFFF),
    "u8": (0, 255),
    "i1": (0, 1),
}

_RESULTS = {
    (name, *line.split()[:-1]): line.split()[-1]
    for name, lines in SIGNATURES.items()
    for line in lines
}


def type_faults(body: tuple[Statement, ...]) -> Iterator[tuple[Statement, str]]:
    """Statements whose types or lanes disagree, each with what is wrong."""
    for statement in body:
        if isinstance(statement, Loop):
            yield from type_faults(statement.body)
        else:
            fault = _FAULT_OF[type(statement)](statement)
            if fault:
                yield statement, fault


def _assign_fault(statement: Assign) -> str | None:
    """Whether the register has the type and lanes of the value."""
    target, value = statement.register, statement.value
    if target.dtype == value.dtype and target.lanes == value.lanes:
        return value_fault(value)
    left, right = f"{target.dtype} x {target.lanes}", f"{value.dtype} x {value.lanes}"
    return value_fault(value) or f"the register is {left}, the value {right}"


def _store_fault(statement: Store) -> str | None:
    """Whether the array has the type of the value."""
    fault = value_fault(statement.value)
    if fault or statement.buffer.dtype == statement.value.dtype:
        return fault
    return f"the array is {statement.buffer.dtype}, the value {statement.value.dtype}"


def _transpose_fault(statement: Transpose) -> str | None:
    fault = next(filter(None, map(value_fault, statement.values)), None)
    if fault:
        return fault
    kinds = {(one.dtype, one.lanes) for one in (*statement.registers, *statement.values)}
    counts = {len(statement.registers), len(statement.values)}
    if len(kinds) != 1 or len(counts) != 1 or min(kinds)[1] % min(counts):
        return f"transpose takes L values of L lanes or groups and one type, not {sorted(kinds)}"
    return None


def matrix_fault(statement: MatrixStatement) -> str | None:
    """Whether the sizes of matrices agree, and what they are loaded from or stored to."""
    if isinstance(statement, MatrixDot):
        sums, left, right = statement.sums, statement.left, statement.right
        if len({sums.number, left.number, right.number}) != 3:
            return "a product and its factors are three matrices"
        if (left.rows, left.columns, right.columns) != (sums.rows, right.rows, sums.columns):
            return "rows and columns of a product and of its factors do not agree"
        return next(filter(None, map(_size_fault, (sums, left, right))), None)
    fault = _size_fault(statement.matrix)
    if fault or isinstance(statement, MatrixZero):
        return fault
    if ELEMENT_BYTES[statement.buffer.dtype] != 4:
        return f"a matrix holds numbers of 32 bits, not {statement.buffer.dtype}"
    if not 0 <= statement.axis < len(statement.buffer.shape) - 1:
        return f"rows lie along any axis but the last, not {statement.axis}"
    return None


def _size_fault(one: Matrix) -> str | None:
    if not 0 <= one.number < MATRICES:
        return f"there is no matrix {one.number}"
    if not (1 <= one.rows <= MATRIX_SIZE and 1 <= one.columns <= MATRIX_SIZE):
        return f"a matrix has 1 to {MATRIX_SIZE} rows and columns, not {one.rows}, {one.columns}"
    return None


@lru_cache(maxsize=4096)
def operation_fault(name: str, result: Kind, arguments: tuple[Kind, ...]) -> str | None:
    """What is wrong with the types or lanes of an operation; None if nothing."""
    dtype = _RESULTS.get((name, *(argument for argument, _ in arguments)))
    if dtype is None:
        given = " ".join(argument for argument, _ in arguments)
        known = SIGNATURES.get(name)
        if known is None:
            return f"there is no operation {name}"
        return f"{name} does not take {given}; arguments and result may be {known}"
    if dtype != result[0]:
        return f"{name} gives {dtype}, not {result[0]}"
    return _lanes_fault(name, result[1], [lanes for _, lanes in arguments])


def _lanes_fault(name: str, result: int, lanes: list[int]) -> str | None:
    if name in WIDENS:
        fits = lanes[0] < result and result % lanes[0] == 0
        return None if fits else f"{name} takes 1 lane or a few for {result}, not {lanes[0]}"
    if name in REDUCES:
        if result != 1 or not is_power_of_two(lanes[0]):
            return f"{name} makes 1 lane of a power of two, not {result} of {lanes[0]}"
        return None
    if all(lane == result for lane in lanes):
        return None
    return f"{name} takes and gives equal lanes, not {lanes} and {result}"


def constant_fault(value: Constant) -> str | None:
    """What is wrong with a constant."""
    if value.dtype == "f32":
        return None
    if value.dtype not in CONSTANT_RANGE:
        return f"there are no constants of type {value.dtype}"
    low, high = CONSTANT_RANGE[value.dtype]
    if value.value != int(value.value) or not low <= value.value <= high:
        return f"{value.value} is no {value.dtype}"
    return None


def value_fault(value: Value) -> str | None:
    """What is wrong with a value or one of its arguments."""
    if not isinstance(value, Op):
        return _leaf_fault(value)
    kinds = []
    for argument in value.arguments:
        fault = value_fault(argument) if isinstance(argument, Op) else _leaf_fault(argument)
        if fault:
            return fault
        kinds.append((argument.dtype, argument.lanes))
    return operation_fault(value.name, (value.dtype, value.lanes), tuple(kinds))


def _leaf_fault(value: Constant | LaneNumbers | Load | Read | FromIndex) -> str | None:
    fault = _kind_fault(value.dtype, value.lanes)
    if fault or isinstance(value, Read):
        return fault
    if isinstance(value, Constant):
        return constant_fault(value)
    if isinstance(value, Load) and value.dtype == "i64":
        return f"{value.buffer.name} holds i64: such numbers serve as part of an index only"
    return None


@lru_cache(maxsize=256)
def _kind_fault(dtype: str, lanes: int) -> str | None:
    if dtype in ELEMENT_BYTES and is_power_of_two(lanes):
        return None
    return f"there is no value of {lanes} x {dtype}"


def is_power_of_two(number: int) -> bool:
    """1, 2, 4, 8 …"""
    return number > 0 and number & (number - 1) == 0


_FAULT_OF: dict[type, Callable[[Any], str | None]] = {
    Assign: _assign_fault,
    Store: _store_fault,
    Transpose: _transpose_fault,
    Fetch: lambda _: None,
    **dict.fromkeys(MATRIX_STATEMENTS, matrix_fault),
}
