"""Hypothesis strategies for layers of every kind and for texts with braces, blocks and parameters.

The texts are legal in structure; whether their shapes meet is another matter.
"""

from __future__ import annotations

from hypothesis import strategies as st

from chains import CONVS, COUNTS, PADS, PAIRS, SIDES, pools
from lanewise.net.layers import (
    ACTIVATIONS,
    ELU,
    GLOBAL_POOLS,
    AdaptiveAvg,
    AdaptiveMax,
    BatchNorm,
    ChannelPad,
    ChannelScale,
    ChannelShuffle,
    ChannelSplit,
    DepthwiseConv,
    Dropout,
    Flatten,
    GroupNorm,
    L2Pool,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    PartialConv,
    PReLU,
    RadialBasis,
    SpatialDropout,
    StochasticDepth,
    Subsample,
    TransposedConv,
    Upsample,
)
from lanewise.net.show import show_layer

ABOVE_ZERO = st.floats(1e-9, 1e6)
RATES = st.floats(0, 1, exclude_max=True)
BOOLEANS = st.booleans()
MAPS = st.lists(st.integers(0, 20), min_size=1, max_size=4, unique=True).map(tuple)
PLAIN = [kind() for kind in (*ACTIVATIONS, *GLOBAL_POOLS, Flatten) if kind not in (LeakyReLU, ELU)]

WEIGHTED: st.SearchStrategy[Layer] = st.one_of(
    CONVS,
    st.builds(DepthwiseConv, PAIRS, st.integers(1, 4), PAIRS, PADS, PAIRS, BOOLEANS),
    st.builds(
        PartialConv,
        st.lists(MAPS, min_size=1, max_size=4).map(tuple),
        PAIRS,
        PAIRS,
        PADS,
        PAIRS,
        BOOLEANS,
    ),
    st.builds(
        TransposedConv,
        COUNTS,
        PAIRS,
        st.just((3, 2)),
        SIDES,
        st.tuples(st.integers(0, 2), st.integers(0, 1)),
        PAIRS,
        st.integers(1, 4),
        BOOLEANS,
    ),
    st.builds(Linear, features=COUNTS, bias=BOOLEANS),
    st.builds(RadialBasis, COUNTS),
)

PARTS = st.integers(1, 9).flatmap(
    lambda of: st.builds(ChannelSplit, st.integers(1, of), st.just(of))
)

EVERY_LAYER: st.SearchStrategy[Layer] = st.one_of(
    WEIGHTED,
    pools(),
    st.builds(L2Pool, PAIRS, PAIRS, PADS, BOOLEANS),
    st.builds(Subsample, PAIRS, PAIRS),
    st.builds(AdaptiveMax, PAIRS),
    st.builds(AdaptiveAvg, PAIRS),
    st.sampled_from(PLAIN),
    st.builds(LeakyReLU, st.floats(0, 10)),
    st.builds(ELU, ABOVE_ZERO),
    st.builds(PReLU, BOOLEANS),
    st.builds(
        BatchNorm,
        ABOVE_ZERO,
        st.floats(0, 1, exclude_min=True),
        st.sampled_from([0, 16]),
        BOOLEANS,
    ),
    st.builds(LayerNorm, ABOVE_ZERO),
    st.builds(GroupNorm, COUNTS, ABOVE_ZERO),
    st.builds(LocalResponseNorm, COUNTS, ABOVE_ZERO, ABOVE_ZERO, ABOVE_ZERO),
    st.builds(ChannelScale, st.floats(-1e6, 1e6)),
    st.builds(ChannelShuffle, COUNTS),
    PARTS,
    st.builds(ChannelPad, st.integers(0, 20), st.integers(0, 20)),
    st.builds(Upsample, PAIRS, BOOLEANS),
    st.builds(Dropout, RATES),
    st.builds(SpatialDropout, RATES),
    st.builds(StochasticDepth, RATES),
)

BLOCKS = """
block plain { relu; bn }
block wide out k=3 {
  start: conv out k(k) pad same; (k>1) x { relu }; end: conv out k1
  add end start
}
block twice out {
  residual { wide out } { wide out*2 k=1 }
  first: tanh
  2 x { plain }
}
"""
CALLS = ("plain", "wide 4", "wide n k=n+1", "twice n", "late: twice out=2")


@st.composite
def structured(draw: st.DrawFn) -> str:
    """A text that nests residual, concat, repetition and calls of blocks up to three deep."""
    head = f"parameters n={draw(st.integers(1, 3))} w=0.5\n{BLOCKS}\ninput 3x9x9\n"
    return head + _body(draw, 3) + "\nlinear 2\n"


def _body(draw: st.DrawFn, depth: int) -> str:
    statements = [_statement(draw, depth) for _ in range(draw(st.integers(1, 3)))]
    return draw(st.sampled_from(["; ", "\n", " ;\n"])).join(statements)


def _statement(draw: st.DrawFn, depth: int) -> str:
    shapes = ["layer", "layer", "call"]
    shapes += ["residual", "projection", "join", "repeat"] if depth else []
    shape = draw(st.sampled_from(shapes))
    if shape == "layer":
        return show_layer(draw(EVERY_LAYER))
    if shape == "call":
        return draw(st.sampled_from(CALLS)).replace("late: ", "")
    body = f"{{ {_body(draw, depth - 1)} }}"
    if shape == "residual":
        return f"residual {body}"
    if shape == "projection":
        return f"residual {body}\n{{\n{_body(draw, depth - 1)}\n}}"
    if shape == "repeat":
        return f"{draw(st.sampled_from(['0', '1', '2', 'n', 'n-1', '(n>1)']))} x {body}"
    word = draw(st.sampled_from(["add", "multiply", "concat"]))
    return f"{word} {body} {{ {draw(st.sampled_from(['', 'relu', 'relu; bn']))} }}"
