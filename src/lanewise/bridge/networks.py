"""A network by any name: of the zoo, a text, a `.net` file, a PyTorch module, an ONNX file, a Keras
model.

`file.py:Net`, `file.onnx` and `file.keras` may be followed by the size of their image: `file.py:Net
input=3x224x224`, as settings follow a name of the zoo. torch, onnx and keras are imported only for
them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from lanewise.errors import NetError
from lanewise.net.check import check, require_own
from lanewise.net.graph import Graph
from lanewise.net.layers import Input
from lanewise.net.load import load
from lanewise.net.values import TRIPLE

if TYPE_CHECKING:
    from lanewise.bridge.importing.network import Imported

_ONNX = ".onnx"
_KERAS = ".keras"
_SETTING = " input="


def is_imported(spec: str | os.PathLike[str]) -> bool:
    """Whether a NET is written in another framework."""
    path = os.fspath(spec).partition(_SETTING)[0]
    if "\n" in path or ";" in path:
        return False
    return path.endswith((".py", _ONNX, _KERAS)) or ".py:" in path


def graph_of(spec: str | os.PathLike[str], image: Input | None = None) -> Graph:
    """The network for its own image, or for another. NetError where there is none, SizeError where
    its sizes cannot be, also for what is imported."""
    if is_imported(spec):
        return imported(spec, image).graph
    graph = load(spec)
    return check(graph.with_input(image)) if image else graph


def own_graph(spec: str | os.PathLike[str], image: Input | None = None) -> Graph:
    """The same; NetError where an imported one cannot be said in the notation, so that it can be
    neither compiled nor trained."""
    return check(require_own(graph_of(spec, image)))


def imported(spec: str | os.PathLike[str], image: Input | None = None) -> Imported:
    """The network of a PyTorch module, an ONNX file or a Keras model."""
    path, setting, size = os.fspath(spec).partition(_SETTING)
    if setting and image is None:
        image = _image(size, path)
    found = _reader(path)(path, image)
    return replace(found, graph=replace(found.graph, remarks=found.remarks))


def is_keras(spec: str) -> bool:
    """Whether an imported NET is a Keras model: an archive, or of a file that imports Keras."""
    path = spec.partition(_SETTING)[0]
    if path.endswith((_ONNX, _KERAS)):
        return path.endswith(_KERAS)
    from lanewise.bridge.importing.keras_code import speaks_keras

    return speaks_keras(path)


def _reader(path: str) -> Callable[[str, Input | None], Imported]:
    """What makes a graph of a network of this kind."""
    if path.endswith(_ONNX):
        from lanewise.bridge.importing.onnx_file import import_file

        return import_file
    if is_keras(path):
        from lanewise.bridge.importing.keras_code import import_archive, import_code

        return import_archive if path.endswith(_KERAS) else import_code
    from lanewise.bridge.importing.module import import_from

    return import_from


def _image(text: str, path: str) -> Input:
    try:
        return Input(*TRIPLE.read(text.strip().lower()))
    except ValueError as expected:
        raise NetError(f"{path}: input={text}: use {expected}") from None
