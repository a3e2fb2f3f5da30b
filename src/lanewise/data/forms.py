"""The forms of DATA: each knows its name, its images' own shape, and how to load itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from lanewise.data.archive import npz_shape, read_npz
from lanewise.data.arrays import check_images, check_labels
from lanewise.data.data_set import Images, Labels
from lanewise.data.digits import read_digits
from lanewise.data.folder import folder_shape, load_folder
from lanewise.data.idx import Pair, find_pairs, idx_shape, read_pairs
from lanewise.data.loaded import Loaded, loaded_arrays, shape_of_images
from lanewise.data.messages import shown
from lanewise.data.preprocessing import Preprocessing
from lanewise.data.scan import Scan, scan_folder
from lanewise.errors import DataError, counted

Shape = tuple[int, int, int]
Progress = Callable[[int, int], None]

WANTED = (
    "DATA is digits, a folder of class folders, a folder with the four MNIST-style IDX files, "
    "or an .npz with images and labels"
)


class Form(Protocol):
    """One way in which images and labels may come."""

    @property
    def name(self) -> str:
        """A short name for the run's header."""

    def native_shape(self) -> Shape:
        """(C, H, W) of the images themselves, from as little reading as possible."""

    def load(self, rule: Preprocessing, on_progress: Progress | None, cache: bool) -> Loaded:
        """Everything, under `rule`."""


@dataclass(frozen=True)
class Digits:
    """scikit-learn's digits, built in."""

    name: str = "digits"

    def native_shape(self) -> Shape:
        return 1, 8, 8

    def load(self, rule: Preprocessing, on_progress: Progress | None, cache: bool) -> Loaded:
        images, labels = read_digits()
        return loaded_arrays(
            self.name, {"train": ("digits", images, labels)}, _numbers(10), False, rule
        )


@dataclass(frozen=True)
class IdxFolder:
    """A folder with MNIST-style files."""

    name: str
    pairs: dict[str, Pair]

    def native_shape(self) -> Shape:
        path = self.pairs["train"].images
        shape = idx_shape(path)
        if len(shape) not in (3, 4):
            raise DataError(f"{shown(path)}: found dimensions {shape}; wanted (N, H, W[, C])")
        return shape_of_images(shape)

    def load(self, rule: Preprocessing, on_progress: Progress | None, cache: bool) -> Loaded:
        arrays = read_pairs(self.pairs)
        classes = max(int(labels.max(initial=0)) for _, labels in arrays.values()) + 1
        parts = {part: (self.pairs[part].stem, *pair) for part, pair in arrays.items()}
        _check_classes(self.name, classes, arrays["train"][1])
        return loaded_arrays(self.name, parts, _numbers(classes), False, rule)


@dataclass(frozen=True)
class ClassFolder:
    """A folder with one folder per class."""

    root: str

    @property
    def name(self) -> str:
        return os.path.basename(os.path.abspath(self.root))

    def native_shape(self) -> Shape:
        return folder_shape(self._scan)

    def load(self, rule: Preprocessing, on_progress: Progress | None, cache: bool) -> Loaded:
        return load_folder(self._scan, rule, on_progress, cache)

    @cached_property
    def _scan(self) -> Scan:
        return scan_folder(self.root)


@dataclass(frozen=True)
class NpzFile:
    """An .npz with images and labels."""

    path: str

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    def native_shape(self) -> Shape:
        return shape_of_images(npz_shape(self.path))

    def load(self, rule: Preprocessing, on_progress: Progress | None, cache: bool) -> Loaded:
        images, labels, names = read_npz(self.path)
        _check_classes(shown(self.path), len(names), labels)
        named = names != _numbers(len(names))
        return loaded_arrays(self.name, {"train": (self.name, images, labels)}, names, named, rule)


@dataclass(frozen=True)
class Arrays:
    """Images and labels in memory, already checked."""

    images: Images
    labels: Labels
    class_names: tuple[str, ...]
    name: str = "arrays"

    def native_shape(self) -> Shape:
        return shape_of_images(self.images.shape)

    def load(self, rule: Preprocessing, on_progress: Progress | None, cache: bool) -> Loaded:
        _check_classes(self.name, len(self.class_names), self.labels)
        arrays = {"train": ("images", self.images, self.labels)}
        named = self.class_names != _numbers(len(self.class_names))
        return loaded_arrays(self.name, arrays, self.class_names, named, rule)


def recognise(spec: Any) -> Form:
    """The form of `spec`: a name, a path or (images, labels). Raises DataError if it is none."""
    if isinstance(spec, (str, os.PathLike)):
        return _recognise_path(os.fspath(spec))
    if isinstance(spec, (tuple, list)) and len(spec) == 2:
        images = check_images(spec[0], "images")
        labels, names = check_labels(spec[1], len(images), "labels")
        return Arrays(images, labels, names)
    raise DataError(
        f"data: found {type(spec).__name__}; wanted a name, a path or (images, labels). {WANTED}"
    )


def _recognise_path(path: str) -> Form:
    if path == "digits":
        return Digits()
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        try:
            pairs = find_pairs(path)
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"{shown(path)}: the folder cannot be read: {reason}") from None
        return (
            IdxFolder(os.path.basename(os.path.abspath(path)), pairs)
            if pairs
            else ClassFolder(path)
        )
    if not os.path.exists(path):
        raise DataError(f"{shown(path)}: no such file or folder{_nearest(path)} {WANTED}")
    if path.casefold().endswith(".npz"):
        return NpzFile(path)
    raise DataError(f"{shown(path)}: a file of a kind that holds no data set. {WANTED}")


def _nearest(path: str) -> str:
    folder = os.path.dirname(path) or "."
    names = os.listdir(folder) if os.path.isdir(folder) else []
    near = get_close_matches(os.path.basename(path), ["digits", *names], 1)
    if not near:
        return "."
    known = near[0] == "digits" or not os.path.dirname(path)
    return f"; did you mean {shown(near[0] if known else os.path.join(folder, near[0]))}?"


def _check_classes(where: str, classes: int, labels: Labels) -> None:
    used = len(np.unique(labels))
    if used < 2:
        raise DataError(
            f"{where}: found {counted(len(labels), 'image')} of {used} class (of {classes}); "
            "wanted images of at least two classes"
        )


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))
