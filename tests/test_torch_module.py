"""The bridge itself: torch modules against values worked out by hand, and sizes against `size`."""

from __future__ import annotations

import numpy as np
import pytest

from lanewise.errors import LanewiseError, NetError
from lanewise.net.graph import Graph, Node
from lanewise.net.layers import KINDS, Conv, Input, ReLU
from lanewise.net.parse import parse
from lanewise.size.cost import buffer_shapes, parameter_shapes
from lanewise.size.shapes import infer_shapes
from small_nets import NETS

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


@pytest.mark.parametrize("name", NETS)
def test_every_value_and_parameter_has_the_size_that_size_says(name: str) -> None:
    graph = parse(NETS[name], name)
    seen = {}

    def watch(name, value):  # type: ignore[no-untyped-def]
        seen[name] = tuple(value.shape[1:])
        return value

    model = to_torch(graph, watch=watch)
    shapes = infer_shapes(graph)
    model(torch.zeros(5, *shapes["input"]))
    assert seen == shapes
    found = {name: tuple(value.shape) for name, value in model.named_parameters()}
    assert found == parameter_shapes(graph)
    kept = {name for name in model.state_dict() if name not in found}
    assert {n for n in kept if not n.endswith("batches_tracked")} == set(buffer_shapes(graph))


def gradient_of(text: str, image: list[list[float]]) -> list[list[float]]:
    """The gradient of the sum of a net's values."""
    x = torch.tensor(image, dtype=torch.float64)[None, None].requires_grad_()
    to_torch(parse(text)).double()(x).sum().backward()
    assert x.grad is not None
    return x.grad[0, 0].tolist()


def test_l2_pool_by_hand() -> None:
    assert run("input 1x2x4; l2pool 2", [[3, 0, 0, 0], [4, 0, 0, 0]]) == [[5, 0]]
    gradient = gradient_of("input 1x2x4; l2pool 2", [[3, 0, 0, 0], [4, 0, 0, 0]])
    np.testing.assert_allclose(gradient, [[0.6, 0, 0, 0], [0.8, 0, 0, 0]])


def test_subsample_by_hand() -> None:
    model = to_torch(parse("input 2x2x2; subsample 2")).double()
    weights = {"subsample1.weight": np.array([2.0, -1]), "subsample1.bias": np.array([0.5, 0])}
    copy_weights(weights, model)
    assert model(torch.ones(1, 2, 2, 2).double()).flatten().tolist() == [8.5, -4]


def test_partial_convolution_by_hand() -> None:
    """Connections in the order of the table: kernel 0 reads map 1, kernel 1 maps 0 and 2."""
    model = to_torch(parse("input 3x1x1; partialconv 1/0,2 k1 nobias")).double()
    weight = np.array([10.0, 100.0, 1000.0]).reshape(3, 1, 1)
    copy_weights({"partialconv1.weight": weight}, model)
    x = torch.tensor([1.0, 2.0, 3.0]).double().reshape(1, 3, 1, 1)
    assert model(x).flatten().tolist() == [20, 3100]


def test_transposed_convolution_by_hand() -> None:
    """1 2 against (1 10 100) with stride 2: 1 10 102 20 200, cut on the left, longer by a bias."""
    text = "input 1x1x2; convtranspose 1 k 1x3 stride 1x2 pad 0x{} outputpad 0x{}"
    kernel = np.array([1.0, 10, 100]).reshape(1, 1, 1, 3)
    for pad, more, wanted in (("0:0", 0, [1, 10, 102, 20, 200]), ("1:0", 1, [10, 102, 20, 200, 0])):
        model = to_torch(parse(text.format(pad, more))).double()
        weights = {"convtranspose1.weight": kernel, "convtranspose1.bias": np.array([0.25])}
        copy_weights(weights, model)
        out = model(torch.tensor([[[[1.0, 2.0]]]]).double())
        assert out.flatten().tolist() == [value + 0.25 for value in wanted]


def test_channels_by_hand() -> None:
    def channels(text: str, values: list[float]) -> list[float]:
        graph = parse(f"input {len(values)}x1x1; {text}")
        return to_torch(graph)(torch.tensor(values).reshape(1, -1, 1, 1)).flatten().tolist()

    assert channels("shuffle 2", [0, 1, 2, 3, 4, 5]) == [0, 3, 1, 4, 2, 5]
    assert channels("split 2 of 3", [0, 1, 2, 3, 4, 5]) == [2, 3]
    assert channels("padchannels 1:2", [7, 8]) == [0, 7, 8, 0, 0]
    assert channels("concat { split 2 of 2 } { split 1 of 2; relu }", [1, 2]) == [2, 1]
    assert channels("y: relu; add input y", [-1, 2]) == [-1, 4]
    assert channels("residual { relu }; multiply { } { relu6 }", [-1, 2]) == [0, 16]


@pytest.mark.parametrize("scale", range(1, 9))
def test_upsampling_repeats_each_pixel(scale: int) -> None:
    image = torch.randn(2, 3, 5, 7)
    wanted = image.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    assert torch.equal(to_torch(parse(f"input 3x5x7; upsample {scale}"))(image), wanted)


def test_bilinear_upsampling_by_hand() -> None:
    assert run("input 1x1x2; upsample 1x2 bilinear", [[0, 4]]) == [[0, 1, 3, 4]]


def test_norms_by_hand() -> None:
    def normed(text: str, values: list[list[float]]) -> list[list[float]]:
        """Images of channels of one pixel."""
        x = torch.tensor(values, dtype=torch.float64)[..., None, None]
        model = to_torch(parse(f"input {len(values[0])}x1x1; {text}")).double()
        rows = model(x).flatten(1).tolist()
        return [[round(value, 3) for value in row] for row in rows]

    values = [[0.0, 2.0, 5.0, 9.0], [2.0, 6.0, 5.0, 5.0]]
    assert normed("layernorm eps 0.0000000001", values)[0] == [-1.18, -0.59, 0.295, 1.474]
    assert normed("groupnorm 2 eps 0.0000000001", values)[0] == [-1, 1, -1, 1]
    assert normed("bn eps 0.0000000001", values) == [[-1, -1, 0, 1], [1, 1, 0, -1]]
    # Two neighbours on the left, one on the right: 4 / (1 + 8/4·(0 + 4 + 25))
    assert normed("lrn 4 alpha 8 beta 1 k 1", values)[0][1] == round(2 / 59, 3)


def test_ghosts_and_their_running_statistics() -> None:
    """Two groups: of 16 images of 0 and 2, and of 2 images of 10 and 20."""
    model = to_torch(parse("input 1x1x1; bn ghost 16 momentum 0.5 noaffine")).double()
    values = torch.tensor([0.0, 2.0] * 8 + [10.0, 20.0], dtype=torch.float64)
    out = model.train()(values.reshape(18, 1, 1, 1)).flatten()
    torch.testing.assert_close(
        out[[0, 1, 16, 17]], torch.tensor([-1.0, 1, -1, 1]).double(), rtol=0, atol=1e-5
    )
    assert model.bn1.running_mean.item() == pytest.approx(0.5 * 0 + 0.5 * (1 + 15) / 2)
    variances = (16 / 15 * 1, 2 * 25)
    assert model.bn1.running_var.item() == pytest.approx(0.5 + 0.5 * sum(variances) / 2)
    assert int(model.bn1.num_batches_tracked) == 1


@pytest.mark.parametrize("word", ["dropout", "spatialdropout", "stochasticdepth"])
def test_noise_of_torch_itself(word: str) -> None:
    torch.manual_seed(0)
    model = to_torch(parse(f"input 8x2x2; {word} 0.5"))
    ones = torch.ones(40, 8, 2, 2)
    out = model.train()(ones)
    assert set(out.unique().tolist()) == {0, 2}
    same = {"dropout": (40, 8, 4), "spatialdropout": (40, 8), "stochasticdepth": (40,)}[word]
    assert all(len(group.unique()) == 1 for group in out.reshape(np.prod(same), -1))
    assert torch.equal(model.eval()(ones), ones)


def test_radial_functions_of_a_digit() -> None:
    from lanewise.net.codes import radial_codes

    codes = torch.tensor(radial_codes(10, 84), dtype=torch.float32)
    out = to_torch(parse("input 84x1x1; flatten; rbf 10"))(codes.reshape(10, 84, 1, 1))
    assert out.diagonal().abs().max() == 0
    assert out.max() == 0 and (out == 0).sum() == 10
    assert not to_torch(parse("input 84x1x1; flatten; rbf 10")).state_dict()


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


def test_running_statistics_go_both_ways() -> None:
    model = to_torch(parse("input 2x3x3; bn; flatten; linear 3"))
    names = {"bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"}
    names |= {"linear1.weight", "linear1.bias"}
    arrays = {name: model.state_dict()[name].numpy() + 1 for name in names}
    copy_weights(arrays, model)
    assert model.bn1.running_var.tolist() == [2, 2]
    model.bn1.running_mean += 4
    copy_weights(model, arrays)
    assert arrays["bn1.running_mean"].tolist() == [5, 5]
    assert set(arrays) == names


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
