"""The zoo counted a second time, from the loop nests that training it emits.

Every network at its published size, and in small what the families' parameters choose.
"""

from __future__ import annotations

import pytest

from families import SMALL
from lanewise.net.load import load, zoo_names
from nest_products import counted, expected

FORMS = [spec for spec in SMALL.values() if spec not in zoo_names()]


@pytest.mark.parametrize("spec", [*zoo_names(), *FORMS])
def test_nests_count_what_the_calculus_says(spec: str) -> None:
    graph = load(spec)
    found = counted(graph)
    for layer, macs in expected(graph).items():
        assert list(found[layer].values()) == 3 * [macs], (layer, found[layer])
