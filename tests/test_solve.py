"""Networks with `?`: every solution, in order, checked forward and counted by brute force."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lanewise.errors import NetError, SizeError
from lanewise.net.check import check
from lanewise.net.graph import Graph
from lanewise.net.parse import parse
from lanewise.net.show import show, show_layer
from lanewise.net.unknown import with_numbers
from lanewise.size.found import found_text, one_line
from lanewise.size.nearest import why_none
from lanewise.size.shapes import infer_shapes
from lanewise.size.solve import Unbounded, solve


def texts(net: str, most: int | None = None) -> list[str]:
    """The solutions as they are written, in their order."""
    graph = parse(net)
    return [found_text(graph, one) for one in solve(graph, most).first]


def brute(graph: Graph, most: int) -> int:
    """How many combinations of numbers up to `most` have the sizes that are wanted."""
    places = [(name, one) for name, found in graph.unknowns.items() for one in found]
    ranges = [range(0 if one.field_name == "pad" else 1, most + 1) for _, one in places]
    hits = 0
    for numbers in product(*ranges):
        chosen = dict(zip(places, numbers, strict=True))
        nodes = tuple(
            replace(
                node,
                layer=with_numbers(
                    node.layer, {one: chosen[node.name, one] for one in graph.unknowns[node.name]}
                ),
            )
            if node.name in graph.unknowns
            else node
            for node in graph.nodes
        )
        if any(_outside(node.layer) for node in nodes if node.name in graph.unknowns):
            continue
        try:
            infer_shapes(check(replace(graph, nodes=nodes)))
        except (NetError, SizeError):
            continue
        hits += 1
    return hits


def _outside(layer: object) -> bool:
    """Whether the solver does not look there: padding from the kernel on, kernels beyond 11."""
    pad, kernel = getattr(layer, "pad", None), getattr(layer, "kernel", None)
    if kernel is None:
        return False
    dilation = getattr(layer, "dilation", (1, 1))[0]
    reach = dilation * (max(kernel) - 1) + 1
    too_wide = reach > 11 or (reach == 1 < dilation)
    return too_wide or (isinstance(pad, tuple) and max(map(max, pad)) >= reach)


def test_the_stem_of_a_resnet_has_one_solution() -> None:
    found = solve(parse("input 3x224x224; conv 64 k7 stride ? pad ?; want 64x112x112"))
    assert found.count == 1
    assert one_line(found.first[0].graph) == (
        "input 3x224x224; conv 64 k7 stride2 pad3; want 64x112x112"
    )
    assert found.first[0].reasons["conv1"] == ("stride 2 halves", "same padding (7 − 1)/2")


@pytest.mark.parametrize(
    ("net", "first"),
    [
        ("input 3x224x224; conv 64 k? stride ? pad ?; want 64x112x112", "k3 stride2 pad1"),
        ("input 3x56x56; conv 64 k? pad ?; want 64x56x56", "k3 pad1"),
        ("input 3x28x28; maxpool ?; want 3x14x14", "maxpool 2"),
        ("input 3x112x112; maxpool 3 stride ? pad ?; want 3x56x56", "stride2 pad1"),
        ("input 3x224x224; conv 96 k? stride ?; want 96x56x56", "k4 stride4"),
        ("input 16x5x5; conv 120 k?; want 120x1x1", "k5"),
        ("input 3x7x7; conv 8 k3 dilation ? pad ?; want 8x7x7", "pad1 dilation1"),
        ("input 8x7x7; convtranspose 4 k? stride ? pad ?; want 4x14x14", "k2 stride2 pad0"),
        ("input 1x28x28; conv ? k5; want 6x24x24", "conv 6"),
        ("input 1x28x28; flatten; linear ?; relu; want 84", "linear 84"),
        ("input 4x9x9; concat { conv ? k1 } { conv 3 k1 } { }; want 12x9x9", "conv 5"),
        ("input 8x9x9; split 1 of 2; conv ? k1; padchannels 2:2; want 9x9x9", "conv 5"),
        ("input 1x9x9; conv ? k1; depthwise k1 multiplier 3; shuffle 6; want 12x9x9", "conv 4"),
        ("input 6x9x9; residual { conv 4 k3; relu; convtranspose ? k3 }", "convtranspose 6"),
        ("input 6x9x9; residual { conv 6 k3 pad ? }", "pad1"),
        ("input 6x9x9; multiply { } { globalavg; conv ? k1; sigmoid }", "conv 6"),
        ("input 1x28x28; conv ? k5; maxpool 2; flatten; want 864", "conv 6"),
    ],
)
def test_the_usual_solution_stands_first(net: str, first: str) -> None:
    assert texts(net)[0] == first


@pytest.mark.parametrize(
    "net",
    [
        "input 1x9x9; conv 1 k? stride ? pad ?; want 1x4x4",
        "input 1x9x7; conv 1 k?x? stride 2 pad 1; want 1x4x3",
        "input 1x7x7; conv 1 k? pad ?:?; relu; maxpool 2; want 1x3x3",
        "input 1x8x8; maxpool ? stride ? pad ? ceil; want 1x3x3",
        "input 1x8x8; conv 2 k?; conv ? k? stride ?; flatten; want 8",
        "input 2x6x6; conv ? k? stride ?; maxpool ?; flatten; want 8",
        "input 2x6x6; concat { conv ? k1 } { conv ? k1 stride ? }; want 5x6x6",
        "input 1x8x8; residual { conv 1 k? pad ?; conv 1 k? pad ? }; maxpool ? ; want 1x4x4",
        "input 1x5x5; conv 2 k3 stride ? pad ?; want 2x?x3; conv 2 k? ; want 2x2x?",
        "input 1x4x4; conv 4 k? groups 1 pad ? dilation ?; shuffle 2; want 4x4x4",
    ],
)
def test_counted_by_brute_force(net: str) -> None:
    graph = parse(net)
    found = solve(graph, None)
    most = 11 if len(graph.unknowns) == 1 else 5
    small = [
        one
        for one in found.first
        if all(n <= most for numbers in one.numbers.values() for n in numbers.values())
    ]
    assert found.count == len(found.first)
    assert len({one_line(one.graph) for one in found.first}) == found.count
    assert len(small) == brute(graph, most)
    assert small


def test_solutions_are_listed_in_one_order_whatever_is_listed() -> None:
    net = "input 1x12x12; conv 1 k? stride ? pad ?; conv 1 k? pad ?; want 1x4x4"
    everything = texts(net)
    assert texts(net, 7) == everything[:7]
    assert solve(parse(net), 1).count == len(everything) > 100


def test_a_solution_is_a_network_without_question_marks() -> None:
    found = solve(parse("input 3x8x8; a: conv ? k?; want 4x6x6"))
    (one,) = found.first
    assert not one.graph.unknowns
    assert parse(show(one.graph)) == one.graph
    assert show_layer(one.graph.node("a").layer) == "conv 4 k3"


@pytest.mark.parametrize(
    ("net", "told"),
    [
        ("input 3x8x8; conv ? k3", "every number from 1 fits"),
        ("input 3x8x8; conv ? k3; groupnorm 4; conv 6 k1 groups 3", "every multiple of 12 fits"),
        (
            "input 3x8x8; add { conv ? k1 } { conv ? k1 }",
            "every number from 1 that goes with conv2",
        ),
        ("input 3x8x8; concat { conv ? k1 } { }; shuffle 4", "1, 5, 9 … each fits"),
        ("input 3x8x8; flatten; linear ?", "nothing after it asks for its features"),
        ("input 3x8x8; conv 4 k7 stride ? pad ?", "⌊(8 + 2·p − 7)/s⌋ + 1 ≥ 1"),
        ("input 3x8x8; conv 4 k? pad same", "⌈8/1⌉ ≥ 1 (pad same, whatever the kernel)"),
        ("input 3x8x8; maxpool ? ceil; globalavg", "⌈(8 + 2·0 − k)/k⌉ + 1 ≥ 1"),
    ],
)
def test_infinitely_many_say_their_rule(net: str, told: str) -> None:
    with pytest.raises(Unbounded) as error:
        solve(parse(net))
    assert told in str(error.value)
    assert "want" in str(error.value)
    assert str(error.value).startswith("net:1 ")


@pytest.mark.parametrize(
    ("net", "told"),
    [
        (
            "input 3x224x224; conv 64 k7 stride ? pad ?; want 64x100x100",
            "net:1 conv1: no solution for want 64x100x100; "
            "nearest: 64x109x109 with stride2 pad0, 64x110x110 with stride2 pad1",
        ),
        (
            "input 3x8x8; conv 4 k4 pad ?; want 4x8x8",
            "no solution for want 4x8x8; with `pad ?:?` (the two ends apart) there is one: pad 1:2",
        ),
        (
            "input 3x8x16; conv 4 k3 pad 1 stride ?; want 4x4x4",
            "with `?x?` (height and width apart) there is one: stride 2x4",
        ),
        (
            "input 3x8x8; conv 4 k3; want 4x8x8; conv 5 k?; want 5x4x4",
            "want 4x8x8, but whatever stands for `?` the output is 4x6x6; change one of the two",
        ),
        (
            "input 3x8x8; conv 8 k3 pad ?; want 8x8x8; conv 8 k3; want 8x8x8",
            "no solution for want 8x8x8 together with want 8x8x8 of conv1; nearest: 8x6x6",
        ),
        ("input 3x8x8; conv ? k3; flatten; want 7", "nearest: 36 with conv 1"),
        ("input 3x8x8; conv 4 k? ; want 8", "nearest: 4x6x6 with k3"),
        ("input 3x8x8; conv 4 k?; flatten; conv 5 k?", "no number can stand for its `?`"),
    ],
)
def test_no_solution_says_what_is_nearest(net: str, told: str) -> None:
    graph = parse(net)
    assert solve(graph).count == 0
    assert told in str(why_none(graph))


def test_too_many_question_marks_are_refused() -> None:
    with pytest.raises(SizeError, match=r"65 layers with `\?` are too many"):
        solve(parse("input 1x9x9; 65 x { conv 1 k1 pad ? }; want 1x9x9"))


def test_what_is_impossible_for_a_radial_basis_is_no_solution() -> None:
    assert texts("input 3x1x1; flatten; rbf ?; want 8") == ["rbf 8"]
    assert texts("input 3x1x1; flatten; rbf ?; want 9") == []
    assert (
        texts("input 3x1x1; conv ? k1; flatten; rbf 9; want 9; concat flatten1 rbf1; want 12") == []
    )


@pytest.mark.parametrize("use", ["compile", "size"])
def test_other_uses_ask_to_solve_first(use: str) -> None:
    import lanewise as lw

    net = lw.Net("input 3x9x9; conv ? k3; want 4x7x7")
    with pytest.raises(NetError) as error:
        lw.compile(net) if use == "compile" else net.size()
    assert str(error.value) == (
        "net:1 conv1: `conv ? k3` has a `?`, a number to be found first; "
        '`lanewise size "input 3x9x9; conv ? k3; want 4x7x7"` lists what fits'
    )


def test_a_want_is_kept_and_checked() -> None:
    import lanewise as lw

    net = "input 3x9x9; conv 4 k3; want 4x?x7; flatten; want 196"
    assert lw.Net(net).size().totals.params == 112
    with pytest.raises(SizeError, match=r"net:1 relu1: want 4x7x8, but the output is 4x7x7"):
        lw.Net("input 3x9x9; conv 4 k3; relu; want 4x7x8").size()


PARTS = (
    "conv {a} k{b} stride {c} pad {d}",
    "conv {a} k3 pad {d}:1",
    "maxpool {b}",
    "avgpool {b} ceil stride {c}",
    "depthwise k{b} pad 1",
    "convtranspose {a} k{b} stride {c}",
    "residual { conv {a} k{b} pad {d} }",
    "concat { conv {a} k1 } { bn }",
    "upsample 2",
    "shuffle 2",
    "split 1 of 2",
    "relu",
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_what_was_a_network_is_found_again(data: st.DataObject) -> None:
    """Numbers of a network that has sizes become `?`: then there is a solution, or no end of them,
    and every one that is listed has the sizes that are wanted."""
    count = data.draw(st.integers(1, 3))
    texts = [data.draw(st.sampled_from(PARTS)) for _ in range(count)]
    written = "input 4x7x6"
    for part in texts:
        for name, numbers in (
            ("{a}", (2, 4)),
            ("{b}", (2, 3)),
            ("{c}", (1, 2)),
            ("{d}", (0, 1)),
        ):
            number = data.draw(st.sampled_from(numbers))
            part = part.replace(name, f"<{number}>" if data.draw(st.booleans()) else str(number))
        written += f"; {part}"
    text = written.replace("<", "").replace(">", "")
    open_text = re.sub(r"<\d>", "?", written)
    try:
        shapes = infer_shapes(parse(text))
    except (NetError, SizeError):
        return
    want = "x".join(map(str, list(shapes.values())[-1]))
    graph = parse(f"{open_text}; want {want}")
    if not graph.unknowns:
        return
    try:
        found = solve(graph, 5)
    except Unbounded:
        return
    assert found.count >= 1, (text, str(why_none(graph)))
    for one in found.first:
        assert list(infer_shapes(one.graph).values())[-1] == list(shapes.values())[-1]
