"""Every kind of layer against PyTorch, values and all gradients, over shapes that break things.

Each net is compiled once, for this machine and for a plain AVX2 machine, and compared at several
batch sizes around the 16 lanes. Most chain two layers of the kind under test and end in `flatten`:
the second sees the gradient of the loss itself, the first what the second passes back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import numpy as np
import pytest

from lanewise.native import Program, compile_net
from lanewise.net.graph import Graph
from lanewise.net.layers import KINDS
from lanewise.net.parse import parse

pytest.importorskip("torch", reason="the oracle needs PyTorch (extra `torch`)")

from lanewise.bridge.oracle import Trial, judge
from lanewise.bridge.reference import Question, exact_values

CONVOLUTIONS = {
    "one channel": "input 1x6x7; conv 1 k3; conv 1 k2; flatten",
    "one pixel": "input 3x1x1; conv 4 k1; conv 5 k3 pad1; flatten",
    "one output position": "input 2x5x4; conv 7 k 5x4; conv 3 k1; flatten",
    "kernel larger than input": "input 2x3x2; conv 3 k5 pad2; conv 2 k 7x5 pad 3x2; flatten",
    "stride larger than kernel": "input 3x13x11; conv 4 k2 stride3; conv 5 k1 stride 2x3; flatten",
    "uneven pads": "input 2x7x6; conv 5 k3 pad 0:2x1:0; conv 3 k 2x4 pad 1:0x0:3; flatten",
    "pads beyond the kernel": "input 1x3x3; conv 2 k3 pad4; conv 2 k2 pad 3:0x0:3; flatten",
    "dilation": "input 2x11x12; conv 4 k3 dilation2; conv 3 k2 dilation 3x2 pad 0:1x2; flatten",
    "groups": "input 4x6x5; conv 8 k3 groups2 pad1; conv 6 k3 groups2; flatten",
    "depthwise": "input 5x7x7; conv 5 k3 groups5 pad1; conv 10 k3 groups5 stride2; flatten",
    "long rows": "input 2x3x37; conv 19 k3 pad1; conv 3 k 1x5 stride 1x3; flatten",
    "long columns": "input 1x29x2; conv 6 k 5x1; conv 17 k 3x2 stride 2x1; flatten",
    "many channels": "input 17x4x5; conv 33 k3 pad1 nobias; conv 7 k1; flatten",
    "same": "input 3x13x10; conv 4 k 6x3 stride 5x2 pad same; conv 3 k 2x4 pad same; flatten",
    # Two registers of this kernel once got one name (a1·123 and a11·23).
    "many registers": "input 1x9x10; conv 10 k4 pad same nobias; flatten",
    "unread rows": "input 2x10x11; conv 3 k3 stride4; conv 2 k1 stride2 nobias; flatten",
    "all at once": (
        "input 6x14x13; conv 9 k 3x2 stride 2x3 pad 3:1x0:2 dilation 2x3 groups3 nobias;"
        "conv 6 k 2x3 stride 3x1 pad 1:2x2:0 groups3; flatten"
    ),
}
POOLS = {
    "halves": "input 3x8x6; {0} 2; {0} 2x3; flatten",
    "remainder": "input 2x9x7; {0} 2; {0} 3x2; flatten",
    "overlap": "input 2x9x11; {0} 3 stride2; {0} 3 stride 1x2; flatten",
    "stride larger than window": "input 2x13x11; {0} 2 stride3; {0} 1 stride 2x3; flatten",
    "padding": "input 2x7x6; {0} 3 stride2 pad1; {0} 2x3 stride1 pad 1x1; flatten",
    "uneven pads": "input 2x7x6; {0} 3 stride2 pad 1:0x0:1; {0} 2 stride1 pad 0:1x1:0; flatten",
    "ceil": "input 3x7x6; {0} 2 ceil; {0} 3 stride2 pad1 ceil; flatten",
    "ceil, uneven": "input 2x10x8; {0} 3 stride2 pad 1:0x0:1 ceil; {0} 2x4 stride3 ceil; flatten",
    "same": "input 2x7x9; {0} 3 stride2 pad same; {0} 2 stride1 pad same; flatten",
    "whole map": "input 5x4x6; {0} 4x6; flatten",
    "one pixel": "input 5x1x1; {0} 1; {0} 3 pad1 stride1; flatten",
    "after convolution": "input 2x8x9; conv 5 k3 pad1; {0} 3 stride2; conv 3 k2; {0} 2; flatten",
}
OTHERS = {
    "globalmax": "input 3x5x7; conv 6 k2; globalmax; flatten; linear 4",
    "globalmax of the input": "input 7x3x4; globalmax; flatten",
    "globalavg": "input 3x5x7; conv 6 k2; globalavg; flatten; linear 4",
    "globalavg of one pixel": "input 7x1x1; globalavg; conv 3 k1; flatten",
    "globalsum": "input 3x5x7; conv 6 k2; globalsum; flatten; linear 4",
    "globalsum, then convolution": "input 5x3x2; globalsum; conv 3 k1; flatten",
    "linear": "input 2x3x5; flatten; linear 17; linear 33 nobias; linear 5",
    "linear from one feature": "input 1x1x1; flatten; linear 3; linear 1; linear 2",
    "linear, large": "input 3x9x11; flatten; linear 130; linear 3",
    "only flatten": "input 2x1x3; flatten",
}
ACTIVATIONS = ("relu", "leakyrelu 0.2", "leakyrelu 0", "tanh", "sigmoid")
AFTER = (
    "input 2x5x4; {0}; conv 3 k2; {0}; conv 2 k2; {0}; {0}; flatten; linear 6; {0}; linear 3; {0}",
    "input 2x7x6; conv 3 k2; {0}; maxpool 2; avgpool 2 stride1; {0}; flatten; {0}; linear 4",
    "input 2x7x6; maxpool 2; {0}; sumpool 2 stride1; {0}; globalmax; {0}; flatten; linear 4",
)
JOINED = {
    "relu under a pool that overlaps": "input 2x9x9; conv 4 k3; relu; maxpool 3 stride2; flatten",
    "relu under a padded pool": "input 2x7x7; conv 4 k3; relu; maxpool 3 stride2 pad1; flatten",
    "relu under an uneven pool": "input 2x8x7; relu; maxpool 3 stride2 pad 1:0x0:1 ceil; flatten",
    "relu under globalmax": "input 3x4x5; conv 5 k2; relu; globalmax; flatten; linear 3",
    "relu under avgpool": "input 2x7x7; conv 4 k3; relu; avgpool 2; flatten",
    "relu twice, pool twice": "input 2x9x9; relu; relu; maxpool 2; maxpool 2; relu; flatten",
    "relu on the last linear": "input 3x2x2; flatten; linear 9; relu",
    "relu between dropouts": "input 3x4x4; dropout 0.3; relu; dropout 0.6; maxpool 2; flatten",
    "dropout everywhere": (
        "input 2x6x5; dropout 0.2; conv 4 k3; dropout 0.5; relu; maxpool 2; flatten; dropout 0.4;"
        "linear 8; tanh; dropout 0.1; linear 4; dropout 0.5"
    ),
}
NETS = (
    {f"conv: {name}": text for name, text in CONVOLUTIONS.items()}
    | {
        f"{kind}: {name}": text.format(kind)
        for kind in ("maxpool", "avgpool", "sumpool")
        for name, text in POOLS.items()
    }
    | OTHERS
    | {f"{name}, {i}": net.format(name) for name in ACTIVATIONS for i, net in enumerate(AFTER)}
    | JOINED
)
# The families of shapes above that the tile choosers treat differently; the rest runs once.
EVERY_BATCH = ("conv: groups", "maxpool: overlap", "linear", "relu, 0", "dropout everywhere")


@contextmanager
def compiled(graph: Graph, target: str = "host") -> Iterator[Program]:
    """A training program that also computes the gradient of its input."""
    with closing(compile_net(graph, training=True, input_gradient=True, target=target)) as program:
        yield program


def disagreements(graph: Graph, batches: tuple[int, ...], target: str = "host") -> list[str]:
    """Every tensor that differs from PyTorch at any of these batch sizes."""
    with compiled(graph, target) as program:
        return [
            f"batch {batch}: {row.name} is off by {row.error:.1e}, allowed {row.tolerance:.1e}"
            for batch in batches
            for row in judge(program, graph, Trial(batch, seed=batch))
            if not row.ok
        ]


def test_every_kind_is_here() -> None:
    used = {type(node.layer) for text in NETS.values() for node in parse(text).nodes}
    assert used == set(KINDS)


@pytest.mark.parametrize("name", NETS)
def test_layer(name: str) -> None:
    batches = (1, 2, 15, 16, 17, 33) if name in EVERY_BATCH else (1, 17)
    assert disagreements(parse(NETS[name], name), batches) == []


@pytest.mark.parametrize("name", [*(n for n in NETS if "conv:" in n), *OTHERS, *EVERY_BATCH])
def test_layer_for_avx2(name: str) -> None:
    assert disagreements(parse(NETS[name], name), (17,), target="avx2") == []


TIES = {
    "relu at zero": "input 2x4x5; conv 4 k2; relu; conv 3 k2; relu; flatten; linear 4",
    "equal maxima": "input 2x8x8; maxpool 2; maxpool 3 stride2 pad1; flatten; linear 4",
    "relu, equal maxima": "input 2x8x9; conv 4 k3 pad1; relu; maxpool 3 stride2; flatten; linear 3",
    "equal maxima, relu": "input 2x8x9; conv 4 k3 pad1; maxpool 2 stride1; relu; flatten; linear 3",
    "equal global maxima": "input 3x5x4; conv 6 k2; relu; globalmax; flatten; linear 3",
    "leaky at zero": "input 2x4x5; conv 4 k2; leakyrelu 0.25; flatten; linear 4",
}


@pytest.mark.parametrize("name", TIES)
def test_ties_go_where_torch_sends_them(name: str) -> None:
    """Whole numbers: every sum is exact in float32, and many values are exactly equal."""
    graph = parse(TIES[name], name)
    random = np.random.default_rng(5)
    images = random.integers(-1, 2, size=(17, *_input_shape(graph))).astype("f4")
    labels = random.integers(3, size=17)
    with compiled(graph) as program:
        for array in program.parameters.values():
            array[...] = random.integers(-1, 2, size=array.shape) / 4
        question = Question(graph, dict(program.parameters), images.astype("f8"), labels)
        program.gradients_only(
            images,
            labels,
        )
        computed = {f"{name}.grad": array for name, array in program.gradients.items()}
        computed["input.grad"] = program.input_gradient
        expected = exact_values(question)
        for tensor, values in computed.items():
            scale = np.abs(expected[tensor]).max()
            np.testing.assert_allclose(values / scale, expected[tensor] / scale, atol=3e-6)


def _input_shape(graph: Graph) -> tuple[int, int, int]:
    layer = graph.nodes[0].layer
    return (layer.channels, layer.height, layer.width)  # type: ignore[attr-defined]
