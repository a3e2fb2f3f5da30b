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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from lanewise.native.kernels.conv import add_product, blocks
from lanewise.native.kernels.functions import number
from lanewise.native.kernels.result import Result
from lanewise.native.kernels.winograd_transforms import Algorithm, gather, spread
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
    Writer,
    as_index,
    op,
    table,
)

#: row and column inside a tile, and the value there
_Result: TypeAlias = tuple[int, int, Value]

#: sources that are written out in the products' inner loop
UNROLLED = 4
#: a tile at an edge stands in a strip of its own, with room for neighbours on both sides
EDGE_MARGIN, EDGE_COLUMNS = 5, 16


@dataclass(frozen=True)
class Axis:
    """One axis of a convolution of stride 1: destination d meets source d + tap − before."""

    destination: int
    source: int
    before: int


@dataclass(frozen=True)
class Winograd:
    """Sizes of one convolution of stride 1, forward or input gradient."""

    algorithm: Algorithm
    maps: int
    sources: int
    rows: Axis
    columns: Axis

    @property
    def across(self) -> int:
        """Tiles side by side."""
        return -(-self.columns.destination // self.algorithm.outputs)

    @property
    def tiles(self) -> int:
        """Tiles of one map."""
        return self.across * -(-self.rows.destination // self.algorithm.outputs)


@dataclass(frozen=True)
class WinogradTile:
    """Registers of the products: `maps` × `tiles`. A block is `block` tiles (a multiple of
    `tiles`), through which `chunk` maps go at a time (a multiple of `maps`); `sources` at a time
    are transformed (a divisor of all), and where that is not all of them, again for each chunk."""

    maps: int
    tiles: int
    block: int
    chunk: int
    sources: int


def factors_shape(sizes: Winograd, tile: WinogradTile) -> tuple[int, ...]:
    """The transformed weights U, in the order in which the products read them: chunks of maps,
    parts of the sources, points, register tiles of maps, sources of a part, maps of a tile."""
    chunks, parts = -(-sizes.maps // tile.chunk), sizes.sources // tile.sources
    registers = tile.chunk // tile.maps
    return chunks, parts, sizes.algorithm.points, registers, tile.sources, tile.maps


def workspace_shapes(sizes: Winograd, tile: WinogradTile) -> dict[str, tuple[int, ...]]:
    """Arrays of one call's own: transformed sources, products, tiles at the edges.

    The arrays of the points are one row longer than needed, so that they do not all begin in the
    same set of a cache.
    """
    algorithm = sizes.algorithm
    chunk = min(tile.chunk, sizes.maps)
    return {
        "sources": (algorithm.points, tile.sources + 1, tile.block, LANES),
        "products": (algorithm.points, chunk + 1, tile.block, LANES),
        "spare": (algorithm.outputs, algorithm.outputs, LANES),
        "edges": (max(1, len(_edges(sizes))), algorithm.size, EDGE_COLUMNS, LANES),
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
) -> Kernel:
    """Buffers source, factors, sources, products, spare, edges, those of `Result`."""
    shape = (sizes.maps, sizes.rows.destination, sizes.columns.destination, LANES)
    return _Nest(name, sizes, tile, Result(shape, bias, affine, accumulate, relu, mask)).write()


@dataclass(frozen=True)
class _Span:
    """Where a tile overlaps an array along one axis: first place of the tile, first index of the
    array, how many."""

    at: int
    first: int
    count: int

    @staticmethod
    def of(origin: int, width: int, size: int) -> _Span:
        first, end = max(0, origin), min(size, origin + width)
        if end <= first:
            return _Span(0, 0, 0)
        return _Span(first - origin, first, end - first)


@dataclass(frozen=True)
class _Place:
    """Where a tile lies, in its source or its result."""

    row: _Span
    column: _Span

    @staticmethod
    def of(row: _Span, column: _Span) -> _Place:
        """Nothing of a tile is inside if none of its rows or none of its columns is."""
        nothing = _Span(0, 0, 0)
        return _Place(row, column) if row.count and column.count else _Place(nothing, nothing)

    def whole(self, width: int) -> bool:
        """Whether no part of it sticks out."""
        return self.row.count == width and self.column.count == width


def _read_places(sizes: Winograd) -> list[_Place]:
    m, size = sizes.algorithm.outputs, sizes.algorithm.size
    return [
        _Place.of(
            _Span.of(row * m - sizes.rows.before, size, sizes.rows.source),
            _Span.of(column * m - sizes.columns.before, size, sizes.columns.source),
        )
        for row, column in (divmod(n, sizes.across) for n in range(sizes.tiles))
    ]


def _written_places(sizes: Winograd) -> list[_Place]:
    m = sizes.algorithm.outputs
    return [
        _Place.of(
            _Span.of(row * m, m, sizes.rows.destination),
            _Span.of(column * m, m, sizes.columns.destination),
        )
        for row, column in (divmod(n, sizes.across) for n in range(sizes.tiles))
    ]


def _edges(sizes: Winograd) -> list[tuple[int, int, int, int]]:
    """The different ways in which tiles stick out over the source: each has a copy with zeros."""
    size = sizes.algorithm.size
    return sorted({_edge(p) for p in _read_places(sizes) if not p.whole(size)})


def _edge(place: _Place) -> tuple[int, int, int, int]:
    return place.row.at, place.row.count, place.column.at, place.column.count


@dataclass(frozen=True)
class _Chunks:
    """Of each chunk the maps, its whole register tiles, and whether there is a rest."""

    number: int
    maps: Buffer
    whole: Buffer
    rest: Buffer

    @staticmethod
    def of(sizes: Winograd, tile: WinogradTile) -> _Chunks:
        counts = [min(tile.chunk, n) for n in range(sizes.maps, 0, -tile.chunk)]
        return _Chunks(
            len(counts),
            table("chunk_maps", counts),
            table("chunk_whole", [n // tile.maps for n in counts]),
            table("chunk_rest", [int(n % tile.maps > 0) for n in counts]),
        )

    def tiles(
        self, writer: Writer, h: Var, sizes: Winograd, tile: WinogradTile
    ) -> Iterator[tuple[Index, int]]:
        """Register tiles of maps: number, and how many maps."""
        whole = Entry(self.whole, as_index(h))
        with writer.loop("k", whole) as k:
            yield as_index(k), tile.maps
        if sizes.maps % tile.maps:
            with writer.loop("k", Entry(self.rest, as_index(h))) as k:
                yield as_index(whole) + k, sizes.maps % tile.maps


class _Tables:
    """Where the tiles lie, one entry each: a loop over tiles looks them up."""

    def __init__(self, stem: str, places: Sequence[_Place], width: int) -> None:
        whole = [int(place.whole(width)) for place in places]
        self.any_whole, self.any_part = any(whole), not all(whole)
        self.whole = table(f"{stem}_whole", whole)
        self.part = table(f"{stem}_part", [1 - w for w in whole])
        self.row = table(f"{stem}_row", [p.row.first for p in places])
        self.rows = table(f"{stem}_rows", [p.row.count for p in places])
        self.row_at = table(f"{stem}_row_at", [p.row.at for p in places])
        self.column = table(f"{stem}_column", [p.column.first for p in places])
        self.columns = table(f"{stem}_columns", [p.column.count for p in places])


class _Nest:
    """Writes `correlate`."""

    def __init__(self, name: str, sizes: Winograd, tile: WinogradTile, result: Result) -> None:
        self.sizes, self.tile, self.result = sizes, tile, result
        self.algorithm = sizes.algorithm
        self.chunks = _Chunks.of(sizes, tile)
        planes = (sizes.sources, sizes.rows.source, sizes.columns.source, LANES)
        self.source = Buffer("source", planes)
        self.factors = Buffer("factors", factors_shape(sizes, tile))
        self.sources, self.products, self.spare, self.edges = (
            Buffer(name, shape, access="update")
            for name, shape in workspace_shapes(sizes, tile).items()
        )
        self.writer = Writer(
            name,
            [
                self.source,
                self.factors,
                self.sources,
                self.products,
                self.spare,
                self.edges,
                *result.buffers,
            ],
        )
        read = _read_places(sizes)
        self.read = _Tables("read", read, self.algorithm.size)
        self.written = _Tables("written", _written_places(sizes), self.algorithm.outputs)
        self.strip = min(self.algorithm.size, sizes.columns.source)
        edges = _edges(sizes)
        numbers = [0 if p.whole(self.algorithm.size) else edges.index(_edge(p)) for p in read]
        begins = [min(p.column.first, sizes.columns.source - self.strip) for p in read]
        self.edge_number = table("edge", numbers)
        self.edge_begin = table("edge_begin", begins)
        shifts = [
            EDGE_MARGIN + p.column.at + begin - p.column.first
            for p, begin in zip(read, begins, strict=True)
        ]
        self.edge_column = table("edge_column", shifts)

    @cached_property
    def blocks(self) -> tuple[int, Buffer, Buffer]:
        """How many; of each the tiles, and the register tiles that they take."""
        left = range(self.sizes.tiles, 0, -self.tile.block)
        counts = [min(self.tile.block, n) for n in left]
        registers = [-(-n // self.tile.tiles) for n in counts]
        return len(counts), table("block_tiles", counts), table("block_registers", registers)

    def write(self) -> Kernel:
        """The whole kernel."""
        writer, sizes, tile = self.writer, self.sizes, self.tile
        once = tile.sources == sizes.sources
        if self.read.any_part:
            self._clear(self.edges)
        with writer.loop("b", self.blocks[0]) as b:
            if once:
                self._transform(b, Index())
            with writer.loop("h", self.chunks.number) as h:
                if not once:
                    self._clear(self.products)
                with writer.loop("s", sizes.sources // tile.sources) as s:
                    first = as_index(s) * tile.sources
                    if not once:
                        self._transform(b, first)
                    self._multiply(b, h, s, once)
                self._transform_back(b, h)
        return writer.finish()

    # -- the sources' transforms

    def _transform(self, b: Var, first: Index) -> None:
        writer = self.writer
        with (
            writer.loop("c", self.tile.sources) as c,
            writer.loop("i", Entry(self.blocks[1], as_index(b))) as i,
        ):
            n = as_index(b) * self.tile.block + i
            if self.read.any_whole:
                with writer.loop("w", Entry(self.read.whole, n)):
                    at = self._at(first + c, Entry(self.read.row, n), Entry(self.read.column, n))
                    self._transform_one(i, c, lambda r, s: writer.load(self.source, *at(r, s), 0))
            if self.read.any_part:
                with writer.loop("w", Entry(self.read.part, n)):
                    self._fill_edge(n, first + c)
                    inside = self._at(Entry(self.edge_number, n), 0, EDGE_MARGIN)
                    self._transform_one(
                        i, c, lambda r, s: writer.load(self.edges, *inside(r, s), 0)
                    )

    @staticmethod
    def _at(
        map: IndexLike, row: IndexLike, column: IndexLike
    ) -> Callable[[int, int], tuple[Index, Index, Index]]:
        """Index of a value of a tile that begins there."""
        begin = as_index(row), as_index(column)
        return lambda r, s: (as_index(map), begin[0] + r, begin[1] + s)

    def _transform_one(self, i: Var, c: Var, load: Callable[[int, int], Value]) -> None:
        """Bᵀ x B of one tile of one source: rows of points in two halves, that all values stay in
        registers."""
        writer, matrix, size = self.writer, self.algorithm.source, self.algorithm.size
        for half in (range(size // 2), range(size // 2, size)) if size > 4 else (range(size),):
            columns = [self._half(matrix, half, s, load) for s in range(size)]
            for place, p in enumerate(half):
                line = spread(writer, matrix, [column[place] for column in columns])
                for q, value in enumerate(line):
                    writer.store(self.sources, p * size + q, c, i, 0, value=value)

    def _half(self, matrix, half: range, s: int, load: Callable[[int, int], Value]) -> list[Value]:
        used = [any(matrix[p][r] for p in half) for r in range(len(matrix))]
        values: list[Value] = [
            self.writer.let(load(r, s), "x") if met else number(0.0) for r, met in enumerate(used)
        ]
        return spread(self.writer, matrix, values, half)

    def _fill_edge(self, n: Index, source: Index) -> None:
        """Copy what of a tile lies inside the source; its surroundings are zero and stay it.

        Columns are copied in strips as wide as a tile, which may reach over it on one side.
        """
        writer, number = self.writer, Entry(self.edge_number, n)
        begin, column = Entry(self.edge_begin, n), Entry(self.edge_column, n)
        with writer.loop("r", Entry(self.read.rows, n)) as r:
            row, place = (as_index(Entry(t, n)) + r for t in (self.read.row, self.read.row_at))
            for j in range(self.strip):
                value = writer.load(self.source, source, row, as_index(begin) + j, 0)
                writer.store(self.edges, number, place, as_index(column) + j, 0, value=value)

    # -- the products

    def _clear(self, array: Buffer) -> None:
        writer = self.writer
        outer, middle, inner, _ = array.shape
        with (
            writer.loop("f", outer) as f,
            writer.loop("k", middle) as k,
            writer.loop("t", inner) as t,
        ):
            writer.store(array, f, k, t, 0, value=number(0.0))

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
        with (
            writer.loop("k", Entry(self.chunks.maps, as_index(h))) as k,
            writer.loop("i", Entry(self.blocks[1], as_index(b))) as i,
        ):
            n = as_index(b) * self.tile.block + i
            map = as_index(h) * self.tile.chunk + k
            at = self._at(map, Entry(self.written.row, n), Entry(self.written.column, n))
            if self.written.any_whole:
                with writer.loop("w", Entry(self.written.whole, n)):
                    for r, s, value in self._results(k, i):
                        self._finish((*at(r, s), 0), value)
            if self.written.any_part:
                with writer.loop("w", Entry(self.written.part, n)):
                    self._finish_part(n, map, self._results(k, i))

    def _finish_part(self, n: Index, map: Index, results: Iterator[_Result]) -> None:
        """What exists of a tile that sticks out over the result. (A loop cannot choose among
        registers, so it goes through memory.)"""
        writer, written = self.writer, self.written
        for row, column, value in results:
            writer.store(self.spare, row, column, 0, value=value)
        with (
            writer.loop("r", Entry(written.rows, n)) as r,
            writer.loop("s", Entry(written.columns, n)) as s,
        ):
            at = as_index(Entry(written.row, n)) + r, as_index(Entry(written.column, n)) + s
            value = writer.let(writer.load(self.spare, r, s, 0))
            self._finish((map, *at, 0), value)

    def _results(self, k: Var, i: Var) -> Iterator[_Result]:
        """Aᵀ M A of one tile of one map: (row, column, value)."""
        writer, matrix, size = self.writer, self.algorithm.result, self.algorithm.size
        columns = []
        for q in range(size):
            values = [
                writer.let(writer.load(self.products, p * size + q, k, i, 0), "m")
                for p in range(size)
            ]
            columns.append(gather(writer, matrix, values))
        for r in range(self.algorithm.outputs):
            line = gather(writer, matrix, [column[r] for column in columns])
            for s, value in enumerate(line):
                yield r, s, value

    def _finish(self, at: tuple[IndexLike, ...], value: Value) -> None:
        result = self.result
        if result.bias or result.accumulate:
            value = op("add", result.start(self.writer, at), value)
        result.store(self.writer, at, self.writer.let(value, "y"))


# ---- the weights' transforms --------------------------------------------------------------------


def transform_weights(name: str, sizes: Winograd, tile: WinogradTile, forward: bool) -> Kernel:
    """factors = G w Gᵀ for every map and source: buffers weight (kernels, channels, r · r) and
    factors (`factors_shape`). Not `forward`: of the input gradient, where maps are channels,
    sources are kernels, and taps stand in the opposite order."""
    area = sizes.algorithm.taps**2
    outer, inner = (sizes.maps, sizes.sources) if forward else (sizes.sources, sizes.maps)
    weight = Buffer("weight", (outer, inner, area), align=4)
    factors = Buffer("factors", factors_shape(sizes, tile), access="update")
    writer = Writer(name, [weight, factors])

    def at(map: Index, source: Index) -> tuple[Index, Index]:
        return (map, source) if forward else (source, map)

    chunks = _Chunks.of(sizes, tile)
    with (
        writer.loop("h", chunks.number) as h,
        writer.loop("s", sizes.sources // tile.sources) as s,
    ):
        for k, maps in chunks.tiles(writer, h, sizes, tile):
            first = as_index(h) * tile.chunk + k * tile.maps
            for start, lanes in _pieces(maps):
                with writer.loop("c", tile.sources) as c:
                    source = as_index(s) * tile.sources + c
                    places = [at(first + (start + i), source) for i in range(lanes)]
                    taps = _taps(writer, weight, places, area)
                    ordered = taps if forward else taps[::-1]
                    for point, value in enumerate(_factors(writer, sizes.algorithm, ordered)):
                        writer.store(factors, h, s, point, k, c, start, value=value)
    return writer.finish()


def _pieces(count: int) -> list[tuple[int, int]]:
    """A register tile of maps, cut into vectors of 8, 4, 2 and 1."""
    found, start, lanes = [], 0, 8
    while start < count:
        if count - start >= lanes:
            found.append((start, lanes))
            start += lanes
        else:
            lanes //= 2
    return found


def _taps(
    writer: Writer, weight: Buffer, places: Sequence[tuple[Index, Index]], area: int
) -> list[Value]:
    """Every tap of some pairs of maps, pairs in the lanes."""
    lanes = len(places)
    found: dict[int, Value] = {}
    for start in [*range(0, area - lanes + 1, lanes), area - lanes]:
        if all(tap in found for tap in range(start, start + lanes)):
            continue
        rows = [writer.let(writer.load(weight, *at, start, lanes=lanes), "g") for at in places]
        turned: Sequence[Value] = writer.transpose(rows) if lanes > 1 else rows
        found |= {start + i: value for i, value in enumerate(turned)}
    return [found[tap] for tap in range(area)]


def _factors(writer: Writer, algorithm: Algorithm, taps: Sequence[Value]) -> Iterator[Value]:
    """G w Gᵀ, row by row."""
    matrix, r = algorithm.kernel, algorithm.taps
    columns = [spread(writer, matrix, taps[s::r]) for s in range(r)]
    for p in range(algorithm.size):
        yield from spread(writer, matrix, [column[p] for column in columns])
