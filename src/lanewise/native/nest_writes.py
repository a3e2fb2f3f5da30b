"""Is every element of an output written exactly once?

A store writes a box: along each axis the positions its index takes, as a vector of counts; the box
is the outer product of these vectors. Axes whose indices share a variable have one joint vector.
Boxes that differ in one vector only are added there, and again, until one box is left: it must be
all ones. So the proof costs about the sum of the axes' sizes, not their product.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from lanewise.native.nest import Index, Var
from lanewise.native.nest_domain import MOST_POINTS, Domain, TooManyPointsError

#: Boxes that do not merge are added up element by element, but not beyond this many elements.
MOST_ELEMENTS = 1 << 22

Axes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Box:
    """Counts of writes: the outer product of `counts[i]`, each over the joint axes `axes[i]`."""

    axes: Axes
    counts: tuple[np.ndarray, ...]


def box(
    domain: Domain, index: Sequence[Index], shape: Sequence[int], lanes: int, memo: dict[Any, Any]
) -> Box:
    """The box of a store of `lanes` neighbours; the index is known to be in bounds.

    `memo` is kept as long as the open loops stay the same. Raises NestError if the index depends
    on numbers known only when the kernel runs, TooManyPointsError if it is too entangled.
    """
    key = tuple(part.terms for part in index)
    if key not in memo:
        memo[key] = _layout(domain, index)
    axes, used = memo[key]
    counts = []
    for joint in axes:
        wide = lanes if len(shape) - 1 in joint else 1
        parts, sizes = [index[axis] for axis in joint], [shape[axis] for axis in joint]
        at = (wide, *sizes, *((part.terms, part.constant) for part in parts))
        if at not in memo:
            memo[at] = _counts(domain, parts, sizes, wide)
        counts.append(memo[at])
    repeated = prod(domain.size(group) for group in domain.groups if not group & used)
    if repeated != 1:
        counts[0] = counts[0] * repeated
    return Box(axes, tuple(counts))


def _layout(domain: Domain, index: Sequence[Index]) -> tuple[Axes, frozenset[Var]]:
    """Which axes share a variable, and all variables that the index depends on."""
    joints: list[tuple[set[int], frozenset[Var]]] = []
    for axis, part in enumerate(index):
        variables = frozenset[Var]().union(*(group for group, _ in domain.parts(part.terms)))
        axes = {axis}
        for joint in [j for j in joints if j[1] & variables]:
            joints.remove(joint)
            axes |= joint[0]
            variables |= joint[1]
        joints.append((axes, variables))
    used = frozenset[Var]().union(*(variables for _, variables in joints))
    return tuple(sorted(tuple(sorted(axes)) for axes, _ in joints)), used


def _counts(domain: Domain, index: Sequence[Index], sizes: Sequence[int], lanes: int) -> np.ndarray:
    """How often each position of some joint axes is written, in row-major order."""
    flat = Index()
    for part, size in zip(index, sizes, strict=True):
        flat = flat * size + part
    positions = np.array([flat.constant], np.int64)
    for group, terms in domain.parts(flat.terms):
        values = np.atleast_1d(domain.values(Index(terms), domain.points(group)))
        if positions.size * values.size > MOST_POINTS:
            raise TooManyPointsError(f"an index takes more than {MOST_POINTS} values")
        positions = np.add.outer(positions, values).ravel()
    if lanes == 1:
        return np.bincount(positions, minlength=prod(sizes))
    edges = np.bincount(positions, minlength=prod(sizes) + 1)
    edges -= np.bincount(positions + lanes, minlength=prod(sizes) + 1)
    return np.cumsum(edges[:-1])


def faulty_element(
    boxes: Iterable[Box], shape: Sequence[int]
) -> tuple[tuple[int, ...], int] | None:
    """An element that is not written exactly once, and how often it is; None if all are.

    Raises TooManyPointsError when the boxes neither merge nor fit in memory.
    """
    merged = merge(boxes)
    if not merged:
        return (0,) * len(shape), 0
    if len(merged) > 1 and prod(shape) > MOST_ELEMENTS:
        raise TooManyPointsError(f"{len(merged)} boxes over {prod(shape)} elements do not merge")
    if len(merged) == 1 and all((vector == 1).all() for vector in merged[0].counts):
        return None
    if len(merged) == 1:
        return _fault_in_box(merged[0], shape)
    total = np.zeros(shape, np.int64)
    for one in merged:
        total += _spread(one, shape)
    if (total == 1).all():
        return None
    place = np.unravel_index(int(np.argmax(total != 1)), shape)
    return tuple(int(i) for i in place), int(total[place])


def merge(boxes: Iterable[Box]) -> list[Box]:
    """Add boxes that differ in one vector only, as long as there are any."""
    now = [one for one in boxes if all(vector.any() for vector in one.counts)]
    before = len(now) + 1
    while len(now) < before:
        before = len(now)
        for place in range(max((len(one.axes) for one in now), default=0)):
            now = _merge_along(now, place)
    return now


def _merge_along(boxes: list[Box], place: int) -> list[Box]:
    found: dict[object, list[Box]] = {}
    for one in boxes:
        others = tuple(v.tobytes() for i, v in enumerate(one.counts) if i != place)
        found.setdefault((one.axes, others), []).append(one)
    return [_added(same, place) if len(same) > 1 else same[0] for same in found.values()]


def _added(boxes: list[Box], place: int) -> Box:
    counts = list(boxes[0].counts)
    if place < len(counts):
        counts[place] = np.sum([one.counts[place] for one in boxes], axis=0)
        return Box(boxes[0].axes, tuple(counts))
    counts[0] = counts[0] * len(boxes)
    return Box(boxes[0].axes, tuple(counts))


def _spread(one: Box, shape: Sequence[int]) -> np.ndarray:
    """The outer product, with the array's axes."""
    total = np.ones((1,) * len(shape), np.int64)
    for axes, vector in zip(one.axes, one.counts, strict=True):
        sizes = [size if axis in axes else 1 for axis, size in enumerate(shape)]
        total = total * vector.reshape(sizes)
    return total


def _fault_in_box(one: Box, shape: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """Prefer an element written too often or never along one axis and regularly on the others."""
    place = [0] * len(shape)
    times = 1
    for axes, vector in zip(one.axes, one.counts, strict=True):
        at = int(np.argmax(vector != 1))
        times *= int(vector[at])
        position = np.unravel_index(at, [shape[axis] for axis in axes])
        for axis, coordinate in zip(axes, position, strict=True):
            place[axis] = int(coordinate)
    return tuple(place), times
