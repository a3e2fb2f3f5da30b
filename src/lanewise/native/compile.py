"""The driver: a net becomes a program. Nobody else calls the passes.

    graph ─ fuse ─ plan (tiles, memory) ─ write nests ─ check ─ lower ─ machine code ─ program

A program compiled before, for the same net on the same kind of CPU, is loaded from the cache: then
only the graph's parameters are laid out again, and nothing is written, checked or lowered.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from lanewise import flags
from lanewise.errors import EngineError
from lanewise.native.cache import Entry, MachineCodeCache, fingerprint
from lanewise.native.facts import Facts
from lanewise.native.optimizers import SGD, Optimizer
from lanewise.native.permission import permitted
from lanewise.native.precisions import check_precision
from lanewise.native.program import Program
from lanewise.native.side_by_side import one_by_one
from lanewise.native.target import Target, find_target
from lanewise.net.check import check
from lanewise.net.graph import Graph
from lanewise.net.show import show

if TYPE_CHECKING:
    from lanewise.native.machine_code import Module


def compile_net(
    graph: Graph,
    *,
    training: bool = False,
    optimizer: Optimizer | None = None,
    threads: int | None = None,
    target: str = "host",
    cache: bool = True,
    input_gradient: bool = False,
    profile: bool = False,
    batch: int | None = None,
    exact: bool = False,
    precision: str = "fp32",
) -> Program:
    """A net as machine code for this CPU.

    training: also compile the loss, all gradients and the optimizer's update. threads: workers
    (default: one per core this process may use, or LANEWISE_THREADS). input_gradient: also keep the
    gradient of the images. profile: count clock ticks around every kernel (`Program.profile`).
    batch: how many images a call will mostly bring. Where that is quicker (`side_by_side.py`), and
    not for training: a program that takes one image after the other, with channels in the lanes.
    Else, or None: sixteen images side by side. Both take any number.
    exact: no convolution by Winograd's algorithm, which is quicker and rounds more.
    precision: "fp32", or "bf16" for maps and multiplied weights rounded to that (`precision.py`);
    sums, gradients of parameters and the parameters themselves are fp32 in both.

    Raises SizeError or NetError where the net cannot exist, EngineError where this machine cannot
    run it.
    """
    started = time.perf_counter()
    check(graph)
    check_precision(precision)
    machine = _machine(target, precision)
    workers = thread_count(threads)
    single = not (training or input_gradient) and one_by_one(graph, batch)
    wanted = _Wanted(
        training, optimizer or SGD(), input_gradient, profile, exact, precision, single
    )
    entry, found = _entry(graph, machine, wanted, MachineCodeCache() if cache else None)
    program = wanted.program(graph, machine, entry, workers)
    program.compile_seconds = time.perf_counter() - started
    program.from_cache = found
    return program


def _machine(target: str, precision: str) -> Target:
    """This machine, where it can run what is compiled for that target."""
    machine = find_target(target)
    if not machine.native:
        raise EngineError(
            f"target {machine.name}: this machine can compile for it but not run it;"
            " use target host, or unset LANEWISE_TARGET"
        )
    return permitted(machine) if precision == "bf16" else machine


def _entry(
    graph: Graph, target: Target, wanted: _Wanted, shelf: MachineCodeCache | None
) -> tuple[Entry, bool]:
    """The machine code, and whether it was in the cache."""
    key = fingerprint(show(graph), wanted.key, target)
    found = shelf.get(key) if shelf and not flags.value("LANEWISE_DEBUG") else None
    if found is not None:
        return found, True
    with collector_paused():
        made = _linked(wanted.build(graph, target), target)
    if shelf:
        shelf.put(key, made)
    return made, False


@contextmanager
def collector_paused() -> Iterator[None]:
    """While kernels are written nobody looks for garbage in cycles. They are hundreds of thousands
    of small values, none of them in a cycle: to look through them again and again as they grow in
    number takes as long as half of the writing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# Whoever finds the program in the cache is spared the imports of all that writes it.


def _linked(entry: Entry, target: Target) -> Entry:
    from lanewise.native.link import link

    return replace(entry, objects=link(entry.objects, target))


@dataclass(frozen=True)
class _Wanted:
    """What a program is compiled for; `single`: one image after the other."""

    training: bool
    optimizer: Optimizer
    input_gradient: bool
    profile: bool
    exact: bool
    precision: str
    single: bool

    @property
    def key(self) -> dict[str, object]:
        """What of it the machine code depends on."""
        single: dict[str, object] = {"one image": True} if self.single else {}
        return {
            "training": self.training,
            "update": type(self.optimizer).__name__ if self.training else None,
            "input_gradient": self.input_gradient,
            "profile": self.profile,
            "exact": self.exact,
            "precision": self.precision,
            **single,
        }

    def build(self, graph: Graph, target: Target) -> Entry:
        """All passes, for both directions where training is asked for."""
        if self.single:
            from lanewise.native.latency.compile import build_image

            return build_image(graph, target, cores(), self.profile, self.exact, self.precision)
        from lanewise.native.machine_code import compile_modules

        modules, facts = write_modules(
            graph,
            target,
            self.training,
            self.optimizer,
            self.input_gradient,
            self.profile,
            self.exact,
            self.precision,
        )
        return Entry(compile_modules(modules, target, threads=cores()), asdict(facts))

    def program(self, graph: Graph, target: Target, entry: Entry, threads: int) -> Program:
        """What the user holds."""
        if self.single:
            from lanewise.native.latency.program import image_program

            return image_program(graph, target, entry, threads)
        facts = Facts(**entry.metadata)
        return Program(graph, target, entry.objects, facts, self.optimizer, threads)


def thread_count(asked: int | None = None) -> int:
    """Workers: what was asked, else LANEWISE_THREADS, else the cores this process may use."""
    most = flags.MOST_THREADS
    if asked is not None and not 1 <= asked <= most:
        raise EngineError(f"threads is {asked}; use 1 to {most}, or leave it out for all cores")
    return asked or flags.value("LANEWISE_THREADS") or min(cores(), most)


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def write_modules(
    graph: Graph,
    target: Target,
    training: bool,
    optimizer: Optimizer,
    input_gradient: bool = False,
    profile: bool = False,
    exact: bool = False,
    precision: str = "fp32",
) -> tuple[Iterator[Module], Facts]:
    """The passes up to LLVM IR, and what the program must know. The kernels are lowered as their
    modules are asked for, so that the first can be compiled meanwhile."""
    from lanewise.native import debug
    from lanewise.native.directions import plan_directions
    from lanewise.native.driver_together import shares
    from lanewise.native.emit import Emission
    from lanewise.native.layouts import parameter_layout

    plans = plan_directions(graph, target, training, input_gradient, exact, precision)
    debug.plans(plans)
    arena = max(plan.arena.size for plan in plans.values())
    told = "train" if training else "forward"
    emission = Emission(target, parameter_layout(graph), arena if profile else None, told)
    for name, plan in plans.items():
        emission.direction(name, plan)
    if training:
        emission.jobs(plans["train"], optimizer)
    modules = emission.modules(plans["forward"].widths)
    facts = Facts(
        arena_bytes=arena + 8 * emission.words,
        kept_bytes=plans["train"].kept_bytes if training else 0,
        constant_bytes=plans["forward"].constants.size,
        shares=shares(plans["forward"]),
        phases=len(emission.phases["train"]) if training else 1,
        training=training,
        input_gradient=input_gradient,
        exact=exact,
        precision=precision,
        width=plans["forward"].widths[0],
        ticks=emission.ticks,
        ticks_at=arena,
        kernels=emission.called if profile else {},
    )
    return modules, facts
