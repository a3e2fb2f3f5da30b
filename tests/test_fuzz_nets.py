"""Random nets: repeatable, legal, of every kind; and a failure shrinks to its cause."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from lanewise.bridge.verdict import Comparison, Row
from lanewise.net.layers import KINDS, Add, BatchNorm, Concat, Multiply
from lanewise.net.parse import parse
from lanewise.size.shapes import infer_shapes

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))

import nets
import random_nets


def judge(case: nets.Case) -> Comparison:
    """An engine that cannot do tanh after a pool, except for a single image."""
    pairs = pairwise(type(node.layer).__name__ for node in parse(case.text).nodes)
    broken = case.batch > 1 and any("Pool" in a and b == "Tanh" for a, b in pairs)
    return Comparison(parse(case.text), case.batch, case.seed, "x", (Row("loss", broken, 0.1),))


def test_a_seed_stands_for_one_case() -> None:
    assert nets.random_case(74) == nets.random_case(74)
    assert nets.random_case(74) != nets.random_case(75)
    shown = nets.random_case(74).command
    assert shown.startswith('lanewise verify "input ') and "--seed 74" in shown


@pytest.mark.parametrize(("pad", "judged"), [("3x2", False), ("4x2", True)])
def test_windows_meet_something(pad: str, judged: bool) -> None:
    items = ("input 8x1x8", f"conv 3 k 1x1 stride 4x2 pad {pad}")
    assert random_nets._small(items) is judged


def test_the_command_repeats_the_case() -> None:
    drawn = nets.random_case(74)
    assert replace(drawn, exact=True).command == f"{drawn.command} --exact"
    alone = replace(drawn, training=False, one_by_one=True, precision="bf16")
    assert alone.command.startswith("python fuzz/nets.py --seed 74 --one-by-one --precision bf16 ")


def test_the_way_to_run_is_that_of_the_command_line() -> None:
    asked: list[nets.Case] = []

    def noting(case: nets.Case) -> Comparison:
        asked.append(case)
        return judge(replace(case, batch=1))

    assert nets.main(["--count", "1", "--one-by-one", "--exact"], judge=noting) == 0
    assert nets.main(["--count", "1"], judge=noting) == 0
    ways = [(case.training, case.one_by_one, case.exact) for case in asked]
    assert ways == [(False, True, True), (True, False, False)]


def test_every_net_is_legal_and_every_kind_and_batch_appears() -> None:
    kinds, batches = Counter(), Counter()
    for seed in range(200):
        case = nets.random_case(seed)
        graph = parse(case.text)
        assert len(infer_shapes(graph)[graph.output.name]) == 1
        kinds.update({type(node.layer) for node in graph.nodes})
        batches[case.batch] += 1
    assert set(kinds) == set(KINDS)
    assert min(kinds.values()) >= 6, kinds
    assert kinds[Add] + kinds[Concat] + kinds[Multiply] >= 80
    assert set(batches) == set(nets.BATCHES)


def test_a_failure_shrinks_to_its_cause() -> None:
    lines = ("input 2x9x9", "conv 3 k2", "relu", "maxpool 2", "tanh", "sigmoid", "flatten", "relu")
    small = nets.shrink(nets.Case(1, lines, batch=33, pixels=True), judge)
    assert small.lines == ("input 2x9x9", "maxpool 2", "tanh", "flatten")
    assert (small.batch, small.pixels) == (2, False)


def test_a_failure_in_a_branch_shrinks_to_the_branch() -> None:
    branches = (("conv 3 k1", "maxpool 1", "tanh", "relu"), ("conv 3 k3 pad1",))
    inner = nets.Block("residual", (("relu",),))
    lines = ("input 2x9x9", "relu", nets.Block("concat", (*branches, (inner,))), "relu", "flatten")
    assert (
        "concat { conv 3 k1; maxpool 1; tanh; relu } { conv 3 k3 pad1 } { residual { relu } }"
        in (nets.text_of(lines))
    )
    small = nets.shrink(nets.Case(1, lines, batch=17, pixels=False), judge)
    assert small.lines == ("input 2x9x9", "maxpool 1", "tanh", "flatten")


def test_norms_get_enough_images() -> None:
    for seed in range(150):
        case = nets.random_case(seed)
        kinds = {type(node.layer) for node in parse(case.text).nodes}
        assert BatchNorm not in kinds or case.batch >= 5


def test_a_crash_is_a_failure() -> None:
    def crashing(case: nets.Case) -> Comparison:
        raise ZeroDivisionError("in a kernel")

    assert nets.failure(nets.random_case(0), crashing) == "ZeroDivisionError: in a kernel"


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        nets.main(
            ["--seed", "3"],
            lambda case: Comparison(parse(case.text), 1, 3, "x", (Row("loss", 0.0, 0.1),)),
        )
        == 0
    )
    assert "lanewise verify" in capsys.readouterr().out
    failing = next(s for s in range(500) if nets.failure(nets.random_case(s), judge))
    assert nets.main(["--seed", str(failing), "--count", "2"], judge) == 1
    out = capsys.readouterr().out
    assert "FAILS" in out and "smallest:" in out
    assert f"failed seeds: {failing}" in out
