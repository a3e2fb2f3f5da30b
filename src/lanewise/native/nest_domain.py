"""The points at which a statement runs, and the values an index takes there.

`Domain` follows the loops that are open around a statement. Loops whose bounds depend on one
another (a stop looked up in a table at an outer variable) form a group; different groups are
independent, so the points are the product of the groups' points. Two ways to an index's values:

    span(index)         interval arithmetic: fast, never too small
    exact_span(index)   enumeration, group by group: exact

The checker and the counter stand on this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import TypeAlias

import numpy as np

from lanewise.native.nest import Atom, Buffer, Entry, Index, Loop, Symbol, Var
from lanewise.native.nest_show import show_index

#: Joint enumeration stops here; an index that needs more is written in a needlessly coupled way.
MOST_POINTS = 1 << 22

Span: TypeAlias = tuple[int, int]
Terms: TypeAlias = tuple[tuple[Atom, int], ...]
Points: TypeAlias = dict[Var, np.ndarray]
Numbers: TypeAlias = int | np.ndarray


class NestError(AssertionError):
    """A kernel is wrong: a bug in the code that wrote it, never the user's fault."""


class TooManyPointsError(NestError):
    """What was asked would need more than MOST_POINTS points at once."""


class Domain:
    """The open loops, for given values of the symbols and the arrays that a kernel is given."""

    def __init__(self, symbols: Mapping[str, int], buffers: Iterable[Buffer] = ()) -> None:
        self.symbols = symbols
        self.buffers = frozenset(buffers)
        self.loops: list[Loop] = []
        self.groups: tuple[frozenset[Var], ...] = ()
        self._outer_groups: list[tuple[frozenset[Var], ...]] = []
        self._ranges: dict[Var, Span] = {}
        self._needs: dict[Var, frozenset[Var]] = {}
        self._spans: dict[Terms, Span] = {}
        self._exact: dict[object, Span | None] = {}
        self._points: dict[frozenset[Var], Points] = {}
        self._arrays: dict[Buffer, np.ndarray] = {}

    # -- loops

    def enter(self, loop: Loop) -> None:
        """Open a loop; its bounds must be indices over the loops open so far."""
        if loop.step < 1:
            raise NestError(f"the step of loop {loop.var.name} is {loop.step}, not positive")
        if loop.var in self._ranges:
            raise NestError(f"loop {loop.var.name} is opened inside itself")
        self._ranges[loop.var] = self._range(loop)
        needs = self._variables((loop.start, loop.stop)) | {loop.var}
        self._needs[loop.var] = needs
        self._outer_groups.append(self.groups)
        self.groups = _joined((*self.groups, needs))
        self.loops.append(loop)
        self._exact.clear()
        self._points.clear()

    def leave(self) -> None:
        """Close the innermost loop; what was known about its variable is forgotten."""
        loop = self.loops.pop()
        self.groups = self._outer_groups.pop()
        del self._ranges[loop.var], self._needs[loop.var]
        self._spans.clear()
        self._exact.clear()
        self._points.clear()

    def _range(self, loop: Loop) -> Span:
        (first, latest), (_, stop) = self.span(loop.start), self.span(loop.stop)
        last = stop - 1
        if first == latest:
            last = first + (last - first) // loop.step * loop.step
        return first, last

    def never_runs(self) -> bool:
        """Some open loop surely makes no turn."""
        return any(first > last for first, last in self._ranges.values())

    def trips(self) -> int:
        """How often a statement here is executed."""
        return prod(self.size(group) for group in self.groups)

    def size(self, group: frozenset[Var]) -> int:
        """The number of points of one group."""
        if len(group) == 1:
            (var,) = group
            loop = next(loop for loop in self.loops if loop.var is var)
            (first, latest), (stop, highest) = self.span(loop.start), self.span(loop.stop)
            if first == latest and stop == highest:
                return len(range(first, stop, loop.step))
        return len(next(iter(self.points(group).values())))

    # -- intervals

    def span(self, index: Index) -> Span:
        """Bounds (lowest, highest) of an index; too wide where its terms are related."""
        terms, constant = index.terms, index.constant
        if not terms:
            return constant, constant
        found = self._spans.get(terms)
        if found is None:
            found = self._spans[terms] = self._sum(terms)
        return found[0] + constant, found[1] + constant

    def _sum(self, terms: Terms) -> Span:
        lowest = highest = 0
        for atom, factor in terms:
            low, high = self._atom(atom)
            if factor < 0:
                low, high = high, low
            lowest += factor * low
            highest += factor * high
        return lowest, highest

    def _atom(self, atom: Atom) -> Span:
        if isinstance(atom, Var):
            if atom not in self._ranges:
                raise NestError(f"{atom.name} is used outside its loop")
            return self._ranges[atom]
        if isinstance(atom, Symbol):
            return self.resolve(atom), self.resolve(atom)
        return self._entry(atom)

    def resolve(self, size: int | Symbol) -> int:
        """A size as a number."""
        if isinstance(size, int):
            return size
        if size.name not in self.symbols:
            raise NestError(f"symbol {size.name} has no value; known are {list(self.symbols)}")
        return self.symbols[size.name]

    def _entry(self, entry: Entry) -> Span:
        """Bounds of a table's entries, after proof that the table has them.

        The compiled code may look an entry up as soon as its own loops are open, even when a loop
        inside them makes no turn: so only the loops that its index needs may limit it.
        """
        buffer = entry.table
        if buffer.dtype != "i64" or len(buffer.shape) != 1:
            raise NestError(f"{buffer.name} is no table: it is {buffer.dtype} {buffer.shape}")
        if buffer.data is None and buffer not in self.buffers:
            raise NestError(f"{buffer.name} is no parameter of the kernel")
        size = self.resolve(buffer.shape[0])
        span: Span | None = self.span(entry.index)
        if span is not None and not 0 <= span[0] <= span[1] < size:
            span = self.exact_span(entry.index, running=False)
        if span is not None and not 0 <= span[0] <= span[1] < size:
            raise NestError(
                f"{buffer.name} has {size} entries; its index {show_index(entry.index)}"
                f" goes from {span[0]} to {span[1]}"
            )
        return self._entries(buffer, span)

    def _entries(self, buffer: Buffer, span: Span | None) -> Span:
        if buffer.data is not None:
            part = buffer.data if span is None else buffer.data[span[0] : span[1] + 1]
            return int(min(part, default=0)), int(max(part, default=0))
        if buffer.below is None:
            raise NestError(f"nothing is known of the entries of {buffer.name}: set its `below`")
        return 0, self.resolve(buffer.below) - 1

    # -- enumeration

    def exact_span(self, index: Index, running: bool = True) -> Span | None:
        """Lowest and highest value of an index, exactly; None if it is never evaluated.

        `running`: where the statement here runs; otherwise wherever the loops it names are open.
        """
        key = (running, canonical(index.terms))
        if key not in self._exact:
            self._exact[key] = self._exact_sum(index.terms, running)
        span = self._exact[key]
        return None if span is None else (span[0] + index.constant, span[1] + index.constant)

    def _exact_sum(self, terms: Terms, running: bool) -> Span | None:
        lowest = highest = 0
        for group, part in self.parts(terms, running):
            if not self._known(part):
                low, high = self._sum(part)
                lowest, highest = lowest + low, highest + high
                continue
            points = self.points(group)
            if group and not len(next(iter(points.values()))):
                return None
            values = np.asarray(self.values(Index(part), points))
            lowest += int(values.min())
            highest += int(values.max())
        return lowest, highest

    def parts(self, terms: Terms, running: bool = True) -> list[tuple[frozenset[Var], Terms]]:
        """The terms, sorted into independent groups of variables."""
        groups = self.groups if running else tuple(self._needs[v] for v in self._named(terms))
        groups = _joined((*groups, *(self._named((term,)) for term in terms)))
        found: dict[frozenset[Var], list[tuple[Atom, int]]] = {}
        for term in terms:
            named = self._named((term,))
            group = next((g for g in groups if named and named <= g), frozenset())
            found.setdefault(group, []).append(term)
        return [(group, tuple(part)) for group, part in found.items()]

    def points(self, group: frozenset[Var]) -> Points:
        """Every point of a set of loops: the values of each variable, in order of execution."""
        if group not in self._points:
            self._points[group] = self._enumerate(group)
        return self._points[group]

    def _enumerate(self, group: frozenset[Var]) -> Points:
        columns: Points = {}
        count = 1
        for loop in self.loops:
            if loop.var not in group:
                continue
            start = np.broadcast_to(self.values(loop.start, columns), (count,))
            stop = np.broadcast_to(self.values(loop.stop, columns), (count,))
            turns = np.maximum(0, -((start - stop) // loop.step))
            total = int(turns.sum())
            if total > MOST_POINTS:
                names = ", ".join(sorted(var.name for var in group))
                raise TooManyPointsError(f"loops {names} make more than {MOST_POINTS} points")
            parent = np.repeat(np.arange(count), turns)
            turn = np.arange(total) - (np.cumsum(turns) - turns)[parent]
            columns = {var: column[parent] for var, column in columns.items()}
            columns[loop.var] = start[parent] + turn * loop.step
            count = total
        return columns

    def values(self, index: Index, points: Points) -> Numbers:
        """The index at every one of the points."""
        total: Numbers = index.constant
        for atom, factor in index.terms:
            if isinstance(atom, Var):
                total = total + points[atom] * factor
            elif isinstance(atom, Symbol):
                total = total + self.resolve(atom) * factor
            else:
                total = total + self.array(atom.table)[self.values(atom.index, points)] * factor
        return total

    def array(self, table: Buffer) -> np.ndarray:
        """The entries of a constant table."""
        if table.data is None:
            raise NestError(f"the entries of {table.name} are not known before the kernel runs")
        if table not in self._arrays:
            self._arrays[table] = np.array(table.data, np.int64)
        return self._arrays[table]

    def _known(self, terms: Terms) -> bool:
        """No entry stands in a table that the kernel is given only when it runs."""
        entries = [atom for atom, _ in terms if isinstance(atom, Entry)]
        return all(e.table.data is not None and self._known(e.index.terms) for e in entries)

    # -- who depends on whom

    def _named(self, terms: Iterable[tuple[Atom, int]]) -> frozenset[Var]:
        """The variables that terms name, also inside entries."""
        found: set[Var] = set()
        for atom, _ in terms:
            if isinstance(atom, Var):
                found.add(atom)
            elif isinstance(atom, Entry):
                found |= self._named(atom.index.terms)
        return frozenset(found)

    def _variables(self, indices: Sequence[Index]) -> frozenset[Var]:
        """The variables indices need: those named, and those whose bounds these need."""
        named = self._named(term for index in indices for term in index.terms)
        return frozenset[Var]().union(*(self._needs[var] for var in named))


def canonical(terms: Terms) -> object:
    """Equal for terms that mean the same, though entries are objects of their own."""
    return tuple(
        ((atom.table, canonical(atom.index.terms), atom.index.constant), factor)
        if isinstance(atom, Entry)
        else (atom, factor)
        for atom, factor in terms
    )


def _joined(sets: Iterable[frozenset[Var]]) -> tuple[frozenset[Var], ...]:
    """Unite sets that share a variable."""
    groups: list[frozenset[Var]] = []
    for one in sets:
        apart = [group for group in groups if not group & one]
        joined = one.union(*(group for group in groups if group & one))
        groups = [*apart, joined] if joined else apart
    return tuple(groups)
