"""Convolution: forward, gradient of the input, gradient of the bias.

    y[k,p,q]   = b[k] + Σ_crs  w[k,c,r,s] · x[c, p·stride + r·dilation − pad, q·…]
    dx[c,h,w]  =        Σ_krs  w[k,c,r,s] · dy[k, p, q]    over the (p, r), (q, s) that meet (h, w)
    db[k]      =        Σ_pqL  dy[k,p,q]

The first two are one nest, `correlate`: destination maps from source maps through taps. Each value
of x, y, dx, dy is a vector of L images; weights are scalars in every lane. A register tile is
`maps` destination maps × `columns` destination columns. The gradient of the weights has a file of
its own, `weights.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lanewise.native.kernels.correlation import (
    Correlation,
    Tile,
    columns_read,
    packed_shape,
    paired_distance,
)
from lanewise.native.kernels.fused_norm import Tells
from lanewise.native.kernels.register_tiles import blocks, products
from lanewise.native.kernels.result import Result
from lanewise.native.kernels.taps import (
    Phase,
    RowTaps,
    Segment,
    column_segments,
    phases,
)
from lanewise.native.kernels.told_tiles import ToldTiles
from lanewise.native.nest import (
    ELEMENT_BYTES,
    LANES,
    Buffer,
    Index,
    IndexLike,
    Kernel,
    Read,
    Register,
    Value,
    Var,
    as_index,
    op,
)
from lanewise.native.writer import Writer

#: rows from which threads share these
MANY_ROWS = 12


def correlate(
    name: str,
    sizes: Correlation,
    tile: Tile,
    *,
    bias: bool = False,
    affine: bool = False,
    accumulate: bool = False,
    relu: bool = False,
    mask: bool = False,
    plus: bool = False,
    pool: bool = False,
    argument: bool = False,
    thin: tuple[int, ...] = (),
    away: bool = False,
    tells: Tells | None = None,
) -> Kernel:
    """Destination maps from source maps: buffers source, weight, [packed], those of what it `tells`
    of its result, those of `Result`. A tile of a `pool` has an even number of columns, and all
    sources at once; the latter holds with a `thin` map, too, which has a value at the first of the
    places that a stride tells apart. What tells goes past the caches if `away`, and is not changed
    where it waits for more sources."""
    shape = (
        sizes.groups * sizes.maps,
        sizes.rows.destination,
        sizes.columns.destination,
        LANES,
    )
    waits = tile.waits(sizes.sources)
    result = Result(shape, bias, affine, accumulate, relu, mask, waits, plus, pool, argument, thin)
    told = ToldTiles(tells, result, away) if tells else None
    return _Nest(name, sizes, tile, result, told).write()


def _shared_axis(sizes: Correlation, tile: Tile) -> str:
    """What threads share: rows, or maps where rows are few. (Rows that meet the taps in several
    ways would be cut differently where sums wait for the next sources.)"""
    rows, maps = sizes.rows.destination, -(-sizes.maps // tile.maps)
    waits = tile.waits(sizes.sources) and len(phases(sizes.rows)) > 1
    return "k" if waits or rows < min(MANY_ROWS, maps) else "p"


@dataclass(frozen=True)
class _Line:
    """Destination rows row = start + step · i that meet the same taps. `half`: which row of its
    windows it is, if the result is pooled. `first`: row = step · i."""

    taps: RowTaps
    i: Index
    row: Index
    first: bool
    half: int = 0
    window: IndexLike = 0


@dataclass(frozen=True)
class _Part:
    """Tiles of columns; tile i of them begins at column start + step · width · i. `slot`: which of
    the tiles that were packed it is."""

    segment: Segment
    phase: Phase
    i: Index
    slot: IndexLike = 0

    def number(self, j: int) -> Index:
        """Which of its phase's columns column j of the tile is."""
        return self.i * self.segment.width + (self.segment.start + j)

    def column(self, j: int) -> Index:
        """Destination column j of the tile."""
        return self.number(j) * self.phase.step + self.phase.start

    def window(self, j: int) -> Index:
        """The window of columns 2j and 2j + 1 of the tile."""
        return self.i * (self.segment.width // 2) + (self.segment.start // 2 + j)


class _Nest:
    """Writes `correlate`: loops over groups, blocks of sources, tiles; then sources and taps."""

    def __init__(
        self,
        name: str,
        sizes: Correlation,
        tile: Tile,
        result: Result,
        told: ToldTiles | None = None,
    ) -> None:
        assert not (told and result.waits and result.changes), "sums are finished in a later pass"
        self.sizes, self.tile, self.result, self.told = sizes, tile, result, told
        maps = sizes.groups * sizes.sources
        shape = (maps, sizes.rows.source, sizes.columns.source, LANES)
        kept, taken = ("bf16", "i32") if tile.pairs else ("f32", "f32")
        self.source = Buffer("source", shape, kept, align=LANES * ELEMENT_BYTES[kept])
        self.weight = Buffer("weight", (sizes.weights // tile.step,), taken, align=4)
        self.packed = Buffer("packed", packed_shape(sizes, tile), taken, "update", own=True)
        self.weight_map = paired_distance(sizes, tile.step)
        buffers = [self.source, self.weight, *[self.packed] * bool(tile.packs)]
        self.writer = Writer(name, [*buffers, *(told.buffers if told else []), *result.buffers])
        self.shared = "" if told else _shared_axis(sizes, tile)  # told in training alone

    def write(self) -> Kernel:
        """The whole kernel."""
        writer, sizes, result = self.writer, self.sizes, self.result
        if self.told:
            self.told.begin(writer)
        if result.waits and not result.accumulate:
            self._everywhere(lambda at: result.wait(writer, at, result.start(writer, at)))
        with writer.loop("g", sizes.groups) as g:
            for first, count, times in blocks(sizes.sources, self.tile.sources or sizes.sources):
                with writer.loop("b", first + count * times, first, count) as b:
                    first_source = as_index(g) * sizes.sources + b
                    for line, k, maps, part in self._tiles(first_source, count):
                        self._tile(g, b, count, line, k, maps, part)
        if result.waits and result.changes:
            self._everywhere(lambda at: result.store(writer, at, result.go_on(writer, at)))
        if self.told:
            self.told.finish(writer)
        return writer.finish()

    def _everywhere(self, do: Callable[[tuple[IndexLike, ...]], None]) -> None:
        """Every thread has the same places here as in the tiles."""
        rows, columns = self.result.shape[1:3]
        with self.writer.loop("g", self.sizes.groups) as g:
            for k, count in self._maps():
                with (
                    self.writer.loop("i", count) as i,
                    self.writer.loop("p", rows, shared=self.shared == "p") as p,
                    self.writer.loop("n", columns) as n,
                ):
                    do((as_index(g) * self.sizes.maps + k + i, p, n, 0))

    # -- loops around a tile

    def _tiles(self, first: Index, sources: int) -> Iterator[tuple[_Line, Var, int, _Part]]:
        """Every tile, in the order that was asked for: rows, first map, maps, columns."""
        axes: dict[str, Callable[[], Iterator[Any]]] = {
            "p": self._rows,
            "k": self._maps,
            "n": self._columns,
        }
        if self.tile.packs:
            yield from self._packed_tiles(first, sources)
            return
        outer, middle, inner = tuple(self.tile.order)
        for a in axes[outer]():
            for b in axes[middle]():
                for c in axes[inner]():
                    at = {outer: a, middle: b, inner: c}
                    yield at["p"], *at["k"], at["n"]

    def _rows(self) -> Iterator[_Line]:
        for phase in phases(self.sizes.rows):
            taps = RowTaps(phase.taps, phase.numbers)
            shared = self.shared == "p"
            if self.result.pool:
                with self.writer.loop("p", phase.taps.destination // 2, shared=shared) as p:
                    for half in (0, 1):
                        row = as_index(p) * 2 + half
                        yield _Line(taps, row, row, True, half, p)
                continue
            with self.writer.loop("p", phase.taps.destination, shared=shared) as p:
                i = as_index(p)
                yield _Line(taps, i, i * phase.step + phase.start, phase.start == 0)

    def _maps(self) -> Iterator[tuple[Var, int]]:
        for first, count, times in blocks(self.sizes.maps, self.tile.maps):
            with self.writer.loop(
                "k", first + count * times, first, count, shared=self.shared == "k"
            ) as k:
                yield k, count

    def _columns(self) -> Iterator[_Part]:
        for phase in phases(self.sizes.columns):
            for segment in column_segments(phase.taps, self.tile.columns):
                with self.writer.loop("n", segment.tiles) as i:
                    yield _Part(segment, phase, as_index(i))

    def _packed_tiles(self, first: Index, sources: int) -> Iterator[tuple[_Line, Var, int, _Part]]:
        """The tiles of all maps on a run of columns, when their sources have been packed."""
        writer = self.writer
        for line in self._rows():
            for phase in phases(self.sizes.columns):
                for segment in column_segments(phase.taps, self.tile.columns):
                    for begin, run, times in blocks(segment.tiles, self.tile.packs):
                        with writer.loop("n", begin + run * times, begin, run) as n:
                            self._pack(first, sources, line, segment, n, run)
                            for k, maps in self._maps():
                                with writer.loop("i", run) as i:
                                    yield line, k, maps, _Part(segment, phase, as_index(n) + i, i)

    def _pack(
        self, first: Index, sources: int, line: _Line, segment: Segment, n: Var, run: int
    ) -> None:
        """Copy what the tiles on a run of columns read of a block of sources."""
        writer = self.writer
        if not line.taps.taps.taps:
            return
        with (
            writer.loop("c", sources // self.tile.step) as c,
            writer.loop("m", line.taps.count(line.i)) as m,
            writer.loop("i", run) as i,
        ):
            begin = (as_index(n) + i) * segment.advance + segment.origin
            for place, j in enumerate(columns_read(segment)):
                row, map = line.taps.source(line.i, m), as_index(c) * self.tile.step + first
                found: list[Value] = [
                    writer.load(self.source, map + n, row, begin + j, 0)
                    for n in range(self.tile.step)
                ]
                value = op("pair", *found) if self.tile.pairs else found[0]
                writer.store(self.packed, i, c, m, place, 0, value=value)

    # -- a tile

    def _tile(
        self, g: Var, b: Var, sources: int, line: _Line, k: Var, maps: int, part: _Part
    ) -> None:
        writer, result = self.writer, self.result
        meets = line.taps.taps.taps and part.phase.numbers
        thin = bool(result.thin) and line.first and part.phase.start == 0
        stays = result.accumulate and not result.changes and not self.told
        if not meets and (result.waits or stays):
            return  # what stands in the target already is right
        k0 = as_index(g) * self.sizes.maps + k
        columns = range(part.segment.width)
        places = [[(k0 + i, line.row, part.column(j), 0) for j in columns] for i in range(maps)]
        begin = result.go_on if result.waits else result.start
        begins = [[begin(writer, at) for at in row] for row in places]
        if thin:
            begins = [
                [result.start_thin(writer, (k0 + i, line.i, part.number(j), 0)) for j in columns]
                for i in range(maps)
            ]
        cells = [[writer.assign(writer.register("a"), value) for value in row] for row in begins]
        if meets:
            turns = sources // self.tile.step
            with writer.loop("c", turns) as c:
                if self.told:
                    tile = maps, part.segment.width, part.phase.step
                    self.told.fetch_some(writer, places[0][0], tile, c, turns)
                with writer.loop("m", line.taps.count(line.i)) as m:
                    self._products(cells, g, k, b, c, line, m, part)
        if result.pool:
            self._store_pairs(cells, k0, line, part)
            return
        if self.told and not result.waits:
            self.told.store(writer, places, cells, self._begins(line, part))
            return
        end = result.wait if result.waits else result.store
        for row, registers in zip(places, cells, strict=True):
            for at, cell in zip(row, registers, strict=True):
                end(writer, at, Read(cell))
        if self.told:
            last = self.told.last(self.sizes.sources, self.tile.sources, b, sources)
            self.told.add(writer, places, cells, self._begins(line, part), last)

    def _begins(self, line: _Line, part: _Part) -> list[IndexLike] | None:
        """Whether a tile is the first of its maps: numbers, all of them 1 then; None: it is not."""
        if not self.told or part.segment.start or part.phase.start or not line.first:
            return None
        rows = self.told.first(line.taps.taps.destination, line.i)
        return rows + self.told.first(part.segment.tiles, part.i)

    def _store_pairs(
        self, cells: list[list[Register]], first: Index, line: _Line, part: _Part
    ) -> None:
        """Of a tile, two neighbours at a time."""
        for i, row in enumerate(cells):
            for j in range(part.segment.width // 2):
                at = first + i, line.window, part.window(j), 0
                pair = Read(row[2 * j]), Read(row[2 * j + 1])
                self.result.store_pair(self.writer, at, pair, line.half)

    def _products(
        self,
        cells: list[list[Register]],
        g: Var,
        k: Var,
        b: Var,
        c: Var,
        line: _Line,
        m: Var,
        part: _Part,
    ) -> None:
        writer, sizes = self.writer, self.sizes
        number = as_index(b) + c
        at_weight = (
            as_index(g) * (sizes.weight_group // self.tile.step)
            + as_index(k) * self.weight_map
            + number * sizes.weight_source
            + as_index(line.taps.tap(line.i, m)) * sizes.columns.taps
        )
        first = part.i * part.segment.advance + part.segment.origin
        read = columns_read(part.segment)

        def value(j: int) -> Value:
            if self.tile.packs:
                return writer.load(self.packed, part.slot, c, m, read.index(j), 0)
            source_map = as_index(g) * sizes.sources + number
            return writer.load(self.source, source_map, line.taps.source(line.i, m), first + j, 0)

        products(
            writer,
            cells,
            lambda i, t: writer.splat(
                self.weight, at_weight + (i * self.weight_map + part.phase.numbers[t])
            ),
            value,
            part.segment,
            part.phase.taps.by_column,
            "dot" if self.tile.pairs else "fma",
        )


# ---- gradient of the bias -----------------------------------------------------------------------


def bias_gradient(name: str, maps: int, pixels: int) -> Kernel:
    """bias[k] += Σ over pixels and lanes of gradient[k]."""
    gradient = Buffer("gradient", (maps, pixels, LANES))
    bias = Buffer("bias", (maps,), access="update", align=4)
    writer = Writer(name, [gradient, bias])
    wide = 4 if pixels >= 4 else 1  # independent sums hide the latency of an addition
    with writer.loop("k", maps) as k:
        cells = writer.accumulators("a", wide)
        for first, count, tiles in blocks(pixels, wide):
            with writer.loop("i", first + count * tiles, first, count) as i:
                for j in range(count):
                    value = writer.load(gradient, k, as_index(i) + j, 0)
                    writer.assign(cells[j], op("add", Read(cells[j]), value))
        total: Value = Read(cells[0])
        for cell in cells[1:]:
            total = op("add", total, Read(cell))
        summed = op("add", writer.load(bias, k, lanes=1), op("lanesum", total))
        writer.store(bias, k, value=summed)
    return writer.finish()
