"""The calculus of networks that branch: shapes that meet, formulas, published numbers."""

from __future__ import annotations

import json
import time
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lanewise.errors import SizeError
from lanewise.net.graph import Graph, Node
from lanewise.net.layers import Add, Concat, Conv, Input, Layer, Multiply
from lanewise.net.parse import parse
from lanewise.size.cost import buffer_shapes, parameter_shapes
from lanewise.size.joins import Mismatch
from lanewise.size.report import size
from lanewise.size.shapes import SHAPES, Shape, infer_shapes
from lanewise.size.table import as_markdown, as_text

RESNET = """
block step maps kernel stride {
  conv maps k(kernel) stride stride pad (kernel-1)//2 nobias
  bn
}
block bottleneck width stride early {
  residual {
    step width 1 pick(early,stride,1)
    relu
    step width 3 pick(early,1,stride)
    relu
    step width*4 1 1
  } { step width*4 1 stride }
  relu
}
block same width {
  residual { step width 1 1; relu; step width 3 1; relu; step width*4 1 1 }
  relu
}
step 64 7 2
relu
maxpool 3 stride2 pad1
"""


def resnet(depths: tuple[int, ...], early: int) -> Graph:
    """A ResNet of bottlenecks; `early`: the stride is in the first convolution of a block."""
    text = "input 3x224x224" + RESNET
    for index, depth in enumerate(depths):
        width, stride = 64 * 2**index, 2 if index else 1
        text += f"bottleneck {width} {stride} {early}\n{depth - 1} x {{ same {width} }}\n"
    return parse(text + "globalavg; flatten; linear 1000")


RESNETS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

# Depth, stride placement → parameters, MACs, receptive field (published, or computed twice).
PUBLISHED = [
    (50, 0, 25_557_032, 4_089_184_256, 427),
    (50, 1, 25_557_032, 3_857_973_248, 483),
    (101, 0, 44_549_160, 7_801_405_440, 971),
    (101, 1, 44_549_160, 7_570_194_432, 1027),
    (152, 0, 60_192_808, 11_513_626_624, 1451),
    (152, 1, 60_192_808, 11_282_415_616, 1507),
]


@pytest.mark.parametrize(("depth", "early", "params", "macs", "field"), PUBLISHED)
def test_residual_networks_are_what_was_published(
    depth: int, early: int, params: int, macs: int, field: int
) -> None:
    report = size(resnet(RESNETS[depth], early))
    assert (report.totals.params, report.totals.macs) == (params, macs)
    last = next(row for row in reversed(report.rows) if row.kind == "add")
    assert (last.receptive_field, last.jump) == ((field, field), (32, 32))


@pytest.mark.parametrize(
    ("depth", "total"), [(50, 25_636_712), (101, 44_707_176), (152, 60_419_944)]
)
def test_keras_totals_count_running_values_and_biases_too(depth: int, total: int) -> None:
    report = size(resnet(RESNETS[depth], early=1))
    biases = sum(row.output[0] for row in report.rows if row.kind == "conv")
    assert report.totals.params + report.totals.buffers + biases == total


def test_a_network_of_500_layers_is_sized_at_once() -> None:
    graph = resnet(RESNETS[152], 0)
    assert len(graph.nodes) > 500

    def seconds() -> float:
        begin = time.process_time()
        size(graph)
        return time.process_time() - begin

    assert min(seconds() for _ in range(5)) < 0.1


def test_buffers_are_named_as_pytorch_names_them() -> None:
    graph = parse("input 3x8x8; conv 4 k1; bn; residual { b: bn noaffine }; flatten; last: bn")
    assert buffer_shapes(graph) == {
        "bn1.running_mean": (4,),
        "bn1.running_var": (4,),
        "b.running_mean": (4,),
        "b.running_var": (4,),
        "last.running_mean": (256,),
        "last.running_var": (256,),
    }
    assert [name for name in parameter_shapes(graph) if "conv" not in name] == [
        "bn1.weight", "bn1.bias", "last.weight", "last.bias",
    ]  # fmt: skip


def refusal(text: str) -> str:
    with pytest.raises(SizeError) as caught:
        infer_shapes(parse(text, "n.net"))
    return str(caught.value)


REFUSED = [
    (
        "input 3x32x32\nconv 8 k3 pad1\nresidual {\n conv 16 k3 stride2 pad1\n relu\n}",
        "n.net:3 add1: relu1 (line 5) is 16x16x16, conv1 (line 2) is 8x32x32, and add needs equal "
        "shapes; pass conv1 through `conv 16 k1 stride 2` first "
        "(in a residual: `{ … } { conv 16 k1 stride 2 }`)",
    ),
    (
        "input 8x9x9\nblock b w {\n residual {\n  conv w k3 pad1\n }\n}\nb 8\nb 4",
        "n.net:3 add2 (block b, called in line 8): conv2 (line 4, called in line 8) is 4x9x9, "
        "add1 (line 3, called in line 7) is 8x9x9, and add needs equal shapes; "
        "pass add1 through `conv 4 k1` first (in a residual: `{ … } { conv 4 k1 }`)",
    ),
    (
        "input 3x32x32\nresidual {\n conv 6 k3 stride2 pad1\n} {\n conv 4 k1 stride2\n}",
        "n.net:2 add1: conv1 (line 3) is 6x16x16, conv2 (line 5) is 4x16x16, and add needs equal "
        "shapes; pass conv2 through `conv 6 k1` first",
    ),
    (
        "input 3x32x32\nconcat { conv 4 k1 } {\n conv 4 k3 }",
        "n.net:2 concat1: conv1 (line 2) is 4x32x32, conv2 (line 3) is 4x30x30, and concat needs "
        "maps of one size; pass conv1 through `adaptiveavg 30x30` first",
    ),
    (
        "input 6x8x8; groupnorm 4",
        "n.net:1 groupnorm1: input 6x8x8: 4 groups do not divide the 6 channels; "
        "use groupnorm 1, 2, 3 or 6",
    ),
    (
        "input 6x8x8; shuffle 4",
        "n.net:1 shuffle1: input 6x8x8: 4 groups do not divide the 6 channels; "
        "use shuffle 1, 2, 3 or 6",
    ),
    (
        "input 6x8x8; split 1 of 4",
        "n.net:1 split1: input 6x8x8: 4 parts do not divide the 6 channels; use 1, 2, 3 or 6 parts",
    ),
    (
        "input 6x8x8; partialconv 0,1/2,6 k3",
        "n.net:1 partialconv1: input 6x8x8: kernel 1 reads map 6, which does not exist; "
        "use maps 0 to 5",
    ),
    (
        "input 6x8x8; convtranspose 4 k3 groups4",
        "n.net:1 convtranspose1: input 6x8x8, 4 kernels: 4 groups do not divide the 6 channels of "
        "the input; use groups 1 or 2",
    ),
    (
        "input 6x8x8; convtranspose 4 k3 pad9",
        "n.net:1 convtranspose1: input 6x8x8, kernel 3 stride 1: pad 9 cuts off the whole output; "
        "use pad <= 4 or kernel >= 12",
    ),
    (
        "input 6x8x8; depthwise k9",
        "n.net:1 depthwise1: input 6x8x8, kernel 9 stride 1 pad 0 has no output position; "
        "use pad >= 1 or kernel <= 8",
    ),
    (
        "input 1x2x2; flatten; rbf 17",
        "n.net:1 rbf1: input 4: so few features of ±1 cannot tell 17 outputs apart; "
        "use rbf <= 16 or features >= 5",
    ),
    (
        "input 6x4x4; rbf 10",
        "n.net:1 rbf1: input 6x4x4 is not flat, and rbf needs one row of features; "
        "put `flatten` before it",
    ),
    *(
        (
            f"input 6x4x4; flatten; {layer}",
            f"n.net:1 {word}1: input is 96 features, and {word} needs feature maps "
            f"(channels x height x width); put {word} before `flatten`",
        )
        for layer, word in [
            ("depthwise k3", "depthwise"),
            ("convtranspose 4 k3", "convtranspose"),
            ("partialconv 0/1 k3", "partialconv"),
            ("adaptiveavg 3", "adaptiveavg"),
            ("l2pool 2", "l2pool"),
            ("groupnorm 2", "groupnorm"),
            ("lrn 5", "lrn"),
            ("shuffle 2", "shuffle"),
            ("split 1 of 2", "split"),
            ("padchannels 1:1", "padchannels"),
            ("upsample 2", "upsample"),
        ]
    ),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_what_cannot_exist_is_told_with_a_remedy(text: str, message: str) -> None:
    assert refusal(text) == message


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("convtranspose 4 k3x4 stride2 dilation 1x3 pad 9x0", "convtranspose 4 k3x4 stride2 "
         "dilation 1x3 pad {pad}"),
        ("convtranspose 4 k3 pad 9:9x0", "convtranspose 4 k{kernel} pad 9:9x0"),
    ],
)  # fmt: skip
def test_remedies_of_transposed_convolutions_are_true(text: str, remedy: str) -> None:
    message = refusal(f"input 6x8x8; {text}")
    pad = message.split("use pad <= ")[1].split(" ")[0]
    kernel = message.rsplit(">= ")[1]
    infer_shapes(parse("input 6x8x8; " + remedy.format(pad=pad, kernel=kernel)))


SHAPE = st.one_of(
    st.tuples(st.integers(1, 6), st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 6), st.just(1), st.just(1)),
    st.tuples(st.integers(1, 60)),
)


@given(st.sampled_from([Add(), Multiply(), Concat()]), st.lists(SHAPE, min_size=2, max_size=4))
def test_the_layers_told_make_branches_meet(layer: Layer, shapes: list[Shape]) -> None:
    """However often it takes: each refusal names an input and layers after which one meets more."""
    for _ in range(2 * len(shapes)):
        try:
            out = SHAPES[type(layer)](layer, *shapes)
        except Mismatch as error:
            changed, told = error.remedy()
            text = f"input {'x'.join(map(str, (*shapes[changed], 1, 1)[:3]))}; "
            flat = "flatten; " if len(shapes[changed]) == 1 else ""
            after = infer_shapes(parse(text + flat + told))
            shapes[changed] = list(after.values())[-1]
            assert told in str(error)
        else:
            break
    else:
        raise AssertionError("the remedies never end")
    if isinstance(layer, Concat):
        assert sum(map(prod, shapes)) == prod(out)
    else:
        assert all(shape in (out, (out[0], 1, 1)) for shape in shapes)


@pytest.mark.parametrize("kind", [Add, Multiply])
def test_a_pixel_counts_for_its_whole_channel(kind: type[Layer]) -> None:
    rule = SHAPES[kind]
    assert rule(kind(), (4, 5, 6), (4, 1, 1)) == rule(kind(), (4, 1, 1), (4, 5, 6)) == (4, 5, 6)
    assert rule(kind(), (4, 1, 1), (4, 1, 1)) == (4, 1, 1)
    assert rule(kind(), (7,), (7,)) == (7,)
    with pytest.raises(Mismatch):
        rule(kind(), (4, 5, 6), (4, 1, 6))
    with pytest.raises(Mismatch):
        rule(kind(), (4,), (4, 1, 1))


FORMULAS = [
    ("residual { relu }", "3x14x14 + 3x14x14"),
    ("multiply { } { globalavg }", "3x14x14 · 3x1x1"),
    ("concat { } { conv 4 k1 } { relu }", "3 + 4 + 3 = 10"),
    ("bn", "unchanged, 2·3 running values"),
    ("layernorm", "unchanged, over 3 channels of each pixel"),
    ("flatten; layernorm", "unchanged, over 588 features"),
    ("groupnorm 3", "unchanged, 3 groups of 1 channels"),
    ("lrn 5", "unchanged, over 5 neighbouring channels"),
    ("convtranspose 4 k4 stride2 pad1", "(14 − 1)·2 + 4 − 2 = 28"),
    ("convtranspose 4 k3 stride2 outputpad1", "(14 − 1)·2 + 3 − 0 + 1 = 30"),
    ("convtranspose 4 k3 dilation2", "(14 − 1)·1 + (2·2 + 1) − 0 = 18"),
    ("adaptivemax 7", "windows of 14/7 = 2"),
    ("adaptiveavg 4", "⌊i·14/4⌋ … ⌈(i + 1)·14/4⌉ − 1 → i"),
    ("upsample 2x3", "height 14·2 = 28, width 14·3 = 42"),
    ("padchannels 2:1", "2 + 3 + 1 = 6"),
    ("split 2 of 3", "3/3 = 1"),
    ("shuffle 3", "3·1 channels, column by column"),
    ("depthwise k3 stride2", "⌊(14 + 0 − 3)/2⌋ + 1 = 6"),
    ("flatten; rbf 10", "588 → 10"),
]


@pytest.mark.parametrize(("text", "formula"), FORMULAS)
def test_formulas_have_the_numbers_filled_in(text: str, formula: str) -> None:
    assert size(parse(f"input 3x14x14; {text}")).rows[-1].formula == formula


BRANCHED = "input 3x16x16; a: conv 4 k3 pad1; residual { bn; relu; conv 4 k3 pad1 }; flatten"


def test_the_table_tells_what_a_join_reads() -> None:
    report = size(parse(BRANCHED))
    assert [row.inputs for row in report.rows if row.kind == "add"] == [("conv2", "a")]
    for width in (60, 80, 120):
        text = as_text(report, width)
        assert "conv2, a" in text
        assert max(map(len, text.splitlines())) <= width
    assert "| add1 | 4x16x16 | conv2, a | 4x16x16 + 4x16x16 |" in as_markdown(report)
    assert "| from |" not in as_markdown(size(parse("input 1x4x4; relu")))


def test_running_values_are_told_once_and_kept_out_of_the_lines_below() -> None:
    text = as_text(size(parse(BRANCHED)), 72)
    assert "Besides the parameters, bn keeps 8 running values, not trained." in text
    assert "unchanged" not in text


def test_json_tells_inputs_buffers_and_connections() -> None:
    document = json.loads(json.dumps(size(parse(BRANCHED)).as_json()))
    assert [layer["inputs"] for layer in document["layers"][-2:]] == [["conv2", "a"], ["add1"]]
    assert document["totals"]["buffers"] == 8
    assert document["totals"]["connections"] == sum(
        layer["connections"] for layer in document["layers"]
    )


LENET_1998 = """
input 1x32x32
conv 6 k5; subsample 2; tanh
partialconv 0,1,2/1,2,3/2,3,4/3,4,5/0,4,5/0,1,5/0,1,2,3/1,2,3,4/2,3,4,5/0,3,4,5/0,1,4,5/0,1,2,5/0,1,3,4/1,2,4,5/0,2,3,5/0,1,2,3,4,5 k5
subsample 2; tanh
conv 120 k5; tanh; flatten
linear 84; tanh
rbf 10
"""  # noqa: E501


def test_lenet_of_1998_counts_its_60000_parameters_and_340908_connections() -> None:
    report = size(parse(LENET_1998))
    rows = [row for row in report.rows if row.connections]
    assert [row.params for row in rows] == [156, 12, 1_516, 32, 48_120, 10_164, 0]
    assert [row.connections for row in rows] == [
        122_304, 5_880, 151_600, 2_000, 48_120, 10_164, 840,
    ]  # fmt: skip
    assert (report.totals.params, report.totals.connections) == (60_000, 340_908)
    assert "Connections as counted for LeNet-5 in 1998: 340,908." in as_text(report)


def test_statistics_of_ghosts_are_remarked() -> None:
    (remark,) = size(parse("input 3x8x8; bn ghost 16; bn")).remarks
    assert remark.startswith("bn1: ghost 16 takes the statistics of every 16 images: another")


def test_a_graph_without_lines_names_its_branches_all_the_same() -> None:
    image = Node("input", Input(3, 8, 8))
    conv = Node("c", Conv(3, (3, 3)), ("input",))
    with pytest.raises(SizeError, match=r"^net j: c is 3x6x6, input is 3x8x8, and add needs"):
        infer_shapes(Graph((image, conv, Node("j", Add(), ("c", "input")))))
