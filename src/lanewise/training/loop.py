"""The loop: epochs as a few native calls each, validated after every one.

Python is entered about ten times a second, for progress, for Ctrl-C and for saving. Where a call
ends has no influence on any bit: order, learning rates and dropout are functions of the position.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lanewise.errors import RunError
from lanewise.training.checkpoint import Checkpoint, EpochRecord, is_better
from lanewise.training.order import epoch_order
from lanewise.training.recipe import Recipe
from lanewise.training.schedule import learning_rates
from lanewise.training.scores import accuracy, mean_loss

if TYPE_CHECKING:
    from lanewise.data import Split
    from lanewise.native import Program

CALL_SECONDS = 0.1
# A mean loss this many times that of guessing: the weights are lost, though still finite.
_LOST = 20.0
_SAFE_RATE = 0.05


class Watcher(Protocol):
    """Who is told how the training goes."""

    def stepped(self, checkpoint: Checkpoint) -> None:
        """A native call is done."""

    def epoch_done(self, checkpoint: Checkpoint) -> None:
        """An epoch is done and validated: `checkpoint.history[-1]`."""


class Diverged(RunError):
    """The loss left all bounds; the weights are useless from here on.

    checkpoint: the last position, which still knows the best weights before that.
    """

    def __init__(self, message: str, checkpoint: Checkpoint) -> None:
        super().__init__(message)
        self.checkpoint = checkpoint


@dataclass(frozen=True)
class Loop:
    """A program on its way through the epochs of a recipe.

    keep: called whenever the state is whole (program and checkpoint agree), to save it or not.
    stop: asked after every native call; True ends the loop there.
    """

    program: Program
    train: Split
    val: Split
    classes: int
    recipe: Recipe
    watcher: Watcher
    keep: Callable[[Checkpoint], None]
    stop: Callable[[], bool]

    @property
    def steps(self) -> int:
        """Steps of one epoch."""
        return self.recipe.steps_per_epoch(len(self.train))

    def run(self, checkpoint: Checkpoint) -> Checkpoint:
        """From `checkpoint` to the end, or to where `stop` said so. Diverged where it diverges."""
        while checkpoint.epoch < self.recipe.epochs:
            checkpoint = self._epoch(checkpoint)
            if checkpoint.step:
                return checkpoint
            self.keep(checkpoint)
            if self.stop():
                return checkpoint
        return checkpoint

    def _epoch(self, checkpoint: Checkpoint) -> Checkpoint:
        """The rest of the current epoch; at the start of the next one unless it was stopped."""
        order = epoch_order(len(self.train), self.recipe.seed, checkpoint.epoch)
        call = 1
        while checkpoint.step < self.steps:
            began = time.perf_counter()
            count = min(call, self.steps - checkpoint.step)
            checkpoint = self._call(checkpoint, order, count)
            spent = time.perf_counter() - began
            call = max(1, round(CALL_SECONDS * count / max(spent, 1e-6)))
            self.watcher.stepped(checkpoint)
            if checkpoint.step < self.steps:
                self.keep(checkpoint)
                if self.stop():
                    return checkpoint
        return self._finish(checkpoint)

    def _call(self, checkpoint: Checkpoint, order: np.ndarray, count: int) -> Checkpoint:
        """`count` steps in one native call."""
        recipe, first = self.recipe, checkpoint.step
        began = time.perf_counter()
        done = self.program.run_steps(
            self.train.images,
            self.train.labels,
            order[first * recipe.batch : (first + count) * recipe.batch],
            batch=recipe.batch,
            learning_rates=self._rates(checkpoint.epoch, first, count),
            seed=recipe.seed,
            smoothing=recipe.smoothing,
        )
        seconds = time.perf_counter() - began
        checkpoint = checkpoint.after_steps(done.losses, done.corrects, seconds)
        if not np.isfinite(done.losses).all():
            bad = int(np.argmin(np.isfinite(done.losses)))
            self._refuse(checkpoint, first + bad, float(done.losses[bad]))
        return checkpoint

    def _rates(self, epoch: int, first: int, count: int) -> np.ndarray:
        """float32 (count,): the learning rates from step `first` of `epoch` on."""
        recipe = self.recipe
        return learning_rates(
            recipe.schedule,
            epoch * self.steps + first,
            count,
            recipe.epochs * self.steps,
            recipe.learning_rate,
            recipe.warm_up,
        )

    def _finish(self, checkpoint: Checkpoint) -> Checkpoint:
        """Validate, and note whether these weights are the best so far."""
        record = self._record(checkpoint)
        if record.loss > _LOST * math.log(max(2, self.classes)):
            self._refuse(checkpoint, self.steps - 1, record.loss)
        if record.val_loss is not None and not math.isfinite(record.val_loss):
            self._refuse(checkpoint, self.steps - 1, record.val_loss)
        checkpoint = checkpoint.after_epoch(record)
        if is_better(checkpoint.history, checkpoint.best):
            weights = {name: array.copy() for name, array in self.program.learned.items()}
            checkpoint = checkpoint.with_best(weights)
        self.watcher.epoch_done(checkpoint)
        return checkpoint

    def _record(self, checkpoint: Checkpoint) -> EpochRecord:
        images = len(self.train)
        sizes = np.full(self.steps, self.recipe.batch, np.int64)
        sizes[-1] = images - self.recipe.batch * (self.steps - 1)
        val_loss = val_accuracy = None
        began = time.perf_counter()
        if len(self.val):
            logits = self.program.forward(self.val.images)
            val_loss = mean_loss(logits, self.val.labels)
            val_accuracy = accuracy(logits, self.val.labels)
        return EpochRecord(
            epoch=checkpoint.epoch + 1,
            loss=math.fsum(checkpoint.losses * sizes) / images,
            train_accuracy=int(checkpoint.corrects.sum()) / images,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            learning_rate=float(self._rates(checkpoint.epoch, self.steps - 1, 1)[0]),
            seconds=round(checkpoint.seconds + time.perf_counter() - began, 4),
            images_per_second=round(images / max(checkpoint.seconds, 1e-9), 1),
        )

    def _refuse(self, checkpoint: Checkpoint, step: int, loss: float) -> None:
        rate = float(self._rates(checkpoint.epoch, step, 1)[0])
        raise Diverged(
            f"epoch {checkpoint.epoch + 1} step {step + 1}: the loss is {loss:g} at learning rate "
            f"{rate:.3g}, the training has diverged; train again with a smaller one, such as "
            f"--lr {min(self.recipe.learning_rate / 4, _SAFE_RATE):.2g}",
            checkpoint,
        )
