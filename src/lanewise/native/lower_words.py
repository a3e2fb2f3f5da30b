"""LLVM's words: types, numbers and instructions, as text. Pure, and remembered once spelt."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import lru_cache

SCALARS = {"f32": "float", "bf16": "i16", "i32": "i32", "u8": "i8", "i64": "i64", "i1": "i1"}

#: operation and type of its first operand → the instruction; {t} that type, {0} {1} {2} operands,
#: {i32} {u8} {f32} vectors of as many lanes as the result, {r} the result
INSTRUCTIONS = {
    ("add", "f32"): "fadd {t} {0}, {1}",
    ("sub", "f32"): "fsub {t} {0}, {1}",
    ("mul", "f32"): "fmul {t} {0}, {1}",
    ("div", "f32"): "fdiv {t} {0}, {1}",
    ("neg", "f32"): "fneg {t} {0}",
    ("gt", "f32"): "fcmp ogt {t} {0}, {1}",
    ("ge", "f32"): "fcmp oge {t} {0}, {1}",
    ("lt", "f32"): "fcmp olt {t} {0}, {1}",
    ("eq", "f32"): "fcmp oeq {t} {0}, {1}",
    ("add", "i32"): "add {t} {0}, {1}",
    ("sub", "i32"): "sub {t} {0}, {1}",
    ("mul", "i32"): "mul {t} {0}, {1}",
    ("gt", "i32"): "icmp sgt {t} {0}, {1}",
    ("ge", "i32"): "icmp sge {t} {0}, {1}",
    ("lt", "i32"): "icmp slt {t} {0}, {1}",
    ("eq", "i32"): "icmp eq {t} {0}, {1}",
    ("eq", "u8"): "icmp eq {t} {0}, {1}",
    ("xor", "i32"): "xor {t} {0}, {1}",
    ("shl", "i32"): "shl {t} {0}, {1}",
    ("shr", "i32"): "lshr {t} {0}, {1}",
    ("widen", "u8"): "zext {t} {0} to {i32}",
    ("narrow", "i32"): "trunc {t} {0} to {u8}",
    ("tofloat", "i32"): "sitofp {t} {0} to {f32}",
    ("asfloat", "i32"): "bitcast {t} {0} to {f32}",
    ("asint", "f32"): "bitcast {t} {0} to {i32}",
    ("select", "i1"): "select {t} {0}, {r} {1}, {r} {2}",
}

#: operation → LLVM's intrinsic function of its operands
INTRINSICS = {"fma": "llvm.fma", "sqrt": "llvm.sqrt", "round": "llvm.rint"}


@lru_cache(maxsize=256)
def type_of(dtype: str, lanes: int) -> str:
    """LLVM's name of a scalar or vector."""
    scalar = SCALARS[dtype]
    return scalar if lanes == 1 else f"<{lanes} x {scalar}>"


def literal(value: float | int, dtype: str) -> str:
    """A number as LLVM reads it; floats as the bits of the double that equals them."""
    return _bits_of(struct.pack("f", value)) if dtype == "f32" else str(int(value))


@lru_cache(maxsize=1024)
def _bits_of(single: bytes) -> str:
    """By its bytes: 0 and −0 are equal."""
    return f"0x{struct.unpack('<Q', struct.pack('<d', *struct.unpack('f', single)))[0]:016X}"


def constant(value: float | int, dtype: str, lanes: int) -> str:
    """One number in every lane."""
    return splat_constant(literal(value, dtype), dtype, lanes)


ZERO = literal(0.0, "f32")


def splat_constant(text: str, dtype: str, lanes: int) -> str:
    """One number, as text, in every lane."""
    if lanes == 1:
        return text
    if text in ("0", ZERO):
        return "zeroinitializer"
    return f"splat ({SCALARS[dtype]} {text})"


def vector(entries: Iterable[str]) -> str:
    """Typed numbers, one for each lane."""
    return f"<{', '.join(entries)}>"


@lru_cache(maxsize=1024)
def instruction(name: str, source: tuple[str, int], result: tuple[str, int]) -> str:
    """The instruction of an operation of INSTRUCTIONS from and to such values: {0} {1} {2} stand
    for the operands."""
    kinds = {dtype: type_of(dtype, result[1]) for dtype in ("i32", "u8", "f32")}
    pattern = INSTRUCTIONS[name, source[0]]
    return pattern.format("{0}", "{1}", "{2}", t=type_of(*source), r=type_of(*result), **kinds)


@lru_cache(maxsize=256)
def intrinsic(name: str, operands: int, lanes: int) -> tuple[str, str]:
    """Of an operation of INTRINSICS: its declaration, and its call on {0} {1} {2}."""
    kind = type_of("f32", lanes)
    function = f"@{INTRINSICS[name]}.{'f32' if lanes == 1 else f'v{lanes}f32'}"
    declaration = f"declare {kind} {function}({', '.join([kind] * operands)})"
    places = ", ".join(f"{kind} {{{number}}}" for number in range(operands))
    return declaration, f"call {kind} {function}({places})"


@lru_cache(maxsize=256)
def mask(lanes: tuple[int, ...]) -> str:
    """Which lanes of its two operands a shuffle takes."""
    return f"<{len(lanes)} x i32> <{', '.join(f'i32 {lane}' for lane in lanes)}>"
