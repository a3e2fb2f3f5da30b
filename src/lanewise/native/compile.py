"""The driver: a net becomes a program. Nobody else calls the passes.

    graph ─ fuse ─ plan (tiles, memory) ─ write nests ─ check ─ lower ─ machine code ─ program

A program compiled before, for the same net on the same kind of CPU, is loaded from the cache: then
only the graph's parameters are laid out again, and nothing is written, checked or lowered.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
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
    machine = find_target(target)
    if not machine.native:
        raise EngineError(
            f"target {machine.name}: this machine can compile for it but not run it;"
            " use target host, or unset LANEWISE_TARGET"
        )
    if precision == "bf16":
        machine = permitted(machine)
    workers = thread_count(threads)
    optimizer = optimizer or SGD()
    shelf = MachineCodeCache() if cache else None
    single = not (training or input_gradient) and one_by_one(graph, batch)
    options = _options(training, optimizer, input_gradient, profile, exact, precision)
    key = fingerprint(show(graph), options | ({"one image": True} if single else {}), machine)
    entry = shelf.get(key) if shelf and not flags.value("LANEWISE_DEBUG") else None
    made = entry is None
    if entry is None:
        if single:
            entry = _build_image(graph, machine, profile, exact, precision)
        else:
            entry = build(
                graph, machine, training, optimizer, input_gradient, profile, exact, precision
            )
        entry = _linked(entry, machine)
        if shelf:
            shelf.put(key, entry)
    if single:
        program = _image_program(graph, machine, entry, workers)
    else:
        facts = Facts(**entry.metadata)
        program = Program(graph, machine, entry.objects, facts, optimizer, workers)
    program.compile_seconds = time.perf_counter() - started
    program.from_cache = not made
    return program


# Whoever finds the program in the cache is spared the imports of all that writes it.


def _linked(entry: Entry, target: Target) -> Entry:
    from lanewise.native.link import link

    return replace(entry, objects=link(entry.objects, target))


def _build_image(graph: Graph, target: Target, profile: bool, exact: bool, precision: str) -> Entry:
    from lanewise.native.latency.compile import build_image

    return build_image(graph, target, cores(), profile, exact, precision)


def _image_program(graph: Graph, target: Target, entry: Entry, threads: int) -> Program:
    from lanewise.native.latency.program import image_program

    return image_program(graph, target, entry, threads)


def _options(
    training: bool,
    optimizer: Optimizer,
    input_gradient: bool,
    profile: bool,
    exact: bool,
    precision: str,
) -> dict[str, object]:
    return {
        "training": training,
        "update": type(optimizer).__name__ if training else None,
        "input_gradient": input_gradient,
        "profile": profile,
        "exact": exact,
        "precision": precision,
    }


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


def build(
    graph: Graph,
    target: Target,
    training: bool,
    optimizer: Optimizer,
    input_gradient: bool = False,
    profile: bool = False,
    exact: bool = False,
    precision: str = "fp32",
) -> Entry:
    """All passes, for both directions where training is asked for."""
    from lanewise.native.machine_code import compile_modules

    modules, facts = write_modules(
        graph, target, training, optimizer, input_gradient, profile, exact, precision
    )
    objects = compile_modules(modules, target, threads=cores())
    return Entry(objects, asdict(facts))


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
