"""The store: a folder's images, decoded once into one uint8 file that is mapped into memory.

The file's name is a hash of everything that decides its bytes: the folder, every file's path,
size, time and mode, the preprocessing, Pillow's version. So a stale store is simply never found; a
damaged one is said and built anew. Where none can be written (no permission, disk full) the images
stay in memory, with a warning. Stores not opened for thirty days are removed when a new one is
written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lanewise import flags
from lanewise.data.data_set import Images
from lanewise.data.decode import Block, decoded_blocks
from lanewise.data.messages import shown, warn
from lanewise.data.preprocessing import Preprocessing
from lanewise.data.rows import Hashes, image_hashes
from lanewise.data.scan import Scan
from lanewise.data.store_file import MAGIC, PartFile, Record, Store, map_images, read_store

_KEPT_SECONDS = 30 * 24 * 3600


def open_store(
    scan: Scan, rule: Preprocessing, on_progress: Callable[[int, int], None] | None, cache: bool
) -> Store:
    """The scan's images under `rule`: from the cache, or decoded now and kept there."""
    path = store_path(scan, rule) if cache else None
    found = _checked(path, rule) if path is not None else None
    if found is not None:
        return found
    writer = _Writer(rule)
    try:
        if path is not None:
            writer.begin(path)
        with contextlib.closing(decoded_blocks(scan.file_paths(), rule, on_progress)) as blocks:
            for block in blocks:
                writer.add(block)
        return writer.finish()
    finally:
        writer.close()


def store_folder() -> Path | None:
    """Where stores are kept: LANEWISE_CACHE/data, or below the platform's folder for caches.

    None where the user has no home folder.
    """
    try:
        return flags.cache_folder() / "data"
    except RuntimeError:
        warn("no home folder: decoded images are not kept. LANEWISE_CACHE names a folder for them")
        return None


def store_path(scan: Scan, rule: Preprocessing) -> Path | None:
    """The store's place: a name that no other bytes can have."""
    import PIL

    folder = store_folder()
    if folder is None:
        return None
    digest = hashlib.sha256(MAGIC)
    # Mean and deviation are applied later, by the engine.
    fixed = {**rule.to_json(), "mean": None, "std": None, "pillow": PIL.__version__}
    digest.update(json.dumps(fixed, sort_keys=True).encode())
    digest.update(os.fsencode(os.path.realpath(scan.root)))
    for part, files in scan.parts.items():
        for found in files:
            line = f"\n{part} {found.label} {found.size} {found.modified} {found.mode} "
            digest.update(line.encode() + os.fsencode(found.path))
    return folder / f"{digest.hexdigest()[:40]}.images"


def _checked(path: Path, rule: Preprocessing) -> Store | None:
    """The store at `path`; None where there is none, or a damaged one."""
    if not path.exists():
        return None
    try:
        store = read_store(path, rule.shape)
    except (OSError, ValueError, KeyError, TypeError) as error:
        warn(f"cache {shown(str(path))} is damaged ({error}); decoding the images again")
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return store


class _Writer:
    """Takes decoded blocks; keeps their images in a file, or in memory where that cannot be."""

    def __init__(self, rule: Preprocessing) -> None:
        self._rule = rule
        self._file: PartFile | None = None
        self._memory: list[Images] = []
        self._hashes: list[Hashes] = []
        self._outcomes: list[tuple[str, tuple[int, int]] | str] = []
        self._warning = ""

    def begin(self, path: Path) -> None:
        """Write to a file from now on, if it can be made."""
        try:
            self._file = PartFile(path, self._rule.shape)
        except OSError as error:
            self._leave_file(path, error)

    def add(self, block: Block) -> None:
        """The next block: its good images are kept, its bad files remembered."""
        good = [isinstance(outcome, tuple) for outcome in block.outcomes]
        images = block.images if all(good) else block.images[np.array(good)]
        self._outcomes += block.outcomes
        self._hashes.append(image_hashes(images))
        if self._file is not None:
            try:
                self._file.append(images)
                return
            except OSError as error:
                self._memory.append(self._file.rows())
                self._leave_file(self._file.path, error)
        self._memory.append(images)

    def finish(self) -> Store:
        """The complete store, mapped from its file or held in memory."""
        hashes = np.concatenate([np.empty(0, np.uint64), *self._hashes])
        record = self._record()
        if self._file is not None:
            path = self._file.path
            try:
                self._file.complete(record, hashes)
                _remove_old(path.parent)
                return Store(map_images(path, len(hashes), self._rule.shape), hashes, record)
            except OSError as error:
                self._memory.append(self._file.rows())
                self._leave_file(path, error)
        if len(self._memory) == 1:
            return Store(self._memory[0], hashes, record, self._warning)
        images = np.concatenate([np.empty((0, *self._rule.shape), np.uint8), *self._memory])
        return Store(images, hashes, record, self._warning)

    def close(self) -> None:
        """Leave nothing half-written behind."""
        if self._file is not None:
            self._file.discard()

    def _record(self) -> Record:
        skipped = [
            (i, reason) for i, reason in enumerate(self._outcomes) if isinstance(reason, str)
        ]
        good = [outcome for outcome in self._outcomes if isinstance(outcome, tuple)]
        kinds = Counter(kind for kind, _ in good)
        return Record(tuple(skipped), dict(kinds), tuple(size for _, size in good))

    def _leave_file(self, path: Path, error: OSError) -> None:
        self.close()
        self._file = None
        self._warning = (
            f"cache {shown(str(path.parent))} cannot be written ({error.strerror or error}); "
            "images are held in memory and decoded again next time. "
            "LANEWISE_CACHE names another folder"
        )
        warn(self._warning)


def _remove_old(folder: Path) -> None:
    oldest = time.time() - _KEPT_SECONDS
    for path in [*folder.glob("*.images"), *folder.glob("*.part")]:
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()
