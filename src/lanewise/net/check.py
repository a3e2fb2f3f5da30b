"""The structure rules of a network: what must hold before any size is computed.

`check` is called by `parse`, and may be called on a graph that was built in code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from math import inf, isfinite
from typing import Any

from lanewise.errors import NetError
from lanewise.net.graph import Graph, Node, Want
from lanewise.net.layers import ChannelSplit, Foreign, Input, Join, Layer, TransposedConv
from lanewise.net.unknown import unknowns_of, with_numbers
from lanewise.net.values import PAD, PAIR, WANTED

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Far above any real layer; it keeps slips of the finger from becoming minutes of counting.
LARGEST = 1_000_000
_SOFTMAX = "leave it out: the loss contains it, and the largest logit is the largest probability"
# What to do about functions that many networks end with.
FOREIGN_REMEDIES = dict.fromkeys(("softmax", "log_softmax", "Softmax", "LogSoftmax"), _SOFTMAX)
# Images that the engine works on side by side, one in each vector lane.
LANES = 16


def check(graph: Graph) -> Graph:
    """The same graph; NetError unless its input is first and alone, every name is unique, every
    node reads layers before it and is read, and every number is in range. A `?` is in range."""
    _check_input(graph)
    known: dict[str, Node] = {}
    right: set[int] = set()  # repeated layers are one object, and looked at once
    for node in graph.nodes:
        _check_name(graph, node, known)
        _check_inputs(graph, node, known)
        if id(node.layer) not in right:
            _check_numbers(graph, node)
            right.add(id(node.layer))
        known[node.name] = node
    _check_readers(graph)
    _check_wants(graph, known)
    return graph


def require_own(graph: Graph) -> Graph:
    """The same graph; NetError where it has a layer that is none of Lanewise's, or layers that
    share weights."""
    for node in graph.nodes:
        if isinstance(node.layer, Foreign):
            why = f" ({node.layer.reason})" if node.layer.reason else ""
            remedy = FOREIGN_REMEDIES.get(
                node.layer.operator, "write it with the layers of the notation"
            )
            raise NetError(
                f"{graph.place(node)}: {node.layer.operator}{why} is no layer of Lanewise: "
                f"`lanewise size` shows its size, and nothing else works with it; {remedy}"
            )
        if node.shares:
            raise NetError(
                f"{graph.place(node)}: has its weights together with {node.shares}, and layers of "
                "Lanewise have weights of their own; `lanewise size` works, or make another module"
            )
    return graph


def name_taken(place: str, name: str, taken: Layer, line: int, own_line: int, own_word: str) -> str:
    """The message for a name that a layer `taken` of line `line` has already."""
    where = f" of line {line}" if line and line != own_line else ""
    return (
        f"{place}: the name {name} is taken by the {taken.word}{where}; give this layer another, "
        f"like `{name}b: {own_word} …`"
    )


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
        taken, place = known[node.name], graph.place(node)
        raise NetError(
            name_taken(place, node.name, taken.layer, taken.line, node.line, node.layer.word)
        )


def _check_inputs(graph: Graph, node: Node, known: dict[str, Node]) -> None:
    count = len(node.inputs)
    if isinstance(node.layer, Join):
        if count < 2 or len(set(node.inputs)) < count:
            raise NetError(
                f"{graph.place(node)}: {node.layer.word} reads {', '.join(node.inputs) or 'none'}; "
                "it joins two or more different layers"
            )
    elif count != (0 if isinstance(node.layer, Input) else 1):
        raise NetError(
            f"{graph.place(node)}: {node.layer.word} reads one layer (an input none), not {count}"
        )
    for name in node.inputs:
        if name not in known:
            raise NetError(f"{graph.place(node)}: reads {name!r}, which is no layer before it")


def _check_readers(graph: Graph) -> None:
    read = {name for node in graph.nodes for name in node.inputs}
    for node in graph.nodes[:-1]:
        if node.name not in read:
            raise NetError(
                f"{graph.place(node)}: nobody reads {node.name}; read it with "
                f"`from {node.name}` or in a join, or remove it"
            )


def _check_wants(graph: Graph, known: dict[str, Node]) -> None:
    asked: dict[str, Want] = {}
    for want in graph.wants:
        if want.name not in known:
            raise NetError(f"{graph.place(want)}: wants a size of {want.name!r}, which is no layer")
        if problem := _wanted(want):
            raise NetError(f"{graph.place(want)}: {problem}")
        if problem := _contradiction(asked.setdefault(want.name, want), want):
            raise NetError(f"{graph.place(want)}: {problem}")


def _wanted(want: Want) -> str:
    for number in want.shape:
        if number is not None and not 1 <= number <= LARGEST:
            return f"want {WANTED.show(want.shape)}: {number} is no size; use 1 to {LARGEST:,}"
    return ""


def _contradiction(first: Want, second: Want) -> str:
    """Why no value can be both, or ""."""
    alike = len(first.shape) == len(second.shape) and all(
        a == b or None in (a, b) for a, b in zip(first.shape, second.shape, strict=True)
    )
    if alike:
        return ""
    line = f" in line {first.line}" if first.line else ""
    return (
        f"want {WANTED.show(second.shape)} contradicts want {WANTED.show(first.shape)}{line} of "
        "the same layer; keep one"
    )


def _check_numbers(graph: Graph, node: Node) -> None:
    unknowns = unknowns_of(node.layer)
    layer = with_numbers(node.layer, dict.fromkeys(unknowns, 1)) if unknowns else node.layer
    for name, value in vars(layer).items():
        problem = RULES[name](value)
        if problem:
            raise NetError(f"{graph.place(node)}: {name} {problem}")
    rule = None if unknowns else LAYER_RULES.get(type(layer))
    if rule and (problem := rule(node.layer)):
        raise NetError(f"{graph.place(node)}: {problem}")


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


def _at_least_zero(value: Any) -> str:
    shown = PAIR.show(value) if isinstance(value, tuple) else str(value)
    if min(_flat(value)) < 0:
        return f"is {shown}; use 0 or more"
    return _not_too_large(value, shown)


def _slope(value: Any) -> str:
    return "" if 0 <= value < inf else f"is {value}; use 0 or more, like 0.01"


def _rate(value: Any) -> str:
    return "" if 0 <= value < 1 else f"is {value}; use at least 0 and less than 1, like 0.5"


def _above_zero(value: Any) -> str:
    return "" if 0 < value < inf else f"is {value}; use a number above 0"


def _share(value: Any) -> str:
    return "" if 0 < value <= 1 else f"is {value}; use more than 0 and at most 1, like 0.1"


def _finite(value: Any) -> str:
    return "" if isfinite(value) else f"is {value}; use a finite number"


def _ghost(value: Any) -> str:
    if value in (0, LANES):
        return ""
    return (
        f"is {value}; use {LANES} (statistics of each slice of {LANES} images, another function), "
        "or leave it out for those of the whole batch"
    )


def _table(value: Any) -> str:
    for index, maps in enumerate(value):
        if not maps or min(maps) < 0 or max(maps) > LARGEST or len(set(maps)) < len(maps):
            shown = ",".join(map(str, maps)) or "nothing"
            return (
                f"entry {index} is {shown}; list each map that kernel {index} reads once, "
                "numbered from 0"
            )
    return "" if value else "is empty; list the maps of each kernel, like 0,1,2/1,2,3"


# The rule of every field a layer may have: value → what is wrong and what to use, or "".
RULES: dict[str, Callable[[Any], str]] = {
    "affine": _truth,
    "after": _at_least_zero,
    "alpha": _above_zero,
    "before": _at_least_zero,
    "beta": _above_zero,
    "bias": _truth,
    "bilinear": _truth,
    "ceil": _truth,
    "channels": _at_least_one,
    "constant": _above_zero,
    "dilation": _at_least_one,
    "eps": _above_zero,
    "features": _at_least_one,
    "ghost": _ghost,
    "groups": _at_least_one,
    "height": _at_least_one,
    "initial": _finite,
    "kernel": _at_least_one,
    "kernels": _at_least_one,
    "momentum": _share,
    "multiplier": _at_least_one,
    "of": _at_least_one,
    "output_pad": _at_least_zero,
    "pad": _pad,
    "part": _at_least_one,
    "per_channel": _truth,
    "rate": _rate,
    "scale": _at_least_one,
    "size": _at_least_one,
    "slope": _slope,
    "stride": _at_least_one,
    "table": _table,
    "unpadded": _truth,
    "width": _at_least_one,
}


def _split(layer: ChannelSplit) -> str:
    if layer.part <= layer.of:
        return ""
    return f"part {layer.part} of {layer.of}; use part 1 to {layer.of}"


def _output_pad(layer: TransposedConv) -> str:
    for grown, stride, dilation in zip(layer.output_pad, layer.stride, layer.dilation, strict=True):
        if grown >= max(stride, dilation):
            return (
                f"outputpad is {PAIR.show(layer.output_pad)}; use less than the stride "
                f"{PAIR.show(layer.stride)} or the dilation {PAIR.show(layer.dilation)}"
            )
    return ""


# The rule between the fields of a layer, where there is one.
LAYER_RULES: dict[type[Layer], Callable[[Any], str]] = {
    ChannelSplit: _split,
    TransposedConv: _output_pad,
}
