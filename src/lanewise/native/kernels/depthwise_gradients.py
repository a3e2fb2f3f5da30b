"""Both gradients of a depthwise convolution with small kernels, in one pass, where what it reads
has been normalised and rectified just before (`rules/inverted_gradient.py`).

A register tile is some rows × some columns of the values that the convolution read: they, what
comes to each of them, the weights of the map and the gradients of those are all in registers, and
each number of the gradient behind that is loaded is used for all of them. So a map is read once.
The gradient behind is made of the next normalisation's, map by map, so that the first cache has it.

Every sum is taken in the order of the rows, then columns, whatever the tile: it shows in no bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lanewise.native.kernels.batch_norm_gradient import RowsBehind, through
from lanewise.native.kernels.depthwise import Depthwise, MapTile, Place, meetings, places
from lanewise.native.kernels.lanes import add_lanes
from lanewise.native.kernels.register_tiles import add_product
from lanewise.native.nest import (
    LANES,
    Buffer,
    Index,
    Kernel,
    Read,
    Register,
    Value,
    Var,
    op,
)
from lanewise.native.writer import Writer


@dataclass(frozen=True)
class _Map:
    """What is in registers for all tiles of a map: what tells its weights, the gradients of those,
    row by row, and the sum of what comes to its values."""

    weight_at: Callable[[int, int], Value]
    sums: list[list[Register]]
    whole: Register


@dataclass(frozen=True)
class _Gradients:
    sizes: Depthwise
    tile: MapTile
    pitch: int
    rectifier: str
    given: Buffer
    weight: Buffer = field(init=False)
    value: Buffer = field(init=False)
    told: Buffer = field(init=False)
    partial: Buffer = field(init=False)
    target: Buffer = field(init=False)

    def __post_init__(self) -> None:
        maps, rows, columns = self.sizes.groups, self.sizes.rows, self.sizes.columns
        shape = (maps, rows.destination, columns.destination, LANES)
        weights = (maps, rows.taps, columns.taps)
        for name, buffer in (
            ("weight", Buffer("weight", weights, align=4)),
            ("value", Buffer("value", shape)),
            ("told", Buffer("told", (maps, 2, LANES), access="update")),
            ("partial", Buffer("partial", weights, access="update", align=4)),
            ("target", Buffer("target", (maps, self.pitch, LANES), access="update")),
        ):
            object.__setattr__(self, name, buffer)

    @property
    def buffers(self) -> list[Buffer]:
        return [self.weight, self.value, self.told, self.partial, self.target]

    @contextmanager
    def map(self, writer: Writer, g: Var) -> Iterator[_Map]:
        rows, columns = self.sizes.rows.taps, self.sizes.columns.taps

        def load(r: int, s: int) -> Value:
            return writer.splat(self.weight, g, r, s)

        find = load
        if self.tile.keep:
            kept = [[writer.let(load(r, s), "w") for s in range(columns)] for r in range(rows)]
            find = lambda r, s: kept[r][s]  # noqa: E731
        sums = [writer.accumulators("dw", columns) for _ in range(rows)]
        (whole,) = writer.accumulators("sum", 1)
        yield _Map(find, sums, whole)
        before = writer.load(self.told, g, 0, 0)
        writer.store(self.told, g, 0, 0, value=op("add", before, Read(whole)))
        for r, line in enumerate(sums):
            for s, cell in enumerate(line):
                add_lanes(writer, self.partial, g, r, s, value=Read(cell))

    def one_tile(self, writer: Writer, g: Var, known: _Map, at: Place) -> None:
        spots = [(i, j) for j in range(at.columns.width) for i in range(at.rows.width)]
        values = {
            spot: writer.let(writer.load(self.value, g, *at.destination(*spot), 0), "value")
            for spot in spots
        }
        cells = dict(zip(spots, writer.accumulators("a", len(spots)), strict=True))
        for h, lines in meetings(at.rows).items():
            for w, met in meetings(at.columns).items():
                x = writer.let(self._given(writer, g, at, h, w), "given")
                for i, r in lines:
                    for j, s in met:
                        add_product(writer, cells[i, j], known.weight_at(r, s), x)
                        add_product(writer, known.sums[r][s], values[i, j], x)
        for spot in spots:
            self._store(writer, g, known, at.destination(*spot), values[spot], Read(cells[spot]))

    def _given(self, writer: Writer, g: Var, at: Place, h: int, w: int) -> Value:
        row, column = at.source(h, w)
        return writer.load(self.given, g, row * self.sizes.columns.source + column, 0)

    def _store(
        self,
        writer: Writer,
        g: Var,
        known: _Map,
        at: tuple[Index, Index],
        value: Value,
        result: Value,
    ) -> None:
        dy = writer.let(through(self.rectifier, value, result), "dy")
        place = at[0] * self.sizes.columns.destination + at[1]
        writer.store(self.target, g, place, 0, value=dy)
        writer.assign(known.whole, op("add", Read(known.whole), dy))


def gradients(
    name: str, sizes: Depthwise, tile: MapTile, behind: RowsBehind, pitch: int, rectifier: str
) -> Kernel:
    """Buffers of `behind`, the last of which are the rows of the gradient `given` from the result,
    weight, value, told (maps, 2, 16), partial, target (maps, pitch). `sizes`: given to value. What
    comes to the values, through their rectifier, goes to the target, its sums of every lane are
    added to the first that are told; those with what is given to the weights' gradients."""
    buffers = behind.buffers(sizes.groups)
    both = _Gradients(sizes, tile, pitch, rectifier, buffers[-1])
    writer = Writer(name, [*buffers, *both.buffers])
    living = behind.living(writer, buffers)
    with writer.loop("g", sizes.groups) as g:
        behind.write(writer, buffers, living, g)
        with both.map(writer, g) as known:
            for at in places(writer, sizes, tile.rows, tile.columns):
                both.one_tile(writer, g, known, at)
    return writer.finish()
