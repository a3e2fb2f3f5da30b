"""How a 1 × 1 convolution goes through its pixels (`kernels/points.py`)."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from lanewise.native.kernels.correlation import Correlation
from lanewise.native.kernels.points import PointTile, points_of
from lanewise.native.kernels.register_tiles import blocks
from lanewise.native.precisions import multiplies_pairs
from lanewise.native.target import Target
from lanewise.native.tiles import LATENCY, LIMITS, TURN, Limits, shapes
from lanewise.native.ways import LINE

#: cycles that the load of a weight or of a pixel takes from the multiply–adds beside it; a store
WEIGHT, PIXEL, STORE = 0.3, 0.6, 1.0
#: destination or source maps under which there is too little to do with a pixel
FEW_MAPS = 8
#: destination maps from which on it pays to copy what they read
MANY_MAPS = 48
#: bytes of a tile's sources that stay in the first cache; of a strip's, in the second
NEAR_BYTES, STRIP_BYTES = 28 << 10, 256 << 10
#: tiles of a strip where the rest of the target is written behind it, while its lines are near
REST_TILES = 4
#: bytes of sources that do not stay in the second cache; of a result that has left the caches
#: before anybody reads it
LARGE_SOURCE, LARGE_RESULT = 768 << 10, 8 << 20


def point_tile(target: Target, sizes: Correlation, pairs: bool = False) -> PointTile | None:
    """The tile and its way, or None where a convolution is not 1 × 1, or has so few maps that
    it is little more than a copy. `pairs`: where the processor can, two bf16 sources are
    multiplied at once."""
    found = _point_tile(target.name, sizes)
    both = pairs and sizes.sources % 2 == 0 and multiplies_pairs(target)
    return replace(found, pairs=True) if found and both else found


@lru_cache(maxsize=4096)
def _point_tile(name: str, sizes: Correlation) -> PointTile | None:
    points = points_of(sizes)
    if points is None or min(sizes.maps, sizes.sources) < FEW_MAPS:
        return None
    limits = LIMITS[name]
    found = shapes(sizes.maps, min(points.count, 12), limits)
    maps, pixels = min(found, key=lambda one: _cost(one, sizes, points.count, limits))
    line = sizes.sources * pixels * LINE
    packs = sizes.maps >= MANY_MAPS
    tiles = REST_TILES if points.rest else 8 if packs else 16
    strip = max(1, min(tiles, STRIP_BYTES // line, points.count // pixels))
    away = _bytes(sizes.maps, sizes.rows.destination, sizes.columns.destination) >= LARGE_RESULT
    afar = _bytes(sizes.sources, sizes.rows.source, sizes.columns.source) >= LARGE_SOURCE
    ahead = away or (afar and not packs)
    return PointTile(maps, pixels, strip, packs and line > NEAR_BYTES, packs, ahead, away)


def _bytes(maps: int, rows: int, columns: int) -> int:
    return maps * rows * columns * LINE


def _cost(shape: tuple[int, int], sizes: Correlation, count: int, limits: Limits) -> float:
    """Cycles of all tiles, if all that they read were near."""

    def tile(m: int, n: int) -> float:
        products, loads = m * n / limits.products_per_cycle, (m + n) / limits.loads_per_cycle
        turn = TURN / 2 + max(products + WEIGHT * m + PIXEL * n, loads, LATENCY)
        return sizes.sources * turn + STORE * m * n

    return sum(
        k_times * n_times * tile(k, n)
        for _, k, k_times in blocks(sizes.maps, shape[0])
        for _, n, n_times in blocks(count, shape[1])
    )
