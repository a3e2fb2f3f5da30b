"""1 × 1 convolutions some pixels at a time, and normalisations that work out their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lanewise.bridge.oracle import check
from lanewise.native import chains
from lanewise.native.directions import plan_directions
from lanewise.native.plan import Call, Slot
from lanewise.native.rules import batch_norm, pointwise
from lanewise.native.target import find_target
from lanewise.net.load import load
from lanewise.net.parse import parse

NETS = {
    "a normalisation behind it": (
        "input 5x6x6; conv 7 k1 nobias; bn; relu; globalavg; flatten; linear 3"
    ),
    "of few maps many": (
        "input 2x7x7; conv 3 k3 pad1 nobias; bn; relu6; conv 20 k1 nobias; bn; relu6;"
        "depthwise k3 pad1 nobias; bn; relu; conv 5 k1 nobias; bn; globalavg; flatten; linear 3"
    ),
    "a joined ReLU before it": (
        "input 2x5x7; conv 4 k3 pad1; relu; conv 18 k1 nobias; bn noaffine; maxpool 2;"
        "globalavg; flatten; linear 3"
    ),
    "several readers of what it reads": (
        "input 3x4x4; conv 6 k3 pad1 nobias; a: bn; conv 24 k1 nobias; bn; relu; conv 6 k1 nobias;"
        "b: bn; add a b; c: relu; conv 12 k1 nobias; bn; add { } { conv 12 k1 nobias from c; bn };"
        "globalavg; flatten; linear 3"
    ),
    "the image before it": "input 3x6x5; conv 16 k1 nobias; bn; relu; globalavg; flatten; linear 3",
    "parts of a whole": (
        "input 3x6x6; a: conv 4 k1 nobias; b: conv 3 k3 pad1 from input; x: concat a b;"
        "s: split 1 of 7 from x; conv 9 k1 nobias from x; bn; relu; conv 1 k1 nobias; t: bn;"
        "add t s; flatten; linear 3"
    ),
    "groups of slices alone": (
        "input 2x4x6; conv 3 k3 pad1 nobias; bn ghost 16; conv 9 k1 nobias; bn ghost 16; relu;"
        "conv 2 k1 nobias; bn; globalavg; flatten; linear 3"
    ),
    "one pixel": (
        "input 4x1x1; conv 5 k1 nobias; bn; relu; conv 20 k1 nobias; bn; flatten; linear 2"
    ),
    "more maps than lanes": (
        "input 3x4x4; conv 21 k1 nobias; bn; relu; conv 45 k1 nobias; bn; relu6; depthwise k3 pad1;"
        "globalavg; flatten; linear 3"
    ),
}


#: as little as possible, and half of a small net's pixels
BYTES = dict.fromkeys(NETS, 1) | {"of few maps many": 64 << 10, "more maps than lanes": 16 << 10}


@pytest.mark.parametrize("net", NETS)
def test_some_pixels_at_a_time_are_the_same(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pointwise, "LARGE", 0)
    monkeypatch.setattr(batch_norm, "AWAY", 0)
    monkeypatch.setattr(chains, "CHAIN_BYTES", BYTES[net])
    check(parse(NETS[net]), batch=19, cache=False)


def _train_calls(net: str) -> Sequence[Call]:
    """With many maps that are kept (of those that are not: `test_inverted.py`)."""
    plans = plan_directions(load(net), find_target("avx512"), training=True, exact=True)
    return plans["train"].calls


def test_maps_that_leave_the_cache_are_taken_some_pixels_at_a_time() -> None:
    calls = [call for call in _train_calls("mobilenet-v2-small") if call.block < call.extent]
    pixels = [call for call in calls if call.extent == 32 * 32]
    assert {"conv2 forward", "bn2 forward", "bn3 forward", "conv3 forward", "conv3 gradient"} <= {
        call.purpose for call in pixels
    }
    assert len({call.chain for call in pixels if call.purpose == "conv3 forward"}) == 1


def test_the_gradient_of_many_maps_is_never_kept() -> None:
    calls = _train_calls("mobilenet-v2-small")
    phases: dict[str, set[int]] = {}
    for call in calls:
        for place in call.places:
            if isinstance(place, Slot):
                phases.setdefault(place.name, set()).add(call.phase)
    assert "gradient conv2" not in phases  # only its parts: of what a slice knows, and of all
    assert len(phases["gradient bn2"]) == len(phases["pushed bn2"]) == 1


def test_what_is_pushed_lies_in_the_strips_that_are_read() -> None:
    calls = [call for call in _train_calls("mobilenet-v2-small") if call.chain >= 0]
    read = [
        (call, place, apart)
        for call in calls
        for place, apart in zip(call.places, call.apart, strict=True)
        if isinstance(place, Slot) and place.name == "pushed bn2" and call.extent == 32 * 32
    ]
    assert {call.purpose for call, *_ in read} == {"conv2 gradient"}
    for call, place, apart in read:
        assert call.block * apart == 64 * (call.block + 1) * 64  # maps, a line more, a line's bytes
        assert place.size == call.extent * apart
