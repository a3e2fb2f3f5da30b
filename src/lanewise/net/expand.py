"""Statements → graph: blocks, repetition and branches become one flat row of layers.

Every statement takes the value that stands before it (the layer that made it) and leaves another:

    conv 8 k3              a layer that reads it
    residual { A }         A reads it; then the sum of both
    3 x { A }              A three times, each reading what the one before left
    3 x i { A }            the same; in A the parameter i is 0, 1 and 2
    NAME 64                the body of block NAME
    want 8x30x30           what its shape shall be; it leaves the value as it is

A body without layers leaves the value that stands before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeAlias

from lanewise.errors import NetError
from lanewise.net.blocks import STRUCTURES, assignment, bind, check_parameter, read_blocks
from lanewise.net.drafts import Draft, Drafts, Place, Scope, default_input
from lanewise.net.elsewhere import nearest
from lanewise.net.expression import Names, Number
from lanewise.net.grammar import KIND_OF_WORD
from lanewise.net.graph import Graph
from lanewise.net.layers import Add, Join, Layer
from lanewise.net.source import Body, Statement
from lanewise.net.words import read_layer, read_number, read_wanted

MOST_LAYERS = 20_000
# Repetitions of nothing take time, too.
_MOST_STEPS = 10 * MOST_LAYERS
# Braces and blocks inside each other, counted over the calls.
_DEEPEST = 50

# What a statement leaves, None before the input.
_Value: TypeAlias = Draft | None


def expand(body: Body, origin: str, forgiving: bool = False) -> Graph:
    """The graph of a text's statements; NetError where they make none. `forgiving` as `read_layer`
    has it."""
    return _Expansion(body, origin, forgiving).graph()


class _Expansion:
    """One text on its way to a graph."""

    def __init__(self, body: Body, origin: str, forgiving: bool) -> None:
        self._body = body
        self._forgiving = forgiving
        self._origin = origin
        self._blocks = read_blocks(body, origin)
        self._defined: set[str] = set()
        self._parameters: dict[str, Number] = {}
        self._drafts = Drafts(origin, _lasting_names(body))
        self._layers: dict[tuple[object, ...], Layer] = {}
        self._steps = 0

    def graph(self) -> Graph:
        """All layers in order, under their final names."""
        left = self._expand(self._body, Scope(self._parameters), None)
        last = self._drafts.all[-1] if self._drafts.all else None
        if left is not last and left is not None and last is not None:
            place = Place(self._origin, last.line, last.name, last.within)
            raise NetError(
                f"{place}: nobody reads {last.name}, for the network ends with {left.name}; "
                "remove one of the two, or join them"
            )
        return self._drafts.graph()

    # Statements -----------------------------------------------------------------------------------

    def _expand(self, body: Body, scope: Scope, value: _Value) -> _Value:
        for statement in body:
            self._step(statement, scope)
            value = self._statement(statement, scope, value)
        return value

    def _statement(self, statement: Statement, scope: Scope, value: _Value) -> _Value:
        word = statement.word
        kind = KIND_OF_WORD.get(word)
        if kind is not None and not statement.bodies:
            return self._layer(statement, kind, scope, value)
        if kind is not None and issubclass(kind, Join):
            return self._branches(statement, kind, scope, value)
        if word in STRUCTURES:
            return self._structure(word)(statement, scope, value)
        if len(statement.words) in (2, 3) and statement.words[1].lower() == "x":
            return self._named(statement, scope, value, self._repetition)
        if word in self._blocks and not statement.bodies:
            return self._named(statement, scope, value, self._call)
        raise self._unknown(statement, scope)

    def _structure(self, word: str) -> Callable[[Statement, Scope, _Value], _Value]:
        return {
            "residual": self._residual,
            "block": self._block,
            "parameters": self._set_parameters,
            "variant": self._variant,
            "want": self._want,
        }[word]

    def _step(self, statement: Statement, scope: Scope) -> None:
        self._steps += 1
        if self._steps > _MOST_STEPS or len(self._drafts.all) >= MOST_LAYERS:
            told = f"more than {MOST_LAYERS:,} layers; repeat less often"
            raise self._wrong(statement, scope, told)
        if scope.depth > _DEEPEST:
            told = f"braces and blocks more than {_DEEPEST} deep; use fewer inside each other"
            raise self._wrong(statement, scope, told)

    def _layer(self, statement: Statement, kind: type[Layer], scope: Scope, value: _Value) -> Draft:
        name = self._drafts.new_name(statement, kind, scope)
        place = self._place(statement, scope, name)
        words = list(statement.words[1:])
        if issubclass(kind, Join):
            inputs, words = self._joined(words, statement.word, scope, place), []
        else:
            inputs = self._source(words, scope, place) or default_input(kind, value)
        layer = self._read(kind, words, scope.names, place)
        return self._drafts.add(name, layer, inputs, statement, scope)

    def _read(self, kind: type[Layer], words: list[str], names: Names, place: Place) -> Layer:
        """The layer of these words; one object for all that are written alike."""
        key = (kind, *words, *names.items())
        if key not in self._layers:
            written = [word.lower() for word in words]
            self._layers[key] = read_layer(kind, written, names, place, self._forgiving)
        return self._layers[key]

    def _branches(
        self, statement: Statement, kind: type[Layer], scope: Scope, value: _Value
    ) -> Draft:
        if len(statement.words) > 1 or len(statement.bodies) < 2:
            word = statement.word
            told = f"write two or more branches, `{word} {{ … }} {{ … }}`, or names, `{word} a b`"
            raise self._wrong(statement, scope, told)
        return self._join(statement, kind, scope, value, statement.bodies)

    def _residual(self, statement: Statement, scope: Scope, value: _Value) -> Draft:
        if len(statement.words) > 1 or len(statement.bodies) not in (1, 2):
            told = "write `residual { … }`, or with a projection `residual { … } { … }`"
            raise self._wrong(statement, scope, told)
        bodies = statement.bodies if len(statement.bodies) == 2 else (*statement.bodies, ())
        return self._join(statement, Add, scope, value, bodies)

    def _join(
        self,
        statement: Statement,
        kind: type[Layer],
        scope: Scope,
        value: _Value,
        bodies: tuple[Body, ...],
    ) -> Draft:
        """Branches side by side, each reading `value`, and what joins their results."""
        if value is None:
            told = f"{statement.word} has nothing to read; start with the image, like "
            raise self._wrong(statement, scope, told + "`input 1x28x28`")
        inner = replace(scope, depth=scope.depth + 1)
        inputs = tuple(self._expand(body, inner, value) or value for body in bodies)
        name = self._drafts.new_name(statement, kind, scope)
        self._check_twice(inputs, statement.word, self._place(statement, scope, name))
        return self._drafts.add(name, kind(), inputs, statement, scope)

    def _want(self, statement: Statement, scope: Scope, value: _Value) -> _Value:
        """What the value's shape shall be; the value stays what it is."""
        if value is None or statement.name or statement.bodies:
            told = "follows the layer whose shape it says, like `conv 6 k?; want 6x24x24`"
            raise self._wrong(statement, scope, f"`want` {told}, without name or braces")
        words = [word.lower() for word in statement.words[1:]]
        wanted = read_wanted(words, scope.names, self._place(statement, scope))
        self._drafts.want(value, wanted, statement.line, scope.calls)
        return value

    def _named(
        self,
        statement: Statement,
        scope: Scope,
        value: _Value,
        rule: Callable[[Statement, Scope, _Value], _Value],
    ) -> _Value:
        """A call or a repetition; a name before it goes to what it leaves."""
        since = len(self._drafts.all)
        left = rule(statement, scope, value)
        if statement.name:
            if left is None:
                raise self._wrong(statement, scope, "leaves nothing to name; remove the name")
            self._drafts.call(left, statement, scope, since)
        return left

    def _repetition(self, statement: Statement, scope: Scope, value: _Value) -> _Value:
        text = statement.word
        if len(statement.bodies) != 1:
            raise self._wrong(statement, scope, f"a repetition is written `{text} x {{ … }}`")
        place = self._place(statement, scope)
        times = read_number(text, scope.names, place, "repetition ")
        if times != int(times) or times < 0:
            shown = "" if text == str(times) else f" is {times}"
            raise NetError(f"{place}: repetition `{text}`{shown}; use a whole number from 0")
        counters = [word.lower() for word in statement.words[2:]]
        for counter in counters:
            check_parameter(counter, place)
        for turn in range(int(times)):
            self._step(statement, scope)
            names = {**scope.names, **dict.fromkeys(counters, turn)} if counters else scope.names
            inner = Scope(names, scope.calls, scope, True, scope.depth + 1)
            value = self._expand(statement.bodies[0], inner, value)
        return value

    def _call(self, statement: Statement, scope: Scope, value: _Value) -> _Value:
        block = self._blocks[statement.word]
        place = self._place(statement, scope)
        if not scope.calls and block.name not in self._defined:
            raise NetError(
                f"{place}: block {block.name} is used before it is defined (line {block.line}); "
                "move its definition up"
            )
        words = list(statement.words[1:])
        source = self._source(words, scope, place)
        names = bind(block, tuple(words), scope.names, self._parameters, place)
        calls = (*scope.calls, (block.name, statement.line))
        inner = Scope(names, calls, None, True, scope.depth + 1)
        return self._expand(block.body, inner, source[0] if source else value)

    # What stands at the top -----------------------------------------------------------------------

    def _block(self, statement: Statement, scope: Scope, value: _Value) -> _Value:
        self._require_top(statement, scope)
        self._defined.add(statement.words[1].lower())
        return value

    def _set_parameters(self, statement: Statement, scope: Scope, value: _Value) -> _Value:
        place = self._place(statement, scope)
        self._require_top(statement, scope)
        if self._defined or self._drafts.all:
            raise NetError(f"{place}: parameters stand before blocks and layers; move them up")
        for word in statement.words[1:]:
            name, text = assignment(word, place)
            check_parameter(name, place)
            if name in self._parameters:
                raise NetError(f"{place}: parameter {name} is given twice; keep one")
            self._parameters[name] = read_number(text, self._parameters, place, f"{name} ")
        return value

    def _variant(self, statement: Statement, scope: Scope, value: _Value) -> _Value:
        place = self._place(statement, scope)
        self._require_top(statement, scope)
        if len(statement.words) < 2:
            raise NetError(f"{place}: write `variant NAME` and its settings, like `n=3`")
        for word in statement.words[2:]:
            name, text = assignment(word, place)
            if name not in self._parameters:
                raise NetError(f"{place}: {no_parameter(name, self._parameters)}")
            read_number(text, self._parameters, place, f"{name} ")
        return value

    def _require_top(self, statement: Statement, scope: Scope) -> None:
        word = statement.word
        if scope.depth:
            raise self._wrong(statement, scope, f"`{word}` stands outside of braces; move it up")
        if statement.name or (statement.bodies and word != "block"):
            told = f"`{word}` makes no layer; remove its name or braces"
            raise self._wrong(statement, scope, told)

    # What a layer reads ---------------------------------------------------------------------------

    def _source(self, words: list[str], scope: Scope, place: Place) -> tuple[Draft, ...]:
        """What a statement says it reads, if it does; takes `from NAME` off its words."""
        if len(words) > 1 and words[-2].lower() == "from":
            source = self._drafts.find(words[-1], scope, place)
            del words[-2:]
            return (source,)
        if words and "from" in map(str.lower, words):
            told = "one layer's name at the end, like `conv 6 k5 from conv1`"
            raise NetError(f"{place}: `from` needs {told}; several are read by `add` or `concat`")
        return ()

    def _joined(self, words: list[str], word: str, scope: Scope, place: Place) -> tuple[Draft, ...]:
        if len(words) < 2:
            raise NetError(
                f"{place}: reads two or more layers; name them, `{word} a b`, or write branches, "
                f"`{word} {{ … }} {{ … }}`"
            )
        inputs = tuple(self._drafts.find(name, scope, place) for name in words)
        self._check_twice(inputs, word, place)
        return inputs

    def _check_twice(self, inputs: tuple[Draft, ...], word: str, place: Place) -> None:
        seen: set[Draft] = set()
        for draft in inputs:
            if draft in seen:
                raise NetError(
                    f"{place}: {word} reads {draft.name} twice; let each branch be another value, "
                    "at most one of them empty"
                )
            seen.add(draft)

    # Errors ---------------------------------------------------------------------------------------

    def _place(self, statement: Statement, scope: Scope, name: str = "") -> Place:
        return Place(self._origin, statement.line, name or statement.name, scope.calls)

    def _wrong(self, statement: Statement, scope: Scope, told: str) -> NetError:
        return NetError(f"{self._place(statement, scope)}: {told}")

    def _unknown(self, statement: Statement, scope: Scope) -> NetError:
        word = statement.word
        if word in KIND_OF_WORD or word in self._blocks:
            told = "branches stand behind `residual`, `add`, `multiply` and `concat`"
            return self._wrong(statement, scope, f"`{word}` takes no braces; {told}")
        if word[0].isdigit():
            number = word.removesuffix("x")
            told = f"write a repetition as `{number} x {{ … }}`"
            return self._wrong(statement, scope, f"unknown layer `{word}`; {told}")
        known = [*KIND_OF_WORD, *STRUCTURES, *self._blocks]
        hint = nearest(word, known).strip() or f"the layers are {', '.join(KIND_OF_WORD)}"
        return self._wrong(statement, scope, f"unknown layer `{word}`; {hint}")


def no_parameter(name: str, names: Names) -> str:
    """`no parameter widht; did you mean `width`? …`"""
    has = ", ".join(f"{known}={value}" for known, value in names.items())
    told = f"it has {has}" if has else "the network has none"
    return f"no parameter {name}; {nearest(name, names)}{told}"


def _lasting_names(body: Body) -> Iterator[str]:
    """The names that stand in the graph as they are written: outside of blocks and repetitions."""
    for statement in body:
        if statement.name:
            yield statement.name
        if statement.word in KIND_OF_WORD or statement.word == "residual":
            for inner in statement.bodies:
                yield from _lasting_names(inner)
