"""`?` and `want` in the notation: read, refused, shown, and read again."""

from __future__ import annotations

import pytest

from lanewise.errors import NetError
from lanewise.net.check import check
from lanewise.net.graph import Graph, Node, Want
from lanewise.net.layers import Conv, Input
from lanewise.net.parse import parse
from lanewise.net.show import show
from lanewise.net.unknown import Unknown, unknowns_of, with_numbers


@pytest.mark.parametrize(
    "line",
    [
        "conv ? k3",
        "conv 64 k7 stride ? pad ?",
        "conv 3 k?x3 stride 1x? dilation ?x?",
        "conv 3 k3 pad ?:?",
        "conv 3 k3 pad ?x?",
        "conv 3 k3 pad 1:?x0:?",
        "conv 3 k3 pad ?:1x2",
        "maxpool ?",
        "maxpool ? stride ?",
        "maxpool ?x2 pad ?",
        "depthwise k? multiplier 2",
        "convtranspose ? k? stride ? pad ? outputpad ?",
        "partialconv 0,1/1,2 k?",
        "linear ?",
        "rbf ?",
        "relu\nwant 3x?x9",
        "relu\nwant ?x?x?\nwant 3x9x9",
        "flatten\nwant 400",
    ],
)
def test_there_and_back(line: str) -> None:
    graph = parse(f"input 3x9x9\n{line}\n")
    assert show(graph) == f"input 3x9x9\n{line}\n"
    assert parse(show(graph)) == graph


def test_one_question_mark_is_one_number() -> None:
    square, apart = (parse(f"input 3x9x9; conv 1 {k} pad 0").output.layer for k in ("k?", "k?x?"))
    assert unknowns_of(square) == (Unknown("kernel"),)
    assert unknowns_of(apart) == (Unknown("kernel", 0), Unknown("kernel", 1))
    assert with_numbers(square, {Unknown("kernel"): 5}) == Conv(1, (5, 5))
    assert len(unknowns_of(parse("input 3x9x9; conv 1 k3 pad ?").output.layer)) == 1
    assert len(unknowns_of(parse("input 3x9x9; conv 1 k3 pad ?:?x?:?").output.layer)) == 4


def test_the_stride_of_a_pool_is_its_kernel_unless_it_is_said() -> None:
    assert unknowns_of(parse("input 3x9x9; maxpool ?").output.layer) == (Unknown("kernel"),)
    both = unknowns_of(parse("input 3x9x9; maxpool ? stride ?").output.layer)
    assert both == (Unknown("kernel"), Unknown("stride"))


def test_wants_follow_their_layer_wherever_it_is_written() -> None:
    graph = parse(
        "parameters c=4; block b { conv c k3 pad1; want (c)x?x9; relu }; input 4x9x9;"
        "residual { b }; want 4x9x9; 2 x { b }"
    )
    assert graph.wants == (
        Want("conv1", (4, None, 9)),
        Want("add1", (4, 9, 9)),
        Want("conv2", (4, None, 9)),
        Want("conv3", (4, None, 9)),
    )
    assert graph.wants[0].within == (("b", 1),)
    assert parse(show(graph)) == graph
    loud = parse("INPUT 4x9x9; WANT 4X9X9")
    assert loud.wants == (Want("input", (4, 9, 9)),)


def test_graphs_with_other_wants_are_other_graphs() -> None:
    assert parse("input 3x9x9; relu; want 3x9x9") != parse("input 3x9x9; relu")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("input 3x?x9", "net:1 input: shape `3x?x9`; use channels x height x width"),
        ("input 3x9x9; lrn ?", "net:1 lrn1: `?` cannot stand for size; it stands for kernels"),
        ("input 3x9x9; conv 3 k3 groups ?", "`?` cannot stand for groups"),
        ("input 3x9x9; depthwise k3 multiplier ?", "`?` cannot stand for multiplier"),
        ("input 3x9x9; split ? of 3", "`?` cannot stand for part"),
        ("input 3x9x9; dropout ?", "rate `?`; use a number like 0.5"),
        ("input 3x9x9; conv 3 k0x?", "net:1 conv1: kernel is 0x1; use 1 or more"),
        ("input 3x9x9; conv 3 k3 pad ??", "pad `??`"),
        ("input 3x9x9; conv 3 k?+1", "k `?+1`"),
        ("want 3x9x9", "`want` follows the layer whose shape it says"),
        ("input 3x9x9; a: want 3x9x9", "without name or braces"),
        ("input 3x9x9; want", "net:1: write one shape, `want 64x112x112` or `want 400`"),
        ("input 3x9x9; want 3 9 9", "write one shape"),
        ("input 3x9x9; want 3x9", "net:1: want `3x9`; use channels x height x width like"),
        ("input 3x9x9; want 0x9x9", "net:1 input: want 0x9x9: 0 is no size; use 1 to 1,000,000"),
        (
            "input 3x9x9\nwant 3x9x9\nwant 3x?x8",
            "net:3 input: want 3x?x8 contradicts want 3x9x9 in line 2 of the same layer; keep one",
        ),
        ("input 3x9x9; flatten; want 243; want 243x1x1", "contradicts want 243"),
        ("block want { relu }; input 3x9x9", "cannot be called `want`, which is a word"),
    ],
)
def test_what_is_refused(text: str, told: str) -> None:
    with pytest.raises(NetError) as error:
        parse(text)
    assert told in str(error.value)


def test_a_want_of_no_layer_is_refused() -> None:
    with pytest.raises(NetError, match="wants a size of 'conv9', which is no layer"):
        check(Graph((Node("input", Input(1, 2, 2)),), wants=(Want("conv9", (1, 2, 2)),)))


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("conv k3", ["kernels"]),
        ("conv", ["kernels", "kernel"]),
        ("conv 6 pad1", ["kernel"]),
        ("maxpool", ["kernel"]),
        ("linear nobias", ["features"]),
    ],
)
def test_forgotten_numbers_are_question_marks_where_that_is_wanted(
    line: str, fields: list[str]
) -> None:
    graph = parse(f"input 3x9x9; {line}", forgiving=True)
    found = graph.unknowns[graph.output.name]
    assert [one.field_name for one in found] == fields
    assert all(one.forgotten for one in found)
    with pytest.raises(NetError, match="needs"):
        parse(f"input 3x9x9; {line}")


@pytest.mark.parametrize("line", ["lrn", "shuffle", "adaptiveavg", "split 1"])
def test_what_cannot_be_found_is_not_forgiven(line: str) -> None:
    with pytest.raises(NetError, match="needs"):
        parse(f"input 3x9x9; {line}", forgiving=True)
