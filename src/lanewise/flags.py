"""The environment variables of Lanewise: the only place that reads them.

A flag has a name, a default, the values it may take and one line of meaning; `value(name)` gives
the checked value: an `int` for the numeric flags, a `str` for the others ("" = not set).

    LANEWISE_TARGET=avx2 LANEWISE_DEBUG=3 lanewise train lenet5 …

May import: errors and the standard library.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, overload

from lanewise.errors import LanewiseError

NumberName: TypeAlias = Literal["LANEWISE_THREADS", "LANEWISE_CHECK", "LANEWISE_DEBUG"]
TextName: TypeAlias = Literal["LANEWISE_TARGET", "LANEWISE_CACHE", "LANEWISE_DATA"]

# The engine's words have places for this many (`native/driver.py`).
MOST_THREADS = 1024


@dataclass(frozen=True)
class Flag:
    """One environment variable.

    `allowed`: the words it may be, a range of whole numbers, or None for any text (a folder).
    """

    name: str
    default: str | int
    allowed: tuple[str, ...] | range | None
    meaning: str

    @property
    def allowed_text(self) -> str:
        """The permitted values as words for a message."""
        if self.allowed is None:
            return "a folder"
        if isinstance(self.allowed, range):
            return f"a whole number, {self.allowed[0]} to {self.allowed[-1]}"
        return ", ".join(self.allowed)


FLAGS: dict[str, Flag] = {
    flag.name: flag
    for flag in (
        Flag(
            "LANEWISE_TARGET",
            "host",
            ("host", "avx512", "avx2", "neon"),
            "instruction set to compile for (host: what this CPU has)",
        ),
        Flag(
            "LANEWISE_THREADS",
            0,
            range(MOST_THREADS + 1),
            "threads of the engine (0: one for each core)",
        ),
        Flag(
            "LANEWISE_CACHE",
            "",
            None,
            "folder of compiled kernels and decoded images (default: the user's cache)",
        ),
        Flag("LANEWISE_DATA", "", None, "folder where data sets are looked for first"),
        Flag("LANEWISE_CHECK", 1, range(2), "1: prove every kernel right before compiling it"),
        Flag(
            "LANEWISE_DEBUG",
            0,
            range(7),
            "print on the way: 1 plan, 2 kernels, 3 nests, 4 LLVM IR, 5 assembly, 6 all",
        ),
    )
}


@overload
def value(name: NumberName, environment: Mapping[str, str] | None = None) -> int: ...
@overload
def value(name: TextName, environment: Mapping[str, str] | None = None) -> str: ...
def value(name: str, environment: Mapping[str, str] | None = None) -> str | int:
    """The flag's value: from `environment` (that of the process), or its default.

    An empty variable counts as not set. Raises LanewiseError for a value that is not allowed.
    """
    flag = FLAGS[name]
    text = (os.environ if environment is None else environment).get(name, "").strip()
    if not text or flag.allowed is None:
        return text or flag.default
    if isinstance(flag.allowed, range):
        if text.isascii() and text.isdigit() and int(text) in flag.allowed:
            return int(text)
    elif text.lower() in flag.allowed:
        return text.lower()
    raise LanewiseError(f"{name}={text}: not allowed; it may be {flag.allowed_text}. Or unset it.")


def check_environment(environment: Mapping[str, str] | None = None) -> None:
    """Raise LanewiseError for a LANEWISE_… variable with an unknown name or a wrong value."""
    names = os.environ if environment is None else environment
    for name in names:
        if name in FLAGS:
            value(name, environment)  # type: ignore[call-overload]
        elif name.startswith("LANEWISE_"):
            from difflib import get_close_matches  # only for errors, and slow to import

            near = get_close_matches(name, FLAGS, 1)
            remedy = f"did you mean {near[0]}?" if near else f"there are {', '.join(FLAGS)}."
            raise LanewiseError(f"{name}: no such variable; {remedy}")


def describe() -> str:
    """All flags as aligned lines: name, default, allowed values, meaning below."""
    width = max(map(len, FLAGS))
    lines = []
    for flag in FLAGS.values():
        default = "" if flag.default == "" else f" (default {flag.default})"
        lines.append(f"{flag.name:<{width}}  {flag.allowed_text}{default}")
        lines.append(f"{'':<{width}}  {flag.meaning}")
    return "\n".join(lines)


def cache_folder() -> Path:
    """LANEWISE_CACHE, or the folder where this platform keeps what can be made again.

    Machine code lies below it in `code`, decoded images in `data`.

    Raises RuntimeError where the user has no home folder.
    """
    asked = value("LANEWISE_CACHE")
    if asked:
        return Path(asked).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "lanewise"
    if os.name == "nt":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "lanewise"
    # A relative XDG_CACHE_HOME is to be ignored (XDG Base Directory specification 0.8).
    asked = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(asked) if os.path.isabs(asked) else Path.home() / ".cache") / "lanewise"
