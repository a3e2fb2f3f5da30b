"""The sizes of a convolution's nest, and its register tile.

`conv.py` writes the nest; tiles are chosen by `tiles.py` and `ways.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from lanewise.native.kernels.taps import Segment, Taps, column_segments, phases
from lanewise.native.nest import LANES, Buffer, Kernel, op
from lanewise.native.writer import Writer


@dataclass(frozen=True)
class Correlation:
    """Sizes of one `correlate` nest; strides of the weight array tell forward from gradient.

    `maps`, `sources`: destination and source maps of one group; `weight_map`, `weight_source`: how
    far apart their weights lie (elements), `weight_group` likewise from group to group.
    """

    groups: int
    maps: int
    sources: int
    rows: Taps
    columns: Taps
    weight_group: int
    weight_map: int
    weight_source: int

    @property
    def weights(self) -> int:
        return self.groups * self.maps * self.sources * self.rows.taps * self.columns.taps


@dataclass(frozen=True)
class Tile:
    """Registers: destination maps × destination columns; and the way through the maps.

    `order`: the loops around a tile, the outermost first: p (rows), k (maps), n (columns).
    `sources`: so many source maps are summed everywhere before the next ones (0: all at once).
    `packs`: what so many neighbouring tiles read is first copied to lie end to end, for all maps;
    for maps whose size is a power of two meet in few sets of a cache, and are fetched line by line.
    The order of the loops is then p, n, k, and the tiles that were copied.
    `pairs`: sources and weights are bf16 and are multiplied two at a time; what is copied are pairs
    of neighbouring sources, and so are the weights (`paired_weights`).
    """

    maps: int
    columns: int
    order: str = "pkn"
    sources: int = 0
    packs: int = 0
    pairs: bool = False

    @property
    def step(self) -> int:
        """Sources that one operation multiplies."""
        return 2 if self.pairs else 1

    def waits(self, sources: int) -> bool:
        """Whether sums of so many source maps wait for the next ones among the results."""
        return 0 < self.sources < sources


def packed_shape(sizes: Correlation, tile: Tile) -> tuple[int, int, int, int, int]:
    """The third buffer of a tile that packs: tiles, sources, kernel rows, source columns, lanes."""
    segments = [
        segment
        for phase in phases(sizes.columns)
        for segment in column_segments(phase.taps, tile.columns)
    ]
    width = max(1, *(len(columns_read(segment)) for segment in segments))
    sources = min(tile.sources or sizes.sources, sizes.sources)
    return max(1, tile.packs), sources // tile.step, sizes.rows.taps, width, LANES


def paired_shape(sizes: Correlation) -> tuple[int, int]:
    """Runs of weights that neighbouring sources have in common positions, and weights of each."""
    return sizes.weights // (2 * sizes.weight_source), sizes.weight_source


def paired_distance(sizes: Correlation, step: int) -> int:
    """From a map's weights to the next map's: half as far, in an array of pairs, where those of all
    sources lie in between."""
    between = sizes.weight_map >= sizes.weight_source
    return sizes.weight_map // (step if between else 1)


def paired_weights(name: str, runs: int, length: int) -> Kernel:
    """target[run, i] = source[run, 0, i] and source[run, 1, i] as bf16, side by side."""
    source = Buffer("source", (runs, 2, length), align=4)
    target = Buffer("target", (runs, length), "i32", "write", align=4)
    writer = Writer(name, [source, target])
    lanes = LANES if length % LANES == 0 else 1
    with (
        writer.loop("r", runs, shared=True) as r,
        writer.loop("i", length, step=lanes) as i,
    ):
        both = [op("tobf16", writer.load(source, r, half, i, lanes=lanes)) for half in (0, 1)]
        writer.store(target, r, i, value=op("pair", *both))
    return writer.finish()


def columns_read(segment: Segment) -> list[int]:
    """The source columns that a tile reads, relative to its origin."""
    return sorted({s for column in segment.pattern for s in column if s is not None})
