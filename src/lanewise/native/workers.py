"""Threads that stay in native code.

A worker is started once. It waits inside native code for the next command; when none comes for
about a millisecond it returns to Python and sleeps on an event, so an idle program costs nothing.

What must hold at any moment: once a command has begun, every worker is awake or will be woken, and
the caller takes part too, because all of them meet at the command's barriers.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref

import numpy as np

from lanewise.errors import EngineError
from lanewise.native.driver import PARKED, SHARED, WORD, WORDS_PER_LINE
from lanewise.native.linked import Code


def yield_address() -> int:
    """The C function with which a thread gives its time slice away; it takes nothing."""
    if sys.platform == "win32":
        library = ctypes.WinDLL("kernel32")
        return ctypes.cast(library.SwitchToThread, ctypes.c_void_p).value or 0
    library = ctypes.CDLL(None)
    return ctypes.cast(library.sched_yield, ctypes.c_void_p).value or 0


class Workers:
    """`count` threads in all: the caller is number 0, the others are started at the first run."""

    def __init__(self, count: int, context: np.ndarray, library: Code) -> None:
        """`context`: the program's words; `library`: its code, kept while a thread runs in it."""
        word = ctypes.c_int64
        self._count, self._context, self._library = count, context, library
        self._address = context.ctypes.data
        self._begin = ctypes.CFUNCTYPE(word, word)(library.address("begin"))
        self._run = ctypes.CFUNCTYPE(None, word, word)(library.address("run"))
        self._follow = ctypes.CFUNCTYPE(word, word, word)(library.address("worker"))
        self._events = [threading.Event() for _ in range(count)]
        self._threads: list[threading.Thread] = []
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._closed = False

    def run(self, alone: bool = False) -> None:
        """Carry out the command that stands in the context, on all threads. `alone`: on the calling
        one, and no other sees anything of it; the context must then say that there is one."""
        with self._lock:
            if self._closed:
                raise EngineError("this program was closed; compile the net again to use it")
            self._forget_parents_threads()
            if alone:
                self._run(self._address, 0)
                return
            self._start()
            all_awake = False
            try:
                if self._begin(self._address):
                    self._wake()
                all_awake = True
            finally:
                # Also when Ctrl-C came in between: the others are on their way to the barrier.
                if not all_awake:
                    self._wake()
                self._run(self._address, 0)

    def close(self) -> None:
        """Let the threads leave native code and end. Nothing may be run afterwards."""
        with self._lock:
            self._closed = True
            self._forget_parents_threads()
            self._context[WORD["leave"]] = 1
            self._begin(self._address)
            for event in self._events:
                event.set()
            for thread in self._threads:
                # The garbage collector may close a program in one of the program's own threads.
                if thread is not threading.current_thread():
                    thread.join()
            self._threads.clear()

    def _forget_parents_threads(self) -> None:
        """In a forked process only the thread that forked lives on: begin without workers."""
        if self._process == os.getpid():
            return
        self._process = os.getpid()
        self._threads.clear()
        self._events = [threading.Event() for _ in range(self._count)]
        for name in SHARED:
            self._context[WORD[name]] = 0
        self._context[PARKED:] = 0

    def _start(self) -> None:
        """Start the threads that are missing."""
        while (number := len(self._threads) + 1) < self._count:
            thread = threading.Thread(
                target=self._live, args=(number,), name=f"lanewise-{number}", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:
                raise EngineError(
                    f"only {number} of {self._count} threads could be started ({error});"
                    " ask for fewer, for example with LANEWISE_THREADS"
                ) from error
            self._threads.append(thread)

    def _wake(self) -> None:
        for number in range(1, self._count):
            if self._context[PARKED + number * WORDS_PER_LINE]:
                self._events[number].set()

    def _live(self, number: int) -> None:
        """A worker's life: native code, sleep, native code … until it is told to leave."""
        event = self._events[number]
        while not self._follow(self._address, number):
            event.wait()
            event.clear()


def close_at_end(owner: object, workers: Workers) -> weakref.finalize:
    """Close the workers when their owner is no longer used."""
    return weakref.finalize(owner, workers.close)
