"""Maps that grow by whole factors: each pixel repeated, or bilinear between pixel centres.

Repeating is the gradient of a sum over windows that touch, and its gradient is that sum. Bilinear
is the same along both axes: output d lies at (d + ½) / scale − ½ of the input, between i and i + 1,

    y[d] = (1 − λ) · x[i] + λ · x[i + 1]

where an index outside means the pixel at the border (PyTorch's align_corners=False). λ depends on
d modulo the scale only: a tap is one of these positions and one of the two neighbours, and has a
weight of its own. Gradients gather.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from lanewise.native.kernels.pool import maps, masked, sum_pool, sum_pool_gradient
from lanewise.native.kernels.taps import Taps, forward_taps, gradient_taps
from lanewise.native.kernels.windows import Meeting, tiles
from lanewise.native.nest import Buffer, Constant, Kernel, Read, Value, as_index, op
from lanewise.native.writer import Writer

Size = tuple[int, int]


# ---- each pixel repeated ------------------------------------------------------------------------


def nearest(name: str, channels: int, size: Size, scale: Size) -> Kernel:
    """Buffers source, target."""
    rows, columns = _repeats(size, scale, backward=True)
    return sum_pool_gradient(name, channels, rows, columns, scale=None, mask=False)


def nearest_gradient(name: str, channels: int, size: Size, scale: Size, *, mask: bool) -> Kernel:
    """Buffers gradient, [value], target."""
    rows, columns = _repeats(size, scale, backward=False)
    return sum_pool(name, channels, rows, columns, scale=None, mask=mask)


def _repeats(size: Size, scale: Size, backward: bool) -> tuple[Taps, Taps]:
    """The windows of a pool that shrinks the large maps to the small ones."""
    make = gradient_taps if backward else forward_taps
    rows, columns = (make(n * s, n, s, s, 0, 1) for n, s in zip(size, scale, strict=True))
    return rows, columns


# ---- bilinear -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interpolation:
    """One axis: taps, and what each tap weighs."""

    taps: Taps
    weights: tuple[float, ...]


@dataclass(frozen=True)
class _Positions:
    """The `scale` positions of outputs between the centres of `size` pixels."""

    size: int
    scale: int

    def place(self, position: int) -> float:
        """Where output k · scale + position lies, counted from pixel k."""
        return (position + 0.5) / self.scale - 0.5

    def pixel(self, tap: int) -> int:
        """The pixel that a tap means, counted from pixel k: tap 2j + e is neighbour e of j."""
        position, neighbour = divmod(tap, 2)
        return (-1 if self.place(position) < 0 else 0) + neighbour

    @cached_property
    def weights(self) -> tuple[float, ...]:
        """The weight of each tap."""
        distances = (abs(self.place(tap // 2) - self.pixel(tap)) for tap in range(2 * self.scale))
        return tuple(1.0 - distance for distance in distances)

    def source(self, k: int, tap: int) -> int | None:
        """The pixel that output k · scale + position meets; None where it weighs nothing."""
        if not self.weights[tap]:
            return None
        return min(max(k + self.pixel(tap), 0), self.size - 1)


def interpolation(size: int, scale: int) -> Interpolation:
    """Output index × tap → input index."""
    at = _Positions(size, scale)
    sources = tuple(
        tuple(at.source(k, t) if t // 2 == j else None for t in range(2 * scale))
        for k in range(size)
        for j in range(scale)
    )
    return Interpolation(Taps(size * scale, size, 2 * scale, sources, scale, 1), at.weights)


def interpolation_gradient(size: int, scale: int) -> Interpolation:
    """Input index × tap → output index.

    Beyond the border the outer pixel stands for its neighbour, so it meets some taps twice: there
    are three of each, for outputs that mean the pixel before, this one and the one after.
    """
    at = _Positions(size, scale)

    def output(i: int, tap: int) -> int | None:
        meant, tap = divmod(tap, 2 * scale)
        k = i + meant - 1 - at.pixel(tap)
        inside = 0 <= k < size and at.source(k, tap) == i
        return k * scale + tap // 2 if inside else None

    sources = tuple(tuple(output(i, t) for t in range(6 * scale)) for i in range(size))
    return Interpolation(Taps(size, size * scale, 6 * scale, sources, 1, scale), at.weights * 3)


def weighted_sums(
    name: str,
    channels: int,
    rows: Interpolation,
    columns: Interpolation,
    *,
    mask: bool = False,
) -> Kernel:
    """Buffers source, [value], target: every destination pixel is a sum of weighted source pixels.
    With the interpolations of the gradient: source is dy, target dx."""
    source = Buffer("source", maps(channels, rows.taps.source, columns.taps.source))
    shape = maps(channels, rows.taps.destination, columns.taps.destination)
    value = Buffer("value", shape) if mask else None
    target = Buffer("target", shape, access="write")
    writer = Writer(name, [source, *([value] if value else []), target])
    weights = tuple(r * s for r in rows.weights for s in columns.weights)
    table = Buffer("weights", (len(weights),), data=weights)
    with writer.loop("c", channels) as c:
        for tile in tiles(writer, rows.taps, columns.taps):
            sums = writer.accumulators("y", len(tile.cells))
            for met in tile.meetings():

                def load(met: Meeting = met) -> Value:
                    return writer.let(writer.load(source, c, met.row, met.column, 0), "x")

                x, cell = tile.once(met, "x", load), sums[met.cell]
                weight: Value = (
                    Constant(weights[met.tap])
                    if isinstance(met.tap, int)
                    else writer.splat(table, as_index(met.tap))
                )
                writer.assign(cell, op("fma", x, weight, Read(cell)))
            for cell, (row, column) in zip(sums, tile.cells, strict=True):
                at = (c, row, column, 0)
                writer.store(target, *at, value=masked(writer, value, at, Read(cell)))
    return writer.finish()
