"""Layers on their way into a graph: what they read, what they are called, who sees which name.

A name that stands in a block or a repetition is given to several layers; from the second on it gets
a number: c, c_2, c_3. Inside, it always means the layer of the same round.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from lanewise.errors import NetError
from lanewise.net.check import name_taken
from lanewise.net.elsewhere import nearest
from lanewise.net.expression import Names
from lanewise.net.graph import Graph, Node, Want, Wanted
from lanewise.net.layers import Input, Layer
from lanewise.net.show import default_name
from lanewise.net.source import Statement

# The blocks around a statement, outermost first, each with the line that calls it.
Calls: TypeAlias = tuple[tuple[str, int], ...]


class Place:
    """Where an error points; its text is made only if there is one."""

    __slots__ = ("line", "name", "origin", "within")

    def __init__(self, origin: str, line: int, name: str, within: Calls) -> None:
        self.origin, self.line, self.name, self.within = origin, line, name, within

    def __str__(self) -> str:
        node = Node(self.name, Layer(), (), self.line, self.within)
        return Graph((), self.origin).place(node)


@dataclass(eq=False)
class Draft:
    """A layer whose name may still change. `order`: its place among all; `given`: whether the text
    gives the name."""

    order: int
    name: str
    given: bool
    layer: Layer
    inputs: tuple[Draft, ...]
    line: int
    within: Calls


@dataclass(frozen=True)
class Scope:
    """What the statements of a body see: parameters, the named layers, and the calls around.

    `outer`: the scope whose layers are seen too. `instance`: whether the body may be used again, so
    that its names may need a number. `depth`: braces and calls around.
    """

    names: Names
    calls: Calls = ()
    outer: Scope | None = None
    instance: bool = False
    depth: int = 0
    layers: dict[str, Draft] = field(default_factory=dict)

    def find(self, name: str) -> Draft | None:
        """The layer that the text calls so, here or around."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.layers:
                return scope.layers[name]
            scope = scope.outer
        return None


class Drafts:
    """All layers so far, in order. `lasting`: names that stay as they are written."""

    def __init__(self, origin: str, lasting: Iterable[str]) -> None:
        self.all: list[Draft] = []
        self._origin = origin
        self._ordinals: Counter[type[Layer]] = Counter()
        self._defaults: dict[str, Draft] = {}
        self._taken = set(lasting)
        self._numbers: Counter[str] = Counter()
        self._wants: list[tuple[Draft, Wanted, int, Calls]] = []

    def graph(self) -> Graph:
        """The layers as a graph, under the names they have now."""
        wants = sorted(self._wants, key=lambda want: want[0].order)
        return Graph(
            tuple(map(_node, self.all)),
            self._origin,
            wants=tuple(
                Want(draft.name, shape, line, calls) for draft, shape, line, calls in wants
            ),
        )

    def want(self, draft: Draft, shape: Wanted, line: int, calls: Calls) -> None:
        """Notes what the text wants of a layer's output."""
        self._wants.append((draft, shape, line, calls))

    def new_name(self, statement: Statement, kind: type[Layer], scope: Scope) -> str:
        """The name of the next layer: the one that its statement gives, or its default."""
        self._ordinals[kind] += 1
        if statement.name:
            return self.given_name(statement, scope)
        return default_name(kind, self._ordinals[kind])

    def add(
        self, name: str, layer: Layer, inputs: tuple[Draft, ...], statement: Statement, scope: Scope
    ) -> Draft:
        """A new layer under a name of `new_name`."""
        given = bool(statement.name)
        order = len(self.all)
        draft = Draft(order, name, given, layer, inputs, statement.line, scope.calls)
        self.all.append(draft)
        if given:
            scope.layers[statement.name] = draft
        else:
            self._defaults[name] = draft
        return draft

    def call(self, draft: Draft, statement: Statement, scope: Scope, since: int) -> None:
        """Gives the statement's name to what it left: to the layer itself if it is new (from the
        order `since` on) and has no name, else for the text only."""
        name = self.given_name(statement, scope)
        if draft.order >= since and not draft.given:
            self._defaults.pop(draft.name, None)
            draft.name, draft.given = name, True
        scope.layers[statement.name] = draft

    def find(self, name: str, scope: Scope, place: Place) -> Draft:
        """The layer that the text calls so; outside of blocks also by its default name."""
        found = scope.find(name) or scope.find(name.lower())
        if found is None and not scope.calls:
            found = self._defaults.get(name.lower())
        if found is not None:
            return found
        if scope.calls:
            raise NetError(
                f"{place}: reads `{name}`, which is no named layer before it in block "
                f"{scope.calls[-1][0]}; a block sees its own names only"
            )
        hint = nearest(name, [*scope.layers, *self._defaults])
        told = hint.strip() or "name a layer like `a: conv 6 k5`, then read it"
        raise NetError(f"{place}: reads `{name}`, which is no layer before it; {told}")

    def given_name(self, statement: Statement, scope: Scope) -> str:
        """The name that a statement gives, numbered where the same text gave it before."""
        name = statement.name
        if name in scope.layers:
            taken, line = scope.layers[name], statement.line
            place = str(Place(self._origin, line, name, scope.calls))
            raise NetError(name_taken(place, name, taken.layer, taken.line, line, statement.word))
        if not scope.instance:
            return name
        free = name
        while free in self._taken:
            self._numbers[name] += 1
            free = f"{name}_{self._numbers[name] + 1}"
        self._taken.add(free)
        return free


def default_input(kind: type[Layer], value: Draft | None) -> tuple[Draft, ...]:
    """What a layer reads that does not say it: the value before it; nothing before the image."""
    return () if kind is Input or value is None else (value,)


def _node(draft: Draft) -> Node:
    inputs = tuple(source.name for source in draft.inputs)
    return Node(draft.name, draft.layer, inputs, draft.line, draft.within)
