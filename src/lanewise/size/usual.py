"""Which of several solutions people would write: what is usual, with the reason.

Each rule gives points to what is unusual about one number of a window; the solution with the
fewest stands first. What is usual is also said: `same padding (3 − 1)/2`, `stride 2 halves`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

# What published networks use, most used first: number → points.
_KERNELS = {3: 0, 5: 3, 7: 4, 1: 5, 2: 5, 4: 6, 9: 6, 11: 8}
_POOLS = {2: 0, 3: 1}
_STRIDES = {1: 0, 2: 1, 4: 3, 8: 5, 16: 7, 32: 9}

# (points, reason with {fields} of the step, or "" where there is nothing to say).
Verdict: TypeAlias = tuple[int, str]
_USUAL: Verdict = (0, "")


class Step(NamedTuple):
    """A window along one axis: reach is the dilated kernel's extent, `rest` the rows at the end,
    padding included, that no window reads."""

    n: int
    kernel: int
    stride: int
    begin: int
    end: int
    dilation: int
    reach: int
    rest: int
    pool: bool
    transposed: bool

    @property
    def bare(self) -> bool:
        """Whether there is no padding."""
        return self.begin == 0 == self.end


def _kernel(step: Step) -> Verdict:
    kernel = step.kernel
    usual = _POOLS if step.pool else _KERNELS
    points = usual.get(kernel, -1)
    if points < 0:
        points = (8 if kernel % 2 else 12) + kernel // 8
    if kernel == step.stride > 1 and step.bare:
        return min(points, 5), "windows side by side"
    if step.reach == step.n > 1 and step.bare:
        return min(points, 3), "one window is the whole map"
    return points, "usual {kernel}x{kernel}" if kernel in (3, 5, 7) else ""


def _pad(step: Step) -> Verdict:
    begin, reach = step.begin, step.reach
    if begin != step.end:
        return 12 + abs(begin - step.end), "one end more than the other"
    if not begin:
        return (2, "no padding") if reach > 1 else _USUAL
    if 2 * begin == reach - 1:
        return 0, "same padding ({reach} − 1)/2"
    if begin == reach - 1:
        return 14, "full padding {reach} − 1"
    return 10, ""


def _stride(step: Step) -> Verdict:
    stride = step.stride
    if stride == 2:
        return 1, "stride 2 doubles" if step.transposed else "stride 2 halves"
    if stride == step.kernel > 1 and step.bare:
        return 1, ""
    return _STRIDES.get(stride, 6 + stride // 2), ""


def _skipped(step: Step) -> Verdict:
    """Strides longer than the kernel; 1x1 with stride 2 is the shortcut of the ResNets."""
    if step.stride <= step.reach or step.transposed or (step.kernel, step.stride) == (1, 2):
        return _USUAL
    return 60, "skips rows between the windows"


def _dilation(step: Step) -> Verdict:
    if step.dilation == 1:
        return _USUAL
    return 3 + step.dilation, "reaches over {reach}"


def _unread(step: Step) -> Verdict:
    """Rows of the map itself at its end that no window reads."""
    if step.rest <= step.end or step.transposed:
        return _USUAL
    return 3, "rows at end unread"


# Field of a layer → the rule about the number that stands in it.
RULES: dict[str, Callable[[Step], Verdict]] = {
    "kernel": _kernel,
    "stride": _stride,
    "pad": _pad,
    "dilation": _dilation,
}
ALWAYS: tuple[Callable[[Step], Verdict], ...] = (_skipped, _unread)
_ALL = (*RULES.values(), *ALWAYS)


def step(
    n: int,
    kernel: int,
    stride: int,
    pad: tuple[int, int],
    dilation: int = 1,
    *,
    pool: bool = False,
    transposed: bool = False,
) -> Step:
    """The window with these numbers over n values."""
    reach = dilation * (kernel - 1) + 1
    rest = (n + pad[0] + pad[1] - reach) % stride
    return Step(n, kernel, stride, *pad, dilation, reach, rest, pool, transposed)


def points(step: Step) -> int:
    """How unusual a window is; the fewer, the more usual."""
    return sum([rule(step)[0] for rule in _ALL])


def reasons(step: Step, fields: frozenset[str]) -> Iterator[str]:
    """What to say of a window whose `fields` were found."""
    said = [rule for name, rule in RULES.items() if name in fields]
    for rule in (*said, *ALWAYS):
        _, reason = rule(step)
        if reason:
            yield reason.format(**step._asdict())
