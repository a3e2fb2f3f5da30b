"""The network as a value: an immutable graph of named layers.

The nodes stand in an order in which every node follows its inputs. The first is the `input`; the
last is the output.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

from lanewise.net.layers import Input, Layer
from lanewise.net.unknown import Unknown, unknowns_of

# Channels × height × width or a number of features, None where any will do.
Wanted: TypeAlias = tuple[int | None, ...]


@dataclass(frozen=True)
class Node:
    """A layer at its place: unique name, names of the nodes it reads, line of the text (1…).

    `within`: the blocks it was written in, outermost first, each with the line that calls it.
    `shares`: the layer before it that owns some of its parameters, `shared` of them; that happens
    in imported networks only.
    """

    name: str
    layer: Layer
    inputs: tuple[str, ...] = ()
    line: int = field(default=0, compare=False)
    within: tuple[tuple[str, int], ...] = field(default=(), compare=False)
    shares: str = ""
    shared: int = 0


@dataclass(frozen=True)
class Want:
    """What the output of the node `name` shall be, and where the text says so."""

    name: str
    shape: Wanted
    line: int = field(default=0, compare=False)
    within: tuple[tuple[str, int], ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Graph:
    """A whole network. `origin` says where it came from (zoo name, path or "net"); `title` is what
    it is called where that is not said by the origin, `remarks` what its importer has to say;
    `convention` whose rules its text was read by: what PyTorch's refuse may then be in it.
    `wants` stand in the order of their nodes."""

    nodes: tuple[Node, ...]
    origin: str = field(default="net", compare=False)
    title: str = field(default="", compare=False)
    remarks: tuple[str, ...] = field(default=(), compare=False)
    convention: str = field(default="torch", compare=False)
    wants: tuple[Want, ...] = ()

    @cached_property
    def unknowns(self) -> dict[str, tuple[Unknown, ...]]:
        """Node name → the `?` in its layer, for the nodes that have one."""
        layers = {id(node.layer): node.layer for node in self.nodes}  # repeated ones are one object
        found = {key: unknown for key, one in layers.items() if (unknown := unknowns_of(one))}
        if not found:
            return {}
        return {node.name: found[id(node.layer)] for node in self.nodes if id(node.layer) in found}

    @property
    def output(self) -> Node:
        """The node whose value is the network's result."""
        return self.nodes[-1]

    def node(self, name: str) -> Node:
        """The node with this name (KeyError if there is none)."""
        return {node.name: node for node in self.nodes}[name]

    def with_input(self, layer: Input) -> Graph:
        """The same network for another image."""
        first, *others = self.nodes
        return replace(self, nodes=(replace(first, layer=layer), *others))

    def place(self, node: Node | Want) -> str:
        """Where an error message points: `lenet.net:7 conv2`, `resnet.net:7 conv2 (block basic,
        called in line 20)`."""
        line = f":{node.line}" if node.line else ""
        calls = ", ".join(f"block {block}, called in line {line}" for block, line in node.within)
        name = f" {node.name}" if node.name else ""
        return f"{self.origin}{line}{name}" + (f" ({calls})" if calls else "")
