"""A text read by another convention: what it becomes, its values in the engine, what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import lanewise as lw
from lanewise.cli import main as cli
from lanewise.errors import EngineError, SizeError
from lanewise.net.load import load
from lanewise.net.parse import parse
from lanewise.net.show import show
from lanewise.size.against_convention import as_text, compare
from lanewise.size.conventions import CONVENTIONS
from lanewise.size.reading import read
from lanewise.size.report import size
from lanewise.size.shapes import infer_shapes

# input, layer as written → convention → as Lanewise itself writes it.
READINGS: list[tuple[str, str, dict[str, str]]] = [
    (
        "3x224x224",
        "conv 4 k7 stride2 pad3",
        {
            "keras": "conv 4 k7 stride2 pad 2:3",
            "onnx": "conv 4 k7 stride2 pad3",
            "caffe": "conv 4 k7 stride2 pad3",
            "d2l": "conv 4 k7 stride2 pad 2:1",
        },
    ),
    (
        "3x224x224",
        "conv 4 k7 stride2 pad same",
        {
            "keras": "conv 4 k7 stride2 pad 2:3",
            "onnx": "conv 4 k7 stride2 pad 2:3",
            "onnx-lower": "conv 4 k7 stride2 pad 3:2",
            "d2l": "conv 4 k7 stride2 pad3",
        },
    ),
    # No word of Keras' gives 10 − 2; different ends are meant as they stand.
    ("3x12x12", "conv 4 k5 pad1", {"keras": "conv 4 k5 pad1", "d2l": "conv 4 k5 pad 1:0"}),
    ("3x12x12", "conv 4 k4 pad 2:1", {"keras": "conv 4 k4 pad 2:1", "d2l": "conv 4 k4 pad 2:1"}),
    # One word for both axes: the width alone would be valid.
    ("3x12x12", "conv 4 k 3x1 pad 1x0", {"keras": "conv 4 k3x1 pad 1x0"}),
    ("3x12x13", "conv 4 k 5x3 pad 1x0", {"keras": "conv 4 k5x3 pad 1x0"}),
    ("3x112x112", "maxpool 3 stride2 ceil", {"keras": "maxpool 3 stride2 pad 0:1"}),
    ("3x10x10", "maxpool 5 stride3 ceil", {"keras": "maxpool 5 stride3"}),
    (
        "3x13x13",
        "maxpool 2",
        {"caffe": "maxpool 2 ceil", "onnx-ceil": "maxpool 2 ceil", "onnx": "maxpool 2"},
    ),
    ("3x6x6", "maxpool 1 stride2", {"caffe": "maxpool 1 stride2 pad 0:1"}),
    ("3x6x7", "maxpool 1 stride2", {"caffe": "maxpool 1 stride2 pad 0:1x0"}),
    ("3x9x9", "maxpool 3 stride2 pad valid ceil", {"onnx": "maxpool 3 stride2"}),
    (
        "3x9x9",
        "avgpool 3 stride2 pad1",
        {
            "keras": "avgpool 3 stride2 pad1 unpadded",
            "onnx": "avgpool 3 stride2 pad1 unpadded",
            "caffe": "avgpool 3 stride2 pad1 ceil",
            "d2l": "avgpool 3 stride2 pad 1:0",
        },
    ),
    ("3x9x9", "avgpool 3 stride2", {"onnx": "avgpool 3 stride2", "keras": "avgpool 3 stride2"}),
    ("3x9x9", "avgpool 5 stride2 pad1", {"keras": "avgpool 5 stride2 pad1"}),
    (
        "3x8x8",
        "convtranspose 4 k3 stride2 pad1 outputpad1",
        {"keras": "convtranspose 4 k3 stride2 pad 0:1", "onnx": ""},
    ),
    ("3x8x8", "convtranspose 4 k2 stride3", {"keras": "convtranspose 4 k2 stride3 outputpad1"}),
    ("3x8x8", "adaptiveavg 4", {"onnx": "adaptiveavg 4", "caffe": "adaptiveavg 4"}),
]


@pytest.mark.parametrize(("image", "layer", "expected"), READINGS)
def test_what_a_layer_becomes(image: str, layer: str, expected: dict[str, str]) -> None:
    graph = parse(f"input {image}; {layer}")
    assert read(graph, CONVENTIONS["torch"]) == graph
    for name, text in expected.items():
        found = show(read(graph, CONVENTIONS[name])).split("\n")[1]
        wanted = show(parse(f"input {image}; {text or layer}")).split("\n")[1]
        assert found == wanted, name


@pytest.mark.parametrize(
    ("name", "layer", "message"),
    [
        ("caffe", "conv 2 k3 pad same", "conv1: caffe has no pad same; use a number, like pad 1"),
        ("caffe", "conv 2 k3 pad 0:1", "conv1: caffe has one pad for both sides, not 0:1"),
        ("onnx", "adaptivemax 7", "adaptivemax1: size 7: onnx has no windows of different len"),
        ("onnx", "maxpool 3 pad3", "pad 3:3 is more than onnx allows beside a window of 3; use pa"),
        ("d2l", "conv 2 k9 pad1", "conv1: input 3x9x9, kernel 9 stride 1 pad 1:0 has no output"),
    ],
)
def test_what_is_refused(name: str, layer: str, message: str) -> None:
    text = f"input 3x9x9; {layer}"
    if name == "d2l":
        text = "input 3x7x7; conv 2 k9 pad1"
        message = message.replace("9x9", "7x7")
    with pytest.raises(SizeError, match=r"^net:1") as caught:
        read(parse(text), CONVENTIONS[name])
    assert message in str(caught.value)


def test_a_pool_s_padding_may_be_more_than_half_of_its_window_elsewhere() -> None:
    text = "input 2x9x9; maxpool 3 stride2 pad2"
    with pytest.raises(SizeError, match="more than half of the window 3"):
        size(parse(text))
    for name, out in (("onnx", 6), ("caffe", 6)):
        graph = read(parse(text), CONVENTIONS[name])
        assert infer_shapes(graph)["maxpool1"] == (2, out, out)
        assert size(graph).convention == name


# ---- values --------------------------------------------------------------------------------------


def same_pads(n: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's, written once more."""
    total = max(0, (-(-n // stride) - 1) * stride + kernel - n)
    return total // 2, total - total // 2


@settings(max_examples=12, deadline=None)
@given(
    size=st.integers(5, 9),
    kernel=st.integers(2, 4),
    stride=st.integers(1, 3),
    kind=st.sampled_from(["conv 1", "maxpool", "avgpool"]),
)
def test_the_engine_reads_keras_pixels(size: int, kernel: int, stride: int, kind: str) -> None:
    """Against windows cut out of the padded image by hand."""
    pad = kernel // 2
    k = "k" if kind == "conv 1" else ""
    net = lw.Net(f"input 1x{size}x{size}; {kind} {k}{kernel} stride{stride} pad{pad}", "keras")
    # The size that the numbers give must be one of `same`, or Keras has no word for it.
    assume((size + 2 * pad - kernel) // stride + 1 == -(-size // stride))
    image = np.random.default_rng(size).standard_normal((1, 1, size, size)).astype(np.float32)
    with lw.compile(net) as program:
        if kind == "conv 1":
            weight, bias = (program.parameters[f"conv1.{which}"] for which in ("weight", "bias"))
            program.set_learned({"conv1.weight": 0 * weight + 1, "conv1.bias": 0 * bias})
        ours = program.forward(image)[0, 0]
    pads = same_pads(size, kernel, stride)
    wide = np.pad(image[0, 0].astype(float), (pads, pads), constant_values=np.nan)
    reduce = {"conv 1": np.nansum, "maxpool": np.nanmax, "avgpool": np.nanmean}[kind]
    out = -(-size // stride)
    theirs = [
        [
            reduce(wide[p * stride : p * stride + kernel, q * stride : q * stride + kernel])
            for q in range(out)
        ]
        for p in range(out)
    ]
    assert ours.shape == (out, out)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


UNPADDED = "input 2x9x8; conv 3 k1; {}; conv 2 k1; flatten; linear 3"


@pytest.mark.parametrize(
    "pool",
    [
        "avgpool 3 stride2 pad1 unpadded",
        "avgpool 4 stride3 pad2 ceil unpadded",
        "avgpool 3 stride2 pad 0:1x1:0 unpadded",
    ],
)
def test_means_without_padding_agree_with_pytorch(pool: str) -> None:
    pytest.importorskip("torch")
    from lanewise.bridge.oracle import check

    assert check(parse(UNPADDED.format(pool))).ok


def test_a_window_of_padding_alone_has_a_size_and_no_program() -> None:
    graph = read(parse("input 1x6x6; maxpool 1 stride2"), CONVENTIONS["caffe"])
    assert size(graph).rows[-1].output == (1, 4, 4)
    with pytest.raises(EngineError, match="maxpool1: maxpool 1 stride2 pad 0:1 over 1x6x6 has a"):
        lw.compile(graph)


def test_a_net_keeps_what_it_was_read_as() -> None:
    net = lw.Net("input 3x32x32; conv 4 k3 stride2 pad1", convention="tensorflow")
    assert net.text == "input 3x32x32\nconv 4 k3 stride2 pad 0:1\n"
    assert lw.Net(net.text) == net
    with pytest.raises(lw.SizeError, match="convention kears: not known"):
        lw.Net("lenet5", convention="kears")


# ---- two readings --------------------------------------------------------------------------------


def test_resnet18_in_keras_reads_other_pixels() -> None:
    readings = compare(load("resnet18"), CONVENTIONS["torch"], CONVENTIONS["keras"])
    changed = {layer.name: layer.why for layer in readings.layers if layer.change != "same"}
    # The strided 3×3 and 7×7; the strided 1×1 of the shortcuts have no padding.
    assert list(changed) == ["conv1", "maxpool1", "conv6", "conv11", "conv16"]
    assert set(changed.values()) == {"windows begin 1 pixel later"}
    assert readings.b
    assert readings.a.totals == readings.b.totals


def test_googlenet_and_squeezenet_are_caffe_s() -> None:
    """Both were made in Caffe, whose ceil their texts have."""
    for name in ("squeezenet1-0", "googlenet-2014"):
        readings = compare(load(name), CONVENTIONS["torch"], CONVENTIONS["caffe"])
        assert {layer.change for layer in readings.layers} == {"same"}


def test_what_follows_is_told_apart() -> None:
    text = "input 1x13x13; conv 2 k3; maxpool 2; relu; maxpool 2; flatten; linear 3"
    readings = compare(parse(text), CONVENTIONS["torch"], CONVENTIONS["caffe"])
    assert [layer.change for layer in readings.layers] == [
        *("same", "same", "size", "follows", "size", "follows", "follows"),
    ]
    assert as_text(readings).split("\n")[4:13] == [
        "   layer                     output",
        "-  maxpool1  maxpool 2       2x5x5",
        "+            maxpool 2 ceil  2x6x6",
        "             2x6x6 instead of 2x5x5",
        "-  maxpool2  maxpool 2       2x2x2",
        "+            maxpool 2 ceil  2x3x3",
        "             2x3x3 instead of 2x2x2",
        "",
        "Of 3 layers with windows: 2 of another size. Below them 3 have another input.",
    ]


def test_means_and_zeros_around() -> None:
    text = "input 1x14x14; avgpool 3 stride1 pad1; maxpool 5 stride1 pad1"
    readings = compare(parse(text), CONVENTIONS["torch"], CONVENTIONS["keras"])
    assert [(layer.change, layer.why) for layer in readings.layers[1:]] == [
        ("average", "padding does not count"),
        ("pixels", "zeros are laid around it (ZeroPadding2D), and may win"),
    ]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert cli.main(arguments) == 0
    return capsys.readouterr().out


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    text = "input 3x224x224; conv 64 k7 stride2 pad3"
    document = json.loads(run(capsys, "size", text, "--convention", "keras", "--json"))
    assert document["convention"] == "keras"
    assert document["layers"][0]["formula"] == "⌊(224 + 5 − 7)/2⌋ + 1 = 112"
    assert "read by keras's rules" in run(capsys, "size", text, "--convention", "keras")
    document = json.loads(run(capsys, "size", text, "--against-convention", "caffe", "--json"))
    assert (document["conventions"], document["problem"]) == (["torch", "caffe"], None)
    assert [layer["change"] for layer in document["layers"]] == ["same", "same"]
    document = json.loads(run(capsys, "size", "resnet18", "--against-convention", "d2l", "--json"))
    assert document["totals"]["d2l"] is None
    assert "add needs equal shapes" in document["problem"]
    shown = run(capsys, "size", "resnet18", "--against-convention", "d2l")
    assert max(map(len, shown.split("\n"))) <= 80
    both = run(capsys, "size", text, "--convention", "d2l", "--against", text)
    assert "64x111x111" in both
    assert cli.main(("size", text, "--against-convention", "keras", "--against", "lenet5")) == 2
