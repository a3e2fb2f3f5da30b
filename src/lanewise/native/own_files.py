"""Files that only this user (or root) could have written, read and written whole."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

UNFINISHED = ".part"


def read_own(path: Path) -> bytes | None:
    """The file's bytes; None where somebody else than this user or root could have written it."""
    with open(path, "rb") as file:
        if hasattr(os, "geteuid"):
            facts = os.fstat(file.fileno())
            foreign = facts.st_uid not in (os.geteuid(), 0)
            if foreign or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return None
        return file.read()


def write_whole(path: Path, content: bytes) -> None:
    """Write beside the place and rename into it; nothing is left behind on failure."""
    import tempfile

    handle, unfinished = tempfile.mkstemp(suffix=UNFINISHED, prefix="code-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(unfinished, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(unfinished)
        raise
