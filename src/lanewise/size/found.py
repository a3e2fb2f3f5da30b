"""Solutions as text for a terminal and as JSON.

   layer  found         output                                reason
1  conv1  stride2 pad3  ⌊(224 + 6 − 7)/2⌋ + 1 = 112 stride 2  halves, same padding (7 − 1)/2 = 3
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any

from lanewise.net.grammar import FORMS
from lanewise.net.graph import Graph
from lanewise.net.layers import Layer, Pool
from lanewise.net.load import name_of
from lanewise.net.show import show
from lanewise.net.unknown import unknowns_of
from lanewise.net.values import WANTED
from lanewise.size.bounds import Bounds
from lanewise.size.formula import FORMULAS
from lanewise.size.shapes import infer_shapes
from lanewise.size.solve import Solution, Solutions
from lanewise.size.table import GAP, NO_BREAK, aligned
from lanewise.size.windows import Shape, show_shape

_TITLES = ("", "layer", "found", "output", "reason")
# A column of reasons narrower than this leaves the arithmetic out of the table.
_NARROWEST = 26


def as_text(found: Solutions, width: int = 80, notes: bool = True) -> str:
    """The solutions for a terminal of `width` columns, ending in a newline."""
    lines = [_heading(found.open), ""]
    lines += _table(found, width)
    if notes:
        lines.append("")
        for note in _notes(found):
            lines += wrap(note, width, subsequent_indent=GAP, break_on_hyphens=False)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def as_json(found: Solutions) -> dict[str, Any]:
    """The document of `lanewise size --json` for a network with `?`."""
    return {
        "name": name_of(found.open.origin),
        "wants": [{"layer": want.name, "shape": list(want.shape)} for want in found.open.wants],
        "count": found.count,
        "bounds": list(bounds_told(found)),
        "solutions": [_solution_json(found.open, solution) for solution in found.first],
    }


def found_text(graph: Graph, solution: Solution) -> str:
    """`stride2 pad3`; of several layers, `conv1: stride2 pad3, conv2: k3`."""
    texts = {
        name: _numbers_text(graph.node(name).layer, solution.graph.node(name).layer)
        for name in graph.unknowns
    }
    if len(texts) == 1:
        return next(iter(texts.values()))
    return ", ".join(f"{name}: {text}" for name, text in texts.items())


def one_line(graph: Graph) -> str:
    """The network as one argument of a command."""
    return "; ".join(show(graph).splitlines())


def bounds_told(found: Solutions) -> Iterator[str]:
    """How far was looked."""
    return looked_for(found.open, found.bounds)


def looked_for(graph: Graph, bounds: Bounds) -> Iterator[str]:
    """How far is looked for the `?` of a network."""
    fields = {one.field_name for unknown in graph.unknowns.values() for one in unknown}
    return bounds.told(fields, any(isinstance(graph.node(n).layer, Pool) for n in graph.unknowns))


def _heading(graph: Graph) -> str:
    wants = ", ".join(f"{want.name} {WANTED.show(want.shape)}" for want in graph.wants)
    first = show(graph).split("\n", 1)[0]
    return f"{name_of(graph.origin)}: {first}" + (f", wanted {wants}" if wants else "")


def _table(found: Solutions, width: int) -> Iterator[str]:
    rows = [row for number, one in enumerate(found.first) for row in _rows(found, one, number + 1)]
    fixed = [_TITLES[:4], *(row[:4] for row in rows)]
    right = (True, False, False, False)
    room = width - max(map(len, aligned(fixed, right))) - len(GAP)
    if room < _NARROWEST:
        fixed = [row[:3] for row in fixed]
        room = max(_NARROWEST, width - max(map(len, aligned(fixed, right[:3]))) - len(GAP))
    left = aligned(fixed, right[: len(fixed[0])])
    indent = max(map(len, left))
    for line, reason in zip(left, [_TITLES[4], *(row[4] for row in rows)], strict=True):
        first, *others = [part.replace(NO_BREAK, " ") for part in wrap(reason, room)] or [""]
        yield f"{line:<{indent}}{GAP}{first}"
        yield from (f"{'':<{indent}}{GAP}{other}" for other in others)


def _rows(found: Solutions, solution: Solution, number: int) -> Iterator[tuple[str, ...]]:
    """A line for each layer with `?`, the number before the first."""
    graph = solution.graph
    shapes = infer_shapes(graph)
    for name in found.open.unknowns:
        node = graph.node(name)
        inputs = [shapes[one] for one in node.inputs]
        yield (
            str(number) if name == next(iter(found.open.unknowns)) else "",
            name,
            _numbers_text(found.open.node(name).layer, node.layer),
            _arithmetic(node.layer, inputs, shapes[name]),
            ", ".join(told.replace(" ", NO_BREAK) for told in solution.reasons.get(name, ())),
        )


def _arithmetic(layer: Layer, inputs: Sequence[Shape], shape: Shape) -> str:
    formula = FORMULAS[type(layer)](layer, *inputs)
    return formula if len(formula) <= 40 else show_shape(shape)


def _numbers_text(open_layer: Layer, layer: Layer) -> str:
    """What was found, as it is written: `conv 6 k5 stride2 pad 1:2`."""
    fields = {one.field_name for one in unknowns_of(open_layer)}
    form = FORMS[type(layer)]
    words = []
    if form.slot and form.slot.fields[0] in fields:
        words.append(f"{layer.word} {form.slot.value.show(getattr(layer, form.slot.fields[0]))}")
    for option in form.options:
        if option.field in fields:
            text = option.value.show(getattr(layer, option.field))
            words.append(option.word + (text if text.isdigit() else f" {text}"))
    return " ".join(words)


def _notes(found: Solutions) -> Iterator[str]:
    shown = len(found.first)
    if shown < found.count:
        yield f"{found.count:,} solutions, the {shown} most usual here; --all lists every one."
    else:
        yield "1 solution." if shown == 1 else f"{shown} solutions, the most usual first."
    told = "; ".join(bounds_told(found))
    if told:
        yield f"Looked for: {told}."
    if found.count > 1:
        yield f'The first: "{one_line(found.first[0].graph)}"'


def _solution_json(graph: Graph, solution: Solution) -> dict[str, Any]:
    shapes = infer_shapes(solution.graph)
    numbers: dict[str, dict[str, Any]] = {}
    for name, unknown in graph.unknowns.items():
        layer = solution.graph.node(name).layer
        fields = dict.fromkeys(one.field_name for one in unknown)
        numbers[name] = {field: getattr(layer, field) for field in fields}
    return {
        "text": one_line(solution.graph),
        "numbers": numbers,
        "output": list(shapes[solution.graph.output.name]),
        "reasons": {name: list(told) for name, told in solution.reasons.items()},
    }
