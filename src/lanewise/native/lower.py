"""Loop nest → LLVM IR, as text.

Registers become SSA values (a loop's carried registers are its phis), so the result needs no
mid-level optimisation pass: the passes that LLVM would run hoist weight broadcasts out of the
inner loop and spill them. `lower_places.py` writes the addresses, `lower_values.py` the
expressions, in the words of `lower_words.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lanewise.native.lower_matrices import Matrices
from lanewise.native.lower_places import Lines, Places, Text, flat
from lanewise.native.lower_values import Values
from lanewise.native.lower_words import type_of
from lanewise.native.nest import (
    LANES,
    MATRIX_STATEMENTS,
    SHARE,
    Assign,
    Fetch,
    Kernel,
    Loop,
    Register,
    Statement,
    Store,
    Transpose,
    trips,
)

# LLVM tries to rewrite the addresses of every loop (its loop strength reduction), which takes a
# quarter of the time of compiling where hundreds of statements are written out, and gains nothing
# there. Loops of more lines than this keep their addresses as they are written.
WRITTEN_OUT_LINES = 24


@dataclass(frozen=True)
class LoweredKernel:
    """One kernel as IR: its function, constant tables and the intrinsics it calls."""

    function: str
    tables: tuple[str, ...]
    declarations: frozenset[str]


def lower(kernel: Kernel, bf16: bool = False, matrices: bool = False) -> LoweredKernel:
    """A loop nest → one LLVM function of pointers (buffers) and i64 (symbols); where threads may
    share it, a second one that takes thread and threads, too, and does this thread's share. `bf16`:
    for a processor with AVX512-BF16; `matrices`: for one with AMX, whose instructions are written
    out else."""
    lowering = _Lowering(kernel, bf16, matrices)
    function = lowering.function()
    declarations = frozenset(lowering.values.declarations | lowering.matrices.declarations)
    tables = (*lowering.places.constants(), *lowering.matrices.tables)
    return LoweredKernel(function, tables, declarations)


@dataclass(frozen=True)
class _Carried:
    """The phis of a loop: where they stand, which registers they carry, and between which names."""

    lines: Lines
    begins: dict[Register, str]
    names: dict[Register, str]


class _Lowering:
    """The state of lowering one kernel: the text so far, and the block that is being written."""

    def __init__(self, kernel: Kernel, bf16: bool, matrices: bool) -> None:
        self.kernel = kernel
        self.text = Text()
        self.places = Places(kernel.name, self.text)
        self.values = Values(self.text, self.places, bf16)
        self.matrices = Matrices(kernel, self.text, self.places, matrices)
        self.registers = self.values.registers
        self.assigned_in: dict[Loop, tuple[Register, ...]] = {}
        self.block = "entry"

    def function(self) -> str:
        entry: Lines = [self.places.scopes[0].preamble]
        self.text.lines = entry
        self.matrices.begin()
        self.statements(self.kernel.body)
        self.matrices.end()
        parameters = [f"ptr noalias align {b.align} %{b.name}" for b in self.kernel.buffers]
        parameters += [f"i64 %{s.name}" for s in self.kernel.symbols]
        body = ["entry:", *flat(entry), "  ret void", "}"]
        if not self.kernel.shares:
            return "\n".join([_head(self.kernel.name, parameters), *body])
        share = [*parameters, "i64 %share.thread", "i64 %share.threads"]
        return "\n".join(
            [_head(self.kernel.name + SHARE, share), *body, *_alone(self.kernel, parameters)]
        )

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
            elif isinstance(statement, MATRIX_STATEMENTS):
                self.matrices.statement(statement)
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
        columns = self.values.transposed(rows, statement.values[0].dtype, statement.values[0].lanes)
        self.registers.update(zip(statement.registers, columns, strict=True))

    # -- loops

    def loop(self, loop: Loop) -> None:
        """A loop of no turn is nothing, a loop of one turn its body."""
        start, stop = loop.start, loop.stop
        if loop.shared and self.kernel.shares:
            self.counted(loop, *self.share(loop), known_to_run=False)
            return
        if start.terms or stop.terms:
            first, limit = self.places.integer(start), self.places.integer(stop)
            self.counted(loop, first, limit, known_to_run=False)
            return
        turns = trips(loop)
        if turns == 1:
            self.places.fix(loop.var, start.constant)
            self.statements(loop.body)
        elif turns > 1:
            self.counted(loop, str(start.constant), str(stop.constant), known_to_run=True)

    def share(self, loop: Loop) -> tuple[str, str]:
        """Begin and end of this thread's turns, of t threads thread i's: from i · turns / t to
        (i + 1) · turns / t. They depend on nothing else, and are worked out once."""
        assert not (loop.start.terms or loop.stop.terms), "a shared loop runs between numbers"
        assert not [r for r in self.assigned(loop) if r in self.registers], "turns share a register"
        turns, into = trips(loop), self.places.scopes[0].preamble
        ends = []
        for extra in (0, turns):
            scaled = self.text.emit(f"mul i64 %share.thread, {turns}", into)
            scaled = self.text.emit(f"add i64 {scaled}, {extra}", into)
            turn = self.text.emit(f"udiv i64 {scaled}, %share.threads", into)
            turn = self.text.emit(f"mul i64 {turn}, {loop.step}", into)
            ends.append(self.text.emit(f"add i64 {turn}, {loop.start.constant}", into))
        return ends[0], ends[1]

    def counted(self, loop: Loop, first: str, limit: str, known_to_run: bool) -> None:
        """head: phis, body, latch; a loop that may not run at all asks first."""
        text = self.text
        before, head, after = self.block, text.label("head"), text.label("after")
        variable = text.fresh(loop.var.name)
        carried = self.carry(loop)
        text.lines.append(f"  br label %{head}")
        self.begin_block(head)
        begun = len(text.lines)
        text.lines.append(carried.lines)
        self.registers.update(carried.names)
        if not known_to_run:
            self.branch(f"icmp slt i64 {variable}, {limit}", body := text.label("body"), after)
            self.begin_block(body)
        self.body(loop, variable)
        following = self.following(loop, variable, len(text.lines) - begun)
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

    def following(self, loop: Loop, variable: str, lines: int) -> str:
        """The variable of the next turn. What is "expected" of it is no instruction and means
        nothing, but hides from LLVM that it counts evenly, which all rewriting begins with."""
        counted = self.text.emit(f"add nuw nsw i64 {variable}, {loop.step}")
        if lines <= WRITTEN_OUT_LINES:
            return counted
        self.values.declarations.add("declare i64 @llvm.expect.i64(i64, i64)")
        return self.text.emit(f"call i64 @llvm.expect.i64(i64 {counted}, i64 0)")

    def carry(self, loop: Loop) -> _Carried:
        """The registers that the body assigns and that have a value before."""
        registers = [r for r in self.assigned(loop) if r in self.registers]
        begins = {r: self.registers[r] for r in registers}
        return _Carried([], begins, {r: self.text.fresh(r.name) for r in registers})

    def assigned(self, loop: Loop) -> tuple[Register, ...]:
        """The registers that its body assigns, in order of first assignment."""
        if loop not in self.assigned_in:
            found: dict[Register, None] = {}
            for statement in loop.body:
                if isinstance(statement, Assign):
                    found[statement.register] = None
                elif isinstance(statement, Loop):
                    found.update(dict.fromkeys(self.assigned(statement)))
                elif isinstance(statement, Transpose):
                    found.update(dict.fromkeys(statement.registers))
            self.assigned_in[loop] = tuple(found)
        return self.assigned_in[loop]

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


def _head(name: str, parameters: Iterable[str]) -> str:
    return f"define void @{name}({', '.join(parameters)}) noinline nounwind {{"


def _alone(kernel: Kernel, parameters: list[str]) -> Iterator[str]:
    """The kernel as one thread calls it."""
    given = [f"ptr %{b.name}" for b in kernel.buffers] + [f"i64 %{s.name}" for s in kernel.symbols]
    yield _head(kernel.name, parameters)
    yield f"  call void @{kernel.name}{SHARE}({', '.join([*given, 'i64 0', 'i64 1'])})"
    yield from ("  ret void", "}")
