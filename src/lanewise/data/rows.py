"""A 64-bit hash of every image: the same pixels found in two splits, and the fingerprint.

The hash reads eight pixels at a time (Σ mixed word × key, modulo 2^64; 20 ms for the whole of
MNIST). It is fast, not cryptographic: two images with equal hashes are compared pixel by pixel.
"""

from __future__ import annotations

import hashlib
import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lanewise.data.data_set import Images, Split
from lanewise.data.split import shuffle_keys

Hashes: TypeAlias = npt.NDArray[np.uint64]

_BLOCK = 256
_ODD = np.uint64(0x9E3779B97F4A7C15)


def image_hashes(images: Images) -> Hashes:
    """uint8 (N, …) C-contiguous → uint64 (N,)."""
    flat = images.reshape(len(images), math.prod(images.shape[1:]))  # also of no images
    result = np.empty(len(flat), np.uint64)
    keys = shuffle_keys(-(-flat.shape[1] // 8), 1) | np.uint64(1)
    for start in range(0, len(flat), _BLOCK):
        words = _words(flat[start : start + _BLOCK]) * _ODD
        words ^= words >> np.uint64(32)
        words *= keys
        np.add.reduce(words, axis=1, out=result[start : start + _BLOCK])
    return result


def _words(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Rows of bytes as rows of little-endian words, the last one filled with zeros."""
    missing = -rows.shape[1] % 8
    if missing:
        rows = np.pad(rows, ((0, 0), (0, missing)))
    return np.ascontiguousarray(rows).view("<u8")


def count_duplicates(train: Split, train_hashes: Hashes, other: Split, hashes: Hashes) -> int:
    """How many images of `other` have exactly the pixels of an image in `train`."""
    order = np.argsort(train_hashes, kind="stable")
    ordered = train_hashes[order]
    place = np.searchsorted(ordered, hashes)
    place[place == len(ordered)] = 0
    candidates = np.flatnonzero(ordered[place] == hashes) if len(ordered) else ()
    return sum(
        np.array_equal(train.images[order[place[index]]], other.images[index])
        for index in candidates
    )


def fingerprint(
    class_names: tuple[str, ...], splits: list[tuple[str, Split]], hashes: list[Hashes]
) -> str:
    """32 hex digits that depend on every pixel, label and class name, and on each image's split."""
    digest = hashlib.sha256(repr(class_names).encode("utf-8", "backslashreplace"))
    for (name, split), rows in zip(splits, hashes, strict=True):
        digest.update(f"{name} {split.images.shape}".encode())
        digest.update(rows.astype("<u8").tobytes())
        digest.update(split.labels.astype("<i4").tobytes())
    return digest.hexdigest()[:32]
