"""From one size to another in n layers alike, without a network: every kernel, stride and padding.

Along one axis, each layer over the output of the one before. The more the stride, the smaller what
comes out, whatever the number of layers: so the strides that give the wanted size are an interval,
whose ends are found by halving; kernels and paddings are counted through within their bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from textwrap import wrap
from typing import Any

from lanewise.errors import SizeError
from lanewise.size.axis import extent
from lanewise.size.bounds import Bounds
from lanewise.size.table import GAP, NO_BREAK, aligned
from lanewise.size.usual import points, reasons, step

BOUNDS = Bounds(whole_map=True)
MOST_LAYERS = 100
LARGEST = 4096
# So many sizes away from the wanted one is near; so many of them are told.
_NEAR, _TOLD = 64, 3


@dataclass(frozen=True)
class Chain:
    """What is asked: from `n` to `out` in `layers` layers, numbers that are given, None to find."""

    n: int
    out: int
    layers: int = 1
    kernel: int | None = None
    stride: int | None = None
    pad: int | None = None
    dilation: int = 1

    @property
    def found(self) -> frozenset[str]:
        """The fields that are looked for."""
        fields = {"kernel": self.kernel, "stride": self.stride, "pad": self.pad}
        return frozenset(name for name, number in fields.items() if number is None)


@dataclass(frozen=True)
class Link:
    """A solution: each layer's numbers, and the sizes from the first input to the last output."""

    kernel: int
    stride: int
    pad: int
    dilation: int
    sizes: tuple[int, ...]

    @property
    def written(self) -> str:
        """As the notation has it: `k3 stride2 pad1`."""
        dilation = f" dilation{self.dilation}" if self.dilation > 1 else ""
        return f"k{self.kernel} stride{self.stride} pad{self.pad}{dilation}"


def solve_chain(asked: Chain) -> list[Link]:
    """Every solution within the bounds, the most usual first. SizeError where there is none, with
    the nearest sizes that there are."""
    _require_sensible(asked)
    links = sorted(_links(asked), key=lambda link: (_points(link), *_numbers(link)))
    if not links:
        raise SizeError(_none(asked))
    return links


def as_text(asked: Chain, links: Sequence[Link], most: int | None, width: int, notes: bool) -> str:
    """The solutions for a terminal, ending in a newline; at most `most` of them."""
    layers = f", {asked.layers} layers alike" if asked.layers > 1 else ", one layer"
    lines = [f"{asked.n} → {asked.out}{layers}", ""]
    lines += _table(asked, links[:most], width)
    if notes:
        lines.append("")
        for note in _notes(asked, links, most):
            parts = wrap(
                note, width, subsequent_indent=GAP, break_on_hyphens=False, break_long_words=False
            )
            lines += [part.replace(NO_BREAK, " ") for part in parts]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def as_json(asked: Chain, links: Sequence[Link], most: int | None) -> dict[str, Any]:
    """The document of `lanewise size --from N --to N --json`."""
    return {
        "from": asked.n,
        "to": asked.out,
        "layers": asked.layers,
        "count": len(links),
        "bounds": list(_bounds(asked)),
        "solutions": [
            {
                "kernel": link.kernel,
                "stride": link.stride,
                "pad": link.pad,
                "dilation": link.dilation,
                "sizes": list(link.sizes),
                "reasons": list(_reasons(asked, link)),
            }
            for link in links[:most]
        ],
    }


def _require_sensible(asked: Chain) -> None:
    if asked.layers > MOST_LAYERS:
        raise SizeError(f"--layers {asked.layers}: use at most {MOST_LAYERS}")
    for option, size in (("--from", asked.n), ("--to", asked.out)):
        if size > LARGEST:
            raise SizeError(f"{option} {size}: use at most {LARGEST}")
    if asked.n > LARGEST // 4 and len(asked.found) == 3:
        raise SizeError(f"--from {asked.n} with all to be found takes long; say --kernel")


def _links(asked: Chain) -> Iterator[Link]:
    most = BOUNDS.extent(asked.n)
    kernels = range(1, most + 1) if asked.kernel is None else (asked.kernel,)
    for kernel in kernels:
        reach = extent(kernel, asked.dilation)
        if asked.kernel is None and reach > most:
            return
        for pad in range(reach) if asked.pad is None else (asked.pad,):
            for stride in _strides(asked, reach, pad):
                sizes = tuple(_sizes(asked.n, asked.layers, 2 * pad - reach, stride))
                if sizes[-1] == asked.out:
                    yield Link(kernel, stride, pad, asked.dilation, sizes)


def _strides(asked: Chain, reach: int, pad: int) -> Sequence[int]:
    """The strides whose last output is the wanted one."""
    if asked.stride is not None:
        return (asked.stride,)
    gain, most = 2 * pad - reach, BOUNDS.stride(asked.n)

    def last(stride: int) -> int:
        size = asked.n
        for _ in range(asked.layers):
            size = (size + gain) // stride + 1 if size + gain >= 0 and size else 0
        return size

    least = _first(lambda stride: last(stride) <= asked.out, most)
    beyond = _first(lambda stride: last(stride) < asked.out, most)
    return range(least, beyond)


def _first(holds: Callable[[int], bool], most: int) -> int:
    """The first number from 1 of which something holds that holds of all above it; most + 1 if it
    holds of none."""
    low, high = 1, most + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _sizes(n: int, layers: int, gain: int, stride: int) -> Iterator[int]:
    """The input, and each layer's output as long as there is one, else 0 at last."""
    yield n
    for _ in range(layers):
        if n + gain < 0:
            yield 0
            return
        n = (n + gain) // stride + 1
        yield n


def _points(link: Link) -> int:
    """How unusual the layers are, together."""
    return sum(points(step(n, *_numbers(link))) for n in link.sizes[:-1])


def _numbers(link: Link) -> tuple[int, int, tuple[int, int], int]:
    return link.kernel, link.stride, (link.pad, link.pad), link.dilation


def _reasons(asked: Chain, link: Link) -> Iterator[str]:
    told: dict[str, None] = {}
    for n in link.sizes[:-1]:
        told.update(dict.fromkeys(reasons(step(n, *_numbers(link)), asked.found)))
    yield from told


def _table(asked: Chain, links: Sequence[Link], width: int) -> Iterator[str]:
    rows = [("", "each layer", "sizes")]
    for number, link in enumerate(links, 1):
        rows.append((str(number), link.written, _way(link.sizes)))
    left = aligned(rows, (True, False, False))
    indent = max(map(len, left))
    told = ["reason", *(", ".join(_unbroken(_reasons(asked, link))) for link in links)]
    room = max(24, width - indent - len(GAP))
    for line, reason in zip(left, told, strict=True):
        first, *others = [part.replace(NO_BREAK, " ") for part in wrap(reason, room)] or [""]
        yield f"{line:<{indent}}{GAP}{first}"
        yield from (f"{'':<{indent}}{GAP}{other}" for other in others)


def _unbroken(told: Iterator[str]) -> Iterator[str]:
    return (reason.replace(" ", NO_BREAK) for reason in told)


def _way(sizes: tuple[int, ...]) -> str:
    """`224 → 112 → 56`; of many, the first and the last."""
    shown = [str(size) for size in sizes]
    if len(shown) > 6:
        shown = [*shown[:3], "…", *shown[-2:]]
    return " → ".join(shown)


def _notes(asked: Chain, links: Sequence[Link], most: int | None) -> Iterator[str]:
    shown = len(links[:most])
    if shown < len(links):
        yield f"{len(links):,} solutions, the {shown} most usual here; --all lists every one."
    else:
        yield "1 solution." if shown == 1 else f"{shown} solutions, the most usual first."
    told = "; ".join(_bounds(asked))
    if told:
        yield f"Looked for: {told}."
    if asked.layers > 1:
        kernel = links[0].kernel if asked.kernel is None else asked.kernel
        n, out, layers = asked.n, asked.out, asked.layers
        yield "Layers that differ:"
        yield (
            f'lanewise size "input 1x{n}x{n}; {layers} x {{ conv 1 k{kernel} stride ? pad ? }}; '
            f'want 1x{out}x{out}"'
        ).replace(" ", NO_BREAK)


def _bounds(asked: Chain) -> Iterator[str]:
    return BOUNDS.told(set(asked.found), pools=False)


def _none(asked: Chain) -> str:
    what = " ".join(
        f"{name} {number}"
        for name, number in (
            ("kernel", asked.kernel),
            ("stride", asked.stride),
            ("pad", asked.pad),
        )
        if number is not None
    )
    layers = f"{asked.layers} layers alike" if asked.layers > 1 else "one layer"
    given = f" of {what}" if what else ""
    near = ", ".join(_nearest(asked))
    told = f"nearest: {near}" if near else "nor is there a size near it; use other numbers"
    return f"from {asked.n} to {asked.out} in {layers}{given}: no solution; {told}"


def _nearest(asked: Chain) -> Iterator[str]:
    told = 0
    for away in count(1):
        for out in (asked.out + away, asked.out - away):
            if out < 1:
                continue
            links = _links(Chain(asked.n, out, *_given(asked)))
            best = min(links, key=lambda link: (_points(link), *_numbers(link)), default=None)
            if best is not None:
                told += 1
                yield f"{out} with {best.written}"
            if told == _TOLD:
                return
        if away >= _NEAR:
            return


def _given(asked: Chain) -> tuple[int, int | None, int | None, int | None, int]:
    return asked.layers, asked.kernel, asked.stride, asked.pad, asked.dilation
