"""What `precision="bf16"` means, in PyTorch: the same roundings at the same places.

A map that the engine stores is rounded by torch's own bfloat16, and so is the gradient that arrives
on it; weights that are multiplied are rounded before. Sums stay float64. Layers that the engine
joins have no map between them: there nothing is rounded. (Where rounding twice gives the same as
once, as before a ReLU, a pool of maxima or a concatenation, it may happen twice here.)

Float32 sums, taken in another order, now and then fall on the other side of the middle between two
bf16, and then a value differs by a whole step. How far such steps move the results is measured as
any other rounding: the disturbed runs add to every rounded value, before it is rounded, up to
`STEP` of its size. That brings about one in a hundred to the other side, many times as many as
honest float32 does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from lanewise.bridge.draft import Watch
from lanewise.native.fuse import Operation, operations
from lanewise.native.precisions import multiplied_weights
from lanewise.native.sharing import value_places
from lanewise.net.graph import Graph
from lanewise.net.layers import BatchNorm

if TYPE_CHECKING:
    import numpy as np
    import torch

STEP = 2.0**-13


def rounded_nodes(graph: Graph, training: bool) -> frozenset[str]:
    """The layers whose values the engine rounds as it stores them."""
    made = operations(graph, training)
    kept = _of_output(graph, made)
    for operation in made:
        adds = isinstance(operation.layer, BatchNorm) and len(operation.inputs) > 1
        if operation.norm or adds:  # the convolution, or the normalisation, alone is never stored
            kept.add(operation.node)
    return frozenset(node.name for node in graph.nodes if node.name not in kept)


def _of_output(graph: Graph, made: tuple[Operation, ...]) -> set[str]:
    """The output, whatever is another name for it, and the parts that are written into it."""
    last = made[-1]
    inside = {name for name, (whole, _) in value_places(made).items() if whole == last.name}
    by_name = {node.name: node for node in graph.nodes}
    node = by_name[graph.output.name]
    found = {node.name, *inside}
    while node.name != last.node and len(node.inputs) == 1:
        node = by_name[node.inputs[0]]
        found.add(node.name)
    return found


def rounded_parameters(graph: Graph, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The weights with those rounded that the engine rounds before it multiplies."""
    import torch

    names = multiplied_weights((node.name, node.layer) for node in graph.nodes)

    def short(values: np.ndarray) -> Any:
        return torch.from_numpy(values).bfloat16().to(torch.float32).numpy()

    return {name: short(array) if name in names else array for name, array in weights.items()}


@cache
def _rounding() -> Any:
    """Rounds a value, and the gradient that arrives on it."""
    import torch

    def short(values: torch.Tensor) -> torch.Tensor:
        return values.to(torch.float32).to(torch.bfloat16).to(values.dtype)

    class Rounding(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, values: torch.Tensor) -> torch.Tensor:
            # Whose gradient is worked out from its value (a sigmoid) finds it as it is kept.
            values.data.copy_(short(values))
            return values.clone()

        @staticmethod
        def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
            return short(gradient)

    return Rounding


@dataclass(frozen=True)
class Rounded:
    """Watches a run, and rounds what another watch has seen and perhaps disturbed."""

    nodes: frozenset[str]
    inner: Watch

    def __call__(self, name: str, value: torch.Tensor) -> torch.Tensor:
        if name not in self.nodes:
            return self.inner(name, value)
        rounded: torch.Tensor = _rounding().apply(self.inner(name, value))
        return rounded
