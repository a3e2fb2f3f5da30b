"""Loop nest → LLVM IR, as text.

Registers become SSA values (a loop's carried registers are its phis), so the result needs no
mid-level optimisation pass: the passes that LLVM would run hoist weight broadcasts out of the
inner loop and spill them. Addresses are sums of atom × stride; every partial sum is computed in
the body of the outermost loop that knows its atoms, so inner loops add constants only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import gcd
from typing import TypeAlias, Union

from lanewise.native.nest import (
    ELEMENT_BYTES,
    Assign,
    Atom,
    Buffer,
    Constant,
    Entry,
    FromIndex,
    Index,
    Kernel,
    LaneNumbers,
    Load,
    Loop,
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

Lines: TypeAlias = list[Union[str, "Lines"]]

_SCALARS = {"f32": "float", "i32": "i32", "u8": "i8", "i64": "i64", "i1": "i1"}

#: operation → the instruction, {t} the operand type, {0} {1} {2} the operands
_INSTRUCTIONS = {
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
}

_INTRINSICS = {"fma": 3, "sqrt": 1}


def type_of(dtype: str, lanes: int) -> str:
    """LLVM's name of a scalar or vector."""
    scalar = _SCALARS[dtype]
    return scalar if lanes == 1 else f"<{lanes} x {scalar}>"


def literal(value: float | int, dtype: str) -> str:
    """A number as LLVM reads it; floats as the bits of the double that equals them."""
    if dtype != "f32":
        return str(int(value))
    single = struct.unpack("f", struct.pack("f", value))[0]
    return f"0x{struct.unpack('<Q', struct.pack('<d', single))[0]:016X}"


@dataclass
class _Scope:
    """What is known inside one loop body: its depth, where early lines go, addresses so far."""

    depth: int
    preamble: Lines = field(default_factory=list)
    known: dict[object, str] = field(default_factory=dict)


class _Lowering:
    """The state of lowering one kernel: SSA names, open scopes, values of registers."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.count = 0
        self.block = "entry"
        self.lines: Lines = []
        self.scopes = [_Scope(0)]
        self.depth_of: dict[Var, int] = {}
        self.value_of_var: dict[Var, str] = {}
        self.value_of: dict[Register, str] = {}
        self.names = {b: f"%{b.name}" for b in kernel.buffers}
        self.tables: dict[Buffer, str] = {}
        self.declarations: set[str] = set()

    # -- names and lines

    def fresh(self, stem: str = "t") -> str:
        self.count += 1
        # Registers end in a number themselves: without the dot a1·123 and a11·23 would be one name.
        return f"%{stem}.{self.count}"

    def emit(self, instruction: str, into: Lines | None = None) -> str:
        name = self.fresh()
        (self.lines if into is None else into).append(f"  {name} = {instruction}")
        return name

    def label(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def begin_block(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.block = label

    # -- indices and addresses

    def depth(self, atom: Atom) -> int:
        if isinstance(atom, Var):
            return self.depth_of[atom]
        if isinstance(atom, Symbol):
            return 0
        return max((self.depth(a) for a, _ in atom.index.terms), default=0)

    def atom(self, atom: Atom) -> str:
        """The SSA name (or literal) of an atom."""
        if isinstance(atom, Var):
            return self.value_of_var[atom]
        if isinstance(atom, Symbol):
            return f"%{atom.name}"
        scope = self.scopes[self.depth(atom)]
        key = (atom.table, _key(atom.index))
        if key not in scope.known:
            address = self.address(atom.table, (atom.index,), scope)
            scope.known[key] = self.emit(f"load i64, ptr {address}, align 8", scope.preamble)
        return scope.known[key]

    def sorted_terms(self, index: Index) -> tuple[tuple[Atom, int], ...]:
        return tuple(sorted(index.terms, key=lambda term: self.depth(term[0])))

    def integer(self, index: Index) -> str:
        """The value of an index as i64."""
        total, constant = "", index.constant
        for atom, factor in self.sorted_terms(index):
            name = self.atom(atom)
            if factor != 1:
                name = self.emit(f"mul i64 {name}, {factor}")
            total = self.emit(f"add i64 {total}, {name}") if total else name
        if not total:
            return str(constant)
        return self.emit(f"add i64 {total}, {constant}") if constant else total

    def base(self, buffer: Buffer) -> str:
        if buffer.data is None:
            return self.names[buffer]
        return self.tables.setdefault(
            buffer, f"@{self.kernel.name}.{buffer.name}{len(self.tables)}"
        )

    def partial(self, buffer: Buffer, terms: tuple[tuple[Atom, int], ...]) -> str:
        """Address of a buffer plus the given terms, computed once, as early as possible."""
        if not terms:
            return self.base(buffer)
        atom, factor = terms[-1]
        scope = self.scopes[self.depth(atom)]
        key = (buffer, tuple((_atom_key(a), f) for a, f in terms))
        if key not in scope.known:
            before = self.partial(buffer, terms[:-1])
            step = factor * ELEMENT_BYTES[buffer.dtype]
            offset = self.emit(f"mul nsw i64 {self.atom(atom)}, {step}", scope.preamble)
            scope.known[key] = self.emit(
                f"getelementptr inbounds i8, ptr {before}, i64 {offset}", scope.preamble
            )
        return scope.known[key]

    def address(self, buffer: Buffer, index: tuple[Index, ...], scope: _Scope | None = None) -> str:
        flat = flatten_index(buffer, index)
        pointer = self.partial(buffer, self.sorted_terms(flat))
        if not flat.constant:
            return pointer
        step = flat.constant * ELEMENT_BYTES[buffer.dtype]
        into = None if scope is None else scope.preamble
        return self.emit(f"getelementptr inbounds i8, ptr {pointer}, i64 {step}", into)

    # -- values

    def value(self, value: Value, memo: dict[int, str]) -> str:
        """SSA name of a value; a node shared inside one statement is evaluated once."""
        if isinstance(value, Read):
            return self.value_of[value.register]
        if id(value) not in memo:
            memo[id(value)] = self.evaluate(value, memo)
        return memo[id(value)]

    def evaluate(self, value: Value, memo: dict[int, str]) -> str:
        if isinstance(value, Constant):
            return self.splat_constant(literal(value.value, value.dtype), value.dtype, value.lanes)
        if isinstance(value, LaneNumbers):
            return "<" + ", ".join(f"i32 {lane}" for lane in range(value.lanes)) + ">"
        if isinstance(value, Load):
            address = self.address(value.buffer, value.index)
            align = alignment(value.buffer, value.index, value.lanes)
            return self.emit(
                f"load {type_of(value.dtype, value.lanes)}, ptr {address}, align {align}"
            )
        if isinstance(value, FromIndex):
            number = self.emit(f"trunc i64 {self.integer(value.index)} to i32")
            return self.splat(number, "i32", value.lanes)
        assert isinstance(value, Op)
        return self.operation(value, [self.value(a, memo) for a in value.arguments])

    def splat_constant(self, text: str, dtype: str, lanes: int) -> str:
        if lanes == 1:
            return text
        if text in ("0", literal(0.0, "f32")):
            return "zeroinitializer"
        return "<" + ", ".join(f"{_SCALARS[dtype]} {text}" for _ in range(lanes)) + ">"

    def splat(self, scalar: str, dtype: str, lanes: int) -> str:
        if lanes == 1:
            return scalar
        kind = type_of(dtype, lanes)
        one = self.emit(f"insertelement {kind} poison, {_SCALARS[dtype]} {scalar}, i32 0")
        return self.emit(
            f"shufflevector {kind} {one}, {kind} poison, <{lanes} x i32> zeroinitializer"
        )

    def operation(self, value: Op, names: list[str]) -> str:
        source = value.arguments[0]
        kind = type_of(source.dtype, source.lanes)
        if value.name == "splat":
            return self.splat(names[0], value.dtype, value.lanes)
        if value.name == "lanesum":
            return self.lane_sum(names[0], source.lanes)
        if value.name == "select":
            result = type_of(value.dtype, value.lanes)
            return self.emit(f"select {kind} {names[0]}, {result} {names[1]}, {result} {names[2]}")
        if value.name in ("max", "min"):
            order = {"max": "ogt", "min": "olt"}[value.name]
            first = self.emit(f"fcmp {order} {kind} {names[0]}, {names[1]}")
            bits = type_of("i1", value.lanes)
            return self.emit(f"select {bits} {first}, {kind} {names[0]}, {kind} {names[1]}")
        if value.name in _INTRINSICS:
            return self.call(f"llvm.{value.name}", kind, source.lanes, names)
        if value.name == "round":
            whole = self.call("llvm.rint", kind, source.lanes, names)
            return self.emit(f"fptosi {kind} {whole} to {type_of('i32', value.lanes)}")
        pattern = _INSTRUCTIONS[value.name, source.dtype]
        kinds = {d: type_of(d, value.lanes) for d in ("i32", "u8", "f32")}
        return self.emit(pattern.format(*names, t=kind, **kinds))

    def call(self, stem: str, kind: str, lanes: int, names: list[str]) -> str:
        name = f"{stem}.{'f32' if lanes == 1 else f'v{lanes}f32'}"
        self.declarations.add(f"declare {kind} @{name}({', '.join([kind] * len(names))})")
        return self.emit(f"call {kind} @{name}({', '.join(f'{kind} {n}' for n in names)})")

    def lane_sum(self, name: str, lanes: int) -> str:
        """Halves added to halves: the same tree on every CPU."""
        while lanes > 2:
            kind, half = type_of("f32", lanes), lanes // 2
            parts = []
            for start in (0, half):
                mask = ", ".join(f"i32 {start + i}" for i in range(half))
                parts.append(
                    self.emit(
                        f"shufflevector {kind} {name}, {kind} poison, <{half} x i32> <{mask}>"
                    )
                )
            name = self.emit(f"fadd {type_of('f32', half)} {parts[0]}, {parts[1]}")
            lanes = half
        ends = [self.emit(f"extractelement <2 x float> {name}, i32 {i}") for i in (0, 1)]
        return self.emit(f"fadd float {ends[0]}, {ends[1]}")

    # -- statements

    def statements(self, body: Iterable[Statement]) -> None:
        for statement in body:
            if isinstance(statement, Loop):
                self.loop(statement)
            elif isinstance(statement, Assign):
                self.value_of[statement.register] = self.value(statement.value, {})
            elif isinstance(statement, Store):
                self.store(statement)
            else:
                self.transpose(statement)

    def store(self, store: Store) -> None:
        name = self.value(store.value, {})
        kind = type_of(store.value.dtype, store.value.lanes)
        address = self.address(store.buffer, store.index)
        align = alignment(store.buffer, store.index, store.value.lanes)
        self.lines.append(f"  store {kind} {name}, ptr {address}, align {align}")

    def transpose(self, statement: Transpose) -> None:
        """log2(L) rounds; round s swaps the blocks of s lanes between rows s apart."""
        rows = [self.value(value, {}) for value in statement.values]
        size = len(rows)
        kind = type_of(statement.values[0].dtype, size)
        step = size // 2
        while step:
            for i in (i for i in range(size) if not i & step):
                pair = rows[i], rows[i + step]
                for row, shift in ((i, 0), (i + step, step)):
                    lanes = [
                        lane + shift if not lane & step else size + lane - step + shift
                        for lane in range(size)
                    ]
                    mask = ", ".join(f"i32 {lane}" for lane in lanes)
                    rows[row] = self.emit(
                        f"shufflevector {kind} {pair[0]}, {kind} {pair[1]}, <{size} x i32> <{mask}>"
                    )
            step //= 2
        self.value_of.update(zip(statement.registers, rows, strict=True))

    def loop(self, loop: Loop) -> None:
        start, stop = loop.start, loop.stop
        if not start.terms and not stop.terms:
            trips = max(0, -(-(stop.constant - start.constant) // loop.step))
            if trips == 0:
                return
            if trips == 1:
                self.single(loop, start.constant)
            else:
                self.counted(loop, known_to_run=True)
        else:
            self.counted(loop, known_to_run=False)

    def single(self, loop: Loop, value: int) -> None:
        """A loop of one turn is its body."""
        self.depth_of[loop.var] = 0
        self.value_of_var[loop.var] = str(value)
        self.statements(loop.body)

    def counted(self, loop: Loop, known_to_run: bool) -> None:
        first, limit = self.integer(loop.start), self.integer(loop.stop)
        before, head, after = self.block, self.label("head"), self.label("after")
        variable = self.fresh(loop.var.name)
        carried = [r for r in assigned(loop.body) if r in self.value_of]
        phis: Lines = []
        begins = {r: self.value_of[r] for r in carried}
        names = {r: self.fresh(r.name) for r in carried}
        self.lines.append(f"  br label %{head}")
        self.begin_block(head)
        self.lines.append(phis)
        self.value_of.update(names)
        if not known_to_run:
            body = self.label("body")
            more = self.emit(f"icmp slt i64 {variable}, {limit}")
            self.lines.append(f"  br i1 {more}, label %{body}, label %{after}")
            self.begin_block(body)
        self.body(loop, variable)
        following = self.emit(f"add nuw nsw i64 {variable}, {loop.step}")
        latch = self.block
        if known_to_run:
            more = self.emit(f"icmp slt i64 {following}, {limit}")
            self.lines.append(f"  br i1 {more}, label %{head}, label %{after}")
        else:
            self.lines.append(f"  br label %{head}")
        phis.append(f"  {variable} = phi i64 [ {first}, %{before} ], [ {following}, %{latch} ]")
        for register in carried:
            kind = type_of(register.dtype, register.lanes)
            phis.append(
                f"  {names[register]} = phi {kind} [ {begins[register]}, %{before} ],"
                f" [ {self.value_of[register]}, %{latch} ]"
            )
        if not known_to_run:
            self.value_of.update(names)
        self.begin_block(after)

    def body(self, loop: Loop, variable: str) -> None:
        scope = _Scope(len(self.scopes))
        self.scopes.append(scope)
        self.depth_of[loop.var] = scope.depth
        self.value_of_var[loop.var] = variable
        self.lines.append(scope.preamble)
        self.statements(loop.body)
        self.scopes.pop()

    # -- the whole

    def function(self) -> str:
        entry: Lines = [self.scopes[0].preamble]
        self.lines = entry
        self.statements(self.kernel.body)
        parameters = [f"ptr noalias align {b.align} %{b.name}" for b in self.kernel.buffers]
        parameters += [f"i64 %{s.name}" for s in self.kernel.symbols]
        head = f"define void @{self.kernel.name}({', '.join(parameters)}) noinline nounwind"
        return "\n".join([head + " {", "entry:", *_flat(entry), "  ret void", "}"])


def flatten_index(buffer: Buffer, index: tuple[Index, ...]) -> Index:
    """An index with one entry per axis → the element's number."""
    flat = Index()
    for part, stride in zip(index, buffer.strides, strict=True):
        flat = flat + part * stride
    return flat


def alignment(buffer: Buffer, index: tuple[Index, ...], lanes: int) -> int:
    """The largest power of two that surely divides the address, at most the access itself."""
    size = ELEMENT_BYTES[buffer.dtype]
    flat = flatten_index(buffer, index)
    divisor = gcd(buffer.align, size * flat.constant)
    for _, factor in flat.terms:
        divisor = gcd(divisor, size * factor)
    return min(divisor & -divisor, size * lanes)


def assigned(body: Iterable[Statement]) -> list[Register]:
    """The registers a body assigns, in order of first assignment."""
    found: dict[Register, None] = {}
    for statement in body:
        if isinstance(statement, Loop):
            found.update(dict.fromkeys(assigned(statement.body)))
        elif isinstance(statement, Assign):
            found[statement.register] = None
        elif isinstance(statement, Transpose):
            found.update(dict.fromkeys(statement.registers))
    return list(found)


@dataclass(frozen=True)
class LoweredKernel:
    """One kernel as IR: its function, constant tables and the intrinsics it calls."""

    function: str
    tables: tuple[str, ...]
    declarations: frozenset[str]


def lower(kernel: Kernel) -> LoweredKernel:
    """A loop nest → one LLVM function of pointers (buffers) and i64 (symbols)."""
    lowering = _Lowering(kernel)
    function = lowering.function()
    tables = tuple(_table(name, buffer) for buffer, name in lowering.tables.items())
    return LoweredKernel(function, tables, frozenset(lowering.declarations))


def _table(name: str, buffer: Buffer) -> str:
    assert buffer.data is not None
    kind = _SCALARS[buffer.dtype]
    entries = ", ".join(f"{kind} {literal(entry, buffer.dtype)}" for entry in buffer.data)
    shape = f"[{len(buffer.data)} x {kind}]"
    return f"{name} = private unnamed_addr constant {shape} [{entries}], align 64"


def _atom_key(atom: Atom) -> object:
    return (atom.table, _key(atom.index)) if isinstance(atom, Entry) else atom


def _key(index: Index) -> object:
    return (tuple((_atom_key(a), f) for a, f in index.terms), index.constant)


def _flat(lines: Lines) -> list[str]:
    flat: list[str] = []
    for line in lines:
        if isinstance(line, str):
            flat.append(line)
        else:
            flat.extend(_flat(line))
    return flat
