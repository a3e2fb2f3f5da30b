"""Object files become one block of bytes that is loaded as it is (`linked.py`).

What LLVM's own linker does at every start is done once here, when the code is made: sections stand
side by side, everything inside the block that is relative is solved, and what comes from outside
goes through slots.

Only what the code generator writes for Linux on x86-64 is known: position independent code and
constants, no variables. Anything else stays as it is, and LLVM links it (`machine_code.py`).

The format of the object files is ELF-64 (System V ABI, and its supplement for AMD64, table 4.9).
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from lanewise.native.linked import HEADER, MAGIC
from lanewise.native.target import Target, architecture

_FILE = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_PROGBITS, _SYMTAB, _RELA, _NOBITS = 1, 2, 4, 8
_WRITE, _ALLOC, _EXECUTE = 1, 2, 4
_PC32, _PLT32, _GOT = 2, 4, (9, 41, 42)
_UNDEFINED, _RESERVED, _LOCAL = 0, 0xFF00, 0
_JUMP = b"\xff\x25"  # jmp to the address in a slot, whose distance follows
_TABLES_OF_UNWINDING = ".eh_frame"


class Unlinkable(Exception):
    """Something that only LLVM's linker knows what to do with."""


def link(objects: Sequence[bytes], target: Target) -> tuple[bytes, ...]:
    """One block of several object files; they themselves where this machine loads no blocks."""
    if sys.platform != "linux" or architecture(target.triple) != "x86_64":
        return tuple(objects)
    try:
        return (_Linker([ObjectFile(code) for code in objects]).block(),)
    except Unlinkable:
        return tuple(objects)


# ---- object files -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """A section's header, and what stands in it."""

    name: str
    type: int
    flags: int
    link: int  # of a table: the section with its symbols or names
    info: int  # of relocations: the section they are for
    align: int
    content: bytes

    @property
    def kept(self) -> bool:
        """Whether it is part of the program."""
        return bool(self.flags & _ALLOC) and self.name != _TABLES_OF_UNWINDING


@dataclass(frozen=True)
class Symbol:
    """A name for a place in a section, or for something outside (`section` 0)."""

    name: str
    section: int
    value: int
    local: bool


@dataclass(frozen=True)
class Relocation:
    """Four bytes of section `section` at `offset` that depend on where a symbol will lie."""

    section: int
    offset: int
    type: int
    symbol: Symbol
    addend: int


class ObjectFile:
    """One object file, read."""

    def __init__(self, code: bytes) -> None:
        if not code.startswith(b"\x7fELF"):
            raise Unlinkable("no ELF file")
        head = _FILE.unpack_from(code)
        begin, count, names = head[6], head[12], head[13]
        raw = [_SECTION.unpack_from(code, begin + _SECTION.size * i) for i in range(count)]
        contents = [b"" if one[1] == _NOBITS else code[one[4] : one[4] + one[5]] for one in raw]
        self.sections = [
            Section(_text(contents[names], one[0]), one[1], one[2], one[6], one[7], one[8], content)
            for one, content in zip(raw, contents, strict=True)
        ]
        for section in self.sections:
            if section.kept and (section.type != _PROGBITS or section.flags & _WRITE):
                raise Unlinkable(f"section {section.name}")

    @cached_property
    def symbols(self) -> list[Symbol]:
        """All of its only table."""
        table = next(one for one in self.sections if one.type == _SYMTAB)
        names = self.sections[table.link].content
        return [
            Symbol(_text(names, name), section, value, info >> 4 == _LOCAL)
            for name, info, _, section, value, _ in _SYMBOL.iter_unpack(table.content)
        ]

    def relocations(self) -> Iterator[Relocation]:
        """Of the sections that are kept."""
        for table in self.sections:
            if table.type == _RELA and self.sections[table.info].kept:
                for offset, info, addend in _RELOCATION.iter_unpack(table.content):
                    symbol = self.symbols[info >> 32]
                    yield Relocation(table.info, offset, info & 0xFFFFFFFF, symbol, addend)


def _text(names: bytes, begin: int) -> str:
    return names[begin : names.index(b"\0", begin)].decode()


# ---- linking ------------------------------------------------------------------------------------


@dataclass
class _Linker:
    """Object files on their way to a block: code, constants, jumps to outside, slots."""

    files: list[ObjectFile]
    places: dict[tuple[int, int], int] = field(default_factory=dict)  # (file, section) → offset
    symbols: dict[str, int] = field(default_factory=dict)  # name → offset, of all but local ones
    slots: dict[str, int] = field(default_factory=dict)  # name → offset of its address
    jumps: dict[str, int] = field(default_factory=dict)
    content: bytearray = field(default_factory=bytearray)

    def block(self) -> bytes:
        """The bytes of the block, with what its loader must know before them."""
        self._place()
        for number, file in enumerate(self.files):
            for relocation in file.relocations():
                self._solve(number, relocation)
        told = json.dumps({"symbols": self.symbols, "slots": self.slots}).encode()
        return HEADER.pack(MAGIC, len(told)) + told + bytes(self.content)

    def _place(self) -> None:
        """Code first, then constants; then which name is where."""
        for executable in (_EXECUTE, 0):
            for number, file in enumerate(self.files):
                for index, section in enumerate(file.sections):
                    if section.kept and section.flags & _EXECUTE == executable:
                        self.places[number, index] = self._append(section.content, section.align)
        for number, file in enumerate(self.files):
            for symbol in file.symbols:
                if not symbol.local and symbol.section != _UNDEFINED:
                    if symbol.name in self.symbols:
                        raise Unlinkable(f"{symbol.name} twice")
                    self.symbols[symbol.name] = self._inside(number, symbol)

    def _append(self, content: bytes, align: int) -> int:
        self.content.extend(bytes(-len(self.content) % max(1, align)))
        begin = len(self.content)
        self.content.extend(content)
        return begin

    def _inside(self, number: int, symbol: Symbol) -> int:
        if symbol.section >= _RESERVED or (number, symbol.section) not in self.places:
            raise Unlinkable(f"symbol {symbol.name}")
        return self.places[number, symbol.section] + symbol.value

    def _solve(self, number: int, one: Relocation) -> None:
        """Write the distance from the place to what it means."""
        place = self.places[number, one.section] + one.offset
        distance = self._meant(number, one) + one.addend - place
        struct.pack_into("<i", self.content, place, distance)

    def _meant(self, number: int, one: Relocation) -> int:
        name = one.symbol.name
        if one.type in _GOT:
            return self._slot(name)
        if one.type not in (_PC32, _PLT32):
            raise Unlinkable(f"relocation {one.type}")
        if one.symbol.section != _UNDEFINED:
            return self._inside(number, one.symbol)
        if name in self.symbols:
            return self.symbols[name]
        if one.type != _PLT32:
            raise Unlinkable(f"{name} is read from outside")
        return self._jump(name)

    def _slot(self, name: str) -> int:
        if name not in self.slots:
            self.slots[name] = self._append(bytes(8), 8)
        return self.slots[name]

    def _jump(self, name: str) -> int:
        """A jump to a function outside: calls reach no farther than two gigabytes."""
        if name not in self.jumps:
            slot = self._slot(name)
            begin = self._append(_JUMP + bytes(4), 8)
            after = len(self.content)
            struct.pack_into("<i", self.content, after - 4, slot - after)
            self.jumps[name] = begin
        return self.jumps[name]
