"""Text → statements: what stands where, before anything is known of its meaning.

A statement is a row of words, perhaps with a name before a colon, perhaps with bodies in braces:

    c1: conv 6 k5 pad2                      words: conv, 6, k5, pad2; name: c1
    residual { conv 8 k3 pad1; relu } { }   words: residual; two bodies

Statements end at the end of their line, at `;`, and where a brace closes around them. A brace may
also open on a line of its own. `#` begins a comment.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from lanewise.errors import NetError

# Far more than any network nests; Python's own stack stands behind it.
DEEPEST = 40


@dataclass(frozen=True)
class Statement:
    """What stands between two ends: line of the text (1…), given name or "", words as written, the
    first of them also in lower case."""

    line: int
    name: str
    word: str
    words: tuple[str, ...]
    bodies: tuple[Body, ...] = ()

    @property
    def text(self) -> str:
        """Its words again, for messages."""
        return " ".join(self.words)


# What stands between two braces, or the whole text.
Body: TypeAlias = tuple[Statement, ...]


@dataclass
class _Open:
    """A statement being read: its own words, and the bodies of it that are closed already."""

    line: int
    words: list[str]
    bodies: list[Body] = field(default_factory=list)


@dataclass
class _Level:
    """Between two braces (0: the text itself): the statements that ended, and the open one."""

    line: int
    ended: list[Statement] = field(default_factory=list)
    open: _Open | None = None


def read_source(text: str, origin: str) -> Body:
    """The statements of a text; NetError with the line where braces or names do not fit."""
    reader = _Reader(origin)
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        code = line.split("#", 1)[0]
        if code and not code.isspace():
            reader.line(number, code)
    return reader.end()


class _Reader:
    """Takes the text line by line; `levels` are the braces that are open, the text itself first."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._levels = [_Level(0)]

    def line(self, number: int, code: str) -> None:
        for mark in "{};":
            if mark in code:
                code = code.replace(mark, f" {mark} ")
        fresh = True  # the next word begins a statement
        for word in code.split():
            if word == "{":
                self._begin(number)
            elif word == "}":
                self._close(number)
            elif word == ";":
                self._end_statement()
            else:
                self._word(number, word, fresh)
            fresh = word in ("{", ";")

    def end(self) -> Body:
        if len(self._levels) > 1:
            raise self._wrong(self._levels[-1].line, "this `{` is never closed; add a `}`")
        self._end_statement()
        return tuple(self._levels[0].ended)

    def _word(self, number: int, word: str, fresh: bool) -> None:
        if fresh:
            self._end_statement()
        level = self._levels[-1]
        if level.open is None:
            level.open = _Open(number, [])
        elif level.open.bodies:
            told = f"`{word}` stands right behind `}}`; put `;` or a new line between"
            raise self._wrong(number, told)
        level.open.words.append(word)

    def _begin(self, number: int) -> None:
        if self._levels[-1].open is None:
            told = "`{` without a word before it; write `residual {`, `concat {` or `3 x {`"
            raise self._wrong(number, told)
        if len(self._levels) > DEEPEST:
            raise self._wrong(number, f"braces in braces {len(self._levels)} deep; use blocks")
        self._levels.append(_Level(number))

    def _close(self, number: int) -> None:
        if len(self._levels) == 1:
            raise self._wrong(number, "this `}` closes nothing; remove it, or add the `{` before")
        self._end_statement()
        body = tuple(self._levels.pop().ended)
        around = self._levels[-1].open
        assert around is not None, "a brace only opens behind a statement"
        around.bodies.append(body)

    def _end_statement(self) -> None:
        level = self._levels[-1]
        if level.open is not None:
            level.ended.append(self._statement(level.open))
            level.open = None

    def _statement(self, read: _Open) -> Statement:
        name, words = _split_name(read.words)
        if name is not None and not (name and words):
            raise self._wrong(
                read.line,
                f"`{' '.join(read.words)}` needs a name, a colon and a layer, like `c1: conv 6 k5`",
            )
        return Statement(read.line, name or "", words[0].lower(), words, tuple(read.bodies))

    def _wrong(self, line: int, told: str) -> NetError:
        return NetError(f"{self._origin}:{line}: {told}")


def _split_name(words: list[str]) -> tuple[str | None, tuple[str, ...]]:
    """(name before the colon, words behind it); the name is None where no colon ends a name."""
    if ":" in words[0]:
        name, _, rest = words[0].partition(":")
        return name, ((rest, *words[1:]) if rest else tuple(words[1:]))
    # A colon also stands in `pad 1:2`: it ends a name only where a single word is before it.
    if len(words) > 1 and words[1].startswith(":"):
        rest = words[1].removeprefix(":")
        return words[0], ((rest, *words[2:]) if rest else tuple(words[2:]))
    return None, tuple(words)
