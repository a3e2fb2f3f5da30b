"""Three kernels of the loop-nest language, and arrays for them."""

from __future__ import annotations

import numpy as np

from lanewise.native import nest_run
from lanewise.native.nest import (
    LANES,
    Buffer,
    Entry,
    Kernel,
    Read,
    Symbol,
    as_index,
    op,
    table,
)
from lanewise.native.writer import Writer

SLICES = Symbol("slices")


def plain_convolution(*, first: int = 0, rows: int = 6, outputs: int = 4) -> Kernel:
    """y[k][p][q] = b[k] + Σ w[k][c][r][s] x[c][p + r][q + s]: 3 maps of 6×6, 4 of 4×4, taps 3×3."""
    x = Buffer("x", (3, rows, 6, LANES))
    w = Buffer("w", (outputs, 3, 3, 3), align=4)
    b = Buffer("b", (outputs,), align=4)
    y = Buffer("y", (outputs, 4, 4, LANES), access="write")
    writer = Writer("plain", [x, w, b, y])
    with (
        writer.loop("k", outputs) as k,
        writer.loop("p", 4, start=first) as p,
        writer.loop("q", 4) as q,
    ):
        acc = writer.register("acc")
        writer.assign(acc, writer.splat(b, k))
        with writer.loop("c", 3) as c, writer.loop("r", 3) as r, writer.loop("s", 3) as s:
            weight = writer.splat(w, k, c, r, s)
            pixel = writer.load(x, c, as_index(p) + r, as_index(q) + s, 0)
            writer.assign(acc, op("fma", pixel, weight, Read(acc)))
        writer.store(y, k, p, q, 0, value=Read(acc))
    return writer.finish()


def padded_rows(*, pad: int = 1) -> Kernel:
    """One column, 5 rows, 3 taps, padding 1: the rows' taps come from two tables."""
    x = Buffer("x", (5, LANES))
    w = Buffer("w", (3,), align=4)
    y = Buffer("y", (5, LANES), access="write")
    begin, end = table("begin", [1, 0, 0, 0, 0]), table("end", [3, 3, 3, 3, 2])
    writer = Writer("padded", [x, w, y])
    with writer.loop("p", 5) as p:
        (acc,) = writer.accumulators("acc", 1)
        stop, start = Entry(end, as_index(p)), Entry(begin, as_index(p))
        with writer.loop("r", stop, start) as r:
            pixel = writer.load(x, as_index(p) + r + -pad, 0)
            writer.assign(acc, op("fma", pixel, writer.splat(w, r), Read(acc)))
        writer.store(y, p, 0, value=Read(acc))
    return writer.finish()


def transposing() -> Kernel:
    """Images side by side: u8 [slices][16 images][32 pixels] → f32 [slices][32 pixels] × 16."""
    source = Buffer("source", (SLICES, LANES, 32), "u8", align=16)
    target = Buffer("target", (SLICES, 32, LANES), access="write")
    writer = Writer("transposing", [source, target], [SLICES])
    with writer.loop("n", SLICES) as n, writer.loop("i", 32, step=LANES) as i:
        rows = [writer.load(source, n, image, i) for image in range(LANES)]
        floats = [op("tofloat", op("widen", row)) for row in rows]
        for j, column in enumerate(writer.transpose(floats)):
            writer.store(target, n, as_index(i) + j, 0, value=column)
    return writer.finish()


def random_arrays(kernel: Kernel, slices: int = 1) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    arrays = {}
    for buffer in kernel.buffers:
        shape = tuple(slices if isinstance(size, Symbol) else size for size in buffer.shape)
        values = generator.uniform(0, 255, shape)
        arrays[buffer.name] = values.astype(nest_run.DTYPES[buffer.dtype])
    return arrays
