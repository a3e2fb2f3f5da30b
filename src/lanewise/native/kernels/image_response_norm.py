"""Local response normalisation of one image, with its channels in the lanes.

A channel's neighbours stand in other lanes, and in other vectors. So the squares of a pixel are
first written to a row, all channels one after the other with zeros around them; the same lanes of
the row, begun one place further, are the next neighbours of all sixteen.
"""

from __future__ import annotations

from dataclasses import dataclass

from lanewise.native.kernels.functions import number
from lanewise.native.kernels.image_moves import vectors_of
from lanewise.native.kernels.register_tiles import blocks
from lanewise.native.kernels.response_norm import Neighbours, factor, pixel_tiles
from lanewise.native.nest import LANES, Buffer, Index, Kernel, Read, Register, as_index, op
from lanewise.native.writer import Writer

#: neighbours whose loads are written out
TOGETHER = 8


@dataclass(frozen=True)
class Row:
    """The squares of a pixel, `before` zeros in front of the first channel."""

    sizes: Neighbours

    @property
    def before(self) -> int:
        return vectors_of(self.sizes.size // 2) * LANES

    @property
    def behind(self) -> int:
        """Where the zeros behind the last channel begin."""
        return self.before + self.sizes.channels

    @property
    def length(self) -> int:
        """In whole vectors; the zeros are one at least, for the last vector's other lanes."""
        after = (self.sizes.size - 1) // 2 + LANES
        return vectors_of(self.behind + after) * LANES


def response_norm(name: str, sizes: Neighbours, wide: int, count: int) -> Kernel:
    """Buffers source, room (a row for each of `wide` pixels, a thread's own), target, maps blocked:
    the first `count` pixels, `wide` a tile."""
    row, shape = Row(sizes), (vectors_of(sizes.channels), sizes.pixels, LANES)
    source, target = Buffer("source", shape), Buffer("target", shape, access="update")
    room = Buffer("room", (wide, row.length), access="update")
    writer = Writer(name, [source, room, target])
    _zeros(writer, room, row, wide)
    for places in pixel_tiles(writer, count, wide):
        _squares(writer, row, source, room, places)
        with writer.loop("v", shape[0]) as v:
            begin = as_index(v) * LANES + (row.before - sizes.size // 2)
            sums = _sums(writer, sizes.size, room, begin, len(places))
            for at, cell in zip(places, sums, strict=True):
                value = op("mul", writer.load(source, v, at, 0), factor(writer, sizes, cell))
                writer.store(target, v, at, 0, value=value)
    return writer.finish()


def _zeros(writer: Writer, room: Buffer, row: Row, wide: int) -> None:
    """Around the channels of every row."""
    for first, stop in ((0, row.before), (row.behind, row.length)):
        # the last vector may begin within the one before: it ends where it must
        starts = {*range(first, stop - LANES, LANES), stop - LANES} if stop > first else set()
        with writer.loop("k", wide) as k:
            for at in sorted(starts):
                writer.store(room, k, at, value=number(0.0))


def _squares(writer: Writer, row: Row, source: Buffer, room: Buffer, places: list[Index]) -> None:
    """A row of each pixel. Lanes without a channel may hold anything: zeros are written over."""
    channels = row.sizes.channels
    with writer.loop("v", vectors_of(channels)) as v:
        for k, at in enumerate(places):
            x = writer.let(writer.load(source, v, at, 0), "x")
            writer.store(room, k, as_index(v) * LANES + row.before, value=op("mul", x, x))
    if channels % LANES:
        for k in range(len(places)):
            writer.store(room, k, row.behind, value=number(0.0))


def _sums(writer: Writer, size: int, room: Buffer, begin: Index, wide: int) -> list[Register]:
    """Σ x² over the neighbours of sixteen channels, for every pixel of a tile."""
    cells = writer.accumulators("sum", wide)
    for first, together, turns in blocks(size, TOGETHER):
        with writer.loop("o", first + together * turns, first, together) as o:
            for j in range(together):
                for k, cell in enumerate(cells):
                    square = writer.load(room, k, begin + o + j)
                    writer.assign(cell, op("add", Read(cell), square))
    return cells
