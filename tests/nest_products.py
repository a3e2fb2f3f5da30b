"""The multiply–adds of the loop nests that training a network emits, against the size calculus.

The nests are only written, never compiled, so that large networks can be counted too. They are
those of the direct algorithm; Winograd's have formulas of their own (`tests/test_winograd.py`).
"""

from __future__ import annotations

from dataclasses import replace

from lanewise.native.directions import plan_training
from lanewise.native.nest import (
    LANES,
    Assign,
    Kernel,
    Loop,
    Op,
    Read,
    Register,
    Statement,
    Store,
    Value,
    op,
)
from lanewise.native.nest_count import count
from lanewise.native.plan import Choice
from lanewise.native.shelf import KernelShelf
from lanewise.native.target import find_target
from lanewise.net.graph import Graph
from lanewise.net.layers import CONVOLUTIONS, Linear
from lanewise.size.cost import cost
from lanewise.size.shapes import infer_shapes

WITH_PRODUCTS = (*CONVOLUTIONS, Linear)


def expected(graph: Graph) -> dict[str, int]:
    """Layer → multiply–adds of 16 images without those on padding."""
    shapes = infer_shapes(graph)
    found = {}
    for node in graph.nodes:
        if isinstance(node.layer, WITH_PRODUCTS):
            spent = cost(node.layer, *(shapes[name] for name in node.inputs))
            found[node.name] = LANES * (spent.macs - spent.padded_macs)
    return found


def counted(graph: Graph, target: str = "host") -> dict[str, dict[str, int]]:
    """Layer → kernel → multiply–adds of one slice of 16 images, for the kernels that have any: its
    forward, weight gradient and input gradient. The network's own input gets a gradient too."""
    plan = plan_training(graph, find_target(target), KernelShelf(), input_gradient=True, exact=True)
    found: dict[str, dict[str, int]] = {layer: {} for layer in expected(graph)}
    products: dict[int, int] = {}  # a kernel may be called for many layers
    for call in plan.calls:
        kernel, layer = call.kernels[1], call.purpose.split(" ")[0]
        if layer not in found or isinstance(kernel, Choice):
            continue
        if id(kernel) not in products:
            products[id(kernel)] = count(_sums_alone(kernel)).multiply_adds
        turns = call.extent // call.block if call.extent else 1
        if products[id(kernel)]:
            found[layer][_kind(kernel)] = turns * products[id(kernel)]
    for job in plan.jobs:  # the weight gradients of full connections, all blocks, one slice
        layer, _, parameter = job.parameter.name.rpartition(".")
        if parameter == "weight":
            once = count(job.kernel, {"slices": 1}).multiply_adds
            found[layer][_kind(job.kernel)] = job.blocks * once
    return found


def _sums_alone(kernel: Kernel) -> Kernel:
    """The kernel without multiply–adds that no sum of products goes on with: a convolution may tell
    what a normalisation wants to know of its results, too."""
    return replace(kernel, body=tuple(map(_statement, kernel.body)))


def _statement(one: Statement) -> Statement:
    if isinstance(one, Loop):
        return replace(one, body=tuple(map(_statement, one.body)))
    if isinstance(one, Assign):
        value = one.value
        sums = isinstance(value, Op) and value.name == "fma"
        if sums and _reads(value.arguments[2], one.register):
            return one
        return replace(one, value=_apart(value))
    return replace(one, value=_apart(one.value)) if isinstance(one, Store) else one


def _reads(value: Value, register: Register) -> bool:
    return isinstance(value, Read) and value.register is register


def _apart(value: Value) -> Value:
    """A product and an addition in place of a multiply–add."""
    if not isinstance(value, Op):
        return value
    arguments = tuple(map(_apart, value.arguments))
    if value.name == "fma":
        return op("add", op("mul", *arguments[:2]), arguments[2])
    return replace(value, arguments=arguments)


def _kind(kernel: Kernel) -> str:
    """Its name without its number."""
    return kernel.name.rpartition("_")[0]
