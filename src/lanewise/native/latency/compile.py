"""A net for one image: graph ─ fuse ─ plan ─ check ─ lower ─ machine code ─ program."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from lanewise.native import debug
from lanewise.native.cache import Entry
from lanewise.native.emit import kernels_by_purpose
from lanewise.native.facts import Facts
from lanewise.native.fuse import operations
from lanewise.native.latency.emission import modules, purposes
from lanewise.native.latency.packing import Pack
from lanewise.native.latency.planner import ImagePlan, ImagePlanner, store_row
from lanewise.native.latency.rules import RULES
from lanewise.native.layouts import buffer_layout, parameter_layout
from lanewise.native.target import Target
from lanewise.net.graph import Graph
from lanewise.size.report import size


def plan_image(
    graph: Graph, target: Target, exact: bool = False
) -> tuple[ImagePlan, tuple[Pack, ...]]:
    """One image → its logits: the calls, and the weights that they read."""
    steps = operations(graph, training=False)
    plan = ImagePlanner(target, steps, parameter_layout(graph), buffer_layout(graph), exact)
    for operation in steps[1:]:
        if operation.name in plan.done:
            continue
        plan.purpose = f"{operation.name} forward"
        RULES[type(operation.layer)](plan, operation)
    plan.purpose = "logits"
    store_row(plan, steps[-1].name, steps[-1].elements)
    return plan.finish(), tuple(plan.packs)


def build_image(
    graph: Graph,
    target: Target,
    threads: int,
    profile: bool = False,
    exact: bool = False,
    precision: str = "fp32",
) -> Entry:
    """All passes up to machine code."""
    from lanewise.native.machine_code import compile_modules

    plan, packs = plan_image(graph, target, exact)
    debug.plans({"one image": plan})
    report = size(graph)
    ticks = purposes(plan) if profile else []
    made = modules(
        plan, target, report.input, report.rows[-1].output, plan.ticks_at if profile else None
    )
    objects = compile_modules(made, target, threads=threads)
    facts = Facts(
        arena_bytes=plan.bytes,
        kept_bytes=0,
        phases=1,
        training=False,
        input_gradient=False,
        exact=exact,
        precision=precision,
        width=1,
        ticks={"forward": ticks},
        ticks_at=plan.ticks_at,
        kernels=kernels_by_purpose(plan) if profile else {},
    )
    metadata: dict[str, Any] = {
        "facts": asdict(facts),
        "packs": [asdict(pack) for pack in packs],
        "multiply_adds": report.totals.macs,
    }
    return Entry(objects, metadata)
