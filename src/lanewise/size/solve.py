"""What can stand for every `?` of a network: all solutions, the most usual first.

The layers are walked in order with the shapes that later layers still read; at a layer with `?`
every choice for its window (`choices`) leads to another state, and equal states are one. Backwards
from the ends each state learns how many solutions lie behind it and how usual the best of them is;
so solutions are counted without being listed, and listed in order without being all made. Sizes
that no want can be reached from are left out early (`reachable`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count as counter
from itertools import islice
from typing import Any, TypeAlias

from lanewise.errors import SizeError
from lanewise.net.check import check
from lanewise.net.graph import Graph, Node
from lanewise.net.unknown import Unknown, with_numbers
from lanewise.size.amounts import (
    Impossible,
    Symbol,
    System,
    known_from,
    require_equal,
    row_of,
    solutions,
    system_with,
    unbounded,
    with_known,
)
from lanewise.size.bounds import Bounds
from lanewise.size.choices import (
    ANY,
    MOST,
    Numbers,
    TooMany,
    Wished,
    choices,
    line,
    window_unknowns,
)
from lanewise.size.open_shapes import OpenShape, map_size, open_shape
from lanewise.size.ranking import ranked, reasons_of, rule_text
from lanewise.size.reachable import reachable
from lanewise.size.shapes import infer_shapes

# Layers with `?`: beyond that the question is another one.
MOST_LAYERS = 64
# Steps of a search, some 20 µs each, after which it gives up.
MOST_STEPS = 100_000


@dataclass(frozen=True)
class Solution:
    """Numbers for every `?`: node name → `?` → number. `graph` is the network with them."""

    numbers: Mapping[str, Mapping[Unknown, int]]
    graph: Graph = field(repr=False)
    reasons: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Solutions:
    """How many there are within the bounds, and the first of them, the most usual first."""

    open: Graph
    count: int
    first: tuple[Solution, ...]
    bounds: Bounds


class Unbounded(SizeError):
    """Infinitely many numbers can stand for a `?`."""


def solve(graph: Graph, most: int | None = 20) -> Solutions:
    """The solutions of a network with `?`, at most `most` of them listed (None: all).

    SizeError where infinitely many kernels or features fit (with the rule that they follow), or
    where there are too many `?`. None at all is no error here: `count` is 0.
    """
    search = Search(graph, bounds_of(graph))
    found = list(islice(search.best(), most))
    return Solutions(graph, search.count, tuple(map(search.solution, found)), search.bounds)


def bounds_of(graph: Graph) -> Bounds:
    """One layer is searched over the whole map, several up to the usual kernels."""
    windows = sum(bool(window_unknowns(graph.node(name).layer)) for name in graph.unknowns)
    return Bounds(whole_map=windows <= 1)


# What is left of the walk: place in the list of nodes, the shapes still read, what must hold, and
# the kernels and features that are determined.
@dataclass(frozen=True)
class _State:
    place: int
    shapes: tuple[tuple[str, OpenShape], ...]
    system: System
    known: tuple[tuple[Symbol, int], ...]


@dataclass(frozen=True)
class _Edge:
    """The choices at one layer that lead to one state, the most usual first."""

    to: _State
    options: tuple[tuple[int, Numbers], ...]


@dataclass
class _Beyond:
    """What lies behind a state: how many solutions, the points of the best, the edges to them."""

    count: int
    points: int
    edges: list[_Edge]
    endings: list[dict[Symbol, int]]


# Points, then the numbers chosen at each layer, then those of kernels and features.
_Pick: TypeAlias = "tuple[tuple[Numbers, ...], dict[Symbol, int]]"


class Search:
    """The walk through one network."""

    def __init__(
        self, graph: Graph, bounds: Bounds, strict: bool = True, steps: int = MOST_STEPS
    ) -> None:
        """`strict`: infinitely many numbers are an error; else one of them stands for all. After so
        many `steps` the search gives up with a SizeError."""
        self.graph = graph
        self.bounds = bounds
        self._strict = strict
        self._steps = steps
        self._nodes = graph.nodes
        self._wants = {
            want.name: [w.shape for w in graph.wants if w.name == want.name] for want in graph.wants
        }
        self._last = {name: place for place, node in enumerate(self._nodes) for name in node.inputs}
        self._symbols = _symbols(graph)
        self._windows = [node for node in self._nodes if window_unknowns(node.layer)]
        if len(graph.unknowns) > MOST_LAYERS:
            raise SizeError(
                f"{graph.origin}: {len(graph.unknowns)} layers with `?` are too many to solve "
                f"together; say some of the numbers, so that at most {MOST_LAYERS} are left"
            )
        self._wished = reachable(graph, bounds)
        self._behind: dict[_State, _Beyond] = {}
        self._start = self._advance(_State(0, (), System(), ()))
        self.count = self._beyond(self._start).count if self._start else 0

    def best(self) -> Iterator[_Pick]:
        """Solutions, the most usual first; what is as usual in the order of its numbers."""
        if self._start is None or not self.count:
            return
        order = counter()
        heap: list[Any] = [(self._beyond(self._start).points, (), next(order), self._start, 0)]
        while heap:
            _, picked, _, state, paid = heappop(heap)
            if not isinstance(state, _State):
                yield picked, state
                continue
            behind = self._beyond(state)
            for ending in behind.endings:
                heappush(heap, (paid, picked, next(order), ending, paid))
            for edge in behind.edges:
                rest = self._beyond(edge.to).points
                for cost, numbers in edge.options:
                    item = (*picked, numbers)
                    heappush(heap, (paid + cost + rest, item, next(order), edge.to, paid + cost))

    def solution(self, pick: _Pick) -> Solution:
        """A pick with the network it makes, its sizes inferred anew by the rule itself."""
        picked, symbols = pick
        numbers: dict[str, dict[Unknown, int]] = {}
        for node, chosen in zip(self._windows, picked, strict=True):
            numbers[node.name] = dict(zip(window_unknowns(node.layer), chosen, strict=True))
        for (name, unknown), value in symbols.items():
            numbers.setdefault(name, {})[unknown] = value
        nodes = tuple(
            replace(node, layer=with_numbers(node.layer, numbers[node.name]))
            if node.name in numbers
            else node
            for node in self._nodes
        )
        solved = check(replace(self.graph, nodes=nodes))
        shapes = infer_shapes(solved)
        told = {node.name: tuple(reasons_of(node, solved, shapes)) for node in self._windows}
        return Solution(numbers, solved, told)

    # The walk -------------------------------------------------------------------------------------

    def _beyond(self, state: _State) -> _Beyond:
        if state not in self._behind:
            self._behind[state] = self._explore(state)
        return self._behind[state]

    def _explore(self, state: _State) -> _Beyond:
        if state.place == len(self._nodes):
            endings = self._endings(state)
            return _Beyond(len(endings), 0, [], endings)
        edges, count, best = [], 0, 0
        for edge in self._edges(state):
            behind = self._beyond(edge.to)
            if behind.count:
                edges.append(edge)
                cost = edge.options[0][0] + behind.points
                best = min(best, cost) if count else cost
                count += len(edge.options) * behind.count
        return _Beyond(count, best, edges, [])

    def _edges(self, state: _State) -> Iterator[_Edge]:
        """The states behind the window of the layer at the state's place."""
        node = self._nodes[state.place]
        in_shape = dict(state.shapes)[node.inputs[0]]
        if len(in_shape) != 3:
            return
        size = map_size(in_shape)
        wished: Wished = self._wished.get(node.name, (None, None))
        layer: Any = node.layer
        found = self._choices(node, layer, size, wished)
        self._steps -= len(found)
        if self._steps < 0:
            raise SizeError(
                f"{self.graph.place(node)}: too many possibilities up to here; write some of the "
                "numbers, or a `want` behind more of the layers"
            )
        merged: dict[_State, list[Numbers]] = {}
        for group in found.values():
            known = with_numbers(layer, dict(zip(window_unknowns(layer), group[0], strict=True)))
            to = self._advance(state, known)
            if to is not None:
                merged.setdefault(to, []).extend(group)
        some = [(to, options) for to, options in merged.items() if self._beyond(to).count]
        self._require_bound(node, size, wished, found, sum(len(options) for _, options in some))
        for to, options in some:
            yield _Edge(to, ranked(layer, options, size))

    def _choices(
        self, node: Node, layer: Any, size: tuple[int, int], wished: Wished
    ) -> Mapping[tuple[int, int], tuple[Numbers, ...]]:
        try:
            return choices(layer, size, self.bounds, wished)
        except TooMany:
            raise SizeError(
                f"{self.graph.place(node)}: more than {MOST:,} numbers fit on {size[0]}x{size[1]}; "
                "write some of them, or a `want` right behind the layer"
            ) from None

    def _require_bound(
        self,
        node: Node,
        size: tuple[int, int],
        wished: Wished,
        found: Mapping[tuple[int, int], tuple[Numbers, ...]],
        fitting: int,
    ) -> None:
        """Unbounded where every choice leads to the end: nothing asks for a size."""
        everything = 1 < fitting == sum(map(len, found.values()))
        if self._strict and wished == ANY and everything and self._unasked(node):
            raise Unbounded(
                f"{self.graph.place(node)}: infinitely many solutions: nothing behind it asks for "
                f"a size, so all numbers do with {rule_text(line(node.layer, 0), size[0])}; "
                "write `want` and a shape behind it, or the numbers"
            )

    def _unasked(self, node: Node) -> bool:
        """Whether no want lies behind a layer, or no other `?` answers it."""
        behind = {node.name}
        for other in self._nodes:
            if behind & set(other.inputs):
                behind.add(other.name)
        return not (behind & set(self._wants)) or len(self.graph.unknowns) == 1

    def _advance(self, state: _State, layer: Any = None) -> _State | None:
        """On to the next layer whose window is to be chosen; `layer` is the one at this place with
        its window chosen. None where the shapes cannot be."""
        shapes = dict(state.shapes)
        system, known = state.system, dict(state.known)
        place = state.place
        try:
            while place < len(self._nodes):
                node = self._nodes[place]
                if layer is None and window_unknowns(node.layer):
                    break
                inputs = [shapes[name] for name in node.inputs]
                shape, system = open_shape(node.name, layer or node.layer, system, *inputs)
                layer = None
                for wanted in self._wants.get(node.name, ()):
                    system = _want(system, shape, wanted)
                shapes[node.name] = shape
                place += 1
                shapes = {
                    name: one for name, one in shapes.items() if self._last.get(name, -1) >= place
                }
                shapes, system = _determined(shapes, system, known)
        except Impossible:
            return None
        return _State(place, tuple(shapes.items()), system, tuple(known.items()))

    def _endings(self, state: _State) -> list[dict[Symbol, int]]:
        """Kernels and features at the end of the walk; SizeError if they are infinitely many."""
        known = dict(state.known)
        left = tuple(one for one in self._symbols if one not in known)
        free = unbounded(state.system, left)
        try:
            rows = {name: row_of(state.system, name) for name in free}
        except Impossible:
            return []
        if free and self._strict:
            raise Unbounded(self._infinite(free[0], rows[free[0]], state.system))
        if free:
            return [{**known, **others} for others in _some(state.system, rows)]
        return [{**known, **others} for others in solutions(state.system)]

    def _infinite(self, name: Symbol, row: tuple[int, int], system: System) -> str:
        node = self.graph.node(name[0])
        what = "kernels" if name[1].field_name == "kernels" else "features"
        first, step = row
        rule = f"every multiple of {step}" if step > 1 else "every number from 1"
        if first != step:
            rule = f"{first}, {first + step}, {first + 2 * step} … each"
        beside = {
            other
            for zero in system.zeros
            for other, _ in zero.terms
            if any(one == name for one, _ in zero.terms)
        } - {name}
        if beside:
            rule += f" that goes with {', '.join(sorted(other for other, _ in beside))}"
        return (
            f"{self.graph.place(node)}: infinitely many solutions: {rule} fits, for nothing after "
            f"it asks for its {what}; write a number, or a `want` behind it"
        )


def _symbols(graph: Graph) -> tuple[Symbol, ...]:
    counts = ("kernels", "features")
    return tuple(
        (name, one)
        for name, found in graph.unknowns.items()
        for one in found
        if one.field_name in counts
    )


def _some(system: System, rows: Mapping[Symbol, tuple[int, int]]) -> list[dict[Symbol, int]]:
    """The least numbers for symbols that may be any of their rows, if the others follow."""
    found = {name: first for name, (first, _) in rows.items()}
    try:
        return [{**found, **others} for others in islice(solutions(system_with(system, found)), 1)]
    except Impossible:
        return []


def _want(system: System, shape: OpenShape, wanted: tuple[int | None, ...]) -> System:
    if len(shape) != len(wanted):
        raise Impossible
    for number, want in zip(shape, wanted, strict=True):
        if want is not None:
            system = require_equal(system, number, want)
    return system


def _determined(
    shapes: dict[str, OpenShape], system: System, known: dict[Symbol, int]
) -> tuple[dict[str, OpenShape], System]:
    """Puts in what an equation determines, until none does; `known` learns it."""
    while system.zeros:
        found = known_from(system)
        if not found:
            break
        known.update(found)
        system = system_with(system, found)
        shapes = {
            name: tuple(with_known(count, found) for count in shape)
            for name, shape in shapes.items()
        }
    return shapes, system
