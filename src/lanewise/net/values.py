"""The values of the notation, each as a pair of functions: word of the text ↔ value.

    6          count      a number of things
    5, 3x5     pair       height × width
    1x28x28    triple     channels × height × width
    2, 2x1, 1:2x0:1, same, valid   pad   height × width, each side alike or begin:end
    0.5        real       a decimal number
    8:8        ends       before : after
    0,1/1,2    table      for each kernel the maps it reads
    ?x112x112  wanted     a shape or a number of features, ? where any will do

A `?` may stand for each number of a count, a pair or a pad: a number to be found (`Unknown`).

A reader raises ValueError with what it expected; whether a number makes sense for its layer is the
business of `check`. Where a value has parts, `separators` says what may stand between them, so that
each part may be an expression of parameters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lanewise.net.graph import Wanted
from lanewise.net.layers import Pad, Pair, Sides
from lanewise.net.unknown import Unknown

UNKNOWN = "?"
_INTEGER = re.compile(r"-?\d{1,12}")
_SIDES = "a number like 2, height x width like 2x1, top:bottom x left:right like 1:2x0:1"
_WANTED = "channels x height x width like 64x112x112 or ?x112x112, or a number of features like 400"
_REAL = re.compile(r"-?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?")


@dataclass(frozen=True)
class Value:
    """How one sort of value is read (ValueError: what was expected) and shown."""

    read: Callable[[str], Any]
    show: Callable[[Any], str]
    separators: str = ""


def _integer(text: str, expects: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError(expects)
    return int(text)


def _number(text: str, expects: str, place: int) -> Any:
    """A whole number, or the unknown one of this place."""
    return Unknown("", place) if text == UNKNOWN else _integer(text, expects)


def _read_count(text: str) -> Any:
    return _number(text, "a whole number like 6", 0)


def _read_pair(text: str) -> Pair:
    expects = "a number like 3, or height x width like 3x5"
    numbers = [_number(part, expects, place) for place, part in enumerate(text.split("x"))]
    if len(numbers) > 2:
        raise ValueError(expects)
    return numbers[0], numbers[-1]


def _show_pair(pair: Pair) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"


def _read_triple(text: str) -> tuple[int, int, int]:
    expects = "channels x height x width like 3x64x64"
    parts = text.split("x")
    if len(parts) != 3:
        raise ValueError(expects)
    channels, height, width = (_integer(part, expects) for part in parts)
    return channels, height, width


def _show_triple(triple: tuple[int, int, int]) -> str:
    return "x".join(map(str, triple))


def _read_pad(text: str) -> Pad:
    if text == "same":
        return "same"
    if text == "valid":
        return "valid"
    return _sides(text, f"{_SIDES}, same or valid")


def _read_sides(text: str) -> Sides:
    return _sides(text, _SIDES)


def _sides(text: str, expects: str) -> Sides:
    axes = [_read_side(part, expects, 2 * axis) for axis, part in enumerate(text.split("x"))]
    if len(axes) > 2:
        raise ValueError(expects)
    return axes[0], axes[-1]


def _read_side(text: str, expects: str, place: int = 0) -> Pair:
    numbers = [_number(part, expects, place + i) for i, part in enumerate(text.split(":"))]
    if len(numbers) > 2:
        raise ValueError(expects)
    return numbers[0], numbers[-1]


def _show_pad(pad: Pad) -> str:
    if isinstance(pad, str):
        return pad
    height, width = (str(a) if a == b else f"{a}:{b}" for a, b in pad)
    return height if pad[0] == pad[1] else f"{height}x{width}"


def _read_real(text: str) -> float:
    if not _REAL.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError("a number like 0.5")
    return float(text)


def _show_real(number: float) -> str:
    """The shortest text that reads back as this number, small ones without an exponent."""
    text = repr(number)
    plain = f"{number:.9f}".rstrip("0")
    return plain if "e-" in text and float(plain) == number else text


def _read_ends(text: str) -> Pair:
    return _read_side(text, "before:after like 8:8")


def _show_ends(ends: Pair) -> str:
    return f"{ends[0]}:{ends[1]}"


def _read_table(text: str) -> tuple[tuple[int, ...], ...]:
    expects = "the maps of each kernel like 0,1,2/1,2,3"
    rows = [row.split(",") for row in text.split("/")]
    return tuple(tuple(_integer(part, expects) for part in row) for row in rows)


def _read_wanted(text: str) -> Wanted:
    parts = text.split("x")
    if len(parts) not in (1, 3):
        raise ValueError(_WANTED)
    return tuple(None if part == UNKNOWN else _integer(part, _WANTED) for part in parts)


def _show_wanted(wanted: Wanted) -> str:
    return "x".join(UNKNOWN if part is None else str(part) for part in wanted)


def _show_table(table: tuple[tuple[int, ...], ...]) -> str:
    return "/".join(",".join(map(str, row)) for row in table)


COUNT = Value(_read_count, str)
PAIR = Value(_read_pair, _show_pair, "x")
TRIPLE = Value(_read_triple, _show_triple, "x")
PAD = Value(_read_pad, _show_pad, "x:")
SIDES = Value(_read_sides, _show_pad, "x:")
REAL = Value(_read_real, _show_real)
ENDS = Value(_read_ends, _show_ends, ":")
TABLE = Value(_read_table, _show_table)
WANTED = Value(_read_wanted, _show_wanted, "x")
