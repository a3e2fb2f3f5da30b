"""Some rows of a depthwise convolution, which go from registers to where they are kept, and what
they add to their statistics.

Sums are taken about a result of the middle, which is worked out before the others: one of a corner
would see mostly padding. They are those of even and of odd columns, each in the order of the rows,
then columns, so a tile of even width shows in no bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lanewise.native.kernels.batch_norm import TOLD, join_statistics, maps
from lanewise.native.kernels.depthwise import Depthwise, MapTile, correlate_into
from lanewise.native.kernels.functions import number
from lanewise.native.kernels.lanes import total
from lanewise.native.kernels.register_tiles import add_product
from lanewise.native.nest import (
    LANES,
    Buffer,
    Index,
    IndexLike,
    Kernel,
    Read,
    Register,
    Value,
    as_index,
    op,
)
from lanewise.native.writer import Writer


@dataclass(frozen=True)
class _Told:
    sizes: Depthwise
    told: Buffer
    target: Buffer
    away: bool
    known: list[Value] = field(default_factory=list)
    sums: list[list[Register]] = field(default_factory=list)

    @property
    def buffers(self) -> list[Buffer]:
        return [self.told, self.target]

    def start(self, writer: Writer, at: tuple[IndexLike, ...]) -> Value:
        return number(0.0)

    def store(self, writer: Writer, at: tuple[IndexLike, ...], value: Value) -> None:
        k, row, column, _ = at
        place = as_index(row) * self.sizes.columns.destination + column
        value = writer.let(value, "y")
        writer.store(self.target, k, place, 0, value=value, away=self.away)
        away = writer.let(op("sub", value, self.known[0]), "away")
        sums, squares = (line[as_index(column).constant % 2] for line in self.sums)
        writer.assign(sums, op("add", Read(sums), away))
        writer.assign(squares, op("fma", away, away, Read(squares)))

    @contextmanager
    def around(self, writer: Writer, source: Buffer, weight: Buffer, k: Index) -> Iterator[None]:
        self.known[:] = [writer.let(self._middle(writer, source, weight, k), "pivot")]
        self.sums[:] = [writer.accumulators(which, 2) for which in ("sum", "square")]
        yield
        pixels = self.sizes.rows.destination * self.sizes.columns.destination
        sums = [writer.let(total(line), "total") for line in self.sums]
        rows = join_statistics(writer, self.told, k, pixels, self.known[0], *sums)
        for row, value in enumerate(rows):
            writer.store(self.told, k, row, 0, value=value)

    def _middle(self, writer: Writer, source: Buffer, weight: Buffer, k: Index) -> Value:
        """A result of the middle of map k."""
        rows, columns = (
            axis.sources[axis.destination // 2] for axis in (self.sizes.rows, self.sizes.columns)
        )
        (cell,) = writer.accumulators("middle", 1)
        for r, h in enumerate(rows):
            for s, w in enumerate(columns):
                if h is not None and w is not None:
                    scalar = writer.splat(weight, k * self.sizes.taps + (r * len(columns) + s))
                    add_product(writer, cell, scalar, writer.load(source, k, h, w, 0))
        return Read(cell)


def correlate_told(name: str, sizes: Depthwise, tile: MapTile, pitch: int, *, away: bool) -> Kernel:
    """Buffers source, weight, told (maps, 3, 16), target (maps, pitch), which is written past the
    caches if `away`: one map from each; the results join what is told (`batch_norm.statistics`)."""
    pixels = sizes.rows.destination * sizes.columns.destination
    told = Buffer("told", (sizes.groups, TOLD, LANES), access="update")
    goal = _Told(sizes, told, maps("target", sizes.groups, pixels, pitch, "write"), away)
    return correlate_into(name, sizes, tile, goal, goal.around)
