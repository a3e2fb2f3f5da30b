"""What the counts of a network do not show: strides, order, constants, as they were published."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lanewise.net.graph import Graph
from lanewise.net.layers import (
    Add,
    BatchNorm,
    ChannelPad,
    ChannelScale,
    Conv,
    DepthwiseConv,
    Dropout,
    LayerNorm,
    Multiply,
    PartialConv,
    StochasticDepth,
)
from lanewise.net.load import load
from lanewise.size.shapes import infer_shapes

# (kernels, kernel, stride, groups) of a convolution.
Window = tuple[int, int, int, int]


def windows(graph: Graph) -> list[Window]:
    """Of every convolution, in the order of the text."""
    shapes = infer_shapes(graph)
    found = []
    for node in graph.nodes:
        layer, channels = node.layer, shapes[node.name][0]
        if isinstance(layer, Conv):
            found.append((channels, layer.kernel[0], layer.stride[0], layer.groups))
        elif isinstance(layer, DepthwiseConv):
            found.append((channels, layer.kernel[0], layer.stride[0], channels))
    return found


def words(graph: Graph, first: str, last: str) -> str:
    """The kinds from one named layer to another."""
    names = [node.name for node in graph.nodes]
    nodes = graph.nodes[names.index(first) : names.index(last) + 1]
    return " ".join(node.layer.word for node in nodes)


def bottlenecks(units: tuple[int, ...], widen: int, groups: int, v1: bool) -> Iterator[Window]:
    for stage, n in enumerate(units):
        channels = 64 << stage
        for unit in range(n):
            stride = 2 if stage and not unit else 1
            strides = (stride, 1) if v1 else (1, stride)
            yield channels * widen, 1, strides[0], 1
            yield channels * widen, 3, strides[1], groups
            yield channels * 4, 1, 1, 1
            if not unit:
                yield channels * 4, 1, stride, 1


@pytest.mark.parametrize(
    ("name", "units", "widen", "groups", "v1"),
    [
        ("resnet50", (3, 4, 6, 3), 1, 1, False),
        ("resnet50-v1", (3, 4, 6, 3), 1, 1, True),
        ("resnet101", (3, 4, 23, 3), 1, 1, False),
        ("resnet152-v1", (3, 8, 36, 3), 1, 1, True),
        ("resnext50-32x4d", (3, 4, 6, 3), 2, 32, False),
        ("wide-resnet50-2", (3, 4, 6, 3), 2, 1, False),
    ],
)
def test_resnet_by_bottlenecks(
    name: str, units: tuple[int, ...], widen: int, groups: int, v1: bool
) -> None:
    expected = [(64, 7, 2, 1), *bottlenecks(units, widen, groups, v1)]
    assert windows(load(name)) == expected


def test_resnet18_by_pairs_of_3x3() -> None:
    expected = [(64, 7, 2, 1)] + 4 * [(64, 3, 1, 1)]
    for channels in (128, 256, 512):
        expected += [(channels, 3, 2, 1), (channels, 3, 1, 1), (channels, 1, 2, 1)]
        expected += 2 * [(channels, 3, 1, 1)]
    assert windows(load("resnet18")) == expected


def test_a_unit_of_resnet_adds_before_its_last_relu() -> None:
    graph = load("resnet50")
    assert words(graph, "conv2", "relu4") == (
        "conv bn relu conv bn relu conv bn conv bn add relu"  # with a projection
    )
    assert words(graph, "conv6", "relu7") == "conv bn relu conv bn relu conv bn add relu"
    assert graph.node("add2").inputs == (graph.node("bn8").name, graph.node("relu4").name)


def test_the_shortcut_of_cifar_resnets_has_no_weights() -> None:
    graph = load("resnet20")
    assert all(kernel == 3 for _, kernel, _, _ in windows(graph))
    pads = [n.layer for n in graph.nodes if isinstance(n.layer, ChannelPad)]
    assert pads == [ChannelPad(8, 8), ChannelPad(16, 16)]


def test_mobilenet_v2_by_its_table() -> None:
    expected = [(32, 3, 2, 1), (32, 3, 1, 32), (16, 1, 1, 1)]
    channels = 16
    table = [(24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)]
    for out, repeat, first in table:
        for stride in [first] + (repeat - 1) * [1]:
            wide = 6 * channels
            expected += [(wide, 1, 1, 1), (wide, 3, stride, wide), (out, 1, 1, 1)]
            channels = out
    assert windows(load("mobilenet-v2")) == [*expected, (1280, 1, 1, 1)]
    adds = [n for n in load("mobilenet-v2").nodes if isinstance(n.layer, Add)]
    assert len(adds) == sum(repeat - 1 for _, repeat, _ in table)


def test_a_unit_of_mobilenet_v3_gates_before_it_narrows() -> None:
    graph = load("mobilenet-v3-large")
    expand = "conv bn relu depthwise bn relu"
    gate = "globalavg conv relu conv hardsigmoid multiply"
    assert words(graph, "conv7", "bn12") == f"{expand} {gate} conv bn"
    assert words(graph, "conv11", "add3") == f"{expand} {gate} conv bn add"
    assert isinstance(graph.node("multiply1").layer, Multiply)
    assert words(graph, "hardswish20", graph.output.name) == (
        "hardswish globalavg flatten linear hardswish dropout linear"
    )


def test_shufflenet_passes_half_of_the_channels_by() -> None:
    graph = load("shufflenet-v2-x1-0")
    assert words(graph, "depthwise1", "shuffle2") == (
        "depthwise bn conv bn relu conv bn relu depthwise bn conv bn relu concat shuffle "
        "split split conv bn relu depthwise bn conv bn relu concat shuffle"
    )
    assert graph.node("concat2").inputs[0] == "split1"


def test_a_unit_of_densenet_normalises_first() -> None:
    graph = load("densenet121")
    assert words(graph, "conv1", "concat1") == (
        "conv bn relu maxpool bn relu conv bn relu conv concat"
    )
    assert graph.node("concat1").inputs == ("maxpool1", "conv3")


def test_a_unit_of_convnext() -> None:
    graph = load("convnext-tiny")
    assert words(graph, "conv1", "add1") == (
        "conv layernorm depthwise layernorm conv gelu conv scale stochasticdepth add"
    )
    assert {n.layer for n in graph.nodes if isinstance(n.layer, LayerNorm)} == {LayerNorm(1e-6)}
    assert {n.layer for n in graph.nodes if isinstance(n.layer, ChannelScale)} == {
        ChannelScale(1e-6)
    }


@pytest.mark.parametrize(
    ("name", "last", "units"),
    [("convnext-tiny", 0.1, 18), ("convnext-small", 0.4, 36), ("convnext-base", 0.5, 36)],
)
def test_stochastic_depth_of_convnext_rises_to_its_end(name: str, last: float, units: int) -> None:
    rates = [n.layer.rate for n in load(name).nodes if isinstance(n.layer, StochasticDepth)]
    assert rates == pytest.approx([last * i / (units - 1) for i in range(units)])


@pytest.mark.parametrize(
    ("name", "repeats"),
    [
        ("efficientnet-b0", (1, 2, 2, 3, 3, 4, 1)),
        ("efficientnet-b3", (2, 3, 3, 5, 5, 6, 2)),
        ("efficientnet-b7", (4, 7, 7, 10, 10, 13, 4)),
    ],
)
def test_stochastic_depth_of_efficientnet_rises_from_unit_to_unit(
    name: str, repeats: tuple[int, ...]
) -> None:
    expected, unit = [], 0
    for repeat in repeats:
        expected += [0.2 * (unit + i) / sum(repeats) for i in range(1, repeat)]
        unit += repeat
    rates = [n.layer.rate for n in load(name).nodes if isinstance(n.layer, StochasticDepth)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("densenet121", BatchNorm()),
        ("efficientnet-b0", BatchNorm()),
        ("efficientnet-b4", BatchNorm()),
        ("efficientnet-b5", BatchNorm(eps=0.001, momentum=0.01)),
        ("efficientnet-b7", BatchNorm(eps=0.001, momentum=0.01)),
        ("googlenet", BatchNorm(eps=0.001)),
        ("mobilenet-v2", BatchNorm()),
        ("mobilenet-v3-small", BatchNorm(eps=0.001, momentum=0.01)),
        ("regnet-y-400mf", BatchNorm()),
        ("resnet50", BatchNorm()),
        ("shufflenet-v2-x1-0", BatchNorm()),
        ("vgg16-bn", BatchNorm()),
    ],
)
def test_constants_of_batch_normalisation(name: str, norm: BatchNorm) -> None:
    found = {node.layer for node in load(name).nodes if isinstance(node.layer, BatchNorm)}
    assert found == {norm}


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("alexnet", [0.5, 0.5]),
        ("efficientnet-b0", [0.2]),
        ("efficientnet-b2", [0.3]),
        ("efficientnet-b5", [0.4]),
        ("efficientnet-b7", [0.5]),
        ("googlenet", [0.2]),
        ("googlenet-2014", [0.4]),
        ("mobilenet-v2", [0.2]),
        ("resnet50", []),
        ("squeezenet1-1", [0.5]),
        ("vgg16", [0.5, 0.5]),
    ],
)
def test_dropout(name: str, rates: list[float]) -> None:
    assert [n.layer.rate for n in load(name).nodes if isinstance(n.layer, Dropout)] == rates


def test_googlenet_has_its_published_5x5_and_torchvision_3x3() -> None:
    def kernels(name: str) -> set[int]:
        return {kernel for _, kernel, _, _ in windows(load(name))}

    assert kernels("googlenet-2014") == {1, 3, 5, 7}
    assert kernels("googlenet") == {1, 3, 7}


def test_regnet_groups() -> None:
    graph = load("regnet-y-1-6gf")
    grouped = {(c, groups) for c, _, _, groups in windows(graph) if groups > 1}
    assert grouped == {(48, 2), (120, 5), (336, 14), (888, 37)}
    gates = [n for n in graph.nodes if isinstance(n.layer, Multiply)]
    assert len(gates) == 2 + 6 + 17 + 2
    assert not [n for n in load("regnet-x-1-6gf").nodes if isinstance(n.layer, Multiply)]


def test_the_table_of_lenet5() -> None:
    (table,) = [
        n.layer.table for n in load("lenet5-1998").nodes if isinstance(n.layer, PartialConv)
    ]
    assert [len(row) for row in table] == 6 * [3] + 9 * [4] + [6]
    assert [sum(m in row for row in table) for m in range(6)] == 6 * [10]  # each map is read evenly
    assert len(set(table)) == 16
