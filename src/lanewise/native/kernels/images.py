"""Between rows and lanes: 16 images of the data set ↔ vectors that hold one pixel of each.

In memory outside, an image is a row of C·H·W numbers; inside, a lane. Sixteen rows of sixteen
pixels are loaded, transposed in registers, and are then sixteen vectors of one pixel each.
"""

from __future__ import annotations

from collections.abc import Iterator

from lanewise.native.kernels.functions import number
from lanewise.native.kernels.lanes import Piece, pieces, spread
from lanewise.native.nest import LANES, Buffer, Entry, Index, Kernel, Symbol, Value, as_index, op
from lanewise.native.writer import Writer


def gather(name: str, channels: int, height: int, width: int, dtype: str) -> Kernel:
    """Buffers images (a row each), lane_index (i64), scale, shift, target; symbol count.

    Lane l gets the image of row lane_index[l]. uint8 pixels become x · scale[c] + shift[c];
    float32 pixels are copied as they are (scale and shift are not read).
    """
    count, pixels = Symbol("count"), height * width
    source = Buffer("images", (count, channels * pixels), dtype, align=1 if dtype == "u8" else 4)
    lane_index = Buffer("lane_index", (LANES,), "i64", below=count)
    scale, shift = (Buffer(n, (channels,), align=4) for n in ("scale", "shift"))
    target = Buffer("target", (channels * pixels, LANES), access="write")
    writer = Writer(name, [source, lane_index, scale, shift, target], [count])
    rows = [Entry(lane_index, as_index(lane)) for lane in range(LANES)]
    with writer.loop("c", channels) as c:
        for piece, at in _vectors(writer, pixels, shared=True):
            at = at + as_index(c) * pixels

            def finish(value: Value) -> Value:
                if dtype != "u8":
                    return value
                lanes = value.lanes
                times, plus = (writer.load(b, c, lanes=1) for b in (scale, shift))
                whole = op("tofloat", op("widen", value))
                return op("fma", whole, spread(times, lanes), spread(plus, lanes))

            def row(lane: int, at: Index = at, piece: Piece = piece) -> Value:
                return writer.load(source, rows[lane], at, lanes=piece.lanes)

            for first in range(0, LANES, piece.lanes):
                block = writer.transpose([row(first + k) for k in range(piece.lanes)])
                for k, value in enumerate(block):
                    writer.store(target, at + k, first, value=finish(value))
    return writer.finish()


def scatter(name: str, elements: int) -> Kernel:
    """Buffers source (elements, 16), target (16, elements): lanes become rows."""
    source = Buffer("source", (elements, LANES))
    align = 64 if elements % LANES == 0 else 4
    target = Buffer("target", (LANES, elements), access="write", align=align)
    writer = Writer(name, [source, target])
    for piece, at in _vectors(writer, elements, shared=True):
        for first in range(0, LANES, piece.lanes):
            values = [
                writer.load(source, at + k, first, lanes=piece.lanes) for k in range(piece.lanes)
            ]
            for k, value in enumerate(writer.transpose(values)):
                writer.store(target, first + k, at, value=value)
    return writer.finish()


def row_blocks(features: int) -> int:
    """Blocks of 16 features: the last may be part empty."""
    return -(-features // LANES)


def to_rows(name: str, features: int) -> Kernel:
    """Buffers source (features, 16 images), target (blocks, 16 images, 16 features).

    Blocks of 16 × 16 are transposed where they stand, so that a later kernel can have features in
    its lanes; features that do not exist are zeros.
    """
    source = Buffer("source", (features, LANES))
    target = Buffer("target", (row_blocks(features), LANES, LANES), access="write")
    writer = Writer(name, [source, target])
    whole, rest = divmod(features, LANES)

    def block(at: Index, b: Index, count: int) -> None:
        values: list[Value] = [writer.load(source, at + k, 0) for k in range(count)]
        values += [number(0.0)] * (LANES - count)
        for lane, value in enumerate(writer.transpose(values)):
            writer.store(target, b, lane, 0, value=value)

    with writer.loop("b", whole) as b:
        block(as_index(b) * LANES, as_index(b), LANES)
    if rest:
        block(as_index(whole * LANES), as_index(whole), rest)
    return writer.finish()


def _vectors(writer: Writer, size: int, shared: bool) -> Iterator[tuple[Piece, Index]]:
    """Every vector of a row of `size` elements: what kind, and where it starts."""
    for piece in pieces(size):
        with writer.loop("i", piece.count, shared=shared) as i:
            yield piece, as_index(i) * piece.lanes + piece.start
