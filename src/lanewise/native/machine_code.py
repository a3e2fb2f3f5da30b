"""LLVM IR becomes machine code, and machine code becomes callable addresses.

The kernels arrive hand-tiled, so nothing between the text and the instruction selector is run: no
mid-level passes, which would hoist weight broadcasts into spills and double the compile time. The
stations are parse → verify → codegen → load; `CompileTimes` collects the seconds of each. A module
that calls and counts, and leaves the work to others, is compiled `quick`: in a tenth of the time.

Code is position independent and small-model, and is linked by LLVM's JITLink, which puts all
sections of an object into one block of memory: tables stay in reach of the code however large
both are. The only symbols from outside are memset, memcpy and memmove (which the code generator
may call by itself) and those passed to `Library.load`.
"""

from __future__ import annotations

import ctypes
import itertools
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from lanewise.native.linked import process_symbols
from lanewise.native.target import Target, architecture, read_host


@dataclass
class CompileTimes:
    """Seconds spent in each station, summed over every module that was given this object."""

    parse: float = 0.0
    verify: float = 0.0
    codegen: float = 0.0
    load: float = 0.0

    @property
    def total(self) -> float:
        """All stations together, in seconds."""
        return self.parse + self.verify + self.codegen + self.load

    def add(self, other: CompileTimes) -> None:
        """Add the seconds of every station of another compilation."""
        for station in fields(self):
            mine, theirs = getattr(self, station.name), getattr(other, station.name)
            setattr(self, station.name, mine + theirs)

    @contextmanager
    def station(self, name: str) -> Iterator[None]:
        """Add the time of the `with` block to the station."""
        start = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - start)


# ---- text → object code -------------------------------------------------------------------------


@dataclass(frozen=True)
class Module:
    """Textual IR that is compiled on its own. `quick`: in a tenth of the time, to code that keeps
    no value in a register from one statement to the next; for code that is hardly ever run."""

    text: str
    quick: bool = False


def compile_ir(
    ir_text: str, target: Target, times: CompileTimes | None = None, quick: bool = False
) -> bytes:
    """Object code of one module of textual IR; `times` gets the seconds of each station added.

    The text needs no target triple or data layout. Raises RuntimeError with LLVM's words where
    the text does not parse or verify: that is a bug of the engine, not of its user.
    """
    times = times if times is not None else CompileTimes()
    machine = _machine(target, quick)
    with _parsed(ir_text, times) as module, times.station("codegen"):
        return _emit_object(machine, module)


def compile_modules(
    modules: Iterable[Module], target: Target, threads: int = 1, times: CompileTimes | None = None
) -> tuple[bytes, ...]:
    """Object code of several modules, in their order, compiled on `threads` threads at once: the
    first of them while the last have yet to be written, if they are written as they are asked for.

    The bytes are those of `compile_ir`, whatever the number of threads. Few modules of like size
    serve best: each costs about half a millisecond to load. `times` sums the seconds of all.
    """
    each: list[CompileTimes] = []

    def compiled(module: Module) -> Future[bytes]:
        each.append(CompileTimes())
        return pool.submit(compile_ir, module.text, target, each[-1], module.quick)

    with ThreadPoolExecutor(max(1, threads)) as pool:
        objects = tuple(one.result() for one in [compiled(module) for module in modules])
    if times is not None:
        for one in each:
            times.add(one)
    return objects


def assembly(ir_text: str, target: Target, quick: bool = False) -> str:
    """The assembler text of what `compile_ir` makes, with LLVM's comments."""
    machine = _machine(target, quick)
    machine.set_asm_verbosity(True)
    with _parsed(ir_text, CompileTimes()) as module:
        return str(machine.emit_assembly(module))


@contextmanager
def _parsed(ir_text: str, times: CompileTimes) -> Iterator[Any]:
    """The parsed and verified module, in a context of its own: threads share nothing."""
    import llvmlite.binding as llvm

    with llvm.create_context() as context:
        with times.station("parse"):
            module = llvm.parse_assembly(ir_text, context)
        with module:
            with times.station("verify"):
                module.verify()
            yield module


def _machine(target: Target, quick: bool) -> Any:
    """A code generator for the target. Made anew each time (0.3 ms): it is not thread-safe."""
    import llvmlite.binding as llvm

    _initialise(architecture(target.triple) != read_host().architecture)
    # Levels 1 to 3 give the same bytes for hand-tiled kernels, in the same time.
    # Object files are ELF on Windows too: JITLink and MCJIT link no COFF.
    triple = target.triple + ("-elf" if "windows" in target.triple else "")
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu=target.cpu,
        features=target.features,
        opt=0 if quick else 2,
        reloc="pic",
        codemodel="small",
    )


def _emit_object(machine: Any, module: Any) -> bytes:
    """Run the code generator without the lock that llvmlite holds around each of its calls.

    LLVM itself lets threads generate code at once when contexts and machines are their own, as
    they are here. Where llvmlite's inside is not as expected, its locked call does the same.
    """
    emit = _unlocked_emit()
    if emit is None:
        return bytes(machine.emit_object(module))
    return emit(machine, module)


@lru_cache(maxsize=1)
def _unlocked_emit() -> Callable[[Any, Any], bytes] | None:
    """The code generator as a second handle on llvmlite's library; None where it has changed."""
    from llvmlite.binding import ffi

    pointer = ctypes.c_void_p
    try:
        library = ctypes.CDLL(ffi.lib._name)
        emit, start, size, dispose = (
            getattr(library, f"LLVMPY_{name}")
            for name in (
                "TargetMachineEmitToMemory",
                "GetBufferStart",
                "GetBufferSize",
                "DisposeMemoryBuffer",
            )
        )
    except (AttributeError, OSError):
        return None
    emit.argtypes, emit.restype = [pointer, pointer, ctypes.c_int, pointer], pointer
    start.argtypes, start.restype = [pointer], pointer
    size.argtypes, size.restype = [pointer], ctypes.c_size_t
    dispose.argtypes, dispose.restype = [pointer], None

    def unlocked(machine: Any, module: Any) -> bytes:
        with ffi.OutputString() as problem:
            buffer = emit(machine._ptr, module._ptr, 1, problem)
            if not buffer:
                raise RuntimeError(str(problem))
        try:
            return ctypes.string_at(start(buffer), size(buffer))
        finally:
            dispose(buffer)

    return unlocked


@lru_cache(maxsize=2)
def _initialise(foreign: bool) -> None:
    """Register code generators with LLVM, once: this CPU's (0.3 ms), or all of them (12 ms)."""
    import llvmlite.binding as llvm

    if foreign:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    else:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()


# ---- spills -------------------------------------------------------------------------------------

_FUNCTION_TYPE = re.compile(r"^\s*\.type\s+([\w$.]+)\s*,\s*[@%]function")
_LABEL = re.compile(r"^([A-Za-z_$][\w$.]*):")
_X86_VECTOR = re.compile(r"%[xyz]mm\d+")
_X86_STACK = re.compile(r"\(%rsp[,)]")
_X86_FRAME = re.compile(r"\(%rbp[,)]")
_X86_FRAME_SET = re.compile(r"\smovq\s+%rsp, %rbp")
_ARM_VECTOR = re.compile(r"\b(?:q\d+|v\d+\.\d*[bhsd])\b")
_ARM_STACK = re.compile(r"\[sp[,\]]")


def count_spills(assembly_text: str, target: Target) -> dict[str, int]:
    """Vector-register loads and stores on the stack, per function of `assembly`'s text.

    Counted are instructions that name a vector register and a stack address: stores, reloads, and
    arithmetic with a spilled operand. A tile that fits the registers has none.
    """
    spills = _arm_spills if target.name == "neon" else _x86_spills
    return {name: spills(lines) for name, lines in _functions(assembly_text)}


def _functions(assembly_text: str) -> Iterator[tuple[str, list[str]]]:
    """Each function's name and instructions. Mach-O text types no symbols: there, every label."""
    lines = assembly_text.splitlines()
    typed = {found[1] for line in lines if (found := _FUNCTION_TYPE.match(line))}
    name, body = "", list[str]()
    for line in lines:
        label = _LABEL.match(line)
        if label and (label[1] in typed or not typed):
            if name:
                yield name, body
            name, body = label[1] if typed else label[1].removeprefix("_"), []
        elif name:
            body.append(line)
    if name:
        yield name, body


def _x86_spills(lines: Sequence[str]) -> int:
    """%rbp is a stack address only where it was made the frame pointer; else it is any pointer."""
    framed = any(_X86_FRAME_SET.search(line) for line in lines)
    return sum(
        1
        for line in lines
        if _X86_VECTOR.search(line)
        and (_X86_STACK.search(line) or (framed and _X86_FRAME.search(line)))
    )


def _arm_spills(lines: Sequence[str]) -> int:
    """The d registers that a function saves for its caller are not counted: they are no spills."""
    return sum(1 for line in lines if _ARM_VECTOR.search(line) and _ARM_STACK.search(line))


# ---- object code → addresses --------------------------------------------------------------------


class Library:
    """Object code in memory, ready to be called; it stays there as long as this object lives.

    Whoever holds an address must hold the library too, and let no thread run in it when it goes.
    """

    def __init__(self, name: str, tracker: Any, times: CompileTimes) -> None:
        self._name = name
        self._times = times
        self._addresses: dict[str, int] = {}
        # Unloaded with this object, but never at interpreter exit: threads may still run in it.
        self._unload = weakref.finalize(self, tracker.close)
        self._unload.atexit = False

    @classmethod
    def load(
        cls,
        objects: bytes | Sequence[bytes],
        imports: Mapping[str, int] | None = None,
        times: CompileTimes | None = None,
    ) -> Library:
        """Bring object code into memory: one object, or several that call each other.

        `imports` are addresses of outside symbols that the code calls. Linking happens at the
        first `address`, and is timed as `load` too.
        """
        import llvmlite.binding as llvm

        times = times if times is not None else CompileTimes()
        name = f"lanewise-{next(_numbers)}"
        builder = llvm.JITLibraryBuilder()
        for symbol, address in {**process_symbols(), **(imports or {})}.items():
            builder.import_symbol(symbol, address)
        for code in [objects] if isinstance(objects, bytes) else objects:
            builder.add_object_img(code)
        with times.station("load"):
            return cls(name, builder.link(_linker(), name), times)

    def address(self, symbol: str) -> int:
        """Where the symbol lies in memory. Raises KeyError for one that the code does not define,
        RuntimeError where the code needs an outside symbol that was not imported (LLVM names it on
        stderr) or the library is closed."""
        if not self._unload.alive:
            raise RuntimeError(f"the library of {symbol!r} is closed")
        if symbol not in self._addresses:
            with self._times.station("load"):
                self._addresses[symbol] = self._look_up(symbol)
        return self._addresses[symbol]

    def _look_up(self, symbol: str) -> int:
        try:
            found = _linker().lookup(self._name, symbol)
        except RuntimeError as error:
            if "Symbols not found" in str(error) and f" {symbol} " in str(error):
                raise KeyError(symbol) from error
            raise
        address = int(found[symbol])
        found.detach()  # a closed look-up would take the whole library out of memory
        return address

    def close(self) -> None:
        """Take the code out of memory now. Its addresses must not be used any more."""
        self._unload()


_numbers = itertools.count()
_linker_lock = threading.Lock()
_linkers: list[Any] = []


def _linker() -> Any:
    """The one linker of this process (1.5 ms to make). It lives until the process ends."""
    import llvmlite.binding as llvm

    with _linker_lock:
        if not _linkers:
            _initialise(foreign=False)
            _linkers.append(llvm.create_lljit_compiler(use_jit_link=True))
        return _linkers[0]
