"""How the gradient of weights is computed: images or kernels in the lanes, tiles, strips.

Both kinds of kernel read two sets of maps again and again. A way's cost is a count of cycles: of
its multiply–adds and loads (`tiles.py`), of cache lines that are not in the first cache, of sums
that come and go, of sums of lanes or transpositions. The constants are fitted to 350 kernels of 63
layers on an Ice Lake server, from 3 to 128 channels and 4 to 32 pixels; they tell times to 10 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from lanewise.native.kernels.lane_weights import LaneTile
from lanewise.native.kernels.taps import Taps, joined
from lanewise.native.kernels.weights import WeightTile
from lanewise.native.nest import LANES
from lanewise.native.target import Target
from lanewise.native.tiles import (
    LANE_SUM,
    LIMITS,
    TRANSPOSITION,
    Limits,
    image_tiles,
    lane_cycles,
    lane_tile_shape,
)
from lanewise.native.ways import MIDDLE_LEVEL, fits

#: lines that stay in the first and second cache; cycles to bring a line from the second and beyond
NEAR_LINES, MIDDLE_LINES, MIDDLE, FAR = 750, 16_000, 0.35, 2.0
#: cycles for a sum to come and go; to begin and end a tile's turn over the pixels of a strip
WAIT, VISIT = 2.5, 7.0
#: times FAR where the source maps meet in few sets of the second cache: read in rows, one by one
CROWDED, SCATTERED = 0.6, 2.0
#: output pixels that are transposed together
LANE_PIXELS = 64
#: heights of a strip of output rows that are tried
HEIGHTS = (1, 2, 4, 8, 16)


def prefers_lanes(maps: int, sources: int, rows: Taps, columns: Taps) -> bool:
    """Whether the weight gradient is quicker with kernels in the lanes (`lane_weights.py`).

    The same answer for all targets, because the two kinds of kernel sum in another order.
    """
    limits = LIMITS["avx512"]
    together = joined(rows, columns, LANE_PIXELS)
    tile = _lane_tile(maps, sources, *together, limits)
    ours = _lane_cost(tile, maps, sources, *together, limits)
    return ours < min(cost for cost, _ in _image_ways("avx512", maps, sources, rows, columns))


def lane_tile(target: Target, maps: int, sources: int, rows: Taps, columns: Taps) -> LaneTile:
    """Input maps × vectors of kernels, and the strip of pixels that is finished before the next."""
    return _lane_tile(maps, sources, rows, columns, LIMITS[target.name])


def weight_tile(target: Target, maps: int, sources: int, rows: Taps, columns: Taps) -> WeightTile:
    """Output maps × input maps × kernel columns, and the rows that are finished before the next."""
    return _image_ways(target.name, maps, sources, rows, columns)[0][1]


@lru_cache(maxsize=4096)
def _lane_tile(maps: int, sources: int, rows: Taps, columns: Taps, limits: Limits) -> LaneTile:
    width = columns.destination if columns.taps > 1 else min(columns.destination, LANE_PIXELS)
    height = min(rows.destination, max(1, LANE_PIXELS // width))
    shape = lane_tile_shape(maps, sources, columns, limits)
    return LaneTile(*shape[:2], height, width, shape[2])


@lru_cache(maxsize=4096)
def _image_ways(
    name: str, maps: int, sources: int, rows: Taps, columns: Taps
) -> list[tuple[float, WeightTile]]:
    """Tiles and heights with images in the lanes, and their cycles; the best first."""
    found = [
        (rows.pairs * cycles + _image_traffic(one, maps, sources, rows, columns), one)
        for cycles, tile in image_tiles(LIMITS[name], maps, sources, columns)
        for one in _strips(tile, rows)
    ]
    return sorted(found, key=lambda one: one[0])


def _strips(tile: WeightTile, rows: Taps) -> Iterator[WeightTile]:
    yield tile
    yield from (replace(tile, rows=n) for n in HEIGHTS if n < rows.destination)


def _far(lines: float) -> float:
    """Cycles to bring a line that was last used so many lines ago."""
    return 0.0 if lines <= NEAR_LINES else MIDDLE if lines <= MIDDLE_LINES else FAR


def _meet(sources: int, height: int, width: int, rows: Taps, columns: Taps) -> bool:
    """Whether what a strip reads of the source maps finds room in the sets of the second cache."""
    high = min(rows.source, height * rows.advance)
    wide = min(columns.source, width * columns.advance)
    plane = rows.source * columns.source
    return fits(plane, columns.source, sources, high, wide, MIDDLE_LEVEL)


def _image_traffic(tile: WeightTile, maps: int, sources: int, rows: Taps, columns: Taps) -> float:
    """Cycles beside products with images in the lanes: lines from afar, sums that wait, lanes."""
    height = tile.rows or rows.destination
    strips = -(-rows.destination // height)
    wide, wide_source = columns.destination, columns.source * rows.advance
    turns_k, turns_c = -(-maps // tile.maps), -(-sources // tile.sources)
    turns_t = rows.taps * -(-columns.taps // tile.taps)
    every = maps * rows.destination * wide + sources * rows.source * columns.source
    own = (tile.maps * wide + tile.sources * wide_source) * height
    gradient, source = turns_k * tile.maps * wide * height, sources * wide_source * height
    lines = (gradient + source) * _far(every)
    room = _meet(sources, height, wide, rows, columns)
    again = max(_far(source + own), 0.0 if room else CROWDED * FAR)
    lines += (turns_k - 1) * source * again + (turns_c - 1) * gradient * _far(own)
    lines += turns_k * turns_c * (turns_t - 1) * own * _far(own)
    weights = maps * sources * rows.taps * columns.taps
    waiting = strips * weights * WAIT * (1 + _far(weights)) if tile.rows else 0.0
    visits = turns_k * turns_c * turns_t * VISIT
    return strips * (lines + visits) + waiting + weights * LANE_SUM


def _lane_cost(
    tile: LaneTile, maps: int, sources: int, rows: Taps, columns: Taps, limits: Limits
) -> float:
    """Cycles with kernels in the lanes."""
    vectors, weights = -(-maps // LANES), sources * rows.taps * columns.taps
    turned = TRANSPOSITION * vectors * (rows.destination * columns.destination + weights / LANES)
    shape = tile.sources, tile.vectors, tile.taps
    products = LANES * rows.pairs * lane_cycles(shape, maps, sources, columns, limits)
    return products + turned + _lane_traffic(tile, maps, sources, rows, columns)


def _lane_traffic(tile: LaneTile, maps: int, sources: int, rows: Taps, columns: Taps) -> float:
    """Of these, what lines from afar and sums that wait take."""
    high, wide = tile.rows or rows.destination, tile.columns or columns.destination
    strips = -(-rows.destination // high) * -(-columns.destination // wide)
    vectors, area = -(-maps // LANES), rows.taps * columns.taps
    turns_v, turns_c = -(-vectors // tile.vectors), -(-sources // tile.sources)
    pixels = rows.destination * columns.destination
    every = maps * pixels + sources * rows.source * columns.source
    source = sources * high * wide * rows.advance * columns.advance
    lines = maps * pixels * _far(every) + turns_v * strips * source * _far(every)
    own = tile.vectors * high * wide * LANES
    turns = rows.taps * -(-columns.taps // tile.taps)
    lines += strips * turns_c * turns * vectors * high * wide * LANES * _far(own)
    if not _meet(sources, high, wide, rows, columns):
        lines += (turns_v * turns - 1) * strips * sources * high * wide * SCATTERED * FAR
    sums = sources * area * vectors
    held = sources * area * min(vectors, tile.vectors)
    return lines + (strips * sums * WAIT * (1 + _far(held)) if strips > 1 else 0.0)
