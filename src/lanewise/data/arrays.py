"""Images and labels in memory: what is accepted, and the line to type where they are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lanewise.data.data_set import Images, Labels
from lanewise.errors import DataError, counted

CHANNELS = (1, 2, 3, 4)


def check_images(images: Any, where: str) -> Images:
    """`images` as uint8 (N, H, W) or (N, H, W, C), C = 1 to 4. Raises DataError with the remedy."""
    array = np.asarray(images)
    if array.dtype.kind == "f":
        _refuse_nan(array, where)
    if array.ndim not in (3, 4) or 0 in array.shape[1:]:
        raise DataError(
            f"{where}: found shape {array.shape}; wanted (N, H, W) or (N, H, W, C). "
            f"{_reshape(array)}"
        )
    if array.ndim == 4 and array.shape[3] not in CHANNELS:
        raise DataError(
            f"{where}: found shape {array.shape}, with {array.shape[3]} channels last; "
            f"wanted 1, 2 (gray and alpha), 3 or 4 (RGB and alpha). {_reshape(array)}"
        )
    if array.dtype != np.uint8:
        raise DataError(f"{where}: found {array.dtype}; wanted uint8, 0 to 255. {_as_bytes(array)}")
    return array


def check_labels(labels: Any, count: int, where: str) -> tuple[Labels, tuple[str, ...]]:
    """(int32 (N,), class names). Whole numbers 0..K-1, or strings, whose classes are sorted.

    Raises DataError for another type, shape, length or range.
    """
    array = np.asarray(labels)
    if array.dtype.kind == "f":
        _refuse_nan(array, where)
    if array.ndim != 1:
        raise DataError(f"{where}: found shape {array.shape}; wanted ({count},). {_flat(array)}")
    if len(array) != count:
        found = f"{counted(len(array), 'label')} for {counted(count, 'image')}"
        raise DataError(f"{where}: found {found}; wanted one each")
    if array.dtype.kind in "US":
        names, inverse = np.unique(array, return_inverse=True)
        return inverse.astype(np.int32), tuple(map(_text, names.tolist()))
    if array.dtype.kind not in "iub":
        raise DataError(
            f"{where}: found {array.dtype}; wanted whole numbers 0 to K-1. "
            "Type: labels.astype('int64')"
        )
    if array.dtype.kind == "b":
        array = array.astype(np.int32)
    _check_range(array, where)
    codes = array.astype(np.int32)
    highest = int(codes.max(initial=-1))
    return codes, tuple(str(index) for index in range(highest + 1))


def check_named_labels(
    labels: Any, count: int, names: tuple[str, ...], where: str
) -> tuple[Labels, tuple[str, ...]]:
    """Labels whose class names are given: whole numbers below len(names)."""
    codes, found = check_labels(labels, count, where)
    if len(found) > len(names):
        place = int(np.argmax(codes))
        raise DataError(
            f"{where}: label {codes[place]} at {place} is out of range; "
            f"there are {len(names)} class names, so wanted 0 to {len(names) - 1}"
        )
    return codes, names


def _check_range(array: npt.NDArray[Any], where: str) -> None:
    if not len(array):
        return
    place = int(np.argmin(array))
    if array[place] < 0:
        raise DataError(
            f"{where}: label {array[place]} at {place} is negative; wanted 0 to K-1. "
            "Type: np.unique(labels, return_inverse=True)[1]"
        )
    place = int(np.argmax(array))
    if array[place] >= max(len(array), 2):
        raise DataError(
            f"{where}: label {array[place]} at {place} is out of range: "
            f"{counted(len(array), 'image')} cannot have {int(array[place]) + 1} classes; "
            "wanted 0 to K-1. "
            "Type: np.unique(labels, return_inverse=True)[1]"
        )


def _refuse_nan(array: npt.NDArray[Any], where: str) -> None:
    bad = ~np.isfinite(array)
    count = int(bad.sum())
    if count:
        place = [int(axis) for axis in np.unravel_index(int(np.argmax(bad)), array.shape)]
        raise DataError(
            f"{where}: found {counted(count, 'number')} NaN or infinite, the first at {place}; "
            "wanted numbers. Look at what made them, or type: np.nan_to_num(...)"
        )


def _as_bytes(array: npt.NDArray[Any]) -> str:
    """The line that converts, chosen by the range found."""
    if array.dtype.kind not in "fiub" or not array.size:
        return "Type: images.astype('uint8')"
    low, high = array.min(), array.max()
    found = f"Values are {low:g} to {high:g}. Type: "
    if array.dtype.kind == "b" or (array.dtype.kind == "f" and low >= 0 and high <= 1):
        return "Values are 0 to 1. Type: (images * 255).round().astype('uint8')"
    if low >= 0 and high <= 255:
        return found + "images.round().astype('uint8')"
    if array.dtype == np.uint16:
        return found + "(images // 257).astype('uint8')"
    return found + f"((images - {low:g}) * (255 / {high - low:g})).round().astype('uint8')"


def _reshape(array: npt.NDArray[Any]) -> str:
    if array.ndim == 2:
        side = round(array.shape[1] ** 0.5)
        if side * side == array.shape[1]:
            return f"Type: images.reshape(-1, {side}, {side})"
    if array.ndim == 4 and array.shape[1] in CHANNELS:
        return "Channels come last. Type: images.transpose(0, 2, 3, 1)"
    return "N images of one height H and one width W, channels last."


def _flat(array: npt.NDArray[Any]) -> str:
    if array.ndim == 2 and array.shape[1] > 1:
        return "For one-hot rows, type: labels.argmax(axis=1)"
    return "Type: labels.reshape(-1)"


def _text(name: str | bytes) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name
