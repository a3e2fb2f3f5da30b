"""1 × 1 convolutions some pixels at a time: weights times maps, and the gradient of the weights.

    y[k, n]  = b[k] + Σ_c  w[k, c] · x[c, n]        for some pixels n
    dw[k, c] = Σ_nL  dy[k, n] · x[c, n]             over the pixels n and the lanes L

The sums of each lane for the weights wait in memory while others use the registers and the first
cache, and go on with the next pixels; `add_weight_lanes` at the end makes weights of them.

Memory is idle while a core multiplies, and one core waits long for each line that it reads. So a
kernel may be shown maps that the chain will read next, `ahead`: every turn of its inner loop has
a line of them fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from lanewise.native.kernels.functions import is_positive, keep_where
from lanewise.native.kernels.lanes import add_lanes, number
from lanewise.native.kernels.register_tiles import add_product, blocks
from lanewise.native.kernels.told_products import ToldProducts
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
class Products:
    """Destination and source maps, and how far apart their weights lie."""

    maps: int
    sources: int
    weight_map: int
    weight_source: int

    @property
    def reach(self) -> int:
        """Weights from the first to the last."""
        return (self.maps - 1) * self.weight_map + (self.sources - 1) * self.weight_source + 1


@dataclass(frozen=True)
class LineTile:
    """Registers: destination maps × pixels."""

    maps: int
    pixels: int


@dataclass(frozen=True)
class PairTile:
    """Registers: kernels × source maps."""

    maps: int
    sources: int


@dataclass(frozen=True)
class Tiles:
    """Tile j of so many begins at first + j · width; `few`: one of the first, for each of which
    there is something to fetch."""

    first: int
    width: int
    j: Var
    few: bool

    @property
    def begin(self) -> Index:
        return as_index(self.j) * self.width + self.first


def tiles(writer: Writer, name: str, size: int, width: int, fetching: int = 0) -> Iterator[Tiles]:
    """Loops over tiles; the first `fetching` of the whole ones apart."""
    for first, count, times in blocks(size, width):
        few = min(fetching, times) if count == width else 0
        for start, stop in ((0, few), (few, times)):
            if start < stop:
                with writer.loop(name, stop, start) as j:
                    yield Tiles(first, count, j, stop == few)


def products(
    name: str,
    sizes: Products,
    pixels: int,
    tile: LineTile,
    *,
    pitches: Sequence[int],
    bias: bool = False,
    mask: bool = False,
    accumulate: bool = False,
    ahead: tuple[int, int] | None = None,
    told: ToldProducts | None = None,
) -> Kernel:
    """Buffers source, weight, [bias], [value], target, [ahead]: target = (+=) weight · source;
    `mask` sets it to zero where `value` is not positive. `pitches`: pixels from map to map of
    source, [value] and target. `ahead`: as many maps as source or target has, and their pitch.
    `told`: its buffers are in place of the target's, and its sums of the results."""
    source = Buffer("source", (sizes.sources, pitches[0], LANES))
    weight = Buffer("weight", (sizes.reach,), align=4)
    begins = Buffer("bias", (sizes.maps,), align=4)
    value = Buffer("value", (sizes.maps, pitches[1], LANES))
    target = Buffer("target", (sizes.maps, pitches[-1], LANES), access="update")
    next_maps = Buffer("ahead", (*ahead, LANES)) if ahead else None
    result = told or _Result(target, begins if bias else None, value if mask else None, accumulate)
    before = [source, weight, *[begins] * bias, *[value] * mask]
    writer = Writer(name, [*before, *result.buffers, *([next_maps] if next_maps else [])])
    by_source = ahead is not None and ahead[0] == sizes.sources
    for columns in tiles(writer, "n", pixels, tile.pixels):
        for lines in tiles(writer, "k", sizes.maps, tile.maps, tile.pixels * by_source):
            places = [
                [(lines.begin + i, columns.begin + j) for j in range(columns.width)]
                for i in range(lines.width)
            ]
            cells = [
                [writer.assign(writer.register("a"), result.start(writer, at)) for at in row]
                for row in places
            ]
            multiply = partial(_multiply, writer, sizes, (source, weight), lines, columns, cells)
            _all_sources(writer, sizes, lines, columns, by_source, next_maps, multiply)
            for row, registers in zip(places, cells, strict=True):
                result.store(writer, row, registers)
    return writer.finish()


@dataclass(frozen=True)
class _Result:
    """What sums begin with, and where they go."""

    target: Buffer
    bias: Buffer | None
    value: Buffer | None
    accumulate: bool

    @property
    def buffers(self) -> list[Buffer]:
        return [self.target]

    def start(self, writer: Writer, at: tuple[Index, Index]) -> Value:
        if self.accumulate:
            return writer.load(self.target, *at, 0)
        return writer.splat(self.bias, at[0]) if self.bias else number(0.0, LANES)

    def store(
        self, writer: Writer, places: Sequence[tuple[Index, Index]], cells: Sequence[Register]
    ) -> None:
        for at, cell in zip(places, cells, strict=True):
            result: Value = Read(cell)
            if self.value:
                result = keep_where(is_positive(writer.load(self.value, *at, 0)), result)
            writer.store(self.target, *at, 0, value=result)


def _multiply(
    writer: Writer,
    sizes: Products,
    read: tuple[Buffer, Buffer],
    lines: Tiles,
    columns: Tiles,
    cells: list[list[Register]],
    c: IndexLike,
) -> None:
    """Add to a tile what comes of source map c; `read`: source and weight."""
    source, weight = read
    at = lines.begin * sizes.weight_map + as_index(c) * sizes.weight_source
    loaded = [
        writer.let(writer.load(source, c, columns.begin + j, 0), "x") for j in range(columns.width)
    ]
    for i, row in enumerate(cells):
        scalar = writer.let(writer.splat(weight, at + i * sizes.weight_map), "w")
        for x, cell in zip(loaded, row, strict=True):
            add_product(writer, cell, scalar, x)


def _all_sources(
    writer: Writer,
    sizes: Products,
    lines: Tiles,
    columns: Tiles,
    by_source: bool,
    ahead: Buffer | None,
    multiply: Callable[[IndexLike], None],
) -> None:
    """`multiply` for every source map, and with each a line of `ahead` at these pixels: of that
    very map; or, if there are as many as destination maps, of those of the tile in turn."""
    share, rest = divmod(sizes.sources, lines.width)
    if ahead is None or (by_source and not lines.few) or (not by_source and rest):
        with writer.loop("c", sizes.sources) as c:
            multiply(c)
    elif by_source:
        with writer.loop("c", sizes.sources) as c:
            writer.fetch(ahead, c, columns.begin + lines.j, 0)
            multiply(c)
    else:
        with writer.loop("i", lines.width) as i:
            for j in range(share, columns.width):
                writer.fetch(ahead, lines.begin + i, columns.begin + j, 0)
            for first, stop in ((0, min(share, columns.width)), (columns.width, share)):
                if first < stop:
                    with writer.loop("c", stop, first) as c:
                        if not first:
                            writer.fetch(ahead, lines.begin + i, columns.begin + c, 0)
                        multiply(as_index(i) * share + c)


def weight_sums(
    name: str,
    maps: int,
    sources: int,
    pixels: int,
    tile: PairTile,
    pitches: Sequence[int],
    ahead: tuple[int, int] | None = None,
) -> Kernel:
    """Buffers source, gradient, sums (maps, sources, 16), [ahead]: sums += gradient · source over
    the pixels. `pitches`: pixels from map to map of the first two; `ahead`: as many maps as one of
    them has, and their pitch."""
    source = Buffer("source", (sources, pitches[0], LANES))
    gradient = Buffer("gradient", (maps, pitches[1], LANES))
    sums = Buffer("sums", (maps, sources, LANES), access="update")
    next_maps = Buffer("ahead", (*(ahead or (1, 1)), LANES))
    writer = Writer(name, [source, gradient, sums, *[next_maps] * bool(ahead)])
    by_source = ahead is not None and ahead[0] == sources

    def one_tile(k: Tiles, c: Tiles) -> None:
        places = [[(k.begin + i, c.begin + j, 0) for j in range(c.width)] for i in range(k.width)]
        cells = [
            [writer.assign(writer.register("a"), writer.load(sums, *at)) for at in line]
            for line in places
        ]
        with writer.loop("n", pixels) as n:
            if ahead and (k.few if by_source else c.few):
                writer.fetch(next_maps, c.begin + k.j if by_source else k.begin + c.j, n, 0)
            _outer_product(writer, cells, gradient, k, source, c, n)
        for line, registers in zip(places, cells, strict=True):
            for at, cell in zip(line, registers, strict=True):
                writer.store(sums, *at, value=Read(cell))

    for k in tiles(writer, "k", maps, tile.maps, tile.sources * by_source):
        for c in tiles(writer, "c", sources, tile.sources, tile.maps * (not by_source)):
            one_tile(k, c)
    return writer.finish()


def _outer_product(
    writer: Writer,
    cells: list[list[Register]],
    gradient: Buffer,
    k: Tiles,
    source: Buffer,
    c: Tiles,
    n: Var,
) -> None:
    errors = [writer.let(writer.load(gradient, k.begin + i, n, 0), "e") for i in range(k.width)]
    for j in range(c.width):
        x = writer.let(writer.load(source, c.begin + j, n, 0), "x")
        for line, error in zip(cells, errors, strict=True):
            add_product(writer, line[j], x, error)


def add_weight_lanes(name: str, weights: int) -> Kernel:
    """Buffers sums (weights, 16), weight: weight += the sums of the lanes."""
    sums = Buffer("sums", (weights, LANES))
    weight = Buffer("weight", (weights,), access="update", align=4)
    writer = Writer(name, [sums, weight])
    with writer.loop("i", weights) as i:
        add_lanes(writer, weight, i, value=writer.load(sums, i, 0))
    return writer.finish()
