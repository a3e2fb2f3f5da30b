"""Convolution of bf16 maps: gradient of the weights by small matrices (AMX).

    dw[k,c,r,s] = Σ_pq Σ_images  dy[k,p,q] · x[c, p·stride + r·dilation − pad, q + …]

One product takes 16 source maps × (two neighbouring pixels of 16 images each) as they lie in x, and
the same pixels and images × 16 kernels. For these dy is transposed, 16 kernels × two pixels at a
time, pairs of images staying pairs, into rows with zeros on both sides: so every tap is the same
product, begun some pixels further. Kernels are in the lanes of the sums, as in `lane_weights.py`,
whose `add_sums` takes them to their place. Rows are taken in strips, which stay near for all
weights; meanwhile sums wait in memory, in fp32.

Columns must have stride 1, and an even number on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from lanewise.native.kernels.images import row_blocks
from lanewise.native.kernels.matrix_conv import TOGETHER
from lanewise.native.kernels.register_tiles import blocks
from lanewise.native.kernels.taps import Taps
from lanewise.native.kernels.weights import rows_of_tap
from lanewise.native.nest import (
    LANES,
    MATRIX_SIZE,
    Buffer,
    Constant,
    Entry,
    Index,
    Kernel,
    Matrix,
    Value,
    Var,
    as_index,
    table,
)
from lanewise.native.writer import Writer

#: pairs of images of one pixel; pixels that one product takes
PAIRS, PIXELS = LANES // 2, 2


@dataclass(frozen=True)
class GradientSizes:
    """A convolution of one group: kernels, source maps, and the forward taps."""

    maps: int
    sources: int
    rows: Taps
    columns: Taps

    @cached_property
    def offsets(self) -> tuple[int, ...] | None:
        """How much further than a column of dy the column of x lies that each tap meets; None
        where that differs (a stride), or a tap meets nothing."""
        found = []
        for t in range(self.columns.taps):
            pairs = ((q, row[t]) for q, row in enumerate(self.columns.sources))
            met = {source - q for q, source in pairs if source is not None}
            if len(met) != 1:
                return None
            found.append(met.pop())
        return tuple(found)

    @property
    def block(self) -> int:
        """Source maps of one product: the most that divide them."""
        fitting = range(min(self.sources, MATRIX_SIZE), 0, -1)
        return next(n for n in fitting if self.sources % n == 0)

    @property
    def possible(self) -> bool:
        """Whether pixels can be taken two at a time."""
        return self.offsets is not None and not (
            self.columns.source % PIXELS or self.columns.destination % PIXELS
        )

    @property
    def before(self) -> int:
        """Columns of zeros before those of dy."""
        return max(0, *(self.offsets or ()), 0)

    @property
    def width(self) -> int:
        """Columns of dy, and zeros on both sides."""
        last = self.columns.source - 1 - min(self.offsets or (0,))
        return self.before + max(self.columns.destination, last + 1)

    @property
    def area(self) -> int:
        return self.rows.taps * self.columns.taps


def turned_shape(sizes: GradientSizes, rows: int) -> tuple[int, ...]:
    """Room for a strip of dy: blocks of 16 kernels, rows, pixels × pairs of images, kernels."""
    height = min(rows, sizes.rows.destination)
    return row_blocks(sizes.maps), height, sizes.width * PAIRS, LANES


def weight_gradient(name: str, sizes: GradientSizes, rows: int) -> Kernel:
    """sums[k, c, (r, s)] of a slice. Buffers source, gradient (both bf16, as pairs of images),
    turned (`turned_shape`), sums (blocks of 16 kernels, C, R · S, 16). `rows`: of a strip."""
    return _Nest(name, sizes, rows).write()


def registers(kernels: int, sources: int) -> int:
    """Taps whose sums go on together, where so many blocks of each do."""
    return max(1, TOGETHER * TOGETHER // (kernels * sources))


class _Nest:
    """Writes `weight_gradient`: loops over strips, blocks of kernels and sources, taps, pixels."""

    def __init__(self, name: str, sizes: GradientSizes, rows: int) -> None:
        self.sizes = sizes
        self.shape = turned_shape(sizes, rows)
        kernels, self.height = self.shape[:2]
        high, wide = sizes.rows.source, sizes.columns.source // PIXELS
        self.source = Buffer("source", (sizes.sources, high, wide, LANES), "i32")
        taken = sizes.rows.destination, sizes.columns.destination // PIXELS
        self.gradient = Buffer("gradient", (sizes.maps, *taken, LANES), "i32")
        self.turned = Buffer("turned", self.shape, "i32", "update")
        summed = kernels, sizes.sources, sizes.area, LANES
        self.sums = Buffer("sums", summed, access="update")
        self.writer = Writer(name, [self.source, self.gradient, self.turned, self.sums])
        self.strips = -(-sizes.rows.destination // self.height)
        self.x = [Matrix(4 + i, sizes.block, LANES) for i in range(TOGETHER)]
        self.dy = [Matrix(6 + i, PIXELS * PAIRS, LANES) for i in range(TOGETHER)]
        self.cells = [Matrix(i, sizes.block, LANES) for i in range(TOGETHER * TOGETHER)]

    @cached_property
    def _of_tap(self) -> tuple[Buffer, Buffer, Buffer]:
        return rows_of_tap(self.sizes.rows, self.height, from_strip=True)

    @cached_property
    def _lengths(self) -> Buffer:
        rows = self.sizes.rows.destination
        return table("lengths", [min(self.height, rows - i) for i in range(0, rows, self.height)])

    def write(self) -> Kernel:
        """The whole kernel."""
        writer, sizes = self.writer, self.sizes
        self._clear()
        source_blocks = sizes.sources // sizes.block
        with writer.loop("u", self.strips) as u:
            self._turn(u)
            for k0, kernels, k_times in blocks(self.shape[0], TOGETHER):
                for c0, sources, c_times in blocks(source_blocks, TOGETHER):
                    with (
                        writer.loop("k", k0 + kernels * k_times, k0, kernels) as k,
                        writer.loop("c", c0 + sources * c_times, c0, sources) as c,
                        writer.loop("r", sizes.rows.taps) as r,
                    ):
                        together = registers(kernels, sources)
                        for t, count, times in blocks(sizes.columns.taps, together):
                            for first in range(t, t + count * times, count):
                                taps = range(first, first + count)
                                self._weights(
                                    u, as_index(k), kernels, as_index(c), sources, r, taps
                                )
        return writer.finish()

    # -- dy, transposed

    def _clear(self) -> None:
        """Zeros at the sides of all rows, and where sums wait."""
        writer, sizes = self.writer, self.sizes
        end = sizes.before + sizes.columns.destination
        with writer.loop("b", self.shape[0]) as b:
            with writer.loop("p", self.height) as p:
                for start, stop in ((0, sizes.before), (end, sizes.width)):
                    if start < stop:
                        with writer.loop("j", stop * PAIRS, start * PAIRS) as j:
                            writer.store(self.turned, b, p, j, 0, value=Constant(0, "i32"))
            if self.strips > 1:
                with writer.loop("c", sizes.sources) as c, writer.loop("t", sizes.area) as t:
                    writer.store(self.sums, b, c, t, 0, value=Constant(0.0))

    def _turn(self, u: Var) -> None:
        """16 kernels × two pixels of eight pairs; zeros for kernels that do not exist."""
        writer = self.writer
        for first, count, times in blocks(self.sizes.maps, LANES):
            begin = first // LANES
            with (
                writer.loop("b", begin + times, begin) as b,
                writer.loop("p", Entry(self._lengths, as_index(u))) as p,
                writer.loop("q", self.gradient.shape[2]) as q,
            ):
                row = as_index(u) * self.height + p
                values: list[Value] = [
                    writer.load(self.gradient, as_index(b) * LANES + i, row, q, 0)
                    for i in range(count)
                ]
                values += [Constant(0, "i32")] * (LANES - count)
                at = as_index(q) * (PIXELS * PAIRS) + self.sizes.before * PAIRS
                for place, value in enumerate(writer.transpose(values)):
                    writer.store(self.turned, b, p, at + place, 0, value=value)

    # -- products

    def _weights(
        self, u: Var, k: Index, kernels: int, c: Index, sources: int, r: Var, taps: range
    ) -> None:
        """Some weights of some blocks, from the pixels of the strip."""
        writer, sizes = self.writer, self.sizes
        cells = self._cells(kernels, sources, len(taps))
        places = [
            (k + a, (c + b) * sizes.block, as_index(r) * sizes.columns.taps + t, 0)
            for t in taps
            for b in range(sources)
            for a in range(kernels)
        ]
        flat = [cell for tap in cells for row in tap for cell in row]
        for cell, place in zip(flat, places, strict=True):
            if self.strips > 1:
                writer.matrix_load(cell, self.sums, *place, axis=1)
            else:
                writer.matrix_zero(cell)
        count, first, met = self._of_tap
        at_tap = as_index(u) * sizes.rows.taps + r
        with (
            writer.loop("p", Entry(count, at_tap)) as p,
            writer.loop("w", sizes.columns.source // PIXELS) as w,
        ):
            row = as_index(p) + Entry(first, at_tap)
            x_row = as_index(p) * sizes.rows.advance + Entry(met, at_tap)
            for b in range(sources):
                map = (c + b) * sizes.block
                writer.matrix_load(self.x[b], self.source, map, x_row, w, 0, axis=0)
            self._products(cells, k, row, w, taps)
        for cell, place in zip(flat, places, strict=True):
            writer.matrix_store(cell, self.sums, *place, axis=1)

    def _products(
        self, cells: list[list[list[Matrix]]], k: Index, row: Index, w: Var, taps: range
    ) -> None:
        writer, sizes = self.writer, self.sizes
        assert sizes.offsets
        turns = 0
        for t, of_tap in zip(taps, cells, strict=True):
            pixel = as_index(w) * PIXELS + (sizes.before - sizes.offsets[t])
            for a in range(len(of_tap[0])):
                matrix, turns = self.dy[turns % TOGETHER], turns + 1
                writer.matrix_load(matrix, self.turned, k + a, row, pixel * PAIRS, 0, axis=2)
                for b, of_source in enumerate(of_tap):
                    writer.matrix_dot(of_source[a], self.x[b], matrix)

    def _cells(self, kernels: int, sources: int, taps: int) -> list[list[list[Matrix]]]:
        """Taps × blocks of sources × blocks of kernels."""
        numbers = iter(self.cells)
        return [
            [[next(numbers) for _ in range(kernels)] for _ in range(sources)] for _ in range(taps)
        ]
