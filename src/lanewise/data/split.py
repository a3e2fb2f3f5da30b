"""Stratified, seeded, exact splits.

The number of images wanted in a split is shared among the classes by the largest remainder, so each
class is within one image of its share; a class always keeps an image for training. Which images go
is decided by a hash of (seed, number of the image), so it is the same with every numpy version.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lanewise.data.data_set import Labels
from lanewise.errors import DataError

Indices: TypeAlias = npt.NDArray[np.intp]

DEFAULT_FRACTION = 0.1
DEFAULT_MOST = 5000  # more images than this make an accuracy no sharper than ± 0.5 %


def wanted_count(total: int, fraction: float | None, what: str) -> int:
    """How many of `total` images a split takes: `fraction` of them, or a tenth, at most 5,000."""
    if fraction is None:
        return min(max(1, round(total * DEFAULT_FRACTION)), DEFAULT_MOST)
    if not 0 <= fraction < 1:
        raise DataError(f"{what} is {fraction}; wanted at least 0 and below 1, such as 0.1")
    return round(total * fraction)


def stratified(labels: Labels, wanted: tuple[int, ...], seed: int) -> tuple[Indices, ...]:
    """(those left for training, then one array of indices for each count in `wanted`), all sorted.

    Disjoint and complete. A split has fewer than wanted where single-image classes leave too few.
    """
    classes = int(labels.max(initial=-1)) + 1
    counts = np.bincount(labels, minlength=classes)
    order = np.lexsort((shuffle_keys(len(labels), seed), labels))
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(labels), np.intp)
    rank[order] = np.arange(len(labels)) - np.repeat(starts, counts)
    taken = np.zeros(classes, np.intp)
    parts: list[Indices] = []
    for number in wanted:
        quota = quotas(counts, number, np.maximum(counts - 1 - taken, 0))
        chosen = (rank >= taken[labels]) & (rank < (taken + quota)[labels])
        parts.append(np.flatnonzero(chosen))
        taken += quota
    return (np.flatnonzero(rank >= taken[labels]), *parts)


def quotas(
    counts: npt.NDArray[np.intp], wanted: int, most: npt.NDArray[np.intp]
) -> npt.NDArray[np.intp]:
    """`wanted` shared in proportion to `counts` by the largest remainder, never above `most`.

    Exact integers; equal remainders go to the larger class, then to the earlier one.
    """
    total = int(counts.sum())
    if not total:
        return np.zeros_like(counts)
    share, remainder = np.divmod(counts * wanted, total)
    share = np.minimum(share, most)
    for limit in (1, wanted):  # a first extra image by remainder, then whatever still has room
        order = np.lexsort((np.arange(len(counts)), -counts, -remainder))
        for index in order:
            extra = min(limit, int(most[index] - share[index]), wanted - int(share.sum()))
            share[index] += max(0, extra)
    return share


def shuffle_keys(count: int, seed: int) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of (seed, i) for each i: SplitMix64 (Steele, Lea, Flood 2014)."""
    start = np.uint64((seed * 0x9E3779B97F4A7C15 + 0xD1B54A32D192ED03) % 2**64)
    state = mix(np.full(1, start))[0] + np.arange(count, dtype=np.uint64) * np.uint64(
        0x9E3779B97F4A7C15
    )
    return mix(state)


def mix(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finisher: a bijection of 64 bits that leaves no visible pattern."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
