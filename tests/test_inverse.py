"""The size rule read backwards: every interval and every choice, against counting through."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lanewise.errors import SizeError
from lanewise.net.layers import AvgPool, Conv, DepthwiseConv, MaxPool, TransposedConv
from lanewise.net.unknown import Unknown, with_numbers
from lanewise.size.axis import Axis
from lanewise.size.bounds import Bounds
from lanewise.size.choices import TooMany, choices, window_unknowns
from lanewise.size.inverse import ceil_strides, extents, inputs, pads, strides
from lanewise.size.shapes import SHAPES

FEW = Bounds(whole_map=False, most=4)
K, S, P, D, MORE = (Unknown(name) for name in ("kernel", "stride", "pad", "dilation", "output_pad"))
K2, S2 = Unknown("kernel", 1), Unknown("stride", 1)
TOP, BOTTOM, LEFT = (Unknown("pad", place) for place in range(3))


@pytest.mark.parametrize("out", range(1, 6))
def test_intervals_are_all_there_is(out: int) -> None:
    for n, kernel, stride, total in product(range(1, 9), range(1, 6), range(1, 5), range(6)):
        hit = Axis(n, kernel, stride, total).out == out
        assert (total in pads(n, kernel, stride, out)) == hit
        assert (kernel in extents(n, total, stride, out)) == hit
        assert (n in inputs(kernel, total, stride, out)) == hit
        assert (stride in strides(n + total - kernel, out, 4)) == hit


def test_strides_of_windows_that_round_up() -> None:
    for n, kernel, begin, end in product(range(1, 10), range(1, 7), range(4), range(4)):
        if max(begin, end) >= kernel:
            continue
        free = n + begin + end - kernel
        by_out: dict[int, list[int]] = {}
        for stride in range(1, 12):
            out = Axis(n, kernel, stride, begin, end, ceil=True).out
            by_out.setdefault(out, []).append(stride)
        for out in range(1, n + begin + end + 2):
            found = ceil_strides(n, begin, free, out, 11)
            assert list(found) == by_out.get(out, []), (n, kernel, begin, end, out)


LAYERS: list[Any] = [
    Conv(1, (3, 3), (S, S), ((P, P), (P, P))),
    Conv(1, (K, K), (S, S), ((P, P), (P, P)), (D, D)),
    Conv(1, (K, 3), (1, S), ((TOP, BOTTOM), (0, 1))),
    Conv(1, (K, K2), (2, 2), ((1, 1), (LEFT, LEFT))),
    Conv(1, (K, K), (S, S2), "same"),
    Conv(1, (K, K), (S, S), "valid", (2, 1)),
    DepthwiseConv((K, K), 2, (S, S), ((TOP, BOTTOM), (TOP, BOTTOM)), (1, 2)),
    MaxPool((K, K), (K, K)),
    MaxPool((K, K), (S, S), ((P, P), (P, P)), ceil=True),
    AvgPool((K, 2), (S, S), ((0, 1), (0, 1)), ceil=True),
    AvgPool((K, K), (S, S), "same", ceil=True),
    TransposedConv(1, (K, K), (S, S), ((P, P), (P, P)), (MORE, MORE)),
    TransposedConv(1, (K, 4), (S, S2), ((P, P), (1, 1)), (0, MORE), (D, 1)),
]


def counted(layer: Any, size: tuple[int, int]) -> dict[tuple[int, int], set[tuple[int, ...]]]:
    """Every combination of small numbers, by what the shape rule makes of it."""
    names = window_unknowns(layer)
    ranges = [
        range(1 if one.field_name in ("kernel", "stride", "dilation") else 0, 5) for one in names
    ]
    found: dict[tuple[int, int], set[tuple[int, ...]]] = {}
    for numbers in product(*ranges):
        known = with_numbers(layer, dict(zip(names, numbers, strict=True)))
        if within(layer, known):
            try:
                out = SHAPES[type(layer)](known, (1, *size))[1:]
            except SizeError:
                continue
            found.setdefault(out, set()).add(numbers)
    return found


def within(layer: Any, known: Any) -> bool:
    """Whether the numbers that were found are within the bounds, each axis for itself."""
    for axis in (0, 1):
        dilation = getattr(known, "dilation", (1, 1))[axis]
        reach = dilation * (known.kernel[axis] - 1) + 1
        searched = {layer.kernel[axis], getattr(layer, "dilation", (1, 1))[axis]}
        if any(isinstance(one, Unknown) for one in searched) and reach > 4:
            return False
        if known.kernel[axis] == 1 and dilation > 1 and isinstance(layer.dilation[axis], Unknown):
            return False
        if not isinstance(known.pad, str):
            pool = isinstance(layer, (MaxPool, AvgPool))
            most = reach // 2 if pool else reach - 1
            for cell, pad in zip(layer.pad[axis], known.pad[axis], strict=True):
                if isinstance(cell, Unknown) and pad > most:
                    return False
    return True


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("size", [(5, 5), (1, 7)], ids=str)
def test_choices_are_all_there_are(layer: Any, size: tuple[int, int]) -> None:
    found = choices(layer, size, FEW)
    wanted = counted(layer, size)
    assert {out: set(group) for out, group in found.items()} == wanted
    assert all(len(set(group)) == len(group) for group in found.values())


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_choices_for_few_sizes_are_those_of_all(layer: Any) -> None:
    size = (6, 5)
    everything = choices(layer, size, FEW)
    for out in everything:
        one = choices(layer, size, FEW, (frozenset([out[0]]), frozenset([out[1]])))
        assert {key: set(group) for key, group in one.items()} == {out: set(everything[out])}
    assert choices(layer, size, FEW, (frozenset([99]), None)) == {}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 11), st.integers(1, 30), st.booleans())
def test_every_choice_is_one(n: int, kernel: int, out: int, ceil: bool) -> None:
    layer: Any = MaxPool((kernel, kernel), (S, S), ((P, P), (P, P)), ceil)
    wished = (frozenset([out]), frozenset([out]))
    for numbers in choices(layer, (n, n), Bounds(True), wished).get((out, out), ()):
        stride, pad = numbers
        assert Axis(n, kernel, stride, pad, pad, ceil=ceil).out == out


def test_too_many_choices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lanewise.size.choices.MOST", 1000)
    layer: Any = Conv(1, (K, K2), (S, S2), ((TOP, BOTTOM), (LEFT, Unknown("pad", 3))))
    with pytest.raises(TooMany):
        choices(layer, (64, 64), Bounds(True))


def test_bounds_hold_only_for_what_is_looked_for() -> None:
    layer: Any = Conv(1, (9, 9), (S, S), ((8, 8), (8, 8)))
    assert (1, 1) not in choices(layer, (5, 5), FEW)
    assert choices(layer, (5, 5), FEW)[(13, 13)] == ((1,),)
    wide = replace(layer, kernel=(K, K), stride=(1, 1))
    assert {out for out, _ in choices(wide, (5, 5), FEW)} == set(range(18, 22))
