"""Radial basis functions with fixed codes of ±1, the last layer of LeNet-5 (1998).

    y[o]  = −Σ_i (x[i] − code[o,i])²
    dx[i] = −2 · Σ_o dy[o] · (x[i] − code[o,i])

The codes are a constant table of the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

from lanewise.native.kernels.functions import is_positive, keep_where, number
from lanewise.native.kernels.register_tiles import add_product, blocks
from lanewise.native.nest import LANES, Buffer, Index, Kernel, Read, Value, as_index, op
from lanewise.native.writer import Writer

Codes = Sequence[Sequence[float]]  # [output][input]


def _table(codes: Codes) -> Buffer:
    data = tuple(float(value) for code in codes for value in code)
    return Buffer("code", (len(data),), data=data)


def radial(name: str, codes: Codes, *, maps: int) -> Kernel:
    """Buffers source (inputs, 16), target (outputs, 16). `maps`: outputs of a register tile."""
    outputs, inputs = len(codes), len(codes[0])
    source = Buffer("source", (inputs, LANES))
    target = Buffer("target", (outputs, LANES), access="write")
    code = _table(codes)
    writer = Writer(name, [source, target])
    for first, count, times in blocks(outputs, min(maps, outputs)):
        with writer.loop("o", first + count * times, first, count) as o:
            cells = writer.accumulators("y", count)
            with writer.loop("i", inputs) as i:
                x = writer.let(writer.load(source, i, 0), "x")
                for k, cell in enumerate(cells):
                    at = (as_index(o) + k) * inputs + i
                    distance = writer.let(op("sub", x, writer.splat(code, at)), "d")
                    add_product(writer, cell, distance, distance)
            for k, cell in enumerate(cells):
                writer.store(target, as_index(o) + k, 0, value=op("neg", Read(cell)))
    return writer.finish()


def radial_gradient(name: str, codes: Codes, *, maps: int, mask: bool) -> Kernel:
    """Buffers gradient (outputs, 16), source (inputs, 16), target (inputs, 16). `maps`: inputs of a
    register tile; `mask` sets to zero where the source is not positive."""
    outputs, inputs = len(codes), len(codes[0])
    gradient = Buffer("gradient", (outputs, LANES))
    source = Buffer("source", (inputs, LANES))
    target = Buffer("target", (inputs, LANES), access="write")
    code = _table(codes)
    writer = Writer(name, [gradient, source, target])

    def finish(at: Index, x: Value, total: Value) -> None:
        result: Value = op("mul", total, number(-2.0))
        writer.store(target, at, 0, value=keep_where(is_positive(x), result) if mask else result)

    for first, count, times in blocks(inputs, min(maps, inputs)):
        with writer.loop("i", first + count * times, first, count) as i:
            places = [as_index(i) + k for k in range(count)]
            x = [writer.let(writer.load(source, at, 0), "x") for at in places]
            cells = writer.accumulators("dx", count)
            with writer.loop("o", outputs) as o:
                dy = writer.let(writer.load(gradient, o, 0), "dy")
                for at, here, cell in zip(places, x, cells, strict=True):
                    mean = writer.splat(code, as_index(o) * inputs + at)
                    add_product(writer, cell, dy, op("sub", here, mean))
            for at, here, cell in zip(places, x, cells, strict=True):
                finish(at, here, Read(cell))
    return writer.finish()
