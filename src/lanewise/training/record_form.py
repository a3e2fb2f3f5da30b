"""The form of run.json: what every entry holds, so that a damaged one is named.

`problem(record)` walks the record along `FORM`: a dict names the entries there must be (others may
stand beside them), a list of one form means a list of such values, a `Kind` is a plain value. What
the recipe and the preprocessing mean is checked by their own classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Kind:
    """A plain value: what it is called, and whether a value is one."""

    name: str
    holds: Callable[[Any], bool]


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


TEXT = Kind("text", lambda value: type(value) is str)
WHOLE = Kind("a whole number", _is_whole)
NUMBER = Kind("a number", _is_number)
ENTRIES = Kind("entries", lambda value: type(value) is dict)
TEXT_OR_NULL = Kind("text or null", lambda value: value is None or type(value) is str)
NUMBER_OR_NULL = Kind("a number or null", lambda value: value is None or _is_number(value))
ENTRIES_OR_NULL = Kind("entries or null", lambda value: value is None or type(value) is dict)

FORM: dict[str, Any] = {
    "lanewise": TEXT,
    "status": TEXT,
    "created": TEXT,
    "net": {"name": TEXT, "params": WHOLE, "notes": [TEXT]},
    "data": {
        "name": TEXT,
        "spec": TEXT_OR_NULL,
        "fingerprint": TEXT,
        "images": ENTRIES,
        "split": {"seed": WHOLE, "val_fraction": NUMBER_OR_NULL, "test_fraction": NUMBER_OR_NULL},
        "summary": [TEXT],
    },
    "class_names": [TEXT],
    "preprocessing": {
        "channels": WHOLE,
        "height": WHOLE,
        "width": WHOLE,
        "background": [WHOLE],
        "mean": [NUMBER],
        "std": [NUMBER],
    },
    "skipped": ENTRIES,
    "recipe": ENTRIES,
    "machine": ENTRIES,
    "result": ENTRIES_OR_NULL,
}


def problem(value: Any, form: Any = FORM, place: str = "") -> str:
    """What is wrong first, like `data.split.seed is missing`, or ""."""
    if isinstance(form, Kind):
        return "" if form.holds(value) else f"{place} is no {form.name.removeprefix('a ')}"
    if isinstance(form, list):
        if type(value) is not list:
            return f"{place} is no list"
        found = (problem(item, form[0], f"{place}[{i}]") for i, item in enumerate(value))
        return next(filter(None, found), "")
    if type(value) is not dict:
        return f"{place} has no entries"
    for name, inner in form.items():
        path = f"{place}.{name}" if place else name
        wrong = problem(value[name], inner, path) if name in value else f"{path} is missing"
        if wrong:
            return wrong
    return ""
