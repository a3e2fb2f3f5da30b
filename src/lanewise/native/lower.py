"""Loop nest → LLVM IR, as text.

Registers become SSA values (a loop's carried registers are its phis), so the result needs no
mid-level optimisation pass: the passes that LLVM would run hoist weight broadcasts out of the
inner loop and spill them. `lower_places.py` writes the addresses, `lower_values.py` the
expressions, in the words of `lower_words.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lanewise.native.lower_places import Lines, Places, Text, flat
from lanewise.native.lower_values import Values
from lanewise.native.lower_words import type_of
from lanewise.native.nest import (
    LANES,
    Assign,
    Fetch,
    Kernel,
    Loop,
    Register,
    Statement,
    Store,
    Transpose,
)


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
    declarations = frozenset(lowering.values.declarations)
    return LoweredKernel(function, lowering.places.constants(), declarations)


@dataclass(frozen=True)
class _Carried:
    """The phis of a loop: where they stand, which registers they carry, and between which names."""

    lines: Lines
    begins: dict[Register, str]
    names: dict[Register, str]


class _Lowering:
    """The state of lowering one kernel: the text so far, and the block that is being written."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.text = Text()
        self.places = Places(kernel.name, self.text)
        self.values = Values(self.text, self.places)
        self.registers = self.values.registers
        self.block = "entry"

    def function(self) -> str:
        entry: Lines = [self.places.scopes[0].preamble]
        self.text.lines = entry
        self.statements(self.kernel.body)
        parameters = [f"ptr noalias align {b.align} %{b.name}" for b in self.kernel.buffers]
        parameters += [f"i64 %{s.name}" for s in self.kernel.symbols]
        head = f"define void @{self.kernel.name}({', '.join(parameters)}) noinline nounwind"
        return "\n".join([head + " {", "entry:", *flat(entry), "  ret void", "}"])

    # -- statements

    def statements(self, body: Iterable[Statement]) -> None:
        for statement in body:
            if isinstance(statement, Assign):
                self.registers[statement.register] = self.values.name(statement.value)
            elif isinstance(statement, Loop):
                self.loop(statement)
            elif isinstance(statement, Store):
                self.store(statement)
            elif isinstance(statement, Fetch):
                self.fetch(statement)
            else:
                self.transpose(statement)

    def store(self, store: Store) -> None:
        name = self.values.name(store.value)
        kind = type_of(store.value.dtype, store.value.lanes)
        address, align = self.places.place(store.buffer, store.index, store.value.lanes)
        away = ", !nontemporal !{i32 1}" if store.away else ""
        self.text.lines.append(f"  store {kind} {name}, ptr {address}, align {align}{away}")

    def fetch(self, fetch: Fetch) -> None:
        """To the second-level cache, to be read."""
        address, _ = self.places.place(fetch.buffer, fetch.index, LANES)
        self.values.declarations.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        self.text.lines.append(f"  call void @llvm.prefetch.p0(ptr {address}, i32 0, i32 2, i32 1)")

    def transpose(self, statement: Transpose) -> None:
        rows = [self.values.name(value) for value in statement.values]
        columns = self.values.transposed(rows, statement.values[0].dtype)
        self.registers.update(zip(statement.registers, columns, strict=True))

    # -- loops

    def loop(self, loop: Loop) -> None:
        """A loop of no turn is nothing, a loop of one turn its body."""
        start, stop = loop.start, loop.stop
        if start.terms or stop.terms:
            self.counted(loop, known_to_run=False)
            return
        trips = -(-(stop.constant - start.constant) // loop.step)
        if trips == 1:
            self.places.fix(loop.var, start.constant)
            self.statements(loop.body)
        elif trips > 1:
            self.counted(loop, known_to_run=True)

    def counted(self, loop: Loop, known_to_run: bool) -> None:
        """head: phis, body, latch; a loop that may not run at all asks first."""
        text = self.text
        first, limit = self.places.integer(loop.start), self.places.integer(loop.stop)
        before, head, after = self.block, text.label("head"), text.label("after")
        variable = text.fresh(loop.var.name)
        carried = self.carry(loop)
        text.lines.append(f"  br label %{head}")
        self.begin_block(head)
        text.lines.append(carried.lines)
        self.registers.update(carried.names)
        if not known_to_run:
            self.branch(f"icmp slt i64 {variable}, {limit}", body := text.label("body"), after)
            self.begin_block(body)
        self.body(loop, variable)
        following = text.emit(f"add nuw nsw i64 {variable}, {loop.step}")
        latch = self.block
        if known_to_run:
            self.branch(f"icmp slt i64 {following}, {limit}", head, after)
        else:
            text.lines.append(f"  br label %{head}")
        carried.lines.append(
            f"  {variable} = phi i64 [ {first}, %{before} ], [ {following}, %{latch} ]"
        )
        self.meet(carried, before, latch)
        if not known_to_run:
            self.registers.update(carried.names)
        self.begin_block(after)

    def carry(self, loop: Loop) -> _Carried:
        """The registers that the body assigns and that have a value before."""
        registers = [r for r in assigned(loop.body) if r in self.registers]
        begins = {r: self.registers[r] for r in registers}
        return _Carried([], begins, {r: self.text.fresh(r.name) for r in registers})

    def meet(self, carried: _Carried, before: str, latch: str) -> None:
        """Write the phis of the carried registers, now that their values at the end are known."""
        for register, begin in carried.begins.items():
            kind = type_of(register.dtype, register.lanes)
            carried.lines.append(
                f"  {carried.names[register]} = phi {kind} [ {begin}, %{before} ],"
                f" [ {self.registers[register]}, %{latch} ]"
            )

    def body(self, loop: Loop, variable: str) -> None:
        scope = self.places.open(loop.var, variable)
        self.text.lines.append(scope.preamble)
        self.statements(loop.body)
        self.places.close()

    def begin_block(self, label: str) -> None:
        self.text.lines.append(f"{label}:")
        self.block = label

    def branch(self, condition: str, yes: str, no: str) -> None:
        self.text.lines.append(f"  br i1 {self.text.emit(condition)}, label %{yes}, label %{no}")


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
