"""The zoo: one file a family, `variant` lines for its members, a comment for its source.

    # He, Zhang, Ren, Sun: Deep residual learning for image recognition (2015)
    parameters n=3
    variant resnet20 n=3
    variant resnet56 n=9

Such a file is several networks of the zoo, each of them the same text with other parameters. A
comment of this form on a `variant` line says that this one is from elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from lanewise.errors import NetError
from lanewise.net.blocks import assignment
from lanewise.net.elsewhere import nearest

ZOO = os.path.join(os.path.dirname(__file__), "zoo")

# `Authors: Title (1998)`: no sentence ends in it, and no bracket stands before the year.
_SOURCE = re.compile(
    r"(?:^|; )((?:(?!\.\s)[^:;()\n])+: (?:(?!\.\s)[^();])+?)\s\((\d{4})\)", re.MULTILINE
)


@dataclass(frozen=True)
class Published:
    """A network of the zoo: its name, its family (the file's name), what the variant sets, and
    where it was published (`Authors: Title`)."""

    name: str
    family: str
    settings: dict[str, str] = field(default_factory=dict)
    year: int = 0
    paper: str = ""


def zoo() -> list[Published]:
    """The published networks that come with Lanewise, family by family."""
    return [entry for family in _families() for entry in read_family(family)]


def zoo_names() -> list[str]:
    """Their names, sorted."""
    return sorted(entry.name for entry in zoo())


def read_family(family: str) -> list[Published]:
    """The networks of one file, in its order: its variants, or itself if it has none."""
    return _members(family, _text(family))


def zoo_entry(name: str) -> Published | None:
    """The network of the zoo with this name, in which `_` and `.` count as `-`; a family's own name
    stands for its parameters as they are written. None if there is none."""
    wanted, families = _plain(name), _families()
    # A file of that name is read first, and only those that have the name somewhere are parsed.
    for family in sorted(families, key=lambda family: _plain(family) != wanted):
        text = _text(family)
        if wanted not in _plain(f"{family} {text}"):
            continue
        entries = _members(family, text)
        for entry in entries:
            if _plain(entry.name) == wanted:
                return entry
        if _plain(family) == wanted:
            return Published(family, family, {}, entries[0].year, entries[0].paper)
    return None


def published(name: str) -> tuple[int, str]:
    """(year, `Authors: Title`) of a network of the zoo; (0, "") if its file does not say."""
    entry = zoo_entry(name)
    return (entry.year, entry.paper) if entry else (0, "")


def set_parameters(text: str, settings: dict[str, str], name: str) -> str:
    """The text with other values in its `parameters` line and without its variants, so that it
    stands alone; their lines stay, empty, so that a message names the line of the file. NetError
    where it has no such parameter."""
    left = dict(settings)
    lines = [
        "" if _is_variant(line) else _set_line(line, settings, left) for line in text.split("\n")
    ]
    for key in left:
        known = list(parameters_of(text))
        told = f"its parameters are {', '.join(known)}" if known else "it has none to set"
        raise NetError(f"{name}: no parameter {key}; {nearest(key, known)}{told}")
    return "\n".join(lines)


def parameters_of(text: str) -> Iterator[str]:
    """The names of the parameters that a text may be given."""
    for line in text.split("\n"):
        if _begins(line, "parameters"):
            for word in _words(line)[1:]:
                yield word.partition("=")[0].lower()


def _families() -> list[str]:
    return sorted(name.removesuffix(".net") for name in os.listdir(ZOO) if name.endswith(".net"))


def _text(family: str) -> str:
    with open(os.path.join(ZOO, f"{family}.net"), encoding="utf-8") as file:
        return file.read()


def _members(family: str, text: str) -> list[Published]:
    source = _source(_comments(text))
    variants = [_variant(line, family, *source) for line in text.split("\n") if _is_variant(line)]
    return variants or [Published(family, family, {}, *source)]


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(".", "-")


def _variant(line: str, family: str, year: int, paper: str) -> Published:
    _, name, *words = _words(line)
    settings = dict(assignment(word, f"{family}: {name}") for word in words)
    own_year, own_paper = _source(line.partition("#")[2].strip())
    return Published(name, family, settings, own_year or year, own_paper or paper)


def _set_line(line: str, settings: dict[str, str], left: dict[str, str]) -> str:
    """A line as it is, or with other values where it is one of parameters."""
    if not _begins(line, "parameters"):
        return line
    code, mark, comment = line.partition("#")
    words = code.split(" ")
    for index, word in enumerate(words):
        key = word.partition("=")[0].lower()
        if "=" in word and key in settings:
            words[index] = f"{key}={settings[key]}"
            left.pop(key, None)
    return " ".join(words) + mark + comment


def _source(comment: str) -> tuple[int, str]:
    """(year, paper) that a comment tells, its lines without their `#`."""
    found = _SOURCE.search(comment)
    return (int(found[2]), " ".join(found[1].split())) if found else (0, "")


def _comments(text: str) -> str:
    """What the comments at the top of a file say, line by line."""
    lines = []
    for line in text.split("\n"):
        if line.strip() and not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return "\n".join(lines)


def _is_variant(line: str) -> bool:
    return _begins(line, "variant")


def _begins(line: str, word: str) -> bool:
    return line.lower().split("#")[0].split()[:1] == [word]


def _words(line: str) -> list[str]:
    return line.split("#")[0].split()
