"""`lanewise size` of networks with `?`, with forgotten numbers, and without notation."""

from __future__ import annotations

import json

import pytest

from lanewise.cli.main import main

STEM = "input 3x224x224; conv 64 k7 stride ? pad ?; want 64x112x112"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["size", *arguments]) == 0
    out, error = capsys.readouterr()
    assert error == ""
    assert all(len(line) <= 80 for line in out.splitlines() if not line.startswith("The first"))
    return out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["size", *arguments]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.count("\n") == 1
    return error


def test_a_single_solution_comes_with_its_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, STEM).splitlines()
    assert lines[0] == "net: input 3x224x224, wanted conv1 64x112x112"
    assert lines[2].split() == ["layer", "found", "output", "reason"]
    assert lines[3].startswith(
        "1  conv1  stride2 pad3  ⌊(224 + 6 − 7)/2⌋ + 1 = 112  stride 2 halves"
    )
    assert "1 solution." in lines
    assert any(line.startswith("total") for line in lines)


def test_several_are_listed_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    net = STEM.replace("k7", "k?")
    out = printed(capsys, net)
    assert "454 solutions, the 20 most usual here; --all lists every one." in out
    assert " 1  conv1  k3 stride2 pad1    usual 3x3, stride 2 halves, same padding (3 − 1)/2" in out
    assert 'The first: "input 3x224x224; conv 64 k3 stride2 pad1; want 64x112x112"' in out
    everything = printed(capsys, net, "--all")
    assert "454 solutions, the most usual first." in everything
    assert sum("  conv1  k" in line for line in everything.splitlines()) == 454


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(printed_json(capsys, STEM))
    assert document["count"] == 1
    assert document["wants"] == [{"layer": "conv1", "shape": [64, 112, 112]}]
    assert document["size"]["totals"]["params"] == 9472
    (solution,) = document["solutions"]
    assert solution["numbers"] == {"conv1": {"stride": [2, 2], "pad": [[3, 3], [3, 3]]}}
    assert solution["output"] == [64, 112, 112]
    assert solution["text"].startswith("input 3x224x224; conv 64 k7 stride2 pad3")


def printed_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["size", *arguments, "--json"]) == 0
    return capsys.readouterr().out


def test_what_is_forgotten_is_filled_in(capsys: pytest.CaptureFixture[str]) -> None:
    net = "input 8x9x9; residual { conv 4 k3 pad1; relu; conv k3 pad1 }"
    out = printed(capsys, net)
    assert out.endswith("Filled in, for nothing else fits: conv 8 (conv2).\n")
    document = json.loads(printed_json(capsys, net))
    assert document["inferred"] == {"conv2": {"kernels": 8}}
    assert document["layers"][2]["output"] == [8, 9, 9]


def test_what_is_forgotten_and_not_forced_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    several = refused(capsys, "input 1x14x14; conv 16; maxpool 2; want 16x5x5")
    assert several == (
        "lanewise: net:1 conv1: needs k, the kernel's size: `conv 6 k5 stride2 pad1`; "
        "k5 or k4 would fit\n"
    )
    free = refused(capsys, "input 1x14x14; conv k3; relu")
    assert free.startswith("lanewise: net:1 conv1: needs its number of kernels; write it like")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((STEM.replace("112x112", "100x100"),), "no solution for want 64x100x100; nearest: 64x109"),
        (("input 3x9x9; conv ? k3",), "infinitely many solutions: every number from 1 fits"),
        ((STEM, "--markdown"), "--markdown: not with a `?`"),
        ((STEM, "--against", "lenet5"), "--against: not with a `?`"),
        (("lenet5", "--against", STEM), "has a `?`, a number to be found first"),
    ],
)
def test_bad_input(
    arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told in refused(capsys, *arguments)


def test_other_verbs_say_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "input 3x9x9; conv 4 k?; want 4x7x7"]) == 2
    error = capsys.readouterr().err
    assert 'first; `lanewise size "input 3x9x9; conv 4 k?; want 4x7x7"` lists what fits' in error
