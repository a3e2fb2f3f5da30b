"""The notation: what every word means, exact round trips, and an answer to every mistake."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains import chains
from lanewise.api import Net
from lanewise.errors import NetError
from lanewise.net.check import check
from lanewise.net.elsewhere import ELSEWHERE
from lanewise.net.grammar import FORMS, KIND_OF_WORD
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
    ReLU,
    Sigmoid,
    SumPool,
    Tanh,
)
from lanewise.net.load import load, read_text
from lanewise.net.parse import parse
from lanewise.net.show import show, show_layer

WRITTEN: list[tuple[str, Layer]] = [
    ("conv 6 k5", Conv(6, (5, 5))),
    ("conv 6 k 5", Conv(6, (5, 5))),
    ("conv 6 k3x5", Conv(6, (3, 5))),
    ("conv 6 k5 stride2", Conv(6, (5, 5), stride=(2, 2))),
    ("conv 6 k5 stride 2x1", Conv(6, (5, 5), stride=(2, 1))),
    ("conv 6 pad 2 k5", Conv(6, (5, 5), pad=((2, 2), (2, 2)))),
    ("conv 6 k5 pad2x1", Conv(6, (5, 5), pad=((2, 2), (1, 1)))),
    ("conv 6 k5 pad 1:2", Conv(6, (5, 5), pad=((1, 2), (1, 2)))),
    ("conv 6 k5 pad1:2x0:1", Conv(6, (5, 5), pad=((1, 2), (0, 1)))),
    ("conv 6 k5 pad 3x0:1", Conv(6, (5, 5), pad=((3, 3), (0, 1)))),
    ("conv 6 k5 pad same", Conv(6, (5, 5), pad="same")),
    ("conv 6 k5 pad valid", Conv(6, (5, 5), pad="valid")),
    ("conv 6 k5 dilation2", Conv(6, (5, 5), dilation=(2, 2))),
    ("conv 6 k5 groups 3", Conv(6, (5, 5), groups=3)),
    ("CONV 6 K5 NoBias", Conv(6, (5, 5), bias=False)),
    ("maxpool 2", MaxPool((2, 2), (2, 2))),
    ("maxpool 3 stride 2 pad 1 ceil", MaxPool((3, 3), (2, 2), ((1, 1), (1, 1)), True)),
    ("maxpool 3x2", MaxPool((3, 2), (3, 2))),
    ("avgpool 3 stride1", AvgPool((3, 3), (1, 1))),
    ("sumpool 2 pad same", SumPool((2, 2), (2, 2), "same")),
    ("globalmax", GlobalMax()),
    ("globalavg", GlobalAvg()),
    ("globalsum", GlobalSum()),
    ("flatten", Flatten()),
    ("linear 120", Linear(120)),
    ("linear 120 nobias", Linear(120, bias=False)),
    ("relu", ReLU()),
    ("leakyrelu", LeakyReLU(0.01)),
    ("leakyrelu 0.2", LeakyReLU(0.2)),
    ("tanh", Tanh()),
    ("sigmoid", Sigmoid()),
    ("dropout", Dropout(0.5)),
    ("dropout .25", Dropout(0.25)),
    ("dropout 0", Dropout(0.0)),
]


@pytest.mark.parametrize(("text", "layer"), WRITTEN)
def test_each_word_means_its_layer(text: str, layer: Layer) -> None:
    graph = parse(f"input 3x8x9\n{text}")
    assert graph.nodes[0].layer == Input(3, 8, 9)
    assert graph.nodes[1].layer == layer


def test_every_kind_is_written_somewhere() -> None:
    assert {type(layer) for _, layer in WRITTEN} | {Input} == set(KIND_OF_WORD.values())


def test_semicolons_lines_comments_and_blanks() -> None:
    lines = "\ufeff# a net\r\n\r\n input 1x8x8 # the image; not a layer\r\n\tc1: conv 2 k3;relu;;\n"
    graph = parse(lines, "x.net")
    assert [node.name for node in graph.nodes] == ["input", "c1", "relu1"]
    assert [node.line for node in graph.nodes] == [3, 4, 4]
    assert [node.inputs for node in graph.nodes] == [(), ("input",), ("c1",)]
    assert graph == parse("input 1x8x8; c1: conv 2 k3; relu")


def test_default_names_count_their_kind_and_given_names_win() -> None:
    graph = parse("input 1x8x8; conv 2 k1; Mine: conv 2 k1; conv 2 k1; relu; maxpool 2")
    names = [node.name for node in graph.nodes]
    assert names == ["input", "conv1", "Mine", "conv3", "relu1", "maxpool1"]


@given(chains())
def test_net_to_text_to_net(graph: Graph) -> None:
    text = show(graph)
    assert parse(text) == graph
    assert show(parse(text)) == text
    assert parse(text.replace("\n", ";")) == graph


@given(st.text(alphabet="abckmnoprtuvxl 0123456789:;.-#\n", max_size=60))
def test_any_text_is_a_network_or_an_error_with_a_place(text: str) -> None:
    try:
        graph = parse("input 1x8x8\n" + text, "any.net")
    except NetError as error:
        assert str(error).startswith("any.net:")
    else:
        assert parse(show(graph)) == graph


@given(chains())
def test_a_net_gives_its_text_back_exactly(graph: Graph) -> None:
    text = "# mine\n\n" + show(graph).upper().replace("MY_", "my_").replace("\n", "  # note\n")
    assert Net(text).text == text


def test_nets_are_equal_by_graph() -> None:
    short = Net("input 1x8x8; relu")
    long = Net("# the same\ninput 1x8x8\n\nrelu\n")
    assert short == long
    assert hash(short) == hash(long)
    assert short != Net("input 1x8x8; tanh")
    assert short != "input 1x8x8; relu"
    assert Net(short) == Net(short.graph) == short
    assert Net(short.graph).text == "input 1x8x8\nrelu\n"


MISTAKES: list[tuple[str, str]] = [
    ("", "n.net: no layers; start with the image, like `input 1x28x28`"),
    ("# only a comment", "n.net: no layers; start with the image, like `input 1x28x28`"),
    ("conv 6 k5", "n.net:1 conv1: the first layer is `conv`; start with the image, like "),
    ("input 1x8x8\ninput 1x8x8", "n.net:2 input: a second input; a network has one, remove this"),
    ("input 8x8", "n.net:1 input: shape `8x8`; use channels x height x width like 3x64x64"),
    ("input", "n.net:1 input: needs its shape; write it like `input 3x64x64`"),
    ("input 0x8x8", "n.net:1 input: channels is 0; use 1 or more"),
    ("I; cnv 6 k5", "n.net:1: unknown layer `cnv`; did you mean `conv`? the layers are input, "),
    ("I; c1: cnv 6 k5", "n.net:1 c1: unknown layer `cnv`; did you mean `conv`?"),
    ("I; dense 10", "n.net:1: unknown layer `dense`; did you mean `linear`?"),
    ("I; zzzzzz", "n.net:1: unknown layer `zzzzzz`; the layers are input, "),
    ("I\n\nconv 6 k5 padding 2", "n.net:3 conv1: unknown option `padding`; did you mean `pad`? "),
    ("I; conv 6 k5 sride2", "n.net:1 conv1: unknown option `sride2`; did you mean `stride`? it t"),
    ("I; conv 6 k5 ceil", "n.net:1 conv1: unknown option `ceil`; it takes k, stride, pad, "),
    ("I; maxpool 2 groups 2", "n.net:1 maxpool1: unknown option `groups`; it takes stride, pad, "),
    ("I; maxpool 2 2", "n.net:1 maxpool1: unknown option `2`; it takes stride, pad, ceil, like "),
    ("I; relu 3", "n.net:1 relu1: `3` is one word too many; write just `relu`"),
    ("I; conv 6 k5 k3", "n.net:1 conv1: kernel is given twice; keep one"),
    ("I; conv 6 k5 nobias nobias", "n.net:1 conv1: bias is given twice; keep one"),
    ("I; conv", "n.net:1 conv1: needs its number of kernels; write it like `conv 6 k5"),
    ("I; conv k5", "n.net:1 conv1: needs its number of kernels; write it like `conv 6 k5"),
    ("I; conv 6", "n.net:1 conv1: needs k, the kernel's size: `conv 6 k5 stride2 pad1`"),
    ("I; conv 6 k", "n.net:1 conv1: k needs a value: the kernel's size"),
    ("I; conv 6 k5 pad", "n.net:1 conv1: pad needs a value: zeros around the input"),
    ("I; conv 6 k5 pad some", "n.net:1 conv1: pad `some`; use a number like 2, height x width "),
    ("I; conv 6 k5 pad 1x2x3", "n.net:1 conv1: pad `1x2x3`; use a number like 2, "),
    ("I; conv 6 k5 pad 1:2:3", "n.net:1 conv1: pad `1:2:3`; use a number like 2, "),
    ("I; conv 6 k3x4x5", "n.net:1 conv1: k `3x4x5`; use a number like 3, or height x width like"),
    ("I; conv 6.5 k3", "n.net:1 conv1: number of kernels `6.5`; use a whole number like 6"),
    ("I; conv 0 k3", "n.net:1 conv1: kernels is 0; use 1 or more"),
    ("I; conv -6 k3", "n.net:1 conv1: kernels is -6; use 1 or more"),
    ("I; conv 6 k0", "n.net:1 conv1: kernel is 0; use 1 or more"),
    ("I; conv 6 k3x0", "n.net:1 conv1: kernel is 3x0; use 1 or more"),
    ("I; conv 6 k3 stride0", "n.net:1 conv1: stride is 0; use 1 or more"),
    ("I; conv 6 k3 pad -1", "n.net:1 conv1: pad is -1; use 0 or more"),
    ("I; conv 6 k3 dilation 0", "n.net:1 conv1: dilation is 0; use 1 or more"),
    ("I; conv 6 k3 groups 0", "n.net:1 conv1: groups is 0; use 1 or more"),
    ("I; conv 6 k2000000", "n.net:1 conv1: kernel is 2000000; at most 1,000,000 is allowed"),
    ("I; conv 6 k3 pad 0:2000000", "n.net:1 conv1: pad is 0:2000000; at most 1,000,000 is allowed"),
    ("I; linear", "n.net:1 linear1: needs its number of features; write it like `linear 120`"),
    ("I; linear 0", "n.net:1 linear1: features is 0; use 1 or more"),
    ("I; maxpool", "n.net:1 maxpool1: needs its window; write it like `maxpool 3 stride2 pad1 c"),
    ("I; dropout 1", "n.net:1 dropout1: rate is 1.0; use at least 0 and less than 1, like 0.5"),
    ("I; dropout -0.1", "n.net:1 dropout1: rate is -0.1; use at least 0 and less than 1, like"),
    ("I; dropout 5%", "n.net:1 dropout1: rate `5%`; use a number like 0.5"),
    ("I; leakyrelu -1", "n.net:1 leakyrelu1: slope is -1.0; use 0 or more, like 0.01"),
    ("I; leakyrelu 1e999", "n.net:1 leakyrelu1: slope `1e999`; use a number like 0.5"),
    ("I\na: relu\na: tanh", "n.net:3 a: the name a is taken by the relu of line 2; give this "),
    ("I; relu2: relu; relu", "n.net:1 relu2: the name relu2 is taken by the relu; give this "),
    ("I; input: relu", "n.net:1 input: the name input is taken by the input; give this layer "),
    ("I; 1a: relu", "n.net:1 1a: '1a' is no name; use letters, digits and _, starting with a lett"),
    ("I; : relu", "n.net:1: `: relu` needs a name, a colon and a layer, like `c1: conv 6 k5`"),
    ("I; c1:", "n.net:1: `c1:` needs a name, a colon and a layer, like `c1: conv 6 k5`"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_mistake_is_told_with_place_values_and_remedy(text: str, message: str) -> None:
    with pytest.raises(NetError) as caught:
        parse(text.replace("I", "input 1x8x8", 1) if text.startswith("I") else text, "n.net")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_words_from_elsewhere_lead_to_words_of_ours() -> None:
    ours = set(KIND_OF_WORD) | {word for form in FORMS.values() for word in form.words()}
    assert set(ELSEWHERE.values()) <= ours
    assert not set(ELSEWHERE) & ours


def test_the_examples_in_errors_are_right() -> None:
    for kind, form in FORMS.items():
        text = form.example if kind is Input else f"input 8x9x9; {form.example}"
        layer = parse(text).output.layer
        assert type(layer) is kind
        assert show_layer(layer) == form.example


def test_graphs_built_in_code_obey_the_same_rules() -> None:
    image = Node("input", Input(1, 8, 8))
    wrong = [
        (image, Node("a", ReLU(), ("b",))),
        (image, Node("a", ReLU())),
        (image, Node("a.b", ReLU(), ("input",))),
        (image, Node("a", Conv(6, (0, 3)), ("input",))),
        (image, Node("a", Linear(3, bias=1), ("input",))),  # type: ignore[arg-type]
    ]
    for nodes in wrong:
        with pytest.raises(NetError):
            check(Graph(nodes))


def test_show_refuses_what_the_notation_cannot_say() -> None:
    image = Node("input", Input(1, 8, 8))
    branch = Graph((image, Node("a", ReLU(), ("input",)), Node("b", Tanh(), ("input",))))
    with pytest.raises(NetError, match="net b: the notation writes chains only"):
        show(branch)


def test_load_from_file_zoo_and_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.net"
    path.write_text("input 1x8x8\n# größer\nrelu\n", encoding="utf-8")
    assert read_text(path) == ("input 1x8x8\n# größer\nrelu\n", str(path))
    assert load(path) == load(str(path)) == load("input 1x8x8; relu")
    assert load("input 1x8x8").origin == "net"
    assert load("lenet5").origin == "lenet5"
    assert Net(path).name == "mine"
    monkeypatch.chdir(tmp_path)
    os.rename(path, "lenet5")
    assert load("lenet5") != load("./lenet5")


def test_what_cannot_be_loaded_is_told(tmp_path: Path) -> None:
    (tmp_path / "binary.net").write_bytes(b"\x89PNG\xff\xfe")
    (tmp_path / "huge.net").write_bytes(b"#" * (2 << 20))
    told = {
        "": "the network is empty; give a zoo name, a .net file or notation",
        "lenet6": "lenet6: neither a network of the zoo nor a file; did you mean `lenet5`? "
        "`lanewise nets` lists the zoo",
        "no/such.net": "no/such.net: no such file",
        str(tmp_path): f"{tmp_path}: Is a directory",
        str(tmp_path / "binary.net"): f"{tmp_path}/binary.net: not text (byte 0 is not UTF-8)",
        str(tmp_path / "huge.net"): f"{tmp_path}/huge.net: more than 1 MiB, so not a network's",
    }
    for spec, message in told.items():
        with pytest.raises(NetError) as caught:
            load(spec)
        assert str(caught.value).startswith(message)
    with pytest.raises(NetError, match="No such file"):
        load(tmp_path / "none.net")


def test_notation_is_known_by_its_first_word() -> None:
    """A net that forgets its input is told so, not that there is no such file."""
    from lanewise.net.load import load

    with pytest.raises(NetError, match="input"):
        load("conv 6 k5")
    with pytest.raises(NetError, match="neither a network of the zoo nor a file"):
        load("conv")
