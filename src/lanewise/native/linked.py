"""Machine code brought into memory: a block that was linked before (`link.py`), or object files.

To load a block is to copy it to pages of its own, to fill the slots with the addresses of what is
outside, and to forbid writing. LLVM need not be there for it.
"""

from __future__ import annotations

import ctypes
import json
import struct
import sys
import weakref
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Protocol

MAGIC = b"LWBLOCK1"
HEADER = struct.Struct("<8sQ")  # the magic, and the length of the JSON part; then that, the block


class Code(Protocol):
    """Code in memory, as long as this object lives."""

    def address(self, symbol: str) -> int:
        """Where the symbol lies. KeyError where there is none, RuntimeError where it is closed."""

    def close(self) -> None:
        """Take it out of memory now."""


def load_code(objects: Sequence[bytes], imports: Mapping[str, int] | None = None) -> Code:
    """A block, or object files, ready to be called. `imports`: addresses of outside symbols."""
    if len(objects) == 1 and objects[0].startswith(MAGIC):
        return Block(objects[0], imports or {})
    from lanewise.native.machine_code import Library

    return Library.load(objects, imports)


@lru_cache(maxsize=1)
def process_symbols() -> dict[str, int]:
    """What LLVM may call by itself to fill or copy memory: the C library's own functions."""
    move = ctypes.cast(ctypes.memmove, ctypes.c_void_p).value or 0
    fill = ctypes.cast(ctypes.memset, ctypes.c_void_p).value or 0
    symbols = {"memmove": move, "memcpy": move, "memset": fill}
    if sys.platform == "darwin":  # LLVM for macOS prefers bzero
        symbols["bzero"] = ctypes.cast(ctypes.CDLL(None).bzero, ctypes.c_void_p).value or 0
    return symbols


# ---- loading ------------------------------------------------------------------------------------

_READ, _WRITABLE, _RUN = 1, 2, 4  # PROT_READ, PROT_WRITE, PROT_EXEC
_OWN_PAGES = 0x22  # MAP_PRIVATE | MAP_ANONYMOUS


class Block:
    """A linked block in memory; it stays there as long as this object lives."""

    def __init__(self, linked: bytes, imports: Mapping[str, int]) -> None:
        """Raises RuntimeError where a symbol from outside is not among `imports`."""
        _, length = HEADER.unpack_from(linked)
        begin = HEADER.size + length
        told = json.loads(linked[HEADER.size : begin])
        self._symbols: dict[str, int] = told["symbols"]
        size = len(linked) - begin
        self._base = _pages(size)
        self._unload = weakref.finalize(self, _system().munmap, self._base, size)
        self._unload.atexit = False  # threads may still run in it
        ctypes.memmove(self._base, linked[begin:], size)
        outside = process_symbols() | dict(imports)
        for name, offset in told["slots"].items():
            slot = ctypes.c_uint64.from_address(self._base + offset)
            slot.value = self._outside(name, outside)
        if _system().mprotect(self._base, size, _READ | _RUN):
            raise RuntimeError(f"memory may not be made executable: error {ctypes.get_errno()}")

    def _outside(self, name: str, outside: Mapping[str, int]) -> int:
        if name in self._symbols:
            return self._base + self._symbols[name]
        if name not in outside:
            raise RuntimeError(f"the code needs {name!r}, which was not given")
        return outside[name]

    def address(self, symbol: str) -> int:
        """Where the symbol lies in memory. Raises KeyError for one that the code does not define,
        RuntimeError where the block is closed."""
        if not self._unload.alive:
            raise RuntimeError(f"the code of {symbol!r} is closed")
        return self._base + self._symbols[symbol]

    def close(self) -> None:
        """Take the code out of memory now. Its addresses must not be used any more."""
        self._unload()


def _pages(size: int) -> int:
    """The address of fresh memory that may be written."""
    found = _system().mmap(None, size, _READ | _WRITABLE, _OWN_PAGES, -1, 0)
    if found in (None, ctypes.c_void_p(-1).value):
        raise RuntimeError(f"no memory for {size:,} bytes of code: error {ctypes.get_errno()}")
    return int(found)


@lru_cache(maxsize=1)
def _system() -> ctypes.CDLL:
    """The C library, whose calls are told their types."""
    library = ctypes.CDLL(None, use_errno=True)
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    library.mmap.restype = pointer
    library.mmap.argtypes = [pointer, size, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    library.mprotect.argtypes = [pointer, size, ctypes.c_int]
    library.munmap.argtypes = [pointer, size]
    return library
