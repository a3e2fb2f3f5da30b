"""Where the tensors that a network learns stand in flat arrays, whoever compiles it."""

from __future__ import annotations

from lanewise.native.plan import Layout, layout
from lanewise.net.graph import Graph
from lanewise.net.layers import Linear
from lanewise.size.cost import buffer_shapes, parameter_shapes


def parameter_layout(graph: Graph) -> Layout:
    """Where each parameter stands in the flat array."""
    linear = {node.name for node in graph.nodes if isinstance(node.layer, Linear)}
    shapes = parameter_shapes(graph)
    return layout(shapes, {name for name in shapes if name.rpartition(".")[0] not in linear})


def buffer_layout(graph: Graph) -> Layout:
    """Where each running statistic stands in an array of its own."""
    return layout(buffer_shapes(graph), set())
