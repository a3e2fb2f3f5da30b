"""Graph → canonical text: one layer a line, options in the grammar's order, defaults left out."""

from __future__ import annotations

from collections import Counter

from lanewise.errors import NetError
from lanewise.net.grammar import FORMS, Option
from lanewise.net.graph import Graph
from lanewise.net.layers import Layer
from lanewise.net.parse import default_name


def show(graph: Graph) -> str:
    """The canonical text, ending in a newline: `parse(show(g)) == g`, and showing a parsed
    canonical text gives it back. NetError where the graph is not a chain."""
    lines: list[str] = []
    ordinals: Counter[type[Layer]] = Counter()
    before: tuple[str, ...] = ()
    for node in graph.nodes:
        if node.inputs != before:
            raise NetError(
                f"{graph.place(node)}: the notation writes chains only, and this branches"
            )
        kind = type(node.layer)
        ordinals[kind] += 1
        named = "" if node.name == default_name(kind, ordinals[kind]) else f"{node.name}: "
        lines.append(named + show_layer(node.layer))
        before = (node.name,)
    return "\n".join(lines) + "\n"


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
    return option.word + text if text.isdigit() or option.word == "k" else f"{option.word} {text}"
