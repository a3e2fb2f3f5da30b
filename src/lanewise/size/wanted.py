"""What a network wants of its sizes, and the `?` in it that are still to be found.

    conv 64 k7 stride2 pad3
    want 64x112x112

A `want` is checked wherever the shapes are inferred; a `?` must have become a number before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from lanewise.errors import NetError, SizeError
from lanewise.net.graph import Graph, Wanted
from lanewise.net.show import show, show_layer
from lanewise.net.values import WANTED

Shape: TypeAlias = tuple[int, ...]


def require_solved(graph: Graph) -> None:
    """NetError where a number of the network is still `?`, with the command that finds it."""
    for name in graph.unknowns:
        node = graph.node(name)
        raise NetError(
            f"{graph.place(node)}: `{show_layer(node.layer)}` has a `?`, a number to be found "
            f"first; `lanewise size {_named(graph)}` lists what fits"
        )


def check_wants(graph: Graph, shapes: Mapping[str, Shape]) -> None:
    """SizeError where an output is not what the network wants."""
    for want in graph.wants:
        shape = shapes[want.name]
        if not is_wanted(shape, want.shape):
            shown = "x".join(map(str, shape))
            raise SizeError(
                f"{graph.place(want)}: want {WANTED.show(want.shape)}, but the output is {shown}; "
                "change the layers before it (a `?` for a number lists what fits) or the want"
            )


def is_wanted(shape: Sequence[int], wanted: Wanted) -> bool:
    """Whether a shape is what is wanted; None is any number."""
    return len(shape) == len(wanted) and all(
        want is None or number == want for number, want in zip(shape, wanted, strict=True)
    )


def _named(graph: Graph) -> str:
    """The network as an argument of a command."""
    if graph.origin != "net":
        return f'"{graph.origin}"' if " " in graph.origin else graph.origin
    return '"' + "; ".join(show(graph).splitlines()) + '"'
