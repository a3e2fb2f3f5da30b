"""Hypothesis strategies for layers and whole chains, legal in structure but not always in size."""

from __future__ import annotations

from hypothesis import strategies as st

from lanewise.net.graph import Graph, Node
from lanewise.net.layers import (
    AvgPool,
    Conv,
    Dropout,
    Flatten,
    GlobalAvg,
    GlobalMax,
    GlobalSum,
    Input,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool,
    Pad,
    Pool,
    ReLU,
    Sigmoid,
    SumPool,
    Tanh,
)
from lanewise.net.parse import default_name

COUNTS = st.integers(1, 64)
SMALL = st.integers(1, 6)
PAIRS = st.tuples(SMALL, SMALL)
SIDE = st.integers(0, 4)
SIDES = st.tuples(st.tuples(SIDE, SIDE), st.tuples(SIDE, SIDE))
PADS: st.SearchStrategy[Pad] = st.one_of(st.sampled_from(["same", "valid"]), SIDES)

CONVS = st.builds(
    Conv,
    kernels=COUNTS,
    kernel=PAIRS,
    stride=PAIRS,
    pad=PADS,
    dilation=PAIRS,
    groups=st.integers(1, 4),
    bias=st.booleans(),
)


@st.composite
def pools(draw: st.DrawFn) -> Pool:
    """Any pool; half of them with the stride that the notation leaves out."""
    kind = draw(st.sampled_from([MaxPool, AvgPool, SumPool]))
    kernel = draw(PAIRS)
    stride = draw(st.one_of(st.just(kernel), PAIRS))
    return kind(kernel, stride, draw(PADS), draw(st.booleans()))


LAYERS: st.SearchStrategy[Layer] = st.one_of(
    CONVS,
    pools(),
    st.sampled_from(
        [GlobalMax(), GlobalAvg(), GlobalSum(), Flatten(), ReLU(), Tanh(), Sigmoid()],
    ),
    st.builds(Linear, features=COUNTS, bias=st.booleans()),
    st.builds(LeakyReLU, slope=st.floats(0, 10)),
    st.builds(Dropout, rate=st.floats(0, 1, exclude_max=True)),
)


@st.composite
def chains(draw: st.DrawFn) -> Graph:
    """A chain of up to eight layers; some carry a name of their own."""
    layers: list[Layer] = [draw(st.builds(Input, COUNTS, COUNTS, COUNTS))]
    layers += draw(st.lists(LAYERS, max_size=8))
    nodes: list[Node] = []
    ordinals: dict[type[Layer], int] = {}
    for index, layer in enumerate(layers):
        kind = type(layer)
        ordinals[kind] = ordinals.get(kind, 0) + 1
        given = draw(st.booleans())
        name = f"my_{index}" if given else default_name(kind, ordinals[kind])
        nodes.append(Node(name, layer, (nodes[-1].name,) if nodes else ()))
    return Graph(tuple(nodes))
