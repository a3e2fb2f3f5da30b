"""A folder of class folders, loaded: scanned, decoded to the store, bad files set aside."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from lanewise.data.data_set import Labels, Skipped, Split
from lanewise.data.decode import MOST_PIXELS, open_image, readable_formats
from lanewise.data.loaded import Loaded, Part
from lanewise.data.messages import examples, shown
from lanewise.data.preprocessing import WHITE, Preprocessing
from lanewise.data.scan import Scan
from lanewise.data.store import open_store
from lanewise.data.store_file import Store
from lanewise.errors import DataError, counted

SAMPLE = 64
_SMALL = 512 * 512
_GRAY_MODES = frozenset(("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N", "I"))


def load_folder(
    scan: Scan, rule: Preprocessing, on_progress: Callable[[int, int], None] | None, cache: bool
) -> Loaded:
    """All good images of the scan under `rule`, in the folder's own parts."""
    store = open_store(scan, rule, on_progress, cache)
    found = [entry for files in scan.parts.values() for entry in files]
    bad = {index for index, _ in store.record.skipped}
    decoded = tuple(Skipped(found[index].path, reason) for index, reason in store.record.skipped)
    skipped = tuple(sorted(scan.skipped + decoded, key=lambda item: item.path))
    good = np.array([index not in bad for index in range(len(found))], bool)
    labels = np.array([entry.label for entry in found], np.int32)[good]
    sources = [scan.path(entry) for entry, keep in zip(found, good, strict=True) if keep]
    parts = _parts(scan, store, good, labels, sources)
    names, parts, notes = _without_empty_classes(scan, parts, skipped)
    return Loaded(
        name=os.path.basename(os.path.abspath(scan.root)) or scan.root,
        class_names=names,
        named=True,
        parts=parts,
        kinds=store.record.kinds,
        sizes=Counter(store.record.sizes),
        skipped=skipped,
        notes=(*scan.notes, *notes, *([store.warning] if store.warning else [])),
    )


def folder_shape(scan: Scan) -> tuple[int, int, int]:
    """(C, H, W): the medians of a sample of the images; one channel where all of them are gray."""
    files = [scan.path(found) for found in scan.parts["train"]]
    step = max(1, len(files) / SAMPLE)
    sample = [files[int(index * step)] for index in range(min(SAMPLE, len(files)))]
    looks = [look for look in map(_look, sample) if look is not None]
    if not looks:
        raise DataError(f"{shown(scan.root)}: none of {len(sample)} sampled images can be read")
    channels = 3 if any(colour for _, _, colour in looks) else 1
    height = int(np.median([height for height, _, _ in looks]))
    width = int(np.median([width for _, width, _ in looks]))
    return channels, height, width


def _look(path: str) -> tuple[int, int, bool] | None:
    """(height, width, has colour) as cheaply as possible; None for a file that cannot be read.

    A small image in a colour mode is decoded to see whether its three channels are equal.
    """
    from PIL import ExifTags, Image

    try:
        with Image.open(path, formats=readable_formats()) as image:
            width, height = image.size
            if image.getexif().get(ExifTags.Base.Orientation, 1) > 4:
                width, height = height, width
            mode = image.mode
        if mode in _GRAY_MODES or width * height > MOST_PIXELS:
            return height, width, mode not in _GRAY_MODES
        return height, width, width * height > _SMALL or _has_colour(path)
    except Exception:  # as in decode: a bad file may raise anything, and the scan will name it
        return None


def _has_colour(path: str) -> bool:
    with open(path, "rb") as file:
        image, _ = open_image(file.read(), WHITE)
    array = np.asarray(image)
    return array.ndim == 3 and bool((array != array[..., :1]).any())


def _parts(
    scan: Scan, store: Store, good: np.ndarray, labels: Labels, sources: list[str]
) -> dict[str, Part]:
    """The store cut at the parts' borders: views, not copies."""
    lengths = [len(files) for files in scan.parts.values()]
    borders = [int(good[:border].sum()) for border in np.cumsum([0, *lengths])]
    parts = {}
    for part, (start, stop) in zip(scan.parts, pairwise(borders), strict=True):
        rows = slice(start, stop)
        split = Split(store.images[rows], labels[rows], sources[rows])
        parts[part] = Part(split, store.hashes[rows])
    return parts


def _without_empty_classes(
    scan: Scan, parts: dict[str, Part], skipped: tuple[Skipped, ...]
) -> tuple[tuple[str, ...], dict[str, Part], list[str]]:
    """Classes without a training image are left out, and said; labels are renumbered."""
    counts = np.bincount(parts["train"].split.labels, minlength=len(scan.class_names))
    used = counts > 0
    names = tuple(name for name, keep in zip(scan.class_names, used, strict=True) if keep)
    _check_usable(scan, names, parts, used, skipped)
    if used.all():
        return names, parts, []
    left_out = [name for name, keep in zip(scan.class_names, used, strict=True) if not keep]
    new_label = (np.cumsum(used) - 1).astype(np.int32)
    renumbered = {
        name: Part(
            Split(part.split.images, new_label[part.split.labels], part.split.sources), part.hashes
        )
        for name, part in parts.items()
    }
    return names, renumbered, [f"classes left out, no usable image: {examples(left_out)}"]


def _check_usable(
    scan: Scan,
    names: tuple[str, ...],
    parts: dict[str, Part],
    used: np.ndarray,
    skipped: tuple[Skipped, ...],
) -> None:
    if len(names) < 2:
        broken = ""
        if skipped:
            first = skipped[0]
            broken = (
                f"; {counted(len(skipped), 'file was', 'files were')} skipped, such as "
                f"{shown(first.path)}: {first.reason}"
            )
        raise DataError(
            f"{shown(scan.root)}: found usable images in {len(names)} of {len(scan.class_names)} "
            f"class folders ({examples(scan.class_names)}); wanted at least two"
            f"{_without(names, scan.class_names)}{broken}"
        )
    for name, part in parts.items():
        unknown = sorted(
            {scan.class_names[label] for label in part.split.labels if not used[label]}
        )
        if unknown:
            raise DataError(
                f"{shown(scan.root)}: class {examples(unknown)} has images in {name}/ but none in "
                "train/; add training images, or remove the class everywhere"
            )


def _without(used: tuple[str, ...], all_names: tuple[str, ...]) -> str:
    """Which class folders gave no image, where some did."""
    empty = [name for name in all_names if name not in used]
    return f"; none in {examples(empty)}" if used and empty else ""
