"""Ctrl-C while training: noted, and obeyed where the state is whole.

An exception in the middle of the bookkeeping could save a position that the weights do not have. So
the signal only sets a flag, which the loop reads after every native call. Pressing again while the
state is being saved changes nothing.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupt:
    """`with Interrupt() as interrupt:` turns Ctrl-C into `interrupt.asked`.

    Outside the main thread signals cannot be caught, and nothing is changed there.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def leave_ignored(self) -> None:
        """Ctrl-C does nothing any more, until the process ends: all is saved, it is leaving."""
        self._before = signal.SIG_IGN if self._before is not None else None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.asked:
            # A large net may need a while for the step it is in.
            sys.stderr.write("\nlanewise: stopping after this step, then saving …\n")
        self.asked = True
