"""Values that several verbs read from the command line, each refused with what it should be."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError

from lanewise.net.layers import Input
from lanewise.net.values import TRIPLE

_MOST_DIGITS = 40
PRECISION = "of maps and products: fp32, or bf16"


def count(text: str) -> int:
    """A whole number from 1."""
    if not _is_whole(text) or int(text) < 1:
        raise ArgumentTypeError(f"`{_short(text)}`; use a whole number from 1")
    return int(text)


def place(text: str) -> str:
    """The name of a folder: an empty one is a script's variable that was never set."""
    if not text:
        raise ArgumentTypeError("the name is empty; give a folder, or leave the option out")
    return text


def number(text: str) -> int:
    """A whole number from 0."""
    if not _is_whole(text):
        raise ArgumentTypeError(f"`{_short(text)}`; use a whole number from 0")
    return int(text)


def rate(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ArgumentTypeError(f"`{text}`; use a number above 0, such as 0.1")
    return value


def share(text: str) -> float:
    """A finite number from 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ArgumentTypeError(f"`{text}`; use 0 or more, such as 0.1")
    return value


def precision(text: str) -> str:
    """How numbers between layers are kept."""
    from lanewise.native.precisions import PRECISIONS

    if text not in PRECISIONS:
        raise ArgumentTypeError(f"`{text}`; use {' or '.join(PRECISIONS)}")
    return text


def image(text: str) -> Input:
    """The size of an image: channels x height x width."""
    try:
        return Input(*TRIPLE.read(text.lower()))
    except ValueError as expected:
        raise ArgumentTypeError(f"`{text}`; use {expected}") from None


def _is_whole(text: str) -> bool:
    """Digits alone, and no more of them than any number here could need."""
    return text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS


def _short(text: str) -> str:
    return text if len(text) <= _MOST_DIGITS else f"{text[:_MOST_DIGITS]}…"
