"""Which source index a window's tap touches: stride, padding and dilation as data.

Along one axis, destination index o and tap t meet source index i when

    forward    i = o·stride + t·dilation − pad          (o: output, i: input)
    gradient   o = (i + pad − t·dilation) / stride      (i: input, o: output, if it divides)

Pairs whose source lies outside are left out, so padding is neither stored nor multiplied. Rows
become tables that a loop reads (`RowTaps`), columns are cut into tiles whose pattern of pairs
is known while the kernel is written (`column_segments`); equal neighbours become one loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import gcd

from lanewise.native.nest import Buffer, Entry, Index, IndexLike, Var, as_index, table


@dataclass(frozen=True)
class Taps:
    """The relation of one axis. `sources[d][t]` is the source index or None.

    When the destination index grows by `period`, the source index grows by `advance`.
    """

    destination: int
    source: int
    taps: int
    sources: tuple[tuple[int | None, ...], ...]
    period: int
    advance: int

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Of all sources, worked out once: what is chosen for an axis is looked up again and
        again."""
        return hash((self.destination, self.source, self.taps, self.sources, self.advance))

    @cached_property
    def pairs(self) -> int:
        """How many (destination, tap) pairs meet a source: the multiply–adds of this axis."""
        return sum(source is not None for row in self.sources for source in row)

    @cached_property
    def kinds(self) -> tuple[int, ...]:
        """A number for each destination: the same where the same taps meet sources equally far
        off, as the advance of the periods before it counts."""
        known: dict[tuple[int | None, ...], int] = {}
        found = []
        for d, row in enumerate(self.sources):
            origin = d // self.period * self.advance
            relative = tuple([None if s is None else s - origin for s in row])
            found.append(known.setdefault(relative, len(known)))
        return tuple(found)

    @cached_property
    def backwards(self) -> Taps:
        """Source × tap → destination: the gradient of a convolution's forward relation."""
        met: list[list[int | None]] = [[None] * self.taps for _ in range(self.source)]
        for destination, row in enumerate(self.sources):
            for tap, source in enumerate(row):
                if source is not None:
                    met[source][tap] = destination
        sources = tuple(tuple(row) for row in met)
        return Taps(self.source, self.destination, self.taps, sources, self.advance, self.period)

    @cached_property
    def in_order(self) -> tuple[int, ...]:
        """The taps in the order of the sources that a destination meets through them."""
        met = ([s for s in row if s is not None] for row in self.sources)
        several = next((sources for sources in met if len(sources) > 1), [0, 0])
        return tuple(range(self.taps) if several[0] <= several[1] else reversed(range(self.taps)))

    @cached_property
    def by_column(self) -> tuple[int, ...]:
        """The same in an order in which neighbours soon meet a source again: with a stride of 2
        first the taps on even sources, then those on odd ones. A value waits for one tap then, not
        for two."""
        return tuple(sorted(self.in_order, key=self._place_in_stride))

    def _place_in_stride(self, tap: int) -> int:
        met = (row[tap] for row in self.sources if row[tap] is not None)
        return (next(met, None) or 0) % max(1, self.advance)


@lru_cache(maxsize=1024)
def forward_taps(size: int, out: int, kernel: int, stride: int, pad: int, dilation: int) -> Taps:
    """Output index × tap → input index."""
    sources = tuple(
        tuple(_inside(o * stride + t * dilation - pad, size) for t in range(kernel))
        for o in range(out)
    )
    return Taps(out, size, kernel, sources, 1, stride)


@lru_cache(maxsize=1024)
def gradient_taps(size: int, out: int, kernel: int, stride: int, pad: int, dilation: int) -> Taps:
    """Input index × tap → output index."""

    def source(i: int, t: int) -> int | None:
        whole, rest = divmod(i + pad - t * dilation, stride)
        return None if rest else _inside(whole, out)

    sources = tuple(tuple(source(i, t) for t in range(kernel)) for i in range(size))
    return Taps(size, out, kernel, sources, stride, 1)


def adaptive_taps(size: int, out: int) -> Taps:
    """Output index × tap → input index, where output o covers floor(o·size/out) … up to, without,
    ceil((o + 1)·size/out). The pattern repeats after out/gcd outputs."""
    windows = _adaptive_windows(size, out)
    common = gcd(size, out)
    return Taps(out, size, *_padded(windows), out // common, size // common)


def adaptive_gradient_taps(size: int, out: int) -> Taps:
    """Input index × number → the outputs whose adaptive windows contain it, in their order."""
    windows = _adaptive_windows(size, out)
    met = [[o for o, window in enumerate(windows) if i in window] for i in range(size)]
    common = gcd(size, out)
    return Taps(size, out, *_padded(met), size // common, out // common)


def _adaptive_windows(size: int, out: int) -> list[range]:
    return [range(o * size // out, -((o + 1) * -size // out)) for o in range(out)]


def _padded(lines: Sequence[Sequence[int]]) -> tuple[int, tuple[tuple[int | None, ...], ...]]:
    """The longest line's length, and all lines with None up to it."""
    longest = max(map(len, lines))
    return longest, tuple((*line, *[None] * (longest - len(line))) for line in lines)


def _inside(index: int, size: int) -> int | None:
    return index if 0 <= index < size else None


@dataclass(frozen=True)
class Phase:
    """Destinations start, start + step, … which meet the same taps; `numbers` are those taps, and
    `taps` is the relation that is left: without a period."""

    start: int
    step: int
    taps: Taps
    numbers: tuple[int, ...]


def phases(taps: Taps) -> tuple[Phase, ...]:
    """Cut a relation with a period: the gradient of a stride, where every second (third …) source
    meets other taps."""
    if taps.period == 1:
        return (Phase(0, 1, taps, tuple(range(taps.taps))),)
    found = []
    for start in range(min(taps.period, taps.destination)):
        rows = taps.sources[start :: taps.period]
        numbers = tuple(t for t in range(taps.taps) if any(row[t] is not None for row in rows))
        sources = tuple(tuple(row[t] for t in numbers) for row in rows)
        left = Taps(len(rows), taps.source, len(numbers), sources, 1, taps.advance)
        found.append(Phase(start, taps.period, left, numbers))
    return tuple(found)


def joined(rows: Taps, columns: Taps, longest: int) -> tuple[Taps, Taps]:
    """The two axes as one, where no tap leaves its place (1 × 1 kernels): rows laid end to end,
    into lines of `longest` places at most."""
    if not all(_stays(taps) for taps in (rows, columns)):
        return rows, columns
    fitting = (n for n in range(1, rows.source + 1) if rows.source % n == 0)
    together = max((n for n in fitting if n * columns.source <= longest), default=1)
    return _still(rows.source // together), _still(columns.source * together)


#: destinations of a line that is made of several rows, at most
LONGEST_LINE = 256


def _stays(taps: Taps) -> bool:
    same = taps.source == taps.destination  # a stride may leave one place of two
    return same and all(row == (place,) for place, row in enumerate(taps.sources))


def _still(size: int) -> Taps:
    return forward_taps(size, size, 1, 1, 0, 1)


# ---- rows: loops over tables --------------------------------------------------------------------


@dataclass(frozen=True)
class RowTaps:
    """For destination row d: `count(d)` entries m, each with a tap and a source row, from the
    first source row on. `numbers`: what the taps are called (their own numbers)."""

    taps: Taps
    numbers: tuple[int, ...] | None = None

    @cached_property
    def entries(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        return tuple(
            tuple((t, s) for t in self.taps.in_order if (s := row[t]) is not None)
            for row in self.taps.sources
        )

    @cached_property
    def regular(self) -> bool:
        """Every destination meets every tap: plain index arithmetic will do."""
        full = all(len(row) == self.taps.taps for row in self.entries)
        plain = self.numbers is None or self.numbers == tuple(range(self.taps.taps))
        rising = self.taps.in_order == tuple(range(self.taps.taps))
        return full and plain and rising and self.taps.period == 1

    @cached_property
    def _tables(self) -> tuple[Buffer, Buffer, Buffer]:
        width = max((len(row) for row in self.entries), default=0) or 1
        tap, source = [], []
        for row in self.entries:
            padded = row + ((0, 0),) * (width - len(row))
            tap += [self.numbers[t] if self.numbers else t for t, _ in padded]
            source += [s for _, s in padded]
        count = table("row_count", [len(row) for row in self.entries])
        return count, table("row_tap", tap), table("row_source", source)

    def count(self, row: IndexLike) -> IndexLike:
        """How many taps meet this destination row."""
        return self.taps.taps if self.regular else Entry(self._tables[0], as_index(row))

    def tap(self, row: IndexLike, m: Var) -> IndexLike:
        """The m-th of them: its kernel row."""
        return m if self.regular else Entry(self._tables[1], self._at(row, m))

    def source(self, row: IndexLike, m: Var) -> IndexLike:
        """The m-th of them: its source row."""
        if not self.regular:
            return Entry(self._tables[2], self._at(row, m))
        first = self.taps.sources[0]
        dilation = (first[1] or 0) - (first[0] or 0) if self.taps.taps > 1 else 0
        return as_index(row) * self.taps.advance + as_index(m) * dilation + (first[0] or 0)

    def _at(self, row: IndexLike, m: Var) -> Index:
        width = len(self._tables[1].data or ()) // max(1, self.taps.destination)
        return as_index(row) * width + m


# ---- columns: tiles with a known pattern --------------------------------------------------------


@dataclass(frozen=True)
class Segment:
    """Destination columns start, start + width, … (`tiles` of them), all with one pattern.

    `pattern[j][t]`: source column of destination column j and tap t, relative to
    `origin + advance·n` of tile n; None where the tap meets padding.
    """

    start: int
    width: int
    tiles: int
    pattern: tuple[tuple[int | None, ...], ...]
    origin: int
    advance: int

    def of_tap(self, tap: int) -> list[tuple[int, int]]:
        """(destination column, source column) of every column of the tile that the tap meets."""
        met = ((j, column[tap]) for j, column in enumerate(self.pattern))
        return [(j, source) for j, source in met if source is not None]

    def of_column(self, column: int, taps: range) -> list[tuple[int, int]]:
        """(tap, source column) of every tap in the range that meets this destination column."""
        met = ((tap, self.pattern[column][tap]) for tap in taps)
        return [(tap, source) for tap, source in met if source is not None]


@lru_cache(maxsize=1024)
def column_segments(taps: Taps, width: int) -> tuple[Segment, ...]:
    """Cut the destination axis into tiles of `width`; equal neighbours become one segment."""
    if width > taps.period:
        width -= width % taps.period
    elif taps.period > 1:
        width = taps.period
    runs: list[tuple[int, int]] = []  # where each begins, and its tiles
    last: tuple[int, ...] = ()
    for start in range(0, taps.destination, width):
        kinds = taps.kinds[start : start + width]
        if kinds == last:
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((start, 1))
            last = kinds
    return tuple(_segment(taps, start, width, tiles) for start, tiles in runs)


def _segment(taps: Taps, start: int, width: int, tiles: int) -> Segment:
    width = min(width, taps.destination - start)
    origin = start // taps.period * taps.advance
    pattern = tuple(
        tuple(None if s is None else s - origin for s in row)
        for row in taps.sources[start : start + width]
    )
    advance = width // taps.period * taps.advance
    return Segment(start, width, tiles, pattern, origin, advance)


def balanced_width(size: int, widest: int) -> int:
    """The widest tile not above `widest` that cuts `size` most evenly: 28, 6 → 4 … 28, 7 → 7."""
    tiles = -(-size // widest)
    return -(-size // tiles)
