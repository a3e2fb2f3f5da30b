"""`lanewise size A --against B`: what is alike, what changed, and what it costs."""

from __future__ import annotations

import json

import pytest

from lanewise.cli.main import main
from lanewise.net.parse import parse
from lanewise.size.against import as_text, compare
from lanewise.size.report import size

ONE = "input 1x8x8; conv 4 k3; relu; conv 8 k3; flatten; linear 10"
TWO = "input 1x8x8; conv 4 k3; bn; relu; conv 8 k5; flatten; dropout; linear 10"

SHOWN = """\
- one: input 1x8x8
+ two: input 1x8x8

   layer        output  params   MACs
   input 1x8x8  1x8x8
   conv 4 k3    4x6x6       40  1,296
+  bn           4x6x6        8
   relu         4x6x6
-  conv 8 k3    8x4x4      296  4,608
+  conv 8 k5    8x2x2      808  3,200
-  flatten      128
+  flatten      32
+  dropout 0.5  32
-  linear 10    10       1,290  1,280
+  linear 10    10         330    320

total               one    two         difference
layers                5      7       +2 (+40.0 %)
params            1,626  1,186     -440 (-27.1 %)
MACs              7,184  4,816  -2,368 (-33.0 %)
"""


def test_layers_and_totals_stand_beside_each_other() -> None:
    shown = as_text(compare(parse(ONE, "one"), parse(TWO, "two")))
    found = [" ".join(line.split()) for line in shown.splitlines()]
    wanted = [" ".join(line.split()) for line in SHOWN.splitlines()]
    assert found[: len(wanted)] == wanted
    assert found[len(wanted)].startswith("activation bytes")


def test_a_network_against_itself_has_no_difference() -> None:
    comparison = compare(parse(ONE), parse(ONE))
    assert {pair.change for pair in comparison.pairs} == {"same"}
    shown = as_text(comparison)
    assert "… 4 layers alike" in shown and shown.count("same") == 5


@pytest.mark.parametrize(
    "nets", [("lenet5", "lenet5-32"), ("resnet18", "resnet34"), ("vgg11", "lenet5")]
)
def test_every_layer_of_both_stands_once_in_order(nets: tuple[str, str]) -> None:
    from lanewise.net.load import load

    graphs = [load(net) for net in nets]
    comparison = compare(*graphs)
    for graph, sides in zip(
        graphs,
        ([pair.a for pair in comparison.pairs], [pair.b for pair in comparison.pairs]),
        strict=True,
    ):
        names = [side.row.name for side in sides if side is not None]
        assert names == [node.name for node in graph.nodes]
    for pair in comparison.pairs:
        if pair.a and pair.b:
            assert pair.a.row.kind == pair.b.row.kind
    assert all(len(line) <= 80 for line in as_text(comparison, 80).splitlines())


def test_long_layers_are_cut_to_the_width() -> None:
    text = "input 64x99x99; conv 128 k3 stride2 pad 1:2x0:1 dilation2 groups32 nobias; relu"
    shown = as_text(compare(parse(text), parse(text.replace("groups32", "groups16"))), 60)
    lines = shown.split("\n\n")[1].splitlines()
    assert all(len(line) <= 60 for line in lines)
    assert "…" in lines[2] and "groups" not in lines[2]


def test_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["size", ONE, "--against", TWO, "--json", "--batch", "3"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"a", "b", "layers", "difference"}
    totals = size(parse(ONE), 3).as_json()["totals"], size(parse(TWO), 3).as_json()["totals"]
    assert (document["a"]["totals"], document["b"]["totals"]) == totals
    assert document["difference"] == {key: totals[1][key] - totals[0][key] for key in totals[0]}
    changes = [layer["change"] for layer in document["layers"]]
    assert changes == [
        *("same", "same", "added", "same", "changed", "changed", "added", "changed"),
    ]
    assert document["layers"][2]["a"] is None
    assert document["layers"][2]["b"]["text"] == "bn"
    assert document["layers"][4]["a"]["params"] == 296


def test_the_other_network_may_be_at_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["size", ONE, "--against", "resnet19"]) == 2
    assert "resnet19: neither a network of the zoo" in capsys.readouterr().err
    assert main(["size", ONE, "--against", "lenet5", "--markdown"]) == 2
    assert "leave out --markdown" in capsys.readouterr().err
    assert main(["size", "lenet5", "--against", "lenet5-32", "--input", "1x64x64"]) == 0
    assert "+ lenet5-32: input 1x64x64" in capsys.readouterr().out
