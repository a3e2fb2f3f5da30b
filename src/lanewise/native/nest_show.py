"""A loop nest as text: C that a student reads, one statement a line.

    for (c = 0; c < 6; c++) {
        acc1 += x[c][p + r][q] * w[k][c][r][s];

Every value is a vector whose lanes stand side by side; an array whose last axis is just these
lanes is written without it (`x f32 [6][28][28] x 16`). `a * b + c` is rounded once (a fused
multiply–add); a product rounded by itself stands in parentheses: `(a * b) + c`. A loop of one turn
is shown as its body.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

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
    Transpose,
    Value,
    Var,
)

INDENT = "    "
ENTRIES_SHOWN = 8

#: How tightly an expression binds; a product of its own is looser than a sum, see above.
CHOICE, COMPARED, PRODUCT, SUM, FACTOR, ATOM = 1, 2, 3, 4, 5, 6

#: operation → (sign, its tightness, tightness needed of the left and of the right argument)
INFIX = {
    "add": ("+", SUM, SUM, FACTOR),
    "sub": ("-", SUM, SUM, FACTOR),
    "mul": ("*", PRODUCT, FACTOR, FACTOR),
    "div": ("/", PRODUCT, FACTOR, FACTOR),
    "gt": (">", COMPARED, SUM, SUM),
    "ge": (">=", COMPARED, SUM, SUM),
    "lt": ("<", COMPARED, SUM, SUM),
    "eq": ("==", COMPARED, SUM, SUM),
    "xor": ("^", COMPARED, ATOM, ATOM),
    "shl": ("<<", COMPARED, ATOM, ATOM),
    "shr": (">>", COMPARED, ATOM, ATOM),
}
#: operation → what stands before its argument(s)
PREFIX = {
    "max": "max",
    "min": "min",
    "sqrt": "sqrt",
    "lanesum": "sum_of_lanes",
    "widen": "int",
    "narrow": "byte",
    "tofloat": "float",
    "tobf16": "bf16",
    "pair": "pair",
    "dot": "dot",
    "round": "nearest_even",
    "asfloat": "bits_as_float",
    "asint": "bits_as_int",
}
#: operations that are shortened when they change the register they read: acc = acc + x → acc += x
CHANGES = {"add": "+=", "sub": "-=", "mul": "*=", "div": "/=", "xor": "^="}
EITHER_SIDE = {"add", "mul", "xor"}


@dataclass
class _Names:
    """Distinct names: two loop variables, tables or registers may have been given the same one."""

    given: dict[object, str] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)

    def of(self, thing: Var | Buffer | Register) -> str:
        if thing not in self.given:
            number = self.taken[thing.name] = self.taken.get(thing.name, 0) + 1
            self.given[thing] = thing.name if number == 1 else f"{thing.name}_{number}"
        return self.given[thing]

    def release(self, var: Var) -> None:
        """A closed loop's name may be used again."""
        if self.given.pop(var, None):
            self.taken[var.name] -= 1


class _Printer:
    """Turns parts of a kernel into text. `fixed`: variables of loops that turn once."""

    def __init__(self) -> None:
        self.names = _Names()
        self.fixed: dict[Var, int] = {}

    # -- indices

    def index(self, index: Index) -> str:
        parts: list[tuple[bool, str]] = []
        constant = index.constant
        for atom, factor in index.terms:
            if isinstance(atom, Var) and atom in self.fixed:
                constant += factor * self.fixed[atom]
                continue
            name = self.atom(atom)
            parts.append((factor < 0, name if abs(factor) == 1 else f"{abs(factor)}*{name}"))
        if constant or not parts:
            parts.append((constant < 0, str(abs(constant))))
        first, *rest = parts
        text = ("-" if first[0] else "") + first[1]
        return text + "".join(f" {'-' if minus else '+'} {part}" for minus, part in rest)

    def atom(self, atom: Var | Symbol | Entry) -> str:
        if isinstance(atom, Symbol):
            return atom.name
        if isinstance(atom, Var):
            return self.names.of(atom)
        return f"{self.names.of(atom.table)}[{self.index(atom.index)}]"

    def place(self, buffer: Buffer, index: tuple[Index, ...], lanes: int) -> str:
        """An element, or `lanes` neighbours: [a:a + 16]."""
        parts = [f"[{self.index(part)}]" for part in index]
        if parts and lanes > 1:
            last = index[-1]
            parts[-1] = f"[{self.index(last)}:{self.index(last + lanes)}]"
            if buffer.shape[-1] == lanes and not last.terms and not last.constant:
                parts.pop()
        return self.names.of(buffer) + "".join(parts)

    # -- values

    def value(self, value: Value, needed: int = 0) -> str:
        text, tightness = self.expression(value)
        return f"({text})" if tightness < needed else text

    def expression(self, value: Value) -> tuple[str, int]:
        if isinstance(value, Constant):
            return number(value.value, value.dtype), ATOM
        if isinstance(value, LaneNumbers):
            return "lane", ATOM
        if isinstance(value, Load):
            return self.place(value.buffer, value.index, value.lanes), ATOM
        if isinstance(value, Read):
            return self.names.of(value.register), ATOM
        if isinstance(value, FromIndex):
            return f"int({self.index(value.index)})", ATOM
        return self.operation(value)

    def operation(self, value: Op) -> tuple[str, int]:
        arguments, name = value.arguments, value.name
        if name == "splat":
            return self.expression(arguments[0])
        if name == "neg":
            return f"-{self.value(arguments[0], ATOM)}", FACTOR
        if name == "fma":
            return f"{self.product(value)} + {self.value(arguments[2], FACTOR)}", SUM
        if name == "select":
            test, yes, no = (self.value(a, COMPARED) for a in arguments)
            return f"{test} ? {yes} : {no}", CHOICE
        if name in INFIX:
            sign, tightness, left, right = INFIX[name]
            one, two = self.value(arguments[0], left), self.value(arguments[1], right)
            return f"{one} {sign} {two}", tightness
        inside = ", ".join(self.value(a) for a in arguments)
        return f"{PREFIX.get(name, name)}({inside})", ATOM

    def product(self, value: Op) -> str:
        first, second = value.arguments[:2]
        return f"{self.value(first, FACTOR)} * {self.value(second, FACTOR)}"

    # -- statements

    def assign(self, register: Register, value: Value) -> str:
        name = self.names.of(register)
        if isinstance(value, Op):
            if value.name == "fma" and _reads(value.arguments[2], register):
                return f"{name} += {self.product(value)};"
            if value.name in CHANGES:
                one, two = value.arguments
                if _reads(two, register) and value.name in EITHER_SIDE:
                    one, two = two, one
                if _reads(one, register):
                    return f"{name} {CHANGES[value.name]} {self.value(two, SUM)};"
        return f"{name} = {self.value(value)};"

    def head(self, loop: Loop) -> str:
        stop = self.index(loop.stop)
        start = self.index(loop.start)
        var = self.names.of(loop.var)
        step = f"{var}++" if loop.step == 1 else f"{var} += {loop.step}"
        return f"for ({var} = {start}; {var} < {stop}; {step}) {{"

    def statement(self, statement: Statement) -> str:
        """One statement without its body."""
        if isinstance(statement, Loop):
            return self.head(statement)
        if isinstance(statement, Assign):
            return self.assign(statement.register, statement.value)
        if isinstance(statement, Store):
            value = statement.value
            place = self.place(statement.buffer, statement.index, value.lanes)
            return f"{place} = {self.value(value)};"
        if isinstance(statement, Fetch):
            return f"fetch({self.place(statement.buffer, statement.index, 1)});"
        if isinstance(statement, MATRIX_STATEMENTS):
            return self.matrix(statement)
        left, right = self.transposition(statement)
        return f"({shortened(left)}) = transpose({shortened(right)});"

    def matrix(self, statement: MatrixStatement) -> str:
        """Matrices are m0 … m7; a row's place is followed by the rows and their axis."""
        if isinstance(statement, MatrixDot):
            sums, left, right = (
                f"m{one.number}" for one in (statement.sums, statement.left, statement.right)
            )
            return f"{sums} += matrix_dot({left}, {right});"
        name = f"m{statement.matrix.number}"
        if isinstance(statement, MatrixZero):
            return f"{name} = 0;"
        rows = f"{statement.matrix.rows} rows of axis {statement.axis}"
        place = self.place(statement.buffer, statement.index, statement.matrix.columns)
        left, right = (name, place) if isinstance(statement, MatrixLoad) else (place, name)
        return f"{left} = {right};  // {rows}"

    def transposition(self, statement: Transpose) -> tuple[list[str], list[str]]:
        """The names of the registers, and the values."""
        left = [self.names.of(register) for register in statement.registers]
        return left, [self.value(value) for value in statement.values]

    def lines(self, body: Iterable[Statement], depth: int) -> Iterator[str]:
        for statement in body:
            if isinstance(statement, Loop) and turns_once(statement):
                self.fixed[statement.var] = statement.start.constant
                yield from self.lines(statement.body, depth)
                continue
            if isinstance(statement, Transpose):
                left, right = self.transposition(statement)
                yield f"{INDENT * depth}({shortened(left)}) = transpose("
                yield from (f"{INDENT * (depth + 1)}{value}," for value in right)
                yield f"{INDENT * depth});"
                continue
            yield INDENT * depth + self.statement(statement)
            if isinstance(statement, Loop):
                yield from self.lines(statement.body, depth + 1)
                yield INDENT * depth + "}"
                self.names.release(statement.var)


def show(kernel: Kernel) -> str:
    """The kernel as pseudo-C: a legend of its arrays, tables and registers, then the loops."""
    printer = _Printer()
    for buffer in kernel.buffers:
        printer.names.of(buffer)
    lines = list(printer.lines(kernel.body, 0))
    names = printer.names
    buffers = [thing for thing in names.given if isinstance(thing, Buffer)]
    registers = [thing for thing in names.given if isinstance(thing, Register)]
    rows = [_legend(names.of(buffer), buffer) for buffer in buffers]
    symbols = ", ".join(symbol.name for symbol in kernel.symbols)
    head = f"kernel {kernel.name}({symbols})" if symbols else f"kernel {kernel.name}"
    return "\n".join([head, *_aligned(rows), *_register_line(registers), "", *lines]) + "\n"


def show_statement(statement: Statement) -> str:
    """One statement (of a loop: its head) on one line."""
    return _Printer().statement(statement)


def show_index(index: Index) -> str:
    """An index as text: `2*p + r - 1`."""
    return _Printer().index(index)


def shortened(names: list[str]) -> str:
    """a, b, … z."""
    if len(names) <= 4:
        return ", ".join(names)
    return f"{names[0]}, {names[1]}, … {names[-1]}"


def number(value: float | int, dtype: str) -> str:
    """The shortest decimal that is this number in its type; large integers in base 16."""
    if dtype != "f32":
        return hex(int(value)) if abs(value) > 0xFFFF else str(int(value))
    wanted = _single(value)
    texts = (f"{wanted:.{digits}g}" for digits in range(1, 10))
    return next((text for text in texts if _single(float(text)) == wanted), str(wanted))


def _single(value: float) -> float:
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def turns_once(loop: Loop) -> bool:
    """A loop of one turn is shown (and compiled) as its body."""
    if loop.start.terms or loop.stop.terms:
        return False
    return 0 < loop.stop.constant - loop.start.constant <= loop.step


def _reads(value: Value, register: Register) -> bool:
    return isinstance(value, Read) and value.register is register


def _legend(name: str, buffer: Buffer) -> tuple[str, str, str]:
    if buffer.data is not None:
        return name, f"{buffer.dtype} [{len(buffer.data)}]", _short(buffer.data, buffer.dtype)
    sizes = [size.name if isinstance(size, Symbol) else str(size) for size in buffer.shape]
    lanes = f" x {sizes.pop()}" if len(sizes) > 1 and buffer.shape[-1] in (8, 16) else ""
    below = buffer.below.name if isinstance(buffer.below, Symbol) else buffer.below
    bound = "" if below is None else f", entries below {below}"
    shape = "".join(f"[{size}]" for size in sizes)
    return name, f"{buffer.dtype} {shape}{lanes}", buffer.access + bound


def _short(data: tuple[int | float, ...], dtype: str) -> str:
    text: Callable[[int | float], str] = lambda entry: number(entry, dtype)  # noqa: E731
    if len(data) <= ENTRIES_SHOWN:
        return "= {" + ", ".join(map(text, data)) + "}"
    first = ", ".join(map(text, data[: ENTRIES_SHOWN - 2]))
    last = ", ".join(map(text, data[-2:]))
    return f"= {{{first}, … {last}}}, {text(min(data))} to {text(max(data))}"


def _aligned(rows: list[tuple[str, str, str]]) -> list[str]:
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    return [f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}" for a, b, c in rows]


def _register_line(registers: list[Register]) -> list[str]:
    kinds: dict[str, int] = {}
    for register in registers:
        kind = register.dtype if register.lanes == 1 else f"{register.dtype} x {register.lanes}"
        kinds[kind] = kinds.get(kind, 0) + 1
    text = ", ".join(f"{count} of {kind}" for kind, count in kinds.items())
    return [f"  named values: {text}"] if text else []
