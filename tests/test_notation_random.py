"""Random texts: graphs there and back, and never anything but a NetError."""

from __future__ import annotations

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lanewise.errors import NetError
from lanewise.net.check import check
from lanewise.net.expression import ExpressionError, evaluate
from lanewise.net.graph import Graph, Node
from lanewise.net.layers import Input, Join, Layer
from lanewise.net.load import read_text
from lanewise.net.parse import parse
from lanewise.net.show import default_name, show, show_layer
from structured import EVERY_LAYER, structured

PIECES = ("block ", " x {", "from ", "residual {", "add a b", "wide ", "²", "\x00")
SLOW = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)


@given(EVERY_LAYER)
def test_any_layer_there_and_back(layer: Layer) -> None:
    assert parse(f"input 1x8x8; {show_layer(layer)}").output.layer == layer


@SLOW
@given(structured())
def test_structure_unfolds_to_a_graph_whose_text_gives_it_back(text: str) -> None:
    try:
        graph = parse(text)
    except NetError as error:  # a body of nothing beside an empty branch
        assume(" twice; " not in str(error))
        raise
    flat = show(graph)
    assert "{" not in flat
    assert parse(flat) == graph
    assert show(parse(flat)) == flat
    loud = parse(text.upper())
    assert [node.layer for node in loud.nodes] == [node.layer for node in graph.nodes]


@st.composite
def dags(draw: st.DrawFn) -> Graph:
    """Any graph: every layer reads layers before it, the last joins what nobody reads."""
    nodes = [Node("input", Input(3, 9, 9))]
    ordinals: dict[str, int] = {}

    def add(layer: Layer, *inputs: str) -> None:
        word = layer.word
        ordinals[word] = ordinals.get(word, 0) + 1
        own = (
            f"My_{len(nodes)}" if draw(st.booleans()) else default_name(type(layer), ordinals[word])
        )
        nodes.append(Node(own, layer, inputs))

    for _ in range(draw(st.integers(1, 8))):
        names = [node.name for node in nodes]
        if len(names) > 1 and draw(st.booleans()):
            chosen = draw(st.lists(st.sampled_from(names), min_size=2, max_size=4, unique=True))
            add(draw(st.sampled_from(Join.__subclasses__()))(), *chosen)
        else:
            add(draw(EVERY_LAYER), draw(st.sampled_from(names)))
    read = {name for node in nodes for name in node.inputs}
    ends = [node.name for node in nodes if node.name not in read]
    if len(ends) > 1:
        add(Join.__subclasses__()[2](), *ends)
    return Graph(tuple(nodes))


@SLOW
@given(dags())
def test_any_graph_there_and_back(graph: Graph) -> None:
    assert parse(show(check(graph))) == graph


@SLOW
@given(structured(), st.data())
def test_a_damaged_text_is_a_network_or_an_error_with_a_place(
    text: str, data: st.DataObject
) -> None:
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(begin, min(len(text), begin + 8)))
        piece = data.draw(
            st.one_of(
                st.text(alphabet="{};:#=x()*/-+.,k019 n\n", max_size=3),
                st.sampled_from(
                    ["block ", " x {", "from ", "residual {", "add a b", "wide ", "²", "\x00"]
                ),
            )
        )
        text = text[:begin] + piece + text[end:]
    try:
        graph = parse(text, "any.net")
    except NetError as error:
        assert str(error).startswith("any.net:")
        assert "\n" not in str(error)
    else:
        assert parse(show(graph)) == graph


PARTS = ("k", "w", "n", "(", ")", "max(", "pick(", "ceil(", "round8(", *"0123456789.e_+-*/%<>=!,")


@given(st.lists(st.sampled_from(PARTS), max_size=16).map("".join))
def test_any_expression_is_a_number_or_an_expression_error(text: str) -> None:
    try:
        number = evaluate(text, {"k": 3, "w": 0.5, "n": 0})
    except ExpressionError:
        return
    assert isinstance(number, int | float)
    assert abs(number) <= 1e15


@given(st.integers(0, 9), st.integers(0, 9), st.floats(0.1, 9), st.sampled_from("+-*/%<>"))
def test_expressions_are_arithmetic(a: int, b: int, w: float, sign: str) -> None:
    for text in (f"a{sign}b+w", f"(a{sign}b)*2-w/4", f"-a{sign}max(b,1)//2", f"a-b{sign}(w)"):
        names = {"a": a, "b": b, "w": w}
        try:
            wanted = eval(text, {"max": max}, names)
        except ZeroDivisionError:
            continue
        assert evaluate(text, names) == wanted


@given(st.text(max_size=30))
def test_any_name_of_a_network_is_one_or_an_error(text: str) -> None:
    try:
        read_text(text.replace("/", " "))
    except NetError as error:
        assert str(error)
