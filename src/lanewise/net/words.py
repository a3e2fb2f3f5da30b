"""The words of one layer → the layer, by the table `grammar`."""

from __future__ import annotations

import re
from typing import Any

from lanewise.errors import NetError
from lanewise.net.elsewhere import nearest
from lanewise.net.expression import ExpressionError, Names, evaluate, split_parts
from lanewise.net.grammar import FORMS, Form, Option, Slot
from lanewise.net.graph import Wanted
from lanewise.net.layers import Layer
from lanewise.net.unknown import Unknown
from lanewise.net.values import COUNT, UNKNOWN, WANTED, Value

_NAME = re.compile(r"[a-z_]\w*", re.ASCII)
_LETTERS = re.compile(r"[a-z_]*")


# Where `?` may stand, and what may be forgotten because only one number fits.
TO_FIND = ("kernels", "features", "kernel", "stride", "pad", "output_pad", "dilation")


def read_layer(
    kind: type[Layer], words: list[str], names: Names, place: object, forgiving: bool = False
) -> Layer:
    """The layer that its words (in lower case, its own left out) describe; `names` are the
    parameters that may stand in them. `forgiving`: a missing number becomes a forgotten `Unknown`.
    NetError: `place: …` where they cannot be read."""
    form = FORMS[kind]
    fields: dict[str, object] = {}
    rest = words[::-1]
    if form.slot:
        fields |= _read_slot(form, form.slot, rest, names, place, forgiving)
    while rest:
        field, value = _read_option(form, rest, names, place)
        if field in fields:
            raise NetError(f"{place}: {field} is given twice; keep one")
        fields[field] = value
    if UNKNOWN in "".join(words):
        fields = {field: _of(field, value, place) for field, value in fields.items()}
    _complete(form, fields, place, forgiving)
    return kind(**fields)


def read_wanted(words: list[str], names: Names, place: object) -> Wanted:
    """The shape that a `want` asks for; NetError where its words say none."""
    if len(words) != 1:
        raise NetError(f"{place}: write one shape, `want 64x112x112` or `want 400`")
    wanted: Wanted = _read_value(WANTED, words[0], names, f"{place}: want")
    return wanted


def read_number(text: str, names: Names, place: object, what: str = "") -> int | float:
    """The value of an expression; NetError: `place: what `text` …` why it has none."""
    try:
        return evaluate(text, names)
    except ExpressionError as error:
        raise NetError(f"{place}: {what}`{text}`: {error}") from None


def _of(field: str, value: object, place: object) -> object:
    """A value whose `?`s know their field; NetError where none may stand in it."""
    if isinstance(value, tuple):
        return tuple(_of(field, part, place) for part in value)
    if not isinstance(value, Unknown):
        return value
    if field not in TO_FIND:
        raise NetError(
            f"{place}: `?` cannot stand for {field}; it stands for kernels, features, the kernel's "
            "size, stride, pad, outputpad and dilation: write a number here"
        )
    return Unknown(field, value.place)


def _read_slot(
    form: Form, slot: Slot, rest: list[str], names: Names, place: object, forgiving: bool
) -> dict[str, object]:
    """Takes the value after the layer's word, if it stands there."""
    if not rest or _is_option(form, rest[-1], names):
        if forgiving and slot.fields[0] in TO_FIND:
            return {slot.fields[0]: _forgotten(slot.fields[0], slot.value)}
        if slot.required:
            raise NetError(f"{place}: needs its {slot.meaning}; write it like `{form.example}`")
        return {}
    value = _read_value(slot.value, rest.pop(), names, f"{place}: {slot.meaning}")
    return dict(zip(slot.fields, value if len(slot.fields) > 1 else [value], strict=True))


def _is_option(form: Form, word: str, names: Names) -> bool:
    """Whether a word in the place of a value is an option: `conv k5`, but not where the network
    has a parameter k5."""
    name = _NAME.match(word)
    return name is not None and name[0] not in names and _letters(word) in form.words()


def _letters(word: str) -> str:
    """What an option's word may be: `k` of `k5`, `stride` of `stride(n+1)`."""
    found = _LETTERS.match(word)
    return found[0] if found else ""


def _read_option(form: Form, rest: list[str], names: Names, place: object) -> tuple[str, object]:
    """Takes one option or flag from the end of `rest`: (field, value)."""
    word = rest.pop()
    for flag in form.flags:
        if word == flag.word:
            return flag.field, flag.sets
    name = _letters(word)
    for option in form.options:
        if name == option.word:
            return option.field, _option_value(option, word[len(name) :], rest, names, place)
    raise NetError(f"{place}: {_unknown(form, word, name)}")


def _option_value(
    option: Option, touching: str, rest: list[str], names: Names, place: object
) -> object:
    if not touching and not rest:
        raise NetError(f"{place}: {option.word} needs a value: {option.meaning}")
    return _read_value(option.value, touching or rest.pop(), names, f"{place}: {option.word}")


def _read_value(value: Value, word: str, names: Names, what: object) -> Any:
    try:
        return value.read(word)
    except ValueError as expected:
        wanted = str(expected)
    try:
        text = _evaluated(value, word, names)
    except ExpressionError as why:
        told = f": {why}" if names and any(map(str.isalpha, word)) else f"; use {wanted}"
        raise NetError(f"{what} `{word}`{told}") from None
    try:
        return value.read(text)
    except ValueError:
        told = f" is {text}" if text != word else ""
        raise NetError(f"{what} `{word}`{told}; use {wanted}") from None


def _evaluated(value: Value, word: str, names: Names) -> str:
    """The word with numbers where expressions stand: `(size)x3` → `64x3`."""
    parts = split_parts(word, value.separators) if word not in names else [word]
    return "".join(
        part
        if part and (part in value.separators or part == UNKNOWN)
        else repr(evaluate(part, names))
        for part in parts
    )


def _unknown(form: Form, word: str, name: str) -> str:
    known = form.words()
    if not known:
        return f"`{word}` is one word too many; write just `{form.example}`"
    return (
        f"unknown option `{word}`; {nearest(name, known)}"
        f"it takes {', '.join(known)}, like `{form.example}`"
    )


def _forgotten(field: str, value: Value) -> object:
    """What stands where the text says nothing."""
    unknown = Unknown(field, 0, forgotten=True)
    return unknown if value is COUNT else (unknown, unknown)


def _complete(form: Form, fields: dict[str, object], place: object, forgiving: bool) -> None:
    """Fills what the text leaves to another field; requires what it must say."""
    for option in form.options:
        if option.field in fields:
            continue
        if option.required and forgiving and option.field in TO_FIND:
            fields[option.field] = _forgotten(option.field, option.value)
        elif option.required:
            raise NetError(f"{place}: needs {option.word}, {option.meaning}: `{form.example}`")
        if option.like:
            fields[option.field] = fields[option.like]
