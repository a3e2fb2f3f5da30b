"""Text → graph: statements, then one layer each, then the structure rules.

    # a comment reaches to the end of its line
    input 1x28x28
    c1: conv 6 k5 pad2; relu        # `name:` names a layer, `;` may stand for a line end

Layers without a name get their word and their number among their kind: conv1, relu1, conv2 …
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from lanewise.errors import NetError
from lanewise.net.check import check
from lanewise.net.grammar import ELSEWHERE, FORMS, KIND_OF_WORD, Form, Option, Slot
from lanewise.net.graph import Graph, Node
from lanewise.net.layers import Input, Layer


@dataclass(frozen=True)
class Statement:
    """One layer as it is written: line of the text (1…), given name or "", words in lower case."""

    line: int
    name: str
    words: tuple[str, ...]


def parse(text: str, origin: str = "net") -> Graph:
    """The network that `text` describes; NetError with place, values and remedy where it cannot be
    read. `origin` is what errors call the text: a file's path, or "net"."""
    nodes: list[Node] = []
    ordinals: Counter[type[Layer]] = Counter()
    for statement in _statements(text, origin):
        kind = _kind(statement, origin)
        ordinals[kind] += 1
        name = statement.name or default_name(kind, ordinals[kind])
        layer = _layer(kind, statement.words[1:], f"{origin}:{statement.line} {name}")
        inputs = (nodes[-1].name,) if nodes and kind is not Input else ()
        nodes.append(Node(name, layer, inputs, statement.line))
    return check(Graph(tuple(nodes), origin))


def default_name(kind: type[Layer], ordinal: int) -> str:
    """The name of the `ordinal`-th layer (1…) of its kind where the text gives none."""
    return kind.word if kind is Input else f"{kind.word}{ordinal}"


def _statements(text: str, origin: str) -> Iterator[Statement]:
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        for part in line.split("#")[0].split(";"):
            if part.strip():
                yield _statement(part, number, origin)


def _statement(part: str, line: int, origin: str) -> Statement:
    head, colon, rest = part.partition(":")
    # A colon also stands in `pad 1:2`: it ends a name only where a single word is before it.
    if not colon or len(head.split()) > 1:
        return Statement(line, "", tuple(part.lower().split()))
    name = head.strip()
    if not name or not rest.strip():
        raise NetError(
            f"{origin}:{line}: `{part.strip()}` needs a name, a colon and a layer, "
            "like `c1: conv 6 k5`"
        )
    return Statement(line, name, tuple(rest.lower().split()))


def _kind(statement: Statement, origin: str) -> type[Layer]:
    word = statement.words[0]
    if word in KIND_OF_WORD:
        return KIND_OF_WORD[word]
    place = f"{origin}:{statement.line}" + (f" {statement.name}" if statement.name else "")
    known = list(KIND_OF_WORD)
    raise NetError(
        f"{place}: unknown layer `{word}`; {nearest(word, known)}the layers are {', '.join(known)}"
    )


def nearest(word: str, known: list[str]) -> str:
    """`did you mean …? ` with the known word closest to `word`, or "" if none is close."""
    import difflib  # only for errors, and slow to import

    elsewhere = ELSEWHERE.get(word)
    if elsewhere in known:
        return f"did you mean `{elsewhere}`? "
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean `{close[0]}`? " if close else ""


def _layer(kind: type[Layer], words: tuple[str, ...], place: str) -> Layer:
    form = FORMS[kind]
    fields: dict[str, object] = {}
    rest = list(words)
    if form.slot:
        fields |= _read_slot(form, form.slot, rest, place)
    while rest:
        field, value = _read_option(form, rest, place)
        if field in fields:
            raise NetError(f"{place}: {field} is given twice; keep one")
        fields[field] = value
    _complete(form, fields, place)
    return kind(**fields)


def _read_slot(form: Form, slot: Slot, rest: list[str], place: str) -> dict[str, object]:
    """Takes the value after the layer's word, if it stands there."""
    if not rest or rest[0][0].isalpha():
        if slot.required:
            raise NetError(f"{place}: needs its {slot.meaning}; write it like `{form.example}`")
        return {}
    word = rest.pop(0)
    try:
        value = slot.value.read(word)
    except ValueError as expected:
        raise NetError(f"{place}: {slot.meaning} `{word}`; use {expected}") from None
    return dict(zip(slot.fields, value if len(slot.fields) > 1 else [value], strict=True))


def _read_option(form: Form, rest: list[str], place: str) -> tuple[str, object]:
    """Takes one option or flag from the front of `rest`: (field, value)."""
    word = rest.pop(0)
    for flag in form.flags:
        if word == flag.word:
            return flag.field, flag.sets
    name = word.rstrip("0123456789:x-.") if word[-1].isdigit() else word
    for option in form.options:
        if name == option.word:
            return option.field, _option_value(option, word.removeprefix(name), rest, place)
    raise NetError(f"{place}: {_unknown(form, word, name)}")


def _option_value(option: Option, touching: str, rest: list[str], place: str) -> object:
    if not touching and not rest:
        raise NetError(f"{place}: {option.word} needs a value: {option.meaning}")
    word = touching or rest.pop(0)
    try:
        return option.value.read(word)
    except ValueError as expected:
        raise NetError(f"{place}: {option.word} `{word}`; use {expected}") from None


def _unknown(form: Form, word: str, name: str) -> str:
    known = form.words()
    if not known:
        return f"`{word}` is one word too many; write just `{form.example}`"
    return (
        f"unknown option `{word}`; {nearest(name, known)}"
        f"it takes {', '.join(known)}, like `{form.example}`"
    )


def _complete(form: Form, fields: dict[str, object], place: str) -> None:
    """Fills what the text leaves to another field; requires what it must say."""
    for option in form.options:
        if option.field in fields:
            continue
        if option.required:
            raise NetError(f"{place}: needs {option.word}, {option.meaning}: `{form.example}`")
        if option.like:
            fields[option.field] = fields[option.like]
