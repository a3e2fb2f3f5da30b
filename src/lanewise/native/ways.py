"""Which way a correlation goes through the maps: the one that fetches few cache lines from afar.

A tile's loops can stand in several orders, over all source maps or some at a time (`conv.Tile`).
None of that changes a sum; it decides whether what a tile reads again is still in the first or the
second cache. The cost here is a count of lines that are not, times the cycles to bring one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from lanewise.native.kernels.conv import Correlation, Tile
from lanewise.native.target import Target
from lanewise.native.tiles import fitting_tiles

FLOAT, LINE = 4, 64  # bytes
#: lines that stay in the first and the second-level cache beside other data; their sets and ways
NEAR_LINES, MIDDLE_LINES = 600, 14_000
NEAR, MIDDLE_LEVEL = (64, 10), (1024, 16)
#: cycles to bring a line from the second level, and from further
MIDDLE, FAR = 1.0, 5.0
#: cycles to copy a line; source maps that are packed at once, at most
PACK, PACKED_SOURCES = 3.0, 512


def correlation_way(target: Target, sizes: Correlation) -> Tile:
    """The tile and its way through the maps: few cycles, and few cache lines from afar."""
    return _correlation_way(target.name, sizes)


@lru_cache(maxsize=4096)
def _correlation_way(name: str, sizes: Correlation) -> Tile:
    fitting = fitting_tiles(name, sizes.maps, sizes.columns)
    good = [one for one in fitting if one[0] <= 1.15 * fitting[0][0]][:8]
    turns = sizes.sources * sizes.rows.pairs
    ways = [
        (turns * cycles, replace(tile, order=order, sources=n, packs=packs))
        for cycles, tile in good
        for order, n, packs in _orders(sizes)
    ]
    return min(ways, key=lambda way: way[0] + _traffic(way[1], sizes))[1]


def _orders(sizes: Correlation) -> Iterator[tuple[str, int, int]]:
    """Order of the loops, sources at once, tiles that are packed."""
    for n in (0, *(n for n in (16, 32, 64, 128) if n < sizes.sources)):
        yield from ((order, n, 0) for order in TRAFFIC)
    # What a larger kernel reads of a tile it reads several times while it is near.
    if sizes.rows.taps * sizes.columns.taps == 1:
        maps = sizes.rows.source * sizes.columns.source * sizes.sources
        maps += sizes.rows.destination * sizes.columns.destination * sizes.maps
        yield "pnk", PACKED_SOURCES * (sizes.sources > PACKED_SOURCES), _run(maps)


def _run(lines: int) -> int:
    """Tiles to pack: several, where lines come from beyond the second cache and neighbours with
    them."""
    return 4 if lines > MIDDLE_LINES else 1


@dataclass(frozen=True)
class _Lines:
    """Cache lines of one block of sources: what a tile reads, one row of tiles, all sources;
    weights of a tile, all weights. `source_far`: cycles to bring a line of a tile's sources a
    second time; it is not zero where maps of a size that is a power of two meet in few sets of
    the caches. `row_far`: the same for those of a row."""

    source: float
    source_far: float
    row: float
    row_far: float
    sources: float
    weight: float
    weights: float


def _lines(tile: Tile, sizes: Correlation, sources: int) -> _Lines:
    rows, columns = sizes.rows, sizes.columns
    high = -(-rows.taps // rows.period)
    across = -(-columns.taps // columns.period)
    wide = min(columns.source, (tile.columns - 1) * columns.advance + across)
    weight = tile.maps * high * across * FLOAT / LINE
    if sizes.weight_map < sizes.weight_source:
        weight += 1  # those of every source are a run of their own
    plane, line = rows.source * columns.source, columns.source
    source, row = sources * high * wide, sources * high * line
    if tile.packs:
        again = 0.0 if source + sources * weight <= NEAR_LINES else MIDDLE / 4  # end to end
    elif source + sources * weight <= NEAR_LINES and _fits(plane, line, sources, high, wide, NEAR):
        again = 0.0
    else:
        again = MIDDLE if _fits(plane, line, sources, high, wide, MIDDLE_LEVEL) else FAR
    return _Lines(
        source,
        again,
        row,
        0.0 if _fits(plane, line, sources, high, line, MIDDLE_LEVEL) else FAR,
        sources * plane,
        sources * weight,
        sources * weight * sizes.maps / tile.maps,
    )


@lru_cache(maxsize=1 << 16)
def _fits(
    plane: int, line: int, sources: int, high: int, wide: int, cache: tuple[int, int]
) -> bool:
    """Whether the lines of `high` × `wide` values of so many planes find room in their sets."""
    sets, ways = cache
    inside = 0  # a bit for every set that the values of one plane meet
    for r in range(high):
        for i in range(min(wide, sets)):
            inside |= 1 << (r * line + i) % sets
    met = 0
    for a in {c * plane % sets for c in range(min(sources, sets))}:
        met |= inside << a
    met = (met | met >> sets) & ((1 << sets) - 1)
    return sources * high * wide <= ways * met.bit_count()


def _far(lines: float) -> float:
    """Cycles to bring a line that was last used so many lines ago."""
    return 0.0 if lines <= NEAR_LINES else MIDDLE if lines <= MIDDLE_LINES else FAR


def _row_by_row(n: _Lines, across: int, maps: int) -> float:
    """p, k, n: weights stay for a row of tiles, the rows for all maps."""
    weights = n.weight * (_far(n.weights + n.row) / across + _far(n.weight + n.source))
    return weights + n.source * max(_far(n.row + n.weight), n.row_far, n.source_far)


def _column_by_column(n: _Lines, across: int, maps: int) -> float:
    """p, n, k: what a tile reads of the sources stays for all maps."""
    return n.weight * _far(n.weights + n.source) + n.source * (n.source_far + n.row_far / maps)


def _map_by_map(n: _Lines, across: int, maps: int) -> float:
    """k, p, n: weights stay for all rows."""
    source = (_far(n.row + n.weight) + _far(n.sources + n.weight)) / 2
    return n.weight * _far(n.weight + n.source) + n.source * max(source, n.row_far, n.source_far)


TRAFFIC: dict[str, Callable[[_Lines, int, int], float]] = {
    "pkn": _row_by_row,
    "pnk": _column_by_column,
    "kpn": _map_by_map,
}


def _traffic(tile: Tile, sizes: Correlation) -> float:
    """Cycles spent on lines that are not in the first cache, about."""
    together = tile.sources or sizes.sources
    turns = -(-sizes.sources // together)
    across = -(-sizes.columns.destination // tile.columns)
    maps = -(-sizes.maps // tile.maps)
    tiles = maps * sizes.rows.destination * across
    target = sizes.maps * sizes.rows.destination * sizes.columns.destination
    waiting = 2 * turns * target * (1 + _far(target)) if turns > 1 else 0.0
    lines = _lines(tile, sizes, together)
    first = PACK if tile.packs else 0.0  # for the first of the maps, beside what all of them cost
    if lines.sources > MIDDLE_LINES:
        first += (
            FAR / 3 if tile.packs else FAR
        )  # neighbours come sooner than one line here and there
    each = TRAFFIC[tile.order](lines, across, maps) + first * lines.source / maps
    return turns * tiles * each + waiting
