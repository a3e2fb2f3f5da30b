"""Depthwise convolution with small kernels: forward, gradients of the input and the weights.

    y[c·m + j, p, q]  = Σ_rs  w[c·m + j, r, s] · x[c, p·stride + r − pad, q·…]
    dx[c, h, w]       = Σ_jrs w[c·m + j, r, s] · dy[c·m + j, p, q]
    dw[c·m + j, r, s] = Σ_pqL dy[c·m + j, p, q] · x[c, …]

A map meets few weights, so what is loaded must serve several results: a register tile is some rows
× some columns of one map, written out tap by tap, and a value that was loaded is used for all of
them at once. Along both axes the tiles at the edges get code of their own (`column_segments`). For
larger kernels that would be too much code, and the nests of `conv.py` and `weights.py` are as
quick.

Every sum is taken in the order of the rows, then columns, whatever the tile: it shows in no bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from lanewise.native.kernels.lanes import add_lanes
from lanewise.native.kernels.register_tiles import add_product
from lanewise.native.kernels.result import Result
from lanewise.native.kernels.taps import Segment, Taps, column_segments
from lanewise.native.nest import (
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
)
from lanewise.native.writer import Writer


@dataclass(frozen=True)
class Depthwise:
    """`groups` independent parts, each with `maps` destination maps from `sources` source maps
    (one of the two is 1), and the taps from source to destination."""

    groups: int
    maps: int
    sources: int
    rows: Taps
    columns: Taps

    @property
    def taps(self) -> int:
        """Weights of a map."""
        return self.rows.taps * self.columns.taps


@dataclass(frozen=True)
class MapTile:
    """Registers: rows × columns of one destination map. `keep`: all weights of a map too."""

    rows: int
    columns: int
    keep: bool = True


#: for a source map, what tells the value of a tap
_Found: TypeAlias = Callable[[IndexLike], Callable[[int, int], Value]]


@dataclass(frozen=True)
class Place:
    """One tile: which rows and columns it has, and where it lies."""

    rows: Segment
    columns: Segment
    row: Var
    column: Var

    def destination(self, i: int, j: int) -> tuple[Index, Index]:
        """Row and column of the tile's element (i, j)."""
        row = as_index(self.row) * self.rows.width + (self.rows.start + i)
        return row, as_index(self.column) * self.columns.width + (self.columns.start + j)

    def source(self, h: int, w: int) -> tuple[Index, Index]:
        """Row and column of a source value, of which the patterns tell the distance."""
        row = as_index(self.row) * self.rows.advance + (self.rows.origin + h)
        return row, as_index(self.column) * self.columns.advance + (self.columns.origin + w)


def correlate(
    name: str,
    sizes: Depthwise,
    tile: MapTile,
    *,
    bias: bool = False,
    affine: bool = False,
    accumulate: bool = False,
    relu: bool = False,
    mask: bool = False,
) -> Kernel:
    """Destination maps from source maps: buffers source, weight, those of `Result`."""
    maps = sizes.groups * sizes.maps
    shape = (maps, sizes.rows.destination, sizes.columns.destination, LANES)
    return correlate_into(name, sizes, tile, Result(shape, bias, affine, accumulate, relu, mask))


class Goal(Protocol):
    """Where the sums go."""

    @property
    def buffers(self) -> list[Buffer]:
        """The last of the kernel's."""

    def start(self, writer: Writer, at: tuple[IndexLike, ...]) -> Value:
        """What the sum for an index begins with."""

    def store(self, writer: Writer, at: tuple[IndexLike, ...], value: Value) -> None:
        """What becomes of it."""


#: what is done around all of a map, of source and weights
_Around: TypeAlias = Callable[[Writer, Buffer, Buffer, Index], AbstractContextManager[None]]


def correlate_into(
    name: str,
    sizes: Depthwise,
    tile: MapTile,
    result: Goal,
    around: _Around = lambda writer, source, weight, k: nullcontext(),
) -> Kernel:
    """The same to any goal; `around` every map, whose tiles are its body."""
    maps = sizes.groups * sizes.maps
    nest = _Nest(
        sizes,
        tile,
        result,
        _maps("source", sizes.groups * sizes.sources, sizes.rows.source, sizes.columns.source),
        Buffer("weight", (maps * sizes.sources * sizes.taps,), align=4),
    )
    writer = Writer(name, [nest.source, nest.weight, *result.buffers])
    with writer.loop("g", sizes.groups, shared=True) as g, writer.loop("k", sizes.maps) as k:
        at_map = as_index(g) * sizes.maps + k
        first = as_index(g) * sizes.sources
        # With one source map its weights outlive the tiles; else each tile takes them in turn.
        kept = nest.weights_of(writer, at_map) if sizes.sources == 1 else None
        with around(writer, nest.source, nest.weight, at_map):
            for at in places(writer, sizes, tile.rows, tile.columns):
                nest.one_tile(
                    writer,
                    at_map,
                    first,
                    at,
                    lambda j: kept or nest.weights_of(writer, as_index(g) * sizes.sources + j),
                )
    return writer.finish()


@dataclass(frozen=True)
class _Nest:
    sizes: Depthwise
    tile: MapTile
    result: Goal
    source: Buffer
    weight: Buffer

    def weights_of(self, writer: Writer, j: IndexLike) -> Callable[[int, int], Value]:
        """The weights of one pair of maps, loaded now or when they are needed."""
        taps, wide = self.sizes.taps, self.sizes.columns.taps

        def load(r: int, s: int) -> Value:
            return writer.splat(self.weight, as_index(j) * taps + (r * wide + s))

        if not self.tile.keep:
            return load
        kept = [writer.let(load(*divmod(tap, wide)), "w") for tap in range(taps)]
        return lambda r, s: kept[r * wide + s]

    def one_tile(self, writer: Writer, k: Index, c: Index, at: Place, weights: _Found) -> None:
        """A tile of map k, from the source maps that begin with c."""
        places = [
            [(k, *at.destination(i, j), 0) for j in range(at.columns.width)]
            for i in range(at.rows.width)
        ]
        cells = [
            [writer.assign(writer.register("a"), self.result.start(writer, to)) for to in line]
            for line in places
        ]
        with writer.loop("j", self.sizes.sources) as j:
            find = weights(j)

            def load(h: int, w: int) -> Value:
                return writer.load(self.source, c + j, *at.source(h, w), 0)

            _products(writer, cells, at, find, load, self.sizes.columns, self.tile.keep)
        for line, registers in zip(places, cells, strict=True):
            for to, cell in zip(line, registers, strict=True):
                self.result.store(writer, to, Read(cell))


@dataclass(frozen=True)
class RowTile:
    """Registers of the weight gradient: `columns` of one row of a map, if `keep`, and the sums of
    `taps` kernel rows; for the next kernel rows the maps are read again."""

    columns: int
    taps: int
    keep: bool = True


def weight_gradient(name: str, sizes: Depthwise, tile: RowTile) -> Kernel:
    """weight[k, r, s] += Σ over rows, columns and lanes of gradient[k] · source[k // maps].

    `sizes` is that of the forward direction. Buffers source, gradient, weight.
    """
    maps = sizes.groups * sizes.maps
    source = _maps("source", sizes.groups, sizes.rows.source, sizes.columns.source)
    gradient = _maps("gradient", maps, sizes.rows.destination, sizes.columns.destination)
    shape = (maps, sizes.rows.taps, sizes.columns.taps)
    weight = Buffer("weight", shape, access="update", align=4)
    writer = Writer(name, [source, gradient, weight])
    with writer.loop("g", sizes.groups) as g, writer.loop("j", sizes.maps) as j:
        k = as_index(g) * sizes.maps + j
        for first in range(0, sizes.rows.taps, tile.taps):
            lines = range(first, min(first + tile.taps, sizes.rows.taps))
            cells = {r: writer.accumulators("a", sizes.columns.taps) for r in lines}
            for at in places(writer, sizes, 1, tile.columns):

                def error(n: int, at: Place = at) -> Value:
                    return writer.load(gradient, k, *at.destination(0, n), 0)

                def value(h: int, w: int, at: Place = at) -> Value:
                    return writer.load(source, g, *at.source(h, w), 0)

                _outer_products(writer, cells, at, error, value, tile.keep)
            for r, line in cells.items():
                for s, cell in enumerate(line):
                    add_lanes(writer, weight, k, r, s, value=Read(cell))
    return writer.finish()


def _maps(name: str, maps: int, rows: int, columns: int) -> Buffer:
    return Buffer(name, (maps, rows, columns, LANES))


def places(writer: Writer, sizes: Depthwise, rows: int, columns: int) -> Iterator[Place]:
    """Every kind of tile of a map, each inside loops over all tiles of that kind."""
    for line in column_segments(sizes.rows, rows):
        with writer.loop("p", line.tiles) as p:
            for part in column_segments(sizes.columns, columns):
                with writer.loop("n", part.tiles) as n:
                    yield Place(line, part, p, n)


def meetings(segment: Segment, stride: int = 1) -> dict[int, list[tuple[int, int]]]:
    """Source index → the (destination, tap) pairs that meet it, sources in their order; `stride`:
    by their place in the stride first, as `Taps.by_column` has the taps."""
    met: dict[int, list[tuple[int, int]]] = {}
    for j, column in enumerate(segment.pattern):
        for tap, source in enumerate(column):
            if source is not None:
                met.setdefault(source, []).append((j, tap))
    return dict(sorted(met.items(), key=lambda one: ((segment.origin + one[0]) % stride, one[0])))


def _products(
    writer: Writer,
    cells: list[list[Register]],
    at: Place,
    weight_at: Callable[[int, int], Value],
    source_at: Callable[[int, int], Value],
    taps: Taps,
    keep: bool,
) -> None:
    """cells[i][j] += weight(r, s) · source(h, w) wherever they meet, by source row and column.

    Where the weights are not kept, each is used for all columns at once.
    """
    for h, lines in meetings(at.rows).items():
        loaded: dict[int, Read] = {}

        def x(w: int, h: int = h, loaded: dict[int, Read] = loaded) -> Read:
            if w not in loaded:
                loaded[w] = writer.let(source_at(h, w), "x")
            return loaded[w]

        if keep:
            for w, met in meetings(at.columns, max(1, taps.advance)).items():
                for i, r in lines:
                    for j, s in met:
                        add_product(writer, cells[i][j], weight_at(r, s), x(w))
            continue
        for s in taps.by_column:
            for i, r in lines if at.columns.of_tap(s) else ():
                scalar = writer.let(weight_at(r, s), "w")
                for j, w in at.columns.of_tap(s):
                    add_product(writer, cells[i][j], scalar, x(w))


def _outer_products(
    writer: Writer,
    cells: dict[int, list[Register]],
    at: Place,
    gradient_at: Callable[[int], Value],
    source_at: Callable[[int, int], Value],
    keep: bool,
) -> None:
    """cells[r][s] += gradient(j) · source(h, w) wherever they meet, by column."""
    width = at.rows.width * at.columns.width
    errors = [writer.let(gradient_at(j), "e") for j in range(width)] if keep else []
    for h, lines in meetings(at.rows).items():
        taps = [r for _, r in lines if r in cells]
        for w, columns in meetings(at.columns).items() if taps else ():
            x = writer.let(source_at(h, w), "x")
            for r in taps:
                for j, s in columns:
                    error = errors[j] if keep else gradient_at(j)
                    add_product(writer, cells[r][s], x, error)
