"""THE ENGINE: a network becomes machine code for the CPU at hand.

A graph passes through this room in one direction, and the files are its stations:

    compile.py        the driver, the table of contents: graph → program
    fuse.py           graph → operations (activations joined to their producers)
    kernels/          operations → loop nests, forward and gradients as neighbours
    plan.py           operations → calls on buffers; memory.py places the buffers in one arena
    nest.py           the loop-nest language; nest_show, nest_check, nest_count, nest_run read it
    lower.py          loop nest → LLVM IR;  driver.py  the native training step around the kernels
    machine_code.py   LLVM IR → machine code; cache.py keeps it on disk; target.py knows the CPU
    workers.py        threads that stay in native code;  program.py  what the user holds

May import: errors, flags, net, size, numpy; llvmlite only inside the functions that compile.
Letters: N images, C channels, H W rows and columns of the input, K kernels, R S kernel rows and
columns, P Q rows and columns of the output, L lanes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lanewise.native.compile import compile_net as compile_net
    from lanewise.native.program import Program as Program

_HOMES = {"compile_net": "lanewise.native.compile", "Program": "lanewise.native.program"}
__all__ = ["Program", "compile_net"]


def __getattr__(name: str) -> Any:
    """Load the engine only when it is asked for: importing a sub-module stays cheap."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
