"""Text → graph: statements (`source`), their expansion to layers (`expand`), the rules (`check`).

    # a comment reaches to the end of its line
    input 1x28x28
    c1: conv 6 k5 pad2; relu        # `name:` names a layer, `;` may stand for a line end
    residual { conv 6 k3 pad1 }     # a body in braces reads what stands before it

Layers without a name get their word and their number among their kind: conv1, relu1, conv2 …
"""

from __future__ import annotations

from lanewise.net.check import check
from lanewise.net.elsewhere import nearest
from lanewise.net.expand import expand
from lanewise.net.graph import Graph
from lanewise.net.show import default_name
from lanewise.net.source import read_source

__all__ = ["default_name", "nearest", "parse"]


def parse(text: str, origin: str = "net", forgiving: bool = False) -> Graph:
    """The network that `text` describes; NetError with place, values and remedy where it cannot be
    read. `origin` is what errors call the text: a file's path, or "net". `forgiving`: a number that
    a layer needs and the text forgets is a `?`, marked as forgotten."""
    return check(expand(read_source(text, origin), origin, forgiving))
