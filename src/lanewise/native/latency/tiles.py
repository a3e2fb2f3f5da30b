"""Register tiles of the kernels for one image."""

from __future__ import annotations

from collections.abc import Iterator

from lanewise.native.kernels.image_products import WRITTEN_TAPS
from lanewise.native.kernels.taps import Taps
from lanewise.native.nest import LANES
from lanewise.native.target import Target


def registers(target: Target) -> int:
    """Registers of 16 lanes."""
    return target.vector_registers * target.register_lanes // LANES


def accumulators(target: Target) -> int:
    """How many of them: the rest is for what is multiplied, and LLVM loads ahead."""
    return registers(target) * 3 // 4


#: cycles of a load, and from a multiply–add to the next that needs its sum
LOAD, LATENCY = 0.5, 4.0
#: cycles of a turn of the innermost loop, and of a load that does not find the first cache
TURN, DISTANT = 0.5, 0.05
#: multiply–adds from which a layer is cut for two threads even where that costs a little
WORTH_SHARING = 1 << 20


def product_tile(
    target: Target, vectors: int, columns: Taps, multiply_adds: int
) -> tuple[int, int]:
    """(vectors of output channels, columns) of a tile: the cheapest by loads and multiply–adds.

    A tile of v × c needs v · c accumulators, v weights and one value; for every tap and channel it
    begins v · c multiply–adds and v + c loads.
    """
    free, width = registers(target) - 1, columns.destination
    vector = LANES // target.register_lanes / target.fma_per_cycle
    # Where several taps are written out, LLVM loads ahead over all of them.
    ahead = min(columns.taps - 1, 4) * 3 // 2 if columns.taps <= WRITTEN_TAPS else 3
    most = accumulators(target) - ahead * registers(target) // 32
    shared = 2 if multiply_adds >= WORTH_SHARING else 1

    def cycles(wide: int, c: int) -> float:
        loads = wide + c
        return max(wide * c * vector, loads * LOAD, LATENCY) + TURN + loads * DISTANT

    def cost(tile: tuple[int, int]) -> float:
        wide, c = tile
        whole, rest = divmod(width, c)
        blocks = -(-vectors // wide)
        line = whole * cycles(wide, c) + (cycles(wide, rest) if rest else 0.0)
        return -(-blocks // shared) * line

    tiles = [
        (wide, c)
        for wide in range(1, min(vectors, 8) + 1)
        for c in range(1, width + 1)
        if wide * (c + 1) <= free and wide * c <= most
    ]
    return min(tiles or [(1, 1)], key=lambda tile: (cost(tile), sum(tile)))


def connection_vectors(target: Target, vectors: int) -> int:
    """Vectors of outputs that a task of a full connection takes: an even number of tasks."""
    blocks = -(-vectors // (8 if registers(target) >= 32 else 4))
    blocks += blocks % 2 if blocks > 1 else 0
    return -(-vectors // blocks)


def cut(total: int, wide: int) -> Iterator[tuple[int, int, int]]:
    """(first vector, vectors of a block, blocks)."""
    whole, rest = divmod(total, wide)
    if whole:
        yield 0, wide, whole
    if rest:
        yield whole * wide, rest, 1
