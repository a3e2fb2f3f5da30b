"""A network by any name: of the zoo, a text, a `.net` file, a PyTorch module, an ONNX file.

`file.py:Net` and `file.onnx` may be followed by the size of their image: `file.py:Net
input=3x224x224`, as settings follow a name of the zoo. torch and onnx are imported only for them.
"""

from __future__ import annotations

import os
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
_SETTING = " input="


def is_imported(spec: str | os.PathLike[str]) -> bool:
    """Whether a NET is written in another framework."""
    path = os.fspath(spec).partition(_SETTING)[0]
    if "\n" in path or ";" in path:
        return False
    return path.endswith((".py", _ONNX)) or ".py:" in path


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
    """The network of a PyTorch module or an ONNX file."""
    path, setting, size = os.fspath(spec).partition(_SETTING)
    if setting and image is None:
        image = _image(size, path)
    if path.endswith(_ONNX):
        from lanewise.bridge.importing.onnx_file import import_file

        found = import_file(path, image)
    else:
        from lanewise.bridge.importing.module import import_from

        found = import_from(path, image)
    return replace(found, graph=replace(found.graph, remarks=found.remarks))


def _image(text: str, path: str) -> Input:
    try:
        return Input(*TRIPLE.read(text.strip().lower()))
    except ValueError as expected:
        raise NetError(f"{path}: input={text}: use {expected}") from None
