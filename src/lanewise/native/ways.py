"""Which way a correlation goes through the maps: the one that fetches few cache lines from afar.

A tile's loops can stand in several orders, over all source maps or some at a time
(`correlation.Tile`). None of that changes a sum; it decides whether what a tile reads again is
still in the first or the second cache. The cost here is a count of lines that are not, times the
cycles to bring one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

from lanewise.native.kernels.correlation import Correlation, Tile
from lanewise.native.kernels.taps import Taps, phases
from lanewise.native.precisions import multiplies_pairs
from lanewise.native.target import Target
from lanewise.native.tiles import fitting_tiles

FLOAT, LINE = 4, 64  # bytes
#: lines that stay in the first and the second-level cache beside other data; their sets and ways
NEAR_LINES, MIDDLE_LINES = 450, 16_000
NEAR, MIDDLE_LEVEL = (64, 10), (1024, 16)
#: cycles to bring a line from the second level, and from further: fitted to 1,300 ways through 67
#: layers, each timed beside the others of its layer
MIDDLE, FAR = 0.6, 2.5
#: cycles to copy a line; the share of MIDDLE and of FAR where lines lie end to end
PACK, IN_A_ROW = 4.0, 0.5
#: source maps at once, and neighbouring tiles that are packed
TOGETHER, RUNS = (16, 64, 128), (1, 2, 4)
#: cycles of a pool for a value that it reads, and that need not have been written, if it is near
POOLED = 3.0
#: weights come one at a time and not in a row of lines: so many times as slow
WEIGHTS = 1.5


def correlation_way(
    target: Target, sizes: Correlation, precision: str = "fp32", *, pairs: bool = False
) -> Tile:
    """The tile and its way through the maps: few cycles, and few cache lines from afar. Sums wait
    among the results for more sources only where these are fp32, and so never rounded before.
    `pairs`: where the processor can, two bf16 sources are multiplied at once."""
    halved = precision == "bf16"
    both = pairs and sizes.sources % 2 == 0 and multiplies_pairs(target)
    return _correlation_way(target.name, sizes, not halved, both)


def way_at_once(target: Target, sizes: Correlation) -> Tile:
    """The same of fp32 where no sums wait: what is done to a result is done when it is written."""
    return _correlation_way(target.name, sizes, False, False)


def pooled_way(target: Target, sizes: Correlation) -> Tile | None:
    """The same where the largest of each 2 × 2 fp32 results are kept: tiles of even columns, all
    sources at once; None where that costs more than the pooling by itself."""
    way, cycles = _pooled_way(target.name, sizes)
    return way if cycles < 0 else None


@lru_cache(maxsize=4096)
def _pooled_way(name: str, sizes: Correlation) -> tuple[Tile, float]:
    """The best way for pooling, and what it costs more than the best way and a pool of its own."""
    turns = sizes.sources * sizes.rows.pairs
    ways = [
        (turns * cycles, replace(tile, order=order, packs=packs))
        for cycles, tile in fitting_tiles(name, sizes.maps, sizes.columns)
        for order, n, packs in _orders(sizes)
        if tile.columns % 2 == 0 and n == 0
    ]

    def cost(way: tuple[float, Tile]) -> float:
        return way[0] + _traffic(way[1], sizes)

    best, other = min(ways, key=cost), _correlation_way(name, sizes, True, False)
    cycles = next(
        cycles
        for cycles, tile in fitting_tiles(name, sizes.maps, sizes.columns)
        if (tile.maps, tile.columns) == (other.maps, other.columns)
    )
    results = sizes.groups * sizes.maps * sizes.rows.destination * sizes.columns.destination
    saved = results * (POOLED + _far(results))
    return best[1], sizes.groups * (cost(best) - cost((turns * cycles, other))) - saved


@lru_cache(maxsize=4096)
def _correlation_way(name: str, sizes: Correlation, waits: bool, pairs: bool) -> Tile:
    fitting = fitting_tiles(name, sizes.maps, sizes.columns)
    good = [one for one in fitting if one[0] <= 1.15 * fitting[0][0]][:8]
    turns = sizes.sources * sizes.rows.pairs
    ways = [
        (turns * cycles, replace(tile, order=order, sources=n, packs=packs, pairs=pairs))
        for cycles, tile in good
        for order, n, packs in _orders(sizes)
        if (waits or not n) and (packs or not pairs)
    ]
    return min(ways, key=lambda way: way[0] + _traffic(way[1], sizes))[1]


def _orders(sizes: Correlation) -> Iterator[tuple[str, int, int]]:
    """Order of the loops, sources at once, tiles that are packed."""
    single = sizes.rows.taps * sizes.columns.taps == 1
    for n in (0, *(n for n in TOGETHER if n < sizes.sources)):
        if n == 0 or not single:  # sums that come and go cost more than 1 × 1 gains by it
            yield from ((order, n, 0) for order in TRAFFIC)
        if n != TOGETHER[0]:
            yield from (("pnk", n, run) for run in RUNS)


@dataclass(frozen=True)
class _Lines:
    """Cache lines of one block of sources: what a tile reads, one row of tiles, all sources;
    weights of a tile, all weights. `source_far`: cycles to bring a line of a tile's sources a
    second time; it is not zero where maps of a size that is a power of two meet in few sets of
    the caches. `row_far`, `weight_far`: the same for those of a row, and of a tile's weights."""

    source: float
    source_far: float
    row: float
    row_far: float
    sources: float
    weight: float
    weights: float
    weight_far: float

    def weights_from(self, lines: float) -> float:
        """Cycles for the weights of a tile that were last used so many lines ago."""
        return self.weight * WEIGHTS * max(_far(lines), self.weight_far)


def _lines(tile: Tile, sizes: Correlation, sources: int, rows: Taps, columns: Taps) -> _Lines:
    """`rows`, `columns`: one phase of each axis."""
    high, line = rows.taps, columns.source
    plane = rows.source * line
    wide = min(line, (tile.columns - 1) * columns.advance + columns.taps)
    weight = sources * _weight_lines(tile, sizes, high, columns.taps)
    source, row = sources * high * wide, sources * high * line
    near = source + weight <= NEAR_LINES
    if tile.packs:
        again = 0.0 if near else MIDDLE * IN_A_ROW
    elif near and fits(plane, line, sources, high, wide, NEAR):
        again = 0.0
    else:
        again = MIDDLE if fits(plane, line, sources, high, wide, MIDDLE_LEVEL) else FAR
    return _Lines(
        source,
        again,
        row,
        0.0 if fits(plane, line, sources, high, line, MIDDLE_LEVEL) else FAR,
        sources * plane,
        weight,
        sources * sizes.maps * sizes.rows.taps * sizes.columns.taps * FLOAT / LINE,
        _weights_far(tile, sizes, sources),
    )


def _weights_far(tile: Tile, sizes: Correlation, sources: int) -> float:
    """What a line of a tile's weights costs at least, where those of every source lie apart."""
    area = sizes.rows.taps * sizes.columns.taps
    if sizes.weight_map >= sizes.weight_source:
        return 0.0
    stride, run = sizes.weight_source * FLOAT // LINE, 1 + tile.maps * area * FLOAT // LINE
    levels = ((NEAR, 0.0), (MIDDLE_LEVEL, MIDDLE))
    found = (cost for cache, cost in levels if fits(stride, run, sources, 1, run, cache))
    return next(found, FAR)


def _weight_lines(tile: Tile, sizes: Correlation, rows: int, columns: int) -> float:
    """Lines of a tile's weights for one source, where it meets so many kernel rows and columns."""
    area = sizes.rows.taps * sizes.columns.taps
    whole = tile.maps * area * FLOAT / LINE
    if sizes.weight_map < sizes.weight_source:
        whole = max(1.0, whole + 0.5)  # those of every source are a run of their own
    return whole if rows * columns == area else min(whole, float(tile.maps * rows))


@lru_cache(maxsize=1 << 16)
def fits(plane: int, line: int, sources: int, high: int, wide: int, cache: tuple[int, int]) -> bool:
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


def _row_by_row(n: _Lines, across: int, maps: int, run: int) -> float:
    """p, k, n: weights stay for a row of tiles, the rows for all maps."""
    weights = n.weights_from(n.weights + n.row) / across
    if across > 1:
        weights += n.weights_from(n.weight + n.source) * (across - 1) / across
    return weights + n.source * max(_far(n.row + n.weight), n.row_far, n.source_far)


def _column_by_column(n: _Lines, across: int, maps: int, run: int) -> float:
    """p, n, k: what a tile reads of the sources stays for all maps."""
    if run:
        weights = n.weights_from(n.weights + n.source * run) / min(run, across)
        return weights + n.source * n.source_far
    weights = n.weights_from(n.weights + n.source)
    return weights + n.source * (n.source_far + n.row_far / maps)


def _map_by_map(n: _Lines, across: int, maps: int, run: int) -> float:
    """k, p, n: weights stay for all rows."""
    source = (_far(n.row + n.weight) + _far(n.sources + n.weight)) / 2
    weights = n.weights_from(n.weight + n.source)
    return weights + n.source * max(source, n.row_far, n.source_far)


TRAFFIC: dict[str, Callable[[_Lines, int, int, int], float]] = {
    "pkn": _row_by_row,
    "pnk": _column_by_column,
    "kpn": _map_by_map,
}


def _traffic(tile: Tile, sizes: Correlation) -> float:
    """Cycles spent on lines that are not in the first cache, about."""
    together = min(tile.sources or sizes.sources, sizes.sources)
    turns = -(-sizes.sources // together)
    target = sizes.maps * sizes.rows.destination * sizes.columns.destination
    waiting = 2 * turns * target * (1 + _far(target)) if turns > 1 else 0.0
    phase_pairs = product(_kinds(sizes.rows), _kinds(sizes.columns))
    each = (_phase_traffic(tile, sizes, together, *pair) for pair in phase_pairs)
    return turns * sum(each) + waiting


@lru_cache(maxsize=1024)
def _kinds(taps: Taps) -> tuple[Taps, ...]:
    """The phases that meet any source."""
    return tuple(one.taps for one in phases(taps) if one.taps.taps)


def _phase_traffic(
    tile: Tile, sizes: Correlation, together: int, rows: Taps, columns: Taps
) -> float:
    """The same for the destinations of one phase of each axis, and one block of sources."""
    across = -(-columns.destination // tile.columns)
    maps = -(-sizes.maps // tile.maps)
    lines = _lines(tile, sizes, together, rows, columns)
    first = PACK if tile.packs else 0.0  # for the first of the maps, beside what all of them cost
    if lines.sources > MIDDLE_LINES:
        shared = rows.taps if lines.row <= MIDDLE_LINES and not lines.row_far else 1
        first += FAR * (IN_A_ROW if tile.packs else 1.0) / shared
    each = TRAFFIC[tile.order](lines, across, maps, tile.packs) + first * lines.source / maps
    return maps * rows.destination * across * each
