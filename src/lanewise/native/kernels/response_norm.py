"""Local response normalisation: every value against its neighbours in other channels.

    d[c]  = constant + alpha / size · Σ x[c']²     over c − ⌊size/2⌋ ≤ c' ≤ c + ⌊(size − 1)/2⌋
    y[c]  = x[c] · d[c]^−beta
    dx[c] = dy[c] · d[c]^−beta − 2 alpha beta / size · x[c] · Σ q[c']     over all c' that see c
    q[c]  = dy[c] · x[c] · d[c]^−(beta + 1)

Channels that do not exist add nothing, and the divisor stays `size` (Krizhevsky 2012 in PyTorch's
form). A tile of neighbouring pixels walks through the channels, so that a channel is still in the
first cache when the next ones ask for it. The powers are e^(−beta · log d).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lanewise.native.kernels.functions import (
    exponential,
    is_positive,
    keep_where,
    logarithm,
    number,
)
from lanewise.native.kernels.register_tiles import blocks
from lanewise.native.nest import (
    LANES,
    Buffer,
    Entry,
    Index,
    Kernel,
    Read,
    Register,
    Value,
    Var,
    as_index,
    op,
    table,
)
from lanewise.native.writer import Writer


@dataclass(frozen=True)
class Neighbours:
    """`size` neighbouring channels are summed; the rest is the layer's arithmetic."""

    channels: int
    pixels: int
    size: int
    alpha: float
    beta: float
    constant: float

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.channels, self.pixels, LANES)

    @property
    def share(self) -> float:
        return self.alpha / self.size

    def window(self, back: int) -> tuple[Buffer, Buffer]:
        """Per channel, the first of its neighbours and the one behind the last: `back` channels
        before it and size − 1 − back after it, where they exist."""
        first = [max(0, c - back) for c in range(self.channels)]
        stop = [min(self.channels, c - back + self.size) for c in range(self.channels)]
        return table("first", first), table("stop", stop)


def pixel_tiles(writer: Writer, pixels: int, wide: int) -> Iterator[list[Index]]:
    """The places of each tile of `wide` pixels, and the loop over them."""
    for first, count, turns in blocks(pixels, wide):
        with writer.loop("p", first + count * turns, first, count) as p:
            yield [as_index(p) + j for j in range(count)]


def response_norm(name: str, sizes: Neighbours, wide: int) -> Kernel:
    """Buffers source, target; `wide` pixels a tile."""
    source, target = Buffer("source", sizes.shape), Buffer("target", sizes.shape, access="write")
    writer = Writer(name, [source, target])
    for places in pixel_tiles(writer, sizes.pixels, wide):
        with writer.loop("c", sizes.channels) as c:
            for at, cell in zip(places, _squares(writer, sizes, source, c, places), strict=True):
                result = op("mul", writer.load(source, c, at, 0), factor(writer, sizes, cell))
                writer.store(target, c, at, 0, value=result)
    return writer.finish()


def _squares(
    writer: Writer, sizes: Neighbours, source: Buffer, c: Var, places: list[Index]
) -> list[Register]:
    """Σ x² over the neighbours of a channel, for every pixel of a tile."""
    first, stop = sizes.window(sizes.size // 2)
    cells = writer.accumulators("sum", len(places))
    with writer.loop("j", Entry(stop, as_index(c)), Entry(first, as_index(c))) as j:
        for cell, at in zip(cells, places, strict=True):
            x = writer.let(writer.load(source, j, at, 0), "x")
            writer.assign(cell, op("fma", x, x, Read(cell)))
    return cells


def factor(writer: Writer, sizes: Neighbours, squares: Register) -> Value:
    """What a value is multiplied with, given the sum of its neighbours' squares."""
    return _power(writer, sizes, _scale(writer, sizes, squares))


def _scale(writer: Writer, sizes: Neighbours, squares: Register) -> Value:
    return writer.let(op("fma", Read(squares), number(sizes.share), number(sizes.constant)), "d")


def _power(writer: Writer, sizes: Neighbours, scale: Value) -> Value:
    """d^−beta. The logarithm knows no NaN: it is handed through."""
    power = exponential(writer, op("mul", logarithm(writer, scale), number(-sizes.beta)))
    return writer.let(op("select", op("eq", scale, scale), power, scale), "power")


def response_norm_gradient(
    name: str, sizes: Neighbours, wide: int, *, mask: bool = False
) -> Kernel:
    """Buffers gradient (dy), value (the input x), room (2, channels, wide: for one tile), target
    (dx). `mask` sets dx to zero where x is not positive."""
    gradient, value = Buffer("gradient", sizes.shape), Buffer("value", sizes.shape)
    room = Buffer("room", (2, sizes.channels, wide, LANES), access="update")
    target = Buffer("target", sizes.shape, access="write")
    writer = Writer(name, [gradient, value, room, target])
    for places in pixel_tiles(writer, sizes.pixels, wide):
        with writer.loop("c", sizes.channels) as c:
            cells = _squares(writer, sizes, value, c, places)
            for k, (at, cell) in enumerate(zip(places, cells, strict=True)):
                scale = _scale(writer, sizes, cell)
                power = _power(writer, sizes, scale)
                direct = writer.let(op("mul", writer.load(gradient, c, at, 0), power), "direct")
                writer.store(room, 0, c, k, 0, value=direct)
                shared = op("div", op("mul", direct, writer.load(value, c, at, 0)), scale)
                writer.store(room, 1, c, k, 0, value=shared)
        _gather(writer, sizes, places, value, room, target, mask)
    return writer.finish()


def _gather(
    writer: Writer,
    sizes: Neighbours,
    places: list[Index],
    value: Buffer,
    room: Buffer,
    target: Buffer,
    mask: bool,
) -> None:
    """dx of a tile, from what every channel put into the room."""
    first, stop = sizes.window((sizes.size - 1) // 2)
    with writer.loop("c", sizes.channels) as c:
        cells = writer.accumulators("sum", len(places))
        with writer.loop("j", Entry(stop, as_index(c)), Entry(first, as_index(c))) as j:
            for k, cell in enumerate(cells):
                writer.assign(cell, op("add", Read(cell), writer.load(room, 1, j, k, 0)))
        for k, (at, cell) in enumerate(zip(places, cells, strict=True)):
            x = writer.let(writer.load(value, c, at, 0), "x")
            pull = op("mul", x, number(-2.0 * sizes.share * sizes.beta))
            dx: Value = op("fma", pull, Read(cell), writer.load(room, 0, c, k, 0))
            dx = keep_where(is_positive(x), dx) if mask else dx
            writer.store(target, c, at, 0, value=dx)
