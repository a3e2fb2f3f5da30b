"""The structure rules of a network: what must hold before any size is computed.

`check` is called by `parse`, and may be called on a graph that was built in code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from lanewise.errors import NetError
from lanewise.net.graph import Graph, Node
from lanewise.net.layers import Input
from lanewise.net.values import PAD, PAIR

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Far above any real layer; it keeps slips of the finger from becoming minutes of counting.
LARGEST = 1_000_000


def check(graph: Graph) -> Graph:
    """The same graph; NetError unless its input is first and alone, every name is unique, every
    node reads layers before it, and every number is in range."""
    _check_input(graph)
    known: dict[str, Node] = {}
    for node in graph.nodes:
        _check_name(graph, node, known)
        _check_inputs(graph, node, known)
        _check_numbers(graph, node)
        known[node.name] = node
    return graph


def _check_input(graph: Graph) -> None:
    if not graph.nodes:
        raise NetError(f"{graph.origin}: no layers; start with the image, like `input 1x28x28`")
    first, *others = graph.nodes
    if not isinstance(first.layer, Input):
        raise NetError(
            f"{graph.place(first)}: the first layer is `{first.layer.word}`; "
            "start with the image, like `input 1x28x28`"
        )
    for node in others:
        if isinstance(node.layer, Input):
            raise NetError(f"{graph.place(node)}: a second input; a network has one, remove this")


def _check_name(graph: Graph, node: Node, known: dict[str, Node]) -> None:
    if not NAME.fullmatch(node.name):
        raise NetError(
            f"{graph.place(node)}: {node.name!r} is no name; use letters, digits and _, "
            "starting with a letter"
        )
    if node.name in known:
        line = known[node.name].line
        where = f" of line {line}" if line and line != node.line else ""
        raise NetError(
            f"{graph.place(node)}: the name {node.name} is taken by the "
            f"{known[node.name].layer.word}{where}; give this layer another, "
            f"like `{node.name}b: {node.layer.word} …`"
        )


def _check_inputs(graph: Graph, node: Node, known: dict[str, Node]) -> None:
    wanted = 0 if isinstance(node.layer, Input) else 1
    if len(node.inputs) != wanted:
        raise NetError(
            f"{graph.place(node)}: {node.layer.word} reads {wanted} layer(s), "
            f"not {len(node.inputs)}"
        )
    for name in node.inputs:
        if name not in known:
            raise NetError(f"{graph.place(node)}: reads {name!r}, which is no layer before it")


def _check_numbers(graph: Graph, node: Node) -> None:
    for name, value in vars(node.layer).items():
        problem = RULES[name](value)
        if problem:
            raise NetError(f"{graph.place(node)}: {name} {problem}")


def _flat(value: Any) -> Iterable[int]:
    if isinstance(value, tuple):
        for part in value:
            yield from _flat(part)
    else:
        yield value


def _at_least_one(value: Any) -> str:
    shown = PAIR.show(value) if isinstance(value, tuple) else str(value)
    if min(_flat(value)) < 1:
        return f"is {shown}; use 1 or more"
    return _not_too_large(value, shown)


def _not_too_large(value: Any, shown: str) -> str:
    return f"is {shown}; at most {LARGEST:,} is allowed" if max(_flat(value)) > LARGEST else ""


def _pad(value: Any) -> str:
    if value in ("same", "valid"):
        return ""
    shown = PAD.show(value)
    if min(_flat(value)) < 0:
        return f"is {shown}; use 0 or more"
    return _not_too_large(value, shown)


def _truth(value: Any) -> str:
    return "" if isinstance(value, bool) else f"is {value!r}; use True or False"


def _slope(value: Any) -> str:
    return "" if 0 <= value < float("inf") else f"is {value}; use 0 or more, like 0.01"


def _rate(value: Any) -> str:
    return "" if 0 <= value < 1 else f"is {value}; use at least 0 and less than 1, like 0.5"


# The rule of every field a layer may have: value → what is wrong and what to use, or "".
RULES: dict[str, Callable[[Any], str]] = {
    "channels": _at_least_one,
    "height": _at_least_one,
    "width": _at_least_one,
    "kernels": _at_least_one,
    "kernel": _at_least_one,
    "stride": _at_least_one,
    "pad": _pad,
    "dilation": _at_least_one,
    "groups": _at_least_one,
    "features": _at_least_one,
    "bias": _truth,
    "ceil": _truth,
    "slope": _slope,
    "rate": _rate,
}
