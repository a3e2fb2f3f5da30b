"""The lines that a run begins with: what the data is, and everything that was done to it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lanewise.data.data_set import Skipped, Split
from lanewise.data.fit import crop_box
from lanewise.data.loaded import Loaded
from lanewise.data.messages import counted, examples, shown
from lanewise.data.preprocessing import Preprocessing

_MOST_CLASSES = 5
_MOST_SKIPPED = 5


def summarise(
    loaded: Loaded,
    splits: Mapping[str, Split],
    rule: Preprocessing,
    how_split: str,
    duplicates: Mapping[str, int],
) -> tuple[str, ...]:
    """One fact a line, the most important first."""
    sizes = ", ".join(f"{name} {len(split):,}" for name, split in splits.items())
    lines = [
        f"data: {shown(loaded.name)}, {_classes(loaded, splits)}",
        f"split: {sizes} ({how_split})",
        *_input(loaded, rule),
    ]
    if loaded.kinds:
        kinds = sorted(loaded.kinds.items(), key=lambda item: (-item[1], item[0]))
        lines.append("files: " + ", ".join(f"{kind} {count:,}" for kind, count in kinds))
    lines.append("duplicates: " + _duplicates(splits, duplicates))
    lines += [f"note: {shown(note)}" for note in loaded.notes]
    return (*lines, *_skipped(loaded.skipped))


def _classes(loaded: Loaded, splits: Mapping[str, Split]) -> str:
    classes = len(loaded.class_names)
    counts = np.zeros(classes, np.intp)
    for split in splits.values():
        counts += np.bincount(split.labels, minlength=classes)
    total = counted(int(counts.sum()), "image")
    if classes <= _MOST_CLASSES and loaded.named:
        pairs = zip(loaded.class_names, counts, strict=True)
        return f"{total}: " + ", ".join(f"{shown(name)} {count:,}" for name, count in pairs)
    names = f" ({examples(loaded.class_names, 3)})" if loaded.named else ""
    return f"{total}, {classes:,} classes of {counts.min():,} to {counts.max():,}{names}"


def _input(loaded: Loaded, rule: Preprocessing) -> list[str]:
    shape = "x".join(map(str, rule.shape))
    target = (rule.height, rule.width)
    if set(loaded.sizes) <= {target}:
        return [f"input: {shape} {rule.colour}, every image has that size"]
    words = f"fit: {rule.fit}"
    if rule.fit == "crop":
        words += f", {_cropped(loaded.sizes, target)}"
    resized = f"{rule.filter} from {_range(loaded.sizes)}, EXIF orientation applied"
    return [f"input: {shape} {rule.colour}, {resized}", words]


def _cropped(sizes: Mapping[tuple[int, int], int], target: tuple[int, int]) -> str:
    """How many images lose how much to the crop, and what would keep it."""
    losses: list[float] = []
    for (height, width), count in sizes.items():
        left, top, right, bottom = crop_box(width, height, target[1], target[0])
        lost = 1 - (right - left) * (bottom - top) / (width * height)
        losses += [lost] * (count if lost > 0.005 else 0)
    if not losses:
        return "nothing is cut off"
    share = f"{100 * float(np.median(losses)):.0f} % (median)"
    total = sum(sizes.values())
    return f"{len(losses):,} of {total:,} images lose {share} of their area; pad would keep it"


def _range(sizes: Mapping[tuple[int, int], int]) -> str:
    smallest = min(sizes, key=lambda size: size[0] * size[1])
    largest = max(sizes, key=lambda size: size[0] * size[1])
    low, high = (f"{height}x{width}" for height, width in (smallest, largest))
    return low if len(sizes) == 1 else f"{low} … {high}"


def _duplicates(splits: Mapping[str, Split], duplicates: Mapping[str, int]) -> str:
    found = [
        f"{count:,} of {len(splits[name]):,} {name} images"
        for name, count in duplicates.items()
        if count
    ]
    if not found:
        return "no image has the same pixels as one of another split"
    return f"{' and '.join(found)} have the very pixels of a training image"


def _skipped(skipped: tuple[Skipped, ...]) -> list[str]:
    if not skipped:
        return []
    lines = [f"skipped: {counted(len(skipped), 'file')}"]
    lines += [f"  {shown(item.path)}: {item.reason}" for item in skipped[:_MOST_SKIPPED]]
    if len(skipped) > _MOST_SKIPPED:
        lines.append(f"  and {len(skipped) - _MOST_SKIPPED:,} more")
    return lines
