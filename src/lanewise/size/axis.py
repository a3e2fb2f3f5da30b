"""Arithmetic along one axis, in exact integers, all paddings being numbers.

    n input size    k kernel    d dilation    K = d·(k − 1) + 1 the kernel's extent
    s stride        b, e zeros added at the begin and the end        o output size

How a framework comes to those numbers says `conventions`. Sources: PyTorch
`aten/src/ATen/native/Pool.h` and `Convolution.cpp`, TensorFlow's `padding="SAME"`.
Nothing here raises: an output size below 1 says that there is no output position.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd


@dataclass(frozen=True)
class Axis:
    """A window moving along one axis of `n` values; `out`, `begin`, `end` and `reads` tell all.

    `ceil` rounds up, without a last window that would start in the end padding; where `keeps`, that
    one counts too, though it may read nothing at all (Caffe, where there is no padding).
    """

    n: int
    kernel: int
    stride: int = 1
    begin: int = 0
    end: int = 0
    dilation: int = 1
    ceil: bool = False
    keeps: bool = False

    @property
    def extent(self) -> int:
        """How many values the dilated kernel reaches over: d·(k − 1) + 1."""
        return extent(self.kernel, self.dilation)

    @property
    def free(self) -> int:
        """How far the window can move: n + b + e − K (negative: it does not fit)."""
        return self.n + self.begin + self.end - self.extent

    @property
    def drops(self) -> bool:
        """Whether ceil's last window is left out, because it would start in the end padding."""
        if not self.ceil or self.keeps:
            return False
        return -(-self.free // self.stride) * self.stride >= self.n + self.begin

    @property
    def out(self) -> int:
        """The number of windows: ⌊(n + b + e − K)/s⌋ + 1, or with ceil ⌈…⌉ + 1 less the dropped.

        The division rounds down for negative numbers too, so 0 or less means "does not fit".
        """
        if self.ceil:
            return -(-self.free // self.stride) + 1 - self.drops
        return self.free // self.stride + 1

    @property
    def reads(self) -> tuple[range, ...]:
        """The positions under the taps of every window: 0 … n − 1 are values, all others padding
        (or, under ceil's last window, what lies behind it)."""
        starts = (index * self.stride - self.begin for index in range(self.out))
        return tuple(range(start, start + self.extent, self.dilation) for start in starts)

    @property
    def unread(self) -> int:
        """Values at the end, padding included, that no window reads."""
        return max(0, self.free - (self.out - 1) * self.stride)

    @property
    def overhang(self) -> int:
        """How far ceil's last window reaches beyond the end padding."""
        return max(0, (self.out - 1) * self.stride - self.free)

    @property
    def inner(self) -> int:
        """How many windows read values alone: no padding, and nothing behind the end."""
        first = -(-self.begin // self.stride)
        last = min(self.out - 1, (self.n - self.extent + self.begin) // self.stride)
        return max(0, last - first + 1)

    @property
    def read(self) -> int:
        """How many of the n values some window reads."""
        if self.kernel >= self.stride and self.dilation == 1:  # no gaps between the windows
            end = (self.out - 1) * self.stride - self.begin + self.extent
            return max(0, min(self.n, end)) if self.out > 0 else 0
        if self.extent <= self.stride:  # no window reads what another one has read
            return self.real_taps
        return len({at for read in self.reads for at in read if 0 <= at < self.n})

    def counted(self, unpadded: bool = False) -> tuple[int, ...]:
        """How many positions the mean of each window divides by: those on values, and those on
        padding unless `unpadded`, but none behind it. For windows without dilation."""
        first, last = (0, self.n) if unpadded else (-self.begin, self.n + self.end)
        return tuple(min(read.stop, last) - max(read.start, first) for read in self.reads)

    @property
    def real_taps(self) -> int:
        """Over all windows, the kernel taps that lie on real values and not on padding."""
        return sum(self._windows_on_real(tap * self.dilation) for tap in range(self.kernel))

    def _windows_on_real(self, offset: int) -> int:
        """How many windows o have 0 ≤ o·s − b + offset < n."""
        first = max(0, -((offset - self.begin) // self.stride))
        last = min(self.out - 1, (self.n - 1 + self.begin - offset) // self.stride)
        return max(0, last - first + 1)


def extent(kernel: int, dilation: int = 1) -> int:
    """How many values a dilated kernel reaches over: d·(k − 1) + 1."""
    return dilation * (kernel - 1) + 1


def output_size(
    n: int,
    kernel: int,
    stride: int = 1,
    pad: tuple[int, int] = (0, 0),
    dilation: int = 1,
    ceil: bool = False,
) -> int:
    """The number of output positions, below 1 if the window does not fit; `pad` = (begin, end)."""
    return Axis(n, kernel, stride, *pad, dilation, ceil).out


def transposed_size(
    n: int,
    kernel: int,
    stride: int = 1,
    pad: tuple[int, int] = (0, 0),
    dilation: int = 1,
    output_pad: int = 0,
) -> int:
    """The output size of a transposed convolution: (n − 1)·s + K + output_pad − begin − end.

    Below 1 if the padding cuts everything off.
    """
    return (n - 1) * stride + extent(kernel, dilation) + output_pad - sum(pad)


def adaptive_windows(n: int, out: int) -> tuple[tuple[int, int], ...]:
    """The (first, end) of each window of an adaptive pool: ⌊i·n/o⌋ … ⌈(i + 1)·n/o⌉, end excluded.

    The windows overlap and differ in length where o does not divide n.
    """
    return tuple((i * n // out, -(-(i + 1) * n // out)) for i in range(out))


def longest_window(n: int, out: int) -> int:
    """The length of the longest window of an adaptive pool, without walking them all."""
    common = gcd(n, out)
    rest = n % out // common
    return n // out + min(rest, 2)


def same_pad(n: int, kernel: int, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """(begin, end) of `pad same`: the output has ⌈n/s⌉ positions, an odd zero goes to the end.

    At stride 1 this is PyTorch's `padding="same"`; for larger strides, which PyTorch refuses, it is
    TensorFlow's rule, which then depends on n.
    """
    out = -(-n // stride)
    total = max(0, (out - 1) * stride + extent(kernel, dilation) - n)
    return total // 2, total - total // 2
