"""Activation memory of networks that branch: by hand, and against buffers taken one by one."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from lanewise.errors import SizeError
from lanewise.net.graph import Graph, Node
from lanewise.net.layers import Add, Concat, Input, MaxPool, ReLU
from lanewise.net.parse import parse
from lanewise.size.memory import peak_bytes, stored_bytes
from lanewise.size.shapes import infer_shapes


def test_memory_of_a_residual_by_hand() -> None:
    graph = parse("input 1x4x4; conv 2 k1; residual { conv 2 k1; relu; conv 2 k1 }; relu")
    shapes = infer_shapes(graph)
    # The sum takes the place of the body's result, the last relu that of the sum.
    assert stored_bytes(graph, shapes) == {
        "input": 64, "conv1": 128, "conv2": 128, "relu1": 0, "conv3": 128, "add1": 0, "relu2": 0,
    }  # fmt: skip
    assert peak_bytes(graph, shapes) == 3 * 128


def test_memory_of_a_concatenation_by_hand() -> None:
    graph = parse("input 2x4x4; concat { conv 1 k1 } { conv 3 k1 } { }; relu")
    shapes = infer_shapes(graph)
    assert list(stored_bytes(graph, shapes).values()) == [128, 64, 192, 64 * 6, 0]
    assert peak_bytes(graph, shapes) == 128 + 64 + 192 + 64 * 6


def test_a_pixel_s_place_is_too_small_for_the_product() -> None:
    graph = parse("input 2x4x4; conv 2 k1; x: relu; globalavg; multiply globalavg1 x")
    assert list(stored_bytes(graph, infer_shapes(graph)).values()) == [128, 128, 0, 8, 128]


@st.composite
def meshes(draw: st.DrawFn) -> Graph:
    """Any graph of maps of one size: values, joins and pools of window 1, read in any way."""
    nodes = [Node("input", Input(2, 3, 3))]
    for index in range(draw(st.integers(1, 12))):
        layer = draw(st.sampled_from([ReLU(), Add(), Concat(), MaxPool((1, 1), (1, 1))]))
        joins = isinstance(layer, Add | Concat)
        names = st.sampled_from([node.name for node in nodes])
        inputs = draw(st.lists(names, min_size=2, max_size=3)) if joins else [draw(names)]
        nodes.append(Node(f"n{index}", layer, tuple(inputs)))
    return Graph(tuple(nodes))


@given(meshes())
def test_memory_is_what_a_machine_with_buffers_would_need(graph: Graph) -> None:
    """Buffers are taken and given back one by one; nothing is read after it was overwritten."""
    try:
        shapes = infer_shapes(graph)
    except SizeError:
        assume(False)
    stored = stored_bytes(graph, shapes)
    steps = {node.name: step for step, node in enumerate(graph.nodes)}
    reads = {name: [steps[n.name] for n in graph.nodes if name in n.inputs] for name in steps}
    buffer: dict[str, str] = {}
    for node in graph.nodes:
        taken = not stored[node.name]
        buffer[node.name] = buffer[node.inputs[0]] if taken else node.name
        if taken:
            assert reads[node.inputs[0]] == [steps[node.name]]
            assert list(node.inputs).count(node.inputs[0]) == 1
            assert shapes[node.inputs[0]] == shapes[node.name]
    needed = []
    for step in range(len(graph.nodes)):
        alive = {
            buffer[name]
            for name, made in steps.items()
            if made <= step and (made == step or any(read >= step for read in reads[name]))
        }
        needed.append(sum(stored[name] for name in alive))
    assert peak_bytes(graph, shapes) == max(needed)
