"""Whole channels moved: shuffled, split off, padded with zeros; forward and gradients are alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from lanewise.native.kernels.functions import is_positive, keep_where, number
from lanewise.native.kernels.register_tiles import blocks
from lanewise.native.nest import (
    LANES,
    Buffer,
    Entry,
    Index,
    Kernel,
    Value,
    Var,
    as_index,
    op,
    table,
)
from lanewise.native.writer import Writer

UNROLLED = 4  # vectors a turn

Origins = tuple[int | None, ...]  # [destination channel]: source channel, or None for zeros


def shuffled(channels: int, groups: int) -> Origins:
    """Channels as a groups × (channels/groups) table, read column by column."""
    each = channels // groups
    return tuple(group * each + i for i in range(each) for group in range(groups))


def split(channels: int, part: int, of: int) -> Origins:
    """One of `of` equal parts, counted from 1."""
    each = channels // of
    return tuple(range((part - 1) * each, part * each))


def padded(channels: int, before: int, after: int) -> Origins:
    """Zeros, all channels, zeros."""
    return (None,) * before + tuple(range(channels)) + (None,) * after


def backward(origins: Origins, sources: int) -> Origins:
    """Where the gradient of each source channel comes from (each is read once at most)."""
    place = {origin: i for i, origin in enumerate(origins) if origin is not None}
    return tuple(place.get(channel) for channel in range(sources))


def copy_channels(
    name: str, origins: Origins, sources: int, pixels: int, *, mask: bool = False
) -> Kernel:
    """Buffers source (sources, pixels, 16), [value], target (len(origins), pixels, 16)."""
    shape = (len(origins), pixels, LANES)
    source = Buffer("source", (sources, pixels, LANES))
    value, target = Buffer("value", shape), Buffer("target", shape, access="write")
    writer = Writer(name, [source, *[value] * mask, target])
    for start, part in _runs(origins):
        with writer.loop("c", start + len(part), start) as c:
            origin = None if part[0] is None else _origin(part, start, c)
            for i in _pixels(writer, pixels):
                moved: Value = number(0.0)
                if origin is not None:
                    moved = writer.load(source, origin, i, 0)
                if mask and origin is not None:
                    moved = keep_where(is_positive(writer.load(value, c, i, 0)), moved)
                writer.store(target, c, i, 0, value=moved)
    return writer.finish()


def add_channels(name: str, origins: Origins, sources: int, pixels: int) -> Kernel:
    """Buffers source, target: target += source, on those channels that have an origin."""
    source = Buffer("source", (sources, pixels, LANES))
    target = Buffer("target", (len(origins), pixels, LANES), access="update")
    writer = Writer(name, [source, target])
    for start, part in _runs(origins):
        if part[0] is None:
            continue
        with writer.loop("c", start + len(part), start) as c:
            origin = _origin(part, start, c)
            for i in _pixels(writer, pixels):
                moved = writer.load(source, origin, i, 0)
                result = op("add", writer.load(target, c, i, 0), moved)
                writer.store(target, c, i, 0, value=result)
    return writer.finish()


def _runs(origins: Origins) -> Iterator[tuple[int, list[int | None]]]:
    """Neighbouring channels that have an origin, or have none: (the first, their origins)."""
    start = 0
    for _, run in groupby(origins, key=lambda origin: origin is None):
        part = list(run)
        yield start, part
        start += len(part)


def _origin(part: Sequence[int | None], start: int, c: Var) -> Index:
    """The source of destination channel c: a shift where channels stay in their order."""
    known = [origin for origin in part if origin is not None]
    if known == list(range(known[0], known[0] + len(known))):
        return as_index(c) + (known[0] - start)
    return as_index(Entry(table("origin", known), as_index(c) + -start))


def _pixels(writer: Writer, pixels: int) -> Iterator[Index]:
    for first, count, times in blocks(pixels, UNROLLED):
        with writer.loop("i", first + count * times, first, count) as i:
            for offset in range(count):
                yield as_index(i) + offset
