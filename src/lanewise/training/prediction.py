"""Labels for files and folders, one answer for each, whatever is wrong with the others."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lanewise.data import list_images
from lanewise.data.decode import decoded_blocks
from lanewise.errors import DataError
from lanewise.training.model import Model
from lanewise.training.scores import softmax

MOST = 5


@dataclass(frozen=True)
class Prediction:
    """The label of one image; `top`: the likeliest classes with their probabilities, best first."""

    path: str
    label: str
    confidence: float
    top: tuple[tuple[str, float], ...]

    def to_json(self) -> dict[str, Any]:
        """An entry of `lanewise predict --json`."""
        top = [[label, share] for label, share in self.top]
        return {"path": self.path, "label": self.label, "confidence": self.confidence, "top": top}


@dataclass(frozen=True)
class Failure:
    """A path without an answer, and why."""

    path: str
    error: str

    def to_json(self) -> dict[str, Any]:
        """An entry of `lanewise predict --json`."""
        return {"path": self.path, "error": self.error}


def predict_paths(
    model: Model, paths: Sequence[str | os.PathLike[str]]
) -> Iterator[Prediction | Failure]:
    """One answer per image, in the order of `paths`; a folder stands for its images, sorted."""
    for given in paths:
        try:
            found = list_images([given])
        except DataError as error:
            path = os.fspath(given)
            yield Failure(path, str(error).removeprefix(f"{path}: "))
        else:
            yield from _predict_files(model, found)


def _predict_files(model: Model, paths: list[str]) -> Iterator[Prediction | Failure]:
    names = iter(paths)
    for block in decoded_blocks(paths, model.preprocessing):
        good = [not isinstance(outcome, str) for outcome in block.outcomes]
        probabilities = iter(softmax(model.forward(block.images[good])))
        for outcome, path in zip(block.outcomes, names, strict=False):
            if isinstance(outcome, str):
                yield Failure(path, outcome)
            else:
                yield _prediction(path, next(probabilities), model.class_names)


def _prediction(
    path: str, probabilities: npt.NDArray[np.float32], names: tuple[str, ...]
) -> Prediction:
    order = np.argsort(-probabilities, kind="stable")[:MOST]
    top = tuple((names[index], float(probabilities[index])) for index in order)
    return Prediction(path, *top[0], top)
