"""The tester tested on graphs: norms, joins and what gradients share are broken on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lanewise.native import sharing
from lanewise.native.nest import Kernel
from lanewise.net.graph import Graph
from lanewise.net.parse import parse

pytest.importorskip("torch", reason="the oracle needs PyTorch (extra `torch`)")

from lanewise.bridge.oracle import Trial, judge
from test_oracle_objects import all_kernels, compiled, damage, on_the_way, stem

NORMS = parse(
    "input 3x5x4; conv 4 k2 nobias; bn; relu; conv 4 k1 nobias; bn ghost 16;"
    "residual { layernorm; conv 4 k1; groupnorm 2 }; prelu channels; bn; flatten; linear 4"
)
JOINS = parse(
    "input 3x5x4; conv 4 k2; relu; concat { } { depthwise k3 pad1; relu };"
    "multiply { } { globalavg; conv 8 k1; sigmoid }; residual { conv 8 k1; relu } { conv 8 k1 };"
    "relu; x: split 1 of 2; a: conv 4 k1; b: conv 4 k1 from x; add a b x; flatten; linear 4"
)
# Net, kernel, the operation in it that is done wrongly; the last kernel of that sort is broken.
WRONG = [
    (NORMS, "batch_statistics", "add"),
    (NORMS, "collect", "mul"),
    (NORMS, "running", "mul"),
    (NORMS, "normalise", "fma"),
    (NORMS, "collect_slice", "mul"),
    (NORMS, "batch_gradient_sums", "fma"),
    (NORMS, "collect_gradient", "mul"),
    (NORMS, "batch_gradient", "fma"),
    (NORMS, "layer_norm", "fma"),
    (NORMS, "layer_norm_gradient", "mul"),
    (NORMS, "group_norm_gradient", "mul"),
    (NORMS, "prelu_gradient", "fma"),
    (JOINS, "add_values", "add"),
    (JOINS, "add", "add"),
    (JOINS, "join_mul", "mul"),
    (JOINS, "join_mul_gradient", "mul"),
]


def objections(program: Any) -> list[str]:
    """The tensors that differ, of more images than one slice has."""
    return [row.name for row in judge(program, program.graph, Trial(21)) if not row.ok]


@pytest.fixture(scope="module")
def kernels() -> dict[str, dict[str, Kernel]]:
    return {name: all_kernels(net) for name, net in (("norms", NORMS), ("joins", JOINS))}


@pytest.mark.parametrize("net", [NORMS, JOINS], ids=["norms", "joins"])
def test_the_undamaged_net_agrees(net: Graph) -> None:
    with compiled(net=net) as program:
        assert objections(program) == []


@pytest.mark.parametrize(("net", "broken", "wrong"), WRONG, ids=[case[1] for case in WRONG])
def test_a_broken_kernel(
    net: Graph, broken: str, wrong: str, kernels: dict[str, dict[str, Kernel]]
) -> None:
    found = kernels["norms" if net is NORMS else "joins"].values()
    victim = [kernel for kernel in found if stem(kernel) == broken][-1]
    damaged, done = damage(victim, wrong)
    assert done

    def change(kernel: Kernel) -> Kernel:
        return damaged if kernel.name == victim.name else kernel

    with on_the_way(change), compiled(net=net) as program:
        assert objections(program) != []


def reversed_parts(operations: Any) -> dict[str, tuple[str, int]]:
    """Every part of a concatenation at its beginning."""
    return {name: (whole, 0) for name, (whole, _) in PLACES(operations).items()}


PLACES: Callable[..., dict[str, tuple[str, int]]] = sharing.value_places
MISTAKES = {
    "gradients always share": (
        sharing.GradientSharing,
        "may_share",
        lambda *arguments: True,
    ),
    "parts stand at the beginning": ("lanewise.native.planner.value_places", reversed_parts),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_rule(mistake: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*MISTAKES[mistake])
        with compiled(net=JOINS) as program:
            assert objections(program) != []
