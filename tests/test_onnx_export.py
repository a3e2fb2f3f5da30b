"""Every kind of layer as ONNX: ONNX Runtime and the format's own evaluator compute what we do."""

from __future__ import annotations

import numpy as np
import pytest

from lanewise.bridge.round_trip import agreement, drawn_weights, onnx_called
from lanewise.errors import LanewiseError
from lanewise.net.parse import parse
from lanewise.ship.onnx_model import to_onnx
from small_nets import NETS


@pytest.mark.parametrize("name", NETS)
def test_values(name: str) -> None:
    graph = parse(NETS[name], name)
    weights = drawn_weights(graph)
    model = to_onnx(graph, weights)
    assert agreement(graph, weights, onnx_called(model)).error < 2e-5


def test_the_text_is_in_the_model_and_any_number_of_images_goes_in() -> None:
    graph = parse("input 1x4x4; conv 2 k3; relu; flatten; linear 3")
    model = to_onnx(graph, drawn_weights(graph))
    assert {p.key: p.value for p in model.metadata_props}["lanewise.net"].startswith("input 1x4x4")
    run = onnx_called(model)
    assert [run(np.zeros((n, 1, 4, 4), np.float32)).shape for n in (1, 7)] == [(1, 3), (7, 3)]


def test_weights_must_fit() -> None:
    graph = parse("input 1x1x3; flatten; linear 2")
    with pytest.raises(LanewiseError, match=r"linear1\.weight is missing"):
        to_onnx(graph, {})
    with pytest.raises(LanewiseError, match=r"\(3, 2\), the network has \(2, 3\)"):
        to_onnx(graph, {"linear1.weight": np.zeros((3, 2)), "linear1.bias": np.zeros(2)})
