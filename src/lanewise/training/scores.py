"""How good a classifier is: accuracy and its interval, per class, confusion, worst mistakes.

Logits are float32 (N, K), labels int32 (N,). Everything here is a function of those two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Logits: TypeAlias = npt.NDArray[np.float32]
Labels: TypeAlias = npt.NDArray[np.int32]

_Z95 = 1.959963984540054  # the normal distribution's 97.5 % point


@dataclass(frozen=True)
class ClassScore:
    """precision: how many of those called so are so; recall: how many of these were found.

    None where the denominator is zero: never predicted, or no image of the class.
    """

    name: str
    precision: float | None
    recall: float | None
    count: int


@dataclass(frozen=True)
class Mistake:
    """An image that was labelled wrongly, and how sure the model was of it."""

    index: int
    source: str
    true: str
    predicted: str
    confidence: float


@dataclass(frozen=True)
class Scores:
    """A model judged on labelled images. confusion[i][j]: images of class i called class j."""

    accuracy: float
    interval: tuple[float, float]
    loss: float
    count: int
    classes: tuple[ClassScore, ...]
    confusion: npt.NDArray[np.int64]
    worst: tuple[Mistake, ...]

    def to_json(self) -> dict[str, Any]:
        """The document of `lanewise test --json`."""
        return {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "classes": [vars(score) for score in self.classes],
            "confusion": self.confusion.tolist(),
            "worst": [
                {
                    "path": mistake.source,
                    "true": mistake.true,
                    "predicted": mistake.predicted,
                    "confidence": mistake.confidence,
                }
                for mistake in self.worst
            ],
        }


def score(
    logits: Logits, labels: Labels, names: tuple[str, ...], sources: Any, worst: int = 12
) -> Scores:
    """All of it. `sources[i]` says where image i came from."""
    predicted = logits.argmax(axis=1)
    confusion = confusion_matrix(labels, predicted, len(names))
    right = int(np.trace(confusion))
    return Scores(
        accuracy=right / len(labels),
        interval=wilson(right, len(labels)),
        loss=mean_loss(logits, labels),
        count=len(labels),
        classes=tuple(_class_scores(confusion, names)),
        confusion=confusion,
        worst=worst_mistakes(logits, labels, names, sources, worst),
    )


def accuracy(logits: Logits, labels: Labels) -> float:
    """The share of images whose highest logit is at their label."""
    return int((logits.argmax(axis=1) == labels).sum()) / len(labels)


def mean_loss(logits: Logits, labels: Labels) -> float:
    """The mean softmax cross-entropy, in nats, without label smoothing."""
    with np.errstate(invalid="ignore"):  # infinite logits give NaN, which the caller looks for
        shifted = logits - logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1, dtype=np.float64))
    return float(np.mean(log_sum - shifted[np.arange(len(labels)), labels]))


def softmax(logits: Logits) -> npt.NDArray[np.float32]:
    """float32 (N, K): the probabilities, each row adding up to 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: npt.NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927): sound for few images and for 100 %."""
    share, square = right / count, _Z95 * _Z95
    middle = (share + square / (2 * count)) / (1 + square / count)
    spread = share * (1 - share) / count + square / (4 * count * count)
    half = _Z95 * math.sqrt(spread) / (1 + square / count)
    low = 0.0 if right == 0 else max(0.0, middle - half)
    high = 1.0 if right == count else min(1.0, middle + half)
    return low, high


def confusion_matrix(
    labels: Labels, predicted: npt.NDArray[np.intp], classes: int
) -> npt.NDArray[np.int64]:
    """int64 (K, K): row = true class, column = predicted class."""
    cells = labels.astype(np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def worst_mistakes(
    logits: Logits, labels: Labels, names: tuple[str, ...], sources: Any, most: int
) -> tuple[Mistake, ...]:
    """The wrong answers, the surest first; equally sure ones in the order of the images."""
    predicted = logits.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    confidence = softmax(logits[wrong]).max(axis=1, initial=0.0)
    order = np.argsort(-confidence, kind="stable")[:most]
    return tuple(
        Mistake(
            index=int(wrong[place]),
            source=str(sources[int(wrong[place])]),
            true=names[labels[wrong[place]]],
            predicted=names[predicted[wrong[place]]],
            confidence=float(confidence[place]),
        )
        for place in order
    )


def _class_scores(confusion: npt.NDArray[np.int64], names: tuple[str, ...]) -> list[ClassScore]:
    right = np.diag(confusion).tolist()
    true = confusion.sum(axis=1).tolist()
    called = confusion.sum(axis=0).tolist()
    return [
        ClassScore(name, _share(hit, said), _share(hit, count), count)
        for name, hit, said, count in zip(names, right, called, true, strict=True)
    ]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
