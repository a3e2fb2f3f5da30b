"""Statements → graph: blocks, repetition and branches become one flat row of layers.

Every statement takes the value that stands before it (the layer that made it) and leaves another:

    conv 8 k3              a layer that reads it
    residual { A }         A reads it; then the sum of both
    3 x { A }              A three times, each reading what the one before left
    NAME 64                the body of block NAME

Layers are drafts until the end, because a name may still come to them: `c: NAME 64` names what the
block leaves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from lanewise.errors import NetError
from lanewise.net.blocks import (
    STRUCTURES,
    assignment,
    bind,
    check_parameter,
    read_blocks,
)
from lanewise.net.check import name_taken
from lanewise.net.elsewhere import nearest
from lanewise.net.expression import Names, Number
from lanewise.net.grammar import KIND_OF_WORD
from lanewise.net.graph import Graph, Node
from lanewise.net.layers import Add, Input, Join, Layer
from lanewise.net.show import default_name
from lanewise.net.source import Body, Statement
from lanewise.net.words import read_layer, read_number

MOST_LAYERS = 20_000
# Repetitions of nothing take time, too.
_MOST_STEPS = 10 * MOST_LAYERS
# Braces and blocks inside each other, counted over the calls.
_DEEPEST = 80


@dataclass(eq=False)
class _Draft:
    """A layer before its name is final; `given`: whether the text gives the name."""

    name: str
    given: bool
    layer: Layer
    inputs: tuple[_Draft, ...]
    line: int
    within: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class _Scope:
    """What the statements of a body see: parameters, the named layers, and the calls around.

    `outer`: the scope whose names are visible too. `instance`: whether the body may be used again,
    so that its names may need a number.
    """

    names: Names
    calls: tuple[tuple[str, int], ...] = ()
    outer: _Scope | None = None
    instance: bool = False
    depth: int = 0
    layers: dict[str, _Draft] = field(default_factory=dict)

    def find(self, name: str) -> _Draft | None:
        """The layer that a text calls so, here or in a scope around."""
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.layers:
                return scope.layers[name]
            scope = scope.outer
        return None


# What a statement leaves, None before the input.
_Value = _Draft | None


def expand(body: Body, origin: str) -> Graph:
    """The graph of a text's statements; NetError where they make none."""
    return _Expansion(body, origin).graph()


class _Expansion:
    """One text on its way to a graph."""

    def __init__(self, body: Body, origin: str) -> None:
        self._body = body
        self._origin = origin
        self._blocks = read_blocks(body, origin)
        self._defined: set[str] = set()
        self._parameters: dict[str, Number] = {}
        self._drafts: list[_Draft] = []
        self._ordinals: Counter[type[Layer]] = Counter()
        self._defaults: dict[str, _Draft] = {}
        self._taken = set(_lasting_names(body))
        self._steps = 0

    def graph(self) -> Graph:
        """All layers in order, under their final names."""
        scope = _Scope(self._parameters)
        left = self._expand(self._body, scope, None)
        if left is not None and left is not self._drafts[-1]:
            unread = self._drafts[-1]
            node = Node(unread.name, unread.layer, (), unread.line, unread.within)
            raise NetError(
                f"{Graph((), self._origin).place(node)}: nobody reads it, for the network ends "
                f"with {left.name}; remove it, or read it with `from {unread.name}`"
            )
        return Graph(tuple(map(_node, self._drafts)), self._origin)

    # Statements -----------------------------------------------------------------------------------

    def _expand(self, body: Body, scope: _Scope, value: _Value) -> _Value:
        for statement in body:
            self._step(statement, scope)
            value = self._statement(statement, scope, value)
        return value

    def _statement(self, statement: Statement, scope: _Scope, value: _Value) -> _Value:
        word = statement.word
        kind = KIND_OF_WORD.get(word)
        if kind is not None and not statement.bodies:
            return self._layer(statement, kind, scope, value)
        if kind is not None and issubclass(kind, Join):
            return self._branches(statement, kind, scope, value)
        if word in STRUCTURES:
            return self._rule(word)(statement, scope, value)
        if len(statement.words) == 2 and statement.words[1].lower() == "x":
            return self._named(statement, scope, value, self._repetition)
        if word in self._blocks and not statement.bodies:
            return self._named(statement, scope, value, self._call)
        raise self._unknown(statement, scope)

    def _rule(self, word: str) -> Callable[[Statement, _Scope, _Value], _Value]:
        return {
            "residual": self._residual,
            "block": self._block,
            "parameters": self._set_parameters,
            "variant": self._variant,
        }[word]

    def _step(self, statement: Statement, scope: _Scope) -> None:
        self._steps += 1
        if self._steps > _MOST_STEPS or len(self._drafts) > MOST_LAYERS:
            raise self._wrong(
                statement, scope, f"more than {MOST_LAYERS:,} layers; repeat less often"
            )
        if scope.depth > _DEEPEST:
            raise self._wrong(statement, scope, f"more than {_DEEPEST} braces and blocks deep")

    def _layer(
        self, statement: Statement, kind: type[Layer], scope: _Scope, value: _Value
    ) -> _Draft:
        self._ordinals[kind] += 1
        name = self._name(statement, scope) or default_name(kind, self._ordinals[kind])
        place = self._place(statement, scope, name)
        words = list(statement.words[1:])
        if issubclass(kind, Join):
            inputs, words = self._joined(words, scope, place), []
        else:
            inputs = self._source(words, scope, value, place)
        layer = read_layer(kind, [word.lower() for word in words], scope.names, place)
        return self._add(name, layer, () if kind is Input else inputs, statement, scope)

    def _branches(
        self, statement: Statement, kind: type[Layer], scope: _Scope, value: _Value
    ) -> _Draft:
        if len(statement.words) > 1 or len(statement.bodies) < 2:
            raise self._wrong(
                statement,
                scope,
                f"`{statement.text}` joins two or more branches: `{statement.word} "
                "{ … } { … }`, or layers by name: "
                f"`{statement.word} NAME NAME`",
            )
        return self._join(statement, kind, scope, value, statement.bodies)

    def _residual(self, statement: Statement, scope: _Scope, value: _Value) -> _Draft:
        if len(statement.words) > 1 or len(statement.bodies) not in (1, 2):
            raise self._wrong(
                statement, scope, "write `residual { … }`, or with a projection `{ … } { … }`"
            )
        bodies = statement.bodies if len(statement.bodies) == 2 else (*statement.bodies, ())
        return self._join(statement, Add, scope, value, bodies)

    def _join(
        self,
        statement: Statement,
        kind: type[Layer],
        scope: _Scope,
        value: _Value,
        bodies: tuple[Body, ...],
    ) -> _Draft:
        """Branches side by side, each reading `value`, and what joins their results."""
        if value is None:
            told = f"{statement.word} has nothing to read; start with the image, like "
            raise self._wrong(statement, scope, told + "`input 1x28x28`")
        inner = replace(scope, depth=scope.depth + 1)
        inputs = tuple(self._expand(body, inner, value) or value for body in bodies)
        self._ordinals[kind] += 1
        name = self._name(statement, scope) or default_name(kind, self._ordinals[kind])
        self._check_twice(inputs, statement.word, self._place(statement, scope, name))
        return self._add(name, kind(), inputs, statement, scope)

    def _named(
        self,
        statement: Statement,
        scope: _Scope,
        value: _Value,
        rule: Callable[[Statement, _Scope, _Value], _Value],
    ) -> _Value:
        """A call or a repetition; a name before it goes to what it leaves."""
        before = len(self._drafts)
        left = rule(statement, scope, value)
        if not statement.name:
            return left
        if left is None:
            raise self._wrong(statement, scope, "leaves nothing to give a name; remove the name")
        if left in self._drafts[before:] and not left.given:
            self._defaults.pop(left.name, None)
            left.name, left.given = self._name(statement, scope), True
        scope.layers[statement.name] = left
        return left

    def _repetition(self, statement: Statement, scope: _Scope, value: _Value) -> _Value:
        if len(statement.bodies) != 1:
            raise self._wrong(statement, scope, f"write `{statement.text} {{ … }}`")
        text = statement.word
        times = read_number(text, scope.names, self._place(statement, scope) + f": `{text}` times")
        if times != int(times) or times < 0:
            told = f"`{text} x` is {times} times; use a whole number, 0 or more"
            raise self._wrong(statement, scope, told)
        for _ in range(int(times)):
            self._step(statement, scope)
            inner = _Scope(scope.names, scope.calls, scope, True, scope.depth + 1)
            value = self._expand(statement.bodies[0], inner, value)
        return value

    def _call(self, statement: Statement, scope: _Scope, value: _Value) -> _Value:
        block = self._blocks[statement.word]
        if not scope.calls and block.name not in self._defined:
            told = f"block {block.name} is used before it is defined (line {block.line}); "
            raise self._wrong(statement, scope, told + "define it above")
        place = self._place(statement, scope)
        words = list(statement.words[1:])
        source = self._source(words, scope, value, place)
        names = bind(block, tuple(words), scope.names, self._parameters, place)
        calls = (*scope.calls, (block.name, statement.line))
        inner = _Scope(names, calls, None, True, scope.depth + 1)
        return self._expand(block.body, inner, source[0] if source else None)

    # What stands at the top -----------------------------------------------------------------------

    def _block(self, statement: Statement, scope: _Scope, value: _Value) -> _Value:
        self._require_top(statement, scope)
        self._defined.add(statement.words[1].lower())
        return value

    def _set_parameters(self, statement: Statement, scope: _Scope, value: _Value) -> _Value:
        place = self._place(statement, scope)
        self._require_top(statement, scope)
        if self._defined or self._drafts:
            raise NetError(f"{place}: parameters stand before blocks and layers; move them up")
        for word in statement.words[1:]:
            name, text = assignment(word, place)
            check_parameter(name, place)
            if name in self._parameters:
                raise NetError(f"{place}: parameter {name} is given twice; keep one")
            self._parameters[name] = read_number(text, self._parameters, f"{place}: {name}")
        return value

    def _variant(self, statement: Statement, scope: _Scope, value: _Value) -> _Value:
        place = self._place(statement, scope)
        self._require_top(statement, scope)
        if len(statement.words) < 2:
            raise NetError(f"{place}: write `variant NAME` and its settings, like `n=3`")
        for word in statement.words[2:]:
            name, text = assignment(word, place)
            if name not in self._parameters:
                raise NetError(f"{place}: {no_parameter(name, self._parameters)}")
            read_number(text, self._parameters, f"{place}: {name}")
        return value

    def _require_top(self, statement: Statement, scope: _Scope) -> None:
        what = statement.word
        if scope.depth:
            raise self._wrong(statement, scope, f"`{what}` inside braces; it stands outside them")
        if statement.name or (statement.bodies and what != "block"):
            told = f"`{what}` makes no layer and takes no name and no braces; remove them"
            raise self._wrong(statement, scope, told)

    # Layers and their names -----------------------------------------------------------------------

    def _add(
        self,
        name: str,
        layer: Layer,
        inputs: tuple[_Draft, ...],
        statement: Statement,
        scope: _Scope,
    ) -> _Draft:
        draft = _Draft(name, bool(statement.name), layer, inputs, statement.line, scope.calls)
        self._drafts.append(draft)
        if statement.name:
            scope.layers[statement.name] = draft
        else:
            self._defaults[name] = draft
        return draft

    def _name(self, statement: Statement, scope: _Scope) -> str:
        """The name that a statement gives, numbered where the same text gave it before."""
        name = statement.name
        if not name or not scope.instance:
            return name
        if name in scope.layers:
            taken = scope.layers[name]
            place = self._place(statement, scope, name)
            raise NetError(
                name_taken(place, name, taken.layer, taken.line, statement.line, statement.word)
            )
        number, free = 1, name
        while free in self._taken:
            number += 1
            free = f"{name}_{number}"
        self._taken.add(free)
        return free

    def _source(
        self, words: list[str], scope: _Scope, value: _Value, place: str
    ) -> tuple[_Draft, ...]:
        """What a layer reads; takes `from NAME` off the end of its words."""
        if len(words) > 1 and words[-2].lower() == "from":
            source = self._find(words[-1], scope, place)
            del words[-2:]
            return (source,)
        if words and words[-1].lower() == "from":
            raise NetError(
                f"{place}: `from` needs the name of a layer before it, like `from conv1`"
            )
        return (value,) if value is not None else ()

    def _joined(self, words: list[str], scope: _Scope, place: str) -> tuple[_Draft, ...]:
        if len(words) < 2:
            raise NetError(
                f"{place}: joins two or more layers; name them, like `concat conv1 conv2`, or "
                "write branches, like `concat { … } { … }`"
            )
        inputs = tuple(self._find(word, scope, place) for word in words)
        self._check_twice(inputs, "the join", place)
        return inputs

    def _check_twice(self, inputs: tuple[_Draft, ...], what: str, place: str) -> None:
        seen: set[_Draft] = set()
        for draft in inputs:
            if draft in seen:
                raise NetError(
                    f"{place}: {what} reads {draft.name} twice; its branches must differ, so "
                    "at most one may be empty"
                )
            seen.add(draft)

    def _find(self, name: str, scope: _Scope, place: str) -> _Draft:
        """The layer that a text calls so; outside of blocks also by its default name."""
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
        known = [*scope.layers, *self._defaults]
        hint = nearest(name, known) or "name a layer like `a: conv 6 k5`, then read it"
        raise NetError(f"{place}: reads `{name}`, which is no layer before it; {hint.strip()}")

    # Errors ---------------------------------------------------------------------------------------

    def _place(self, statement: Statement, scope: _Scope, name: str = "") -> str:
        node = Node(name or statement.name, Layer(), (), statement.line, scope.calls)
        return Graph((), self._origin).place(node)

    def _wrong(self, statement: Statement, scope: _Scope, told: str) -> NetError:
        return NetError(f"{self._place(statement, scope)}: {told}")

    def _unknown(self, statement: Statement, scope: _Scope) -> NetError:
        word = statement.word
        if word in KIND_OF_WORD or word in self._blocks:
            return self._wrong(
                statement,
                scope,
                f"`{word}` takes no braces; end it with `;` or a new line, or write "
                "`residual { … }` or `3 x { … }`",
            )
        known = [*KIND_OF_WORD, *STRUCTURES, *self._blocks]
        hint = nearest(word, known).strip() or f"the layers are {', '.join(KIND_OF_WORD)}"
        return self._wrong(statement, scope, f"unknown layer `{word}`; {hint}")


def no_parameter(name: str, names: Names) -> str:
    """`no parameter widht; did you mean `width`? …`"""
    has = ", ".join(f"{known}={value}" for known, value in names.items())
    told = f"it has {has}" if has else "the network has none"
    return f"no parameter {name}; {nearest(name, names)}{told}"


def _node(draft: _Draft) -> Node:
    inputs = tuple(source.name for source in draft.inputs)
    return Node(draft.name, draft.layer, inputs, draft.line, draft.within)


def _lasting_names(body: Body) -> Iterator[str]:
    """The names that stand in the graph as they are written: outside of blocks and repetitions."""
    for statement in body:
        if statement.name:
            yield statement.name
        if statement.word in KIND_OF_WORD or statement.word == "residual":
            for inner in statement.bodies:
                yield from _lasting_names(inner)
