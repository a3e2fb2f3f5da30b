"""One image's values moved: from the caller's memory, between the forms of a value, and back.

A *plane* form is [C][H][W]; a *blocked* one [C/16][H·W][16], with the channels in the lanes and
zeros in the lanes of channels that do not exist; *copies* are [C][H·W][16] with one value in all
lanes, for kernels that have images in the lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from lanewise.native.kernels.functions import number, rectified
from lanewise.native.kernels.lanes import pieces, spread
from lanewise.native.nest import (
    LANES,
    Buffer,
    Constant,
    Index,
    Kernel,
    Read,
    Value,
    Var,
    as_index,
    op,
)
from lanewise.native.writer import Writer

#: for each channel of a result: (number of the source, its channel), or None for zeros
Origins: TypeAlias = tuple[tuple[int, int] | None, ...]


def vectors_of(channels: int) -> int:
    """Vectors that so many channels fill; the last may be part empty."""
    return -(-channels // LANES)


def load_image(name: str, channels: int, pixels: int, dtype: str) -> Kernel:
    """Buffers image, scale, shift, faults, target: planes. uint8 pixels become x · scale[c] +
    shift[c]; float32 pixels are copied as they are (scale and shift are not read).

    `faults` becomes 0, or NaN in some lane where a pixel is infinite or NaN.
    """
    source = Buffer("image", (channels, pixels), dtype, align=1 if dtype == "u8" else 4)
    scale, shift = (Buffer(n, (channels,), align=4) for n in ("scale", "shift"))
    faults = Buffer("faults", (LANES,), access="write")
    target = Buffer("target", (channels, pixels), access="write", align=4 if pixels % 16 else 64)
    writer = Writer(name, [source, scale, shift, faults, target])
    (found,) = writer.accumulators("fault", 1)
    with writer.loop("c", channels) as c:
        for piece in pieces(pixels):
            with writer.loop("i", piece.count) as i:
                at = as_index(i) * piece.lanes + piece.start
                value: Value = writer.load(source, c, at, lanes=piece.lanes)
                if dtype == "u8":
                    times, plus = (writer.load(b, c, lanes=1) for b in (scale, shift))
                    whole = op("tofloat", op("widen", value))
                    value = op("fma", whole, spread(times, piece.lanes), spread(plus, piece.lanes))
                else:
                    value = writer.let(value)
                    writer.assign(found, op("add", Read(found), _nothing(writer, value)))
                writer.store(target, c, at, value=value)
    writer.store(faults, 0, value=Read(found))
    return writer.finish()


def _nothing(writer: Writer, value: Value) -> Value:
    """0 · value in sixteen lanes: NaN where the value is not finite."""
    lanes = value.lanes
    none = op("mul", value, Constant(0.0, "f32", lanes))
    return none if lanes == LANES else op("splat", op("lanesum", none) if lanes > 1 else none)


def to_blocks(name: str, channels: int, rows: int, columns: int, pitch: int) -> Kernel:
    """Buffers source (planes whose rows have `pitch` places), target (blocked)."""
    source = Buffer("source", (channels, rows, pitch), align=4)
    shape = (vectors_of(channels), rows, columns, LANES)
    target = Buffer("target", shape, access="write")
    writer = Writer(name, [source, target])
    for (first, stop), lanes in _whole_and_rest(channels):
        with (
            writer.loop("b", stop, first) as b,
            writer.loop("p", rows) as p,
            writer.loop("q", columns) as q,
        ):
            for lane in range(LANES):
                value = number_of_one(0.0)
                if lane < lanes:
                    value = writer.load(source, as_index(b) * LANES + lane, p, q, lanes=1)
                writer.store(target, b, p, q, lane, value=value)
    return writer.finish()


def _each_lane(
    writer: Writer, channels: int, pixels: int, value: Callable[[Index, Var, int], Value]
) -> None:
    """target[block][pixel][lane] = value(channel, pixel, lane), zeros where there is none."""
    target = writer.buffers[-1]
    for block, lanes in _whole_and_rest(channels):
        with writer.loop("b", block[1], block[0]) as b, writer.loop("i", pixels) as i:
            for lane in range(LANES):
                at = as_index(b) * LANES + lane
                moved = value(at, i, lane) if lane < lanes else number_of_one(0.0)
                writer.store(target, b, i, lane, value=moved)


def number_of_one(value: float) -> Value:
    """A single number."""
    return Constant(value, "f32", 1)


def _whole_and_rest(channels: int) -> list[tuple[tuple[int, int], int]]:
    """Blocks from … to, and how many lanes of them exist."""
    whole, rest = divmod(channels, LANES)
    found = [((0, whole), LANES)] if whole else []
    return found + ([((whole, whole + 1), rest)] if rest else [])


def to_features(name: str, channels: int, pixels: int) -> Kernel:
    """Buffers source (blocked), target (one row in the order channel, pixel; a multiple of 16, with
    zeros at the end): the blocked form of a flattened value."""
    features = channels * pixels
    source = Buffer("source", (vectors_of(channels), pixels, LANES))
    target = Buffer("target", (vectors_of(features) * LANES,), access="write")
    writer = Writer(name, [source, target])
    _each_feature(writer, source, target, channels, pixels)
    for at in range(features, vectors_of(features) * LANES):
        writer.store(target, at, value=number_of_one(0.0))
    return writer.finish()


def to_row(name: str, channels: int, pixels: int) -> Kernel:
    """Buffers source (blocked), target (channels · pixels numbers of the caller)."""
    source = Buffer("source", (vectors_of(channels), pixels, LANES))
    target = Buffer("target", (channels * pixels,), access="write", align=4)
    writer = Writer(name, [source, target])
    if pixels == 1:
        for piece in pieces(channels):
            with writer.loop("i", piece.count) as i:
                at = as_index(i) * piece.lanes + piece.start
                flat = as_index(i) * (piece.lanes // LANES) + piece.start // LANES
                value = writer.load(source, flat, 0, piece.start % LANES, lanes=piece.lanes)
                writer.store(target, at, value=value)
    else:
        _each_feature(writer, source, target, channels, pixels)
    return writer.finish()


def _each_feature(
    writer: Writer, source: Buffer, target: Buffer, channels: int, pixels: int
) -> None:
    for (first, stop), lanes in _whole_and_rest(channels):
        with writer.loop("b", stop, first) as b, writer.loop("i", pixels) as i:
            for lane in range(lanes):
                at = as_index(b) * (LANES * pixels) + i + lane * pixels
                writer.store(target, at, value=writer.load(source, b, i, lane, lanes=1))


def to_copies(name: str, channels: int, pixels: int) -> Kernel:
    """Buffers source (blocked), target (copies)."""
    source = Buffer("source", (vectors_of(channels), pixels, LANES))
    target = Buffer("target", (channels, pixels, LANES), access="write")
    writer = Writer(name, [source, target])
    for (first, stop), lanes in _whole_and_rest(channels):
        with (
            writer.loop("b", stop, first) as b,
            writer.loop("l", lanes) as lane,
            writer.loop("i", pixels) as i,
        ):
            value = writer.splat(source, b, i, lane)
            writer.store(target, as_index(b) * LANES + lane, i, 0, value=value)
    return writer.finish()


def from_copies(name: str, channels: int, pixels: int) -> Kernel:
    """Buffers source (copies), target (blocked): lane 0 of every value."""
    source = Buffer("source", (channels, pixels, LANES))
    target = Buffer("target", (vectors_of(channels), pixels, LANES), access="write")
    writer = Writer(name, [source, target])
    _each_lane(writer, channels, pixels, lambda c, i, lane: writer.load(source, c, i, 0, lanes=1))
    return writer.finish()


def move_channels(name: str, origins: Origins, sources: Sequence[int], pixels: int) -> Kernel:
    """Buffers source0 …, target, all blocked: channels as `origins` tells. `sources`: channels of
    each source. Vectors that stay together are moved whole."""
    inputs = [
        Buffer(f"source{n}", (vectors_of(channels), pixels, LANES))
        for n, channels in enumerate(sources)
    ]
    target = Buffer("target", (vectors_of(len(origins)), pixels, LANES), access="write")
    writer = Writer(name, [*inputs, target])
    padded = (*origins, *(None,) * (-len(origins) % LANES))
    for block in range(vectors_of(len(origins))):
        lanes = padded[block * LANES : (block + 1) * LANES]
        with writer.loop("i", pixels) as i:
            _move_vector(writer, inputs, target, block, lanes, i)
    return writer.finish()


def _move_vector(
    writer: Writer,
    inputs: Sequence[Buffer],
    target: Buffer,
    block: int,
    lanes: Sequence[tuple[int, int] | None],
    i: Var,
) -> None:
    first = lanes[0]
    if first is not None and first[1] % LANES == 0:
        wanted = [(first[0], first[1] + lane) for lane in range(LANES)]
        if list(lanes) == wanted:
            value = writer.load(inputs[first[0]], first[1] // LANES, i, 0)
            writer.store(target, block, i, 0, value=value)
            return
    if not any(lanes):
        writer.store(target, block, i, 0, value=number(0.0))
        return
    for lane, origin in enumerate(lanes):
        moved = number_of_one(0.0)
        if origin is not None:
            source, channel = origin
            at = (channel // LANES, i, channel % LANES)
            moved = writer.load(inputs[source], *at, lanes=1)
        writer.store(target, block, i, lane, value=moved)


def scale_and_shift(name: str, vectors: int, pixels: int, *, relu: bool) -> Kernel:
    """Buffers source (blocked), scale, shift (a number a channel), target."""
    shape = (vectors, pixels, LANES)
    source, target = Buffer("source", shape), Buffer("target", shape, access="write")
    scale, shift = (Buffer(n, (vectors, LANES)) for n in ("scale", "shift"))
    writer = Writer(name, [source, scale, shift, target])
    with writer.loop("v", vectors) as v:
        times, plus = (writer.let(writer.load(b, v, 0)) for b in (scale, shift))
        with writer.loop("i", pixels) as i:
            value = op("fma", writer.load(source, v, i, 0), times, plus)
            writer.store(target, v, i, 0, value=rectified(value) if relu else value)
    return writer.finish()
