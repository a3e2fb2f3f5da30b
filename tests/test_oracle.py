"""The oracle without the engine: it accepts honest float32 and objects to every spoiled tensor."""

from __future__ import annotations

import json

import numpy as np
import pytest

import lanewise.bridge
from lanewise.errors import LanewiseError
from lanewise.native.optimizers import SGD, AdamW
from lanewise.net.parse import parse

pytest.importorskip("torch", reason="the oracle needs PyTorch (extra `torch`)")

from lanewise.bridge.oracle import Trial, draw, judge
from lanewise.bridge.reference import Question, Reference
from lanewise.bridge.sums import EPSILON, Sum
from lanewise.bridge.updates import judge_updates
from lanewise.bridge.verdict import Comparison, Disagreement, Row
from small_nets import BATCH_NORMS, CHANNELS, FLAT_NORMS, GRAPHS, NETS, NORMS
from torch_engine import TorchEngine

NET = parse(
    "input 2x9x8; conv 4 k3 pad1; relu; maxpool 2; conv 3 k3 stride2 pad 1:0x0:1; tanh;"
    "avgpool 2 stride1 pad1; dropout 0.3; flatten; linear 5"
)
TENSORS = [
    "logits",
    "loss",
    "input.grad",
    "conv1.weight.grad",
    "conv1.bias.grad",
    "conv2.weight.grad",
    "conv2.bias.grad",
    "linear1.weight.grad",
    "linear1.bias.grad",
]


@pytest.mark.parametrize(
    "trial",
    [
        Trial(17),
        Trial(1, seed=3),
        Trial(33, pixels=True),
        Trial(2, training=False),
        Trial(5, label_smoothing=0.2),
    ],
)
def test_honest_float32_is_accepted(trial: Trial) -> None:
    rows = judge(TorchEngine(NET), NET, trial)
    assert [row.name for row in rows] == (TENSORS if trial.training else ["logits"])
    assert all(row.ok for row in rows), rows
    assert all(0 < row.tolerance < 1e-3 for row in rows), rows


GRAPH = parse(
    "input 2x9x8; conv 4 k3 pad1; bn; relu; residual { depthwise k3 pad1; bn ghost 16; gelu;"
    "conv 4 k1; stochasticdepth 0.3 }; concat { maxpool 2 } { avgpool 2; prelu };"
    "multiply { } { globalavg; conv 8 k1; hardsigmoid }; layernorm; spatialdropout 0.2; flatten;"
    "linear 5"
)


def test_graphs_norms_and_noise_are_judged_in_training_and_in_inference() -> None:
    engine = TorchEngine(GRAPH)
    rows = judge(engine, GRAPH, Trial(18))
    assert all(row.ok and 0 < row.tolerance < 1e-3 for row in rows), rows
    running = [f"bn{i}.running_{which}" for i in (1, 2) for which in ("mean", "var")]
    assert [row.name for row in rows if ".running" in row.name] == running
    assert "prelu1.weight.grad" in {row.name for row in rows}


@pytest.mark.parametrize("tensor", ["bn1.running_mean", "bn2.running_var", "bn1.weight.grad"])
@pytest.mark.parametrize("factor", [1.001, float("nan")])
def test_spoiled_statistics_are_named(tensor: str, factor: float) -> None:
    def spoil(name: str, values: np.ndarray) -> np.ndarray:
        return values * np.float32(factor) if name == tensor else values

    rows = judge(TorchEngine(GRAPH, spoil), GRAPH, Trial(18))
    assert [row.name for row in rows if not row.ok] == [tensor]


@pytest.mark.parametrize("name", [*NORMS, *CHANNELS, *GRAPHS, *BATCH_NORMS, *FLAT_NORMS])
def test_honest_float32_is_accepted_whatever_the_net(name: str) -> None:
    graph = parse(NETS[name], name)
    rows = judge(TorchEngine(graph), graph, Trial(18))
    assert all(row.ok for row in rows), rows
    assert all(0 < row.tolerance < 2e-3 for row in rows), rows


@pytest.mark.parametrize("seed", range(3))
def test_sums_of_a_few_pixels_are_no_ties(seed: int) -> None:
    """A mean of 0.5 would make a window of two opposite pixels 0, and rounding would decide."""
    graph = parse("input 8x3x9; sumpool 2x2 pad 1x0; relu; flatten")
    rows = judge(TorchEngine(graph), graph, Trial(17, seed, pixels=True))
    assert all(row.ok for row in rows), rows


def test_the_noise_of_inference_and_of_training_differ() -> None:
    """Running statistics are asked in the logits, those of the batch in the loss."""
    assert Question(GRAPH, {}, np.zeros((1, 2, 9, 8)), np.zeros(1)).directions == (False, True)
    assert Question(NET, {}, np.zeros((1, 2, 9, 8)), np.zeros(1)).differs_in_training
    plain = parse("input 1x2x2; flatten; linear 3")
    assert Question(plain, {}, np.zeros((1, 1, 2, 2)), np.zeros(1)).directions == (True,)


def largest_negated(values: np.ndarray) -> np.ndarray:
    spoiled = np.array(values).reshape(-1)
    spoiled[np.abs(spoiled).argmax()] *= -1
    return spoiled.reshape(values.shape)


def one_nan(values: np.ndarray) -> np.ndarray:
    spoiled = np.array(values).reshape(-1)
    spoiled[-1] = np.nan
    return spoiled.reshape(values.shape)


def slightly_scaled(values: np.ndarray) -> np.ndarray:
    return values * np.float32(1.001)


@pytest.mark.parametrize("tensor", TENSORS)
@pytest.mark.parametrize("spoil", [largest_negated, one_nan, slightly_scaled])
def test_every_spoiled_tensor_is_named(tensor: str, spoil) -> None:  # type: ignore[no-untyped-def]
    engine = TorchEngine(NET, lambda name, values: spoil(values) if name == tensor else values)
    rows = judge(engine, NET, Trial(4))
    assert [row.name for row in rows if not row.ok] == [tensor]


def test_a_wrong_shape_is_no_agreement_by_broadcasting() -> None:
    engine = TorchEngine(NET, lambda name, values: values[:1] if name == "logits" else values)
    with pytest.raises(Disagreement, match=r"logits: shape \(1, 5\), expected \(4, 5\)"):
        judge(engine, NET, Trial(4))


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(momentum=0.0, nesterov=False),
        SGD(momentum=0.9, nesterov=False, weight_decay=0.01),
        SGD(momentum=0.8, nesterov=True),
        AdamW(),
        AdamW(betas=(0.8, 0.95), weight_decay=0.1),
    ],
)
def test_updates_are_accepted_and_a_wrong_one_is_named(optimizer: SGD | AdamW) -> None:
    def rows(spoiled: str) -> list[Row]:
        def spoil(name: str, values: np.ndarray) -> np.ndarray:
            return slightly_scaled(values) if name == spoiled else values

        engine = TorchEngine(NET, spoil)
        engine.initialise(0)
        engine.start(optimizer)
        return judge_updates(engine, optimizer, *draw(NET, Trial(4), 0))

    assert all(row.ok for row in rows("")), rows("")
    assert "conv2.bias.step" in [row.name for row in rows("conv2.bias.step") if not row.ok]
    if isinstance(optimizer, AdamW):
        name = "linear1.weight.exp_avg_sq"
        assert [row.name for row in rows(name) if not row.ok] == [name]


def test_the_expected_error_of_a_sum() -> None:
    assert Sum(100, weight=0.5).natural(2.0) == pytest.approx(10.0)
    assert Sum(100, weight=0.5).error(2.0) == pytest.approx(EPSILON * 10 * 10)
    # Sequential float32 sums do behave so: measured over many sums of 400 products.
    random = np.random.default_rng(0)
    a, b = random.standard_normal((2, 2000, 400)).astype("f4")
    exact = (a.astype("f8") * b).sum(1)
    total = np.zeros(2000, "f4")
    for i in range(400):
        total += a[:, i] * b[:, i]
    measured = float(np.sqrt(np.mean((total - exact) ** 2)))
    assert measured < Sum(400).error(1.0) < 6 * measured


def test_a_large_mean_makes_a_norm_less_exact() -> None:
    """float32 keeps 24 bits of the mean; what the norm leaves of them is the tolerance."""
    graph = parse("input 2x4x4; bn; flatten")

    def tolerance(mean: float) -> float:
        images = np.random.default_rng(0).standard_normal((9, 2, 4, 4)) + mean
        weights = {"bn1.weight": np.ones(2), "bn1.bias": np.zeros(2)}
        tensor = Reference(Question(graph, weights, images, np.zeros(9))).tensors["input.grad"]
        return tensor.tolerance / tensor.size

    assert 20 * tolerance(0) < tolerance(300) < 1000 * tolerance(0)


def test_a_value_at_a_kink_shakes_the_answer() -> None:
    graph = parse("input 1x1x2; conv 1 k1 nobias; relu; flatten; linear 2")
    weights = {"linear1.weight": np.eye(2, dtype="f4"), "linear1.bias": np.zeros(2, "f4")}

    def steady(second: float) -> bool:
        images = np.array([[[[1.0, second]]]], "f4")
        kernel = {"conv1.weight": np.ones((1, 1, 1, 1), "f4")}
        question = Question(graph, weights | kernel, images, np.array([0]))
        return Reference(question).steady

    assert steady(-0.5) and steady(0.5)
    assert not steady(1e-9)


def test_the_table_and_the_document() -> None:
    rows = (Row("logits", 1.25e-7, 2e-6), Row("conv1.weight.grad", float("nan"), 3.5e-5))
    comparison = Comparison(NET, 17, 0, "host", rows)
    assert comparison.as_text().splitlines() == [
        "tensor               error  tolerance  verdict",
        "logits             1.2e-07    2.0e-06  ok",
        "conv1.weight.grad      nan    3.5e-05  DIFFERS",
    ]
    assert not comparison.ok
    document = json.loads(json.dumps(comparison.as_json()))
    assert document["tensors"][0] == {"name": "logits", "error": 1.25e-7, "tolerance": 2e-6}
    assert document["tensors"][1]["error"] is None


def test_without_torch_the_message_has_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LanewiseError, match=r"pip install 'lanewise\[torch\]'"):
        lanewise.bridge.require_torch()
