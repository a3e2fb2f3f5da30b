"""The zoo counted a second time, from the loop nests that training it emits.

Every family at its published size, one of its networks, and in small what its parameters choose.
"""

from __future__ import annotations

import os

import pytest

from families import SMALL
from lanewise.net.family import ZOO, read_family
from lanewise.net.load import load
from nest_products import counted, expected

# Family → the network that is counted, where its first is a large one.
COUNTED = {
    "convnext": "convnext-tiny",
    "mobilenet-v3": "mobilenet-v3-small",
    "regnet": "regnet-y-400mf",
    "squeezenet": "squeezenet1-1",
}
FAMILIES = sorted(name.removesuffix(".net") for name in os.listdir(ZOO))
PUBLISHED = [COUNTED.get(family, read_family(family)[0].name) for family in FAMILIES]
FORMS = [spec for name, spec in SMALL.items() if name not in FAMILIES]


@pytest.mark.parametrize("spec", [*PUBLISHED, "resnet50", *FORMS])
def test_nests_count_what_the_calculus_says(spec: str) -> None:
    graph = load(spec)
    found = counted(graph)
    for layer, macs in expected(graph).items():
        assert list(found[layer].values()) == 3 * [macs], (layer, found[layer])
