"""Parameters and MACs beside other programs' counts: each difference is what its cause explains.

docs/counting.md tells the causes. The modules that the others count are those of `to_torch`.
"""

from __future__ import annotations

import logging
import warnings
from math import prod
from typing import Any

import pytest
import torch

from lanewise.bridge.torch_module import to_torch
from lanewise.net.graph import Graph
from lanewise.net.layers import Conv, DepthwiseConv, Layer, Linear
from lanewise.net.load import load
from lanewise.net.parse import parse
from lanewise.size.report import SizeReport, size

NETS = {
    "lenet5": load("lenet5"),
    "tiny-vgg": load("tiny-vgg"),
    "resnet20": load("resnet20"),
    "mobilenet-v2-small": load("mobilenet-v2-small"),
    "grouped": parse("input 4x9x8; conv 6 k3 groups2 stride2; relu; conv 4 k1; flatten; linear 3"),
}


@pytest.fixture(params=NETS)
def graph(request: pytest.FixtureRequest) -> Graph:
    return NETS[request.param]


def values(report: SizeReport, *words: str) -> int:
    """How many values an image gives in all layers of these kinds."""
    return sum(prod(row.output) for row in report.rows if row.kind in words)


def read_values(report: SizeReport, *words: str) -> int:
    """How many values layers of these kinds read."""
    shapes = {row.name: row.output for row in report.rows}
    rows = [row for row in report.rows if row.kind in words]
    return sum(prod(shapes[row.inputs[0]]) for row in rows)


def biases(graph: Graph, *kinds: type[Layer]) -> int:
    """How many values of these layers have a bias added."""
    report = size(graph)
    pairs = zip(graph.nodes, report.rows, strict=True)
    return sum(
        prod(row.output)
        for node, row in pairs
        if isinstance(node.layer, kinds) and node.layer.bias  # type: ignore[attr-defined]
    )


def image(report: SizeReport) -> torch.Tensor:
    return torch.zeros(1, *report.input)


def test_torchinfo(graph: Graph) -> None:
    """Multiplies each parameter by the positions it is used at: biases count like products, and
    the weights of a normalisation once, whatever the size of the map."""
    torchinfo = pytest.importorskip("torchinfo", reason="counts beside torchinfo, where installed")
    report = size(graph)
    found = torchinfo.summary(to_torch(graph).eval(), input_data=image(report), verbose=0)
    assert found.total_params == report.totals.params
    norms = sum(row.params for row in report.rows if row.kind == "bn")
    explained = biases(graph, Conv, DepthwiseConv, Linear) + norms
    assert found.total_mult_adds == report.totals.macs + explained


def test_fvcore(graph: Graph) -> None:
    """Convolutions and full connections as we do; besides, two a value for a normalisation and one
    for each value that a global average reads."""
    fvcore = pytest.importorskip("fvcore.nn", reason="counts beside fvcore, where installed")
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    report = size(graph)
    analysis = fvcore.FlopCountAnalysis(to_torch(graph).eval(), image(report))
    found = analysis.unsupported_ops_warnings(False).by_operator()
    assert found["conv"] + found["linear"] == report.totals.macs
    assert found["batch_norm"] == 2 * values(report, "bn")
    assert found["adaptive_avg_pool2d"] == read_values(report, "globalavg")
    assert fvcore.parameter_count(to_torch(graph))[""] == report.totals.params


def test_ptflops(graph: Graph) -> None:
    """Adds biases, normalisations, activations and pools, the last two twice: once for the module,
    once for the function that the module calls."""
    ptflops = pytest.importorskip("ptflops", reason="counts beside ptflops, where installed")
    report = size(graph)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        macs, params = ptflops.get_model_complexity_info(
            to_torch(graph).eval(),
            report.input,
            as_strings=False,
            print_per_layer_stat=False,
            verbose=False,
            backend="pytorch",
        )
    assert params == report.totals.params
    pools = read_values(report, "maxpool", "globalavg")
    explained = biases(graph, Conv, DepthwiseConv, Linear) + 2 * values(report, "bn")
    explained += 2 * values(report, "relu") + values(report, "relu6") + 2 * pools
    assert macs == report.totals.macs + explained


def test_pytorch_s_own_counter(graph: Graph) -> None:
    """Two FLOPs a MAC, of convolutions and matrix products alone: exactly ours."""
    from torch.utils.flop_counter import FlopCounterMode

    report = size(graph)
    with FlopCounterMode(display=False) as counter:
        to_torch(graph).eval()(image(report))
    assert counter.get_total_flops() == report.totals.flops


# Name in the zoo → (parameters, 10⁹ multiply–adds as printed) of torchvision 0.21's documentation.
TORCHVISION = {
    "alexnet": (61_100_840, "0.714"),
    "vgg11": (132_863_336, "7.609"),
    "resnet18": (11_689_512, "1.814"),
    "resnet50": (25_557_032, "4.089"),
    "densenet121": (7_978_856, "2.834"),
    "squeezenet1_0": (1_248_424, "0.819"),
    "mobilenet_v2": (3_504_872, "0.301"),
    "efficientnet_b0": (5_288_548, "0.386"),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_s_published_figures(name: str) -> None:
    """Parameters exactly; MACs to the digits that are printed: the same convention."""
    totals = size(load(in_zoo(name))).totals
    params, printed = TORCHVISION[name]
    assert totals.params == params and f"{totals.macs / 1e9:.3f}" == printed


def in_zoo(name: str) -> str:
    """Our name of a network: with `-` or with `_`."""
    from lanewise.net.load import zoo_names

    return next(one for one in zoo_names() if one.replace("-", "_") == name.replace("-", "_"))


# Keras' published totals → (the zoo's network, whether Keras' convolutions have biases that the
# zoo's have not, what else Keras counts).
KERAS = {
    138_357_544: ("vgg16", False, 0),
    143_667_240: ("vgg19", False, 0),
    25_636_712: ("resnet50-v1", True, 0),
    44_707_176: ("resnet101-v1", True, 0),
    60_419_944: ("resnet152-v1", True, 0),
    4_253_864: ("mobilenet-v1", False, 0),
    3_538_984: ("mobilenet-v2", False, 0),
    8_062_504: ("densenet121", False, 0),
    14_307_880: ("densenet169", False, 0),
    20_242_984: ("densenet201", False, 0),
    5_330_571: (
        "efficientnet-b0",
        False,
        7,
    ),  # a Normalization layer: 3 means, 3 variances, a count
}


@pytest.mark.parametrize("total", KERAS)
def test_keras_published_totals(total: int) -> None:
    """Keras counts the running averages among the parameters, and gives ResNet's convolutions
    biases."""
    name, biased, more = KERAS[total]
    graph = load(in_zoo(name))
    totals = size(graph).totals
    kernels = sum(n.layer.kernels for n in graph.nodes if isinstance(n.layer, Conv)) * biased
    assert totals.params + totals.buffers + kernels + more == total


def test_keras_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is installed: the same small network, counted by Keras on PyTorch."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras: Any = pytest.importorskip("keras", reason="counts beside Keras, where installed")
    if keras.backend.backend() != "torch":
        pytest.skip("Keras was imported before with another backend")
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(8, 3, padding="same"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5),
        ]
    )
    text = "input 3x12x12; conv 8 k3 pad same; bn; depthwise k3; globalavg; flatten; linear 5"
    totals = size(parse(text)).totals
    assert model.count_params() == totals.params + totals.buffers
    trained = sum(prod(weight.shape) for weight in model.trainable_weights)
    assert trained == totals.params
