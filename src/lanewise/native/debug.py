"""What LANEWISE_DEBUG prints on the way from a network to machine code, to standard error.

    1   plan       each direction: its calls in order, on which places; memory
    2   kernels    each kernel once: multiply–adds, operations and bytes of one call
    3   nests      each kernel as pseudo-C
    4   LLVM IR    each kernel as it is handed to LLVM
    5   assembly   each module, with the vector registers that went to the stack
    6   all        the modules whole, with the driver around the kernels

A level prints those below it too. With any of them the cache is not read, so that there is
something to print.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lanewise import flags
from lanewise.native.plan import Choice, Region

if TYPE_CHECKING:
    from lanewise.native.lower import LoweredKernel
    from lanewise.native.machine_code import Module
    from lanewise.native.nest import Kernel
    from lanewise.native.plan import Call, Place, Plan
    from lanewise.native.target import Target

PLAN, KERNELS, NESTS, IR, ASSEMBLY, ALL = range(1, 7)


def wanted(level: int) -> bool:
    """Whether LANEWISE_DEBUG asks for this level."""
    return flags.value("LANEWISE_DEBUG") >= level


def plans(directions: Mapping[str, Plan]) -> None:
    """Level 1: what is called on what, and how much memory it takes."""
    if wanted(PLAN):
        for name, plan in directions.items():
            _tell(_plan(name, plan))


def kernels(all_kernels: Sequence[Kernel]) -> None:
    """Level 2: what one call of each kernel costs."""
    if wanted(KERNELS):
        from lanewise.size.table import aligned

        rows = [("kernel", "multiply–adds", "other", "loads", "stores")]
        rows += [_costs(kernel) for kernel in all_kernels]
        _tell(aligned(rows, (False, True, True, True, True)))


def kernel(nest: Kernel, lowered: LoweredKernel) -> None:
    """Levels 3 and 4: one kernel as a loop nest and as LLVM IR."""
    if wanted(NESTS):
        from lanewise.native.nest_show import show

        _tell([show(nest)])
    if wanted(IR):
        _tell([lowered.function])


def module(one: Module, target: Target) -> Module:
    """Levels 5 and 6: the assembler text of a module, and its whole LLVM IR; gives it back."""
    if wanted(ALL):
        _tell([one.text])
    if wanted(ASSEMBLY):
        from lanewise.native.machine_code import assembly, count_spills

        code = assembly(one.text, target, one.quick)
        spills = {name: count for name, count in count_spills(code, target).items() if count}
        _tell([code, f"vector registers on the stack: {spills or 'none'}"])
    return one


def _tell(lines: Sequence[str]) -> None:
    print(*lines, sep="\n", end="\n\n", file=sys.stderr)


def _plan(name: str, plan: Plan) -> list[str]:
    from lanewise.size.table import aligned, show_bytes

    own = show_bytes(plan.kept_bytes)
    kept = f", {own} kept for each slice of the batch" * bool(plan.kept_bytes)
    rows = [("for", "kernel", "on")]
    for call in plan.calls:
        on = ", ".join(_place(place) for place in call.places)
        rows.append((call.purpose, _kernel_names(call), on))
    for job in plan.jobs:
        on = ", ".join(_place(place) for place in job.places)
        rows.append((f"job × {job.blocks}", job.kernel.name, f"{on} → {job.parameter.name}"))
    head = f"plan {name}: {len(plan.calls)} calls, {show_bytes(plan.arena.size)} a worker{kept}"
    return [head, *aligned(rows, (False, False, False))]


def _kernel_names(call: Call) -> str:
    """`linear_forward_6 (or 7, 8)`: for the most slices at once, and for fewer."""
    first, *others = (_kernel_name(kernel) for kernel in call.kernels.values())
    if not others:
        return first
    numbers = ", ".join(name.rpartition("_")[2] for name in others)
    return f"{first} (or {numbers})"


def _kernel_name(kernel: Kernel | Choice) -> str:
    if isinstance(kernel, Choice):
        return f"{kernel.one.name} or {kernel.zero.name}"
    return kernel.name


def _place(place: Place) -> str:
    return (
        f"{place.name}+{place.offset}" if isinstance(place, Region) and place.offset else place.name
    )


def _costs(nest: Kernel) -> tuple[str, str, str, str, str]:
    """Of one call; a number of slices or blocks that only the run knows counts as one."""
    from lanewise.native.nest_count import count
    from lanewise.size.table import show_bytes

    counts = count(nest, {symbol.name: 1 for symbol in nest.symbols})
    loads, stores = (show_bytes(sum(each.values())) for each in (counts.loaded, counts.stored))
    return nest.name, f"{counts.multiply_adds:,}", f"{counts.arithmetic:,}", loads, stores
