"""The fixed codes of radial basis layers: ten digits to be read, and a pattern for other sizes."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lanewise.net.codes import radial_codes


def distance(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))


def test_ten_codes_of_84_are_pictures_of_the_digits() -> None:
    codes = radial_codes(10, 84)
    seven = ["".join("#" if v > 0 else "." for v in codes[7][i : i + 7]) for i in range(0, 84, 7)]
    assert seven[:4] == ["#######", ".....##", ".....##", "....##."]
    assert all(len(code) == 84 and set(code) == {-1, 1} for code in codes)
    assert min(distance(*pair) for pair in combinations(codes, 2)) >= 12


@given(st.integers(1, 40), st.integers(1, 60))
def test_codes_of_any_size_differ_and_are_balanced(outputs: int, features: int) -> None:
    if outputs > 2**features:
        with pytest.raises(ValueError, match=f"not {outputs}"):
            radial_codes(outputs, features)
        return
    codes = radial_codes(outputs, features)
    assert len(set(codes)) == len(codes) == outputs
    assert all(len(code) == features and set(code) <= {-1, 1} for code in codes)
    if features >= 2 * max(1, (outputs - 1).bit_length()):
        assert all(abs(sum(code)) <= 1 for code in codes)


def test_codes_of_many_features_lie_far_apart() -> None:
    assert min(distance(*pair) for pair in combinations(radial_codes(16, 120), 2)) >= 40
