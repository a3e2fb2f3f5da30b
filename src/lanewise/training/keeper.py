"""Saving a training while it goes on: often enough, and never so often that it costs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from lanewise.errors import RunError
from lanewise.training.checkpoint import Checkpoint
from lanewise.training.run_folder import RunFolder, abandon

if TYPE_CHECKING:
    from lanewise.native import Program

LEAST_SECONDS = 5.0
# Saving may take this share of the time at most: a large net on a slow disk is saved less often.
_SHARE = 1 / 20


class Keeper:
    """Writes the state of one training into its run folder; without a folder it keeps nothing."""

    def __init__(self, run: RunFolder | None, program: Program, saved_best: int = 0) -> None:
        """`saved_best`: the epoch whose weights stand in the folder already."""
        self._run = run
        self._program = program
        self._saved_best = saved_best
        self._next = 0.0

    def begin(self, text: str, checkpoint: Checkpoint, record: dict[str, Any]) -> None:
        """The first save of a new run, from which any later moment can go on.

        RunError where the folder cannot be written; it is then removed again.
        """
        if self._run is None:
            return
        try:
            self._run.write_net(text)
            self._write(self._run, checkpoint)
            self.write_record(record, "running")
        except BaseException:
            abandon(self._run)
            raise
        self._next = time.monotonic() + LEAST_SECONDS

    def keep(self, checkpoint: Checkpoint) -> None:
        """Save if it is time to."""
        if time.monotonic() >= self._next:
            self.save(checkpoint)

    def save(self, checkpoint: Checkpoint) -> None:
        """Save now. RunError with the way to go on, where the folder cannot be written."""
        if self._run is None:
            return
        began = time.monotonic()
        try:
            self._write(self._run, checkpoint)
        except RunError as error:
            raise RunError(f"{error}; then `lanewise train --resume {self._run}`") from None
        spent = time.monotonic() - began
        self._next = time.monotonic() + max(LEAST_SECONDS, spent / _SHARE)

    def write_record(self, record: dict[str, Any], status: str) -> None:
        """run.json with its new status."""
        record["status"] = status
        if self._run is not None:
            self._run.write_record(record)

    def save_best(self, checkpoint: Checkpoint) -> None:
        """The best weights and the history alone: the last state is not worth keeping."""
        if self._run is not None:
            self._write_best(self._run, checkpoint)

    def _write(self, run: RunFolder, checkpoint: Checkpoint) -> None:
        """The state last: it vouches for the others."""
        self._write_best(run, checkpoint)
        run.write_state(self._program, checkpoint)

    def _write_best(self, run: RunFolder, checkpoint: Checkpoint) -> None:
        if checkpoint.best != self._saved_best and checkpoint.best_weights is not None:
            run.write_weights(checkpoint.best_weights, checkpoint.best)
            self._saved_best = checkpoint.best
        run.write_history(checkpoint.history)
