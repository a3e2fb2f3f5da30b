"""What every form of DATA is brought to before it is split: `Loaded`."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lanewise.data.data_set import Images, Labels, Numbered, Skipped, Split
from lanewise.data.preprocessing import Preprocessing
from lanewise.data.rows import Hashes, image_hashes
from lanewise.data.split import Indices

# Above this a gathered split lives in a deleted file, which the system may page out, not in memory.
MOST_MEMORY = 1 << 30


@dataclass(frozen=True)
class Part:
    """A split with the hash of each of its images."""

    split: Split
    hashes: Hashes

    def __len__(self) -> int:
        return len(self.split)

    def take(self, indices: Indices) -> Part:
        """Those images, copied together; a list of sources stays a list."""
        sources = self.split.sources
        chosen: Sequence[str]
        if isinstance(sources, Numbered):
            chosen = Numbered(sources.stem, sources.numbers[indices])
        else:
            chosen = [sources[index] for index in indices]
        images = _gathered(self.split.images, indices)
        return Part(Split(images, self.split.labels[indices], chosen), self.hashes[indices])


@dataclass(frozen=True)
class Loaded:
    """A data set under its preprocessing, in the parts that it came in: "train", "val", "test".

    named: the classes have names of their own, and are not just numbered.
    kinds: format and mode → count. sizes: (height, width) before fitting → count.
    """

    name: str
    class_names: tuple[str, ...]
    named: bool
    parts: dict[str, Part]
    kinds: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[tuple[int, int], int] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()


def loaded_arrays(
    name: str,
    arrays: Mapping[str, tuple[str, Images, Labels]],
    class_names: tuple[str, ...],
    named: bool,
    rule: Preprocessing,
) -> Loaded:
    """From {"train": (stem of the sources, images (N, H, W[, C]), labels), …}."""
    parts: dict[str, Part] = {}
    sizes: dict[tuple[int, int], int] = {}
    for part, (stem, images, labels) in arrays.items():
        size = (images.shape[1], images.shape[2])
        sizes[size] = sizes.get(size, 0) + len(images)
        ready = rule.batch(images)
        split = Split(ready, labels, Numbered(stem, np.arange(len(ready))))
        parts[part] = Part(split, image_hashes(ready))
    counts = np.bincount(parts["train"].split.labels, minlength=len(class_names))
    empty = [class_names[index] for index in np.flatnonzero(counts == 0)]
    notes = (f"classes without a training image: {', '.join(empty)}",) if empty else ()
    return Loaded(name, class_names, named, parts, sizes=sizes, notes=notes)


def shape_of_images(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(N, H, W[, C]) → (C, H, W) for a net: 1 channel or 3, alpha not counted."""
    channels = shape[3] if len(shape) == 4 else 1
    return (1 if channels < 3 else 3), shape[1], shape[2]


def _gathered(images: Images, indices: Indices) -> Images:
    """images[indices], for ascending indices."""
    shape = (len(indices), *images.shape[1:])
    if math.prod(shape) <= MOST_MEMORY:
        # mode="clip" lets numpy write without a second buffer; the indices are known to be right.
        return images.take(indices, axis=0, out=np.empty(shape, np.uint8), mode="clip")
    with tempfile.TemporaryFile() as file:
        result = np.memmap(file, np.uint8, "w+", shape=shape)
    for start in range(0, len(indices), 1024):
        result[start : start + 1024] = images[indices[start : start + 1024]]
    return result
