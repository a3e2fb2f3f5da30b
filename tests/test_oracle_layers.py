"""Every kind of layer against PyTorch: values, loss, all gradients, running statistics.

Each of the small nets is compiled once, some for a plain AVX2 machine too, and compared at several
batch sizes around the 16 lanes.
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
from small_nets import CONVOLUTIONS, FEATURES, FLAT_NORMS, NETS, OTHER_CONVOLUTIONS

# The families of shapes above that the tile choosers treat differently; the rest runs once.
EVERY_BATCH = (
    "conv: groups",
    "maxpool: overlap",
    "linear",
    "relu, 0",
    "dropout everywhere",
    "bn, add, relu",
    "bn ghost",
)


# Kernels that have tiles of their own for a machine with fewer registers.
AVX2 = (
    *(f"conv: {name}" for name in CONVOLUTIONS),
    *OTHER_CONVOLUTIONS,
    *FEATURES,
    *EVERY_BATCH,
)


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
    assert disagreements(parse(NETS[name], name), batches(name)) == []


def batches(name: str) -> tuple[int, ...]:
    """One image, and one more than a full vector; of features a norm needs more images."""
    if name in FLAT_NORMS:
        return (5, 18)
    return (1, 2, 15, 16, 17, 33, 130) if name in EVERY_BATCH else (1, 17)


@pytest.mark.parametrize("name", AVX2)
def test_layer_for_avx2(name: str) -> None:
    assert disagreements(parse(NETS[name], name), (17,), target="avx2") == []


TIES = {
    "relu at zero": "input 2x4x5; conv 4 k2; relu; conv 3 k2; relu; flatten; linear 4",
    "equal maxima": "input 2x8x8; maxpool 2; maxpool 3 stride2 pad1; flatten; linear 4",
    "relu, equal maxima": "input 2x8x9; conv 4 k3 pad1; relu; maxpool 3 stride2; flatten; linear 3",
    "equal maxima, relu": "input 2x8x9; conv 4 k3 pad1; maxpool 2 stride1; relu; flatten; linear 3",
    "equal global maxima": "input 3x5x4; conv 6 k2; relu; globalmax; flatten; linear 3",
    "leaky at zero": "input 2x4x5; conv 4 k2; leakyrelu 0.25; flatten; linear 4",
    "prelu at zero": "input 2x4x5; conv 4 k2; prelu channels; flatten; linear 4",
    "elu at zero": "input 2x4x5; conv 4 k2; elu 0.5; flatten; linear 4",
    "relu6 at 0 and 6": "input 2x5x6; {sums}; relu6; conv 3 k2; flatten; linear 3",
    "hardsigmoid at -3 and 3": "input 2x5x6; {sums}; hardsigmoid; conv 3 k2; flatten; linear 3",
    "hardswish at -3 and 3": "input 2x5x6; {sums}; hardswish; conv 3 k2; flatten; linear 3",
    "equal adaptive maxima": "input 2x7x8; adaptivemax 3x5; flatten; linear 3",
    "windows of zeros": "input 2x6x7; relu; l2pool 2; flatten; linear 3",
    "sums at zero": "input 2x4x5; conv 4 k2; residual {{ conv 4 k1 }}; relu; flatten; linear 4",
}


@pytest.mark.parametrize("name", TIES)
def test_ties_go_where_torch_sends_them(name: str) -> None:
    """Whole numbers: every sum is exact in float32, and many values are exactly equal."""
    graph = parse(TIES[name].format(sums="sumpool 2 stride1; sumpool 2 stride1"), name)
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
