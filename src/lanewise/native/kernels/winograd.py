"""Convolution by Winograd's algorithm, forward and gradient of the input: images in the lanes.

    y[k] = Aᵀ [ Σ_c  U[k,c] ⊙ (Bᵀ x[c] B) ] A        U[k,c] = G w[k,c] Gᵀ

for every tile of m × m results (`winograd_transforms.py`). The gradient of the input is the same
with maps and sources exchanged and the taps in the opposite order. Some tiles at a time (a block)
go through three stages: the sources' transforms, `size`² small matrix products, and back. Only the
products meet maps with sources:

    multiply–adds of the products = tiles · size² · maps · sources · L

instead of the direct m² · r² of a tile. Tiles that stick out over the source read zeros; of tiles
that stick out over the result only what exists is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import product
from typing import TypeAlias

from lanewise.native.kernels.functions import number
from lanewise.native.kernels.fused_norm import AsItStands, Reads, Sums, Tells
from lanewise.native.kernels.images import row_blocks
from lanewise.native.kernels.register_tiles import add_product, blocks
from lanewise.native.kernels.result import Result
from lanewise.native.kernels.winograd_both import WeightPart, Weights
from lanewise.native.kernels.winograd_factors import (
    Chunks,
    WinogradTile,
    factors_shape,
    shares_blocks,
)
from lanewise.native.kernels.winograd_places import (
    TileTables,
    Winograd,
    block_tiles,
    clear,
    pooled_places,
    written_places,
)
from lanewise.native.kernels.winograd_sources import SourceTransform, room_shape
from lanewise.native.kernels.winograd_transforms import gather
from lanewise.native.nest import (
    LANES,
    Buffer,
    Entry,
    Index,
    IndexLike,
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

#: row and column inside a tile, and the value there
_Result: TypeAlias = tuple[int, int, Value]

#: the places of a window, row by row
WINDOW = ((0, 0), (0, 1), (1, 0), (1, 1))
#: sources that are written out in the products' inner loop
UNROLLED = 4
PLAIN = AsItStands()


def workspace_shapes(
    sizes: Winograd, tile: WinogradTile, reads: Reads = PLAIN, weights: Weights | None = None
) -> dict[str, tuple[int, ...]]:
    """Arrays of one call's own: transformed sources, products, what is copied of the sources.

    The arrays of the points are one row longer than needed, so that they do not all begin in the
    same set of a cache.
    """
    algorithm = sizes.algorithm
    rows = min(tile.chunk, sizes.maps)
    if weights:  # transforms of x stand where the products were
        rows = max(rows, row_blocks(sizes.maps) * LANES)
    return {
        "sources": (algorithm.points, tile.sources + 1, tile.block, LANES),
        "products": (algorithm.points, rows + 1, tile.block, LANES),
        "spare": (algorithm.outputs, algorithm.outputs, LANES),
        "room": room_shape(sizes, tile.block, reads),
    }


def correlate(
    name: str,
    sizes: Winograd,
    tile: WinogradTile,
    *,
    bias: bool = False,
    affine: bool = False,
    accumulate: bool = False,
    relu: bool = False,
    mask: bool = False,
    plus: bool = False,
    pool: bool = False,
    argument: bool = False,
    away: bool = False,
    reads: Reads = PLAIN,
    tells: Tells | None = None,
    weights: Weights | None = None,
) -> Kernel:
    """Buffers source (or those of `reads`), factors, sources, products, spare, room, those of
    what it `tells` of its result, those of `winograd_both.WeightPart` if the gradient of the
    `weights` is wanted too, those of `Result`."""
    shape = (sizes.maps, sizes.rows.destination, sizes.columns.destination, LANES)
    result = Result(
        shape, bias, affine, accumulate, relu, mask, plus=plus, pool=pool, argument=argument
    )
    return _Nest(name, sizes, tile, result, reads, tells, away, weights).write()


class _Nest:
    """Writes `correlate`."""

    def __init__(
        self,
        name: str,
        sizes: Winograd,
        tile: WinogradTile,
        result: Result,
        reads: Reads = PLAIN,
        tells: Tells | None = None,
        away: bool = False,
        weights: Weights | None = None,
    ) -> None:
        self.sizes, self.tile, self.result, self.away = sizes, tile, result, away
        self.tally = tells.tally(result.shape) if tells else None
        self.part = WeightPart(sizes, tile.block, weights) if weights else None
        self.algorithm = sizes.algorithm
        self.chunks = Chunks.of(sizes, tile)
        planes = (sizes.sources, sizes.rows.source, sizes.columns.source, LANES)
        reading = self.reading = reads.reading(planes)
        self.factors = Buffer("factors", factors_shape(sizes, tile))
        self.sources, self.products, self.spare, self.room = (
            Buffer(name, shape, access="update", own=True)
            for name, shape in workspace_shapes(sizes, tile, reads, weights).items()
        )
        self.writer = Writer(
            name,
            [
                *reading.buffers,
                self.factors,
                self.sources,
                self.products,
                self.spare,
                self.room,
                *(self.tally.buffers if self.tally else []),
                *(self.part.buffers if self.part else []),
                *result.buffers,
            ],
        )
        self.transform = SourceTransform(
            self.writer, sizes, reading, self.sources, self.room, tile.block
        )
        self.written = TileTables(
            "written", written_places(sizes, tile.block), self.algorithm.outputs
        )
        self.windows = TileTables(
            "windows", pooled_places(sizes, tile.block), self.algorithm.outputs // 2
        )

    @cached_property
    def blocks(self) -> tuple[int, Buffer, Buffer]:
        """How many; of each the tiles, and the register tiles that they take."""
        counts = block_tiles(self.sizes, self.tile.block)
        registers = [-(-n // self.tile.tiles) for n in counts]
        return len(counts), table("block_tiles", counts), table("block_registers", registers)

    def write(self) -> Kernel:
        """The whole kernel."""
        writer, sizes, tile = self.writer, self.sizes, self.tile
        once = tile.sources == sizes.sources
        self.transform.clear()
        if self.part:
            self.part.begin(writer)
        blocks, chunks = self.blocks[0], self.chunks.number
        by_block = shares_blocks(blocks, chunks)
        alone = bool(self.tally or self.part or self.reading.kept)  # only in training
        with writer.loop("b", blocks, shared=by_block and not alone) as b:
            if once:
                self.transform.block(b, Index(), tile.sources)
            with writer.loop("h", chunks, shared=not (by_block or alone)) as h:
                if not once:
                    clear(writer, self.products)
                with writer.loop("s", sizes.sources // tile.sources) as s:
                    first = as_index(s) * tile.sources
                    if not once:
                        self.transform.block(b, first, tile.sources)
                    self._multiply(b, h, s, once)
                self._transform_back(b, h)
            if self.part:
                self.part.block(writer, b, self.written, self.sources, self.products)
        if self.tally:
            self.tally.finish(writer)
        if self.part:
            self.part.finish(writer)
        return writer.finish()

    # -- the products

    def _multiply(self, b: Var, h: Var, s: Var, once: bool) -> None:
        writer = self.writer
        with writer.loop("f", self.algorithm.points) as f:
            for k, maps in self.chunks.tiles(writer, h, self.sizes, self.tile):
                with writer.loop("t", Entry(self.blocks[2], as_index(b))) as t:
                    self._product((as_index(h), as_index(s), as_index(f), k), maps, t, once)

    def _product(
        self, at: tuple[Index, Index, Index, Index], maps: int, t: Var, once: bool
    ) -> None:
        """products[f, maps, tiles] = Σ_c factors[…, f, maps, c] · sources[f, c, tiles].

        `at`: chunk, part of the sources, f and the register tile of maps.
        """
        writer, tile, (_, _, f, k) = self.writer, self.tile, at
        columns = range(tile.tiles)
        places = [
            [(f, k * tile.maps + i, as_index(t) * tile.tiles + j, 0) for j in columns]
            for i in range(maps)
        ]
        cells = [[writer.register("a") for _ in line] for line in places]
        for line, row in zip(places, cells, strict=True):
            for place, cell in zip(line, row, strict=True):
                zero: Value = number(0.0)
                writer.assign(cell, zero if once else writer.load(self.products, *place))
        for start, count, times in blocks(tile.sources, UNROLLED):
            with writer.loop("c", start + count * times, start, count) as c:
                for u in range(count):
                    self._outer_product(cells, at, as_index(c) + u, t)
        for line, row in zip(places, cells, strict=True):
            for place, cell in zip(line, row, strict=True):
                writer.store(self.products, *place, value=Read(cell))

    def _outer_product(
        self,
        cells: list[list[Register]],
        at: tuple[Index, Index, Index, Index],
        c: Index,
        t: Var,
    ) -> None:
        writer, tiles, f = self.writer, self.tile.tiles, at[2]
        values = [
            writer.let(writer.load(self.sources, f, c, as_index(t) * tiles + j, 0), "x")
            for j in range(tiles)
        ]
        for i, line in enumerate(cells):
            factor = writer.let(writer.splat(self.factors, *at, c, i), "w")
            for cell, value in zip(line, values, strict=True):
                add_product(writer, cell, factor, value)

    # -- and back

    def _transform_back(self, b: Var, h: Var) -> None:
        writer = self.writer
        with writer.loop("k", Entry(self.chunks.maps, as_index(h))) as k:
            map = as_index(h) * self.tile.chunk + k
            self._begin_sums(b, k, map)
            sums = Sums(writer, self.tally, map) if self.tally else None
            with writer.loop("i", Entry(self.blocks[1], as_index(b))) as i:
                n = as_index(b) * self.tile.block + i
                if self.result.pool:
                    self._store_windows(n, map, self._results(k, i), self._results(k, i))
                else:
                    self._tile_back(n, map, k, i, sums)
            if sums:
                sums.store()

    def _begin_sums(self, b: Var, k: Var, map: Index) -> None:
        """Before the first block: sums are taken about a pixel of the first tile, not in a corner,
        where padding would show."""
        writer, tally, m = self.writer, self.tally, self.algorithm.outputs
        if tally is None:
            return
        row, column = (min(m, a.destination) - 1 for a in (self.sizes.rows, self.sizes.columns))
        with writer.loop("w", Entry(self.begins, as_index(b))):
            pivot = None
            if tally.pivots:
                values = {(r, s): value for r, s, value in self._results(k, Index())}
                pivot = values[row, column]
            tally.begin(writer, map, pivot)

    @cached_property
    def begins(self) -> Buffer:
        """Whether a block is the first."""
        return table("begins", [int(b == 0) for b in range(self.blocks[0])])

    def _tile_back(self, n: Index, map: Index, k: Var, i: Var, sums: Sums | None) -> None:
        writer = self.writer
        row, column = (as_index(Entry(t, n)) for t in (self.written.row, self.written.column))
        if self.written.any_whole:
            with writer.loop("w", Entry(self.written.whole, n)):
                told = []
                for r, s, value in self._results(k, i):
                    at = map, row + r, column + s, 0
                    y = self._finish(at, value)
                    if sums:
                        told.append(sums.terms(at, y))
                if sums:
                    sums.add_tile(told, self.algorithm.outputs)
        if self.written.any_part:
            with writer.loop("w", Entry(self.written.part, n)):
                self._finish_part(n, map, self._results(k, i), sums)

    def _store_windows(
        self, n: Index, map: Index, whole: Iterator[_Result], part: Iterator[_Result]
    ) -> None:
        """Of each 2 × 2 results the largest."""
        writer, windows, m = self.writer, self.windows, self.algorithm.outputs
        row, column = (as_index(Entry(t, n)) for t in (windows.row, windows.column))
        if windows.any_whole:
            with writer.loop("w", Entry(windows.whole, n)):
                found = {(i, j): self._begun(map, value) for i, j, value in whole}
                for i, j in product(range(m // 2), range(m // 2)):
                    four = [found[2 * i + a, 2 * j + b] for a, b in WINDOW]
                    self.result.store_window(writer, (map, row + i, column + j, 0), four)
        if windows.any_part:
            with writer.loop("w", Entry(windows.part, n)):
                for i, j, value in part:
                    writer.store(self.spare, i, j, 0, value=self._begun(map, value))
                with (
                    writer.loop("r", Entry(windows.rows, n)) as r,
                    writer.loop("s", Entry(windows.columns, n)) as s,
                ):
                    at = ((as_index(r) * 2 + a, as_index(s) * 2 + b, 0) for a, b in WINDOW)
                    four = [writer.load(self.spare, *one) for one in at]
                    self.result.store_window(writer, (map, row + r, column + s, 0), four)

    def _begun(self, map: Index, value: Value) -> Value:
        """With the bias."""
        if self.result.bias:
            value = op("add", self.result.start(self.writer, (map, 0, 0, 0)), value)
        return self.writer.let(value, "y")

    def _finish_part(
        self, n: Index, map: Index, results: Iterator[_Result], sums: Sums | None
    ) -> None:
        """What exists of a tile that sticks out over the result. (A loop cannot choose among
        registers, so it goes through memory.)"""
        writer, written = self.writer, self.written
        for row, column, value in results:
            writer.store(self.spare, row, column, 0, value=value)
        parts = writer.accumulators("part", 2 if sums else 0)
        with (
            writer.loop("r", Entry(written.rows, n)) as r,
            writer.loop("s", Entry(written.columns, n)) as s,
        ):
            inside = as_index(Entry(written.row, n)) + r, as_index(Entry(written.column, n)) + s
            at = (map, *inside, 0)
            y = self._finish(at, writer.let(writer.load(self.spare, r, s, 0)))
            if sums:
                a, b, c = sums.terms(at, y)
                writer.assign(parts[0], op("add", Read(parts[0]), a))
                writer.assign(parts[1], op("fma", b, c, Read(parts[1])))
        if sums:
            sums.add([Read(part) for part in parts])

    def _results(self, k: Var, i: IndexLike) -> Iterator[_Result]:
        """Aᵀ M A of one tile of one map: (row, column, value). Of eight points even rows come
        first, then odd ones: registers hold no more."""
        writer, matrix, size = self.writer, self.algorithm.result, self.algorithm.size
        outputs = range(self.algorithm.outputs)
        for rows in (outputs[::2], outputs[1::2]) if size > 6 else (outputs,):
            columns = []
            for q in range(size):
                values = [
                    writer.let(writer.load(self.products, p * size + q, k, i, 0), "m")
                    for p in range(size)
                ]
                columns.append(gather(writer, matrix, values, rows))
            for place, r in enumerate(rows):
                line = gather(writer, matrix, [column[place] for column in columns])
                for s, value in enumerate(line):
                    yield r, s, value

    def _finish(self, at: tuple[IndexLike, ...], value: Value) -> Value:
        result = self.result
        if result.bias or result.accumulate:
            value = op("add", result.start(self.writer, at), value)
        value = self.writer.let(result.finish(self.writer, at, self.writer.let(value, "y")), "y")
        self.writer.store(result.buffers[-1], *at, value=value, away=self.away)
        return value
