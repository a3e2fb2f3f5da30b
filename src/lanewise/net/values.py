"""The values of the notation, each as a pair of functions: word of the text ↔ value.

    6          count      a number of things
    5, 3x5     pair       height × width
    1x28x28    triple     channels × height × width
    2, 2x1, 1:2x0:1, same, valid   pad   height × width, each side alike or begin:end
    0.5        real       a decimal number

A reader raises ValueError with what it expected; whether a number makes sense for its layer is the
business of `check`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lanewise.net.layers import Pad, Pair

_INTEGER = re.compile(r"-?\d{1,12}")
_REAL = re.compile(r"-?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?")


@dataclass(frozen=True)
class Value:
    """How one sort of value is read (ValueError: what was expected) and shown."""

    read: Callable[[str], Any]
    show: Callable[[Any], str]


def _integer(text: str, expects: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError(expects)
    return int(text)


def _read_count(text: str) -> int:
    return _integer(text, "a whole number like 6")


def _read_pair(text: str) -> Pair:
    expects = "a number like 3, or height x width like 3x5"
    numbers = [_integer(part, expects) for part in text.split("x")]
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
    expects = "a number like 2, height x width like 2x1, top:bottom x left:right like 1:2x0:1, "
    expects += "same or valid"
    axes = [_read_side(part, expects) for part in text.split("x")]
    if len(axes) > 2:
        raise ValueError(expects)
    return axes[0], axes[-1]


def _read_side(text: str, expects: str) -> Pair:
    numbers = [_integer(part, expects) for part in text.split(":")]
    if len(numbers) > 2:
        raise ValueError(expects)
    return numbers[0], numbers[-1]


def _show_pad(pad: Pad) -> str:
    if isinstance(pad, str):
        return pad
    height, width = (str(a) if a == b else f"{a}:{b}" for a, b in pad)
    return height if height == width else f"{height}x{width}"


def _read_real(text: str) -> float:
    if not _REAL.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError("a number like 0.5")
    return float(text)


COUNT = Value(_read_count, str)
PAIR = Value(_read_pair, _show_pair)
TRIPLE = Value(_read_triple, _show_triple)
PAD = Value(_read_pad, _show_pad)
REAL = Value(_read_real, repr)
