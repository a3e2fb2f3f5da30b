"""A network in another form: text, PyTorch source, ONNX; each result read again and compared.

    .net    the notation's text, without weights
    .py     a plain `nn.Module`; weights, where the network brings them, in a .safetensors beside it
    .onnx   one file with weights

A network brings weights if it is a run, an ONNX file, or a module (its own initial ones).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lanewise.bridge.networks import is_imported, is_keras, own_graph
from lanewise.bridge.round_trip import (
    Agreement,
    Arrays,
    agreement,
    called,
    drawn_weights,
    gathered,
    load_arrays,
    module_of,
    module_weights,
    onnx_called,
)
from lanewise.errors import LanewiseError, NetError
from lanewise.net.check import check, require_own
from lanewise.net.graph import Graph
from lanewise.net.layers import Input
from lanewise.net.parse import parse
from lanewise.net.show import show

SUFFIXES = (".net", ".py", ".onnx")


@dataclass(frozen=True)
class Weighted:
    """A network, the weights that it brings (or None), and how its own form computes."""

    graph: Graph
    weights: Arrays | None = None
    brought: str = ""
    run: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Converted:
    """What a file shall hold, that of a second file with the weights (or None), and how far its
    results are from the network's."""

    content: bytes
    weights: Arrays | None
    agreement: Agreement


def open_weighted(spec: str, image: Input | None) -> Weighted:
    """A network that is no run, with its weights where it has some."""
    # A Keras model is taken for its layers: its weights lie in another order than ours.
    if not is_imported(spec) or is_keras(spec):
        return Weighted(own_graph(spec, image))
    path = spec.partition(" input=")[0]
    return _onnx(path, spec, image) if path.endswith(".onnx") else _module(path, spec, image)


def _module(path: str, spec: str, image: Input | None) -> Weighted:
    from lanewise.bridge.importing.user_code import build
    from lanewise.bridge.networks import imported

    found = imported(spec, image)
    graph = check(require_own(found.graph))
    module = build(path, weights=True).module
    weights = module_weights(graph, found.weights, module)
    return Weighted(graph, weights, "the module's own", called(module))


def _onnx(path: str, spec: str, image: Input | None) -> Weighted:
    from onnx import numpy_helper

    from lanewise.bridge.importing.onnx_file import read_model
    from lanewise.bridge.networks import imported

    found = imported(spec, image)
    graph = check(require_own(found.graph))
    model = read_model(path, weights=True)
    results = [value.name for value in model.graph.output]
    if len(results) > 1:
        raise NetError(
            f"{path}: gives {', '.join(results)}, and a network here gives one result; export the "
            "model with that one alone"
        )
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return Weighted(
        graph, gathered(graph, found.weights, held), "the file's own", onnx_called(model)
    )


def convert(
    network: Weighted, suffix: str, seed: int = 0, properties: Mapping[str, str] | None = None
) -> Converted:
    """The network in the form that `suffix` names. LanewiseError where the result, read again,
    computes something else, or has no such form.

    Without weights of its own a network is compared, and written to ONNX, with those drawn from
    `seed`.
    """
    weights = drawn_weights(network.graph, seed) if network.weights is None else network.weights
    forms = {".net": _to_text, ".py": _to_source, ".onnx": _to_onnx}
    content, run = forms[suffix](network.graph, weights, properties or {})
    against = run if network.run is None else _beside(network, weights, run)
    found = agreement(network.graph, weights, against)
    if not found.ok:
        raise LanewiseError(
            f"{network.graph.title or network.graph.origin}: as {suffix} it computes something "
            f"else: {found}; nothing was written, please report this network"
        )
    return Converted(content, network.weights if suffix == ".py" else None, found)


Form = tuple[bytes, Callable[[Any], Any]]


def _beside(network: Weighted, weights: Arrays, run: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The new form, after the network's own has been found to compute what our graph does."""
    assert network.run is not None
    own = agreement(network.graph, weights, network.run)
    if not own.ok:
        raise NetError(
            f"{network.graph.title or network.graph.origin}: computes something else than its "
            f"layers do: {own}; random or data-dependent steps cannot be converted"
        )
    return run


def _to_text(graph: Graph, weights: Arrays, properties: Mapping[str, str]) -> Form:
    text = show(graph)
    return text.encode(), called(module_of(parse(text, graph.origin), weights))


def _to_source(graph: Graph, weights: Arrays, properties: Mapping[str, str]) -> Form:
    from lanewise.bridge.source import class_name, to_source

    text = to_source(graph)
    module = executed(text, class_name(graph))
    load_arrays(module, weights)
    return text.encode(), called(module)


def executed(text: str, name: str) -> Any:
    """The module that a source text of ours makes."""
    space: dict[str, Any] = {"__name__": "lanewise_converted"}
    with redirect_stdout(sys.stderr):
        exec(compile(text, "<converted>", "exec"), space)
    return space[name]()


def _to_onnx(graph: Graph, weights: Arrays, properties: Mapping[str, str]) -> Form:
    from lanewise.ship.onnx_model import to_onnx

    model = to_onnx(graph, weights, properties)
    return model.SerializeToString(), onnx_called(model)


def suffix_of(path: Path) -> str:
    """The form that a file's name asks for; LanewiseError where it asks for none."""
    if path.suffix not in SUFFIXES:
        raise LanewiseError(
            f"{path}: unknown form {path.suffix or 'without a suffix'}; end it in "
            ".net (text), .py (PyTorch) or .onnx"
        )
    return path.suffix
