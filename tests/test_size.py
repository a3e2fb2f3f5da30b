"""The calculus of whole layers and networks: against PyTorch, by counting, and every refusal."""

from __future__ import annotations

import re
from dataclasses import replace
from math import prod

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chains import CONVS, PADS, PAIRS, pools
from lanewise.api import Net
from lanewise.errors import SizeError
from lanewise.net.graph import Graph, Node
from lanewise.net.layers import (
    AvgPool,
    Conv,
    DepthwiseConv,
    GlobalAvg,
    Input,
    Layer,
    MaxPool,
    Pool,
    ReLU,
    Sides,
)
from lanewise.net.load import load
from lanewise.net.parse import parse
from lanewise.net.show import show, show_layer
from lanewise.net.values import PAD, PAIR
from lanewise.size.cost import cost, parameter_shapes
from lanewise.size.field import infer_fields
from lanewise.size.memory import peak_bytes, stored_bytes
from lanewise.size.report import size
from lanewise.size.shapes import SHAPES, infer_shapes
from lanewise.size.windows import Windowed, resolve_window

DEPTHWISE = st.builds(DepthwiseConv, PAIRS, st.integers(1, 2), PAIRS, PADS, PAIRS)
IMAGES = st.tuples(st.integers(1, 6), st.integers(1, 14), st.integers(1, 14))


def refusal(text: str) -> str:
    with pytest.raises(SizeError) as caught:
        infer_shapes(parse(text, "n.net"))
    return str(caught.value)


REFUSED = [
    (
        "input 6x12x12\n\nconv2: conv 6 k15",
        "n.net:3 conv2: input 6x12x12, kernel 15 stride 1 pad 0 has no output position; "
        "use pad >= 2 or kernel <= 12",
    ),
    (
        "input 6x12x20; conv 6 k15 stride2",
        "n.net:1 conv1: input 6x12x20, kernel 15 stride 2 pad 0 has no output position; "
        "use pad >= 2x0 or kernel <= 12x15",
    ),
    (
        "input 6x2x2; conv 4 k3 dilation2 pad1",
        "n.net:1 conv1: input 6x2x2, kernel 3 dilation 2 stride 1 pad 1 has no output position; "
        "use pad >= 2 or kernel <= 2 or dilation <= 1",
    ),
    (
        "input 1x1x1; conv 3 k3 pad valid",
        "n.net:1 conv1: input 1x1x1, kernel 3 stride 1 pad valid has no output position; "
        "use pad >= 1 or kernel <= 1",
    ),
    (
        "input 3x4x4; maxpool 5",
        "n.net:1 maxpool1: input 3x4x4, window 5 stride 5 pad 0 has no output position; "
        "use pad >= 1 or window <= 4",
    ),
    (
        "input 1x2x2; avgpool 9 stride 2 ceil",
        "n.net:1 avgpool1: input 1x2x2, window 9 stride 2 pad 0 has no output position; "
        "use pad >= 3 or window <= 3",
    ),
    (
        "input 3x4x4; maxpool 3 pad 2",
        "n.net:1 maxpool1: pad 2 is more than half of the window 3; use pad <= 1 or window >= 4",
    ),
    (
        "input 3x4x4; sumpool 3x4 pad 0:2x1",
        "n.net:1 sumpool1: pad 0:2x1 is more than half of the window 3x4; "
        "use pad <= 1x2 or window >= 4",
    ),
    (
        "input 6x4x4; conv 4 k3 groups4",
        "n.net:1 conv1: input 6x4x4, 4 kernels: 4 groups do not divide the 6 channels of the "
        "input; use groups 1 or 2",
    ),
    (
        "input 6x4x4; conv 4 k3 groups3",
        "n.net:1 conv1: input 6x4x4, 4 kernels: 3 groups do not divide the 4 kernels; "
        "use groups 1 or 2",
    ),
    (
        "input 6x4x4; linear 10",
        "n.net:1 linear1: input 6x4x4 is not flat, and linear needs one row of features; "
        "put `flatten` before it",
    ),
    (
        "input 6x4x4; flatten; conv 4 k1",
        "n.net:1 conv1: input is 96 features, and conv needs feature maps "
        "(channels x height x width); put conv before `flatten`",
    ),
    (
        "input 6x4x4; flatten; maxpool 2",
        "n.net:1 maxpool1: input is 96 features, and maxpool needs feature maps "
        "(channels x height x width); put maxpool before `flatten`",
    ),
    (
        "input 6x4x4; flatten; globalavg",
        "n.net:1 globalavg1: input is 96 features, and globalavg needs feature maps "
        "(channels x height x width); put globalavg before `flatten`",
    ),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_what_cannot_exist_is_told_with_a_remedy(text: str, message: str) -> None:
    assert refusal(text) == message


def remedied(layer: Windowed, word: str, text: str, less: int = 0) -> Windowed:
    """The layer with one remedy of the message taken, or missed by `less` at each axis."""
    fields = vars(layer)
    if word == "pad":
        height, width = PAIR.read(text)
        sides: Sides = ((height - less,) * 2, (width - less,) * 2)
        return type(layer)(**{**fields, "pad": sides})
    field = "dilation" if word == "dilation" else "kernel"
    height, width = PAIR.read(text)
    return type(layer)(**{**fields, field: (height + less, width + less)})


@given(st.one_of(CONVS, DEPTHWISE, pools()), IMAGES)
def test_every_remedy_told_is_right(layer: Windowed, image: tuple[int, int, int]) -> None:
    if isinstance(layer, Conv):
        assume(image[0] % layer.groups == 0 and layer.kernels % layer.groups == 0)
    try:
        SHAPES[type(layer)](layer, image)
    except SizeError as error:
        remedies = re.findall(r"(pad|kernel|window|dilation) [<>]= (\d+(?:x\d+)?)", str(error))
        assert remedies
        for word, text in remedies:
            changed = remedied(layer, word, text)
            if "more than half" in str(error):
                assert all(max(side) <= k // 2 for side, k in half_rule(changed))
            else:
                assert min(SHAPES[type(layer)](changed, image)) >= 1


def half_rule(layer: Windowed) -> list[tuple[tuple[int, int], int]]:
    assert isinstance(layer.pad, tuple)
    return list(zip(layer.pad, layer.kernel, strict=True))


@given(st.integers(1, 12), st.integers(1, 30), st.integers(1, 5), st.integers(0, 3))
def test_remedies_are_the_least_change(n: int, kernel: int, stride: int, pad: int) -> None:
    layer = Conv(1, (kernel, kernel), (stride, stride), ((pad, pad), (pad, pad)))
    assume(n + 2 * pad < kernel)
    with pytest.raises(SizeError) as caught:
        resolve_window(layer, (1, n, n))
    for word, text in re.findall(r"(pad|kernel) [<>]= (\d+)", str(caught.value)):
        resolve_window(remedied(layer, word, text), (1, n, n))
        with pytest.raises(SizeError):
            resolve_window(remedied(layer, word, text, less=1), (1, n, n))


@given(CONVS, IMAGES)
def test_pytorch_agrees_on_convolutions(layer: Conv, image: tuple[int, int, int]) -> None:
    torch = pytest.importorskip("torch")
    # PyTorch has no `same` for larger strides, and takes asymmetric pads as a separate layer.
    pad = layer.pad
    assume(pad != "same" or layer.stride == (1, 1))
    values = torch.zeros(1, *image)
    if isinstance(pad, tuple):
        (top, bottom), (left, right) = pad
        values, pad = torch.nn.functional.pad(values, (left, right, top, bottom)), "valid"
    try:
        theirs = torch.nn.Conv2d(
            image[0], layer.kernels, layer.kernel, layer.stride, pad, layer.dilation,
            layer.groups, layer.bias,
        )  # fmt: skip
        out = theirs(values)
    except (RuntimeError, ValueError):
        with pytest.raises(SizeError):
            SHAPES[Conv](layer, image)
    else:
        assert SHAPES[Conv](layer, image) == tuple(out.shape[1:])
        spent = cost(layer, image)
        assert spent.params == sum(p.numel() for p in theirs.parameters())
        assert spent.macs == theirs.weight.numel() * prod(out.shape[2:])


@given(pools(), st.tuples(st.integers(0, 3), st.integers(0, 3)), IMAGES)
def test_pytorch_agrees_on_pools(
    drawn: Pool, pad: tuple[int, int], image: tuple[int, int, int]
) -> None:
    torch = pytest.importorskip("torch")
    layer = replace(drawn, pad=((pad[0],) * 2, (pad[1],) * 2))
    pool = torch.nn.functional.avg_pool2d
    if isinstance(layer, MaxPool):
        pool = torch.nn.functional.max_pool2d
    try:
        out = pool(torch.zeros(1, *image), layer.kernel, layer.stride, pad, ceil_mode=layer.ceil)
    except RuntimeError:
        with pytest.raises(SizeError):
            SHAPES[type(layer)](layer, image)
    else:
        assert SHAPES[type(layer)](layer, image) == tuple(out.shape[1:])


@given(CONVS, st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)))
def test_macs_on_padding_are_counted_one_by_one(layer: Conv, image: tuple[int, int, int]) -> None:
    assume(image[0] % layer.groups == 0 and layer.kernels % layer.groups == 0)
    try:
        window = resolve_window(layer, image)
    except SizeError:
        return
    real = 1
    for axis, n in enumerate(image[1:]):
        begin = window.pad[axis][0]
        places = (
            o * window.stride[axis] - begin + tap * window.dilation[axis]
            for o in range(window.out[axis])
            for tap in range(window.kernel[axis])
        )
        real *= sum(0 <= place < n for place in places)
    pairs = layer.kernels * (image[0] // layer.groups)
    spent = cost(layer, image)
    assert spent.macs - spent.padded_macs == pairs * real


def test_windows_in_numbers() -> None:
    window = resolve_window(Conv(4, (3, 4), (1, 2), "same", (2, 1)), (2, 10, 9))
    assert window.pad == ((2, 2), (1, 2))
    assert window.out == (10, 5)
    assert (window.kernel, window.stride, window.dilation) == ((3, 4), (1, 2), (2, 1))
    assert resolve_window(AvgPool((2, 2), (2, 2), "valid", True), (2, 5, 4)).out == (3, 2)


FORMULAS = [
    ("conv 6 k5 pad2", "⌊(28 + 4 − 5)/1⌋ + 1 = 28"),
    ("conv 6 k5 stride3 pad 0:1", "⌊(28 + 1 − 5)/3⌋ + 1 = 9"),
    ("conv 6 k5 dilation2", "⌊(28 + 0 − (2·4 + 1))/1⌋ + 1 = 20"),
    ("conv 6 k5 pad same stride2", "⌊(28 + 3 − 5)/2⌋ + 1 = 14"),
    ("conv 6 k3x5", "height ⌊(28 + 0 − 3)/1⌋ + 1 = 26, width ⌊(28 + 0 − 5)/1⌋ + 1 = 24"),
    ("maxpool 3 stride 2 ceil", "⌈(28 + 0 − 3)/2⌉ + 1 = 14"),
    ("maxpool 1 stride 4 ceil", "⌈(28 + 0 − 1)/4⌉ + 1 − 1 = 7"),
    ("globalavg", "28·28 values → 1"),
    ("flatten", "3·28·28 = 2352"),
    ("relu", "unchanged"),
]


@pytest.mark.parametrize(("text", "formula"), FORMULAS)
def test_formulas_have_the_numbers_filled_in(text: str, formula: str) -> None:
    assert Net(f"input 3x28x28; {text}").size().rows[1].formula == formula


def compute(formula: str) -> tuple[int, int]:
    """(value of the arithmetic, the number after the equals sign) of a window's formula."""
    left, right = formula.split(" = ")
    rounding = "-(-(" if left.startswith("⌈") else "(("
    python = re.sub(r"[⌊⌈](.*)/(\d+)[⌋⌉]", rf"{rounding}\1)//\2)", left)
    return eval(python.replace("−", "-").replace("·", "*")), int(right)


@given(st.one_of(CONVS, pools()), IMAGES)
def test_a_formula_computes_to_what_it_says(layer: Layer, image: tuple[int, int, int]) -> None:
    text = f"input {'x'.join(map(str, image))}\n{show_layer(layer)}"
    try:
        row = Net(text).size().rows[1]
    except SizeError:
        return
    formulas = re.sub("height |width ", "", row.formula).split(", ")
    if len(formulas) == 1:
        formulas *= 2
    for formula, out in zip(formulas, row.output[1:], strict=True):
        assert compute(formula) == (out, out)


def test_parameters_have_pytorch_names_and_shapes() -> None:
    graph = parse("input 4x8x8; conv 6 k3x5 groups2; c: conv 2 k1 nobias; flatten; linear 7")
    assert parameter_shapes(graph) == {
        "conv1.weight": (6, 2, 3, 5),
        "conv1.bias": (6,),
        "c.weight": (2, 6, 1, 1),
        "linear1.weight": (7, 2 * 6 * 4),
        "linear1.bias": (7,),
    }


@pytest.mark.parametrize("axis", [0, 1])
def test_the_receptive_field_is_what_gradients_reach(axis: int) -> None:
    """The pixels that one middle output value depends on, found by PyTorch's gradient."""
    torch = pytest.importorskip("torch")
    graph = parse(
        "input 1x60x61; conv 2 k3x2 stride 2x1 dilation 2x3; avgpool 3x2; conv 1 k2x3; sumpool 2x3"
    )
    shapes = infer_shapes(graph)
    image = torch.zeros(1, 1, 60, 61, requires_grad=True)
    values = torch.nn.functional.conv2d(
        image, torch.ones(2, 1, 3, 2), stride=(2, 1), dilation=(2, 3)
    )
    values = torch.nn.functional.avg_pool2d(values, (3, 2))
    values = torch.nn.functional.conv2d(values, torch.ones(1, 2, 2, 3))
    values = torch.nn.functional.avg_pool2d(values, (2, 3))
    assert tuple(values.shape[1:]) == shapes["sumpool1"]

    def reach(p: int, q: int) -> tuple[int, int]:
        (gradient,) = torch.autograd.grad(values[0, 0, p, q], image, retain_graph=True)
        touched = torch.nonzero(gradient[0, 0])[:, axis]
        return int(touched.min()), int(touched.max())

    first, last = reach(0, 0)
    field = infer_fields(graph, shapes)["sumpool1"]
    assert field.size[axis] == last - first + 1
    neighbour = reach(1, 0) if axis == 0 else reach(0, 1)
    assert field.jump[axis] == neighbour[0] - first


def test_global_and_full_connection_see_the_whole_map() -> None:
    rows = Net("input 1x9x7; conv 1 k3; globalavg; flatten; linear 2; linear 3").size().rows
    assert [row.receptive_field for row in rows] == [(1, 1), (3, 3)] + 4 * [(9, 7)]
    rows = Net("input 1x9x7; conv 1 k3 stride2; flatten; relu; linear 2; linear 3").size().rows
    assert [row.receptive_field for row in rows[2:]] == [(3, 3), (3, 3), (9, 7), (9, 7)]


def test_memory_by_hand() -> None:
    graph = parse("input 1x4x4; conv 3 k3; relu; conv 1 k1; flatten; linear 5")
    shapes = infer_shapes(graph)
    assert list(stored_bytes(graph, shapes).values()) == [64, 48, 0, 16, 0, 20]
    assert peak_bytes(graph, shapes) == 64 + 48
    assert peak_bytes(graph, shapes, batch=3) == 3 * (64 + 48)


def test_a_value_with_a_second_reader_stays_alive_and_is_not_overwritten() -> None:
    image = Node("input", Input(1, 4, 4))
    body = Node("a", Conv(2, (1, 1)), ("input",))
    graph = Graph((image, body, Node("b", ReLU(), ("a",)), Node("c", GlobalAvg(), ("a",))))
    shapes = infer_shapes(graph)
    assert list(stored_bytes(graph, shapes).values()) == [64, 128, 128, 8]
    assert peak_bytes(graph, shapes) == 128 + 128 + 0


def test_batch_multiplies_bytes_and_nothing_else() -> None:
    one, many = size(load("lenet5")), size(load("lenet5"), batch=7)
    assert many.totals.activations_bytes == 7 * one.totals.activations_bytes
    assert many.totals.peak_bytes == 7 * one.totals.peak_bytes
    assert (many.totals.params, many.totals.macs) == (one.totals.params, one.totals.macs)
    with pytest.raises(ValueError, match="batch is 0"):
        size(load("lenet5"), batch=0)


def test_sizes_are_exact_integers_however_large() -> None:
    net = Net("input 1000000x1000000x1000000; conv 1000000 k1; globalavg")
    assert net.size().totals.macs == 10**24


def test_layers_are_shown_as_they_are_written() -> None:
    graph = parse("input 1x9x9; conv 2 k3 pad 1:2x0:1")
    assert PAD.show(graph.output.layer.pad) == "1:2x0:1"  # type: ignore[attr-defined]
    assert show(graph).splitlines()[1] == "conv 2 k3 pad 1:2x0:1"
