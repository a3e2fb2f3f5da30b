"""The public face in Python: `Net`, and `compile` for the engine itself.

Importing this module imports the description and the calculus only; the engine comes with the first
call of `compile`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from lanewise.errors import EngineError, counted
from lanewise.net.check import require_own
from lanewise.net.graph import Graph
from lanewise.net.load import name_of, read_text
from lanewise.net.parse import parse
from lanewise.net.show import show
from lanewise.size.report import SizeReport, size

if TYPE_CHECKING:
    from lanewise.native import Program
    from lanewise.size.solve import Solutions


class Net:
    """A network: the text it was written in, and the graph that the text describes.

    >>> Net("lenet5").size().totals.params
    61706
    """

    _text: str | None

    def __init__(
        self, spec: str | os.PathLike[str] | Graph | Net, convention: str = "torch"
    ) -> None:
        """`spec`: zoo name, path to a .net file, notation text, a PyTorch module or an ONNX file
        (`models.py:Net input=3x224x224`, `model.onnx`), or a graph. `convention`: by whose
        rules the text is read; `text` is then what it means, with all paddings as numbers.

        NetError (a ValueError) where there is no such network or its text is wrong, SizeError where
        the convention cannot say it.
        """
        if isinstance(spec, Net):
            self._text, self._graph = spec._text, spec.graph
        elif isinstance(spec, Graph):
            self._text, self._graph = None, spec
        else:
            self._text, self._graph = _read(spec)
        if convention != "torch":
            self._graph = read_by(self._graph, convention)
            self._text = show(self._graph)

    @classmethod
    def of(cls, text: str, graph: Graph) -> Net:
        """A network whose text was parsed before, with the graph's own name and origin."""
        net = cls(graph)
        net._text = text
        return net

    @property
    def text(self) -> str:
        """The description exactly as it was given; of what is no text, the canonical one.

        NetError for an imported network with layers that the notation does not have.
        """
        if self._text is None:
            self._text = show(self._graph)
        return self._text

    @property
    def graph(self) -> Graph:
        """The immutable graph of named layers."""
        return self._graph

    @property
    def name(self) -> str:
        """The zoo name, the file's name without .net, or "net"."""
        return self._graph.title or name_of(self._graph.origin)

    def size(self, batch: int = 1) -> SizeReport:
        """Every size, exactly: `.rows`, `.totals`; SizeError (a ValueError) where one cannot exist.

        Parameters and MACs are for one image, bytes for `batch` images in fp32.
        """
        return size(self._graph, batch)

    def solve(self, most: int | None = 20) -> Solutions:
        """What can stand for every `?` of the text: `.count`, and `.first`, the most usual first,
        at most `most` of them (None: all), each with its `.graph` and its `.numbers`.

        SizeError where nothing fits (with what is nearest) or infinitely many numbers do.
        """
        from lanewise.size.nearest import why_none
        from lanewise.size.solve import solve

        found = solve(self._graph, most)
        if not found.count:
            raise why_none(self._graph)
        return found

    def __eq__(self, other: object) -> bool:
        """Whether both describe the same graph, however they are written."""
        return self._graph == other._graph if isinstance(other, Net) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._graph)

    def __repr__(self) -> str:
        return f"<Net {self.name}: {counted(len(self._graph.nodes), 'layer')}>"


def read_by(graph: Graph, name: str) -> Graph:
    """The network as the convention of this name reads it; SizeError where that cannot be."""
    from lanewise.size.conventions import convention
    from lanewise.size.reading import read

    return read(graph, convention(name))


def as_graph(net: str | os.PathLike[str] | Graph | Net) -> Graph:
    """The graph of whatever names or holds a network that can be compiled."""
    if isinstance(net, Graph):
        return net
    return require_own(net.graph if isinstance(net, Net) else Net(net).graph)


def _read(spec: str | os.PathLike[str]) -> tuple[str | None, Graph]:
    """(the text, its graph); what is imported has no text."""
    path = os.fspath(spec)
    if any(suffix in path for suffix in (".py", ".onnx", ".keras")):
        from lanewise.bridge.networks import graph_of, is_imported

        if is_imported(spec):
            return None, graph_of(spec)
    text, origin = read_text(spec)
    return text, parse(text, origin)


def compile(
    net: str | os.PathLike[str] | Graph | Net,
    *,
    batch: int | None = None,
    training: bool = False,
    **options: Any,
) -> Program:
    """The engine's program for a network; further `options` as `lanewise.native.compile_net`.

    batch: how many images most calls will bring. A program takes any number, but one for inference
    that is told of a few (below 8) takes them one after the other, with channels in the lanes of a
    vector; else sixteen lie side by side, and one image costs as much as sixteen.
    EngineError where this machine cannot run it; SizeError or NetError for the network itself.
    """
    if batch is not None and batch < 1:
        raise EngineError(f"batch is {batch}; use 1 or more")
    from lanewise.native import compile_net

    if batch is not None and not training:
        options["batch"] = batch
    return compile_net(as_graph(net), training=training, **options)
