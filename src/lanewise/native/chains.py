"""Calls that look at one channel at a time: a few channels through all of them, then the next few.

A map that one of them writes is still in the cache when the next reads it, and what only the
chain itself reads need not exist for more than those few channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, product
from typing import TYPE_CHECKING

from lanewise.native.memory import rounded

if TYPE_CHECKING:
    from lanewise.native.plan import Call, Place

#: what the calls of a chain touch for one block of channels: part of a second-level cache
CHAIN_BYTES = 512 << 10


def form_chains(calls: Sequence[Call]) -> list[Call]:
    """The calls with their kernels made; chains of several with the block of channels they take."""
    made: list[Call] = []
    for number, chain in enumerate(_chains(calls)):
        if _together(chain[0]) is None:
            made += chain
            continue
        block = _block(chain) if len(chain) > 1 else chain[0].channels
        made += [
            replace(call, kernels={1: call.make(block)}, block=block, chain=number, make=None)
            for call in chain
            if call.make is not None
        ]
    return _folded(made)


def _together(call: Call) -> tuple[int, int] | None:
    """What neighbours must have in common to form a chain."""
    return (call.phase, call.channels) if call.channels and call.who == "slice" else None


def _chains(calls: Sequence[Call]) -> Iterator[list[Call]]:
    """Neighbours that may take turns, in lists; and the calls between."""
    for together, group in groupby(calls, key=_together):
        chain: list[Call] = []
        for call in group:
            if together and any(_askew(call, before) for before in chain):
                yield chain
                chain = []
            chain.append(call)
        yield chain


def _askew(one: Call, other: Call) -> bool:
    """Whether what is one channel to the first is another one to the second: parts of a split and
    of a concatenation may lie across each other, and then neither must be ahead."""
    pairs = product(_spans(one), _spans(other))
    return any(a != b and a[0] == b[0] and a[1] < b[2] and b[1] < a[2] for a, b in pairs)


def _spans(call: Call) -> set[tuple[str, int, int, int]]:
    """Name, first byte, end, and bytes from channel to channel of each value that a call names."""
    from lanewise.native.plan import Slot

    return {
        (place.name, place.offset, place.offset + (apart * call.channels or place.size), apart)
        for place, apart in zip(call.places, call.apart, strict=True)
        if isinstance(place, Slot)
    }


def _block(chain: Sequence[Call]) -> int:
    """The most channels, a divisor of all, whose bytes fit the cache."""
    places = {
        place: apart for call in chain for place, apart in zip(call.places, call.apart, strict=True)
    }
    most = max(1, CHAIN_BYTES // max(1, sum(places.values())))
    channels = chain[0].channels
    return max(block for block in range(1, channels + 1) if channels % block == 0 and block <= most)


def _folded(calls: list[Call]) -> list[Call]:
    """Values that one chain alone names stand there for one block of channels only."""
    from lanewise.native.plan import Slot

    chains: dict[str, set[int]] = {}
    whole: dict[str, bool] = {}
    for call in calls:
        for place, apart in zip(call.places, call.apart or (0,) * len(call.places), strict=True):
            if isinstance(place, Slot):
                chains.setdefault(place.name, set()).add(call.chain)
                fits = not place.kept and (place.size, place.offset) == (apart * call.channels, 0)
                whole[place.name] = whole.get(place.name, True) and fits
    small = {name for name, names in chains.items() if len(names) == 1 and whole[name]}
    return [_with_small(call, small) for call in calls]


def _with_small(call: Call, small: set[str]) -> Call:
    from lanewise.native.plan import Slot

    if call.block == call.channels:
        return call

    def one(place: Place, apart: int) -> tuple[Place, int]:
        if not isinstance(place, Slot) or place.name not in small:
            return place, apart
        return replace(place, size=rounded(apart * call.block)), 0

    pairs = [one(place, apart) for place, apart in zip(call.places, call.apart, strict=True)]
    return replace(
        call, places=tuple(place for place, _ in pairs), apart=tuple(apart for _, apart in pairs)
    )
