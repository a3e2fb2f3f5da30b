"""bf16: the output and its gradient are fp32, and so is what is added to it."""

from __future__ import annotations

import pytest

from lanewise.net.parse import parse

# A part of the output that another layer reads too: the gradient of the one is added to the other.
READ_TWICE = (
    "input 2x11x10; first: conv 2 k1; second: maxpool 3 stride1 pad1 from first;"
    " concat first second; flatten"
)


@pytest.mark.parametrize("seed", range(3))
def test_a_part_of_the_output_gathers_its_gradient_in_fp32(seed: int) -> None:
    pytest.importorskip("torch", reason="the judge is PyTorch (extra `torch`)")
    from lanewise.bridge.oracle import check

    check(parse(READ_TWICE), batch=1, seed=seed, pixels=True, precision="bf16")
