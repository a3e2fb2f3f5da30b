"""The arithmetic of one axis against published vectors, counting by hand, and PyTorch."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from convention_values import SAME
from lanewise.size.axis import Axis, output_size, same_pad

# n, kernel, stride, pad at both sides → floor, ceil as PyTorch drops its last window.
FLOOR_AND_CEIL = [
    ((6, 1, 2, 0), 3, 3),
    ((7, 1, 2, 0), 4, 4),
    ((32, 1, 2, 0), 16, 16),
    ((8, 3, 4, 0), 2, 2),
    ((10, 3, 4, 0), 2, 3),
    ((9, 4, 4, 2), 3, 3),
    ((2, 3, 3, 1), 1, 1),
    ((17, 2, 2, 1), 9, 9),
    ((5, 2, 2, 1), 3, 3),
    ((5, 3, 3, 1), 2, 2),
    ((25, 2, 2, 0), 12, 13),
    ((112, 3, 2, 0), 55, 56),
]

# n, kernel, stride, pad, dilation → out (Dumoulin and Visin's figures, and CS231n's).
SINGLE = [
    ((4, 3, 1, 0, 1), 2),
    ((5, 4, 1, 2, 1), 6),
    ((5, 3, 1, 1, 1), 5),
    ((5, 3, 1, 2, 1), 7),
    ((5, 3, 2, 0, 1), 2),
    ((5, 3, 2, 1, 1), 3),
    ((6, 3, 2, 1, 1), 3),
    ((7, 3, 1, 0, 2), 3),
]

AXES = st.builds(
    Axis,
    n=st.integers(1, 24),
    kernel=st.integers(1, 9),
    stride=st.integers(1, 6),
    begin=st.integers(0, 6),
    end=st.integers(0, 6),
    dilation=st.integers(1, 3),
)


@pytest.mark.parametrize(("numbers", "floor", "ceil"), FLOOR_AND_CEIL)
def test_floor_and_ceil(numbers: tuple[int, ...], floor: int, ceil: int) -> None:
    n, kernel, stride, pad = numbers
    assert output_size(n, kernel, stride, (pad, pad)) == floor
    assert output_size(n, kernel, stride, (pad, pad), ceil=True) == ceil


@pytest.mark.parametrize(("numbers", "out"), SINGLE)
def test_published_figures(numbers: tuple[int, ...], out: int) -> None:
    n, kernel, stride, pad, dilation = numbers
    assert output_size(n, kernel, stride, (pad, pad), dilation) == out


@pytest.mark.parametrize(("numbers", "expected"), SAME)
def test_same(numbers: tuple[int, ...], expected: tuple[int, ...]) -> None:
    n, kernel, stride, dilation = numbers
    pad = same_pad(n, kernel, stride, dilation)
    assert (output_size(n, kernel, stride, pad, dilation), *pad) == expected


@given(AXES)
def test_same_gives_n_over_stride_rounded_up(axis: Axis) -> None:
    begin, end = same_pad(axis.n, axis.kernel, axis.stride, axis.dilation)
    assert 0 <= end - begin <= 1
    for ceil in (False, True):
        out = output_size(axis.n, axis.kernel, axis.stride, (begin, end), axis.dilation, ceil)
        assert out == -(-axis.n // axis.stride)


@given(AXES)
def test_the_formula_that_notes_print_rounds_up(axis: Axis) -> None:
    total = axis.begin + axis.end
    assert axis.out == -(-(axis.n - axis.extent + total + 1) // axis.stride)


def windows(axis: Axis) -> list[list[int]]:
    """Every window as the positions of its taps, found by sliding: 0 … n−1 are real values."""
    found = []
    start = -axis.begin
    while start + axis.extent <= axis.n + axis.end:
        found.append([start + tap * axis.dilation for tap in range(axis.kernel)])
        start += axis.stride
    return found


@given(AXES)
def test_sliding_the_window_by_hand_counts_the_same(axis: Axis) -> None:
    slid = windows(axis)
    assert max(0, axis.out) == len(slid)
    assert axis.real_taps == sum(0 <= tap < axis.n for window in slid for tap in window)
    if slid:
        read = slid[-1][0] + axis.extent
        assert axis.unread == axis.n + axis.end - read
        assert axis.overhang == 0


@given(AXES)
def test_ceil_adds_the_window_that_starts_on_the_image(axis: Axis) -> None:
    ceil = Axis(axis.n, axis.kernel, axis.stride, axis.begin, axis.end, axis.dilation, ceil=True)
    # PyTorch's bound on a pool's padding; beyond it the drop rule would take real windows too.
    assume(axis.out >= 1 and max(axis.begin, axis.end) <= axis.kernel // 2)
    next_start = axis.out * axis.stride - axis.begin
    wanted = axis.unread > 0 and next_start < axis.n
    assert ceil.out == axis.out + wanted
    if wanted:
        assert ceil.overhang == next_start + axis.extent - axis.n - axis.end


@given(AXES, st.booleans())
def test_pytorch_agrees_on_pooling(axis: Axis, ceil: bool) -> None:
    torch = pytest.importorskip("torch")
    pad = min(axis.begin, axis.kernel // 2)
    ours = output_size(axis.n, axis.kernel, axis.stride, (pad, pad), axis.dilation, ceil)
    try:
        pooled = torch.nn.functional.max_pool1d(
            torch.zeros(1, 1, axis.n), axis.kernel, axis.stride, pad, axis.dilation, ceil
        )
    except RuntimeError:
        assert ours < 1
    else:
        assert ours == pooled.shape[2]


@given(AXES)
def test_pytorch_agrees_on_convolution(axis: Axis) -> None:
    torch = pytest.importorskip("torch")
    image = torch.nn.functional.pad(torch.zeros(1, 1, axis.n), (axis.begin, axis.end))
    weight = torch.zeros(1, 1, axis.kernel)
    try:
        out = torch.nn.functional.conv1d(image, weight, None, axis.stride, 0, axis.dilation)
    except RuntimeError:
        assert axis.out < 1
    else:
        assert axis.out == out.shape[2]


@given(AXES)
def test_pytorch_agrees_on_same(axis: Axis) -> None:
    """Where the single odd zero lies shows in the values: PyTorch puts it at the end."""
    torch = pytest.importorskip("torch")
    image = torch.arange(1.0, axis.n + 1).reshape(1, 1, -1)
    weight = torch.arange(1.0, axis.kernel + 1).reshape(1, 1, -1)
    theirs = torch.nn.functional.conv1d(image, weight, None, 1, "same", axis.dilation)
    begin, end = same_pad(axis.n, axis.kernel, 1, axis.dilation)
    padded = torch.nn.functional.pad(image, (begin, end))
    ours = torch.nn.functional.conv1d(padded, weight, None, 1, 0, axis.dilation)
    assert torch.equal(ours, theirs)
