"""Where a training stands, apart from what the program itself holds: values that only grow."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class EpochRecord:
    """One finished epoch: a line of history.jsonl. Losses and accuracies are means over images.

    loss, train_accuracy: of the batches as they were trained on, label smoothing included.
    val_loss, val_accuracy: afterwards, without it; None where there are no validation images.
    learning_rate: of the last step. seconds: training and validation; images_per_second: training.
    """

    epoch: int
    loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    learning_rate: float
    seconds: float
    images_per_second: float

    def to_json(self) -> dict[str, Any]:
        """Plain values; `EpochRecord(**values)` gives the record back."""
        return asdict(self)


@dataclass(frozen=True)
class Checkpoint:
    """The position of a training: `epoch` are finished, `step` steps of the next one done.

    losses float64 (step,), corrects int64 (step,): of those steps. seconds: spent on them.
    best: number (1 …) of the epoch whose weights are the best so far, 0 before the first.
    best_weights: a copy of them; None where the file of the run folder holds them.
    """

    epoch: int = 0
    step: int = 0
    losses: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0, np.float64))
    corrects: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    seconds: float = 0.0
    history: tuple[EpochRecord, ...] = ()
    best: int = 0
    best_weights: dict[str, npt.NDArray[np.float32]] | None = None

    def after_steps(
        self,
        losses: npt.NDArray[np.float64],
        corrects: npt.NDArray[np.int64],
        seconds: float,
    ) -> Checkpoint:
        """Some steps further in the same epoch."""
        return replace(
            self,
            step=self.step + len(losses),
            losses=np.concatenate([self.losses, losses]),
            corrects=np.concatenate([self.corrects, corrects]),
            seconds=self.seconds + seconds,
        )

    def after_epoch(self, record: EpochRecord) -> Checkpoint:
        """At the start of the next epoch."""
        fresh = Checkpoint(epoch=self.epoch + 1, history=(*self.history, record))
        return replace(fresh, best=self.best, best_weights=self.best_weights)

    def with_best(self, weights: dict[str, npt.NDArray[np.float32]]) -> Checkpoint:
        """The epoch just finished has the best weights so far."""
        return replace(self, best=self.epoch, best_weights=weights)


def is_better(history: tuple[EpochRecord, ...], best: int) -> bool:
    """Whether the last epoch beats epoch `best`: a higher validation accuracy; a tie stays with the
    earlier one. Without validation images the last epoch is always taken."""
    accuracy = history[-1].val_accuracy
    if accuracy is None or best == 0:
        return True
    best_accuracy = history[best - 1].val_accuracy
    return best_accuracy is None or accuracy > best_accuracy
