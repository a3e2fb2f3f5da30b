"""Graph → operations: what is left to compute once layers are joined.

Two exact rewrites, each a pass from a list of operations to a list of operations:

    relu, maxpool  →  maxpool, relu     the maximum of max(x, 0) is max(the maximum, 0); ties give
                                        the same gradient, and the ReLU works on fewer values
    op, relu       →  op with relu      applied to the value in its register before it is stored;
                                        the gradient of `op` then masks where the value is not > 0

`flatten` is no operation: the memory is the same. `dropout` is none in inference.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import prod

from lanewise.net.graph import Graph
from lanewise.net.layers import (
    Conv,
    Dropout,
    Flatten,
    GlobalMax,
    Input,
    Layer,
    Linear,
    MaxPool,
    ReLU,
)
from lanewise.size.shapes import Shape, infer_shapes

JOINS_RELU = (Conv, Linear, MaxPool, GlobalMax)


@dataclass(frozen=True)
class Operation:
    """One layer to be computed; `name` is also the name of its value."""

    name: str
    layer: Layer
    inputs: tuple[str, ...]
    shape: Shape
    input_shapes: tuple[Shape, ...]
    node: str  # whose parameters it uses
    relu: bool = False

    @property
    def elements(self) -> int:
        """Values per image."""
        return prod(self.shape)


def operations(graph: Graph, training: bool) -> tuple[Operation, ...]:
    """The graph's operations, joined; the first is the input, the last the output."""
    return join_relu(pool_before_relu(_operations(graph, training)))


def _operations(graph: Graph, training: bool) -> tuple[Operation, ...]:
    shapes = infer_shapes(graph)
    alias: dict[str, str] = {}
    made = []
    for node in graph.nodes:
        vanishes = isinstance(node.layer, Flatten) or (
            isinstance(node.layer, Dropout) and (not training or node.layer.rate == 0)
        )
        if vanishes:
            alias[node.name] = alias.get(node.inputs[0], node.inputs[0])
            continue
        inputs = tuple(alias.get(name, name) for name in node.inputs)
        before = tuple(shapes[name] for name in node.inputs)
        made.append(Operation(node.name, node.layer, inputs, shapes[node.name], before, node.name))
    return tuple(made)


def consumers(made: tuple[Operation, ...]) -> Counter[str]:
    """How many operations read each value."""
    return Counter(name for operation in made for name in operation.inputs)


def pool_before_relu(made: tuple[Operation, ...]) -> tuple[Operation, ...]:
    """relu, maxpool → maxpool, relu, where nobody else reads between them."""
    result = list(made)
    uses = consumers(made)
    for i, pool in enumerate(result):
        if not isinstance(pool.layer, MaxPool | GlobalMax):
            continue
        j = next((j for j in range(i) if result[j].name == pool.inputs[0]), None)
        if j is None or not isinstance(result[j].layer, ReLU) or uses[result[j].name] > 1:
            continue
        relu = result[j]
        # The names stay with the positions, so whoever reads the pool's value reads relu's now.
        result[j] = replace(pool, name=relu.name, inputs=relu.inputs)
        result[i] = replace(
            relu, name=pool.name, inputs=(relu.name,), shape=pool.shape, input_shapes=(pool.shape,)
        )
    return tuple(result)


def join_relu(made: tuple[Operation, ...]) -> tuple[Operation, ...]:
    """op, relu → op with relu, where nobody reads between them and relu is not the output."""
    uses = consumers(made)
    by_name = {operation.name: operation for operation in made}
    joined: dict[str, str] = {}
    result: list[Operation] = []
    for operation in made:
        operation = replace(
            operation, inputs=tuple(joined.get(name, name) for name in operation.inputs)
        )
        producer = by_name.get(operation.inputs[0]) if operation.inputs else None
        if (
            isinstance(operation.layer, ReLU)
            and operation.name != made[-1].name
            and producer is not None
            and isinstance(producer.layer, JOINS_RELU)
            and uses[producer.name] == 1
        ):
            place = next(i for i, op in enumerate(result) if op.name == producer.name)
            result[place] = replace(result[place], relu=True)
            joined[operation.name] = producer.name
        else:
            result.append(operation)
    assert not isinstance(result[-1].layer, Input) or len(result) == 1
    return tuple(result)
