"""The argument NET of several verbs: a network by any name."""

from __future__ import annotations

from lanewise.net.check import check
from lanewise.net.graph import Graph
from lanewise.net.layers import Input
from lanewise.net.load import load

NET = (
    "zoo name, .net file, notation text, models.py:Net (PyTorch, Keras), model.onnx or model.keras"
)


def network(spec: str, image: Input | None = None, *, forgiving: bool = False) -> Graph:
    """The network, for its own image or for `image`. What is imported may hold layers that can
    only be sized. `forgiving`: what its text forgets is to be found."""
    if _may_be_imported(spec):
        from lanewise.bridge.networks import graph_of

        return graph_of(spec, image)
    graph = load(spec, forgiving)
    return check(graph.with_input(image)) if image else graph


def own_network(spec: str) -> Graph:
    """The network; NetError where it has layers that can only be sized."""
    if _may_be_imported(spec):
        from lanewise.bridge.networks import own_graph

        return own_graph(spec)
    return load(spec)


def _may_be_imported(spec: str) -> bool:
    """A quick look, so that the zoo needs nothing of the bridge."""
    return any(suffix in spec for suffix in (".py", ".onnx", ".keras"))
