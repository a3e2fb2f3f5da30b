"""The size rule read backwards, along one axis, in exact integers.

    n input size    K kernel's extent    s stride    P zeros at both ends together    o output size

o = ⌊(n + P − K)/s⌋ + 1 says nothing else than (o − 1)·s ≤ n + P − K < o·s. Solved for each number
that gives an interval, whose whole numbers are all the solutions there are:

    P    (o − 1)·s + K − n  …  o·s + K − n − 1        s numbers in a row
    K    n + P − o·s + 1    …  n + P − (o − 1)·s      s numbers in a row
    n    (o − 1)·s + K − P  …  o·s + K − P − 1        s numbers in a row
    s    ⌊m/o⌋ + 1          …  ⌊m/(o − 1)⌋            m = n + P − K; for o = 1 every s > m

The intervals may hold numbers that make no sense (a negative padding): whoever asks cuts them.
"""

from __future__ import annotations


def pads(n: int, extent: int, stride: int, out: int) -> range:
    """Every total padding that gives `out`."""
    least = (out - 1) * stride + extent - n
    return range(least, least + stride)


def extents(n: int, pad: int, stride: int, out: int) -> range:
    """Every extent of a kernel that gives `out`; with dilation d, only those ≡ 1 (mod d) exist."""
    most = n + pad - (out - 1) * stride
    return range(most - stride + 1, most + 1)


def inputs(extent: int, pad: int, stride: int, out: int) -> range:
    """Every input size that gives `out`."""
    least = (out - 1) * stride + extent - pad
    return range(least, least + stride)


def strides(free: int, out: int, most: int) -> range:
    """Every stride up to `most` that gives `out`, where the window can move `free` = n + P − K."""
    if free < 0:
        return range(0)
    last = most if out == 1 else free // (out - 1)
    return range(free // out + 1, min(last, most) + 1)


def ceil_strides(n: int, begin: int, free: int, out: int, most: int) -> range:
    """The same for windows counted with ⌈…⌉, less one that would start in the end padding.

    Windows begin at 0, s, 2s … below both free + s and n + begin, so there are
    min(⌈free/s⌉ + 1, ⌈(n + begin)/s⌉): at most `out` from one stride on, at least `out` up to one.
    """
    real = n + begin
    least = -(-real // out)
    if out > 1:
        least = min(least, -(-free // (out - 1)))
    elif free <= 0:
        least = 1
    last = most if out == 1 else (real - 1) // (out - 1)
    if out > 2:
        last = min(last, (free - 1) // (out - 2))
    elif out == 2 and free <= 0:
        last = 0
    elif out == 1:
        # Some stride must leave a window at all: free + s ≥ 1.
        least = max(least, 1 - free)
    return range(max(1, least), min(last, most) + 1)
