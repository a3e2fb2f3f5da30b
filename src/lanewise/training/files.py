"""Writing files so that whoever looks finds the old content or the new, never a part of it."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from lanewise.errors import RunError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def write_atomically(path: Path, *parts: bytes | memoryview) -> None:
    """Put `parts` in a row at `path`: beside it first, to the disk, then under its name.

    RunError with the place, the reason and a remedy; what stood at `path` is then unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise refused(path, error) from None
    finally:
        # Gone after the rename; still there after any failure, Ctrl-C included.
        with contextlib.suppress(OSError):
            temporary.unlink()


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process was just writing."""
    for part in folder.glob(".*.part"):
        with contextlib.suppress(OSError):
            part.unlink()


def refused(path: Path, error: OSError) -> RunError:
    """The message for a file or folder that the system will not let us write."""
    reason = error.strerror or str(error)
    return RunError(f"{path}: cannot be written ({reason}); {_remedy(error)}")


def _remedy(error: OSError) -> str:
    if error.errno in _FULL:
        return "nothing saved before is lost: free some space, or use another disk"
    if error.errno in _DENIED:
        return "choose a folder that you may write, or change its permissions"
    return "choose another folder"
