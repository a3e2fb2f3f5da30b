"""Activation memory of inference in fp32: what each layer stores, and the most that lives at once.

A layer that works value by value overwrites its input where nobody else reads it; flattening only
renames. The image counts as the first stored value. Parameters are not activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from lanewise.net.graph import Graph, Node
from lanewise.net.layers import (
    AvgPool,
    Conv,
    Dropout,
    Flatten,
    GlobalAvg,
    GlobalMax,
    GlobalSum,
    Input,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool,
    ReLU,
    Sigmoid,
    SumPool,
    Tanh,
)
from lanewise.size.shapes import Shape

BYTES_PER_VALUE = 4

# Kind → whether its output may take the place of its input.
IN_PLACE: dict[type[Layer], bool] = {
    Input: False,
    Conv: False,
    MaxPool: False,
    AvgPool: False,
    SumPool: False,
    GlobalMax: False,
    GlobalAvg: False,
    GlobalSum: False,
    Flatten: True,
    Linear: False,
    ReLU: True,
    LeakyReLU: True,
    Tanh: True,
    Sigmoid: True,
    Dropout: True,
}


def stored_bytes(graph: Graph, shapes: Mapping[str, Shape], batch: int = 1) -> dict[str, int]:
    """Node name → bytes its output newly occupies; 0 where it takes its input's place."""
    readers = _readers(graph)
    return {
        node.name: 0 if _overwrites(node, readers) else _bytes(shapes[node.name], batch)
        for node in graph.nodes
    }


def peak_bytes(graph: Graph, shapes: Mapping[str, Shape], batch: int = 1) -> int:
    """The most bytes of activations alive at once, every value freed after its last reader."""
    stored = stored_bytes(graph, shapes, batch)
    last_use = _last_uses(graph)
    alive: dict[str, int] = {}
    peak = 0
    for step, node in enumerate(graph.nodes):
        if stored[node.name]:
            alive[node.name] = stored[node.name]
        peak = max(peak, sum(alive.values()))
        alive = {name: size for name, size in alive.items() if last_use[name] > step}
    return peak


def _bytes(shape: Shape, batch: int) -> int:
    return batch * BYTES_PER_VALUE * prod(shape)


def _readers(graph: Graph) -> dict[str, int]:
    """Node name → how many nodes read it."""
    counts = {node.name: 0 for node in graph.nodes}
    for node in graph.nodes:
        for name in node.inputs:
            counts[name] += 1
    return counts


def _overwrites(node: Node, readers: Mapping[str, int]) -> bool:
    return IN_PLACE[type(node.layer)] and readers[node.inputs[0]] == 1


def _last_uses(graph: Graph) -> dict[str, int]:
    """Name of the node that stored a value → the last step that reads it or what replaced it."""
    readers = _readers(graph)
    owner: dict[str, str] = {}
    last_use: dict[str, int] = {}
    for step, node in enumerate(graph.nodes):
        for name in node.inputs:
            last_use[owner[name]] = step
        owner[node.name] = owner[node.inputs[0]] if _overwrites(node, readers) else node.name
        last_use[owner[node.name]] = step
    return last_use
