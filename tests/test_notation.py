"""The notation: what every word means, exact round trips, and an answer to every mistake."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains import chains
from lanewise.api import Net
from lanewise.errors import NetError
from lanewise.net.blocks import STRUCTURES
from lanewise.net.check import check
from lanewise.net.elsewhere import ELSEWHERE
from lanewise.net.grammar import FORMS, KIND_OF_WORD
from lanewise.net.graph import Graph, Node
from lanewise.net.layers import (
    ELU,
    GELU,
    AdaptiveAvg,
    AdaptiveMax,
    Add,
    AvgPool,
    BatchNorm,
    ChannelPad,
    ChannelScale,
    ChannelShuffle,
    ChannelSplit,
    Concat,
    Conv,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAvg,
    GlobalMax,
    GlobalSum,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    Input,
    L2Pool,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Multiply,
    PartialConv,
    PReLU,
    RadialBasis,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    SpatialDropout,
    StochasticDepth,
    Subsample,
    SumPool,
    Tanh,
    TransposedConv,
    Upsample,
)
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
    ("depthwise k3", DepthwiseConv((3, 3))),
    (
        "depthwise k3 stride2 pad1 nobias",
        DepthwiseConv((3, 3), stride=(2, 2), pad=((1, 1), (1, 1)), bias=False),
    ),
    ("depthwise k3 multiplier 2 dilation2", DepthwiseConv((3, 3), 2, dilation=(2, 2))),
    ("depthwise k5x3 pad same", DepthwiseConv((5, 3), pad="same")),
    ("partialconv 0,1/1,2/0 k5", PartialConv(((0, 1), (1, 2), (0,)), (5, 5))),
    (
        "partialconv 2 k3 stride2 pad1 dilation2 nobias",
        PartialConv(((2,),), (3, 3), (2, 2), ((1, 1), (1, 1)), (2, 2), bias=False),
    ),
    (
        "convtranspose 16 k4 stride2 pad1 outputpad1",
        TransposedConv(16, (4, 4), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    ),
    ("convtranspose 6 k3 pad 1:0x2", TransposedConv(6, (3, 3), pad=((1, 0), (2, 2)))),
    ("convtranspose 6 k3 groups3 nobias", TransposedConv(6, (3, 3), groups=3, bias=False)),
    ("convtranspose 6 k3 dilation2", TransposedConv(6, (3, 3), dilation=(2, 2))),
    ("l2pool 2", L2Pool((2, 2), (2, 2))),
    ("subsample 2", Subsample((2, 2), (2, 2))),
    ("adaptivemax 7", AdaptiveMax((7, 7))),
    ("adaptiveavg 6x5", AdaptiveAvg((6, 5))),
    ("rbf 10", RadialBasis(10)),
    ("relu6", ReLU6()),
    ("elu", ELU(1.0)),
    ("elu 0.5", ELU(0.5)),
    ("silu", SiLU()),
    ("gelu", GELU()),
    ("hardsigmoid", HardSigmoid()),
    ("hardswish", HardSwish()),
    ("prelu", PReLU()),
    ("prelu channels", PReLU(per_channel=True)),
    ("bn", BatchNorm()),
    ("bn eps 0.001 momentum 0.01", BatchNorm(eps=0.001, momentum=0.01)),
    ("bn ghost 16 noaffine", BatchNorm(ghost=16, affine=False)),
    ("layernorm", LayerNorm()),
    ("layernorm eps 1e-6", LayerNorm(1e-6)),
    ("groupnorm 3", GroupNorm(3)),
    ("groupnorm 3 eps .001", GroupNorm(3, 0.001)),
    ("lrn 5", LocalResponseNorm(5)),
    ("lrn 4 alpha 0.1 beta 0.5 k 2", LocalResponseNorm(4, 0.1, 0.5, 2.0)),
    ("scale", ChannelScale(1.0)),
    ("scale 0.000001", ChannelScale(1e-6)),
    ("scale -1", ChannelScale(-1.0)),
    ("shuffle 3", ChannelShuffle(3)),
    ("split 1 of 3", ChannelSplit(1, 3)),
    ("split 3 of3", ChannelSplit(3, 3)),
    ("padchannels 8:4", ChannelPad(8, 4)),
    ("padchannels 8", ChannelPad(8, 8)),
    ("upsample 2", Upsample((2, 2))),
    ("upsample 2x3 bilinear", Upsample((2, 3), True)),
    ("spatialdropout 0.2", SpatialDropout(0.2)),
    ("stochasticdepth 0.1", StochasticDepth(0.1)),
    ("a: relu; add a input", Add()),
    ("a: relu; multiply a input", Multiply()),
    ("a: relu; concat a input", Concat()),
]


@pytest.mark.parametrize(("text", "layer"), WRITTEN)
def test_each_word_means_its_layer(text: str, layer: Layer) -> None:
    graph = parse(f"input 3x8x9\n{text}")
    assert graph.nodes[0].layer == Input(3, 8, 9)
    assert graph.output.layer == layer
    assert parse(show(graph)) == graph


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
    ("I; cnv 6 k5", "n.net:1: unknown layer `cnv`; did you mean `conv`?"),
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
    ("I; depthwise 6 k3", "n.net:1 depthwise1: unknown option `6`; it takes k, multiplier, stri"),
    ("I; depthwise", "n.net:1 depthwise1: needs k, the kernel's size: `depthwise k3 stride2 pad1`"),
    ("I; partialconv k3", "n.net:1 partialconv1: needs its table of maps; write it like `partia"),
    ("I; partialconv 0,1/ k3", "n.net:1 partialconv1: table of maps `0,1/`; use the maps of each"),
    ("I; partialconv 0/1,1 k3", "n.net:1 partialconv1: table entry 1 is 1,1; list each map that k"),
    ("I; partialconv -1 k3", "n.net:1 partialconv1: table entry 0 is -1; list each map that kern"),
    ("I; convtranspose 6 k3 pad same", "n.net:1 convtranspose1: pad `same`; use a number like 2, "),
    (
        "I; convtranspose 6 k3 outputpad1",
        "n.net:1 convtranspose1: outputpad is 1; use less than",
    ),
    (
        "I; convtranspose 6 k3 outputpad -1",
        "n.net:1 convtranspose1: output_pad is -1; use 0 or",
    ),
    ("I; depthwise k3 multiplier 0", "n.net:1 depthwise1: multiplier is 0; use 1 or more"),
    ("I; adaptiveavg", "n.net:1 adaptiveavg1: needs its size of the output; write it like `adapt"),
    ("I; adaptivemax 0", "n.net:1 adaptivemax1: size is 0; use 1 or more"),
    ("I; elu 0", "n.net:1 elu1: alpha is 0.0; use a number above 0"),
    ("I; prelu 3", "n.net:1 prelu1: unknown option `3`; it takes channels, like `prelu channels`"),
    ("I; bn eps 0", "n.net:1 bn1: eps is 0.0; use a number above 0"),
    ("I; bn momentum 0", "n.net:1 bn1: momentum is 0.0; use more than 0 and at most 1, like 0.1"),
    ("I; bn momentum 1.5", "n.net:1 bn1: momentum is 1.5; use more than 0 and at most 1, like 0."),
    ("I; bn ghost 8", "n.net:1 bn1: ghost is 8; use 16 (statistics of each slice of 16 images, "),
    ("I; groupnorm", "n.net:1 groupnorm1: needs its number of groups; write it like `groupnorm 8`"),
    ("I; groupnorm 0", "n.net:1 groupnorm1: groups is 0; use 1 or more"),
    ("I; lrn 0", "n.net:1 lrn1: size is 0; use 1 or more"),
    ("I; lrn 5 beta 0", "n.net:1 lrn1: beta is 0.0; use a number above 0"),
    ("I; lrn 5 k 0", "n.net:1 lrn1: constant is 0.0; use a number above 0"),
    ("I; split 1", "n.net:1 split1: needs of, the number of parts: `split 1 of 2`"),
    ("I; split 0 of 2", "n.net:1 split1: part is 0; use 1 or more"),
    ("I; split 3 of 2", "n.net:1 split1: part 3 of 2; use part 1 to 2"),
    ("I; padchannels 1:2:3", "n.net:1 padchannels1: channels before:after `1:2:3`; use before:af"),
    ("I; padchannels -1:0", "n.net:1 padchannels1: before is -1; use 0 or more"),
    ("I; upsample 0", "n.net:1 upsample1: scale is 0; use 1 or more"),
    (
        "I; upsample 2 linear",
        "n.net:1 upsample1: unknown option `linear`; did you mean `bilinear`",
    ),
    ("I; stochasticdepth 1", "n.net:1 stochasticdepth1: rate is 1.0; use at least 0 and less tha"),
    ("I; batchnorm", "n.net:1: unknown layer `batchnorm`; did you mean `bn`?"),
    ("I; hswish", "n.net:1: unknown layer `hswish`; did you mean `hardswish`?"),
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
    ours = (
        set(KIND_OF_WORD)
        | set(STRUCTURES)
        | {word for form in FORMS.values() for word in form.words()}
    )
    assert set(ELSEWHERE.values()) <= ours
    assert not set(ELSEWHERE) & ours


def test_the_examples_in_errors_are_right() -> None:
    for kind, form in FORMS.items():
        before = "" if kind is Input else "input 8x9x9; a: relu; b: relu; "
        node = parse(before + form.example).output
        assert type(node.layer) is kind
        names = " ".join(("", *node.inputs)) if len(node.inputs) > 1 else ""
        assert show_layer(node.layer) + names == form.example


def test_graphs_built_in_code_obey_the_same_rules() -> None:
    image = Node("input", Input(1, 8, 8))
    wrong = [
        (image, Node("a", ReLU(), ("b",))),
        (image, Node("a", ReLU())),
        (image, Node("a.b", ReLU(), ("input",))),
        (image, Node("a", Conv(6, (0, 3)), ("input",))),
        (image, Node("a", Linear(3, bias=1), ("input",))),  # type: ignore[arg-type]
        (image, Node("a", ReLU(), ("input", "input"))),
        (image, Node("a", ReLU(), ("input",)), Node("b", Add(), ("a",))),
        (image, Node("a", ReLU(), ("input",)), Node("b", Add(), ("a", "a"))),
        (image, Node("a", ReLU(), ("input",)), Node("b", Tanh(), ("input",))),
    ]
    for nodes in wrong:
        with pytest.raises(NetError):
            check(Graph(nodes))
