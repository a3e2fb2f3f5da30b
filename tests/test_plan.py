"""The plan: how the work after the slices is shared out."""

from __future__ import annotations

import pytest

from lanewise.native.nest import LANES
from lanewise.native.plan import BLOCK_FLOATS, BLOCK_ROWS, block_rows


@pytest.mark.parametrize(
    ("outputs", "inputs"),
    [(10, 84), (84, 120), (120, 400), (10, 7), (997, 10000), (4096, 9216), (4096, 25088), (16, 1)],
)
def test_blocks_divide_the_matrix(outputs: int, inputs: int) -> None:
    rows = block_rows(outputs, inputs)
    assert outputs % rows == 0
    assert rows * inputs % LANES == 0 or rows == outputs


@pytest.mark.parametrize(("outputs", "inputs"), [(4096, 9216), (4096, 25088), (1000, 4096)])
def test_a_large_matrix_is_many_jobs(outputs: int, inputs: int) -> None:
    """The first full connections of AlexNet and VGG: not one job that all threads wait for."""
    rows = block_rows(outputs, inputs)
    assert rows == BLOCK_ROWS
    assert rows * inputs > BLOCK_FLOATS


def test_a_small_matrix_is_one_job() -> None:
    assert block_rows(10, 84) == 10
