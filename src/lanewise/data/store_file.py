"""The file of a store: written beside its place and renamed when complete, checked when read.

    magic, 64 bytes | images uint8 (N, C, H, W) | record, JSON | length of the record, its CRC-32,
    end mark

The record's checksum and a hash of all images are verified on every opening.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lanewise.data.data_set import Images
from lanewise.data.rows import Hashes, image_hashes

Shape = tuple[int, int, int]

MAGIC = b"LANEWISE STORE 1\n".ljust(64, b"\0")
_END = b"END STORE 1\n"
_TAIL = struct.Struct(f"<QI{len(_END)}s")
_WRITE_BYTES = 64 << 20


@dataclass(frozen=True)
class Record:
    """What is known of the scanned files: skipped holds (number of the file, reason), kinds counts
    formats and modes, sizes is (height, width) of each kept image before it was fitted."""

    skipped: tuple[tuple[int, str], ...]
    kinds: dict[str, int]
    sizes: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Store:
    """All good images of a scan, in its order. `warning` says why they are not in a file."""

    images: Images
    hashes: Hashes
    record: Record
    warning: str = ""


class PartFile:
    """A store being written. Every method may raise OSError; `discard` never does."""

    def __init__(self, path: Path, shape: Shape) -> None:
        self.path = path
        self._shape = shape
        self._rows = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, self._temporary = tempfile.mkstemp(".part", path.stem + ".", path.parent)
        self._file = os.fdopen(handle, "w+b", buffering=0)
        try:
            self._write(MAGIC)
        except OSError:
            self.discard()
            raise

    def append(self, images: Images) -> None:
        """Add images; after an OSError `rows` still gives those added before."""
        if len(images):
            self._write(images.data.cast("B"))
            self._rows += len(images)

    def rows(self) -> Images:
        """The images added so far, read back."""
        count = self._rows * math.prod(self._shape)
        data = np.fromfile(self._temporary, np.uint8, count, offset=len(MAGIC))
        return data.reshape(self._rows, *self._shape)

    def complete(self, record: Record, hashes: Hashes) -> None:
        """Write the record, bring all to the disk, and give the file its name."""
        values = {
            "images": len(hashes),
            "hashes": _digest(hashes),
            "skipped": record.skipped,
            "kinds": record.kinds,
            "sizes": record.sizes,
        }
        text = json.dumps(values).encode()
        self._write(text + _TAIL.pack(len(text), zlib.crc32(text), _END))
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temporary, self.path)

    def discard(self) -> None:
        """Leave nothing half-written behind; harmless after `complete`."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            os.unlink(self._temporary)

    def _write(self, data: bytes | memoryview) -> None:
        # A raw write may be short; on a full disk the next one raises.
        view = memoryview(data)
        while view:
            view = view[self._file.write(view[:_WRITE_BYTES]) :]


def read_store(path: Path, shape: Shape) -> Store:
    """The store at `path`, all of it checked. Raises OSError or ValueError with what is wrong."""
    record, count, digest = _read_record(path, shape)
    images = map_images(path, count, shape)
    hashes = image_hashes(images)
    if _digest(hashes) != digest:
        raise ValueError("its images do not match their checksum")
    return Store(images, hashes, record)


def map_images(path: Path, count: int, shape: Shape) -> Images:
    """The images of a store as a read-only map of its file."""
    if not count:
        return np.empty((0, *shape), np.uint8)
    with open(path, "rb") as file:
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    flat = np.frombuffer(whole, np.uint8, count * math.prod(shape), len(MAGIC))
    return flat.reshape(count, *shape)


def _read_record(path: Path, shape: Shape) -> tuple[Record, int, str]:
    """(record, number of images, digest of their hashes)."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC or size < len(MAGIC) + _TAIL.size:
            raise ValueError("it has no header")
        file.seek(size - _TAIL.size)
        length, checksum, end = _TAIL.unpack(file.read(_TAIL.size))
        start = size - _TAIL.size - length
        if end != _END or start < len(MAGIC):
            raise ValueError("it is incomplete")
        file.seek(start)
        text = file.read(length)
    if zlib.crc32(text) != checksum:
        raise ValueError("its record does not match its checksum")
    values = json.loads(text)
    if start - len(MAGIC) != values["images"] * math.prod(shape):
        raise ValueError("its size does not match its record")
    skipped = tuple((int(index), str(reason)) for index, reason in values["skipped"])
    sizes = tuple((int(height), int(width)) for height, width in values["sizes"])
    return Record(skipped, values["kinds"], sizes), values["images"], values["hashes"]


def _digest(hashes: Hashes) -> str:
    return hashlib.sha256(hashes.astype("<u8").tobytes()).hexdigest()
