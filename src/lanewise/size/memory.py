"""Activation memory of inference in fp32: what each layer stores, and the most that lives at once.

A layer that works value by value overwrites its first input where nobody else reads it; flattening
only renames. The image counts as the first stored value. Parameters are not activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from lanewise.net.graph import Graph, Node
from lanewise.net.layers import (
    ACTIVATIONS,
    ADAPTIVE_POOLS,
    CONVOLUTIONS,
    GLOBAL_POOLS,
    NOISES,
    WINDOW_POOLS,
    Add,
    BatchNorm,
    ChannelPad,
    ChannelScale,
    ChannelShuffle,
    ChannelSplit,
    Concat,
    Flatten,
    Foreign,
    GroupNorm,
    Input,
    Layer,
    LayerNorm,
    Linear,
    LocalResponseNorm,
    Multiply,
    PReLU,
    RadialBasis,
    Upsample,
)
from lanewise.size.windows import Shape

BYTES_PER_VALUE = 4

# Kind → whether its output may take the place of its first input, if it is as large.
IN_PLACE: dict[type[Layer], bool] = {
    Input: False,
    **dict.fromkeys((*CONVOLUTIONS, *WINDOW_POOLS, *ADAPTIVE_POOLS, *GLOBAL_POOLS), False),
    Flatten: True,
    Linear: False,
    RadialBasis: False,
    **dict.fromkeys((*ACTIVATIONS, PReLU), True),
    BatchNorm: True,
    LayerNorm: True,
    GroupNorm: True,
    # Its neighbours still need what a channel was before.
    LocalResponseNorm: False,
    ChannelScale: True,
    **dict.fromkeys((ChannelShuffle, ChannelSplit, ChannelPad, Upsample), False),
    **dict.fromkeys(NOISES, True),
    Add: True,
    Multiply: True,
    Concat: False,
    Foreign: False,
}


def stored_bytes(graph: Graph, shapes: Mapping[str, Shape], batch: int = 1) -> dict[str, int]:
    """Node name → bytes its output newly occupies; 0 where it takes its input's place."""
    overwriting = _overwriting(graph, shapes)
    return {
        node.name: 0
        if node.name in overwriting
        else _bytes(shapes[node.name], copies(node.layer, batch))
        for node in graph.nodes
    }


def peak_bytes(graph: Graph, shapes: Mapping[str, Shape], batch: int = 1) -> int:
    """The most bytes of activations alive at once, every value freed after its last reader."""
    stored = stored_bytes(graph, shapes, batch)
    freed = [0] * len(graph.nodes)
    for name, step in _last_uses(graph, shapes).items():
        freed[step] += stored[name]
    alive = peak = 0
    for node, leaving in zip(graph.nodes, freed, strict=True):
        alive += stored[node.name]
        peak = max(peak, alive)
        alive -= leaving
    return peak


def copies(layer: Layer, batch: int) -> int:
    """How often a layer's value is there for so many images."""
    return 1 if isinstance(layer, Foreign) and layer.once else batch


def _bytes(shape: Shape, batch: int) -> int:
    return batch * BYTES_PER_VALUE * prod(shape)


def _overwriting(graph: Graph, shapes: Mapping[str, Shape]) -> set[str]:
    """The nodes whose output takes the place of their first input."""
    readers = _readers(graph)
    once = {node.name for node in graph.nodes if copies(node.layer, 2) == 1}
    return {
        node.name
        for node in graph.nodes
        if _overwrites(node, shapes, readers) and node.inputs[0] not in once
    }


def _readers(graph: Graph) -> dict[str, int]:
    """Node name → how many times nodes read it."""
    counts = {node.name: 0 for node in graph.nodes}
    for node in graph.nodes:
        for name in node.inputs:
            counts[name] += 1
    return counts


def _overwrites(node: Node, shapes: Mapping[str, Shape], readers: Mapping[str, int]) -> bool:
    if not IN_PLACE[type(node.layer)]:
        return False
    first = node.inputs[0]
    return readers[first] == 1 and prod(shapes[first]) == prod(shapes[node.name])


def _last_uses(graph: Graph, shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Name of the node that stored a value → the last step that reads it or what replaced it."""
    overwriting = _overwriting(graph, shapes)
    owner: dict[str, str] = {}
    last_use: dict[str, int] = {}
    for step, node in enumerate(graph.nodes):
        for name in node.inputs:
            last_use[owner[name]] = step
        owner[node.name] = owner[node.inputs[0]] if node.name in overwriting else node.name
        last_use[owner[node.name]] = step
    return last_use
