"""A folder with IDX files, the format of MNIST: plain or gzip, gray or colour.

An IDX file is two zero bytes, the element type (0x08: uint8), the number of dimensions, each
dimension as a big-endian 32-bit number, then the values. Images are (N, H, W) or (N, H, W, C);
labels are (N,). `t10k` (or `test`) files are the test split, `val` files the validation split.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lanewise.data.arrays import check_images, check_labels
from lanewise.data.data_set import Images, Labels
from lanewise.data.messages import shown
from lanewise.errors import DataError

_NAME = re.compile(r"(train|t10k|test|val|validation)-(images|labels)[-.]idx\d-ubyte(\.gz)?$")
_PART = {"train": "train", "t10k": "test", "test": "test", "val": "val", "validation": "val"}
_UINT8 = 8
_MOST_RATIO = 1032  # deflate cannot shrink further, so a larger claim in a trailer is a lie


@dataclass(frozen=True)
class Pair:
    """The two files of one split."""

    stem: str
    images: str
    labels: str


def find_pairs(folder: str) -> dict[str, Pair]:
    """{"train": Pair, …} of the IDX files in `folder`, {} if it has none.

    Raises DataError where one of a pair is missing, or there is no training pair.
    """
    files: dict[str, dict[str, str]] = {}
    stems: dict[str, str] = {}
    for name in sorted(os.listdir(folder), reverse=True):  # plain after .gz: it wins
        match = _NAME.match(name)
        if match:
            part = _PART[match[1]]
            files.setdefault(part, {})[match[2]] = os.path.join(folder, name)
            stems[part] = f"{match[1]}-images"
    for part, found in files.items():
        for kind in ("images", "labels"):
            if kind not in found:
                other = shown(os.path.basename(next(iter(found.values()))))
                raise DataError(f"{shown(folder)}: found {other} but no {part} {kind} beside it")
    if files and "train" not in files:
        raise DataError(
            f"{shown(folder)}: found IDX files for {', '.join(files)} only; wanted "
            "train-images-idx3-ubyte and train-labels-idx1-ubyte, plain or .gz"
        )
    return {
        part: Pair(stems[part], **files[part]) for part in ("train", "val", "test") if part in files
    }


def read_pairs(pairs: dict[str, Pair]) -> dict[str, tuple[Images, Labels]]:
    """Images (N, H, W[, C]) and labels of each split. Files are unpacked side by side."""
    paths = [path for pair in pairs.values() for path in (pair.images, pair.labels)]
    with ThreadPoolExecutor(2, "lanewise-idx") as pool:
        arrays = dict(zip(paths, pool.map(read_idx, paths), strict=True))
    result = {}
    for part, pair in pairs.items():
        images = check_images(arrays[pair.images], shown(pair.images))
        labels, _ = check_labels(arrays[pair.labels], len(images), shown(pair.labels))
        result[part] = images, labels
    return result


def read_idx(path: str) -> npt.NDArray[np.uint8]:
    """The array in an IDX file; a plain file is mapped, not read. Raises DataError if damaged."""
    try:
        data = _unpacked(path) if path.endswith(".gz") else np.memmap(path, np.uint8, "r")
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{shown(path)}: cannot be read ({error}); fetch the file again") from None
    buffer = np.frombuffer(data, np.uint8)
    shape = _shape(bytes(buffer[:64]), path)
    start = 4 + 4 * len(shape)
    found, wanted = buffer.size - start, math.prod(shape)
    if found != wanted:
        raise DataError(
            f"{shown(path)}: found {found:,} values where the header says {shape} = {wanted:,}; "
            "the file is incomplete or damaged, fetch it again"
        )
    return buffer[start:].reshape(shape)


def idx_shape(path: str) -> tuple[int, ...]:
    """The dimensions alone, without unpacking the file."""
    try:
        with gzip.open(path) if path.endswith(".gz") else open(path, "rb") as file:
            return _shape(file.read(64), path)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{shown(path)}: cannot be read ({error}); fetch the file again") from None


def _shape(header: bytes, path: str) -> tuple[int, ...]:
    dimensions = header[3] if len(header) > 3 else 0
    if header[:2] != b"\0\0" or not 1 <= dimensions <= 4 or len(header) < 4 + 4 * dimensions:
        raise DataError(
            f"{shown(path)}: not an IDX file, it begins with {header[:4]!r}; wanted two zero "
            "bytes, the type 8 and 1 to 4 dimensions"
        )
    if header[2] != _UINT8:
        raise DataError(f"{shown(path)}: element type {header[2]:#x}; wanted 0x8, unsigned bytes")
    return tuple(
        int.from_bytes(header[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(dimensions)
    )


def _unpacked(path: str) -> bytes:
    """The content of a .gz file: in one call, into room of the size that its trailer names."""
    with open(path, "rb") as file:
        packed = file.read()
    size = min(int.from_bytes(packed[-4:], "little"), _MOST_RATIO * len(packed))
    data = zlib.decompress(packed, wbits=31, bufsize=max(size, 1))
    if len(data) == size:
        return data
    return gzip.decompress(packed)  # several members in one file
