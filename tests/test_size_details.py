"""What a size table never says, each counted once more by brute force."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lanewise.cli import main as cli
from lanewise.errors import SizeError
from lanewise.net.graph import Graph
from lanewise.net.layers import AvgPool, Conv, Foreign, Input
from lanewise.net.load import load
from lanewise.net.parse import parse
from lanewise.size.axis import Axis
from lanewise.size.conventions import CONVENTIONS, TORCH, Convention
from lanewise.size.coverage import infer_coverage
from lanewise.size.details import as_text, details
from lanewise.size.inputs import infer_inputs
from lanewise.size.reading import read
from lanewise.size.report import size
from lanewise.size.shapes import infer_shapes
from lanewise.size.windows import Windowed, resolve_window

AXES = st.builds(
    Axis,
    n=st.integers(1, 18),
    kernel=st.integers(1, 6),
    stride=st.integers(1, 6),
    begin=st.integers(0, 4),
    end=st.integers(0, 4),
    dilation=st.integers(1, 3),
    ceil=st.booleans(),
)


@given(AXES)
def test_rows_that_are_read_and_windows_without_padding(axis: Axis) -> None:
    reads = [list(read) for read in axis.reads]
    assert axis.read == len({at for read in reads for at in read if 0 <= at < axis.n})
    assert axis.inner == sum(all(0 <= at < axis.n for at in read) for read in reads)


# ---- padding and unused pixels -------------------------------------------------------------------

BODIES = [
    "conv 1 k3 pad1; avgpool 2; conv 1 k3 stride2",
    "conv 1 k4 stride3 pad 2:1x0:2; avgpool 3 stride2",
    "conv 1 k1 stride2; conv 1 k3 pad1 dilation2; avgpool 2 stride3",
    "residual { conv 1 k3 pad1; conv 1 k3 pad1 }; avgpool 3 stride2 pad1",
    "residual { conv 1 k3 stride2 pad1 } { conv 1 k1 stride2 }; conv 1 k2",
    "concat { conv 1 k1 } { conv 1 k5 pad2 } { avgpool 3 stride1 pad1 }; conv 1 k3 stride3",
    "avgpool 2; conv 1 k3 pad1; upsample 2; conv 1 k2 stride3",
    "avgpool 2 stride3; conv 1 k3 pad1; upsample 3x2 bilinear; conv 1 k2 stride2",
    "conv 1 k3 stride2 pad1; convtranspose 1 k3 stride2 pad1; conv 1 k2 stride2",
    "conv 1 k3 pad1; adaptiveavg 5x3; conv 1 k2",
    "multiply { } { avgpool 2 stride4; conv 1 k3 pad1; globalavg }; conv 1 k3 stride3",
    "conv 1 k2 stride3; flatten; linear 3",
]


def values(graph: Graph, image: Any, padding: float) -> Any:
    """All maps of a network with weights one, the padding of every window being this number."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    found = {graph.nodes[0].name: image}
    for node in graph.nodes[1:]:
        layer, (x, *others) = node.layer, [found[name] for name in node.inputs]
        word = layer.word
        if isinstance(layer, Conv | AvgPool):
            assert isinstance(layer.pad, tuple)
            (top, bottom), (left, right) = layer.pad
            x = functional.pad(x, (left, right, top, bottom), value=padding)
            weight = torch.ones(1, x.shape[1], *layer.kernel, dtype=x.dtype)
            dilation = layer.dilation if isinstance(layer, Conv) else 1
            found[node.name] = functional.conv2d(x, weight, None, layer.stride, 0, dilation)
        elif word == "convtranspose":
            weight = torch.ones(1, 1, *layer.kernel, dtype=x.dtype)  # type: ignore[attr-defined]
            pad = (layer.pad[0][0], layer.pad[1][0])  # type: ignore[attr-defined]
            found[node.name] = functional.conv_transpose2d(x, weight, None, layer.stride, pad)  # type: ignore[attr-defined]
        elif word == "upsample":
            mode = "bilinear" if layer.bilinear else "nearest"  # type: ignore[attr-defined]
            found[node.name] = functional.interpolate(x, scale_factor=layer.scale, mode=mode)  # type: ignore[attr-defined]
        else:
            found[node.name] = {
                "adaptiveavg": lambda x: functional.adaptive_avg_pool2d(x, layer.size),  # type: ignore[attr-defined]  # noqa: B023
                "globalavg": lambda x: x.mean((2, 3), keepdim=True),
                "add": lambda x, y: x + y,
                "multiply": lambda x, y: x * y,
                "concat": lambda *xs: torch.cat(xs, 1),
                "flatten": lambda x: x.flatten(1),
                "linear": lambda x: x.sum(1, keepdim=True),
            }[word](x, *others)
    return found


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("image", ["1x17x13", "1x24x20"])
def test_padding_spreads_as_nan_does(body: str, image: str) -> None:
    torch = pytest.importorskip("torch")
    graph = parse(f"input {image}; {body}")
    shapes = infer_shapes(graph)
    coverage = infer_coverage(graph, shapes)
    picture = torch.rand(1, *shapes["input"], dtype=torch.float64) + 1
    picture.requires_grad_()
    seen = values(graph, picture, float("nan"))
    for name, covered in coverage.items():
        clean = ~seen[name].isnan().any(1)[0]
        assert int(clean.sum()) == covered.inner[0] * covered.inner[1], name
    output = values(graph, picture, 0.0)[graph.output.name].sum()
    (gradient,) = torch.autograd.grad(output, picture)
    used = gradient[0, 0] != 0
    rows, columns = int((~used.any(1)).sum()), int((~used.any(0)).sum())
    assert coverage["input"].unused == (rows, columns)


def test_a_strided_1x1_leaves_three_quarters() -> None:
    report = size(parse("input 1x8x8; conv 1 k1 stride2"))
    assert report.rows[1].unread == (4, 4)
    assert report.rows[1].padded_outputs == 0
    report = size(parse("input 1x5x6; maxpool 2"))
    assert report.rows[1].unread == (1, 0)
    report = size(parse("input 1x6x6; conv 1 k3 pad1"))
    assert report.rows[1].padded_outputs == 36 - 16


# ---- images --------------------------------------------------------------------------------------

#: As torchvision documents them, and counted here for others.
SMALLEST = {
    "alexnet": 63,
    "squeezenet1-0": 21,
    "squeezenet1-1": 17,
    "googlenet": 15,
    "inception-v3": 75,
    "vgg16": 32,
    "resnet18": 1,
    "lenet5": 12,
}


@pytest.mark.parametrize("name", SMALLEST)
def test_the_smallest_image(name: str) -> None:
    graph = load(name)
    heights, widths = infer_inputs(graph)
    assert heights == widths
    assert heights.smallest == SMALLEST[name]
    if heights.smallest > 1:
        first = graph.nodes[0].layer
        assert isinstance(first, Input)
        less = heights.smallest - 1
        with pytest.raises(SizeError):
            infer_shapes(graph.with_input(Input(first.channels, less, less)))


TEXTS = [
    "conv 2 k3 stride2 pad1; maxpool 3 stride2; conv 2 k2",
    "conv 2 k3x2 stride 2x3; maxpool 3 stride2 ceil; conv 1 k2",
    "conv 2 k5 stride2 pad same; avgpool 2; conv 1 k3",
    "x: conv 2 k3 pad1; maxpool 2; maxpool 2; upsample 4; concat upsample1 x",
    "residual { conv 3 k3 pad1 stride2; convtranspose 3 k2 stride2 }; adaptiveavg 3",
    "conv 2 k3 dilation2; convtranspose 2 k2 stride2 pad1; maxpool 5 stride3 pad1 ceil",
    "conv 4 k3 stride2; flatten; rbf 100",
]


def legal(graph: Graph, rule: Convention, height: int, width: int) -> Graph | None:
    try:
        found = read(graph.with_input(Input(3, height, width)), rule)
        infer_shapes(found)
    except SizeError:
        return None
    return found


def exact(graph: Graph, written: Graph, axis: int) -> bool:
    """By the resolved windows; where the text says `same`, by the size they move over."""
    shapes = infer_shapes(graph)
    for node, before in zip(graph.nodes, written.nodes, strict=True):
        if isinstance(node.layer, Windowed):
            assert isinstance(before.layer, Windowed)
            moves = resolve_window(node.layer, shapes[node.inputs[0]]).axes[axis]
            if before.layer.pad == "same":
                divides = moves.n % moves.stride == 0
            else:
                divides = moves.unread == moves.overhang == 0
            if not divides:
                return False
        if node.layer.word == "adaptiveavg":
            whole = shapes[node.inputs[0]][1 + axis] % shapes[node.name][1 + axis] == 0
            if not whole:
                return False
    return True


@pytest.mark.parametrize("body", TEXTS)
@pytest.mark.parametrize("name", ["torch", "onnx-lower"])
def test_sizes_by_trying_them_all(body: str, name: str) -> None:
    rule = CONVENTIONS[name]
    graph = parse(f"input 3x48x48; {body}")
    found = infer_inputs(graph, rule)
    least = [sizes.smallest for sizes in found]
    assert legal(graph, rule, *least)
    for axis in (0, 1):
        tries = {n: legal(graph, rule, *((n, 48) if axis == 0 else (48, n))) for n in range(1, 49)}
        fits = [n for n, one in tries.items() if one]
        if "rbf" not in body:
            assert min(fits) == found[axis].smallest
        even = [n for n, one in tries.items() if one and exact(one, graph, axis)]
        assert [n for n in found[axis].exact if n <= 48] == even[: len(found[axis].exact)]
        beside = found[axis].beside(40)
        assert [n for n in even if n <= 40][-1:] == [n for n in beside if n <= 40][-1:]


def test_features_that_tell_outputs_apart_need_an_image_of_their_own_size() -> None:
    heights, widths = infer_inputs(parse("input 3x48x48; conv 4 k3 stride2; flatten; rbf 100"))
    # 100 codes need 7 features: 4 maps of one pixel are too few, of 3 × 3 → 1 or 5 × 5 → 2 pixels.
    assert (heights.smallest, widths.smallest) == (5, 5)


# ---- receptive fields ----------------------------------------------------------------------------


def bottlenecks(count: int, channels: int, last: int) -> str:
    """As in TF-Slim: the stride in the last unit of a block, its padding explicit."""
    plain = "residual { conv 4 k1; conv 4 k3 pad1; conv 4 k1 };"
    body = f"conv 4 k1; conv 4 k3 pad1 stride{last}; conv 4 k1"
    strided = f"residual {{ {body} }} {{ maxpool 1 stride{last} }};"
    return f"{count - 1} x {{ {plain} }}; {strided if last > 1 else plain} "


def slim_resnet(*counts: int) -> str:
    blocks = [bottlenecks(n, 4, last) for n, last in zip(counts, (2, 2, 2, 1), strict=True)]
    root = "input 4x224x224; conv 4 k7 stride2 pad3; maxpool 3 stride2 pad same"
    return f"{root}; {' '.join(blocks)}"


SLIM_ALEXNET = (
    "input 3x224x224; conv 4 k11 stride4; maxpool 3 stride2; conv 4 k5 pad same; "
    "maxpool 3 stride2; 3 x { conv 4 k3 pad same }; maxpool 3 stride2"
)
# text → field, stride, padding of google-research/receptive_field.
PUBLISHED = {
    "alexnet_v2": (SLIM_ALEXNET, (195, 32, 64)),
    "vgg_16": ("vgg16", (212, 32, 90)),
    "mobilenet_v1": ("mobilenet-v1", (315, 32, 126)),
    "resnet_v1_50": (slim_resnet(3, 4, 6, 3), (483, 32, 239)),
    "resnet_v1_101": (slim_resnet(3, 4, 23, 3), (1027, 32, 511)),
    "resnet_v1_152": (slim_resnet(3, 8, 36, 3), (1507, 32, 751)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_fields_strides_and_paddings_as_published(name: str) -> None:
    text, (field, stride, padding) = PUBLISHED[name]
    # The residual networks pad with numbers, the others by TensorFlow's rule.
    rule = CONVENTIONS["torch" if "resnet" in name else "keras"]
    report = size(read(load(text), rule))
    last = [row for row in report.rows if len(row.output) == 3 and row.kind != "globalavg"][-1]
    assert (last.receptive_field, last.jump) == ((field,) * 2, (stride,) * 2)
    # The field's first pixel lies this far before the image's.
    assert (last.receptive_field[0] - 1) / 2 - last.centre[0] == padding


def test_inception_s_field_grows_through_its_branches() -> None:
    report = size(load("inception-v3"))
    last = [row for row in report.rows if row.kind == "concat"][-1]
    assert (last.receptive_field, last.jump) == ((1311, 1311), (32, 32))
    assert (1311 - 1) / 2 - last.centre[0] == 618


def test_branches_that_look_at_different_places_are_told() -> None:
    # With TensorFlow's padding a strided 3×3 lies one pixel off the 1×1 of its shortcut.
    told = details(load("resnet18"), CONVENTIONS["keras"])
    assert told.apart == {"add3": (4, 4), "add5": (8, 8), "add7": (16, 16)}
    assert details(load("resnet18")).apart == {}


# ---- on screen -----------------------------------------------------------------------------------


def test_on_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(("size", "squeezenet1-0", "--details")) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.split("\n"))) <= 80
    assert "Smallest image: 21x21." in shown
    assert "224 does not divide exactly in every layer; 211 and 227 do" in shown
    assert "does not depend on 1 row and 1 column of the image" in shown
    assert cli.main(("size", "squeezenet1-0", "--details", "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["image"]["height"] == {
        "smallest": 21,
        "exact": [35, 51, 67, 83],
        "exact_every": 16,
        "exact_beside": [211, 227],
    }
    assert document["image"]["unused"] == [1, 1]
    assert document["layers"][0]["unread"] == [1, 1]
    assert document["memory"]["training"]["bytes"] > document["memory"]["inference"]["bytes"]
    assert cli.main(("size", "lenet5", "--details", "--markdown")) == 2


def test_nobody_knows_what_a_foreign_layer_makes_of_another_image() -> None:
    nodes = parse("input 1x6x6; conv 2 k3 pad1; relu").nodes
    foreign = replace(nodes[2], layer=Foreign("cumsum", (2, 6, 6)))
    told = details(Graph((*nodes[:2], foreign)))
    assert told.inputs is None
    assert told.as_json()["image"] == {"unused": [0, 0], "height": None, "width": None}
    assert told.coverage["relu1"].padded_share == 1
    assert "Smallest" not in as_text(told)


def test_features_alone_have_no_rows_to_tell() -> None:
    text = as_text(details(parse("input 1x1x4; flatten; linear 3"), TORCH))
    assert "Smallest image: 1x1." in text
