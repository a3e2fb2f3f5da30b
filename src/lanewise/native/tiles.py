"""Which register tile a kernel gets: the cheapest by a count of the CPU's limits.

For one turn of the inner loop a CPU needs at least

    multiply–adds / its multiply–adds a cycle     and     loads / its loads a cycle

cycles, and a chain of dependent multiply–adds takes `LATENCY` each. A tile's cost is the larger of
the three, summed over every tile that the loops run, edges and rests included. The constants are
in 16-lane vectors: an AVX2 CPU spends two registers and two instructions on each, NEON four.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from lanewise.native.kernels.correlation import Tile
from lanewise.native.kernels.depthwise import MapTile, RowTile
from lanewise.native.kernels.lane_weights import along
from lanewise.native.kernels.linear import GradientTile, gradient_tile
from lanewise.native.kernels.pointwise import LineTile, PairTile
from lanewise.native.kernels.register_tiles import blocks
from lanewise.native.kernels.taps import Segment, Taps, column_segments, phases
from lanewise.native.kernels.weights import WeightTile
from lanewise.native.nest import LANES
from lanewise.native.target import Target

LATENCY = 4.0  # cycles from one multiply–add to the next that needs its result (Intel, AMD)
TURN = 1.0  # cycles of loop overhead
LOAD = 0.1  # cycles a load costs even where there is room for it

#: a depthwise tile where there are 32 registers: eight sums hide the latency of a multiply–add
MAP_ROWS, MAP_COLUMNS = 2, 4
MAP_PRODUCTS = 4000  # multiply–adds written out, at most


#: cycles to bring a line from the second-level cache; pixels that a 1 × 1 convolution takes at a
#: time, about
SECOND_LEVEL, LINE_PIXELS = 2.2, 32
#: cycles of a sum of lanes; of a transposition of 16 × 16 values
LANE_SUM, TRANSPOSITION = 10.0, 100.0
#: tiles of a weight gradient that are looked at further, and up to which cost
GOOD_TILES, GOOD = 6, 1.1


@dataclass(frozen=True)
class Limits:
    """What a tile may use, in vectors of 16 lanes."""

    registers: int
    products_per_cycle: float
    loads_per_cycle: float


#: One load a cycle is what 64-byte loads reached on a Zen 4 and on an Ice Lake server.
LIMITS = {
    "avx512": Limits(32, 2.0, 1.0),
    "avx2": Limits(7, 1.0, 1.0),
    "neon": Limits(7, 0.5, 0.5),
}


def correlation_tile(target: Target, maps: int, columns: Taps) -> Tile:
    """Destination maps × destination columns of a forward or input-gradient kernel."""
    return fitting_tiles(target.name, maps, columns)[0][1]


@lru_cache(maxsize=4096)
def fitting_tiles(name: str, maps: int, columns: Taps) -> list[tuple[float, Tile]]:
    """The tiles that fit the registers and their cycles for one row and source, the best first."""
    limits = LIMITS[name]
    parts = [phase.taps for phase in phases(columns)]
    widest = max(part.destination for part in parts)
    fitting = list(shapes(maps, widest, limits))
    calm = [one for one in fitting if all(_keeps(*one, part, limits) for part in parts)]
    found = []
    for m, c in calm or fitting:
        tile = Tile(m, c)
        found.append((sum(_correlation_cost(tile, maps, p, limits) for p in parts), tile))
    return sorted(found, key=lambda one: one[0])


def _keeps(maps: int, columns: int, taps: Taps, limits: Limits) -> bool:
    """Whether accumulators and all columns that a tile reads fit the registers, where a stride lies
    between its columns: some come again with a later tap, and LLVM keeps those between as well."""
    read = (columns - 1) * taps.advance + taps.taps
    return taps.advance == 1 or taps.taps == 1 or maps * columns + read <= limits.registers + 1


def shapes(maps: int, columns: int, limits: Limits) -> Iterator[tuple[int, int]]:
    """Accumulators, one line of source columns and one weight must fit the registers."""
    for m in range(1, min(maps, 24) + 1):
        for c in range(1, min(columns, 14) + 1):
            if m * c <= 0.75 * limits.registers and m * c + c + 2 <= limits.registers:
                yield m, c
    if limits.registers < 4:
        yield 1, 1


def _correlation_cost(tile: Tile, maps: int, columns: Taps, limits: Limits) -> float:
    parts = column_segments(columns, tile.columns)
    code = sum(part.width * tile.maps * columns.taps for part in parts)
    cost = 0.0
    for _, count, tiles in blocks(maps, tile.maps):
        for part in parts:
            cost += tiles * part.tiles * _turn(part, count, limits)
    return cost * (1 + code / 20_000)  # of equals, the shorter code


def _turn(part: Segment, count: int, limits: Limits) -> float:
    taps = len(part.pattern[0])
    met = [sum(c[t] is not None for c in part.pattern) for t in range(taps)]
    distinct = len({s for c in part.pattern for s in c if s is not None})
    loads = distinct + count * sum(m > 0 for m in met)
    longest = max((sum(s is not None for s in c) for c in part.pattern), default=0)
    return (
        TURN
        + LOAD * loads
        + max(
            count * sum(met) / limits.products_per_cycle,
            loads / limits.loads_per_cycle,
            LATENCY * longest,
        )
    )


def slices_together(target: Target) -> tuple[int, ...]:
    """How many slices a full connection may take at once, the most first; one is always there.

    Each costs a register for its inputs beside the accumulators.
    """
    return (4, 2, 1) if LIMITS[target.name].registers >= 32 else (2, 1)


def line_tile(target: Target, maps: int, sources: int) -> LineTile:
    """Destination maps × pixels of a 1 × 1 convolution."""
    return _line_tile(target.name, maps, sources)


@lru_cache(maxsize=4096)
def _line_tile(name: str, maps: int, sources: int) -> LineTile:
    limits = LIMITS[name]

    def turn(maps: int, pixels: int) -> float:
        products = maps * pixels / limits.products_per_cycle
        loads = (maps + pixels) / limits.loads_per_cycle
        return TURN + max(products, loads, LATENCY, pixels * SECOND_LEVEL)

    def cost(tile: LineTile) -> float:
        return sum(
            k_times * n_times * (sources * turn(k, n) + k * n)
            for _, k, k_times in blocks(maps, tile.maps)
            for _, n, n_times in blocks(LINE_PIXELS, tile.pixels)
        )

    return min((LineTile(m, n) for m, n in shapes(maps, 12, limits)), key=cost)


def pair_tile(target: Target, maps: int, sources: int) -> PairTile:
    """Kernels × source maps of the weight gradient of a 1 × 1 convolution."""
    return _pair_tile(target.name, maps, sources)


@lru_cache(maxsize=4096)
def _pair_tile(name: str, maps: int, sources: int) -> PairTile:
    limits = LIMITS[name]

    def cost(tile: PairTile) -> float:
        return sum(
            k_tiles * c_tiles * _pair_turn(k, c, limits)
            for _, k, k_tiles in blocks(maps, tile.maps)
            for _, c, c_tiles in blocks(sources, tile.sources)
        )

    fitting = [
        PairTile(k, c)
        for k in range(1, min(maps, 8) + 1)
        for c in range(1, min(sources, 8) + 1)
        if k * c + k + 1 <= max(3, limits.registers)
    ]
    return min(fitting, key=cost)


def _pair_turn(maps: int, sources: int, limits: Limits) -> float:
    products = maps * sources / limits.products_per_cycle
    return TURN + max(products, (maps + sources) / limits.loads_per_cycle, LATENCY)


def linear_maps(target: Target, maps: int, slices: int) -> int:
    """Outputs of a register tile of a full connection over `slices` slices at once."""
    room = int(0.75 * LIMITS[target.name].registers) // slices
    return max(1, min(maps, room))


def linear_gradient_tile(target: Target, outputs: int, inputs: int) -> GradientTile:
    """Outputs × vectors of inputs of a full connection's weight gradient."""
    if LIMITS[target.name].registers >= 32:
        return gradient_tile(outputs, inputs)
    return GradientTile(min(outputs, 2), min(2, -(-inputs // LANES)))


def map_tile(target: Target, rows: Taps, columns: Taps) -> MapTile | None:
    """Rows × columns of one map of a depthwise convolution, forward or input gradient.

    None where `conv.correlate` serves as well or better: written out tap by tap, the code would be
    too long, or leave too many values to too few registers. The sums are the same.
    """
    area = rows.taps * columns.taps
    if LIMITS[target.name].registers < 32:
        return MapTile(1, 2, keep=False) if area <= 9 and _is_short(rows, columns) else None
    return MapTile(MAP_ROWS, MAP_COLUMNS, keep=area <= 9) if _is_short(rows, columns) else None


def map_weight_tile(target: Target, rows: Taps, columns: Taps) -> RowTile | None:
    """Columns of a depthwise weight gradient, and kernel rows that are summed together; None as
    above."""
    if not _is_short(rows, columns):
        return None
    if LIMITS[target.name].registers < 32:
        return RowTile(1, 1, keep=False) if rows.taps * columns.taps <= 9 else None
    return RowTile(6, max(1, min(rows.taps, 16 // columns.taps)))


def map_told_tile(target: Target, rows: Taps, columns: Taps) -> MapTile | None:
    """A tile of `map_tile` of one row and even width: its sums are added up as they are stored."""
    tile = map_tile(target, rows, columns)
    return tile and MapTile(1, max(2, tile.rows * tile.columns), tile.keep)


def map_gradients_tile(target: Target, rows: Taps, columns: Taps) -> MapTile | None:
    """Rows × columns of one map whose values, gradients, weights, and gradients of these are in
    registers together; None where they are too many. `rows`, `columns`: those of the gradient."""
    area = rows.taps * columns.taps
    if area > 9 or not _is_short(rows, columns):
        return None
    registers = LIMITS[target.name].registers
    if registers < 32:
        return MapTile(1, 1, keep=False)
    return MapTile(1, max(1, min(MAP_COLUMNS, (registers - 2 - 2 * area) // (2 * rows.period))))


def _is_short(rows: Taps, columns: Taps) -> bool:
    tiles = len(column_segments(rows, MAP_ROWS)) * len(column_segments(columns, MAP_COLUMNS))
    return tiles * MAP_ROWS * MAP_COLUMNS * rows.taps * columns.taps <= MAP_PRODUCTS


def lane_tile_shape(maps: int, sources: int, columns: Taps, limits: Limits) -> tuple[int, int, int]:
    """Input maps × vectors of 16 kernels × kernel columns of the cheapest tile."""
    vectors = -(-maps // LANES)
    room = 0.75 * limits.registers
    fitting = [
        (m, v, t)
        for t in range(1, columns.taps + 1)
        for v in range(1, min(vectors, 6) + 1)
        for m in range(1, min(sources, 24) + 1)
        if m * v * t <= room
        and m * v * t + v * _held(t, columns) + 2 + (v > 1 and maps % LANES > 0) <= limits.registers
    ] or [(1, 1, 1)]
    return min(fitting, key=lambda shape: lane_cycles(shape, maps, sources, columns, limits))


def _held(taps: int, columns: Taps) -> int:
    """Columns of dy that one column of x meets."""
    return -(-taps // columns.advance)


def lane_cycles(
    shape: tuple[int, int, int], maps: int, sources: int, columns: Taps, limits: Limits
) -> float:
    """Cycles of one image of a row, and one kernel row, with kernels in the lanes."""
    vectors = -(-maps // LANES)
    return sum(
        m_tiles * v_tiles * _lane_turns(m, v, range(first, first + t), columns, limits)
        for _, m, m_tiles in blocks(sources, shape[0])
        for _, v, v_tiles in blocks(vectors, shape[1])
        for t0, t, t_tiles in blocks(columns.taps, shape[2])
        for first in range(t0, t0 + t * t_tiles, t)
    )


def _lane_turns(maps: int, vectors: int, taps: range, columns: Taps, limits: Limits) -> float:
    """The same of one tile: pixel by pixel, or along a row of x."""
    if columns.taps == 1:
        return columns.pairs * _lane_turn(maps + vectors, 1, maps * vectors, limits)
    cycles = 0.0
    for one in _lane_meetings(columns, taps):
        loads = maps * one.columns + vectors * one.errors
        cycles += one.tiles * _lane_turn(loads, one.chain, maps * vectors * one.pairs, limits)
    return cycles


class _Meetings(NamedTuple):
    """Where some taps meet what is not padding, in tiles of one pattern: tiles; columns of x, of
    dy; pairs of a column and a tap, most of them of one tap."""

    tiles: int
    columns: int
    errors: int
    pairs: int
    chain: int


@lru_cache(maxsize=4096)
def _lane_meetings(columns: Taps, taps: range) -> tuple[_Meetings, ...]:
    found = []
    for part in along(columns):
        met = [part.of_column(at, taps) for at in range(part.width)]
        pairs = Counter(tap for one in met for tap, _ in one)
        if pairs:
            errors = len({column for one in met for _, column in one})
            sizes = (sum(map(bool, met)), errors, pairs.total(), max(pairs.values()))
            found.append(_Meetings(part.tiles, *sizes))
    return tuple(found)


def _lane_turn(loads: int, chain: int, products: int, limits: Limits) -> float:
    """One image of a pixel, or of a few."""
    work = products / limits.products_per_cycle
    return TURN + LOAD * loads + max(work, loads / limits.loads_per_cycle, LATENCY * chain)


def image_tiles(
    limits: Limits, maps: int, sources: int, columns: Taps
) -> list[tuple[float, WeightTile]]:
    """Tiles of a weight gradient with images in the lanes that are cheap: output maps × input maps
    × kernel columns, and their cycles for one row and one kernel row; the best first."""
    candidates = [
        WeightTile(m, s, t, c)
        for t in _tap_blocks(columns.taps, limits)
        for m in range(1, min(maps, 8) + 1)
        for s in range(1, min(sources, 8) + 1)
        for c in (1, 2)
        if _weight_registers(m, s, t, c) <= limits.registers
        and m * s * t <= 0.75 * limits.registers
    ] or [WeightTile(1, 1, 1, 1)]
    costs = [(_weight_cost(tile, maps, sources, columns, limits), tile) for tile in candidates]
    costs.sort(key=lambda one: one[0])
    return [one for one in costs if one[0] <= GOOD * costs[0][0]][:GOOD_TILES]


def _weight_registers(maps: int, sources: int, taps: int, columns: int) -> int:
    """Sums, gradients, source values: those that two columns share stay."""
    other = taps + 1 if columns > 1 and maps == 1 else 2 if maps < 6 else 3
    shared = sources * (taps - 1) if columns > 1 else 0
    return maps * (sources * taps + 1) + max(shared, other)


def _tap_blocks(taps: int, limits: Limits) -> list[int]:
    return [t for t in range(1, taps + 1) if t <= 0.5 * limits.registers]


def _weight_cost(tile: WeightTile, maps: int, sources: int, columns: Taps, limits: Limits) -> float:
    cost = 0.0
    for _, m, m_tiles in blocks(maps, tile.maps):
        for _, s, s_tiles in blocks(sources, tile.sources):
            for t0, t, t_tiles in blocks(columns.taps, tile.taps):
                for turn in range(t_tiles):
                    met = _weight_meetings(columns, tile.columns, t0 + turn * t, t)
                    cycles = sum(one.tiles * _weight_turn(one, m, s, limits) for one in met)
                    cost += m_tiles * s_tiles * cycles
    return cost * (1 + 0.02 * tile.columns)


@lru_cache(maxsize=4096)
def _weight_meetings(columns: Taps, width: int, begin: int, taps: int) -> tuple[_Meetings, ...]:
    found = []
    for part in column_segments(columns, width):
        met = [[s for s in c[begin : begin + taps] if s is not None] for c in part.pattern]
        errors = sum(1 for one in met if one)
        sources = len({source for one in met for source in one})
        found.append(_Meetings(part.tiles, sources, errors, sum(map(len, met)), errors))
    return tuple(found)


def _weight_turn(met: _Meetings, maps: int, sources: int, limits: Limits) -> float:
    products, loads = maps * sources * met.pairs, maps * met.errors + sources * met.columns
    work = products / limits.products_per_cycle
    return TURN + LOAD * loads + max(work, loads / limits.loads_per_cycle, LATENCY * met.chain)
