"""Which algorithm computes a convolution: the direct sum, or Winograd's, and with which tiles.

A count of cycles of one core for a slice of 16 images, checked against measurements (docs,
performance-notes.md). The direct sum costs its multiply–adds. Winograd's costs

    transforms    tiles · (sources · A + maps · B), A and B measured
    products      register tiles · sources · (multiply–adds or loads, whichever is more)
    factors       the transformed weights, brought from afar once for every block of tiles

The algorithm decides the rounding, so it must not depend on the machine: it is chosen for one kind
of CPU, and the others take it over. The tiles do not show in a bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

from lanewise.native.kernels.fused_norm import Reads
from lanewise.native.kernels.images import row_blocks
from lanewise.native.kernels.winograd_both import Weights, vectors_of
from lanewise.native.kernels.winograd_factors import WinogradTile, factors_shape, shares_blocks
from lanewise.native.kernels.winograd_gradient import GradientTile
from lanewise.native.kernels.winograd_places import Axis, Winograd, block_tiles
from lanewise.native.kernels.winograd_transforms import Algorithm
from lanewise.native.nest import LANES
from lanewise.native.target import Target
from lanewise.native.tiles import LIMITS, Limits
from lanewise.net.layers import Conv, DepthwiseConv
from lanewise.size.windows import Shape, conv_of, resolve_window

FLOAT, VECTOR = 4, 64  # bytes
F4, F2, F4_5 = Algorithm(4, 3), Algorithm(2, 3), Algorithm(4, 5)
#: taps → the algorithms that are tried (F(2×2, 5×5) gains half of what F(4×4, 5×5) does)
CANDIDATES = {3: (F4, F2), 5: (F4_5,)}

#: of the peak, what the direct sum reaches, and the products of Winograd's, if loads cost nothing
DIRECT_SHARE, PRODUCT_SHARE = 0.72, 1.28
#: cycles that a load costs a product, even where there is room for it
LOAD = 0.7
#: cycles to transform one tile of one source, and of one map; to work out one weight's factors
TRANSFORM = {F4: (250.0, 165.0), F2: (100.0, 55.0), F4_5: (600.0, 400.0)}
FACTORS = {F4: 45.0, F2: 20.0, F4_5: 120.0}
#: cycles more for one map of a tile that sticks out over the result
PART = 150.0
#: of the gradient of the weights: cycles to transform a tile of one source, of one kernel; cycles
#: to take 16 weights back; of the peak, what the products reach
GRADIENT_TRANSFORM = {F4: (290.0, 300.0), F2: (120.0, 95.0), F4_5: (650.0, 750.0)}
GRADIENT_BACK, GRADIENT_SHARE = {F4: 200.0, F2: 200.0, F4_5: 400.0}, 0.65
#: slices that share what a worker works out once
SLICES = 2
#: cycles to begin and end a register tile of products, besides one for each of its sums
BEGIN = 12.0
#: what may stay in the second-level cache, bytes: of the transformed sources, and of the products
SOURCES_BYTES, PRODUCTS_BYTES = 720 << 10, 360 << 10
#: maps and tiles of a register tile, at most
MOST_MAPS, MOST_TILES = 12, 6
#: and what in the third, where every point has its own; read and written at so many bytes a cycle
THIRD_BYTES, THIRD_RATE = 10 << 20, 24.0
#: chunks that all maps are cut into; register tiles that are looked at further
PARTS, GOOD_TILES = (1, 2, 4, 8), 8
#: factors up to so many bytes stay there too; others come at so many bytes a cycle
NEAR_FACTORS, FACTORS_RATE = 300 << 10, 8.0
#: factors of one layer may take so many bytes, of every worker
MOST_FACTORS = 40 << 20
#: Winograd's must be quicker by this factor, for it is less exact
WORTH = 1.15


@dataclass(frozen=True)
class Convolution:
    """What the choice depends on: a convolution of stride 1 and one group, in one direction."""

    maps: int
    sources: int
    taps: int
    rows: Axis
    columns: Axis

    @property
    def products(self) -> int:
        """Multiply–adds of the direct sum, in vectors of lanes."""
        return self.maps * self.sources * self._pairs(self.rows) * self._pairs(self.columns)

    def _pairs(self, axis: Axis) -> int:
        return sum(
            0 <= d + t - axis.before < axis.source
            for d in range(axis.destination)
            for t in range(self.taps)
        )

    def sizes(self, algorithm: Algorithm) -> Winograd:
        return Winograd(algorithm, self.maps, self.sources, self.rows, self.columns)


def chosen(layer: Conv | DepthwiseConv, shape: Shape, forward: bool) -> Algorithm | None:
    """Which of Winograd's algorithms a layer gets, if any, for an input of this shape."""
    found = convolution(layer, shape, forward)
    return algorithm(found) if found else None


def chosen_for_weights(layer: Conv, shape: Shape) -> Algorithm | None:
    """The same for the gradient of the weights."""
    found = convolution(layer, shape, forward=True)
    return gradient_algorithm(found) if found else None


@lru_cache(maxsize=4096)
def convolution(layer: Conv | DepthwiseConv, shape: Shape, forward: bool) -> Convolution | None:
    """What the choice depends on, forward or for the gradient of the input; None for a layer that
    Winograd's algorithm cannot compute. `shape`: C, H, W of the input."""
    whole = conv_of(layer, shape)
    plain = whole.stride == whole.dilation == (1, 1) and whole.groups == 1
    if not plain or whole.kernel[0] != whole.kernel[1]:
        return None
    moves, taps = resolve_window(whole, shape), whole.kernel[0]
    axes = []
    for size, out, (before, _) in zip(shape[1:], moves.out, moves.pad, strict=True):
        axes.append(Axis(out, size, before) if forward else Axis(size, out, taps - 1 - before))
    maps, sources = (whole.kernels, shape[0]) if forward else (shape[0], whole.kernels)
    return Convolution(maps, sources, taps, *axes)


@lru_cache(maxsize=4096)
def algorithm(convolution: Convolution) -> Algorithm | None:
    """The quickest of Winograd's where it pays, else None: the direct sum."""
    costs = {
        one: cycles
        for one in CANDIDATES.get(convolution.taps, ())
        if (cycles := winograd_cycles(convolution.sizes(one))) is not None
    }
    best = min(costs, key=lambda one: costs[one], default=None)
    if best is None or costs[best] * WORTH > direct_cycles(convolution):
        return None
    return best


@lru_cache(maxsize=4096)
def gradient_algorithm(convolution: Convolution) -> Algorithm | None:
    """The same for the gradient of the weights; the convolution is the forward one."""
    costs = {
        one: weight_gradient_cycles(sizes)
        for one in CANDIDATES.get(convolution.taps, ())
        if _fits(sizes := convolution.sizes(one))
    }
    best = min(costs, key=lambda one: costs[one], default=None)
    if best is None or costs[best] * WORTH > direct_cycles(convolution):
        return None
    return best


def weight_gradient_cycles(sizes: Winograd) -> float:
    """Cycles with the best tile."""
    limits = LIMITS["avx512"]
    return min(_gradient_cycles(sizes, tile, limits) for tile in _gradient_tiles(sizes, limits))


@lru_cache(maxsize=4096)
def gradient_tile(target: Target, sizes: Winograd) -> GradientTile:
    """The tile with the fewest cycles."""
    limits = LIMITS[target.name]
    tiles = _gradient_tiles(sizes, limits)
    return min(tiles, key=lambda tile: _gradient_cycles(sizes, tile, limits))


def direct_cycles(convolution: Convolution) -> float:
    """Cycles of the direct sum."""
    return convolution.products / LIMITS["avx512"].products_per_cycle / DIRECT_SHARE


def winograd_cycles(sizes: Winograd) -> float | None:
    """Cycles with the best tile; None where the factors would take too much memory."""
    if not _fits(sizes):
        return None
    return min(_cycles(sizes, tile, LIMITS["avx512"]) for tile in _tiles(sizes, LIMITS["avx512"]))


def _fits(sizes: Winograd) -> bool:
    return sizes.algorithm.points * sizes.maps * sizes.sources * FLOAT <= MOST_FACTORS


def winograd_tile(target: Target, sizes: Winograd, shared: bool = False) -> WinogradTile:
    """The tile with the fewest cycles; `shared`: where two threads may share a slice."""
    return _best_tile(target.name, sizes, shared)


@lru_cache(maxsize=4096)
def _best_tile(name: str, sizes: Winograd, shared: bool) -> WinogradTile:
    limits = LIMITS[name]

    def cycles(tile: WinogradTile) -> float:
        return (_cycles_of_two if shared else _cycles)(sizes, tile, limits)

    return min(_tiles(sizes, limits), key=lambda tile: (cycles(tile), -tile.chunk))


def _cycles_of_two(sizes: Winograd, tile: WinogradTile, limits: Limits) -> float:
    """Cycles of two threads together, the waiting of one for the other included."""
    blocks, chunks = len(block_tiles(sizes, tile.block)), -(-sizes.maps // tile.chunk)
    by_block = shares_blocks(blocks, chunks)
    all, part, count = (
        (sizes.tiles, tile.block, blocks) if by_block else (sizes.maps, tile.chunk, chunks)
    )
    first = part * (count // 2)
    again = 0.0 if by_block else sizes.tiles * sizes.sources * TRANSFORM[sizes.algorithm][0]
    return _cycles(sizes, tile, limits) * 2 * max(first, all - first) / all + again


def _tiles(sizes: Winograd, limits: Limits) -> Iterator[WinogradTile]:
    """Register tiles that fit, in blocks and chunks whose arrays stay in the second cache or in the
    third."""
    for maps, tiles in _good_register_tiles(sizes, limits):
        for block in range(tiles, min(tiles * 4, sizes.tiles + tiles - 1) + 1, tiles):
            for sources in _sources_together(sizes, block):
                for chunk in _chunks(sizes, maps, block):
                    yield WinogradTile(maps, tiles, block, chunk, sources)


def _sources_together(sizes: Winograd, block: int) -> set[int]:
    """How many sources are transformed at once: the most that fit the second cache, the third."""
    found = set()
    for limit in (SOURCES_BYTES, THIRD_BYTES):
        fit = (n for n in _divisors(sizes.sources) if _bytes(sizes, n, block) <= limit)
        found.add(next(fit, 1))
    return found


def _chunks(sizes: Winograd, maps: int, block: int) -> set[int]:
    """Maps of a chunk: as many as fit the second cache, or an even share of all."""
    whole, each = -(-sizes.maps // maps), _bytes(sizes, maps, block)
    shares = {-(-whole // parts) for parts in PARTS}
    near = max(1, min(whole, PRODUCTS_BYTES // each))
    return {maps * n for n in {near, *shares} if n == near or n * each <= THIRD_BYTES}


def _good_register_tiles(sizes: Winograd, limits: Limits) -> list[tuple[int, int]]:
    """Those with the fewest cycles for the products alone."""

    def cycles(shape: tuple[int, int]) -> float:
        block = shape[1] * -(-sizes.tiles // shape[1])
        return _products(sizes, WinogradTile(*shape, block, sizes.maps, sizes.sources), limits)

    return sorted(_register_tiles(sizes, limits), key=cycles)[:GOOD_TILES]


def _register_tiles(sizes: Winograd, limits: Limits) -> Iterator[tuple[int, int]]:
    """Maps × tiles, as for the direct sum (`tiles.py`)."""
    for maps in range(1, min(sizes.maps, MOST_MAPS) + 1):
        for tiles in range(1, min(sizes.tiles, MOST_TILES) + 1):
            room = maps * tiles + tiles + 1 <= limits.registers
            if maps * tiles <= 0.75 * limits.registers and room:
                yield maps, tiles


def _divisors(number: int) -> list[int]:
    """The largest first."""
    return [n for n in range(number, 0, -1) if number % n == 0]


def _bytes(sizes: Winograd, maps: int, tiles: int) -> int:
    return sizes.algorithm.points * maps * tiles * VECTOR


def _cycles(sizes: Winograd, tile: WinogradTile, limits: Limits) -> float:
    read, back = TRANSFORM[sizes.algorithm]
    chunks = -(-sizes.maps // tile.chunk)
    again = chunks if tile.sources < sizes.sources else 1
    whole = prod(
        axis.destination // sizes.algorithm.outputs for axis in (sizes.rows, sizes.columns)
    )
    transforms = sizes.tiles * (sizes.sources * read * again + sizes.maps * back)
    transforms += (sizes.tiles - whole) * sizes.maps * PART
    factors = prod(factors_shape(sizes, tile)) * FLOAT
    blocks = len(block_tiles(sizes, tile.block))
    afar = blocks * factors / FACTORS_RATE if factors > NEAR_FACTORS else 0.0
    afar += blocks * _third(sizes, tile) / THIRD_RATE
    once = FACTORS[sizes.algorithm] * sizes.maps * sizes.sources / SLICES
    return transforms + _products(sizes, tile, limits) + afar + once


def _third(sizes: Winograd, tile: WinogradTile) -> float:
    """Bytes of one block that are written to the third cache and read again."""
    chunks, parts = -(-sizes.maps // tile.chunk), sizes.sources // tile.sources
    sources = _bytes(sizes, tile.sources, tile.block)
    products = _bytes(sizes, min(tile.chunk, sizes.maps), tile.block)
    turns = 2 * parts * chunks if parts > 1 else 1 + chunks
    far = turns * sources if sources > SOURCES_BYTES else 0
    return far + (2 * parts * chunks * products if products > PRODUCTS_BYTES else 0)


def _products(sizes: Winograd, tile: WinogradTile, limits: Limits) -> float:
    """Cycles of the small matrix products."""
    across = sum(-(-tiles // tile.tiles) for tiles in block_tiles(sizes, tile.block))
    parts = sizes.sources // tile.sources
    total = 0.0
    for maps, count in ((tile.maps, sizes.maps // tile.maps), (sizes.maps % tile.maps, 1)):
        cells = maps * tile.tiles
        loads = (maps + tile.tiles) / limits.loads_per_cycle
        multiply = (cells / limits.products_per_cycle + LOAD * loads) / PRODUCT_SHARE
        turn = max(multiply, loads)
        if maps:
            total += count * (sizes.sources * turn + parts * (BEGIN + cells))
    return sizes.algorithm.points * across * total


# ---- the gradient of the weights ----------------------------------------------------------------


def joins_gradients(sizes: Winograd) -> bool:
    """Whether the gradients of input and weights are worked out in one pass (sizes of the input's):
    where the transforms of a block of tiles, of all maps of dy and of x, stay in a cache. It
    decides the order of sums, and so it does not depend on the machine."""
    most = max(sizes.sources, row_blocks(sizes.maps) * LANES)
    return _bytes(sizes, most + MOST_MAPS, MOST_TILES) <= THIRD_BYTES


@lru_cache(maxsize=4096)
def tile_of_both(target: Target, sizes: Winograd) -> WinogradTile:
    """The tile of the input's gradient with the fewest cycles, where all maps go together; in the
    second cache, if they fit."""
    limits, most = LIMITS[target.name], max(sizes.sources, sizes.maps)
    tiles = [
        tile
        for tile in _tiles(sizes, limits)
        if tile.sources == sizes.sources and tile.chunk >= sizes.maps
    ]
    near = [tile for tile in tiles if _bytes(sizes, most, tile.block) <= SOURCES_BYTES]
    return min(near or tiles, key=lambda tile: _cycles(sizes, tile, limits))


@lru_cache(maxsize=4096)
def weights_of_both(target: Target, sizes: Winograd, reads: Reads) -> Weights:
    """How the gradient of the weights is taken in that pass. Where all channels are one vector,
    they are two for two images; the order of sums depends on that, not on the registers."""
    images, limits = 2 if sizes.maps <= LANES else 1, LIMITS[target.name]
    wide = replace(sizes, maps=vectors_of(sizes, images) * LANES)
    tiles = _gradient_tiles(wide, limits)
    best = min(tiles, key=lambda tile: _gradient_products(wide, tile, limits))
    return Weights(reads, images, best.sources, best.vectors)


def _gradient_tiles(sizes: Winograd, limits: Limits) -> Iterator[GradientTile]:
    """Register tiles that fit; blocks of some tiles."""
    for vectors in range(1, min(row_blocks(sizes.maps), 4) + 1):
        for sources in range(1, min(sizes.sources, 16) + 1):
            room = sources * vectors + vectors + 1 <= limits.registers
            if sources * vectors <= 0.75 * limits.registers and room:
                for block in (1, 2, 4, 8):
                    if block < 2 * sizes.tiles:
                        yield GradientTile(sources, vectors, min(block, sizes.tiles))


def _gradient_cycles(sizes: Winograd, tile: GradientTile, limits: Limits) -> float:
    read, turn = GRADIENT_TRANSFORM[sizes.algorithm]
    vectors = row_blocks(sizes.maps)
    kernels, blocks = vectors * LANES, len(block_tiles(sizes, tile.block))
    transforms = sizes.tiles * (sizes.sources * read + kernels * turn)
    waiting = _bytes(sizes, sizes.sources + kernels, tile.block)
    sums = sizes.algorithm.points * sizes.sources * kernels * FLOAT
    afar = 2 * max(0, waiting - SOURCES_BYTES - PRODUCTS_BYTES)
    afar += 2 * sums if sums > NEAR_FACTORS else 0
    back = GRADIENT_BACK[sizes.algorithm] * sizes.sources * vectors
    products = _gradient_products(sizes, tile, limits)
    return transforms + products + blocks * afar / FACTORS_RATE + back


def _gradient_products(sizes: Winograd, tile: GradientTile, limits: Limits) -> float:
    """Cycles of the small matrix products."""
    blocks, total = len(block_tiles(sizes, tile.block)), 0.0
    for sources, s_count in _cut(sizes.sources, tile.sources):
        for vectors, v_count in _cut(row_blocks(sizes.maps), tile.vectors):
            cells = sources * vectors
            multiply = cells / limits.products_per_cycle / GRADIENT_SHARE
            turn = max(multiply, (sources + vectors) / limits.loads_per_cycle)
            each = sizes.tiles * LANES * turn + blocks * (BEGIN + 2 * cells)
            total += s_count * v_count * each
    return sizes.algorithm.points * total


def _cut(size: int, width: int) -> list[tuple[int, int]]:
    """Parts of a size: how wide, how many."""
    whole, rest = divmod(size, width)
    return [(width, whole), (rest, 1)] if rest else [(width, whole)]
