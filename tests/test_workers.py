"""The threads in native code: their number, forks, interruptions, and what outlives what."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable

import numpy as np
import pytest

from lanewise.errors import EngineError
from lanewise.native.compile import compile_net
from lanewise.native.program import Program
from lanewise.net.parse import parse

NET = parse("input 1x8x8; conv 4 k3 pad1; relu; maxpool 2; flatten; linear 3")
IMAGES = np.random.default_rng(0).integers(0, 256, (100, 1, 8, 8), dtype=np.uint8)


def compiled(threads: int = 2) -> Program:
    program = compile_net(NET, threads=threads)
    program.initialise(1)
    return program


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_starts_its_own_threads() -> None:
    with compiled() as program:
        expected = program.forward(IMAGES)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if np.array_equal(program.forward(IMAGES), expected) else 2
                program.close()
            finally:
                os._exit(status)
        assert _exit_status(child) == 0
        np.testing.assert_array_equal(program.forward(IMAGES), expected)


def _exit_status(child: int, seconds: float = 20.0) -> int | None:
    """None where the process had to be killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


INTERRUPTED = """
import time
import numpy as np
from lanewise.native.compile import compile_net
from lanewise.native.workers import Workers
from lanewise.net.parse import parse

program = compile_net(parse("input 1x4x4; flatten; linear 3"), threads=3)
program.initialise(1)
images = np.full((70, 1, 4, 4), 9, np.uint8)
workers = program._workers
begin, wake = workers._begin, Workers._wake

def interrupted(*arguments):
    workers._begin, Workers._wake = begin, wake
    {before}
    raise KeyboardInterrupt

expected = program.forward(images)
time.sleep({seconds})
{where} = interrupted
try:
    program.forward(images)
    raise SystemExit("not interrupted")
except KeyboardInterrupt:
    pass
assert np.array_equal(program.forward(images), expected)
program.close()
"""


@pytest.mark.parametrize(
    ("where", "before", "seconds"),
    [
        ("workers._begin", "begin(*arguments)", 0.0),  # the workers wait in native code
        ("workers._begin", "begin(*arguments)", 0.3),  # they sleep
        ("Workers._wake", "workers._events[1].set()", 0.3),  # one was woken, one was not
    ],
)
def test_an_interruption_leaves_nobody_waiting(where: str, before: str, seconds: float) -> None:
    """Ctrl-C after the workers were sent off, and before this thread joined them."""
    code = INTERRUPTED.format(where=where, before=before, seconds=seconds)
    done = subprocess.run([sys.executable, "-c", code], timeout=30, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_code_outlives_the_workers_that_run_in_it() -> None:
    """Also where the program is part of a circle that the garbage collector takes apart."""
    for _ in range(5):
        program = compiled()
        program.forward(IMAGES)
        alive: list[int] = []
        before = threading.active_count()
        weakref.finalize(program._library, lambda a=alive: a.append(threading.active_count()))
        program.itself = program  # type: ignore[attr-defined]
        del program
        gc.collect()
        assert alive == [before - 1]


def test_the_collector_may_run_in_a_worker() -> None:
    """Workers.close on a thread of its own, as when the collector runs there."""
    program = compiled()
    program.forward(IMAGES)
    workers = program._workers
    failed: list[BaseException] = []

    def close() -> None:
        try:
            workers.close()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=close)
    workers._threads.append(thread)  # as if it were one of them
    thread.start()
    thread.join()
    assert not failed


def test_no_room_for_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    start: Callable[[threading.Thread], None] = threading.Thread.start

    def start_one(thread: threading.Thread) -> None:
        if thread.name == "lanewise-2":
            raise RuntimeError("can't start new thread")
        start(thread)

    program = compiled(threads=3)
    monkeypatch.setattr(threading.Thread, "start", start_one)
    before = threading.active_count()
    with pytest.raises(EngineError, match="2 of 3 threads"):
        program.forward(IMAGES)
    monkeypatch.undo()
    expected = compiled(threads=1).forward(IMAGES)
    np.testing.assert_array_equal(program.forward(IMAGES), expected)
    program.close()
    assert threading.active_count() == before


def test_one_slice_wakes_nobody() -> None:
    """Images of one vector are one thread's work where nothing is shared; the bits are the same."""
    with compiled(threads=3) as program:
        few = program.forward(IMAGES[:16])
        assert not program._workers._threads
        many = program.forward(IMAGES)
        assert len(program._workers._threads) == 2
        np.testing.assert_array_equal(many[:16], few)
        for images in (5, 16, 40, 16, 100):  # the others come and go
            np.testing.assert_array_equal(program.forward(IMAGES[:images]), many[:images])


def test_closing_twice_is_closing_once() -> None:
    program = compiled()
    program.forward(IMAGES)
    program.close()
    before = threading.active_count()
    program.close()
    assert threading.active_count() == before
