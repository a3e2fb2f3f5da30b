"""Values that stand inside other values: nothing is copied that may stay where it is."""

from __future__ import annotations

import pytest

from lanewise.native.directions import plan_training
from lanewise.native.fuse import operations
from lanewise.native.sharing import value_places
from lanewise.native.shelf import KernelShelf
from lanewise.native.target import find_target
from lanewise.net.parse import parse

PIXELS = 4 * 5

#: text, and where values stand: name → (the value that holds it, channels before it)
NETS = {
    "parts of a split": (
        "input 2x4x5; conv 6 k1; split 2 of 3; split 1 of 2; conv 1 k1; flatten",
        {"split1": ("conv1", 2), "split2": ("conv1", 2)},
    ),
    "parts of a concatenation": (
        "input 2x4x5; conv 6 k1; concat { conv 1 k1 } { conv 3 k1 }; conv 1 k1; flatten; linear 3",
        {"conv2": ("concat1", 0), "conv3": ("concat1", 1)},
    ),
    "a part of a split, then concatenated": (
        "input 2x4x5; conv 6 k1; concat { conv 1 k1 } { split 2 of 2 }; conv 1 k1; flatten;"
        "linear 3",
        {"conv2": ("concat1", 0), "split1": ("conv1", 3)},
    ),
    "what a full connection reads": (
        "input 2x4x5; conv 6 k1; split 1 of 2; flatten; linear 3",
        {},
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_values_stand_in_others(name: str) -> None:
    text, wanted = NETS[name]
    places = value_places(operations(parse(text), training=True))
    assert places == {part: (whole, before * PIXELS) for part, (whole, before) in wanted.items()}


def test_a_split_copies_nothing_on_its_way_forward() -> None:
    text = "input 2x4x5; conv 6 k1; add { split 1 of 2 } { split 2 of 2 }; conv 2 k1; flatten"
    plan = plan_training(parse(text), find_target("host"), KernelShelf())
    forward = [call.purpose for call in plan.calls if call.purpose.endswith("forward")]
    assert forward == ["conv1 forward", "add1 forward", "conv2 forward"]
    written = [call.kernels[1].name for call in plan.calls if call.purpose.startswith("split")]
    assert [name.rpartition("_")[0] for name in written] == [
        "copy_channels_gradient",
        "add_channels",
    ]
