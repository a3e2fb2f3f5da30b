"""Kernels and driver → modules of LLVM IR, checked on the way and shown where LANEWISE_DEBUG asks.

The kernels are dealt out to modules of like size, so that cores can compile them side by side.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lanewise import flags
from lanewise.native.lower import LoweredKernel, lower
from lanewise.native.nest import Kernel

MODULES = 4  # enough for cores to share, few enough to load in a millisecond each


def modules(kernels: Sequence[Kernel], driver: Sequence[str]) -> list[str]:
    """Textual modules: the kernels dealt out, and the driver in the smallest."""
    lowered = {kernel.name: _lowered(kernel) for kernel in kernels}
    bins: list[list[str]] = [[] for _ in range(min(MODULES, max(1, len(kernels))))]
    sizes = [0] * len(bins)
    for name, one in sorted(lowered.items(), key=lambda item: -len(item[1].function)):
        smallest = sizes.index(min(sizes))
        bins[smallest].append(name)
        sizes[smallest] += len(one.function)
    home = sizes.index(min(sizes))
    texts = []
    for number, names in enumerate(bins):
        own = driver if number == home else ()
        outside = [k for k in kernels if k.name not in names] if number == home else []
        texts.append(_module([lowered[name] for name in names], own, outside))
    return texts


def _lowered(kernel: Kernel) -> LoweredKernel:
    if flags.value("LANEWISE_CHECK"):
        from lanewise.native.nest_check import check

        check(kernel)
    debug = flags.value("LANEWISE_DEBUG")
    if debug >= 3:
        from lanewise.native.nest_show import show

        print(show(kernel), file=sys.stderr)
    one = lower(kernel)
    if debug >= 4:
        print(one.function, file=sys.stderr)
    return one


def _module(
    kernels: Sequence[LoweredKernel], driver: Sequence[str], outside: Sequence[Kernel]
) -> str:
    declarations = sorted({line for one in kernels for line in one.declarations})
    tables = [table for one in kernels for table in one.tables]
    return "\n".join(
        [
            *tables,
            *declarations,
            *(_declaration(kernel) for kernel in outside),
            *(one.function for one in kernels),
            *driver,
        ]
    )


def _declaration(kernel: Kernel) -> str:
    kinds = ["ptr"] * len(kernel.buffers) + ["i64"] * len(kernel.symbols)
    return f"declare void @{kernel.name}({', '.join(kinds)})"
