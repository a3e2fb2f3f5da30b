"""Matrix statements of a kernel → LLVM IR: AMX's instructions, or the same written out.

The sizes of a kernel's matrices are a constant of 64 bytes, which the first instruction loads and
the last one releases: they belong to a thread, and a kernel calls nobody. A matrix has the number
that the kernel gives it, so LLVM has no registers to choose.

Without AMX every instruction is a function of the same operands on eight matrices in memory: slow,
and the way to prove such kernels where no such processor is at hand. These functions take the sizes
from the constant too.
"""

from __future__ import annotations

from collections.abc import Iterable

from lanewise.native.lower_places import Places, Text
from lanewise.native.lower_words import intrinsic
from lanewise.native.nest import (
    MATRIX_SIZE,
    Kernel,
    Matrix,
    MatrixDot,
    MatrixLoad,
    MatrixStatement,
    MatrixZero,
)

#: bytes of the constant that tells the sizes, and where in it bytes of a row and rows begin
SIZES_BYTES, ROW_BYTES_AT, ROWS_AT = 64, 16, 48
#: bytes of the eight matrices in memory, the sizes before them
STATE_BYTES = SIZES_BYTES + 8 * 1024


def sizes_of(matrices: Iterable[Matrix]) -> bytes:
    """What LDTILECFG reads (Intel's manual of instructions): palette 1, then for each number the
    bytes of a row, 16 bits each, then the rows, 8 bits each. Those that are not used have none."""
    found = bytearray(SIZES_BYTES)
    found[0] = 1
    for one in matrices:
        found[ROW_BYTES_AT + 2 * one.number] = 4 * one.columns
        found[ROWS_AT + one.number] = one.rows
    return bytes(found)


class Matrices:
    """Writes a kernel's matrix statements. `built_in`: the processor has AMX."""

    def __init__(self, kernel: Kernel, text: Text, places: Places, built_in: bool) -> None:
        self.kernel, self.text, self.places = kernel, text, places
        self.built_in = built_in
        self.used = kernel.matrices
        self.declarations: set[str] = set()
        self.tables: tuple[str, ...] = ()

    def begin(self) -> None:
        """At the kernel's entry."""
        if not self.used:
            return
        name = f"@{self.kernel.name}.matrix_sizes"
        entries = ", ".join(f"i8 {byte}" for byte in sizes_of(self.used))
        kind = f"[{SIZES_BYTES} x i8]"
        self.tables = (f"{name} = private unnamed_addr constant {kind} [{entries}], align 64",)
        if not self.built_in:
            self.declarations |= {WRITTEN_OUT, intrinsic("fma", 3, MATRIX_SIZE)[0]}
            self.text.lines.append(f"  %matrices = alloca [{STATE_BYTES} x i8], align 64")
        self._do("ldtilecfg", f"ptr {name}")

    def end(self) -> None:
        """Before it returns."""
        if self.used:
            self._do("tilerelease")

    def statement(self, statement: MatrixStatement) -> None:
        if isinstance(statement, MatrixDot):
            numbers = (statement.sums, statement.left, statement.right)
            self._do("tdpbf16ps", *(f"i8 {one.number}" for one in numbers))
            return
        number = f"i8 {statement.matrix.number}"
        if isinstance(statement, MatrixZero):
            self._do("tilezero", number)
            return
        buffer = statement.buffer
        address, _ = self.places.place(buffer, statement.index, 1)
        step = 4 * buffer.strides[statement.axis]
        loads = isinstance(statement, MatrixLoad)
        self._do(
            "tileloadd64" if loads else "tilestored64", number, f"ptr {address}", f"i64 {step}"
        )

    def _do(self, instruction: str, *operands: str) -> None:
        if self.built_in:
            kinds = ", ".join(operand.split()[0] for operand in operands)
            self.declarations.add(f"declare void @llvm.x86.{instruction}({kinds})")
            self.text.lines.append(f"  call void @llvm.x86.{instruction}({', '.join(operands)})")
        else:
            given = ", ".join(["ptr %matrices", *operands])
            self.text.lines.append(f"  call void @matrix.{instruction}({given})")


def _loop(variable: str, limit: str, body: str) -> str:
    """`body` for variable = 0 … limit − 1; labels are named after the variable."""
    return f"""  br label %{variable}.before
{variable}.before:
  br label %{variable}.head
{variable}.head:
  %{variable} = phi i64 [ 0, %{variable}.before ], [ %{variable}.next, %{variable}.latch ]
  %{variable}.more = icmp ult i64 %{variable}, {limit}
  br i1 %{variable}.more, label %{variable}.body, label %{variable}.end
{variable}.body:
{body}
  br label %{variable}.latch
{variable}.latch:
  %{variable}.next = add i64 %{variable}, 1
  br label %{variable}.head
{variable}.end:"""


def _sizes(number: str) -> str:
    """Of a matrix by number: its place, its rows, the numbers of a row."""
    return f"""  %{number}.wide = zext i8 %{number} to i64
  %{number}.bytes = mul i64 %{number}.wide, 1024
  %{number}.first = add i64 %{number}.bytes, {SIZES_BYTES}
  %{number}.at = getelementptr i8, ptr %state, i64 %{number}.first
  %{number}.rows.index = add i64 %{number}.wide, {ROWS_AT}
  %{number}.rows.at = getelementptr i8, ptr %state, i64 %{number}.rows.index
  %{number}.rows.byte = load i8, ptr %{number}.rows.at
  %{number}.rows = zext i8 %{number}.rows.byte to i64
  %{number}.row.twice = shl i64 %{number}.wide, 1
  %{number}.row.index = add i64 %{number}.row.twice, {ROW_BYTES_AT}
  %{number}.row.at = getelementptr i8, ptr %state, i64 %{number}.row.index
  %{number}.row.bytes = load i16, ptr %{number}.row.at
  %{number}.row.wide = zext i16 %{number}.row.bytes to i64
  %{number}.columns = lshr i64 %{number}.row.wide, 2"""


_ELEMENT = """  %tile.row = mul i64 %r, 16
  %tile.element = add i64 %tile.row, %j
  %tile.at = getelementptr i32, ptr %n.at, i64 %tile.element
  %memory.row = mul i64 %r, %stride
  %memory.first = getelementptr i8, ptr %memory, i64 %memory.row
  %memory.at = getelementptr i32, ptr %memory.first, i64 %j
"""
_LOAD = f"""{_ELEMENT}  %bits = load i32, ptr %memory.at, align 4
  store i32 %bits, ptr %tile.at, align 4"""
_STORE = f"""{_ELEMENT}  %bits = load i32, ptr %tile.at, align 4
  store i32 %bits, ptr %memory.at, align 4"""
_CLEAR = """  %clear.at = getelementptr <16 x i32>, ptr %n.at, i64 %z
  store <16 x i32> zeroinitializer, ptr %clear.at, align 64"""
#: a row of sums, from the pairs k of a row of the left factor and the rows k of the right one
_PAIR = """  %left.row = mul i64 %r, 16
  %left.element = add i64 %left.row, %k
  %left.at = getelementptr i32, ptr %a.at, i64 %left.element
  %left.one = load i32, ptr %left.at, align 4
  %left.first = insertelement <16 x i32> poison, i32 %left.one, i32 0
  %left = shufflevector <16 x i32> %left.first, <16 x i32> poison, <16 x i32> zeroinitializer
  %right.at = getelementptr <16 x i32>, ptr %b.at, i64 %k
  %right = load <16 x i32>, ptr %right.at, align 64"""


def _half(name: str, change: str) -> str:
    """%name += lower or upper halves' products."""
    return f"""
  %left.{name}.bits = {change.format("%left")}
  %right.{name}.bits = {change.format("%right")}
  %left.{name} = bitcast <16 x i32> %left.{name}.bits to <16 x float>
  %right.{name} = bitcast <16 x i32> %right.{name}.bits to <16 x float>
  %{name}.before = load <16 x float>, ptr %{name}.sum, align 64
  %{name}.after = call <16 x float> @llvm.fma.v16f32(<16 x float> %left.{name}, \
<16 x float> %right.{name}, <16 x float> %{name}.before)
  store <16 x float> %{name}.after, ptr %{name}.sum, align 64"""


def _all_lanes(number: int) -> str:
    return f"<{', '.join([f'i32 {number}'] * 16)}>"


_ROW_OF_SUMS = f"""  store <16 x float> zeroinitializer, ptr %low.sum, align 64
  store <16 x float> zeroinitializer, ptr %high.sum, align 64
{
    _loop(
        "k",
        "%a.columns",
        _PAIR
        + _half("low", f"shl <16 x i32> {{}}, {_all_lanes(16)}")
        + _half("high", f"and <16 x i32> {{}}, {_all_lanes(-65536)}"),
    )
}
  %low.all = load <16 x float>, ptr %low.sum, align 64
  %high.all = load <16 x float>, ptr %high.sum, align 64
  %both = fadd <16 x float> %low.all, %high.all
  %sums.at = getelementptr <16 x float>, ptr %c.at, i64 %r
  %before = load <16 x float>, ptr %sums.at, align 64
  %after = fadd <16 x float> %before, %both
  store <16 x float> %after, ptr %sums.at, align 64"""


def _function(instruction: str, parameters: str, body: str) -> str:
    head = ", ".join(["ptr %state", *([parameters] if parameters else [])])
    return (
        f"define internal void @matrix.{instruction}({head}) noinline nounwind {{\nentry:\n"
        f"{body}\n  ret void\n}}"
    )


_TILES = "getelementptr i8, ptr %state, i64 0"
#: each of AMX's instructions as a function; loading sizes makes all matrices zero
WRITTEN_OUT = "\n".join(
    [
        _function(
            "ldtilecfg",
            "ptr %sizes",
            f"  %n.at = {_TILES}\n{_loop('z', str(STATE_BYTES // SIZES_BYTES), _CLEAR)}\n"
            "  %given = load <64 x i8>, ptr %sizes, align 1\n"
            "  store <64 x i8> %given, ptr %state, align 64",
        ),
        _function(
            "tilerelease",
            "",
            f"  %n.at = {_TILES}\n{_loop('z', '1', _CLEAR)}",
        ),
        _function("tilezero", "i8 %n", f"{_sizes('n')}\n{_loop('z', str(MATRIX_SIZE), _CLEAR)}"),
        _function(
            "tileloadd64",
            "i8 %n, ptr %memory, i64 %stride",
            f"{_sizes('n')}\n{_loop('z', str(MATRIX_SIZE), _CLEAR)}\n"
            f"{_loop('r', '%n.rows', _loop('j', '%n.columns', _LOAD))}",
        ),
        _function(
            "tilestored64",
            "i8 %n, ptr %memory, i64 %stride",
            f"{_sizes('n')}\n{_loop('r', '%n.rows', _loop('j', '%n.columns', _STORE))}",
        ),
        _function(
            "tdpbf16ps",
            "i8 %c, i8 %a, i8 %b",
            "  %low.sum = alloca <16 x float>, align 64\n"
            "  %high.sum = alloca <16 x float>, align 64\n"
            f"{_sizes('c')}\n{_sizes('a')}\n{_sizes('b')}\n{_loop('r', '%c.rows', _ROW_OF_SUMS)}",
        ),
    ]
)
