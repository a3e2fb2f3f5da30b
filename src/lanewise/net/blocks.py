"""`block NAME PARAM … { … }`: definitions, their calls, and the values a call gives them.

A block may contain only blocks that are defined above it, so no block can contain itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lanewise.errors import NetError
from lanewise.net.elsewhere import nearest
from lanewise.net.expression import FUNCTIONS, PICK, Names, Number, is_name
from lanewise.net.grammar import KIND_OF_WORD
from lanewise.net.source import Body, Statement
from lanewise.net.words import read_number

EXAMPLE = "`block NAME WIDTH STRIDE=1 { … }`"
# Words that begin a statement and are no layer.
STRUCTURES = ("residual", "block", "parameters", "variant", "want")


@dataclass(frozen=True)
class Block:
    """A definition: parameters in order, each with its default as written ("": must be given)."""

    name: str
    parameters: tuple[tuple[str, str], ...]
    body: Body
    line: int

    @property
    def shown(self) -> str:
        """How it is called: `basic width stride=1`."""
        words = [f"{name}={default}" if default else name for name, default in self.parameters]
        return " ".join([self.name, *words])


def read_blocks(body: Body, origin: str) -> dict[str, Block]:
    """Every block that a text defines, each checked to contain none but those above it."""
    blocks: dict[str, Block] = {}
    for statement in body:
        if statement.word == "block":
            block = _definition(statement, f"{origin}:{statement.line}")
            if block.name in blocks:
                before = blocks[block.name].line
                raise NetError(
                    f"{origin}:{block.line}: block {block.name} is defined in line {before} "
                    "already; give this one another name"
                )
            blocks[block.name] = block
    _check_order(blocks, origin)
    return blocks


def assignment(word: str, place: object) -> tuple[str, str]:
    """`n=3` → (`n`, `3`), the name in lower case; NetError where it is none."""
    name, equals, value = word.lower().partition("=")
    if not equals or not value or not is_name(name) or value.startswith("="):
        raise NetError(f"{place}: `{word}`; write NAME=NUMBER without spaces, like `n=3`")
    return name, value


def is_assignment(word: str) -> bool:
    """Whether a word gives a value by name: `stride=2`, and not `stride==2`."""
    name, equals, value = word.lower().partition("=")
    return bool(equals) and is_name(name) and not value.startswith("=")


def check_parameter(name: str, place: object) -> None:
    """NetError where a parameter cannot be called so."""
    if not is_name(name) or name == PICK or name in FUNCTIONS:
        raise NetError(
            f"{place}: a parameter cannot be called `{name}`; use letters, digits and _, starting "
            "with a letter, and no function's name"
        )


def bind(block: Block, words: tuple[str, ...], given: Names, file: Names, place: object) -> Names:
    """The parameters inside a call of `block`: its own over the file's.

    `words` are the call's, evaluated where it stands, with the parameters `given` there.
    """
    values = _arguments(block, words, given, place)
    names: dict[str, Number] = dict(file)
    for name, default in block.parameters:
        if name in values:
            names[name] = values[name]
        elif default:
            names[name] = read_number(default, names, place, f"{name} ")
        else:
            raise NetError(f"{place}: block {block.name} needs {name}; call it as `{block.shown}`")
    return names


def _arguments(
    block: Block, words: tuple[str, ...], given: Names, place: object
) -> Mapping[str, Number]:
    known = [name for name, _ in block.parameters]
    values: dict[str, Number] = {}
    for index, word in enumerate(words):
        if is_assignment(word):
            name, text = assignment(word, place)
        elif index < len(known):
            name, text = known[index], word.lower()
        else:
            raise NetError(
                f"{place}: block {block.name} takes {len(known)} value(s), not {len(words)}; "
                f"call it as `{block.shown}`"
            )
        if name not in known:
            raise NetError(
                f"{place}: block {block.name} has no parameter {name}; {nearest(name, known)}"
                f"call it as `{block.shown}`"
            )
        if name in values:
            raise NetError(f"{place}: {name} is given twice to block {block.name}; keep one")
        values[name] = read_number(text, given, place, f"{name} ")
    return values


def _definition(statement: Statement, place: object) -> Block:
    words = statement.words[1:]
    if not words or len(statement.bodies) != 1 or statement.name:
        raise NetError(f"{place}: `{statement.text}` is no definition; write it as {EXAMPLE}")
    name = words[0].lower()
    if not is_name(name) or name in KIND_OF_WORD or name in STRUCTURES or name == "x":
        what = "a word of the notation" if is_name(name) else "no name"
        raise NetError(f"{place}: a block cannot be called `{name}`, which is {what}")
    parameters = tuple(_parameter(word, place) for word in words[1:])
    names = [parameter for parameter, _ in parameters]
    for parameter in names:
        check_parameter(parameter, place)
        if names.count(parameter) > 1:
            raise NetError(f"{place}: block {name} has two parameters {parameter}; rename one")
    return Block(name, parameters, statement.bodies[0], statement.line)


def _parameter(word: str, place: object) -> tuple[str, str]:
    return assignment(word, place) if "=" in word else (word.lower(), "")


def _check_order(blocks: dict[str, Block], origin: str) -> None:
    order = list(blocks)
    for block in blocks.values():
        for line, called in _calls(block.body, blocks):
            if order.index(called) >= order.index(block.name):
                raise NetError(f"{origin}:{line}: {_disorder(block, blocks[called], blocks)}")


def _disorder(block: Block, called: Block, blocks: dict[str, Block]) -> str:
    way = _way(called.name, block.name, blocks)
    if way:
        contains = ", which contains ".join(f"block {name}" for name in way)
        return (
            f"recursion: block {block.name} contains {contains}; "
            "for several in a row write `N x { … }`"
        )
    return (
        f"block {called.name} is used before it is defined (line {called.line}); "
        f"define it above block {block.name}"
    )


def _way(start: str, goal: str, blocks: dict[str, Block]) -> list[str]:
    """Blocks from `start` to `goal`, each containing the next; none if `goal` is out of reach."""
    ways, seen = [[start]], {start}
    for way in ways:
        if way[-1] == goal:
            return way
        for _, called in _calls(blocks[way[-1]].body, blocks):
            if called not in seen:
                seen.add(called)
                ways.append([*way, called])
    return []


def _calls(body: Body, blocks: Mapping[str, Block]) -> Iterator[tuple[int, str]]:
    """(line, name) of every block that is used in a body, at any depth of braces."""
    for statement in body:
        if statement.word in blocks:
            yield statement.line, statement.word
        for inner in statement.bodies:
            yield from _calls(inner, blocks)
