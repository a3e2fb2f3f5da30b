"""Every convention along one axis: published vectors, PyTorch, Keras.

Which pixels a window reads shows in values: a convolution with the weights 1, 7, 49, … over the
image 1, 2, 3, … has another value for every other way to lie.
"""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from convention_values import NUMBERS, SAME, convolved, few, image, padded, spread, weights
from lanewise.errors import SizeError
from lanewise.size import conventions
from lanewise.size.axis import Axis
from lanewise.size.conventions import (
    CONVENTIONS,
    adaptive,
    convention,
    most_pad,
    sides,
    transposed,
    window,
    words,
)

TORCH, KERAS, ONNX, LOWER, CAFFE, D2L = (
    CONVENTIONS[name] for name in ("torch", "keras", "onnx", "onnx-lower", "caffe", "d2l")
)

# n, kernel, stride, pad → floor, ceil as PyTorch and ONNX drop its last window, ceil that keeps it.
POOLS = [
    ((6, 1, 2, 0), 3, 3, 4),
    ((7, 1, 2, 0), 4, 4, 4),
    ((32, 1, 2, 0), 16, 16, 17),
    ((8, 3, 4, 0), 2, 2, 3),
    ((10, 3, 4, 0), 2, 3, 3),
    ((9, 4, 4, 2), 3, 3, 4),
    ((2, 3, 3, 1), 1, 1, 2),
    ((17, 2, 2, 1), 9, 9, 10),
    ((5, 2, 2, 1), 3, 3, 4),
    ((5, 3, 3, 1), 2, 2, 3),
    ((25, 2, 2, 0), 12, 13, 13),
    ((112, 3, 2, 0), 55, 56, 56),
]


def test_the_page_s_examples() -> None:
    assert doctest.testmod(conventions).failed == 0


@pytest.mark.parametrize(("written", "floor", "ceil", "naive"), POOLS)
def test_pools(written: tuple[int, ...], floor: int, ceil: int, naive: int) -> None:
    n, kernel, stride, pad = written
    sizes = (n, kernel, stride, (pad, pad))
    assert window(TORCH, *sizes, pool=True).out == floor
    for rule in (TORCH, ONNX, LOWER):
        assert window(rule, *sizes, ceil=True, pool=True).out == ceil
    assert window(CONVENTIONS["onnx-ceil"], *sizes, pool=True).out == ceil
    # Caffe always rounds up, and drops the window in the padding only where there is padding.
    assert window(CAFFE, *sizes, pool=True).out == (ceil if pad else naive)
    assert window(CAFFE, *sizes, pool=True, padded=True).out == ceil
    assert Axis(n, kernel, stride, pad, pad, ceil=True, keeps=True).out == naive
    # The sum of both sides is what D2L counts.
    assert window(D2L, n, kernel, stride, (2 * pad, 2 * pad), pool=True).out == floor


@pytest.mark.parametrize(("written", "expected"), SAME)
def test_same(written: tuple[int, ...], expected: tuple[int, ...]) -> None:
    n, kernel, stride, dilation = written
    out, begin, end = expected
    for name in ("torch", "keras", "onnx", "onnx-ceil"):
        axis = window(CONVENTIONS[name], n, kernel, stride, "same", dilation)
        assert (axis.out, axis.begin, axis.end) == expected
    axis = window(LOWER, n, kernel, stride, "same", dilation)
    assert (axis.out, axis.begin, axis.end) == (out, end, begin)
    # D2L adds K − 1 rows whatever the stride, and rounds their upper half up.
    whole = dilation * (kernel - 1)
    axis = window(D2L, n, kernel, stride, "same", dilation)
    assert (axis.out, axis.begin, axis.end) == (out, -(-whole // 2), whole // 2)


def test_what_a_convention_cannot_say() -> None:
    for name in ("caffe", "onnx-notset"):
        with pytest.raises(SizeError, match=f"{name} has no pad same; use a number, like pad 3"):
            window(CONVENTIONS[name], 224, 7, 2, "same")
        with pytest.raises(SizeError, match=f"{name} has no pad same"):
            transposed(CONVENTIONS[name], 7, 3, 2, "same")
    with pytest.raises(SizeError, match="one pad for both sides, not 1:2; use pad 1 or 2"):
        window(CAFFE, 8, 3, 1, (1, 2))
    with pytest.raises(SizeError, match="caffe has no outputpad, here 1"):
        transposed(CAFFE, 8, 3, 2, (1, 1), output_pad=1)
    for name in ("caffe", "onnx"):
        with pytest.raises(SizeError, match="7 do not divide 10; use 1, 2, 5 or 10"):
            adaptive(CONVENTIONS[name], 10, 7)
    with pytest.raises(SizeError, match="convention kreas: not known; use one of: torch, keras"):
        convention("kreas")
    assert convention("TensorFlow") is KERAS
    assert convention("onnx-upper") is ONNX


# ---- which pixels: by values ---------------------------------------------------------------------


def test_reads_are_the_positions_under_the_taps() -> None:
    axis = Axis(5, 3, 2, 1, 0, dilation=2)
    assert [list(read) for read in axis.reads] == [[-1, 1, 3]]
    assert [list(read) for read in Axis(3, 2, 2, ceil=True).reads] == [[0, 1], [2, 3]]
    assert list(Axis(6, 1, 2, ceil=True, keeps=True).reads[-1]) == [6]


@few
@padded
def test_torch_convolution(
    n: int, kernel: int, stride: int, dilation: int, pad: tuple[int, int]
) -> None:
    torch = pytest.importorskip("torch")
    axis = window(TORCH, n, kernel, stride, (pad[0], pad[0]), dilation)
    taps = torch.tensor(weights(kernel)).reshape(1, 1, -1)
    values = torch.tensor(image(n)).reshape(1, 1, -1)
    try:
        theirs = torch.nn.functional.conv1d(values, taps, None, stride, pad[0], dilation)
    except RuntimeError:
        assert axis.out < 1
    else:
        assert convolved(axis) == theirs.ravel().tolist()


@few
@given(**NUMBERS, pad=st.integers(0, 4), ceil=st.booleans())  # type: ignore[arg-type]
def test_torch_max_pool(
    n: int, kernel: int, stride: int, dilation: int, pad: int, ceil: bool
) -> None:
    """The illegal ones too: too much padding, or no window."""
    torch = pytest.importorskip("torch")
    axis = window(TORCH, n, kernel, stride, (pad, pad), dilation, ceil, pool=True)
    values = torch.tensor(-image(n)).reshape(1, 1, 1, -1)
    along = (1, kernel), (1, stride), (0, pad), (1, dilation)
    try:
        theirs = torch.nn.functional.max_pool2d(values, *along, ceil)
    except RuntimeError:
        assert axis.out < 1 or pad > most_pad(TORCH, axis)
    else:
        assert pad <= most_pad(TORCH, axis)
        assert [
            max((-float(at + 1) for at in read if 0 <= at < n), default=-np.inf)
            for read in axis.reads
        ] == theirs.ravel().tolist()


@few
@given(**NUMBERS, pad=st.integers(0, 3), longer=st.integers(0, 3))  # type: ignore[arg-type]
def test_torch_transposed_convolution(
    n: int, kernel: int, stride: int, dilation: int, pad: int, longer: int
) -> None:
    torch = pytest.importorskip("torch")
    assume(longer < max(stride, dilation))
    grown = transposed(TORCH, n, kernel, stride, (pad, pad), dilation, longer)
    taps = torch.tensor(weights(kernel)).reshape(1, 1, -1)
    values = torch.tensor(image(n)).reshape(1, 1, -1)
    try:
        theirs = torch.nn.functional.conv_transpose1d(
            values, taps, None, stride, pad, longer, 1, dilation
        )
    except RuntimeError:
        assert grown.out < 1
    else:
        assert spread(grown) == theirs.ravel().tolist()


@pytest.mark.parametrize("n", range(1, 12))
@pytest.mark.parametrize("out", range(1, 8))
def test_torch_adaptive_pool(n: int, out: int) -> None:
    torch = pytest.importorskip("torch")
    values = torch.tensor(image(n)).reshape(1, 1, -1)
    theirs = torch.nn.functional.adaptive_avg_pool1d(values, out).ravel().tolist()
    for rule in (TORCH, KERAS, D2L):
        ours = [image(n)[first:end].mean() for first, end in adaptive(rule, n, out)]
        assert ours == pytest.approx(theirs)
    if n % out == 0:
        assert adaptive(ONNX, n, out) == adaptive(TORCH, n, out)


# ---- Keras ---------------------------------------------------------------------------------------


@few
@padded
def test_keras_words_give_the_size_that_the_numbers_give(
    n: int, kernel: int, stride: int, dilation: int, pad: tuple[int, int]
) -> None:
    meant = Axis(n, kernel, stride, *pad, dilation)
    axis = window(KERAS, n, kernel, stride, pad, dilation)
    assert axis.out == meant.out
    word = words(n, kernel, stride, pad, dilation)[0]
    if word == "zeros":
        assert (axis.begin, axis.end) == pad
    else:
        assert (axis.begin, axis.end) == sides(KERAS, n, kernel, stride, word, dilation)


def test_keras_has_no_ceil_but_same() -> None:
    # 112 → 56 is what same gives; 11 → 4 neither word gives.
    assert window(KERAS, 112, 3, 2, (0, 0), ceil=True, pool=True).out == 56
    assert window(TORCH, 11, 3, 3, (0, 0), ceil=True, pool=True).out == 4
    assert words(10, 4, 4, (0, 0), ceil=True) == ("same", "zeros")
    assert window(TORCH, 10, 2, 4, (0, 0), ceil=True, pool=True).out == 3
    assert window(TORCH, 9, 5, 3, (0, 0), ceil=True, pool=True).out == 3
    assert window(TORCH, 10, 5, 3, (0, 0), ceil=True, pool=True).out == 3
    assert window(KERAS, 10, 5, 3, (0, 0), ceil=True, pool=True).out == 2


# n, kernel, stride, pad, outputpad → Keras 3's deconv_output_length: valid and same.
KERAS_TRANSPOSED = [
    ((4, 3, 2, "valid", 0), 9),
    ((4, 3, 2, "same", 0), 8),
    ((4, 2, 3, "valid", 0), 12),
    ((4, 2, 3, "same", 0), 12),
    ((4, 3, 2, "same", 1), 8),
    ((4, 4, 2, "same", 1), 7),
    ((4, 3, 2, "valid", 1), 10),
    ((7, 5, 1, "valid", 0), 11),
]


@pytest.mark.parametrize(("written", "out"), KERAS_TRANSPOSED)
def test_keras_transposed(written: tuple[int, int, int, Any, int], out: int) -> None:
    n, kernel, stride, pad, longer = written
    assert transposed(KERAS, n, kernel, stride, pad, 1, longer).out == out


def test_keras_transposed_cuts_as_same_pads() -> None:
    """PyTorch's pad 1 and output padding 1 cut one row off the top; Keras' same none."""
    torch = transposed(TORCH, 8, 3, 2, (1, 1), output_pad=1)
    keras = transposed(KERAS, 8, 3, 2, (1, 1), output_pad=1)
    assert torch.out == keras.out == 16
    assert (torch.begin, keras.begin) == (1, 0)
    assert torch.axis.reads[0] == range(-1, 2)
    assert keras.axis.reads[0] == range(3)


def test_every_convention_is_told_on_the_page() -> None:
    page = Path(__file__).parent.parent / "docs" / "sizes.md"
    rows = [line for line in page.read_text("utf-8").split("\n") if line.startswith("| `")]
    told = [line.split("`")[1] for line in rows]
    assert [name for name in told if name in CONVENTIONS] == list(CONVENTIONS)
