"""The bridge itself: torch modules against values worked out by hand, and sizes against `size`."""

from __future__ import annotations

import numpy as np
import pytest

from lanewise.errors import LanewiseError, NetError
from lanewise.net.graph import Graph, Node
from lanewise.net.layers import KINDS, Conv, Input, ReLU
from lanewise.net.parse import parse
from lanewise.size.shapes import infer_shapes

torch = pytest.importorskip("torch", reason="the bridge needs PyTorch (extra `torch`)")

from lanewise.bridge.torch_module import RULES, copy_weights, to_torch  # noqa: E402


def run(text: str, image: list[list[float]]) -> list[list[float]]:
    """One gray image through a net without weights."""
    out = to_torch(parse(text))(torch.tensor(image, dtype=torch.float64)[None, None])
    return [[round(value, 4) for value in row] for row in out[0, 0].tolist()]


def grid(height: int, width: int) -> list[list[float]]:
    """1, 2, 3, … row by row."""
    return np.arange(1.0, height * width + 1).reshape(height, width).tolist()


def test_every_kind_has_a_rule() -> None:
    assert set(RULES) == set(KINDS)


def test_average_pool_counts_padding_but_nothing_beyond_it() -> None:
    # The vector of pytorch issue 183528.
    out = run("input 1x4x4; avgpool 3 stride2 pad1 ceil", grid(4, 4))
    assert out == [[1.5556, 3.3333, 2.0], [6.3333, 11.0, 6.0], [4.5, 7.5, 4.0]]


def test_pads_that_differ_follow_the_same_rule_by_hand() -> None:
    # One zero above, none below, ceil: the windows are (0 1), (2 3) and (4 and nothing).
    image = grid(4, 1)
    assert run("input 1x4x1; sumpool 2x1 stride 2x1 pad 1:0x0:0 ceil", image) == [[1], [5], [4]]
    assert run("input 1x4x1; avgpool 2x1 stride 2x1 pad 1:0x0:0 ceil", image) == [[0.5], [2.5], [4]]
    assert run("input 1x4x1; maxpool 2x1 stride 2x1 pad 1:0x0:0 ceil", image) == [[1], [3], [4]]
    # Without ceil the last row stays unread.
    assert run("input 1x4x1; sumpool 2x1 stride 2x1 pad 1:0x0:0", image) == [[1], [5]]
    # The mean's divisor is clipped at the padded end: 4 + one zero, of a window of three.
    assert run("input 1x4x1; avgpool 3x1 stride 3x1 pad 0:1x0:0 ceil", image) == [[2.0], [2.0]]


@pytest.mark.parametrize("kind", ["maxpool", "avgpool", "sumpool"])
@pytest.mark.parametrize("window", ["3 stride2 pad1 ceil", "3x2 stride 3x1 pad 1x1", "2 pad1 ceil"])
def test_explicit_padding_equals_torchs_own(
    kind: str, window: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The road for uneven pads, taken with even ones, must agree with torch's layer."""
    text = f"input 2x7x6; {kind} {window}"
    image = torch.randn(3, 2, 7, 6, dtype=torch.float64)
    torchs = to_torch(parse(text))(image)
    monkeypatch.setattr("lanewise.bridge.rules.windows.even", lambda window: False)
    torch.testing.assert_close(to_torch(parse(text))(image), torchs)


def test_asymmetric_convolution_by_hand() -> None:
    model = to_torch(parse("input 1x1x3; conv 1 k 1x2 pad 0:0x0:1 nobias")).double()
    copy_weights({"conv1.weight": np.array([[[[1.0, 10.0]]]])}, model)
    out = model(torch.tensor([[[[1.0, 2.0, 3.0]]]], dtype=torch.float64))
    assert out.tolist() == [[[[21.0, 32.0, 3.0]]]]


def test_global_pools_by_hand() -> None:
    image = grid(2, 3)
    assert run("input 1x2x3; globalmax", image) == [[6]]
    assert run("input 1x2x3; globalavg", image) == [[3.5]]
    assert run("input 1x2x3; globalsum", image) == [[21]]


def test_the_first_maximum_takes_the_gradient() -> None:
    image = torch.zeros(1, 1, 2, 2, requires_grad=True)
    to_torch(parse("input 1x2x2; maxpool 2"))(image).sum().backward()
    assert image.grad.flatten().tolist() == [1, 0, 0, 0]


def test_dropout_takes_the_given_mask() -> None:
    graph = parse("input 1x1x4; dropout 0.5")
    masks = {"dropout1": torch.tensor([0.0, 2.0, 2.0, 0.0]).reshape(1, 1, 1, 4)}
    model = to_torch(graph, dropout_mask=masks.__getitem__)
    assert model(torch.ones(1, 1, 1, 4)).flatten().tolist() == [0, 2, 2, 0]
    assert to_torch(graph).eval()(torch.ones(1, 1, 1, 4)).flatten().tolist() == [1, 1, 1, 1]


def test_every_value_has_the_size_that_size_says() -> None:
    graph = parse(
        "input 3x13x10; conv 4 k3 stride2 pad same; relu; conv 6 k 3x2 dilation 2x1 groups2 "
        "pad 2x1; leakyrelu 0.2; maxpool 3 stride2 pad1 ceil; avgpool 2 stride1 pad 1:0x0:1; tanh;"
        "sumpool 2 stride 2x1 ceil; sigmoid; dropout; globalavg; flatten; linear 5 nobias"
    )
    seen = {}

    def watch(name, value):  # type: ignore[no-untyped-def]
        seen[name] = tuple(value.shape[1:])
        return value

    to_torch(graph, watch=watch)(torch.zeros(2, 3, 13, 10))
    assert seen == infer_shapes(graph)


def test_any_order_of_layers_not_only_chains() -> None:
    graph = Graph(
        (
            Node("input", Input(1, 2, 2)),
            Node("left", Conv(1, (1, 1)), ("input",)),
            Node("right", ReLU(), ("input",)),
            Node("last", ReLU(), ("left",)),
        )
    )
    model = to_torch(graph)
    assert set(model.state_dict()) == {"left.weight", "left.bias"}
    assert model(torch.zeros(1, 1, 2, 2)).shape == (1, 1, 2, 2)


def test_weights_go_both_ways_by_name() -> None:
    model = to_torch(parse("input 1x3x3; conv 2 k2; flatten; linear 3"))
    arrays = {name: np.zeros(value.shape, "f4") for name, value in model.state_dict().items()}
    assert set(arrays) == {"conv1.weight", "conv1.bias", "linear1.weight", "linear1.bias"}
    copy_weights(model, arrays)
    assert np.array_equal(arrays["linear1.weight"], model.linear1.weight.detach().numpy())
    arrays["conv1.bias"][:] = 7
    copy_weights(arrays, model)
    assert model.conv1.bias.tolist() == [7, 7]


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({}, "missing linear1.bias, linear1.weight"),
        ({"linear1.weight": (3, 2), "linear1.bias": (3,)}, r"\(3, 2\), the target has \(2, 3\)"),
        ({"linear1.weight": (2, 3), "linear1.bias": (2,), "more": (1,)}, "not in the target more"),
    ],
)
def test_weights_that_do_not_fit_are_named(weights: dict, words: str) -> None:
    model = to_torch(parse("input 1x1x3; flatten; linear 2"))
    before = model.linear1.weight.tolist()
    with pytest.raises(LanewiseError, match=words):
        copy_weights({name: np.zeros(shape, "f4") for name, shape in weights.items()}, model)
    assert model.linear1.weight.tolist() == before


def test_a_name_that_torch_needs_itself() -> None:
    with pytest.raises(NetError, match="layer train: torch"):
        to_torch(parse("input 1x2x2; train: conv 1 k1"))
