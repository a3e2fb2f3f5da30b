"""Threads that stay in native code.

A worker is started once. It waits inside native code for the next command; when none comes for
about a millisecond it returns to Python and sleeps on an event, so an idle program costs nothing.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import weakref
from collections.abc import Callable

import numpy as np

from lanewise.errors import EngineError
from lanewise.native.driver import PARKED, WORD, WORDS_PER_LINE


def yield_address() -> int:
    """The C function with which a thread gives its time slice away; it takes nothing."""
    if sys.platform == "win32":
        library = ctypes.WinDLL("kernel32")
        return ctypes.cast(library.SwitchToThread, ctypes.c_void_p).value or 0
    library = ctypes.CDLL(None)
    return ctypes.cast(library.sched_yield, ctypes.c_void_p).value or 0


class Workers:
    """`count` threads in all: the caller is number 0, the others are started at the first run."""

    def __init__(
        self,
        count: int,
        context: np.ndarray,
        begin: Callable[[int], int],
        run: Callable[[int, int], None],
        follow: Callable[[int, int], int],
    ) -> None:
        """`context`: the program's words; the functions are native code, without the GIL."""
        self._count = count
        self._context = context
        self._address = context.ctypes.data
        self._begin, self._run, self._follow = begin, run, follow
        self._events = [threading.Event() for _ in range(count)]
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False

    def run(self) -> None:
        """Carry out the command that stands in the context, on all threads."""
        with self._lock:
            if self._closed:
                raise EngineError("this program was closed; compile the net again to use it")
            if len(self._threads) < self._count - 1:
                self._start()
            if self._begin(self._address):
                self._wake()
            self._run(self._address, 0)

    def close(self) -> None:
        """Let the threads leave native code and end. Nothing may be run afterwards."""
        with self._lock:
            self._closed = True
            self._context[WORD["leave"]] = 1
            self._begin(self._address)
            for event in self._events:
                event.set()
            for thread in self._threads:
                thread.join()
            self._threads.clear()

    def _start(self) -> None:
        for number in range(1, self._count):
            thread = threading.Thread(
                target=_follow,
                args=(self._follow, self._address, number, self._events[number]),
                name=f"lanewise-{number}",
                daemon=True,
            )
            self._threads.append(thread)
            thread.start()

    def _wake(self) -> None:
        for number in range(1, self._count):
            if self._context[PARKED + number * WORDS_PER_LINE]:
                self._events[number].set()


def _follow(
    follow: Callable[[int, int], int], context: int, number: int, event: threading.Event
) -> None:
    """A worker's life: native code, sleep, native code … until it is told to leave."""
    while not follow(context, number):
        event.wait()
        event.clear()


def close_at_end(owner: object, workers: Workers) -> weakref.finalize:
    """Close the workers when their owner is no longer used."""
    return weakref.finalize(owner, workers.close)
