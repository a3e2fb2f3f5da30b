"""Graph → operations: what is left to compute once layers are joined.

Exact rewrites, each a pass from a list of operations to a list of operations:

    relu, maxpool  →  maxpool, relu     the maximum of max(x, 0) is max(the maximum, 0); ties give
                                        the same gradient, and the ReLU works on fewer values
    conv, bn       →  conv with norm    in inference, where a normalisation is a factor and a shift
    bn, add        →  bn that adds      in training: the sum is formed while the normalised value
                                        is in its register
    bn, relu(6)    →  bn that rectifies in training: its gradient works out again what was cut off,
                                        from the value before, which it reads anyway
    op, relu       →  op with relu      applied to the value in its register before it is stored;
                                        the gradient of `op` then masks where the value is not > 0

`flatten` is no operation: the memory is the same. Noise (dropout …) is none in inference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

from lanewise.net.graph import Graph
from lanewise.net.layers import (
    CONVOLUTIONS,
    AdaptiveMax,
    Add,
    BatchNorm,
    Flatten,
    GlobalMax,
    GroupNorm,
    Layer,
    LayerNorm,
    Linear,
    MaxPool,
    Multiply,
    Noise,
    ReLU,
    ReLU6,
)
from lanewise.size.shapes import Shape, infer_shapes

#: the largest of some values, which a ReLU may follow instead of going before
MAXIMA = (MaxPool, AdaptiveMax, GlobalMax)
JOINS_RELU = (*CONVOLUTIONS, Linear, *MAXIMA, BatchNorm, LayerNorm, GroupNorm, Add, Multiply)
FOLDS_NORM = CONVOLUTIONS


@dataclass(frozen=True)
class Operation:
    """One layer to be computed; `name` is also the name of its value.

    `input_shapes` are those that the layer itself reads. `norm`: in inference, the batch
    normalisation that is applied to the value before it is stored. A batch normalisation with two
    inputs adds the second to its result; `rectifier` is the word of the activation that it applies
    and whose gradient it takes care of itself (unlike that of a joined `relu`).
    """

    name: str
    layer: Layer
    inputs: tuple[str, ...]
    shape: Shape
    input_shapes: tuple[Shape, ...]
    node: str  # whose parameters it uses
    relu: bool = False
    norm: tuple[str, BatchNorm] | None = None
    rectifier: str = ""

    @property
    def elements(self) -> int:
        """Values per image."""
        return prod(self.shape)


Operations = tuple[Operation, ...]


def operations(graph: Graph, training: bool) -> Operations:
    """The graph's operations, joined; the first is the input, the last the output."""
    made = pool_before_relu(_operations(graph, training))
    return join_relu(join_rectifier(join_add(made)) if training else fold_norm(made))


def _operations(graph: Graph, training: bool) -> Operations:
    shapes = infer_shapes(graph)
    alias: dict[str, str] = {}
    made = []
    for node in graph.nodes:
        vanishes = isinstance(node.layer, Flatten) or (
            isinstance(node.layer, Noise) and (not training or node.layer.rate == 0)
        )
        if vanishes:
            alias[node.name] = alias.get(node.inputs[0], node.inputs[0])
            continue
        inputs = tuple(alias.get(name, name) for name in node.inputs)
        before = tuple(shapes[name] for name in node.inputs)
        made.append(Operation(node.name, node.layer, inputs, shapes[node.name], before, node.name))
    return tuple(made)


def consumers(made: Operations) -> Counter[str]:
    """How many operations read each value; a value that is read twice by one counts twice."""
    return Counter(name for operation in made for name in operation.inputs)


def pool_before_relu(made: Operations) -> Operations:
    """relu, maxpool → maxpool, relu, where nobody else reads between them."""
    result = list(made)
    place = {operation.name: i for i, operation in enumerate(made)}
    uses = consumers(made)
    for i, pool in enumerate(made):
        if not isinstance(pool.layer, MAXIMA):
            continue
        j = place[pool.inputs[0]]
        relu = result[j]
        if not isinstance(relu.layer, ReLU) or uses[relu.name] > 1:
            continue
        # The names stay with the positions, so whoever reads the pool's value reads relu's now.
        result[j] = replace(pool, name=relu.name, inputs=relu.inputs)
        result[i] = replace(
            relu, name=pool.name, inputs=(relu.name,), shape=pool.shape, input_shapes=(pool.shape,)
        )
    return tuple(result)


@dataclass
class _Joining:
    """A list of operations in which a reader is joined to what it reads: `renamed` tells which
    value now has the reader's."""

    made: Operations

    def __post_init__(self) -> None:
        self.uses = consumers(self.made)
        self.place: dict[str, int] = {}
        self.result: list[Operation | None] = []
        self.renamed: dict[str, str] = {}

    def append(self, operation: Operation) -> None:
        self.place[operation.name] = len(self.result)
        self.result.append(operation)

    def current(self, operation: Operation) -> Operation:
        """The operation with the names that its inputs have by now."""
        inputs = tuple(self.renamed.get(name, name) for name in operation.inputs)
        return replace(operation, inputs=inputs) if inputs != operation.inputs else operation

    def producer(self, name: str) -> Operation | None:
        """Who makes a value that nobody else reads."""
        if self.uses[name] > 1 or name not in self.place:
            return None
        return self.result[self.place[name]]

    def join(self, reader: Operation, producer: Operation) -> None:
        """Put `producer` in its old place; the reader is gone."""
        self.result[self.place[producer.name]] = producer
        self.renamed[reader.name] = producer.name
        self.uses[producer.name] = self.uses[reader.name]

    def take(self, name: str) -> None:
        """An operation is carried out elsewhere."""
        self.result[self.place.pop(name)] = None

    def finish(self) -> Operations:
        return tuple(operation for operation in self.result if operation is not None)


def _join_readers(
    made: Operations, joined: Callable[[Operation, Operation], Operation | None]
) -> Operations:
    """Join readers to what they alone read, wherever `joined(reader, producer)` is an operation
    that does the work of both."""
    joining = _Joining(made)
    for operation in map(joining.current, made):
        producer = joining.producer(operation.inputs[0]) if operation.inputs else None
        both = joined(operation, producer) if producer is not None else None
        if both is None:
            joining.append(operation)
        else:
            joining.join(operation, both)
    return joining.finish()


def fold_norm(made: Operations) -> Operations:
    """conv, bn → conv with norm, where nobody reads between them."""

    def joined(reader: Operation, producer: Operation) -> Operation | None:
        layer = reader.layer
        fits = (
            isinstance(producer.layer, FOLDS_NORM)
            and producer.shape == reader.shape  # not flattened in between
            and producer.norm is None
            and not producer.relu
        )
        if not isinstance(layer, BatchNorm) or not fits:
            return None
        return replace(producer, norm=(reader.node, layer))

    return _join_readers(made, joined)


def join_add(made: Operations) -> Operations:
    """bn, add → bn that adds, where nobody else reads the normalised value.

    The joined operation stands where the sum stood: there the other summand exists.
    """
    joining = _Joining(made)
    for operation in map(joining.current, made):
        producer = _normalised_summand(joining, operation)
        if producer is None:
            joining.append(operation)
            continue
        other = next(name for name in operation.inputs if name != producer.name)
        joining.take(producer.name)
        joining.append(
            replace(
                producer,
                name=operation.name,
                inputs=(producer.inputs[0], other),
            )
        )
    return joining.finish()


def _normalised_summand(joining: _Joining, operation: Operation) -> Operation | None:
    """The last summand that is a plain batch normalisation read by nobody else."""
    same = all(shape == operation.shape for shape in operation.input_shapes)
    if not isinstance(operation.layer, Add) or len(set(operation.inputs)) != 2 or not same:
        return None
    if len(operation.inputs) != 2:
        return None
    for name in reversed(operation.inputs):
        producer = joining.producer(name)
        if producer and isinstance(producer.layer, BatchNorm) and len(producer.inputs) == 1:
            return producer
    return None


def join_rectifier(made: Operations) -> Operations:
    """bn, relu or relu6 → bn that rectifies, where nobody reads between them and the bn adds
    nothing (a sum cannot be worked out again without its other part)."""

    def joined(reader: Operation, producer: Operation) -> Operation | None:
        fits = (
            isinstance(reader.layer, ReLU | ReLU6)
            and reader.name != made[-1].name
            and isinstance(producer.layer, BatchNorm)
            and len(producer.inputs) == 1
            and not producer.rectifier
        )
        return replace(producer, rectifier=reader.layer.word) if fits else None

    return _join_readers(made, joined)


def _spreads(operation: Operation) -> bool:
    """Whether a sum adds one number to a whole map."""
    return isinstance(operation.layer, Add) and len(set(operation.input_shapes)) > 1


def join_relu(made: Operations) -> Operations:
    """op, relu → op with relu, where nobody reads between them and relu is not the output."""

    def joined(reader: Operation, producer: Operation) -> Operation | None:
        fits = (
            isinstance(reader.layer, ReLU)
            and reader.name != made[-1].name
            and isinstance(producer.layer, JOINS_RELU)
            and not (producer.relu or producer.rectifier)
            and not _spreads(producer)
        )
        return replace(producer, relu=True) if fits else None

    return _join_readers(made, joined)
