"""Winograd's transformed weights, U = G w Gᵀ, in the order in which the products read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lanewise.native.kernels.winograd_places import Winograd
from lanewise.native.kernels.winograd_transforms import Algorithm, spread
from lanewise.native.nest import Buffer, Entry, Index, Kernel, Value, Var, as_index, table
from lanewise.native.writer import Writer


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


#: blocks from which threads share these
MANY_BLOCKS = 4


def shares_blocks(blocks: int, chunks: int) -> bool:
    """Whether threads share the blocks of tiles. Few blocks are shared by chunks of maps, and then
    every thread transforms all sources."""
    return blocks >= min(MANY_BLOCKS, chunks)


def factors_shape(sizes: Winograd, tile: WinogradTile) -> tuple[int, ...]:
    """The transformed weights U, in the order in which the products read them: chunks of maps,
    parts of the sources, points, register tiles of maps, sources of a part, maps of a tile."""
    chunks, parts = -(-sizes.maps // tile.chunk), sizes.sources // tile.sources
    registers = tile.chunk // tile.maps
    return chunks, parts, sizes.algorithm.points, registers, tile.sources, tile.maps


@dataclass(frozen=True)
class Chunks:
    """Of each chunk the maps, its whole register tiles, and whether there is a rest."""

    number: int
    maps: Buffer
    whole: Buffer
    rest: Buffer

    @staticmethod
    def of(sizes: Winograd, tile: WinogradTile) -> Chunks:
        counts = [min(tile.chunk, n) for n in range(sizes.maps, 0, -tile.chunk)]
        return Chunks(
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

    chunks = Chunks.of(sizes, tile)
    with (
        writer.loop("h", chunks.number) as h,
        writer.loop("s", sizes.sources // tile.sources) as s,
    ):
        for k, maps in chunks.tiles(writer, h, sizes, tile):
            first = as_index(h) * tile.chunk + k * tile.maps
            for start, lanes in _pieces(maps):
                with writer.loop("c", tile.sources, shared=True) as c:
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
