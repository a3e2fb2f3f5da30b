"""THE ENGINE: a network becomes machine code for the CPU at hand.

A graph passes through this room in one direction, and the files are its stations:

    compile.py        the table of contents: graph → program
    directions.py     forward alone, and forward with loss and backward, as plans
    fuse.py           graph → operations (rectifiers and normalisations joined to their producers)
    rules/            what a layer asks of the plan: places, and calls of its kernels
    kernels/          sizes → loop nests, forward and gradients as neighbours
    tiles.py          which register tile a nest gets;  ways.py  the loops around it
    target.py         knows the CPU
    planner.py        operations → plan.py, phases of calls, with kernels from shelf.py
    chains.py         few channels at a time
    precision.py      the plan's maps as bf16, where that is asked for
    sharing.py        who stands in whose place;  lifetimes.py, memory.py  all places in one arena
    nest.py           the loop-nest language; nest_*.py show, check, count and run it
    emit.py           everything → modules of LLVM IR, through
        lower.py          loop nest → function;  lower_*.py  its values, places and words
        driver.py         plan → functions of segments and chunks;  driver_jobs.py  of jobs
        driver_loops.py   what no net changes: steps, tickets;  driver_threads.py  barriers, waiting
    machine_code.py   LLVM IR → machine code;  cache.py  keeps it on disk
    program.py        what the user holds;  facts.py  what it is told of the net
    initial.py        what parameters begin with
    given.py          callers' arrays, made usable or refused
    latency/          the other way: one image, with channels in the lanes
    workers.py        the program's threads, which stay in native code
    optimizers.py     the optimizers by name;  debug.py  for looking inside
    profile.py        where the time goes;  profile_rounds.py, peak.py  measure it

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
