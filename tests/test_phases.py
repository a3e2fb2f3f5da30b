"""Phases, chains and who shares memory: the plan of nets that branch and normalise."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, groupby

import pytest

from families import SMALL
from lanewise.bridge.oracle import check
from lanewise.native import chains
from lanewise.native.chains import CHAIN_BYTES
from lanewise.native.directions import plan_directions
from lanewise.native.plan import PROLOGUE, Call, Plan, Slot
from lanewise.native.target import find_target
from lanewise.net.load import load
from lanewise.net.parse import parse

NETS = [
    SMALL[name]
    for name in ("densenet", "googlenet", "mobilenet-v2", "resnet-basic", "shufflenet-v2")
]
NETS += ["bn3", "lenet5", "mobilenet-v2-small"]


def _plans(text: str, exact: bool = False) -> dict[str, Plan]:
    """`exact`: many maps are kept, too (of those that are not: `test_inverted.py`)."""
    return plan_directions(load(text), find_target("avx512"), training=True, exact=exact)


@pytest.mark.parametrize(
    ("net", "phases"),
    [
        ("input 3x8x8; conv 4 k3; relu; flatten; linear 2", 1),
        ("input 3x8x8; conv 4 k3; bn; relu; flatten; linear 2", 3),
        ("input 3x8x8; conv 4 k3; bn; conv 4 k3; bn; flatten; linear 2", 5),
        # Statistics of a slice need no barrier; the running ones are told when all are through.
        ("input 3x8x8; conv 4 k3; bn ghost 16; relu; flatten; linear 2", 2),
        # Nothing before it learns: its gradient stops at its own parameters.
        ("input 3x8x8; bn; relu; flatten; linear 2", 2),
    ],
)
def test_a_barrier_wherever_the_batch_must_meet(net: str, phases: int) -> None:
    assert len(_plans(net)["train"].phases) == phases
    assert len(_plans(net)["forward"].phases) == 1


@pytest.mark.parametrize("net", NETS)
def test_nothing_alive_is_written_over(net: str) -> None:
    """Carried out call by call, block by block: no two values that are needed at the same time
    have bytes in common."""
    for plan in _plans(net).values():
        for phase in plan.phases:
            lives = _lives(plan, phase.slices)
            for (one, first, last), (other, begin, end) in combinations(lives, 2):
                if first <= end and begin <= last:
                    assert one.stop <= other.start or other.stop <= one.start


def _lives(plan: Plan, calls: tuple[Call, ...]) -> list[tuple[range, int, int]]:
    """Bytes of each value of a slice in this phase; its first and its last moment."""
    found: dict[str, tuple[range, int, int]] = {}
    for moment, call in enumerate(_carried_out(calls)):
        for place in call.places:
            if not isinstance(place, Slot) or place.name not in plan.arena.offsets:
                continue
            if place.name in PROLOGUE or place.worker:
                continue
            start = plan.arena.offsets[place.name]
            number = plan.widths[0] if place.name in plan.crossing else 1
            first = found.get(place.name, (range(0), moment, moment))[1]
            found[place.name] = (range(start, start + place.size * number), first, moment)
    return list(found.values())


def _carried_out(calls: tuple[Call, ...]) -> Iterator[Call]:
    for chain, group in groupby(calls, key=lambda call: call.chain):
        together = list(group)
        turns = together[0].extent // together[0].block if chain >= 0 else 1
        for _ in range(turns):
            yield from together


def test_chains_take_blocks_that_fit_the_cache() -> None:
    plan = _plans("mobilenet-v2-small", exact=True)["train"]
    calls = [call for call in plan.calls if call.chain >= 0]
    blocked = [call for call in calls if call.block < call.extent]
    assert {"bn2 forward", "depthwise1 forward", "bn3 forward"} <= {c.purpose for c in blocked}
    for call in blocked:
        assert call.extent % call.block == 0
        assert call.block == 1 or call.block * max(call.apart) <= CHAIN_BYTES


# In the first, what is one channel of a layer's value is another one of the next layer's.
CHAINED = {
    "parts that lie across each other": (
        "input 3x6x6; a: conv 2 k1; c: conv 2 k1 from input; z: conv 4 k1 from input; b: bn;"
        "x: concat a b c; s: split 1 of 2 from x; t: split 2 of 2 from x;"
        "d: depthwise k3 pad1 from t; e: depthwise k3 pad1 from s; add d e; flatten; linear 4"
    ),
    "several readers": (
        "input 3x7x7; conv 6 k1; a: bn; r: relu; b: depthwise k3 pad1; c: bn from b;"
        "d: maxpool 3 stride1 pad1; e: depthwise k3 pad1 from b; f: bn; g: add d f;"
        "depthwise k 3x2 multiplier 2 pad1; bn; relu6; concat { } { bn }; maxpool 2; flatten;"
        "linear 3"
    ),
}


@pytest.mark.parametrize("net", CHAINED)
def test_a_channel_at_a_time_is_the_same(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "CHAIN_BYTES", 1)
    check(parse(CHAINED[net]), batch=19, cache=False)


def test_what_only_a_chain_reads_is_there_for_a_block_alone() -> None:
    plan = _plans("mobilenet-v2-small", exact=True)["train"]
    sizes = {
        place.name: place.size
        for call in plan.calls
        for place in call.places
        if isinstance(place, Slot)
    }
    whole = sizes["value conv2"]
    assert sizes["gradient depthwise1"] < whole / 8
    assert sizes["value bn2"] < whole / 8  # worked out again in the backward direction


def test_what_is_concatenated_stands_in_the_whole() -> None:
    net = "input 3x6x6; conv 4 k1; relu; concat { conv 2 k1 } { conv 3 k3 pad1 } { }; flatten"
    calls = plan_directions(parse(net + "; linear 2"), find_target("avx512"), training=False)[
        "forward"
    ].calls
    written = [call.places[-1] for call in calls if call.purpose.startswith("conv")]
    assert {place.name for place in written if isinstance(place, Slot)} == {"value concat1"}
    assert not any("copy" in kernel.name for call in calls for kernel in call.kernels.values())


def test_a_sum_hands_its_gradient_on() -> None:
    net = "input 3x6x6; conv 4 k1; residual { conv 4 k3 pad1; relu; conv 4 k3 pad1 }; flatten"
    calls = _plans(net + "; linear 2")["train"].calls
    names = [kernel.name for call in calls for kernel in call.kernels.values()]
    assert not any(
        name.startswith(("copy", "add_", "mask")) for name in names if "values" not in name
    )
