"""What is drawn of a network or of a question about one axis: the numbers behind the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lanewise.errors import SizeError
from lanewise.net.graph import Graph, Node
from lanewise.net.layers import CONVOLUTIONS, WINDOW_POOLS, TransposedConv
from lanewise.net.show import show_layer
from lanewise.size.axis import Axis, extent
from lanewise.size.chain import Chain
from lanewise.size.formula import FORMULAS, axis_formula
from lanewise.size.inverse import extents, pads, strides
from lanewise.size.picture import Drawn, layers_picture, rule_picture
from lanewise.size.shapes import Shape, infer_shapes
from lanewise.size.windows import resolve_transposed, resolve_window

# More layers than these are no picture.
MOST_LAYERS = 8
# More numbers than these are not drawn beside each other.
_MOST_NUMBERS = 32


def network_picture(graph: Graph, name: str | None = None) -> str:
    """The windows of a network's convolutions and pools, or of the layer `name`, as SVG. SizeError
    where there is none, or where there are too many."""
    shapes = infer_shapes(graph)
    nodes = [node for node in graph.nodes if isinstance(node.layer, (*CONVOLUTIONS, *WINDOW_POOLS))]
    if name is not None:
        nodes = [node for node in nodes if node.name == name] or _no_layer(name, nodes)
    if not nodes:
        raise SizeError(f"{graph.origin}: no convolution or pool to draw; add one")
    if len(nodes) > MOST_LAYERS:
        raise SizeError(
            f"{graph.origin}: {len(nodes)} convolutions and pools are too many for a picture of at "
            f"most {MOST_LAYERS}; name one of them, like --layer {nodes[0].name}"
        )
    return layers_picture([drawn for node in nodes for drawn in _drawn(node, shapes)])


def _no_layer(name: str, nodes: list[Node]) -> list[Node]:
    known = ", ".join(node.name for node in nodes[:MOST_LAYERS]) or "none"
    raise SizeError(f"--layer {name}: no convolution or pool is called so; there are {known}")


def _drawn(node: Node, shapes: dict[str, Shape]) -> Iterator[Drawn]:
    """A layer along height, and along width where that is another picture."""
    layer: Any = node.layer
    in_shape = shapes[node.inputs[0]]
    grown = isinstance(layer, TransposedConv)
    window = resolve_transposed(layer, in_shape) if grown else resolve_window(layer, in_shape)
    height, width = window.axes
    title = f"{node.name}: {show_layer(layer)}"
    if grown:
        # Its formula tells of both axes together.
        formula = FORMULAS[TransposedConv](layer, in_shape)
        yield Drawn(title, formula, height, grown)
        return
    if height == width:
        yield Drawn(title, axis_formula(height), height)
        return
    yield Drawn(f"{title}, height", axis_formula(height), height)
    yield Drawn(f"{title}, width", axis_formula(width), width)


# The rule read backwards --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Question:
    """What stands along the bottom, the output over it, and the interval that is the answer."""

    name: str
    sizes: dict[int, int]
    answer: str


def chain_picture(asked: Chain) -> str:
    """The output size over the one number that is looked for, as SVG. SizeError where several are,
    or where there are several layers."""
    if asked.layers > 1 or len(asked.found) != 1:
        raise SizeError(
            "--svg draws one layer with one number to be found; give two of --kernel, --stride and "
            "--pad, and no --layers"
        )
    (name,) = asked.found
    question = _QUESTIONS[name](asked)
    given = {"kernel": asked.kernel, "stride": asked.stride, "pad": asked.pad}
    numbers = ", ".join(f"{what} {number}" for what, number in given.items() if number is not None)
    dilation = f", dilation {asked.dilation}" if asked.dilation > 1 else ""
    title = f"{asked.n} values, {numbers}{dilation}"
    return rule_picture(title, question.name, question.sizes, asked.out, question.answer)


def _pad(asked: Chain) -> _Question:
    kernel, stride = asked.kernel or 1, asked.stride or 1
    reach = extent(kernel, asked.dilation)
    fits = pads(asked.n, reach, stride, asked.out)
    sizes = {
        total: out
        for total in _around(fits, 0)
        if (out := Axis(asked.n, kernel, stride, 0, total, asked.dilation).out) >= 1
    }
    n, o = asked.n, asked.out
    answer = (
        f"({o} − 1)·{stride} + {reach} − {n} = {fits[0]} ≤ P ≤ "
        f"{o}·{stride} + {reach} − {n} − 1 = {fits[-1]}"
    )
    return _Question("P, zeros at both ends together", sizes, answer)


def _kernel(asked: Chain) -> _Question:
    stride, total = asked.stride or 1, 2 * (asked.pad or 0)
    fits = extents(asked.n, total, stride, asked.out)
    sizes = {
        reach: out
        for reach in _around(fits, 1)
        if (out := Axis(asked.n, reach, stride, 0, total).out) >= 1
    }
    n, o = asked.n, asked.out
    answer = (
        f"{n} + {total} − {o}·{stride} + 1 = {fits[0]} ≤ K ≤ "
        f"{n} + {total} − ({o} − 1)·{stride} = {fits[-1]}"
    )
    return _Question("K, the kernel's extent", sizes, answer)


def _stride(asked: Chain) -> _Question:
    reach, total = extent(asked.kernel or 1, asked.dilation), 2 * (asked.pad or 0)
    free = asked.n + total - reach
    if free < 0:
        raise SizeError(f"kernel {asked.kernel} does not fit on {asked.n}; use a smaller one")
    fits = strides(free, asked.out, max(asked.n, free + 1))
    sizes = {stride: free // stride + 1 for stride in _around(fits, 1)}
    o, m = asked.out, f"{asked.n} + {total} − {reach} = {free}"
    last = f" ≤ ⌊m/{o - 1}⌋ = {free // (o - 1)}" if o > 1 else ""
    return _Question("s, the stride", sizes, f"m = {m}:  ⌊m/{o}⌋ + 1 = {free // o + 1} ≤ s{last}")


# The number that is looked for → its question.
_QUESTIONS = {"pad": _pad, "kernel": _kernel, "stride": _stride}


def _around(fits: range, least: int) -> range:
    """The numbers that fit, and some on both sides."""
    beside = max(3, min(len(fits), 6))
    first = max(least, fits.start - beside)
    last = max(fits.stop + beside, first + 1)
    return range(first, min(last, first + _MOST_NUMBERS))
