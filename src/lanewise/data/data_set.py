"""What this room hands out: a data set with its splits, and the files it set aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from lanewise.data.preprocessing import Preprocessing

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Skipped:
    """A file that was not used, and why."""

    path: str
    reason: str


class Numbered(Sequence[str]):
    """The names of images that have no file: "train-images#17". Made when asked for, not before."""

    def __init__(self, stem: str, numbers: Sequence[int] | npt.NDArray[np.intp]) -> None:
        self.stem = stem
        self.numbers = np.asarray(numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Numbered: ...
    def __getitem__(self, index: int | slice) -> str | Numbered:
        if isinstance(index, slice):
            return Numbered(self.stem, self.numbers[index])
        return f"{self.stem}#{self.numbers[index]}"


@dataclass(frozen=True)
class Split:
    """Images that belong together, ready for the engine.

    images: uint8 (N, C, H, W), C-contiguous; it may be a read-only memory map.
    labels: int32 (N,), indices into the data set's `class_names`.
    sources: where each image came from, a path or "train-images#17".
    """

    images: Images
    labels: Labels
    sources: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class DataSet:
    """A data set, opened: what is trained on, chosen by, and judged by.

    `class_names` is the one list of classes, its order the meaning of every label.
    `fingerprint` changes with any pixel, label, class name or move of an image between the splits.
    `summary` is the run's header: one fact a line, for people.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    val: Split
    test: Split | None
    preprocessing: Preprocessing
    skipped: tuple[Skipped, ...] = ()
    fingerprint: str = ""
    summary: tuple[str, ...] = field(default=())
