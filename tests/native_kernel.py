"""Check one kernel, compile it, run it, and hold it against the interpreter."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lanewise.native.lower import lower
from lanewise.native.machine_code import Library, compile_ir
from lanewise.native.nest import SHARE, Kernel, Symbol
from lanewise.native.nest_check import check
from lanewise.native.nest_run import run
from lanewise.native.target import find_target

DTYPES = {"f32": np.float32, "bf16": np.uint16, "i32": np.int32, "u8": np.uint8, "i64": np.int64}


def ir_of(kernel: Kernel) -> str:
    """One kernel as a module whose function can be called from outside."""
    lowered = lower(kernel)
    function = lowered.function.replace("define internal", "define", 1)
    return "\n".join([*lowered.tables, *sorted(lowered.declarations), function])


def compile_kernel(kernel: Kernel) -> Callable[..., None]:
    """The kernel as a function of its arrays, then its symbols (integers); where threads may share
    it, `share` of that takes thread and threads, too."""
    library = Library.load(compile_ir(ir_of(kernel), find_target("host")))
    kinds = [ctypes.c_void_p] * len(kernel.buffers) + [ctypes.c_int64] * len(kernel.symbols)
    alone = ctypes.CFUNCTYPE(None, *kinds)(library.address(kernel.name))

    def caller(function: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: np.ndarray | int) -> None:
            arrays = arguments[: len(kernel.buffers)]
            for buffer, array in zip(kernel.buffers, arrays, strict=True):
                assert array.dtype == DTYPES[buffer.dtype], buffer.name
                ready = array.flags.c_contiguous and array.ctypes.data % buffer.align == 0
                assert ready, buffer.name
            function(*[a.ctypes.data for a in arrays], *arguments[len(kernel.buffers) :])

        return call

    call = caller(alone)
    if kernel.shares:
        shared = [*kinds, ctypes.c_int64, ctypes.c_int64]
        both = ctypes.CFUNCTYPE(None, *shared)(library.address(kernel.name + SHARE))
        call.share = caller(both)  # type: ignore[attr-defined]
    call.library = library  # type: ignore[attr-defined]  # the code lives as long as the function
    return call


def execute(kernel: Kernel, *arguments: np.ndarray | int, interpret: bool = True) -> None:
    """Prove the kernel, run it natively, and hold every array it wrote against the interpreter.

    The interpreter's arrays have exactly the shapes that the kernel declares, so a read or write
    beyond one is an error there. `interpret=False` where that would take seconds.
    """
    values = [int(a) for a in arguments[len(kernel.buffers) :]]
    symbols = {s.name: value for s, value in zip(kernel.symbols, values, strict=True)}
    check(kernel, symbols)
    arrays = dict(zip([b.name for b in kernel.buffers], arguments, strict=False))
    before = {name: array.copy() for name, array in arrays.items()}
    compiled = compile_kernel(kernel)
    if kernel.shares:
        _in_shares(kernel, compiled, arguments)
    compiled(*arguments)
    if not interpret:
        return
    for buffer in kernel.buffers:
        sizes = [symbols[s.name] if isinstance(s, Symbol) else s for s in buffer.shape]
        before[buffer.name] = before[buffer.name].reshape(sizes)
    run(kernel, before, symbols)
    for name, array in before.items():
        native = arrays[name].reshape(array.shape)
        np.testing.assert_allclose(native, array, rtol=1e-5, atol=1e-6, err_msg=name)


def _in_shares(kernel: Kernel, compiled: Callable[..., None], arguments: Sequence[Any]) -> None:
    """What three threads make of a kernel is what one makes, in every bit."""
    whole, shared = ([placed_as(a) for a in arguments] for _ in range(2))
    compiled(*whole)
    for thread in range(3):
        compiled.share(*shared, thread, 3)  # type: ignore[attr-defined]
    for buffer, one, other in zip(kernel.buffers, whole, shared, strict=False):
        if not buffer.own:
            assert one.tobytes() == other.tobytes(), f"{kernel.name}: shares of {buffer.name}"


def placed_as(argument: np.ndarray | int) -> np.ndarray | int:
    """A copy on a 64-byte address; a number is itself."""
    return argument if isinstance(argument, int) else placed(argument, argument.dtype)


def aligned(shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    """An array of a strange number (so that what is not written shows), on a 64-byte address."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    array = raw[start : start + size].view(dtype).reshape(shape)
    array[...] = 77
    return array


def placed(values: np.ndarray, dtype: type = np.float32) -> np.ndarray:
    """A copy of the values on a 64-byte address."""
    array = aligned(np.shape(values), dtype)
    array[...] = values
    return array
