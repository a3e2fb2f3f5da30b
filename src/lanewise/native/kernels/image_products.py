"""Products for one image, with output channels in the lanes: convolutions and full connections.

    y[k,p,q] = b[k] + Σ_crs  w[k,c,r,s] · x[c, p·stride + r·dilation − pad, q·…]

Sixteen neighbouring channels k are one vector; each number x is read from memory into all lanes and
multiplied with vectors of weights, which were laid out once so that they are read from the first to
the last. A register tile is `vectors` of channels × `columns` of one row. A kernel computes one
block of channels: which one is decided by the pointers it is given.

Source channels may be in lanes too (a blocked value) or be planes (an image).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lanewise.native.kernels.functions import number, rectified
from lanewise.native.kernels.lanes import total
from lanewise.native.kernels.register_tiles import add_product, blocks
from lanewise.native.kernels.taps import (
    Phase,
    RowTaps,
    Segment,
    Taps,
    column_segments,
    phases,
)
from lanewise.native.nest import (
    LANES,
    Buffer,
    Index,
    IndexLike,
    Kernel,
    Read,
    Register,
    Value,
    Var,
    as_index,
    op,
)
from lanewise.native.writer import Writer

#: taps of a kernel row that are written out where they could be a loop
WRITTEN_TAPS = 5


@dataclass(frozen=True)
class ImageCorrelation:
    """Sizes of one block: `vectors` of output channels from `channels` of the source.

    `lanes`: channels of the source that lie side by side: 16, or 1 for planes. `pitch`: places of a
    row of the source.
    """

    vectors: int
    channels: int
    lanes: int
    rows: Taps
    columns: Taps
    pitch: int

    @property
    def groups(self) -> int:
        """Vectors (or planes) of source channels."""
        return -(-self.channels // self.lanes)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Of the block's weights; lanes that do not exist in the source are zeros."""
        taps = self.rows.taps, self.columns.taps
        return (self.groups, taps[0], self.lanes, taps[1], self.vectors, LANES)


@dataclass(frozen=True)
class ImageTile:
    """`columns` of a register tile; so many vectors of source channels (`groups`) are summed
    everywhere before the next ones, so that their weights stay in the first cache (0: all)."""

    columns: int
    groups: int = 0


def correlate(
    name: str, sizes: ImageCorrelation, tile: ImageTile, *, relu: bool = False, adds: bool = False
) -> Kernel:
    """Buffers source, weight, bias, [summand], target: one block of output channels.

    With `adds` the sum begins at bias + summand.
    """
    return _Correlation(name, sizes, tile, relu, adds).write()


#: tiles that share in fetching a line; with more, waiting for the first of them is nothing
SHARING = 64


def fetches(lines: int, tiles: int) -> int:
    """Lines that every tile has fetched ahead, so that all tiles together fetch `lines`. What they
    read comes from memory; where it meets many tiles, it need not be fetched ahead."""
    return -(-lines // tiles) if tiles <= SHARING * lines else 0


@dataclass(frozen=True)
class _Line:
    """A row of the result and the taps that meet it."""

    taps: RowTaps
    i: Var
    row: Index
    tiles: int  # of the row


@dataclass(frozen=True)
class _Part:
    """Tiles of columns with one pattern; tile i of them."""

    segment: Segment
    phase: Phase
    i: Var
    number: int  # of the first one in its row

    def column(self, j: int) -> Index:
        at = as_index(self.i) * self.segment.width + (self.segment.start + j)
        return at * self.phase.step + self.phase.start


class _Correlation:
    """Writes `correlate`: passes over source channels, rows, tiles; then channels and taps."""

    def __init__(
        self, name: str, sizes: ImageCorrelation, tile: ImageTile, relu: bool, adds: bool
    ) -> None:
        self.sizes, self.tile, self.relu = sizes, tile, relu
        self.together = min(tile.groups or sizes.groups, sizes.groups)
        self.waits = self.together < sizes.groups
        self.across = sum(
            segment.tiles
            for phase in phases(sizes.columns)
            for segment in column_segments(phase.taps, tile.columns)
        )
        self.fetches = fetches(
            sizes.columns.taps * sizes.vectors, self.across * sizes.rows.destination
        )
        size = (sizes.rows.source, sizes.pitch)
        if sizes.lanes == 1:
            self.source = Buffer("source", (sizes.channels, *size))
        else:
            self.source = Buffer("source", (sizes.groups, *size, LANES))
        shape = (sizes.vectors, sizes.rows.destination, sizes.columns.destination, LANES)
        self.weight = Buffer("weight", sizes.weight_shape)
        self.bias = Buffer("bias", (sizes.vectors, LANES))
        self.summand = Buffer("summand", shape) if adds else None
        access = "update" if self.waits else "write"
        self.target = Buffer("target", shape, access=access)
        summand = [self.summand] if self.summand else []
        buffers = [self.source, self.weight, self.bias, *summand, self.target]
        self.writer = Writer(name, buffers)

    def write(self) -> Kernel:
        """The whole kernel; where the sums wait, the target holds them from pass to pass."""
        writer, groups = self.writer, self.sizes.groups
        if not self.waits:
            self._pass(0, groups, self._start, self._finish)
            return writer.finish()
        last = groups % self.together or self.together
        middle = groups - last - self.together
        self._pass(0, self.together, self._start, self._wait)
        with writer.loop("pass", middle // self.together) as turn:
            first = as_index(turn) * self.together + self.together
            self._pass(first, self.together, self._go_on, self._wait)
        self._pass(groups - last, last, self._go_on, self._finish)
        return writer.finish()

    def _pass(
        self,
        first: IndexLike,
        count: int,
        begin: Callable[[tuple[IndexLike, ...]], Value],
        end: Callable[[tuple[IndexLike, ...], Value], None],
    ) -> None:
        """All tiles over `count` vectors of source channels."""
        for line, part in self._tiles():
            places = [
                [(v, line.row, part.column(j), 0) for j in range(part.segment.width)]
                for v in range(self.sizes.vectors)
            ]
            cells = [
                [self.writer.assign(self.writer.register("a"), begin(at)) for at in places[v]]
                for v in range(self.sizes.vectors)
            ]
            self._sum(cells, as_index(first), count, line, part)
            for v, registers in enumerate(cells):
                for at, cell in zip(places[v], registers, strict=True):
                    end(at, Read(cell))

    def _tiles(self) -> Iterator[tuple[_Line, _Part]]:
        writer, sizes = self.writer, self.sizes
        for lines in phases(sizes.rows):
            with writer.loop("p", lines.taps.destination) as i:
                row = as_index(i) * lines.step + lines.start
                line = _Line(RowTaps(lines.taps, lines.numbers), i, row, self.across)
                number = 0
                for phase in phases(sizes.columns):
                    for segment in column_segments(phase.taps, self.tile.columns):
                        with writer.loop("n", segment.tiles) as n:
                            yield line, _Part(segment, phase, n, number)
                        number += segment.tiles

    # -- what a sum begins with, and what becomes of it

    def _start(self, at: tuple[IndexLike, ...]) -> Value:
        bias = self.writer.load(self.bias, at[0], 0)
        if self.summand is None:
            return bias
        return op("add", bias, self.writer.load(self.summand, *at))

    def _go_on(self, at: tuple[IndexLike, ...]) -> Value:
        return self.writer.load(self.target, *at)

    def _wait(self, at: tuple[IndexLike, ...], value: Value) -> None:
        self.writer.store(self.target, *at, value=value)

    def _finish(self, at: tuple[IndexLike, ...], value: Value) -> None:
        self._wait(at, rectified(value) if self.relu else value)

    # -- the products

    def _sum(
        self, cells: list[list[Register]], first: Index, count: int, line: _Line, part: _Part
    ) -> None:
        """Add the products of `count` vectors of source channels, lane by lane."""
        writer, sizes = self.writer, self.sizes
        if not (line.taps.taps.taps and part.phase.numbers):
            return
        # The last vector of channels may be part empty: its lanes that exist come at the end.
        full = sizes.channels // sizes.lanes
        constant = not first.terms
        rest = sizes.channels % sizes.lanes if constant and first.constant + count > full else 0
        for begin, groups, lanes in ((0, count - bool(rest), sizes.lanes), (count - 1, 1, rest)):
            if not groups or not lanes:
                continue
            with (
                writer.loop("b", groups) as b,
                writer.loop("m", line.taps.count(line.i)) as m,
            ):
                self._fetch_source(first + begin + b, line.taps.source(line.i, m), part)
                with writer.loop("c", lanes) as c:
                    self._products(cells, first + begin + b, c, line, m, part)

    def _products(
        self, cells: list[list[Register]], group: Index, c: Var, line: _Line, m: Var, part: _Part
    ) -> None:
        """One source channel and kernel row on all columns of the tile."""
        segment = part.segment
        row, tap = line.taps.source(line.i, m), line.taps.tap(line.i, m)
        origin = as_index(part.i) * segment.advance + segment.origin

        def one_tap(s: IndexLike, met: Sequence[tuple[int, IndexLike]]) -> None:
            weights = [
                self.writer.let(self.writer.load(self.weight, group, tap, c, s, v, 0), "w")
                for v in range(self.sizes.vectors)
            ]
            for j, column in met:
                x = self.writer.let(self._value(group, row, origin + column, c), "x")
                for v, weight in enumerate(weights):
                    add_product(self.writer, cells[v][j], weight, x)

        self._fetch(group, tap, c, line, part)
        steps = _steps(part)
        if steps is not None and self.sizes.columns.taps > WRITTEN_TAPS:
            first, by_column, by_tap = steps
            with self.writer.loop("s", self.sizes.columns.taps) as s:
                at = as_index(s) * by_tap + first
                one_tap(s, [(j, at + j * by_column) for j in range(segment.width)])
            return
        for t in part.phase.taps.in_order:
            met: list[tuple[int, IndexLike]] = list(segment.of_tap(t))
            if met:
                one_tap(part.phase.numbers[t], met)

    def _fetch_source(self, group: Index, row: IndexLike, part: _Part) -> None:
        """What the next tile of the row reads of one vector of channels."""
        if self.sizes.lanes == 1:
            return
        segment = part.segment
        met = {column for row in segment.pattern for column in row if column is not None}
        origin = (as_index(part.i) + 1) * segment.advance + segment.origin
        for column in sorted(met):
            self.writer.fetch(self.source, group, row, origin + column, 0)

    def _fetch(self, group: Index, tap: IndexLike, c: Var, line: _Line, part: _Part) -> None:
        """Lines of the weights that the next pass, or the next block, begins with."""
        number = as_index(line.i) * line.tiles + part.i + part.number
        for k in range(self.fetches):
            at = (number * self.fetches + k) * LANES
            self.writer.fetch(self.weight, group + self.together, tap, c, 0, 0, at)

    def _value(self, group: Index, row: IndexLike, column: Index, c: Var) -> Value:
        if self.sizes.lanes == 1:
            return self.writer.splat(self.source, group, row, column)
        return self.writer.splat(self.source, group, row, column, c)


def _steps(part: _Part) -> tuple[int, int, int] | None:
    """(first, a, b) where a tile meets no padding: source column = first + column · a + tap · b."""
    pattern = part.segment.pattern
    first = pattern[0][0]
    if first is None or part.phase.numbers != tuple(range(len(pattern[0]))):
        return None
    a = (pattern[1][0] or 0) - first if len(pattern) > 1 else 0
    b = (pattern[0][1] or 0) - first if len(pattern[0]) > 1 else 0
    regular = all(
        place == first + j * a + t * b
        for j, row in enumerate(pattern)
        for t, place in enumerate(row)
    )
    return (first, a, b) if regular else None


# ---- full connections ---------------------------------------------------------------------------


def connect(
    name: str, inputs: int, vectors: int, *, relu: bool = False, chains: int | None = None
) -> Kernel:
    """Buffers source (inputs,), weight (inputs, vectors, 16), bias (vectors, 16), target: one block
    of outputs. Every vector of outputs is summed in `chains` parts, which hides the latency."""
    source = Buffer("source", (inputs,))
    weight = Buffer("weight", (inputs, vectors, LANES))
    bias = Buffer("bias", (vectors, LANES))
    target = Buffer("target", (vectors, LANES), access="write")
    writer = Writer(name, [source, weight, bias, target])
    chains = min(inputs, chains or max(1, 16 // vectors))
    starts = [writer.load(bias, v, 0) for v in range(vectors)]
    cells = [
        [writer.assign(writer.register("a"), start if chain == 0 else number(0.0))
         for chain in range(chains)]
        for start in starts
    ]  # fmt: skip
    for first, count, times in blocks(inputs, chains):
        with writer.loop("i", first + count * times, first, count) as i:
            for chain in range(count):
                at = as_index(i) + chain
                x = writer.let(writer.splat(source, at), "x")
                for v in range(vectors):
                    w = writer.load(weight, at, v, 0)
                    add_product(writer, cells[v][chain], w, x)
    for v, line in enumerate(cells):
        result = total(line)
        writer.store(target, v, 0, value=rectified(result) if relu else result)
    return writer.finish()
