"""PyTorch modules as Lanewise's networks: the same sizes, counts and values."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import lanewise as lw
from lanewise.bridge.importing.module import import_from
from lanewise.bridge.importing.user_code import build
from lanewise.bridge.networks import graph_of, own_graph
from lanewise.bridge.round_trip import agreement, called, drawn_weights, in_shape, module_weights
from lanewise.bridge.torch_module import copy_weights, to_torch
from lanewise.cli.main import main
from lanewise.errors import NetError
from lanewise.net.layers import KINDS, Foreign, Input
from lanewise.net.parse import parse
from lanewise.net.show import show
from lanewise.size.report import size
from lanewise.size.shapes import infer_shapes
from small_nets import NETS

FILE = Path(__file__).with_name("modules_to_import.py")
IMAGES = {
    "Functional": (1, 28, 28),
    "Residual": (3, 9, 8),
    "Modern": (4, 9, 7),
    "Pools": (4, 13, 11),
    "small": (3, 6, 5),
    "instance": (1, 5, 5),
}


@pytest.fixture(params=IMAGES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_values_and_counts_are_those_of_the_module(name: str) -> None:
    built = build(f"{FILE}:{name}", weights=True)
    found = import_from(f"{FILE}:{name}", Input(*IMAGES[name]))
    module, graph = built.module, found.graph
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.is_floating_point():
                tensor.uniform_(0.3, 1.2)
    weights = module_weights(graph, found.weights, module)
    assert set(weights) == set(drawn_weights(graph))
    assert agreement(graph, weights, called(module)).error < 1e-5
    totals = size(graph).totals
    assert totals.params == sum(value.numel() for value in module.parameters())
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, *IMAGES[name]))
    assert totals.flops == counter.get_total_flops()


def test_the_text_of_an_imported_network_is_the_same_network(name: str) -> None:
    graph = own_graph(f"{FILE}:{name} input={'x'.join(map(str, IMAGES[name]))}")
    assert parse(show(graph)).nodes == graph.nodes


def test_names_are_those_of_the_module() -> None:
    graph = graph_of(f"{FILE}:Residual", Input(3, 9, 8))
    names = [node.name for node in graph.nodes]
    assert {"stem_0", "units_1_conv1", "units_1_down_1", "head"} <= set(names)
    lines = FILE.read_text().splitlines()
    assert "self.bn1(self.conv1(x))" in lines[graph.node("units_0_conv1").line - 1]
    assert graph.place(graph.node("head")).endswith(f"py:{graph.node('head').line} head")


# Nets that torch has no layers for, so that `to_torch` writes them with functions of its own.
NOT_BACK = {
    "avgpool: ceil, uneven": "a mean over windows that reach beyond uneven pads",
    "relu under an uneven pool": "ceil's last window as a pad, which is then too large for a pool",
}


@pytest.mark.parametrize("net", [net for net in NETS if net not in NOT_BACK])
def test_our_own_modules_come_back(net: str) -> None:
    """What `to_torch` makes is read again: the same values (not always the same words)."""
    graph = parse(NETS[net], net)
    back = imported_again(graph)
    if any(isinstance(node.layer, Foreign) for node in back.nodes):
        pytest.fail(f"{[node for node in back.nodes if isinstance(node.layer, Foreign)]}")
    assert infer_shapes(back)[back.output.name] == infer_shapes(graph)[graph.output.name]
    assert size(back).totals.params == size(graph).totals.params
    assert size(back).totals.macs == size(graph).totals.macs


def imported_again(graph):  # type: ignore[no-untyped-def]
    from lanewise.bridge.importing.module import import_module
    from lanewise.bridge.importing.user_code import Built

    module = to_torch(graph).to("meta").eval()
    image = graph.nodes[0].layer
    return import_module(Built(module, graph.origin, __file__), image, __file__).graph


def test_weights_used_again_are_counted_once() -> None:
    graph = graph_of(f"{FILE}:Shared", Input(3, 8, 8))
    report = size(graph)
    assert report.totals.params == 32 + 584
    assert [row.params for row in report.rows if row.kind == "conv"] == [32, 584, 0, 0]
    assert report.totals.macs == 64 * (3 * 8 + 3 * 8 * 8 * 9)
    told = " ".join(report.remarks)
    assert "shares 584 parameters with again" in told and "12 parameters take no part" in told
    with pytest.raises(NetError, match=r"py:\d+ conv3: has its weights together with again"):
        own_graph(f"{FILE}:Shared input=3x8x8")


def test_sizes_are_those_of_one_image_behind_the_axis_of_a_sequence() -> None:
    rows = size(graph_of(f"{FILE}:SequenceFirst", Input(3, 4, 4))).rows
    assert [row.output for row in rows[1:]] == [(16, 3)] * (len(rows) - 1)


def test_what_lanewise_has_no_layer_for_is_sized_and_marked() -> None:
    graph = graph_of(f"{FILE}:Sequence", Input(3, 8, 8))
    module = build(f"{FILE}:Sequence", weights=True).module
    report = size(graph)
    assert report.totals.params == sum(value.numel() for value in module.parameters())
    rows = {row.name: row for row in report.rows}
    assert rows["lstm"].output == (64, 16) and rows["lstm"].kind == "foreign"
    assert rows["lstm"].params == 4 * 16 * (8 + 16 + 2)
    assert rows["lstm"].formula == "lstm, not a layer of Lanewise"
    assert "Not layers of Lanewise: pad1, lstm" in " ".join(report.remarks)
    with pytest.raises(NetError, match=r"pad .*is no layer of Lanewise"):
        own_graph(f"{FILE}:Sequence input=3x8x8")
    with pytest.raises(NetError, match="is no layer of Lanewise"):
        lw.compile(lw.Net(f"{FILE}:Sequence input=3x8x8"))


def test_no_memory_for_weights(tmp_path: Path) -> None:
    """Ten gigabytes of weights, sized in a process that holds a fraction of that."""
    path = tmp_path / "large.py"
    path.write_text(
        "from torch import nn\n"
        "net = lambda: nn.Sequential(nn.Flatten(), nn.Linear(50_000, 50_000), nn.Linear(50_000, 5))"
    )
    graph = graph_of(f"{path}:net", Input(2, 250, 100))
    assert size(graph).totals.params == 50_000 * 50_001 + 50_001 * 5
    assert "activations" not in graph.remarks


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["size", f"{FILE}:Functional", "--input", "1x28x28", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["name"] == "modules_to_import.py:Functional"
    assert document["totals"]["macs"] == 6 * 25 * 784 + 16 * 150 * 100 + 400 * 12 + 120
    assert main(["size", f"{FILE}:Sequence", "--input", "3x8x8", "--quiet"]) == 0
    assert "lstm, not a layer of Lanewise" in capsys.readouterr().out


def test_a_module_is_compiled_as_it_is() -> None:
    net = lw.Net(f"{FILE}:instance input=1x5x5")
    assert net.text.startswith("input 1x5x5\nconv 2 k3\n")
    program = lw.compile(net)
    assert program.forward(torch.zeros(2, 1, 5, 5).numpy()).shape == (2, 2)
    program.close()


def test_all_kinds_are_spoken_for() -> None:
    """The nets that come back hold every kind but the ones that only the notation has."""
    seen = {type(node.layer) for text in NETS.values() for node in parse(text).nodes}
    assert seen == set(KINDS)


BAD = {
    "raises": ("import torch\n\nprint(1 / 0)\n", "net", r"raises.py:3: .*ZeroDivisionError"),
    "syntax": ("def net(:\n    pass\n", "net", r"syntax.py:1: .*SyntaxError"),
    "leaves": ("import sys\n\nsys.exit(3)\n", "net", r"leaves.py:3: .*SystemExit: 3"),
    "missing": ("from torch import nn\nnet = nn.ReLU()\n", "Net", r"no Net in this file; did you"),
    "number": ("net = 3\n", "net", r"number.py:net: is an int; name a torch.nn.Module"),
    "arguments": (
        "from torch import nn\ndef net(classes, depth=3):\n    return nn.ReLU()\n",
        "net",
        r"needs classes; give the file a function without arguments",
    ),
    "constructor": (
        "from torch import nn\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.a = nn.Conv2d(3, 4)\n",
        "Net",
        r"constructor.py:5: making Net raises TypeError",
    ),
    "values": (
        "from torch import nn\nclass Net(nn.Module):\n"
        "    def forward(self, x):\n        return x * x.mean().item()\n",
        "Net",
        r"values.py:4.*without values",
    ),
    "constant": (
        "import torch\nfrom torch import nn\nclass Net(nn.Module):\n"
        "    def forward(self, x):\n        return torch.zeros(3)\n",
        "Net",
        r"does not depend on the image",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_get_one_message_with_the_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, attribute, words = BAD[case]
    path = tmp_path / f"{case}.py"
    path.write_text(text)
    with pytest.raises(NetError, match=words):
        graph_of(f"{path}:{attribute}", Input(3, 8, 8))
    capsys.readouterr()
    assert main(["size", f"{path}:{attribute}", "--input", "3x8x8", "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("lanewise: ") and "Traceback" not in err


def test_files_that_are_not_there_or_say_too_little(tmp_path: Path) -> None:
    with pytest.raises(NetError, match=r"nowhere\.py: no such file"):
        graph_of("nowhere.py:Net")
    with pytest.raises(NetError, match=r"which network\? Write .*py:NAME"):
        (tmp_path / "two.py").write_text("from torch import nn\na = nn.ReLU()\nb = nn.ReLU()\n")
        graph_of(f"{tmp_path}/two.py", Input(3, 8, 8))
    with pytest.raises(NetError, match="add --input 1x224x224"):
        graph_of(f"{FILE}:Functional")
    with pytest.raises(NetError, match="input=28: use channels x height x width"):
        graph_of(f"{FILE}:Functional input=28")


def test_prints_of_the_file_do_not_reach_standard_output(tmp_path: Path) -> None:
    path = tmp_path / "talks.py"
    path.write_text("from torch import nn\nprint('hello')\nnet = nn.Sequential(nn.ReLU())\n")
    done = subprocess.run(
        [sys.executable, "-m", "lanewise", "size", str(path), "--input", "1x2x2", "--json"],
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0 and json.loads(done.stdout)["layers"][0]["kind"] == "relu"
    assert "hello" in done.stderr


def test_weights_of_another_shape_are_the_same_numbers() -> None:
    graph = parse("input 2x1x1; conv 3 k1 nobias")
    arrays = {"conv1.weight": torch.arange(6.0).reshape(3, 2).numpy()}
    model = to_torch(graph)
    copy_weights(in_shape(graph, arrays), model)
    assert isinstance(model.conv1, nn.Conv2d)
    assert model.conv1.weight.flatten().tolist() == [0, 1, 2, 3, 4, 5]
