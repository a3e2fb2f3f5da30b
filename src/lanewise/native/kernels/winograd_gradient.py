"""Gradient of the weights by Winograd's algorithm, with kernels in the lanes.

    dw[k,c] = Gᵀ [ Σ_tiles Σ_images (A dy[k] Aᵀ) ⊙ (Bᵀ x[c] B) ] G

The adjoint of `winograd.py`: the transform of x is the same, and no other matrices are needed. As
in `lane_weights.py`, dy is transposed, 16 kernels × 16 images, so that a sum of products is that of
16 weights at one point, and no sum of lanes is needed. Some tiles at a time: transforms of x, dy
transposed and its transforms, then for every point a product of two matrices, sources × (tiles ·
images) and (tiles · images) × kernels, added to what the tiles before have given:

    multiply–adds of the products = tiles · size² · kernels (as a multiple of 16) · sources · L
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lanewise.native.kernels.functions import number
from lanewise.native.kernels.fused_norm import AsItStands, Reads
from lanewise.native.kernels.images import row_blocks
from lanewise.native.kernels.register_tiles import add_product, blocks
from lanewise.native.kernels.winograd_places import (
    TileTables,
    Winograd,
    block_tiles,
    clear,
    written_places,
)
from lanewise.native.kernels.winograd_sources import SourceTransform, room_shape
from lanewise.native.kernels.winograd_transforms import gather, spread
from lanewise.native.nest import (
    LANES,
    Buffer,
    Entry,
    Index,
    IndexLike,
    Kernel,
    Read,
    Value,
    Var,
    as_index,
    table,
)
from lanewise.native.writer import Writer

PLAIN = AsItStands()


@dataclass(frozen=True)
class GradientTile:
    """Registers of the products: `sources` × `vectors` of 16 kernels; `block` tiles at a time."""

    sources: int
    vectors: int
    block: int


def workspace_shapes(
    sizes: Winograd, tile: GradientTile, reads: Reads = PLAIN
) -> dict[str, tuple[int, ...]]:
    """Arrays of one call's own: transformed sources and gradients, sums, what is copied of the
    sources."""
    algorithm = sizes.algorithm
    points, vectors = algorithm.points, row_blocks(sizes.maps)
    return {
        "sources": (points, sizes.sources + 1, tile.block, LANES),
        "gradients": (points, vectors, tile.block * LANES + 1, LANES),
        "sums": (points, sizes.sources, vectors, LANES),
        "room": room_shape(sizes, tile.block, reads),
        "turned": (algorithm.outputs, algorithm.outputs, LANES, LANES),
    }


def weight_gradient(name: str, sizes: Winograd, tile: GradientTile, reads: Reads = PLAIN) -> Kernel:
    """target[k, (c, r, s)] = dw: buffers source (or those of `reads`), gradient, sources,
    gradients, sums, room, turned, target (blocks of 16 kernels, C · r · r, 16). `sizes` are
    those of the forward direction."""
    return _Nest(name, sizes, tile, reads).write()


class _Nest:
    """Writes `weight_gradient`."""

    def __init__(
        self, name: str, sizes: Winograd, tile: GradientTile, reads: Reads = PLAIN
    ) -> None:
        self.sizes, self.tile, self.algorithm = sizes, tile, sizes.algorithm
        rows, columns = sizes.rows, sizes.columns
        self.vectors = row_blocks(sizes.maps)
        reading = reads.reading((sizes.sources, rows.source, columns.source, LANES))
        maps = (sizes.maps, rows.destination, columns.destination, LANES)
        self.gradient = Buffer("gradient", maps)
        self.sources, self.gradients, self.sums, self.room, self.turned = (
            Buffer(name, shape, access="update")
            for name, shape in workspace_shapes(sizes, tile, reads).items()
        )
        weights = sizes.sources * self.algorithm.taps**2
        self.target = Buffer("target", (self.vectors, weights, LANES), access="write")
        own = [self.sources, self.gradients, self.sums, self.room, self.turned]
        self.writer = Writer(name, [*reading.buffers, self.gradient, *own, self.target])
        self.transform = SourceTransform(
            self.writer, sizes, reading, self.sources, self.room, tile.block
        )
        self.written = TileTables(
            "written", written_places(sizes, tile.block), self.algorithm.outputs
        )

    @cached_property
    def tiles(self) -> Buffer:
        """Tiles of each block."""
        return table("tiles", block_tiles(self.sizes, self.tile.block))

    def write(self) -> Kernel:
        """The whole kernel."""
        writer, sizes = self.writer, self.sizes
        self.transform.clear()
        clear(writer, self.sums)
        with writer.loop("b", len(block_tiles(sizes, self.tile.block))) as b:
            self.transform.block(b, Index(), sizes.sources)
            self._transform_gradients(b)
            self._multiply(b)
        self._transform_back()
        return writer.finish()

    def _transform_gradients(self, b: Var) -> None:
        """A dy Aᵀ of the tiles of a block, for every image, 16 kernels at a time."""
        writer = self.writer
        for first, count, times in blocks(self.sizes.maps, LANES):
            begin = first // LANES
            with (
                writer.loop("v", begin + times, begin) as v,
                writer.loop("i", Entry(self.tiles, as_index(b))) as i,
            ):
                self._turn(as_index(b) * self.tile.block + i, v, count)
                with writer.loop("n", LANES) as n:
                    self._one_gradient(v, as_index(i) * LANES + n, n)

    def _turn(self, n: Index, v: Var, count: int) -> None:
        """Tile n of 16 kernels (of which `count` exist), kernels into the lanes; zeros where it
        sticks out."""
        writer, written = self.writer, self.written
        if written.any_part:
            with writer.loop("w", Entry(written.part, n)):
                clear(writer, self.turned)
        with (
            writer.loop("r", Entry(written.rows, n)) as r,
            writer.loop("s", Entry(written.columns, n)) as s,
        ):
            at = as_index(Entry(written.row, n)) + r, as_index(Entry(written.column, n)) + s
            kernels = (as_index(v) * LANES + k for k in range(count))
            values: list[Value] = [writer.load(self.gradient, k, *at, 0) for k in kernels]
            values += [number(0.0)] * (LANES - count)
            for image, value in enumerate(writer.transpose(values)):
                writer.store(self.turned, r, s, image, 0, value=value)

    def _one_gradient(self, v: Var, at: Index, n: Var) -> None:
        writer, matrix, size = self.writer, self.algorithm.result, self.algorithm.size
        m = range(self.algorithm.outputs)
        columns = []
        for s in m:
            values = [writer.let(writer.load(self.turned, r, s, n, 0), "e") for r in m]
            columns.append(spread(writer, matrix, values))
        for p in range(size):
            line = spread(writer, matrix, [column[p] for column in columns])
            for q, value in enumerate(line):
                writer.store(self.gradients, p * size + q, v, at, 0, value=value)

    # -- the products

    def _multiply(self, b: Var) -> None:
        writer = self.writer
        with writer.loop("f", self.algorithm.points) as f:
            for v0, vs, v_times in blocks(self.vectors, self.tile.vectors):
                with writer.loop("v", v0 + vs * v_times, v0, vs) as v:
                    for c0, cs, c_times in blocks(self.sizes.sources, self.tile.sources):
                        with writer.loop("c", c0 + cs * c_times, c0, cs) as c:
                            self._product(b, f, c, cs, v, vs)

    def _product(self, b: Var, f: Var, c: Var, sources: int, v: Var, vectors: int) -> None:
        """sums[f, sources, vectors] += Σ over tiles and images of a block."""
        writer = self.writer
        places: list[list[tuple[IndexLike, ...]]] = [
            [(f, as_index(c) + j, as_index(v) + i, 0) for i in range(vectors)]
            for j in range(sources)
        ]
        cells = [
            [writer.assign(writer.register("a"), writer.load(self.sums, *at)) for at in line]
            for line in places
        ]
        with (
            writer.loop("t", Entry(self.tiles, as_index(b))) as t,
            writer.loop("n", LANES, step=2) as n,
        ):
            for image in (as_index(n), as_index(n) + 1):
                at = as_index(t) * LANES + image
                errors = [
                    writer.let(writer.load(self.gradients, f, as_index(v) + i, at, 0), "e")
                    for i in range(vectors)
                ]
                for j, line in enumerate(cells):
                    x = writer.let(writer.splat(self.sources, f, as_index(c) + j, t, image), "x")
                    for cell, error in zip(line, errors, strict=True):
                        add_product(writer, cell, x, error)
        for row, registers in zip(places, cells, strict=True):
            for place, cell in zip(row, registers, strict=True):
                writer.store(self.sums, *place, value=Read(cell))

    # -- and back

    def _transform_back(self) -> None:
        """Gᵀ M G for 16 kernels and one source."""
        writer, matrix, size = self.writer, self.algorithm.kernel, self.algorithm.size
        taps = self.algorithm.taps
        with (
            writer.loop("v", self.vectors) as v,
            writer.loop("c", self.sizes.sources) as c,
        ):
            columns: list[Sequence[Value]] = []
            for q in range(size):
                values = [
                    writer.let(writer.load(self.sums, p * size + q, c, v, 0), "m")
                    for p in range(size)
                ]
                columns.append(gather(writer, matrix, values))
            for r in range(taps):
                line = gather(writer, matrix, [column[r] for column in columns])
                for s, value in enumerate(line):
                    at = as_index(c) * taps**2 + (r * taps + s)
                    writer.store(self.target, v, at, 0, value=value)
