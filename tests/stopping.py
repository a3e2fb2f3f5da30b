"""A training that is stopped after some native calls."""

from __future__ import annotations

from lanewise.training.checkpoint import Checkpoint
from lanewise.training.progress import Silent


class Stop(Exception):
    """Whatever may end a process."""


class StopAfter(Silent):
    """Raises after so many native calls."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def stepped(self, checkpoint: Checkpoint) -> None:
        self.left -= 1
        if not self.left:
            raise Stop
