"""ONNX files as Lanewise's networks: what we wrote comes back, what others wrote is understood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lanewise.bridge.importing.onnx_file import import_file, read_model
from lanewise.bridge.networks import graph_of, own_graph
from lanewise.bridge.round_trip import agreement, drawn_weights, gathered, onnx_called
from lanewise.cli.main import main
from lanewise.errors import NetError
from lanewise.net.layers import Foreign, Input
from lanewise.net.parse import parse
from lanewise.ship.onnx_model import to_onnx
from lanewise.size.report import size
from small_nets import NETS

# Layers that ONNX has no operator for: they become several, which are other layers here.
SEVERAL = {"rbf", "l2pool", "subsample", "adaptivemax", "adaptiveavg"}
# A mean over ceil's last window, which ONNX's runtimes divide differently; a pad that ceil became
# and that is more than half of the window; an even number of neighbours.
OTHERS = {
    "maxpool: ceil",
    "avgpool: ceil",
    "sumpool: ceil",
    "relu under an uneven pool",
    "lrn of an even size, and larger than the channels",
    "lrn of several vectors of channels",
}


def saved(model: onnx.ModelProto, folder: Path) -> str:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return str(path)


def weights_of(path: str, sources: Any, graph: Any) -> dict[str, np.ndarray]:
    model = read_model(path, weights=True)
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return gathered(graph, sources, held)


@pytest.mark.parametrize("name", NETS)
def test_what_we_write_comes_back(name: str, tmp_path: Path) -> None:
    graph = parse(NETS[name], name)
    model = to_onnx(graph, drawn_weights(graph))
    path = saved(model, tmp_path)
    found = import_file(path)
    foreign = [node for node in found.graph.nodes if isinstance(node.layer, Foreign)]
    if foreign:
        assert SEVERAL & {node.layer.word for node in graph.nodes} or name in OTHERS, foreign
        return
    weights = weights_of(path, found.weights, found.graph)
    assert agreement(found.graph, weights, onnx_called(model)).error < 2e-5
    assert size(found.graph).totals.macs >= size(graph).totals.macs


def made(
    operators: list[onnx.NodeProto],
    image: list[Any],
    weights: dict[str, Any],
    domains: tuple[str, ...] = (),
) -> onnx.ModelProto:
    """A model as other programs write it; the last operator gives the result."""
    tensors = [numpy_helper.from_array(np.asarray(v), name) for name, v in weights.items()]
    graph = helper.make_graph(
        operators,
        "made",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info(operators[-1].output[0], TensorProto.FLOAT, None)],
        tensors,
    )
    sets = [helper.make_opsetid(domain, 1) for domain in domains]
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), *sets])


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype("f4")


def from_elsewhere(batch: Any = "N", side: Any = 6) -> onnx.ModelProto:
    """As PyTorch's and Keras' exporters write a net: shapes computed, products and sums apart."""
    return made(
        [
            helper.make_node("Conv", ["image", "w"], ["c"], "block/conv", auto_pad="SAME_LOWER"),
            helper.make_node("Add", ["c", "b"], ["d"]),
            helper.make_node("Sigmoid", ["d"], ["g"]),
            helper.make_node("Mul", ["d", "g"], ["e"]),
            helper.make_node("Shape", ["e"], ["shape"]),
            helper.make_node("Gather", ["shape", "zero"], ["count"]),
            helper.make_node("Unsqueeze", ["count", "axis"], ["first"]),
            helper.make_node("Concat", ["first", "minus"], ["wanted"], axis=0),
            helper.make_node("Reshape", ["e", "wanted"], ["flat"]),
            helper.make_node("MatMul", ["flat", "m"], ["product"], "dense"),
            helper.make_node("Add", ["product", "n"], ["result"]),
        ],
        [batch, 2, side, side],
        {
            "w": random(4, 2, 2, 2),
            "b": random(1, 4, 1, 1),
            "m": random(144, 3),
            "n": random(3),
            "zero": np.array(0),
            "axis": np.array([0]),
            "minus": np.array([-1]),
        },
    )


@pytest.mark.parametrize("batch", ["N", 1, 2, 3])
def test_what_others_write(batch: Any, tmp_path: Path) -> None:
    model = from_elsewhere(batch)
    path = saved(model, tmp_path)
    found = import_file(path)
    words = [node.layer.word for node in found.graph.nodes]
    assert words == ["input", "conv", "silu", "flatten", "linear"]
    assert [node.name for node in found.graph.nodes][1] == "conv1"
    assert size(found.graph).totals.params == 32 + 4 + 144 * 3 + 3
    weights = weights_of(path, found.weights, found.graph)
    assert agreement(found.graph, weights, onnx_called(model)).error < 1e-6
    assert own_graph(path).output.layer == found.graph.output.layer


def test_open_axes_need_an_image(tmp_path: Path) -> None:
    path = saved(from_elsewhere("N", "side"), tmp_path)
    with pytest.raises(NetError, match=r"the image image is 2xsidexside.*add --input 2x224x224"):
        graph_of(path)
    graph = graph_of(path, Input(2, 6, 6))
    assert size(graph).totals.params == 32 + 4 + 144 * 3 + 3
    fixed = saved(from_elsewhere(), tmp_path)
    with pytest.raises(NetError, match="is made for images of 2x6x6, not 2x7x7"):
        graph_of(fixed, Input(2, 7, 7))


def test_operators_without_a_layer_are_sized_and_marked(tmp_path: Path) -> None:
    model = made(
        [
            helper.make_node("Conv", ["image", "w"], ["c"]),
            helper.make_node("Softplus", ["c"], ["s"]),
            helper.make_node("Flatten", ["s"], ["f"]),
            helper.make_node("Softmax", ["f"], ["p"]),
        ],
        ["N", 1, 4, 4],
        {"w": random(3, 1, 2, 2)},
    )
    path = saved(model, tmp_path)
    report = size(graph_of(path))
    assert [(row.kind, row.output) for row in report.rows[2:]] == [
        ("foreign", (3, 3, 3)),
        ("flatten", (27,)),
        ("foreign", (27,)),
    ]
    with pytest.raises(NetError, match="Softplus1: Softplus is no layer of Lanewise"):
        own_graph(path)


def test_weights_in_another_file(tmp_path: Path) -> None:
    graph = parse("input 1x8x8; conv 64 k3; flatten; linear 10")
    model = to_onnx(graph, drawn_weights(graph))
    path = str(tmp_path / "model.onnx")
    onnx.save(model, path, save_as_external_data=True, location="model.data", size_threshold=100)
    assert size(graph_of(path)).totals.params == size(graph).totals.params
    (tmp_path / "model.data").write_bytes(b"short")
    with pytest.raises(NetError, match=r"its weights in other files cannot be read \(.*weight"):
        read_model(path, weights=True)
    (tmp_path / "model.data").unlink()
    with pytest.raises(NetError, match=r"weight stands in model\.data, which is missing; put that"):
        graph_of(path)


def _bad(name: str, folder: Path) -> str:
    if name == "nothing":
        return str(folder / "nowhere.onnx")
    if name in ("text", "empty"):
        (folder / "bad.onnx").write_text("Dear Sir or Madam" if name == "text" else "")
        return str(folder / "bad.onnx")
    if name == "operator":
        one = helper.make_node("Fancy", ["image"], ["r"], "step", domain="my.company")
        return saved(made([one], [1, 1, 4, 4], {}, ("my.company",)), folder)
    if name == "misspelt":
        one = helper.make_node("Convolve", ["image"], ["r"])
        return saved(made([one], [1, 1, 4, 4], {}), folder)
    if name == "weightless":
        one = helper.make_node("Conv", ["image", "w"], ["r"])
        return saved(made([one], [1, 1, 4, 4], {}), folder)
    if name == "rank":
        return saved(made([helper.make_node("Relu", ["image"], ["r"])], [1, 4], {}), folder)
    return saved(
        made(
            [helper.make_node("Conv", ["image", "w"], ["r"])],
            [1, 2, 4, 4],
            {"w": random(1, 3, 2, 2)},
        ),
        folder,
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "no such file"),
        ("text", "is no ONNX model"),
        ("empty", "is no ONNX model"),
        ("operator", "operator Fancy of my.company (step) is not one of ONNX's"),
        ("misspelt", "operator Convolve (unnamed) is not one of ONNX's in opset 17"),
        ("weightless", "Conv r reads w, which nothing in the model makes; export it again"),
        ("rank", "image is 1x4; images are N x C x H x W"),
        ("shapes", "its shapes do not fit"),
    ],
)
def test_bad_files_get_one_message(
    name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _bad(name, tmp_path)
    assert main(["size", path, "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err and "Traceback" not in err
    assert err.startswith(f"lanewise: {path}: ")
