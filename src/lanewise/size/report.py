"""The whole calculus for one network: a row for every layer, and the totals of the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lanewise.net.graph import Graph, Node
from lanewise.net.layers import (
    WINDOW_POOLS,
    BatchNorm,
    Conv,
    DepthwiseConv,
    Foreign,
    Input,
    Layer,
    Pair,
    PartialConv,
    Pool,
)
from lanewise.net.load import name_of
from lanewise.net.values import PAD, PAIR
from lanewise.size.cost import Cost, cost
from lanewise.size.field import Field, Pixels, infer_fields
from lanewise.size.formula import FORMULAS
from lanewise.size.memory import peak_bytes, stored_bytes
from lanewise.size.shapes import infer_shapes
from lanewise.size.training_memory import Memory, Owned, infer_memory
from lanewise.size.windows import Shape, Windowed, resolve_window, show_shape

# So many names of foreign layers are told.
_MANY = 5


@dataclass(frozen=True)
class Row:
    """One layer and the layers it reads. MACs and connections are for one image,
    `activation_bytes` for the whole batch (0: in place); a jump may be a fraction.

    `centre`: where the middle of the first output's field lies, in pixels from the middle of the
    first one. `unread`: rows and columns of its input that none of its windows reads;
    `padded_outputs`: how many places of its output map have a window that reaches beyond its input.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    output: Shape
    formula: str
    params: int
    macs: int
    padded_macs: int
    buffers: int
    connections: int
    receptive_field: tuple[Pixels, Pixels]
    jump: tuple[Pixels, Pixels]
    activation_bytes: int
    centre: tuple[Pixels, Pixels] = (0, 0)
    unread: Pair = (0, 0)
    padded_outputs: int = 0


@dataclass(frozen=True)
class Totals:
    """Sums over the rows. `buffers` are values kept but not trained; `flops` is 2 · MACs; bytes are
    fp32 for the whole batch; `peak_bytes` is the most that inference holds at once, parameters not
    included."""

    params: int
    macs: int
    padded_macs: int
    buffers: int
    connections: int
    flops: int
    activations_bytes: int
    peak_bytes: int


@dataclass(frozen=True)
class SizeReport:
    """Every size of a network; `rows` starts with the input. `remarks` tell where a layer is legal
    here and not in PyTorch, `convention` whose rules the text was read by."""

    name: str
    input: Shape
    batch: int
    rows: tuple[Row, ...]
    totals: Totals
    remarks: tuple[str, ...] = ()
    convention: str = "torch"
    memory: Memory | None = None

    @property
    def heading(self) -> str:
        """`lenet5: input 1x28x28`, with the batch and whose rules, where they are not as usual."""
        batch = f", batch {self.batch}" if self.batch > 1 else ""
        rules = f", read by {self.convention}'s rules" if self.convention != "torch" else ""
        return f"{self.name}: input {show_shape(self.input)}{batch}{rules}"

    def as_json(self) -> dict[str, Any]:
        """The document of `lanewise size --json`: the layers after the input, and the totals."""
        return {
            "name": self.name,
            "input": list(self.input),
            "layers": [_row_json(row) for row in self.rows if row.kind != Input.word],
            "totals": {
                "params": self.totals.params,
                "macs": self.totals.macs,
                "flops": self.totals.flops,
                "buffers": self.totals.buffers,
                "connections": self.totals.connections,
                "activations_bytes": self.totals.activations_bytes,
                "peak_bytes": self.totals.peak_bytes,
            },
            "convention": self.convention,
            "memory": self.memory.as_json() if self.memory else None,
        }


def size(graph: Graph, batch: int = 1) -> SizeReport:
    """The report for `batch` images at once; SizeError where a layer cannot exist."""
    if batch < 1:
        raise ValueError(f"batch is {batch}; use 1 or more")
    shapes = infer_shapes(graph)
    fields = infer_fields(graph, shapes)
    stored = stored_bytes(graph, shapes, batch)
    worked_out = _Once(shapes)
    rows = [_row(node, worked_out, fields[node.name], stored[node.name]) for node in graph.nodes]
    totals = _totals(rows, peak_bytes(graph, shapes, batch))
    owned = Owned(totals.params, totals.buffers, frozenset(_learners(graph, rows)))
    return SizeReport(
        name=graph.title or name_of(graph.origin),
        input=shapes[graph.nodes[0].name],
        batch=batch,
        rows=tuple(rows),
        totals=totals,
        remarks=tuple(_remarks(graph, shapes)),
        convention=graph.convention,
        memory=infer_memory(graph, shapes, owned, totals.peak_bytes, batch),
    )


def _learners(graph: Graph, rows: list[Row]) -> Iterator[str]:
    """The layers with parameters, also those that share another one's."""
    for node, row in zip(graph.nodes, rows, strict=True):
        if row.params or node.shared:
            yield node.name


class _Once:
    """What hangs on a layer and its inputs' shapes alone: deep networks repeat both, and a repeated
    layer is one object."""

    def __init__(self, shapes: dict[str, Shape]) -> None:
        self.shapes = shapes
        self._known: dict[tuple[object, ...], tuple[str, Cost, Pair, int]] = {}

    def of(self, node: Node) -> tuple[str, Cost, Pair, int]:
        """(formula, cost, rows and columns that no window reads, outputs that see padding)."""
        inputs = [self.shapes[name] for name in node.inputs]
        key = (id(node.layer), *inputs)
        found = self._known.get(key)
        if found is None:
            formula = FORMULAS[type(node.layer)](node.layer, *inputs)
            unread, padded = _unread(node.layer, inputs), _padded_outputs(node.layer, inputs)
            found = self._known[key] = (formula, cost(node.layer, *inputs), unread, padded)
        return found


def _row(node: Node, worked_out: _Once, field: Field, stored: int) -> Row:
    formula, spent, unread, padded = worked_out.of(node)
    return Row(
        name=node.name,
        kind=node.layer.word,
        inputs=node.inputs,
        output=worked_out.shapes[node.name],
        formula=formula,
        params=spent.params - node.shared,
        macs=spent.macs,
        padded_macs=spent.padded_macs,
        buffers=0 if node.shared == spent.params > 0 else spent.buffers,
        connections=spent.connections,
        receptive_field=field.size,
        jump=field.jump,
        activation_bytes=stored,
        centre=field.centre,
        unread=unread,
        padded_outputs=padded,
    )


def _unread(layer: Layer, inputs: list[Shape]) -> Pair:
    if not isinstance(layer, Windowed):
        return 0, 0
    height, width = resolve_window(layer, inputs[0]).axes
    return height.n - height.read, width.n - width.read


def _padded_outputs(layer: Layer, inputs: list[Shape]) -> int:
    if not isinstance(layer, Windowed):
        return 0
    height, width = resolve_window(layer, inputs[0]).axes
    return height.out * width.out - height.inner * width.inner


def _totals(rows: list[Row], peak: int) -> Totals:
    macs = sum(row.macs for row in rows)
    return Totals(
        params=sum(row.params for row in rows),
        macs=macs,
        padded_macs=sum(row.padded_macs for row in rows),
        buffers=sum(row.buffers for row in rows),
        connections=sum(row.connections for row in rows),
        flops=2 * macs,
        activations_bytes=sum(row.activation_bytes for row in rows),
        peak_bytes=peak,
    )


def _remarks(graph: Graph, shapes: dict[str, Shape]) -> Iterator[str]:
    yield from _imported(graph)
    for node in graph.nodes:
        rule = REMARKS.get(type(node.layer))
        if rule:
            yield from rule(node.name, node.layer, shapes[node.inputs[0]])


def _imported(graph: Graph) -> Iterator[str]:
    """What of an imported network the notation cannot say."""
    yield from graph.remarks
    foreign = [node for node in graph.nodes if isinstance(node.layer, Foreign)]
    if foreign:
        names = ", ".join(node.name for node in foreign[:_MANY])
        more = f" and {len(foreign) - _MANY} more" if len(foreign) > _MANY else ""
        yield (
            f"Not layers of Lanewise: {names}{more}. They are sized as they were found; the "
            "network can be neither compiled nor written as text."
        )
    for node in graph.nodes:
        if node.shares:
            yield (
                f"{node.name} shares {node.shared:,} parameters with {node.shares}; they are "
                "counted there."
            )


def _same_beyond(name: str, layer: Windowed, in_shape: Shape) -> Iterator[str]:
    if layer.pad == "same" and (isinstance(layer, Pool) or layer.stride != (1, 1)):
        pad = PAD.show(resolve_window(layer, in_shape).pad)
        yield (
            f"{name}: pad same at stride {PAIR.show(layer.stride)} is TensorFlow's rule, "
            f"here pad {pad}; PyTorch has pad same for convolutions of stride 1 only."
        )


def _ghost(name: str, layer: BatchNorm, in_shape: Shape) -> Iterator[str]:
    if layer.ghost:
        yield (
            f"{name}: ghost {layer.ghost} takes the statistics of every {layer.ghost} images: "
            "another function than batch normalisation, and PyTorch has no layer for it."
        )


# Kind → rule: (name, layer, input shape) → where the layer is legal here and not in PyTorch.
REMARKS: dict[type[Layer], Callable[..., Iterator[str]]] = {
    **dict.fromkeys((Conv, DepthwiseConv, PartialConv, *WINDOW_POOLS), _same_beyond),
    BatchNorm: _ghost,
}


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "inputs": list(row.inputs),
        "output": list(row.output),
        "formula": row.formula,
        "params": row.params,
        "macs": row.macs,
        "connections": row.connections,
        "receptive_field": list(row.receptive_field),
        "jump": list(row.jump),
        "centre": list(row.centre),
        "unread": list(row.unread),
        "padded_outputs": row.padded_outputs,
    }
