"""Indices and places of a kernel → LLVM IR that works them out.

An address is a sum of atom × stride. Every partial sum is computed in the body of the outermost
loop that knows its atoms, and once, so inner loops add constants only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import gcd
from typing import TypeAlias, Union

from lanewise.native.lower_words import SCALARS, literal
from lanewise.native.nest import ELEMENT_BYTES, Atom, Buffer, Entry, Index, Symbol, Var

Lines: TypeAlias = list[Union[str, "Lines"]]
Terms: TypeAlias = tuple[tuple[Atom, int], ...]


class Text:
    """Instructions in the order they are written; names that are used once."""

    def __init__(self) -> None:
        self.count = 0
        self.lines: Lines = []

    def fresh(self, stem: str = "t") -> str:
        self.count += 1
        # Registers end in a number themselves: without the dot a1·123 and a11·23 would be one name.
        return f"%{stem}.{self.count}"

    def label(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def emit(self, instruction: str, into: Lines | None = None) -> str:
        """An instruction with a result; its name."""
        self.count += 1
        name = f"%t.{self.count}"
        (self.lines if into is None else into).append(f"  {name} = {instruction}")
        return name


def flat(lines: Lines) -> list[str]:
    """Lines of lines → lines."""
    found: list[str] = []
    for line in lines:
        if isinstance(line, str):
            found.append(line)
        else:
            found += flat(line)
    return found


@dataclass(frozen=True, eq=False, slots=True)
class Address:
    """A buffer's beginning, or an address with one atom × stride (in bytes) more. Equal ones are
    one and the same."""

    buffer: Buffer
    before: Address | None = None
    atom: Atom | None = None
    step: int = 0


@dataclass
class Scope:
    """What is known inside one loop body: its depth, where early lines go, addresses so far."""

    depth: int
    preamble: Lines = field(default_factory=list)
    known: dict[object, str] = field(default_factory=dict)


class Places:
    """Names of indices and addresses while a kernel is lowered."""

    def __init__(self, kernel_name: str, text: Text) -> None:
        self.kernel_name = kernel_name
        self.text = text
        self.scopes = [Scope(0)]
        self.tables: dict[Buffer, str] = {}
        self._depth_of: dict[Var, int] = {}
        self._value_of: dict[Var, str] = {}
        self._strides: dict[Buffer, tuple[int, ...]] = {}
        self._spreads: dict[object, tuple[Address, int]] = {}
        self._addresses: dict[object, Address] = {}

    # -- loops

    def open(self, var: Var, name: str) -> Scope:
        """A loop's body begins; `name` is that of its variable."""
        scope = Scope(len(self.scopes))
        self.scopes.append(scope)
        self._depth_of[var], self._value_of[var] = scope.depth, name
        return scope

    def close(self) -> None:
        self.scopes.pop()

    def fix(self, var: Var, value: int) -> None:
        """The variable of a loop that makes one turn is a number, known from the beginning."""
        self._depth_of[var], self._value_of[var] = 0, str(value)

    # -- indices

    def integer(self, index: Index) -> str:
        """The value of an index as i64."""
        total, constant = "", index.constant
        for atom, factor in self._sorted(index.terms):
            name = self._atom(atom)
            if factor != 1:
                name = self.text.emit(f"mul i64 {name}, {factor}")
            total = self.text.emit(f"add i64 {total}, {name}") if total else name
        if not total:
            return str(constant)
        return self.text.emit(f"add i64 {total}, {constant}") if constant else total

    def _depth(self, atom: Atom) -> int:
        """How many loops must be open for the atom to be known."""
        if isinstance(atom, Var):
            return self._depth_of[atom]
        if isinstance(atom, Symbol):
            return 0
        return max((self._depth(inner) for inner, _ in atom.index.terms), default=0)

    def _sorted(self, terms: Terms) -> Terms:
        """What is known first, first."""
        if len(terms) < 2:
            return terms
        return tuple(sorted(terms, key=lambda term: self._depth(term[0])))

    def _atom(self, atom: Atom) -> str:
        """The SSA name (or literal) of an atom."""
        if isinstance(atom, Var):
            return self._value_of[atom]
        if isinstance(atom, Symbol):
            return f"%{atom.name}"
        scope = self.scopes[self._depth(atom)]
        key = _atom_key(atom)
        if key not in scope.known:
            address, _ = self._address(atom.table, (atom.index,), scope.preamble)
            name = self.text.emit(f"load i64, ptr {address}, align 8", scope.preamble)
            scope.known[key] = name
        return scope.known[key]

    # -- addresses

    def place(self, buffer: Buffer, index: tuple[Index, ...], lanes: int) -> tuple[str, int]:
        """The address of so many neighbours, and the largest power of two that surely divides it,
        at most the bytes of the access."""
        address, divisor = self._address(buffer, index, None)
        return address, min(divisor & -divisor, ELEMENT_BYTES[buffer.dtype] * lanes)

    def _address(
        self, buffer: Buffer, index: tuple[Index, ...], into: Lines | None
    ) -> tuple[str, int]:
        """Address, and a number that divides it."""
        key = (buffer, tuple([part.terms for part in index]))
        spread = self._spreads.get(key)
        if spread is None:
            spread = self._spreads[key] = self._spread(buffer, index)
        constant = 0
        for part, stride in zip(index, self._strides[buffer], strict=True):
            constant += part.constant * stride
        address, divisor = spread
        pointer = self._name(address)
        if constant:
            pointer = self.text.emit(
                f"getelementptr inbounds i8, ptr {pointer}, i64 {constant}", into
            )
        return pointer, gcd(divisor, constant)

    def _spread(self, buffer: Buffer, index: tuple[Index, ...]) -> tuple[Address, int]:
        """The address without its constant: the atoms of an index times their strides in bytes,
        what is known first, first. And what divides it."""
        merged: dict[Atom, int] = {}
        for part, stride in zip(index, self._byte_strides(buffer), strict=True):
            for atom, factor in part.terms:
                merged[atom] = merged.get(atom, 0) + factor * stride
        terms = self._sorted(tuple((atom, step) for atom, step in merged.items() if step))
        address = self._addresses.setdefault(buffer, Address(buffer))
        for atom, step in terms:
            key = (address, _atom_key(atom) if isinstance(atom, Entry) else atom, step)
            address = self._addresses.setdefault(key, Address(buffer, address, atom, step))
        return address, gcd(buffer.align, *(step for _, step in terms))

    def _byte_strides(self, buffer: Buffer) -> tuple[int, ...]:
        if buffer not in self._strides:
            size = ELEMENT_BYTES[buffer.dtype]
            self._strides[buffer] = tuple(size * stride for stride in buffer.strides)
        return self._strides[buffer]

    def _name(self, address: Address) -> str:
        """The SSA name of an address, worked out once, as early as possible."""
        if address.before is None or address.atom is None:
            return self._base(address.buffer)
        scope = self.scopes[self._depth(address.atom)]
        if address not in scope.known:
            before = self._name(address.before)
            atom = self._atom(address.atom)
            offset = self.text.emit(f"mul nsw i64 {atom}, {address.step}", scope.preamble)
            scope.known[address] = self.text.emit(
                f"getelementptr inbounds i8, ptr {before}, i64 {offset}", scope.preamble
            )
        return scope.known[address]

    def _base(self, buffer: Buffer) -> str:
        if buffer.data is None:
            return f"%{buffer.name}"
        name = f"@{self.kernel_name}.{buffer.name}{len(self.tables)}"
        return self.tables.setdefault(buffer, name)

    def constants(self) -> tuple[str, ...]:
        """The constant tables whose addresses were asked for."""
        return tuple(_table(name, buffer) for buffer, name in self.tables.items())


def _terms_key(terms: Terms) -> object:
    """Equal for terms that mean the same, though entries are objects of their own."""
    return tuple([(_atom_key(a) if isinstance(a, Entry) else a, factor) for a, factor in terms])


def _atom_key(atom: Entry) -> object:
    return (atom.table, _terms_key(atom.index.terms), atom.index.constant)


def _table(name: str, buffer: Buffer) -> str:
    assert buffer.data is not None
    kind = SCALARS[buffer.dtype]
    entries = ", ".join(f"{kind} {literal(entry, buffer.dtype)}" for entry in buffer.data)
    shape = f"[{len(buffer.data)} x {kind}]"
    return f"{name} = private unnamed_addr constant {shape} [{entries}], align 64"
