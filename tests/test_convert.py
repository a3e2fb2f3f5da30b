"""A network as text, as PyTorch source, as ONNX, and back: the same values each time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

import lanewise as lw
from lanewise.bridge.networks import own_graph
from lanewise.bridge.round_trip import (
    Agreement,
    agreement,
    called,
    drawn_weights,
    load_arrays,
    onnx_called,
)
from lanewise.bridge.source import class_name, to_source
from lanewise.cli.main import main
from lanewise.errors import LanewiseError, NetError
from lanewise.net.layers import Foreign, Input
from lanewise.net.load import load
from lanewise.net.parse import parse
from lanewise.net.show import show
from lanewise.ship.convert import Weighted, convert, executed, open_weighted
from lanewise.ship.onnx_model import to_onnx
from lanewise.size.report import size
from small_nets import NETS
from test_import_torch import FILE, IMAGES, NOT_BACK


@pytest.mark.parametrize("name", NETS)
def test_source_computes_the_same(name: str) -> None:
    graph = parse(NETS[name], "net")
    text = to_source(graph)
    assert max(map(len, text.splitlines())) <= 100
    weights = drawn_weights(graph)
    module = executed(text, class_name(graph))
    load_arrays(module, weights)
    assert agreement(graph, weights, called(module)).error < 1e-6


@pytest.mark.parametrize("name", [name for name in NETS if name not in NOT_BACK])
def test_source_is_read_again(name: str, tmp_path: Path) -> None:
    graph = parse(NETS[name], "net")
    path = tmp_path / "net.py"
    path.write_text(to_source(graph), encoding="utf-8")
    shape = "x".join(map(str, size(graph).input))
    back = own_graph(f"{path} input={shape}")
    assert not any(isinstance(node.layer, Foreign) for node in back.nodes)
    weights = drawn_weights(graph)
    module = executed(path.read_text(encoding="utf-8"), "Net")
    load_arrays(module, weights)
    assert set(drawn_weights(back)) == set(weights), "layers keep their names"
    assert agreement(back, weights, called(module)).error < 1e-6


@pytest.mark.parametrize("name", ["lenet5", "lenet5-1998", "squeezenet1_1", "mobilenet-v3-small"])
def test_the_zoo_as_source(name: str, tmp_path: Path) -> None:
    """Exactly what was written comes back, but for the words of depthwise convolutions."""
    graph = load(name)
    path = tmp_path / "net.py"
    path.write_text(to_source(graph), encoding="utf-8")
    shape = "x".join(map(str, size(graph).input))
    back = own_graph(f"{path}:{class_name(graph)} input={shape}")
    assert size(back).totals.params == size(graph).totals.params
    assert size(back).totals.macs == size(graph).totals.macs
    assert [row.output for row in size(back).rows] == [row.output for row in size(graph).rows]


def test_source_is_plain() -> None:
    text = to_source(parse("input 1x8x8; conv 4 k3 nobias; relu; flatten; linear 3", "my-net.net"))
    assert "class MyNet(nn.Module):" in text
    assert "self.conv1 = nn.Conv2d(1, 4, 3, bias=False)\n" in text
    assert "        x = self.flatten1(x)  # 144\n" in text
    assert text.count("import") == 2


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("suffix", [".net", ".py", ".onnx"])
def test_modules_go_everywhere(name: str, suffix: str) -> None:
    network = open_weighted(f"{FILE}:{name}", Input(*IMAGES[name]))
    found = convert(network, suffix)
    assert found.agreement.error < 1e-5
    assert (found.weights is not None) == (suffix == ".py")
    if suffix == ".onnx":
        run = onnx_called(onnx.load_from_string(found.content))
        assert network.run is not None and network.weights is not None
        images = np.ones((2, *IMAGES[name]), np.float32)
        assert np.allclose(run(images), network.run(images), atol=1e-4)


def test_what_does_not_agree_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = parse("input 1x4x4; conv 2 k3; flatten")
    weights = drawn_weights(graph)
    broken = Weighted(graph, weights, "", lambda images: np.zeros((len(images), 8), np.float32))
    with pytest.raises(NetError, match="computes something else than its layers do"):
        convert(broken, ".net")
    monkeypatch.setattr("lanewise.ship.convert.agreement", lambda *_: Agreement(0.5))
    with pytest.raises(LanewiseError, match=r"as \.net it computes something else.*nothing was"):
        convert(Weighted(graph), ".net")


def test_the_command_line_there_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "input 2x9x9\nconv 4 k3 pad1 nobias\nbn\nrelu\nmaxpool 2\nflatten\nlinear 5\n"
    Path("small.net").write_text(text)
    for source, out in (("small.net", "a.onnx"), ("a.onnx", "b.py"), ("b.py", "c.onnx")):
        extra = ["--input", "2x9x9"] if source.endswith(".py") else []
        assert main(["convert", source, out, "--json", *extra]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["file"] == out and document["error"] < 1e-5
    assert Path("b.safetensors").exists()
    assert main(["convert", "a.onnx", "d.net"]) == 0
    printed = capsys.readouterr().out
    assert "checked  largest difference" in printed and "which a text cannot hold" in printed
    assert Path("d.net").read_text() == show(parse(text))
    weights = load_file("b.safetensors")
    held = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load("a.onnx").graph.initializer}
    assert np.array_equal(weights["conv1.weight"], held["conv1.weight"])


def test_a_run_takes_its_weights_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    net = "input 1x8x8; conv 8 k3 pad1; relu; maxpool 2; flatten; linear 10"
    assert main(["train", "--net", net, "--epochs", "1", "--quiet", "--run", "run"]) == 0
    assert main(["convert", "run", "model.onnx"]) == 0
    assert "those of the run run" in capsys.readouterr().out
    model = lw.load("run")
    images = np.zeros((3, 1, 8, 8), np.float32)
    program = lw.compile(model.net)
    program.set_learned(model.weights)
    loaded = onnx.load("model.onnx")
    assert np.allclose(onnx_called(loaded)(images), program.forward(images), atol=1e-5)
    known = {one.key: one.value for one in loaded.metadata_props}
    assert json.loads(known["lanewise.classes"]) == list("0123456789")
    assert json.loads(known["lanewise.preprocessing"])
    program.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lenet5", "out.txt"], "unknown form .txt; end it in .net"),
        (["lenet5", "out"], "unknown form without a suffix"),
        (["lenet5", "there.net"], "is there already; choose another name, or add --force"),
        (["nowhere.onnx", "out.py"], "nowhere.onnx: no such file"),
        (["input 1x4x4; if: relu", "out.py"], "layer if: Python has that word already"),
        ([f"{FILE}:Sequence", "out.net", "--input", "3x8x8"], "is no layer of Lanewise"),
        ([f"{FILE}:Shared", "out.onnx", "--input", "3x8x8"], "its weights together with again"),
        ([f"{FILE}:Several", "out.net", "--input", "3x4x4"], "Several: gives a tuple, and a netw"),
        ([".", "out.onnx"], "no run"),
    ],
)
def test_refusals(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.net").write_text("input 1x1x1")
    assert main(["convert", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err and err.count("lanewise: ") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there.net"], "nothing was written"


def test_a_file_of_several_results_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = parse("input 1x4x4; conv 2 k3")
    model = to_onnx(graph, drawn_weights(graph))
    relu = onnx.helper.make_node("Relu", [model.graph.output[0].name], ["second"])
    model.graph.node.append(relu)
    model.graph.output.append(onnx.helper.make_tensor_value_info("second", 1, None))
    onnx.save(model, tmp_path / "two.onnx")
    assert main(["convert", str(tmp_path / "two.onnx"), str(tmp_path / "two.net")]) == 2
    assert ", second, and a network here gives one result" in capsys.readouterr().err
    assert not (tmp_path / "two.net").exists()
