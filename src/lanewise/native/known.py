"""What takes long to find out, kept beside the machine code: the CPU as LLVM sees it, LLVM's
version, the hash of the engine's source.

A program that lies in the cache is loaded without LLVM by this: the library alone takes 50 ms to
load. What was found out is believed as long as everything that it came from looks the same: the
processor's description, the files of llvmlite, size and time of every source file (`stamp`). Where
the system does not describe its processor in /proc, nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from lanewise import __version__, flags
from lanewise.native.own_files import read_own, write_whole

FILE = "known.json"
ROOMS = ("net", "size", "native")
_CPUINFO = Path("/proc/cpuinfo")
#: lines of /proc/cpuinfo that say what the processor can do; others change from time to time
_ABILITIES = (
    "vendor_id", "cpu family", "model", "stepping", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features",
)  # fmt: skip


def recall(name: str) -> Any:
    """What was remembered under this name; None where nothing was, or it may have changed."""
    return _kept().get(name)


def remember(name: str, value: Any) -> None:
    """Keep a JSON-able value. A disk that does not take it is no error: it costs time only."""
    mark = stamp()
    if mark is None:
        return
    _kept()[name] = value
    with suppress(OSError, RuntimeError):
        file = flags.cache_folder() / FILE
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(file, json.dumps({"stamp": mark, **_kept()}).encode())


@lru_cache(maxsize=1)
def _kept() -> dict[str, Any]:
    with suppress(OSError, RuntimeError, ValueError):
        content = read_own(flags.cache_folder() / FILE)
        told = json.loads(content) if content else {}
        if isinstance(told, dict) and told.pop("stamp", None) == stamp() is not None:
            return told
    return {}


@lru_cache(maxsize=1)
def stamp() -> str | None:
    """A hash of all that what is kept was found out from; None where that cannot be told."""
    processor = _processor()
    if processor is None:
        return None
    try:
        files = [*_sources(), *_llvmlite()]
    except OSError:
        return None
    facts = [__version__, sys.platform, os.uname().machine, processor, *files]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _processor() -> str | None:
    """What the first processor can do, as the system tells it."""
    try:
        with _CPUINFO.open(encoding="utf-8") as file:
            first = file.read(1 << 14).split("\n\n")[0]
    except OSError:
        return None
    lines = [line for line in first.splitlines() if line.split("\t")[0].strip() in _ABILITIES]
    return "\n".join(lines) or None


def _sources() -> Iterator[str]:
    package = Path(__file__).resolve().parent.parent
    for room in ROOMS:
        yield from _listed(str(package / room))


def _listed(folder: str) -> Iterator[str]:
    """Name, size and time of every source file below the folder."""
    for item in sorted(os.scandir(folder), key=lambda one: one.name):
        if item.name.endswith(".py"):
            facts = item.stat()
            yield f"{item.path} {facts.st_size} {facts.st_mtime_ns}"
        elif item.is_dir() and item.name != "__pycache__":
            yield from _listed(item.path)


def _llvmlite() -> Iterator[str]:
    """Those of its files that every version has anew. OSError where it is not there."""
    found = PathFinder.find_spec("llvmlite")
    if found is None or found.origin is None:
        raise FileNotFoundError("llvmlite")
    for name in ("__init__.py", "_version.py"):
        file = Path(found.origin).with_name(name)
        facts = file.stat()
        yield f"{file} {facts.st_size} {facts.st_mtime_ns}"
