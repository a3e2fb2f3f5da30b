"""Graph → canonical text: one layer a line, options in the grammar's order, defaults left out."""

from __future__ import annotations

from collections import Counter

from lanewise.net.check import require_own
from lanewise.net.grammar import FORMS, Option
from lanewise.net.graph import Graph, Node
from lanewise.net.layers import Input, Join, Layer
from lanewise.net.values import WANTED


def show(graph: Graph) -> str:
    """The canonical text, flat and ending in a newline: `parse(show(g)) == g`, and showing a parsed
    canonical text gives it back. A layer that does not read the one before says what it reads.
    NetError for an imported network with layers that the notation does not have."""
    require_own(graph)
    lines: list[str] = []
    ordinals: Counter[type[Layer]] = Counter()
    before: tuple[str, ...] = ()
    wants = graph.wants
    for node in graph.nodes:
        kind = type(node.layer)
        ordinals[kind] += 1
        named = "" if node.name == default_name(kind, ordinals[kind]) else f"{node.name}: "
        lines.append(named + show_layer(node.layer) + _show_inputs(node, before))
        lines += [f"want {WANTED.show(want.shape)}" for want in wants if want.name == node.name]
        before = (node.name,)
    return "\n".join(lines) + "\n"


def default_name(kind: type[Layer], ordinal: int) -> str:
    """The name of the `ordinal`-th layer (1…) of its kind where the text gives none."""
    return kind.word if kind is Input else f"{kind.word}{ordinal}"


def _show_inputs(node: Node, before: tuple[str, ...]) -> str:
    if isinstance(node.layer, Join):
        return " " + " ".join(node.inputs)
    return "" if node.inputs == before else f" from {' '.join(node.inputs)}"


def show_layer(layer: Layer) -> str:
    """One layer as it is written, without a name: `conv 6 k5 pad2`."""
    form = FORMS[type(layer)]
    words = [layer.word]
    if form.slot:
        values = tuple(getattr(layer, field) for field in form.slot.fields)
        words.append(form.slot.value.show(values if len(values) > 1 else values[0]))
    words += [_show_option(layer, option) for option in form.options if _is_said(layer, option)]
    words += [flag.word for flag in form.flags if getattr(layer, flag.field) == flag.sets]
    return " ".join(words)


def _is_said(layer: Layer, option: Option) -> bool:
    value = getattr(layer, option.field)
    return bool(value != (getattr(layer, option.like) if option.like else option.default))


def _show_option(layer: Layer, option: Option) -> str:
    text = option.value.show(getattr(layer, option.field))
    # A plain number touches its word; anything longer is easier to read apart.
    touches = text.isdigit() or option.field == "kernel"
    return option.word + text if touches and not option.apart else f"{option.word} {text}"
