"""1 × 1 convolutions as matrix products, of any stride: a strip of pixels of all maps at a time.

    target[k, d(n)] = Σ_c  w[k, c] · source[c, s(n)]        s(n), d(n): where pixel n lies

What a strip reads of the sources is first copied to lie end to end: from map to map the same pixel
lies some kilobytes further, which fills few sets of a cache and is beyond what a processor fetches
ahead by itself. A copied strip stays in the second cache. Some of its pixels meet all destination
maps before the next, so that they stay in the first. Meanwhile the next strip is fetched.

In the input gradient of a stride most pixels of the target meet no source. They are written with
the strip, as the rows are that they stand in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from lanewise.native.kernels.correlation import Correlation, paired_distance
from lanewise.native.kernels.fused_norm import Tells
from lanewise.native.kernels.register_tiles import add_product, blocks
from lanewise.native.kernels.result import Result
from lanewise.native.kernels.told_tiles import ToldTiles
from lanewise.native.nest import (
    ELEMENT_BYTES,
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


@dataclass(frozen=True)
class PointTile:
    """Registers: destination maps × pixels. `strip`: tiles whose sources are copied together;
    `maps_first`: all of them for some destination maps, whose weights stay near, before the next
    maps; else all maps for one, whose sources stay near. `packs`: whether sources are copied;
    `ahead`: whether the next strip is fetched; `away`: results go past the caches. `pairs`: as
    `correlation.Tile.pairs`."""

    maps: int
    pixels: int
    strip: int
    maps_first: bool = False
    packs: bool = True
    ahead: bool = True
    away: bool = False
    pairs: bool = False

    @property
    def step(self) -> int:
        """Sources that one operation multiplies."""
        return 2 if self.pairs else 1


@dataclass(frozen=True)
class Points:
    """Where the pixels of a 1 × 1 convolution lie: pixel n's in the source, in the target; and
    those of the target that meet no source, each as (row-major) number of its place, with the
    pixel behind which it is written."""

    sources: tuple[int, ...]
    targets: tuple[int, ...]
    rest: tuple[tuple[int, int], ...]

    @property
    def count(self) -> int:
        return len(self.sources)


def points_of(sizes: Correlation) -> Points | None:
    """The pixels, if every destination meets one source or none, and each row likewise."""
    rows, columns = sizes.rows, sizes.columns
    if rows.taps * columns.taps != 1 or sizes.groups != 1:
        return None
    wide = columns.source
    sources: list[int] = []
    targets: list[int] = []
    rest: list[tuple[int, int]] = []
    for p, (row,) in enumerate(rows.sources):
        for q, (column,) in enumerate(columns.sources):
            place = p * columns.destination + q
            if row is None or column is None:
                rest.append((max(0, len(sources) - 1), place))
            else:
                sources.append(row * wide + column)
                targets.append(place)
    return Points(tuple(sources), tuple(targets), tuple(rest)) if sources else None


def packed_shape(sizes: Correlation, tile: PointTile) -> tuple[int, ...]:
    """The third buffer of a tile that packs: tiles, sources, pixels, lanes."""
    return tile.strip, sizes.sources // tile.step, tile.pixels, LANES


def products(
    name: str,
    sizes: Correlation,
    tile: PointTile,
    *,
    bias: bool = False,
    affine: bool = False,
    accumulate: bool = False,
    relu: bool = False,
    mask: bool = False,
    plus: bool = False,
    away: bool = False,
    tells: Tells | None = None,
) -> Kernel:
    """Destination maps from source maps: buffers source, weight, [packed], those of what it `tells`
    of its result, those of `Result`. What tells goes past the caches if `away`."""
    pixels = sizes.rows.destination * sizes.columns.destination
    shape = (sizes.maps, pixels, LANES)
    result = Result(shape, bias, affine, accumulate, relu, mask, plus=plus)
    told = ToldTiles(tells, result, away or tile.away) if tells else None
    return _Nest(name, sizes, tile, result, told).write()


@dataclass(frozen=True)
class _Strip:
    """Strip i of so many begins at pixel first + i · width · tiles."""

    first: int
    width: int
    tiles: int
    i: Var
    times: int

    @property
    def begin(self) -> Index:
        return as_index(self.i) * (self.width * self.tiles) + self.first


@dataclass(frozen=True)
class _Maps:
    """A tile of so many destination maps; whether lines are fetched beside it."""

    begin: Index
    count: int
    j: Var
    fetches: bool


class _Nest:
    """Writes `products`: loops over strips, tiles of pixels and of maps, sources."""

    def __init__(
        self,
        name: str,
        sizes: Correlation,
        tile: PointTile,
        result: Result,
        told: ToldTiles | None = None,
    ) -> None:
        points = points_of(sizes)
        assert points
        self.sizes, self.tile, self.result, self.points = sizes, tile, result, points
        self.told = told
        read = sizes.rows.source * sizes.columns.source
        kept, taken = ("bf16", "i32") if tile.pairs else ("f32", "f32")
        align = LANES * ELEMENT_BYTES[kept]
        self.source = Buffer("source", (sizes.sources, read, LANES), kept, align=align)
        self.weight = Buffer("weight", (sizes.weights // tile.step,), taken, align=4)
        self.weight_map = paired_distance(sizes, tile.step)
        self.packed = Buffer("packed", packed_shape(sizes, tile), taken, "update")
        buffers = [self.source, self.weight, *[self.packed] * tile.packs]
        self.writer = Writer(name, [*buffers, *(told.buffers if told else []), *result.buffers])

    @cached_property
    def _source_at(self) -> Buffer | None:
        beyond = (self.tile.strip + 2) * self.tile.pixels  # what is fetched may not exist
        return _places("source_at", self.points.sources, beyond)

    @cached_property
    def _target_at(self) -> Buffer | None:
        return _places("target_at", self.points.targets)

    def write(self) -> Kernel:
        """The whole kernel."""
        if self.told:
            self.told.begin(self.writer)
        for strip in self._strips():
            if self.tile.packs:
                self._pack(strip)
            self._products(strip)
            self._rest(strip)
        if self.told:
            self.told.finish(self.writer)
        return self.writer.finish()

    def _strips(self) -> Iterator[_Strip]:
        width = self.tile.pixels
        for start, wide, tiles in blocks(self.points.count, width):
            for first, some, times in blocks(tiles, self.tile.strip):
                with self.writer.loop("s", times) as i:
                    yield _Strip(start + first * wide, wide, some, i, times)

    def _pack(self, strip: _Strip) -> None:
        writer = self.writer
        turns = self.sizes.sources // self.tile.step
        with writer.loop("c", turns) as c, writer.loop("t", strip.tiles) as t:
            for j in range(strip.width):
                place = self._source(strip.begin + as_index(t) * strip.width + j)
                writer.store(self.packed, t, c, j, 0, value=self._taken(c, place))

    def _taken(self, c: Var, place: IndexLike) -> Value:
        """Of one source, or of a pair of them."""
        step = self.tile.step
        found: list[Value] = [
            self.writer.load(self.source, as_index(c) * step + n, place, 0) for n in range(step)
        ]
        return op("pair", *found) if self.tile.pairs else found[0]

    def _source(self, pixel: Index) -> IndexLike:
        return Entry(self._source_at, pixel) if self._source_at else pixel

    def _target(self, pixel: Index) -> IndexLike:
        return Entry(self._target_at, pixel) if self._target_at else pixel

    def _products(self, strip: _Strip) -> None:
        """All maps at the pixels of a strip."""
        if self.tile.maps_first:
            for turns in self._maps(strip):
                with self.writer.loop("t", strip.tiles) as t:
                    self._tile(strip, t, turns)
            return
        with self.writer.loop("t", strip.tiles) as t:
            for turns in self._maps(strip):
                self._tile(strip, t, turns)

    def _maps(self, strip: _Strip) -> Iterator[_Maps]:
        """Tiles of destination maps; the first of them, beside which lines are fetched, apart."""
        for first, count, times in blocks(self.sizes.maps, self.tile.maps):
            few = min(times, strip.width) if self.tile.ahead and first == 0 else 0
            for start, stop in ((0, few), (few, times)):
                if start < stop:
                    with self.writer.loop("k", stop, start) as j:
                        yield _Maps(as_index(j) * count + first, count, j, stop == few)

    def _tile(self, strip: _Strip, t: Var, maps: _Maps) -> None:
        writer, result = self.writer, self.result
        begin = strip.begin + as_index(t) * strip.width
        targets = [self._target(begin + j) for j in range(strip.width)]
        places = [[(maps.begin + i, at, 0) for at in targets] for i in range(maps.count)]
        if self.told:
            self.told.fetch(writer, places)
        cells = [
            [writer.assign(writer.register("a"), result.start(writer, at)) for at in row]
            for row in places
        ]
        with writer.loop("c", self.sizes.sources // self.tile.step) as c:
            if maps.fetches:
                self._fetch(strip, t, c, maps.j)
            self._multiply(strip, t, c, maps, cells)
        if self.told:
            turns = self.told.first(strip.times, strip.i) + self.told.first(strip.tiles, t)
            self.told.store(writer, places, cells, None if strip.first else turns)
            return
        for row, registers in zip(places, cells, strict=True):
            for at, cell in zip(row, registers, strict=True):
                result.store(writer, at, Read(cell), away=self.tile.away)

    def _multiply(
        self, strip: _Strip, t: Var, c: Var, maps: _Maps, cells: list[list[Register]]
    ) -> None:
        writer, sizes = self.writer, self.sizes
        loaded = [writer.let(self._value(strip, t, c, j), "x") for j in range(strip.width)]
        first = maps.begin * self.weight_map + as_index(c) * sizes.weight_source
        for i, row in enumerate(cells):
            scalar = writer.let(writer.splat(self.weight, first + i * self.weight_map), "w")
            for x, cell in zip(loaded, row, strict=True):
                add_product(writer, cell, scalar, x, "dot" if self.tile.pairs else "fma")

    def _value(self, strip: _Strip, t: Var, c: Var, j: int) -> Value:
        if self.tile.packs:
            return self.writer.load(self.packed, t, c, j, 0)
        place = self._source(strip.begin + as_index(t) * strip.width + j)
        return self._taken(c, place)

    def _fetch(self, strip: _Strip, t: Var, c: Var, turn: Var) -> None:
        """Lines of the next strip; the tiles of maps that come first take turns."""
        lines = -(-strip.width // min(strip.width, self.sizes.maps // self.tile.maps))
        tile = strip.begin + (as_index(t) + strip.tiles) * strip.width
        for i in range(lines):
            place = self._source(tile + as_index(turn) * lines + i)
            for n in range(self.tile.step):
                self.writer.fetch(self.source, as_index(c) * self.tile.step + n, place, 0)

    def _rest(self, strip: _Strip) -> None:
        """What meets no source, and belongs to the pixels of these strips."""
        writer, result = self.writer, self.result
        stays = result.accumulate and not result.changes and not self.told
        if not self.points.rest or stays:
            return
        size = strip.width * strip.tiles
        inside = [
            [place for pixel, place in self.points.rest if start <= pixel < start + size]
            for start in range(strip.first, strip.first + size * strip.times, size)
        ]
        if not any(inside):
            return
        counts = [len(places) for places in inside]
        begin = table("rest_begin", [sum(counts[:i]) for i in range(len(counts))])
        number, where = (
            table("rest_count", counts),
            table("rest_at", [n for one in inside for n in one]),
        )
        with (
            writer.loop("k", self.sizes.maps) as k,
            writer.loop("n", Entry(number, as_index(strip.i))) as n,
        ):
            at = k, Entry(where, as_index(n) + Entry(begin, as_index(strip.i))), 0
            if self.told:
                cell = writer.assign(writer.register("a"), result.start(writer, at))
                self.told.store(writer, [[at]], [[cell]])
            else:
                result.store(writer, at, result.start(writer, at), away=self.tile.away)


def _places(name: str, places: Sequence[int], beyond: int = 0) -> Buffer | None:
    """A table of places, the last of them repeated; or None if each is its own number."""
    if all(i == place for i, place in enumerate(places)):
        return None
    return table(name, [*places, *[places[-1]] * beyond])
