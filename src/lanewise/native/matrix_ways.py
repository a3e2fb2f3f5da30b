"""Where bf16 is multiplied by small matrices (AMX), and in which strips: a count of cycles.

None of it has been measured, for want of such a processor. The cycles of the instructions are those
of Intel's 64 and IA-32 Architectures Optimization Reference Manual, chapter on AMX:

    TDPBF16PS     16 cycles, 52 until the sum can be added to again: 16 × 16 × 32 multiply–adds
    TILELOADD      8 cycles where the lines are in the first cache
    TILESTORED    16 cycles
    LDTILECFG    204 cycles, TILERELEASE 13: once for each call of a kernel

512 multiply–adds a cycle are 16 times those of fp32. So the direct sum beats Winograd's algorithm
wherever the blocks of kernels and sources are filled well. What goes to and fro (pairs of sources,
sums) is counted as vectors, guessed from similar kernels elsewhere.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

from lanewise.native import algorithms
from lanewise.native.kernels import matrix_conv, matrix_gradient
from lanewise.native.kernels.correlation import Correlation
from lanewise.native.kernels.images import row_blocks
from lanewise.native.kernels.matrix_conv import Blocks, MatrixTile, even_block
from lanewise.native.kernels.matrix_gradient import PIXELS, GradientSizes
from lanewise.native.kernels.register_tiles import blocks
from lanewise.native.kernels.taps import column_segments, phases
from lanewise.native.kernels.winograd_places import Winograd
from lanewise.native.nest import LANES
from lanewise.native.precisions import multiplies_matrices
from lanewise.native.target import Target
from lanewise.native.tiles import LIMITS

#: cycles of a product, and until its sum can be added to; of a load from the first cache, from the
#: second (16 lines at 48 bytes a cycle, Intel's manual); of a store; to begin and end a kernel
PRODUCT, LATENCY, NEAR, MIDDLE, STORE, CONFIGURE = 16.0, 52.0, 8.0, 21.0, 16.0, 217.0
#: cycles to make a vector of pairs; to finish a vector of sums
PACK, FINISH = 5.0, 4.0
#: bytes of weights and pairs that stay in the first cache, of a strip's pairs in the second
NEAR_BYTES, STRIP_BYTES = 40 << 10, 512 << 10
#: bytes of a matrix in memory
MATRIX_BYTES = 1024
#: strips of a convolution that are tried
STRIPS = (1, 2, 4, 8, 16)
#: it must be quicker by this factor, because nobody has measured it
WORTH = 1.5
#: cycles to transpose 16 × 16 pairs (as `tiles.TRANSPOSITION`)
TURN = 100.0
#: kernels from which on it is looked at; source maps of a product of the weights' gradient
FEWEST_MAPS, FEWEST_SOURCES = 16, 8


def matrix_tile(
    target: Target, sizes: Correlation, winograd: Winograd | None = None
) -> MatrixTile | None:
    """The tile of a convolution by small matrices, where the processor has them and that is quicker
    than the direct sum or, if one is given, an algorithm of Winograd's; else None."""
    return _matrix_tile(sizes, winograd) if multiplies_matrices(target) else None


@lru_cache(maxsize=4096)
def _matrix_tile(sizes: Correlation, winograd: Winograd | None) -> MatrixTile | None:
    if sizes.groups > 1 or sizes.maps < FEWEST_MAPS:
        return None
    tiles = list(_tiles(sizes))
    best = min(tiles, key=lambda tile: (matrix_cycles(sizes, tile), tile.rows), default=None)
    other = algorithms.winograd_cycles(winograd) if winograd else None
    if best is None or matrix_cycles(sizes, best) * WORTH > (other or _direct_cycles(sizes)):
        return None
    return best


def gradient_rows(
    target: Target, sizes: GradientSizes, winograd: Winograd | None = None
) -> int | None:
    """Rows of a strip for the gradient of the weights by small matrices; None where something else
    is quicker, or all there is."""
    return _gradient_rows(sizes, winograd) if multiplies_matrices(target) else None


@lru_cache(maxsize=4096)
def _gradient_rows(sizes: GradientSizes, winograd: Winograd | None) -> int | None:
    if not sizes.possible or sizes.block < FEWEST_SOURCES:
        return None
    heights = [n for n in STRIPS if n < 2 * sizes.rows.destination]
    near = [n for n in heights if _gradient_bytes(sizes, n) <= 2 * STRIP_BYTES]
    best = min(near or heights[:1], key=lambda rows: gradient_cycles(sizes, rows))
    products = sizes.maps * sizes.sources * sizes.rows.pairs * sizes.columns.pairs
    other = products / LIMITS["avx512"].products_per_cycle / algorithms.DIRECT_SHARE
    if winograd:
        other = algorithms.weight_gradient_cycles(winograd)
    return best if gradient_cycles(sizes, best) * WORTH < other else None


def _gradient_bytes(sizes: GradientSizes, rows: int) -> int:
    """Of what a strip reads of x, and of dy transposed."""
    read = sizes.sources * (rows + sizes.rows.taps - 1) * sizes.columns.source
    return prod(matrix_gradient.turned_shape(sizes, rows)) * 4 + read * LANES * 2


def gradient_cycles(sizes: GradientSizes, rows: int) -> float:
    """Cycles of a core for 16 images."""
    kernel_blocks, source_blocks = row_blocks(sizes.maps), sizes.sources // sizes.block
    strips, turns = -(-sizes.rows.destination // rows), sizes.columns.source // PIXELS
    total, columns = CONFIGURE, sizes.columns.taps
    for _, kernels, k_times in blocks(kernel_blocks, matrix_conv.TOGETHER):
        for _, sources, c_times in blocks(source_blocks, matrix_conv.TOGETHER):
            for _, taps, t_times in blocks(columns, matrix_gradient.registers(kernels, sources)):
                cells = kernels * sources * taps
                load = _gradient_load(sizes, rows, kernels, sources)
                step = max(PRODUCT * cells, LATENCY, load * (sources + kernels * taps))
                visits = strips * sizes.rows.taps * cells * (STORE + MIDDLE)
                each = sizes.rows.pairs * turns * step + visits
                total += k_times * c_times * t_times * each
    turned = kernel_blocks * sizes.rows.destination * (sizes.columns.destination // PIXELS)
    return total + TURN * turned


def _gradient_load(sizes: GradientSizes, rows: int, kernels: int, sources: int) -> float:
    """Cycles of a load of what a strip has for some blocks of kernels and sources."""
    dy = kernels * rows * sizes.width
    x = sources * (rows + sizes.rows.taps - 1) * sizes.columns.source
    return NEAR if (dy + x) * MATRIX_BYTES // PIXELS <= NEAR_BYTES else MIDDLE


def _tiles(sizes: Correlation) -> list[MatrixTile]:
    """Strips of some rows, whose pairs stay in the second cache; one that does not if none does."""
    maps, pairs = even_block(sizes.maps), even_block(-(-sizes.sources // 2))
    period = min(sizes.rows.period, sizes.rows.destination)
    found = [MatrixTile(maps, pairs, n * period) for n in STRIPS]
    near = [
        tile
        for tile in found
        if tile.rows < sizes.rows.destination + period and _strip_bytes(sizes, tile) <= STRIP_BYTES
    ]
    return near or found[:1]


def _strip_bytes(sizes: Correlation, tile: MatrixTile) -> int:
    blocks, rows, columns, pairs, lanes = matrix_conv.packed_shape(sizes, tile)
    return blocks * rows * columns * pairs * lanes * 4


def _direct_cycles(sizes: Correlation) -> float:
    """Cycles of the direct sum of vectors, as `algorithms.py` counts."""
    products = sizes.maps * sizes.sources * sizes.rows.pairs * sizes.columns.pairs
    return products / LIMITS["avx512"].products_per_cycle / algorithms.DIRECT_SHARE


def matrix_cycles(sizes: Correlation, tile: MatrixTile) -> float:
    """Cycles of a core for 16 images."""
    cut = Blocks(sizes, tile)
    total, results = CONFIGURE, sizes.rows.destination * sizes.columns.destination
    for _, counted, times in cut.together:
        for phase in phases(sizes.columns):
            for segment in column_segments(phase.taps, matrix_conv.TOGETHER):
                met = [len(segment.of_tap(t)) for t in range(phase.taps.taps)]
                read = {s for column in segment.pattern for s in column if s is not None}
                loads = len(counted) * sum(n > 0 for n in met) + len(read)
                step = max(
                    PRODUCT * len(counted) * sum(met),
                    LATENCY * sum(n > 0 for n in met),
                    _load(sizes, len(counted), len(read), cut.sources) * loads,
                )
                stores = STORE * len(counted) * segment.width * sizes.rows.destination
                turns = sizes.rows.pairs * cut.sources
                total += times * segment.tiles * (turns * step + stores)
    total += FINISH * results * sizes.maps
    return total + PACK * _packed_vectors(sizes, tile)


def _load(sizes: Correlation, maps: int, columns: int, sources: int) -> float:
    """Cycles of a load: of what a tile reads, half is read again soon."""
    each = maps * sizes.columns.taps + columns
    read = each * sizes.rows.taps * sources * MATRIX_BYTES
    return NEAR if read <= NEAR_BYTES else MIDDLE


def _packed_vectors(sizes: Correlation, tile: MatrixTile) -> int:
    """Vectors of pairs that all strips copy, and zeros."""
    rows = sum(matrix_conv.rows_read(sizes, tile))
    return Blocks(sizes, tile).sources * tile.pairs * rows * sizes.columns.source
