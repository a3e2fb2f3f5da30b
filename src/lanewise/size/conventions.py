"""The conventions of the field by name: how each reads the numbers that are written of a window.

One function for each sort of layer turns what is written along one axis into plain numbers:

    window(convention, n, kernel, stride, pad, dilation, ceil, pool=…) → Axis
    transposed(convention, n, kernel, stride, pad, dilation, output_pad) → Grown
    adaptive(convention, n, out) → the (first, end) of each window

`Axis.out`, `.begin`, `.end` and `.reads` then say how many windows there are and which positions
each of them reads; below 1 output there is none. `pad` is what stands in a text: zeros at the two
ends, `"same"` or `"valid"`. What a convention cannot say at all is a SizeError without a place.

    >>> axis = window(CONVENTIONS["keras"], 224, 7, 2, "same")
    >>> axis.out, axis.begin, axis.end
    (112, 2, 3)
    >>> [list(read) for read in window(CONVENTIONS["onnx-lower"], 4, 2, 2, (1, 0)).reads]
    [[-1, 0], [1, 2]]

Sources: PyTorch `aten/src/ATen/native/Pool.h` (ceil, its dropped window, pads of at most half a
window); TensorFlow's `padding="SAME"`; Keras 3 `deconv_output_length`; the ONNX operators from
opset 22 on; Caffe `pooling_layer.cpp`, `base_conv_layer.cpp`; Dive into Deep Learning, 7.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from lanewise.errors import SizeError
from lanewise.net.layers import Pair
from lanewise.size.axis import Axis, adaptive_windows, extent, same_pad, transposed_size

Written: TypeAlias = Pair | Literal["same", "valid"]
#: A word that Keras has for a padding, or the zeros that are laid around the input first.
Word: TypeAlias = Literal["same", "valid", "zeros"]


@dataclass(frozen=True)
class Convention:
    """A row of the table. A convention that has no such thing refuses it.

    `same`: where an odd zero of `pad same` lies (end, begin; whole: K − 1 zeros at every stride, an
    odd one at the begin; none: the word is unknown). `numbers`: what a pad's number counts — zeros
    of each side, of both together, or nothing, where there are only words. `ceil`: whether a pool
    rounds up where the text says so, always or never; `ceil_beside_valid`: also where it says
    `pad valid`, which in ONNX has a size of its own. `keeps`: ceil's last window stays wherever it
    starts, where there is no padding. `half`: a pool's pad is at most half its kernel, else less
    than the window. `counts`: an average counts padding. `adaptive`: windows that differ in length.
    """

    name: str
    meaning: str
    same: Literal["end", "begin", "whole", "none"] = "end"
    numbers: Literal["sides", "sum", "words"] = "sides"
    ceil: Literal["said", "always", "never"] = "said"
    ceil_beside_valid: bool = True
    keeps: bool = False
    half: bool = False
    uneven: bool = True
    counts: bool = True
    adaptive: bool = True
    output_pad: bool = True


TORCH = Convention(
    "torch", "PyTorch: zeros of each side; ceil leaves out a last window in the padding", half=True
)
_ONNX = "ONNX, an average counts no padding; pad same is "

CONVENTIONS: dict[str, Convention] = {
    row.name: row
    for row in (
        TORCH,
        Convention(
            "keras",
            "Keras and TensorFlow: padding is same or valid, an odd zero at the end",
            numbers="words",
            ceil="never",
            counts=False,
        ),
        Convention(
            "onnx",
            f"{_ONNX}SAME_UPPER, an odd zero at the end",
            ceil_beside_valid=False,
            counts=False,
            adaptive=False,
        ),
        Convention(
            "onnx-lower",
            f"{_ONNX}SAME_LOWER, an odd zero at the begin",
            same="begin",
            ceil_beside_valid=False,
            counts=False,
            adaptive=False,
        ),
        Convention(
            "onnx-notset",
            "ONNX, an average counts no padding; pads are numbers, never pad same",
            same="none",
            ceil_beside_valid=False,
            counts=False,
            adaptive=False,
        ),
        Convention(
            "onnx-ceil",
            "ONNX with ceil_mode: every pool rounds up",
            ceil="always",
            counts=False,
            adaptive=False,
        ),
        Convention(
            "caffe",
            "Caffe: every pool rounds up; both sides have the same pad",
            same="none",
            ceil="always",
            keeps=True,
            uneven=False,
            adaptive=False,
            output_pad=False,
        ),
        Convention(
            "d2l",
            "Dive into Deep Learning: a pad counts both sides, an odd zero at the begin",
            same="whole",
            numbers="sum",
            half=True,
        ),
    )
}
#: Other names of the same rows.
ALIASES = {
    "pytorch": "torch",
    "tensorflow": "keras",
    "tf": "keras",
    "onnx-upper": "onnx",
}


def convention(name: str) -> Convention:
    """The convention of this name; SizeError, with all names, where there is none."""
    found = CONVENTIONS.get(ALIASES.get(name.lower(), name.lower()))
    if found is None:
        raise SizeError(f"convention {name}: not known; use one of: {', '.join(CONVENTIONS)}")
    return found


def window(
    rule: Convention,
    n: int,
    kernel: int,
    stride: int = 1,
    pad: Written = (0, 0),
    dilation: int = 1,
    ceil: bool = False,
    *,
    pool: bool = False,
    padded: bool = False,
    word: Word | None = None,
) -> Axis:
    """A convolution's or a pool's window over n values.

    `padded`: the other axis has padding, which Caffe's rule asks about. `word`: what Keras is to
    call the padding, where the other axis has a say; else the first of `words`.
    """
    if rule.numbers == "words" and not isinstance(pad, str):
        word = word or words(n, kernel, stride, pad, dilation, ceil)[0]
        pad = pad if word == "zeros" else word
    begin, end = sides(rule, n, kernel, stride, pad, dilation)
    rounds_up = pool and _rounds_up(rule, pad, ceil)
    keeps = rounds_up and rule.keeps and not (padded or begin or end)
    return Axis(n, kernel, stride, begin, end, dilation, rounds_up, keeps)


def sides(
    rule: Convention, n: int, kernel: int, stride: int, pad: Written, dilation: int = 1
) -> Pair:
    """The zeros at the begin and at the end of an axis."""
    if pad == "valid":
        return 0, 0
    if pad == "same":
        return _same(rule, n, kernel, stride, dilation)
    begin, end = pad
    if begin != end and not rule.uneven:
        raise SizeError(
            f"{rule.name} has one pad for both sides, not {begin}:{end}; "
            f"use pad {min(pad)} or {max(pad)}"
        )
    if begin == end and rule.numbers == "sum":
        return begin - begin // 2, begin // 2
    return begin, end


def words(
    n: int, kernel: int, stride: int, pad: Pair, dilation: int = 1, ceil: bool = False
) -> tuple[Word, ...]:
    """What Keras may call a padding of numbers, the simplest first; never empty.

    `valid` and `same` stand where they give the size that the numbers give. Else, and where the two
    ends differ, zeros are laid around the input first (ZeroPadding2D), whatever comes of ceil.
    """
    meant = Axis(n, kernel, stride, *pad, dilation, ceil)
    none = Axis(n, kernel, stride, 0, 0, dilation)
    found: list[Word] = []
    if pad == (0, 0) and none.out == meant.out:
        found.append("valid")
    if pad[0] == pad[1] and meant.out == -(-n // stride):
        found.append("same")
    return (*found, "zeros")


def transposed(
    rule: Convention,
    n: int,
    kernel: int,
    stride: int = 1,
    pad: Written = (0, 0),
    dilation: int = 1,
    output_pad: int = 0,
) -> Grown:
    """A transposed convolution of n values: what is cut off its output, and its size."""
    if output_pad and not rule.output_pad:
        raise SizeError(f"{rule.name} has no outputpad, here {output_pad}; leave it out")
    if rule.numbers == "words":
        return _keras_transposed(n, kernel, stride, pad, dilation, output_pad)
    if pad == "same":
        return _same_transposed(rule, n, kernel, stride, dilation, output_pad)
    begin, end = sides(rule, n, kernel, stride, pad, dilation)
    return Grown(n, kernel, stride, begin, end, dilation, output_pad)


@dataclass(frozen=True)
class Grown:
    """A transposed convolution along an axis: `begin` and `end` are cut off what its windows write,
    and `output_pad` zeros follow it."""

    n: int
    kernel: int
    stride: int
    begin: int = 0
    end: int = 0
    dilation: int = 1
    output_pad: int = 0

    @property
    def out(self) -> int:
        """The output size: (n − 1)·s + K + output_pad − begin − end; below 1 if nothing is left."""
        pad, longer = (self.begin, self.end), self.output_pad
        return transposed_size(self.n, self.kernel, self.stride, pad, self.dilation, longer)

    @property
    def axis(self) -> Axis:
        """The convolution whose gradient it is: over the output, with n positions."""
        longer = self.output_pad // self.stride * self.stride
        return Axis(
            self.out, self.kernel, self.stride, self.begin, self.end - longer, self.dilation
        )


def adaptive(rule: Convention, n: int, out: int) -> tuple[tuple[int, int], ...]:
    """The windows of an adaptive pool; SizeError where they differ in length and may not."""
    if not rule.adaptive and n % out:
        fitting = [str(one) for one in range(1, n + 1) if n % one == 0]
        raise SizeError(
            f"{rule.name} has no windows of different lengths, and {out} do not divide {n}; "
            f"use {' or '.join(', '.join(fitting).rsplit(', ', 1))}"
        )
    return adaptive_windows(n, out)


def most_pad(rule: Convention, axis: Axis) -> int:
    """The largest pad that a pool of this window may have at one side."""
    return axis.kernel // 2 if rule.half else axis.extent - 1


def _rounds_up(rule: Convention, pad: Written, ceil: bool) -> bool:
    """Whether the last window may hang over the end. In `same` it never does, whatever is said."""
    if rule.ceil == "said" and pad == "valid" and not rule.ceil_beside_valid:
        return False
    return rule.ceil == "always" or (rule.ceil == "said" and ceil)


def _same(rule: Convention, n: int, kernel: int, stride: int, dilation: int) -> Pair:
    if rule.same == "none":
        begin, end = same_pad(n, kernel, stride, dilation)
        raise SizeError(f"{rule.name} has no pad same; use a number, like pad {max(begin, end)}")
    if rule.same == "whole":
        total = extent(kernel, dilation) - 1
        return total - total // 2, total // 2
    begin, end = same_pad(n, kernel, stride, dilation)
    return (begin, end) if rule.same == "end" else (end, begin)


def _keras_transposed(
    n: int, kernel: int, stride: int, pad: Written, dilation: int, output_pad: int
) -> Grown:
    """Keras' sizes are those of its two words: valid is (n − 1)·s + max(K, s), same is n·s; with an
    output padding, valid is (n − 1)·s + K + it, same (n − 1)·s + K mod 2 + it.

    Numbers are `same` where that has their size; else they are cut off (Cropping2D).
    """
    reach = extent(kernel, dilation)
    steps = (n - 1) * stride
    if pad == (0, 0) or pad == "valid":
        longer = output_pad or max(0, stride - reach)
        return Grown(n, kernel, stride, 0, 0, dilation, longer)
    same = steps + reach % 2 + output_pad if output_pad else n * stride
    if not isinstance(pad, str):
        meant = transposed_size(n, kernel, stride, pad, dilation, output_pad)
        if pad[0] != pad[1] or meant not in (same, n * stride):
            return Grown(n, kernel, stride, *pad, dilation, output_pad)
        same = meant
    return _cut_to(n, kernel, stride, dilation, same, "end")


def _same_transposed(
    rule: Convention, n: int, kernel: int, stride: int, dilation: int, output_pad: int
) -> Grown:
    """`same` of the others: n·s values."""
    if rule.same == "none":
        raise SizeError(f"{rule.name} has no pad same; use a number")
    odd = "end" if rule.same == "end" else "begin"
    return _cut_to(n, kernel, stride, dilation, n * stride, odd)


def _cut_to(n: int, kernel: int, stride: int, dilation: int, out: int, odd: str) -> Grown:
    """What is cut off, as evenly as it goes, so that `out` values are left."""
    surplus = (n - 1) * stride + extent(kernel, dilation) - out
    less, more = surplus // 2, surplus - surplus // 2
    if surplus < 0:
        return Grown(n, kernel, stride, 0, 0, dilation, -surplus)
    begin, end = (less, more) if odd == "end" else (more, less)
    return Grown(n, kernel, stride, begin, end, dilation)
