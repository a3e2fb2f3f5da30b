"""`open_data`: from what the user names to splits that are ready to train on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lanewise.data.data_set import DataSet, Split
from lanewise.data.forms import Shape, recognise
from lanewise.data.loaded import Loaded, Part
from lanewise.data.messages import examples
from lanewise.data.moments import channel_moments
from lanewise.data.preprocessing import Preprocessing
from lanewise.data.rows import count_duplicates, fingerprint
from lanewise.data.split import stratified, wanted_count
from lanewise.data.summary import summarise
from lanewise.errors import DataError

Progress = Callable[[int, int], None]
ORDER = ("train", "val", "test")


def open_data(
    spec: Any,
    *,
    input_shape: Shape | None = None,
    fit: str | None = None,
    seed: int = 0,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    preprocessing: Preprocessing | None = None,
    on_progress: Progress | None = None,
    cache: bool = True,
) -> DataSet:
    """The data set that `spec` names (the forms: `lanewise.data`), decoded, split and described.

    input_shape: (C, H, W) that the net wants; None: the images' own (`native_shape`).
    fit: "crop" (default), "pad" or "stretch" (`lanewise.data.fit`).
    val_fraction, test_fraction: the share of a split that the data does not bring itself, of all
        its training images; stratified by class, chosen by `seed`. None: a tenth, at most 5,000.
        0: none (then `val` is empty, `test` None).
    preprocessing: a stored record, taken as it is: shape, fit, mean and std are then not decided.
    on_progress: called with (files done, files in all) while a folder is decoded.
    cache: keep a folder's decoded images on disk for the next time.
    Raises DataError with the place, what was found, what was wanted, and what to do.
    """
    form = recognise(spec)
    rule = preprocessing or Preprocessing(*(input_shape or form.native_shape()), fit=fit or "crop")
    loaded = form.load(rule, on_progress, cache)
    fractions = {"val": val_fraction, "test": test_fraction}
    parts, how_split = _divide(loaded, fractions, seed)
    if preprocessing is None:
        mean, std = channel_moments(parts["train"].split.images)
        rule = replace(rule, mean=mean, std=std)
    return _described(loaded, parts, rule, how_split)


def open_test(
    spec: Any,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    *,
    on_progress: Progress | None = None,
    cache: bool = True,
) -> Split:
    """Images to judge a trained model by: the data's own test part, or all of it if it has none.

    Labels are indices into the model's `class_names`. Raises DataError where the data has a class
    that the model does not know.
    """
    loaded = recognise(spec).load(preprocessing, on_progress, cache)
    if "test" in loaded.parts:
        splits = [loaded.parts["test"].split]
    else:
        splits = [part.split for part in loaded.parts.values()]
    new_label = _label_map(loaded, tuple(class_names))
    whole = splits[0]
    if len(splits) > 1:
        images = np.concatenate([split.images for split in splits])
        labels = np.concatenate([split.labels for split in splits])
        whole = Split(images, labels, [name for split in splits for name in split.sources])
    return Split(whole.images, new_label[whole.labels], whole.sources)


def native_shape(spec: Any) -> Shape:
    """(C, H, W) of the data's own images, from a cheap look: digits (1, 8, 8), MNIST (1, 28, 28).

    A folder gives the median height and width of a sample, and one channel if all of it is gray.
    """
    return recognise(spec).native_shape()


def _divide(
    loaded: Loaded, fractions: dict[str, float | None], seed: int
) -> tuple[dict[str, Part], str]:
    """The parts "train", "val" and maybe "test", and how they came about in words."""
    given = [name for name in ("test", "val") if name in loaded.parts]
    made = [name for name in ("test", "val") if name not in loaded.parts]
    for name in given:
        if fractions[name] is not None:
            raise DataError(
                f"{loaded.name}: it has a {name} split of its own; leave {name}_fraction out"
            )
    train = loaded.parts["train"]
    wanted = [wanted_count(len(train), fractions[name], f"{name}_fraction") for name in made]
    if sum(wanted) >= len(train):
        raise DataError(
            f"{loaded.name}: {len(train)} training images cannot give {sum(wanted)} to "
            f"{' and '.join(made)}; lower val_fraction and test_fraction, or add images"
        )
    parts = dict(loaded.parts)
    if sum(wanted):
        kept, *chosen = stratified(train.split.labels, tuple(wanted), seed)
        parts.update({name: train.take(rows) for name, rows in zip(made, chosen, strict=True)})
        parts["train"] = train.take(kept)
    elif made:
        parts.update({name: train.take(np.empty(0, np.intp)) for name in made})
    if not len(parts["test"]):
        del parts["test"]
    words = [f"{' and '.join(reversed(given))} as given"] if given else []
    words += [f"{' and '.join(reversed(made))} stratified from train, seed {seed}"] if made else []
    return {name: parts[name] for name in ORDER if name in parts}, "; ".join(words)


def _described(
    loaded: Loaded, parts: dict[str, Part], rule: Preprocessing, how_split: str
) -> DataSet:
    splits = {name: part.split for name, part in parts.items()}
    train = parts["train"]
    duplicates = {
        name: count_duplicates(train.split, train.hashes, part.split, part.hashes)
        for name, part in parts.items()
        if name != "train"
    }
    hashes = [part.hashes for part in parts.values()]
    return DataSet(
        name=loaded.name,
        class_names=loaded.class_names,
        train=splits["train"],
        val=splits["val"],
        test=splits.get("test"),
        preprocessing=rule,
        skipped=loaded.skipped,
        fingerprint=fingerprint(loaded.class_names, list(splits.items()), hashes),
        summary=summarise(loaded, splits, rule, how_split, duplicates),
    )


def _label_map(loaded: Loaded, names: tuple[str, ...]) -> np.ndarray:
    """The model's label for each label of the data."""
    places = {name: index for index, name in enumerate(names)}
    if not loaded.named and len(loaded.class_names) <= len(names):
        return np.arange(len(loaded.class_names), dtype=np.int32)
    unknown = [name for name in loaded.class_names if name not in places]
    if unknown:
        raise DataError(
            f"{loaded.name}: found classes that the model does not know: {examples(unknown)}; "
            f"it knows {examples(names)}. Rename or remove those folders"
        )
    return np.array([places[name] for name in loaded.class_names], np.int32)
