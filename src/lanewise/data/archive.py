"""An .npz with `images` and `labels`, and maybe `class_names`."""

from __future__ import annotations

import zipfile
import zlib
from typing import Any

import numpy as np

from lanewise.data.arrays import check_images, check_labels, check_named_labels
from lanewise.data.data_set import Images, Labels
from lanewise.data.messages import examples, shown
from lanewise.errors import DataError

_SAVE = "Type: numpy.savez(path, images=x, labels=y)"


def read_npz(path: str) -> tuple[Images, Labels, tuple[str, ...]]:
    """(images, labels, class names). Raises DataError with the array's name and the remedy."""
    arrays = _read(path)
    missing = [name for name in ("images", "labels") if name not in arrays]
    if missing:
        raise DataError(
            f"{shown(path)}: found arrays {examples(sorted(arrays))}; "
            f"wanted images and labels. {_SAVE}"
        )
    images = check_images(arrays["images"], f"{shown(path)} images")
    where = f"{shown(path)} labels"
    if "class_names" not in arrays:
        return images, *check_labels(arrays["labels"], len(images), where)
    names = tuple(str(name) for name in arrays["class_names"].reshape(-1))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"{shown(path)} class_names: {examples(twice)} stands there more than once; wanted a "
            "name of its own for each class"
        )
    return images, *check_named_labels(arrays["labels"], len(images), names, where)


def _read(path: str) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{shown(path)}: holds a single array. {_SAVE}")
            wanted = ("images", "labels", "class_names")
            return {name: archive[name] if name in wanted else None for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, KeyError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{shown(path)}: cannot be read as .npz ({error}); "
            f"wanted plain arrays, no objects. {_SAVE}"
        ) from None


def npz_shape(path: str) -> tuple[int, ...]:
    """The shape of `images`, from its header alone."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("images.npy") as member:
            version = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0
            shape, _, _ = (np.lib.format.read_array_header_2_0 if version[0] > 1 else read)(member)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, KeyError):
        shape = read_npz(path)[0].shape  # raises with the reason
    if len(shape) not in (3, 4):
        raise DataError(f"{shown(path)} images: found shape {shape}; wanted (N, H, W[, C])")
    return shape
