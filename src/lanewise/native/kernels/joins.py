"""Where branches of a network meet: sums forward, and what passes gradients on.

All of them work value by value on flat memory: a part of a concatenation is a range of elements.
"""

from __future__ import annotations

from collections.abc import Callable

from lanewise.native.kernels.functions import is_positive, keep_where, number, rectified
from lanewise.native.kernels.register_tiles import blocks
from lanewise.native.nest import LANES, Buffer, Index, Kernel, Value, as_index, op
from lanewise.native.writer import Writer

UNROLLED = 4  # vectors a turn


def add(name: str, elements: int, summands: int, *, relu: bool = False) -> Kernel:
    """Buffers source0 … , target: their sum, from left to right."""
    sources = [Buffer(f"source{i}", (elements, LANES)) for i in range(summands)]
    target = Buffer("target", (elements, LANES), access="write")
    writer = Writer(name, [*sources, target])

    def total(at: Index) -> Value:
        result: Value = writer.load(sources[0], at, 0)
        for source in sources[1:]:
            result = op("add", result, writer.load(source, at, 0))
        return rectified(result) if relu else result

    _each(writer, elements, target, total)
    return writer.finish()


def clear(name: str, elements: int) -> Kernel:
    """Buffer target: zeros."""
    target = Buffer("target", (elements, LANES), access="write")
    writer = Writer(name, [target])
    _each(writer, elements, target, lambda at: number(0.0))
    return writer.finish()


def copy(name: str, elements: int, *, mask: bool = False) -> Kernel:
    """Buffers source, [value], target. `mask` sets to zero where `value` is not positive."""
    source, value = Buffer("source", (elements, LANES)), Buffer("value", (elements, LANES))
    target = Buffer("target", (elements, LANES), access="write")
    writer = Writer(name, [source, *[value] * mask, target])
    _each(
        writer,
        elements,
        target,
        lambda at: _masked(writer, value if mask else None, at, writer.load(source, at, 0)),
    )
    return writer.finish()


def add_to(name: str, elements: int, *, mask: bool = False) -> Kernel:
    """Buffers source, [value], target: target += source; `mask` is applied to the sum."""
    source, value = Buffer("source", (elements, LANES)), Buffer("value", (elements, LANES))
    target = Buffer("target", (elements, LANES), access="update")
    writer = Writer(name, [source, *[value] * mask, target])

    def total(at: Index) -> Value:
        result = op("add", writer.load(target, at, 0), writer.load(source, at, 0))
        return _masked(writer, value if mask else None, at, result)

    _each(writer, elements, target, total)
    return writer.finish()


def mask(name: str, elements: int) -> Kernel:
    """Buffers value, target: target becomes zero where `value` is not positive."""
    value = Buffer("value", (elements, LANES))
    target = Buffer("target", (elements, LANES), access="update")
    writer = Writer(name, [value, target])
    _each(
        writer,
        elements,
        target,
        lambda at: _masked(writer, value, at, writer.load(target, at, 0)),
    )
    return writer.finish()


def _masked(writer: Writer, value: Buffer | None, at: Index, result: Value) -> Value:
    if value is None:
        return result
    return keep_where(is_positive(writer.load(value, at, 0)), result)


def _each(writer: Writer, elements: int, target: Buffer, result: Callable[[Index], Value]) -> None:
    for first, count, times in blocks(elements, UNROLLED):
        with writer.loop("i", first + count * times, first, count, shared=True) as i:
            for offset in range(count):
                at = as_index(i) + offset
                writer.store(target, at, 0, value=result(at))
