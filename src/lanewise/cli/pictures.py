"""Writing a picture where the user asks for one."""

from __future__ import annotations

import contextlib
import os

from lanewise.errors import SizeError
from lanewise.net.graph import Graph
from lanewise.size.chain import Chain
from lanewise.size.drawn import chain_picture, network_picture


def draw_network(path: str, graph: Graph, layer: str | None) -> None:
    """The windows of a network's layers, or of one."""
    _write(path, network_picture(graph, layer))


def draw_chain(path: str, asked: Chain) -> None:
    """The one number that is looked for, and what comes out with it."""
    _write(path, chain_picture(asked))


def _write(path: str, picture: str) -> None:
    """Puts the SVG at `path`, whole or not at all. SizeError where it cannot be written."""
    folder, name = os.path.split(path)
    if not name.lower().endswith(".svg"):
        raise SizeError(f"--svg {path}: is no name of a picture; let it end in .svg")
    unfinished = os.path.join(folder, f".{name}.{os.getpid()}.part")
    try:
        with open(unfinished, "w", encoding="utf-8", newline="\n") as file:
            file.write(picture)
        os.replace(unfinished, path)
    except OSError as error:
        raise SizeError(f"--svg {path}: {error.strerror or error}; give another place") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
