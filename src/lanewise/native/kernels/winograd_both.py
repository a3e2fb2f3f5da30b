"""Gradient of the weights in the same pass as Winograd's gradient of the input.

Both read dy in tiles of `size` × `size`, transformed alike; so the weights' gradient is taken with
the other of its factors transposed,

    dw[k,c] = Gᵀ [ Σ_tiles Σ_images (A x[c] Aᵀ) ⊙ (Bᵀ dy[k] B) ] G     with the taps turned about

where x has the tiles of the input's gradient, m × m without overlap (`winograd_gradient.py` has the
overlap in x instead). Channels are in the lanes. Where these are few, each beside itself for some
images: a product then meets as many neighbouring numbers of dy, repeated over the lanes, and what
is loaded serves more than one vector. Their sums are added up at the very end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lanewise.native.kernels.functions import number
from lanewise.native.kernels.fused_norm import Reads
from lanewise.native.kernels.images import row_blocks
from lanewise.native.kernels.register_tiles import add_product, blocks
from lanewise.native.kernels.winograd_places import TileTables, Winograd, block_tiles, clear
from lanewise.native.kernels.winograd_transforms import gather, spread
from lanewise.native.nest import (
    LANES,
    Buffer,
    Entry,
    Index,
    IndexLike,
    Read,
    Value,
    Var,
    as_index,
    op,
    table,
)
from lanewise.native.writer import Writer


@dataclass(frozen=True)
class Weights:
    """That the gradient of the weights is wanted too: what it reads of x, images beside each other
    in the lanes, registers of its products: maps of dy × vectors of channels."""

    reads: Reads
    images: int
    sources: int
    vectors: int


def vectors_of(sizes: Winograd, images: int) -> int:
    """Vectors of all channels for some images; `sizes` are those of the input's gradient."""
    return row_blocks(sizes.maps) * images


def workspace_shapes(sizes: Winograd, weights: Weights) -> dict[str, tuple[int, ...]]:
    """Arrays of one call's own, besides those of the input's gradient."""
    m, vectors = sizes.algorithm.outputs, vectors_of(sizes, weights.images)
    return {
        "sums": (sizes.algorithm.points, sizes.sources, vectors, LANES),
        "turned": (m, m, LANES // weights.images, LANES),
    }


def target_shape(sizes: Winograd) -> tuple[int, ...]:
    """What is told: kernels, blocks of 16 channels, taps, 16."""
    return sizes.sources, row_blocks(sizes.maps), sizes.algorithm.taps**2, LANES


class WeightPart:
    """Writes the gradient of the weights into a kernel of `winograd.correlate`."""

    def __init__(self, sizes: Winograd, block: int, weights: Weights) -> None:
        self.sizes, self.block_size, self.weights = sizes, block, weights
        planes = (sizes.maps, sizes.rows.destination, sizes.columns.destination, LANES)
        self.reading = weights.reads.reading(planes, "x_")
        self.sums, self.turned = (
            Buffer(name, shape, access="update")
            for name, shape in workspace_shapes(sizes, weights).items()
        )
        self.target = Buffer("weights", target_shape(sizes), access="update")
        self.buffers = [*self.reading.buffers, self.sums, self.turned, self.target]
        self.across = LANES // weights.images  # channels of a vector
        self.once = len(block_tiles(sizes, block)) == 1

    @cached_property
    def tiles(self) -> Buffer:
        """Tiles of each block."""
        return table("weight_tiles", block_tiles(self.sizes, self.block_size))

    def begin(self, writer: Writer) -> None:
        """Before the first block."""
        if not self.once:
            clear(writer, self.sums)

    def block(
        self, writer: Writer, b: Var, written: TileTables, sources: Buffer, room: Buffer
    ) -> None:
        """After a block of the input's gradient: `sources` are the transforms of dy, `room` is
        free."""
        self._transform(writer, b, written, room)
        with writer.loop("f", self.sizes.algorithm.points) as f:
            vectors = vectors_of(self.sizes, self.weights.images)
            for v0, vs, v_times in blocks(vectors, self.weights.vectors):
                with writer.loop("v", v0 + vs * v_times, v0, vs) as v:
                    for c0, cs, c_times in blocks(self.sizes.sources, self.weights.sources):
                        with writer.loop("c", c0 + cs * c_times, c0, cs) as c:
                            self._product(writer, (b, f, c, v), (cs, vs), sources, room)

    # -- transforms of x

    def _transform(self, writer: Writer, b: Var, written: TileTables, room: Buffer) -> None:
        """A x Aᵀ of the tiles of a block, for some images and channels at a time."""
        for first, count, times in blocks(self.sizes.maps, self.across):
            begin = first // self.across
            with (
                writer.loop("v", begin + times, begin) as v,
                writer.loop("i", Entry(self.tiles, as_index(b))) as i,
            ):
                self._turn(writer, as_index(b) * self.block_size + i, v, count, written)
                with writer.loop("n", self.across) as n:
                    self._one(writer, n, (as_index(v) * self.across + n, as_index(i)), room)

    def _turn(self, writer: Writer, n: Index, v: Var, count: int, written: TileTables) -> None:
        """Tile n of a vector's channels (of which `count` exist), channels into the lanes; zeros
        where it sticks out."""
        if written.any_part:
            with writer.loop("w", Entry(written.part, n)):
                clear(writer, self.turned)
        with (
            writer.loop("r", Entry(written.rows, n)) as r,
            writer.loop("s", Entry(written.columns, n)) as s,
        ):
            at = as_index(Entry(written.row, n)) + r, as_index(Entry(written.column, n)) + s
            values: list[Value] = []
            for j in range(count):
                map = as_index(v) * self.across + j
                constants = self.reading.constants(writer, map)
                values.append(writer.let(self.reading.value(writer, constants, (map, *at, 0))))
            values += [number(0.0)] * (self.across - count)
            for group, value in enumerate(writer.transpose(values)):
                writer.store(self.turned, r, s, group, 0, value=value)

    def _one(self, writer: Writer, n: Var, at: tuple[Index, Index], room: Buffer) -> None:
        algorithm = self.sizes.algorithm
        matrix, size, m = algorithm.result, algorithm.size, range(algorithm.outputs)
        columns = []
        for s in m:
            values = [writer.let(writer.load(self.turned, r, s, n, 0), "e") for r in m]
            columns.append(spread(writer, matrix, values))
        for p in range(size):
            line = spread(writer, matrix, [column[p] for column in columns])
            for q, value in enumerate(line):
                writer.store(room, p * size + q, *at, 0, value=value)

    # -- products

    def _product(
        self,
        writer: Writer,
        at: tuple[Var, Var, Var, Var],
        registers: tuple[int, int],
        sources: Buffer,
        room: Buffer,
    ) -> None:
        """sums[f, sources, vectors] += Σ over tiles and images of a block. `at`: block, f, c, v."""
        (b, f, c, v), (maps, vectors) = at, registers
        places: list[list[tuple[IndexLike, ...]]] = [
            [(f, as_index(c) + j, as_index(v) + i, 0) for i in range(vectors)] for j in range(maps)
        ]
        cells = [
            [writer.assign(writer.register("a"), self._begun(writer, place)) for place in line]
            for line in places
        ]
        images = self.weights.images
        with (
            writer.loop("t", Entry(self.tiles, as_index(b))) as t,
            writer.loop("n", self.across, step=2) as n,
        ):
            for group in (as_index(n), as_index(n) + 1):
                values = [
                    writer.let(
                        writer.load(room, f, (as_index(v) + i) * self.across + group, t, 0), "x"
                    )
                    for i in range(vectors)
                ]
                for j, line in enumerate(cells):
                    dy = writer.let(
                        writer.splat(sources, f, as_index(c) + j, t, group * images, lanes=images),
                        "e",
                    )
                    for cell, value in zip(line, values, strict=True):
                        add_product(writer, cell, dy, value)
        for row, line in zip(places, cells, strict=True):
            for place, cell in zip(row, line, strict=True):
                writer.store(self.sums, *place, value=Read(cell))

    def _begun(self, writer: Writer, place: tuple[IndexLike, ...]) -> Value:
        """What a sum is before a block: of a single block nothing."""
        return number(0.0) if self.once else writer.load(self.sums, *place)

    # -- and back

    def finish(self, writer: Writer) -> None:
        """Gᵀ M G for each kernel and vector of channels; the images' sums."""
        algorithm, images = self.sizes.algorithm, self.weights.images
        with (
            writer.loop("k", self.sizes.sources) as k,
            writer.loop("v", row_blocks(self.sizes.maps)) as v,
        ):
            for part in range(images):
                vector = as_index(v) * images + part
                for tap, value in enumerate(self._taps(writer, k, vector)):
                    turned = algorithm.taps**2 - 1 - tap
                    if images == 1:
                        writer.store(self.target, k, v, turned, 0, value=value)
                    else:
                        writer.store(self.sums, turned, k, vector, 0, value=value)
            if images > 1:
                self._add_images(writer, k, v)

    def _taps(self, writer: Writer, k: Var, vector: Index) -> Sequence[Value]:
        algorithm = self.sizes.algorithm
        size = range(algorithm.size)
        columns: list[Sequence[Value]] = []
        for q in size:
            values = [
                writer.let(writer.load(self.sums, p * algorithm.size + q, k, vector, 0), "m")
                for p in size
            ]
            columns.append(gather(writer, algorithm.kernel, values))
        return [
            value
            for r in range(algorithm.taps)
            for value in gather(writer, algorithm.kernel, [column[r] for column in columns])
        ]

    def _add_images(self, writer: Writer, k: Var, v: Var) -> None:
        """Neighbouring lanes of a channel together."""
        images = self.weights.images
        with (
            writer.loop("t", self.sizes.algorithm.taps**2) as t,
            writer.loop("c", self.across) as c,
        ):
            for part in range(images):
                vector = as_index(v) * images + part
                lanes = [
                    writer.load(self.sums, t, k, vector, as_index(c) * images + i, lanes=1)
                    for i in range(images)
                ]
                total: Value = lanes[0]
                for lane in lanes[1:]:
                    total = op("add", total, lane)
                writer.store(self.target, k, v, t, as_index(c) + part * self.across, value=total)
