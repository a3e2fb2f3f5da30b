"""Contenders in processes of their own, seen from here: started, compared, given their turns.

The process times its turns itself, and is stopped between them (SIGSTOP), so that none of its
threads can spin while somebody else is measured. All of a contest are started at once and build
beside each other; whoever is not ready in time, or misses a package, is left out and named.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lanewise.net.show import show
from measure import ROOT, Contender
from peers.work import ARRAYS, Arrays, Kind, Work, store_arrays, store_work

PATIENCE = 120.0  # seconds, for building and compiling
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1", "GLOG_minloglevel": "3"}
KEPT = Path.home() / ".cache" / "lanewise-peers"  # what they compiled, for the next time
KEEP = {
    "JAX_COMPILATION_CACHE_DIR": str(KEPT / "jax"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "TF_XLA_FLAGS": f"--tf_xla_persistent_cache_directory={KEPT / 'tensorflow'}",
}


@dataclass(frozen=True)
class Peer:
    """A setting of somebody: what it is called, the file of `peers/`, what it can do."""

    name: str
    setting: str
    module: str
    kind: Kind
    options: Mapping[str, Any] = field(default_factory=dict)
    model: bool = False  # whether it needs model.onnx
    winograd: bool = False  # whether it may transform: its logits are a little less exact
    slow: bool = False  # whether a quick look leaves it out where there is much to do
    slow_at_depthwise: bool = False  # and where a convolution is depthwise

    def __str__(self) -> str:
        return f"{self.name} {self.setting}"


PEERS: tuple[Peer, ...] = (
    Peer("Keras, TensorFlow", "fp32", "with_keras", "training",
         {"backend": "tensorflow", "xla": False}),
    Peer("Keras, TensorFlow", "fp32, XLA", "with_keras", "training",
         {"backend": "tensorflow", "xla": True}, slow_at_depthwise=True),
    Peer("Keras, JAX", "fp32, XLA", "with_keras", "training", {"backend": "jax"},
         slow_at_depthwise=True),
    Peer("tinygrad", "fp32, JIT", "with_tinygrad", "training", slow=True),
    Peer("ncnn", "fp32", "with_ncnn", "inference", winograd=True),
    Peer("ncnn", "fp32, 1 thread", "with_ncnn", "inference", {"threads": 1}, winograd=True),
    Peer("MNN", "fp32", "with_mnn", "inference", model=True, winograd=True),
    Peer("MNN", "fp32, 1 thread", "with_mnn", "inference", {"threads": 1}, True, True),
)  # fmt: skip


def add_peer_options(parser: ArgumentParser) -> None:
    """Who takes part in a process of its own, and with whose packages."""
    parser.add_argument(
        "--peers",
        metavar="PYTHON",
        default=sys.executable,
        help="the Python that Keras, tinygrad, ncnn and MNN are installed for (this one)",
    )
    parser.add_argument("--no-peers", action="store_true", help="without those")
    parser.add_argument(
        "--beam", metavar="N", type=int, default=0, help="also tinygrad with a search so wide (0)"
    )
    parser.add_argument(
        "--patience",
        metavar="S",
        type=float,
        help=f"seconds that they may take to compile ({PATIENCE:.0f}, in a quick look fewer)",
    )


def peers_of(args: Namespace) -> tuple[Peer, ...]:
    """Those that the options ask for."""
    if args.no_peers:
        return ()
    return (*PEERS, *_searching(args.beam)) if args.beam else PEERS


def _searching(beam: int) -> tuple[Peer, ...]:
    """tinygrad with a search of this width for faster kernels."""
    setting, options = f"fp32, JIT, BEAM={beam}", {"beam": beam}
    return (Peer("tinygrad", setting, "with_tinygrad", "training", options, slow=True),)


class Refused(Exception):
    """Why a contender cannot take part."""


class Served:
    """One process: started, asked once what it computed, then given turns."""

    def __init__(self, peer: Peer, folder: Path, threads: int, python: str) -> None:
        self.peer, self.folder = peer, folder
        self.versions: dict[str, str] = {}
        self._began = time.monotonic()
        self._errors = (folder / "errors.txt").open("wb")
        command = [python, str(ROOT / "bench" / "serve.py"), str(folder), peer.module]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=_environment(threads),
            preexec_fn=_on_cores(threads),
        )

    def ready(self, patience: float) -> Arrays:
        """What it computed; Refused where it will not run, or not in time."""
        left = patience - (time.monotonic() - self._began)
        told = self._answer(max(1.0, left))
        if not told["ready"]:
            raise Refused(told["reason"])
        self.versions = told["versions"]
        with np.load(self.folder / "outcome.npz") as arrays:
            found = {name: arrays[name] for name in arrays}
        self._signal("SIGSTOP")
        return found

    def run(self, times: int) -> float:
        """A turn: its seconds, as it measured them."""
        assert self._process.stdin
        self._signal("SIGCONT")
        self._process.stdin.write(f"{times}\n".encode())
        self._process.stdin.flush()
        seconds = float(self._answer(None)["seconds"])
        self._signal("SIGSTOP")
        return seconds

    def end(self) -> None:
        """Ends the process, whatever it is doing."""
        self._signal("SIGCONT")
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def _answer(self, patience: float | None) -> dict[str, Any]:
        assert self._process.stdout
        if patience is not None and hasattr(select, "poll"):
            waiting = select.poll()
            waiting.register(self._process.stdout, select.POLLIN | select.POLLHUP)
            if not waiting.poll(1e3 * patience):
                raise Refused("not ready in time")
        line = self._process.stdout.readline()
        if not line:
            raise Refused(f"its process ended: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        lines = (self.folder / "errors.txt").read_text(errors="replace").strip().splitlines()
        return lines[-1][:160] if lines else "without a word"

    def _signal(self, name: str) -> None:
        number = getattr(signal, name, None)
        if number is not None and self._process.poll() is None:
            self._process.send_signal(number)


def _environment(threads: int) -> dict[str, str]:
    return {**KEEP, **os.environ, **QUIET, **dict.fromkeys(THREADS, str(threads))}


def _on_cores(threads: int) -> Any:
    """Bind the process to as many cores as threads: some pools cannot be told a number."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    chosen = sorted(os.sched_getaffinity(0))[:threads]
    return lambda: os.sched_setaffinity(0, chosen)


@dataclass
class Guests:
    """Those who are ready, with what they computed, and why the others are not."""

    ready: list[tuple[Served, Arrays]]
    skipped: list[str]
    versions: dict[str, str]

    def contenders(self) -> Iterator[tuple[Contender, Peer, Arrays]]:
        """To be compared and timed."""
        for served, outcome in self.ready:
            peer = served.peer
            yield Contender(peer.name, peer.setting, served.run), peer, outcome


@contextmanager
def guests(
    work: Work, peers: Sequence[Peer], python: str = sys.executable, patience: float = PATIENCE,
    model: bytes = b"",
) -> Iterator[Guests]:  # fmt: skip
    """All of the work's kind, started together; their processes end with the block."""
    chosen = [peer for peer in peers if peer.kind == work.kind]
    with _ended_in_order(), tempfile.TemporaryDirectory(prefix="lanewise-peers-") as place:
        started: list[Served] = []
        try:
            whole = Path(place) / ARRAYS
            store_arrays(work, whole)
            for number, peer in enumerate(chosen):
                folder = Path(place) / str(number)
                folder.mkdir()
                os.link(whole, folder / ARRAYS)
                _prepare(work, peer, folder, model)
                started.append(Served(peer, folder, work.threads, python))
            yield _gather(started, patience)
        finally:
            for served in started:
                served.end()


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Whoever ends this process with SIGTERM ends its guests too, and their folders are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _prepare(work: Work, peer: Peer, folder: Path, model: bytes) -> None:
    mine = Work(
        work.kind, work.graph, work.weights, work.batches, work.threads, work.first_rate,
        work.rate, work.momentum, folder, dict(peer.options),
    )  # fmt: skip
    store_work(mine, show(work.graph))
    if peer.model:
        (folder / "model.onnx").write_bytes(model)


def _gather(started: Sequence[Served], patience: float) -> Guests:
    found = Guests([], [], {})
    for served in started:
        try:
            found.ready.append((served, served.ready(patience)))
            found.versions |= served.versions
        except Refused as reason:
            found.skipped.append(f"{served.peer}: {reason}")
            served.end()
    return found
