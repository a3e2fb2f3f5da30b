"""Where values come together: the image itself, and layers that read several others."""

from __future__ import annotations

import operator
from functools import reduce
from typing import TYPE_CHECKING

from lanewise.bridge.draft import Draft, Read
from lanewise.net.graph import Node

if TYPE_CHECKING:
    from torch import fx


def image(draft: Draft, node: Node) -> fx.Node:
    """The module's argument."""
    return draft.tape.placeholder(node.name)


def add(draft: Draft, node: Node, *reads: Read) -> fx.Node:
    """a + b + c: a C×1×1 value is added everywhere, by torch's own rule."""
    return reduce(lambda a, b: draft.call(operator.add, a, b), [value for value, _ in reads])


def multiply(draft: Draft, node: Node, *reads: Read) -> fx.Node:
    """a · b · c."""
    return reduce(lambda a, b: draft.call(operator.mul, a, b), [value for value, _ in reads])


def concat(draft: Draft, node: Node, *reads: Read) -> fx.Node:
    """Channels, or features, are axis 1 behind the images."""
    import torch

    return draft.call(torch.cat, [value for value, _ in reads], 1)
