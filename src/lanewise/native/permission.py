"""Whether this process may use the matrix registers (AMX): Linux must give leave.

The registers of a thread are 8 KB, so Linux does not keep them for a process that has not asked,
and its first such instruction is then an illegal one (SIGILL). The processor's list of features
does not tell: a hypervisor or a boot option may withhold the registers that it names. Linux knows
what it keeps; what it refuses is not used. Leave is for the whole process, threads that run already
included, and for what it forks; it stays until another program is executed.

Source of the numbers: Linux, Documentation/arch/x86/xstate.rst and asm/prctl.h.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from dataclasses import replace
from functools import lru_cache

from lanewise.native.precisions import multiplies_matrices
from lanewise.native.target import Target

#: number of the system call arch_prctl on x86-64
_ARCH_PRCTL = 158
#: what it is asked: what the kernel keeps at all, what this process may use, and to let it use more
_GET_SUPPORTED, _GET_PERMITTED, _REQUEST = 0x1021, 0x1022, 0x1023
#: components of a thread's state: the sizes of the matrices, and what stands in them
_SIZES, _DATA = 17, 18
_BOTH = 1 << _SIZES | 1 << _DATA


def permitted(target: Target) -> Target:
    """The target as this process may use it: without AMX where Linux does not give leave. It is
    asked only where the processor multiplies matrices."""
    if not multiplies_matrices(target) or (target.native and ask()):
        return target
    words = [word for word in target.features.split(",") if not word.startswith("+amx-")]
    gone = [f"-{word[1:]}" for word in target.features.split(",") if word.startswith("+amx-")]
    return replace(target, features=",".join([*words, *gone]))


@lru_cache(maxsize=1)
def ask() -> bool:
    """Ask Linux, and look whether it has agreed; no other system is known to be asked."""
    machine = platform.machine().lower()
    if not sys.platform.startswith("linux") or machine not in ("x86_64", "amd64"):
        return False
    supported = _mask(_GET_SUPPORTED)
    if supported is None or supported & _BOTH != _BOTH:
        return False
    if _arch_prctl(_REQUEST, _DATA) != 0:
        return False
    allowed = _mask(_GET_PERMITTED)
    return allowed is not None and allowed & _BOTH == _BOTH


def _mask(question: int) -> int | None:
    """The components that an answer names; None where the kernel knows no such question."""
    found = ctypes.c_uint64(0)
    if _arch_prctl(question, ctypes.addressof(found)) != 0:
        return None
    return found.value


def _arch_prctl(code: int, argument: int) -> int:
    """The system call: 0, or −1 where it failed or cannot be made."""
    try:
        syscall = ctypes.CDLL(None).syscall
    except (AttributeError, OSError):
        return -1
    syscall.restype = ctypes.c_long
    syscall.argtypes = [ctypes.c_long, ctypes.c_ulong, ctypes.c_ulong]
    return int(syscall(_ARCH_PRCTL, code, argument))
