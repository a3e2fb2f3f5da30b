"""How long each layer of a training step will take here, told before anything is compiled.

A layer's kernels do multiply–adds and move bytes, and whichever takes longer decides:

    milliseconds = max(2 · multiply–adds / (reached · peak), bytes / (moved · rate))

`peak` and the two rates (of memory and of a core's own cache, where a slice of the batch fits) are
measured once on a machine and kept beside the machine code. `REACHED` and `MOVED` are the shares of
them that the engine's kernels come to, for each kind of layer: what was measured on one machine (an
Ice Lake server with AVX-512) for convolutions of 16 to 128 channels. It is a forecast: thin layers
take longer than it says, and `profile_net` measures.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from lanewise import flags
from lanewise.native.algorithms import chosen
from lanewise.native.compile import thread_count
from lanewise.native.fuse import Operation, operations
from lanewise.native.nest import LANES
from lanewise.native.peak import measure_peak
from lanewise.native.plan import FLOAT
from lanewise.native.profile import kinds, learns, multiply_adds, reaches_parameters
from lanewise.native.target import Target, find_target
from lanewise.net.graph import Graph
from lanewise.net.layers import (
    Conv,
    DepthwiseConv,
    Layer,
    Linear,
    PartialConv,
    TransposedConv,
)
from lanewise.size.cost import cost

#: (forward, backward): the share of the peak that kernels reach.
REACHED: dict[type[Layer], tuple[float, float]] = {
    Conv: (0.68, 0.60),
    DepthwiseConv: (0.40, 0.40),
    PartialConv: (0.50, 0.45),
    TransposedConv: (0.50, 0.45),
    Linear: (0.68, 0.35),
}
#: The same where a convolution is computed by Winograd's algorithm, counted as the direct sum.
WINOGRAD = (1.0, 0.85)
#: The share of the rates: what is written is first fetched, and values are read at two places.
MOVED = 0.5
#: A slice of the batch that is not larger than this stays in a core's own cache.
CACHE_BYTES = 1 << 20
RATES = ("gflops", "memory_rate", "cache_rate")
#: Measured while others had more than the rest of the processors' time, rates are not kept.
QUIET = 0.9
ROUNDS = 5
ROUND_SECONDS = 0.02


@dataclass(frozen=True)
class Machine:
    """What was measured: GFLOP/s, and gigabytes a second from memory and from the cores' caches,
    each of all threads together."""

    cpu: str
    target: str
    threads: int
    gflops: float
    memory_rate: float
    cache_rate: float


@dataclass(frozen=True)
class Forecast:
    """Milliseconds of a layer in one training step, as the engine joins layers; `bound` tells what
    decides forwards: `arithmetic`, `cache` or `memory`."""

    name: str
    kinds: tuple[str, ...]
    forward_ms: float
    backward_ms: float
    bound: str


def forecast(graph: Graph, batch: int, machine: Machine) -> tuple[Forecast, ...]:
    """A forecast for each layer that the engine computes, in its order. Nothing is compiled.

    SizeError or NetError for the network itself.
    """
    made = operations(graph, training=True)
    return tuple(_forecast(one, made, batch, machine) for one in made)


def _forecast(
    one: Operation, made: tuple[Operation, ...], batch: int, machine: Machine
) -> Forecast:
    adds = batch * multiply_adds(one)
    back = adds * (2 if reaches_parameters(one, made) else 1)
    values = one.elements + sum(map(prod, one.input_shapes))
    params = cost(one.layer, *one.input_shapes).params
    cached = LANES * FLOAT * values <= CACHE_BYTES
    rate = MOVED * (machine.cache_rate if cached else machine.memory_rate)
    moved = FLOAT * batch * values
    forward, backward = _reached(one)
    arithmetic = _ms(2 * adds, forward * machine.gflops)
    traffic = _ms(moved, rate) + _ms(FLOAT * params, machine.memory_rate)
    learning = learns(one) or reaches_parameters(one, made)
    # Backwards, a gradient comes and goes for each value; parameters' gradients are written too.
    traffic_back = 2 * _ms(moved, rate) + 3 * _ms(FLOAT * params, machine.memory_rate)
    arithmetic_back = _ms(2 * back, backward * machine.gflops)
    bound = "arithmetic" if arithmetic >= traffic else "cache" if cached else "memory"
    return Forecast(
        one.node,
        kinds(one),
        max(arithmetic, traffic),
        max(arithmetic_back, traffic_back) if learning else 0.0,
        bound,
    )


def _reached(one: Operation) -> tuple[float, float]:
    """The share of the peak, forward and backward."""
    if isinstance(one.layer, Conv) and chosen(one.layer, one.input_shapes[0], forward=True):
        return WINOGRAD
    return REACHED.get(type(one.layer), (1.0, 1.0))


def _ms(amount: float, per_nanosecond: float) -> float:
    return amount / per_nanosecond / 1e6


# ---- the machine ---------------------------------------------------------------------------------


def this_machine(threads: int | None = None) -> Machine:
    """The machine's rates with so many threads (all, if None), from an earlier call or measured
    now (half a second)."""
    count, target = thread_count(threads), find_target()
    file = _file()
    known = _read(file)
    name = f"{target.cpu} {target.name} {count}"
    with suppress(KeyError, TypeError, ValueError):
        rates = (float(known[name][rate]) for rate in RATES)
        return Machine(target.cpu, target.name, count, *rates)
    machine, quiet = measure_machine(target, count)
    if file is not None and quiet:
        _write(file, known | {name: {rate: getattr(machine, rate) for rate in RATES}})
    return machine


def measure_machine(target: Target, threads: int) -> tuple[Machine, bool]:
    """The rates of this machine, measured, and whether it had little else to do meanwhile."""
    peak = measure_peak(target, threads)
    rates = round(_rate(threads, 48 << 20), 2), round(_rate(threads, 128 << 10), 2)
    machine = Machine(target.cpu, target.name, threads, round(peak.best, 1), *rates)
    return machine, peak.given >= QUIET


def _rate(threads: int, size: int) -> float:
    """Gigabytes a second read and written by all threads, each adding to an array of this size."""
    gate = threading.Barrier(threads)
    rates: list[float] = []
    workers = [threading.Thread(target=_move, args=(gate, size, rates)) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(rates)


def _move(gate: threading.Barrier, size: int, rates: list[float]) -> None:
    values = np.zeros(size // FLOAT, np.float32)
    np.add(values, 1, out=values)
    found = []
    gate.wait()
    for _ in range(ROUNDS):
        begin, turns = time.thread_time(), 0
        while time.thread_time() - begin < ROUND_SECONDS:
            np.add(values, 1, out=values)
            turns += 1
        found.append(2e-9 * size * turns / (time.thread_time() - begin))
    rates.append(median(found))


def _file() -> Path | None:
    with suppress(RuntimeError):
        return flags.cache_folder() / "machine.json"
    return None


def _read(file: Path | None) -> dict[str, Any]:
    """What was measured before; nothing where there is none, or it cannot be read."""
    with suppress(OSError, ValueError):
        known = json.loads(file.read_text(encoding="utf-8")) if file else {}
        return known if isinstance(known, dict) else {}
    return {}


def _write(file: Path, known: dict[str, Any]) -> None:
    """Whole or not at all; that it cannot be kept costs the next call half a second."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as part:
            json.dump(known, part, indent=1)
        os.replace(name, file)
