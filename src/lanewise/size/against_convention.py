"""One text read by two conventions: where it gives other sizes, and where other pixels are read.

Every layer is read by both over the same input, so that each difference stands where it arises;
what only follows from a layer above is told apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import Any, Literal, TypeAlias

from lanewise.errors import SizeError, counted
from lanewise.net.graph import Graph, Node
from lanewise.net.layers import AvgPool, Layer, MaxPool, TransposedConv
from lanewise.net.show import show_layer
from lanewise.size.against import total_lines
from lanewise.size.axis import Axis
from lanewise.size.conventions import Convention
from lanewise.size.reading import READINGS, read, read_layer, read_until, zeros_around
from lanewise.size.report import SizeReport, size
from lanewise.size.shapes import ELSEWHERE, Shape, output_shape
from lanewise.size.table import GAP, aligned
from lanewise.size.windows import Windowed, resolve_transposed, resolve_window, show_shape

#: `size`: another output; `pixels`: windows begin elsewhere; `average`: the mean divides by others;
#: `follows`: only its input is another one.
Change: TypeAlias = Literal["same", "size", "pixels", "average", "follows"]
TELLS: tuple[Change, ...] = ("size", "pixels", "average")
WORDS: dict[Change, str] = {
    "size": "of another size",
    "pixels": "with other pixels",
    "average": "with another mean",
}


@dataclass(frozen=True)
class Side:
    """A layer as one convention reads it, and its output in that network."""

    layer: Layer
    output: Shape


@dataclass(frozen=True)
class Read:
    """A layer read by both; `why` says in words what differs, where something does."""

    name: str
    a: Side
    b: Side
    change: Change
    why: str = ""


@dataclass(frozen=True)
class Readings:
    """Both readings of a network. `b` is None, and `problem` says why, where the second convention
    has no such network: the layers then end before the one that it cannot have."""

    conventions: tuple[str, str]
    a: SizeReport
    b: SizeReport | None
    layers: tuple[Read, ...]
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """The document of `lanewise size NET --against-convention NAME --json`."""
        return {
            "name": self.a.name,
            "input": list(self.a.input),
            "conventions": list(self.conventions),
            "layers": [_json(layer) for layer in self.layers],
            "totals": {
                name: report.as_json()["totals"] if report else None
                for name, report in zip(self.conventions, (self.a, self.b), strict=True)
            },
            "problem": self.problem or None,
        }


def compare(graph: Graph, rule: Convention, other: Convention, batch: int = 1) -> Readings:
    """The text of the graph read by both. SizeError where the first convention cannot have it."""
    own = read(graph, rule)
    nodes, problem = read_until(graph, other)
    return Readings(
        (rule.name, other.name),
        size(own, batch),
        None if problem else size(read(graph, other), batch),
        tuple(_layers(graph, (rule, other), own, nodes)),
        str(problem or ""),
    )


def _layers(
    graph: Graph, rules: tuple[Convention, Convention], own: Graph, others: Sequence[Node]
) -> Iterator[Read]:
    shapes: tuple[dict[str, Shape], dict[str, Shape]] = ({}, {})
    other_graph = replace(graph, nodes=tuple(others), convention=rules[1].name)
    for written, a, b in zip(graph.nodes, own.nodes, others, strict=False):
        inputs = [[known[name] for name in written.inputs] for known in shapes]
        shapes[0][a.name] = output_shape(own, a, inputs[0])
        shapes[1][b.name] = output_shape(other_graph, b, inputs[1])
        change, why = _difference(written.layer, a.layer, rules[1], inputs[0])
        if change == "same" and inputs[0] != inputs[1]:
            change = "follows"
        sides = Side(a.layer, shapes[0][a.name]), Side(b.layer, shapes[1][b.name])
        yield Read(written.name, *sides, change, why)


def _difference(
    written: Layer, own: Layer, rule: Convention, in_shapes: Sequence[Shape]
) -> tuple[Change, str]:
    """How the other convention reads a layer over the input that the first gives it."""
    if type(written) not in READINGS:
        return "same", ""
    try:
        other = read_layer(rule, written, *in_shapes)
        outputs = [ELSEWHERE[type(layer)](layer, *in_shapes) for layer in (own, other)]
    except SizeError as error:
        return "size", str(error)
    if outputs[0] != outputs[1]:
        return "size", f"{show_shape(outputs[1])} instead of {show_shape(outputs[0])}"
    axes, others = (_axes(layer, in_shapes[0]) for layer in (own, other))
    shifts = [one.begin - two.begin for one, two in zip(axes, others, strict=True)]
    if isinstance(own, MaxPool) and zeros_around(rule, written, in_shapes[0]):
        return "pixels", "zeros are laid around it (ZeroPadding2D), and may win"
    if any(shifts):
        return "pixels", f"windows begin {_both(*map(_shift, shifts))}"
    if isinstance(own, AvgPool) and isinstance(other, AvgPool):
        counts = [
            [axis.counted(layer.unpadded) for axis in lie]
            for layer, lie in ((own, axes), (other, others))
        ]
        if counts[0] != counts[1]:
            return "average", "padding does not count" if other.unpadded else "padding counts"
    return "same", ""


def _axes(layer: Layer, in_shape: Shape) -> tuple[Axis, ...]:
    if isinstance(layer, TransposedConv):
        return resolve_transposed(layer, in_shape).axes
    return resolve_window(layer, in_shape).axes if isinstance(layer, Windowed) else ()


def _shift(pixels: int) -> str:
    if not pixels:
        return "alike"
    count = "1 pixel" if abs(pixels) == 1 else f"{abs(pixels)} pixels"
    return f"{count} {'later' if pixels > 0 else 'earlier'}"


def _both(height: str, width: str) -> str:
    return height if height == width else f"{height} (height), {width} (width)"


def as_text(readings: Readings, width: int = 80) -> str:
    """For a terminal: a line for each way that a layer is read, where the two ways differ."""
    a, b = readings.conventions
    lines = [f"{readings.a.name}: input {show_shape(readings.a.input)}"]
    lines += [f"- as {a} reads it", f"+ as {b} reads it", ""]
    told = [layer for layer in readings.layers if layer.change in TELLS]
    lines += list(_table(told))
    lines += [_summary(readings, told)]
    if readings.problem:
        lines += ["", *wrap(f"{b} cannot have the rest: {readings.problem}", width)]
    elif readings.b is not None and readings.a.totals != readings.b.totals:
        names = readings.conventions
        lines += ["", *total_lines(readings.a, readings.b, names)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _table(told: Sequence[Read]) -> Iterator[str]:
    if not told:
        return
    rows = [("", "layer", "", "output")]
    for layer in told:
        rows.append(("-", layer.name, show_layer(layer.a.layer), show_shape(layer.a.output)))
        rows.append(("+", "", show_layer(layer.b.layer), show_shape(layer.b.output)))
    title, *lines = aligned(rows, (False,) * 4)
    yield title
    indent = len(GAP) * 2 + 1 + max(len(row[1]) for row in rows)
    for number, layer in enumerate(told):
        yield from lines[2 * number : 2 * number + 2]
        yield f"{' ' * indent}{layer.why}"
    yield ""


def _summary(readings: Readings, told: Sequence[Read]) -> str:
    counts = Counter(layer.change for layer in readings.layers)
    parts = [f"{counts[change]} {what}" for change, what in WORDS.items() if counts[change]]
    windows = sum(type(layer.a.layer) in READINGS for layer in readings.layers)
    below = f" Below them {counts['follows']} have another input." if counts["follows"] else ""
    return f"Of {counted(windows, 'layer')} with windows: {', '.join(parts) or 'all alike'}.{below}"


def _json(layer: Read) -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.a.layer.word,
        "change": layer.change,
        "why": layer.why,
        "a": {"text": show_layer(layer.a.layer), "output": list(layer.a.output)},
        "b": {"text": show_layer(layer.b.layer), "output": list(layer.b.output)},
    }
