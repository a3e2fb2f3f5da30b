"""Machine code on disk: compiled once on a machine, read back in a millisecond ever after.

One file per entry, named by its key (`fingerprint`): a header of magic, sha256 of all that
follows and the length of the JSON part; the JSON part (the metadata and the lengths of the
objects); the objects. A file is written beside its place and renamed into it, so a reader sees a
whole entry or none, and of two processes that race the last one wins with the same content.

The file is not fsynced: an entry torn by a power failure fails its checksum, is deleted and is
built again, which costs less than the wait for the disk at every compile.

A cache that cannot be read or written is no error: one line on stderr says so, and the engine
compiles each time. Code from here is executed, so an entry is trusted only where it belongs to
this user (or root) and nobody else may write it.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from lanewise import __version__, flags
from lanewise.native import known
from lanewise.native.own_files import UNFINISHED, read_own, write_whole
from lanewise.native.target import Target

FORMAT = 1
LARGEST_CACHE = 512 * 2**20
_MAGIC = b"LWCODE" + struct.pack("<H", FORMAT)
_HEADER = struct.Struct("<8s32sQ")
_SUFFIX = ".lwcode"
_ABANDONED_SECONDS = 3600.0


@dataclass(frozen=True)
class Entry:
    """What one compilation leaves behind: object files to load, and JSON-able facts about them."""

    objects: tuple[bytes, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)


# ---- the key ------------------------------------------------------------------------------------


def fingerprint(graph_text: str, options: Mapping[str, Any], target: Target) -> str:
    """The key of a compilation: sha256 over everything that its machine code depends on.

    `graph_text` is the canonical text of the net; `options` are JSON-able. The CPU and its
    features, the versions of llvmlite and LLVM, and the engine's own source are added here.
    """
    llvmlite, llvm = _versions()
    facts = {
        "format": FORMAT,
        "net": graph_text,
        "options": dict(options),
        "target": asdict(target),
        "llvmlite": llvmlite,
        "llvm": llvm,
        "engine": engine_hash(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _versions() -> tuple[str, list[int]]:
    """Of llvmlite and of LLVM; without loading them where they are known."""
    told = None if "llvmlite.binding" in sys.modules else known.recall("llvm")
    if told:
        return told[0], told[1]
    import llvmlite
    from llvmlite.binding import llvm_version_info

    found = llvmlite.__version__, list(llvm_version_info)
    if known.recall("llvm") is None:
        known.remember("llvm", found)
    return found


@lru_cache(maxsize=1)
def engine_hash() -> str:
    """sha256 over the source of the rooms that decide the code: net, size and native."""
    told = known.recall("engine")
    if told:
        return str(told)
    package = Path(__file__).resolve().parent.parent
    found = hash_sources([package / room for room in known.ROOMS])
    known.remember("engine", found)
    return found


def hash_sources(folders: Sequence[Path]) -> str:
    """sha256 over names and contents of all Python files below the folders, and the version.

    The version alone stands for the engine where it was installed without its source.
    """
    digest = hashlib.sha256(__version__.encode())
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            content = file.read_bytes()
            digest.update(f"\n{file.relative_to(folder.parent)} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


# ---- the cache ----------------------------------------------------------------------------------


class MachineCodeCache:
    """A folder of entries. No method raises for the state of the disk: that costs time only."""

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, largest: int = LARGEST_CACHE
    ) -> None:
        """`folder` replaces the user's cache folder; it is made at the first `put`. `largest` is
        the bytes that all entries together may take."""
        self._largest = largest
        self.folder: Path | None = None
        try:
            self.folder = Path(folder) if folder is not None else flags.cache_folder() / "code"
        except RuntimeError:
            _warn_once("no home folder: machine code is not kept (set LANEWISE_CACHE to a folder).")

    def get(self, key: str) -> Entry | None:
        """The entry, or None where there is none, it is damaged (it is then deleted), or it
        could have been written by somebody else."""
        if self.folder is None:
            return None
        path = self._path(key)
        try:
            content = read_own(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._warn("read", error)
            return None
        if content is None:
            return None
        entry = unpack(content)
        with suppress(OSError):
            if entry is None:
                path.unlink()
            else:
                os.utime(path)  # so that the oldest is the one longest unused
        return entry

    def put(self, key: str, entry: Entry) -> None:
        """Keep the entry, and drop the longest unused ones where the folder grows too large."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(self._path(key), pack(entry))
        except OSError as error:
            # Windows does not replace a file that another process is reading: it is the same one.
            if not (os.name == "nt" and self._path(key).exists()):
                self._warn("write", error)
            return
        with suppress(OSError):
            self._evict(self._path(key))

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / (key + _SUFFIX)

    def _warn(self, what: str, error: OSError) -> None:
        reason = error.strerror or str(error)
        _warn_once(
            f"cannot {what} the cache of machine code in {self.folder} ({reason}): "
            "compiling without it (set LANEWISE_CACHE to another folder)."
        )

    def _evict(self, newest: Path) -> None:
        """Delete unfinished files that were abandoned, then the oldest entries over the bound."""
        assert self.folder is not None
        entries: list[tuple[float, int, str]] = []
        for item in os.scandir(self.folder):
            with suppress(OSError):  # another process may be evicting too
                facts = item.stat()
                if item.name.endswith(UNFINISHED):
                    if time.time() - facts.st_mtime > _ABANDONED_SECONDS:
                        os.unlink(item.path)
                elif item.name.endswith(_SUFFIX) and item.name != newest.name:
                    entries.append((facts.st_mtime, facts.st_size, item.path))
        total = newest.stat().st_size + sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._largest:
                return
            with suppress(OSError):
                os.unlink(path)
            total -= size


# ---- one file -----------------------------------------------------------------------------------


def pack(entry: Entry) -> bytes:
    """The file of an entry. Raises TypeError for metadata that JSON cannot hold."""
    facts = {"metadata": dict(entry.metadata), "lengths": [len(code) for code in entry.objects]}
    text = json.dumps(facts).encode()
    body = b"".join((text, *entry.objects))
    return _HEADER.pack(_MAGIC, _checksum(len(text), body), len(text)) + body


def unpack(content: bytes) -> Entry | None:
    """The entry in a file's content; None where anything is damaged, missing or too much."""
    if len(content) < _HEADER.size:
        return None
    magic, checksum, length = _HEADER.unpack_from(content)
    body = memoryview(content)[_HEADER.size :]
    if magic != _MAGIC or checksum != _checksum(length, body):
        return None
    facts = json.loads(bytes(body[:length]))
    objects = []
    start = length
    for size in facts["lengths"]:
        objects.append(bytes(body[start : start + size]))
        start += size
    return Entry(tuple(objects), facts["metadata"])


def _checksum(length: int, body: bytes | memoryview) -> bytes:
    """Over the header's length as well: a flipped bit there must not go unseen."""
    digest = hashlib.sha256(struct.pack("<Q", length))
    digest.update(body)
    return digest.digest()


# ---- one line, once -----------------------------------------------------------------------------

_warned: set[str] = set()


def _warn_once(message: str) -> None:
    """One line on stderr, once in a process however often the cause returns."""
    if message not in _warned:
        _warned.add(message)
        if sys.stderr is not None:
            print(f"lanewise: {message}", file=sys.stderr)
