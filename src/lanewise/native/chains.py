"""Calls that look at one channel, or one pixel, at a time: some of them through all calls, then the
next.

A map that one call writes is still in the cache when the next reads it, and what only the chain
itself reads need not exist for more than those few channels or pixels. Depthwise convolutions and
pools look at a channel at a time, 1 × 1 convolutions at a pixel, normalisations at either: they go
with the neighbour that they share more with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

from lanewise.native.memory import rounded
from lanewise.native.nest import LANES, Kernel

if TYPE_CHECKING:
    from lanewise.native.plan import Along, Call, Choice, Place

#: what the calls of a chain touch for one block of channels or pixels: part of a second-level cache
CHAIN_BYTES = 512 << 10
PIXEL_BYTES = LANES * 4
#: pixels more from map to map where a block of them stands alone: maps of a size that is a power of
#: two would meet in few sets of the caches
APART = 1

#: what neighbours must have in common to form a chain: phase, axis, extent, part
_Key: TypeAlias = tuple[int, str, int, int]


@dataclass
class _Run:
    """Neighbours that may take turns, and the keys that all of them have."""

    calls: list[Call]
    keys: frozenset[_Key]


def form_chains(calls: Sequence[Call]) -> list[Call]:
    """The calls with their kernels made; chains of several with the block that they take."""
    runs = [part for run in _runs(calls) for part in _settled(run)]
    chosen: list[list[Call]] = []
    for number, run in enumerate(runs):
        key = min(run.keys, default=None)  # channels before pixels
        if key is None:
            chosen.append(run.calls)
            continue
        ways = [_way(call, key) for call in run.calls]
        block = _block(run.calls, ways)
        chosen.append([])
        for call, way in zip(run.calls, ways, strict=True):
            chosen[-1].append(
                replace(
                    call, ways=(way,), extent=way.extent, apart=way.apart, block=block, chain=number
                )
            )
    small = _alone([call for run in chosen for call in run])
    made: list[Call] = []
    for run_calls in chosen:
        made += _finished(run_calls, small)
    return made


def whole(call: Call) -> Kernel:
    """The kernel of a call that could be made piece by piece, for all of it at once."""
    way = call.ways[0]
    return way.make(way.extent, (way.extent,) * len(call.places))


def _finished(calls: list[Call], small: set[str]) -> list[Call]:
    """The calls of a run with kernels, and what comes before and after them."""
    if not calls or calls[0].chain < 0:
        return calls
    ways = [way for call in calls for way in call.ways]
    before = [one for way in ways for one in way.opening]
    after = [one for way in ways for one in way.closing]
    made = [_with_kernel(call, small) for call in calls]
    if calls[0].block < calls[0].extent:
        made = _fetching(calls, made, small)
    return [*before, *made, *after]


def _fetching(calls: list[Call], made: list[Call], small: set[str]) -> list[Call]:
    """What the chain reads from afar, the largest first, is fetched for the next piece beside the
    work of those calls that can."""
    result = list(made)
    for place, maps, pitch, apart in _read_from_afar(calls, made, small):
        for i, call in enumerate(calls):
            way = call.ways[0]
            if way.make_fetching and maps in way.fetches and result[i] is made[i]:
                pitches = tuple(own for _, _, own in _shrunk(call, small))
                kernel = way.make_fetching(call.block, pitches, (maps, pitch))
                result[i] = replace(
                    made[i],
                    kernels={1: kernel},
                    places=(*made[i].places, place),
                    apart=(*made[i].apart, apart),
                    ahead=1,
                )
                break
    return result


def _read_from_afar(
    calls: list[Call], made: list[Call], small: set[str]
) -> list[tuple[Place, int, int, int]]:
    """Places that the chain reads pixel by pixel and that are not its own, with their maps, pixels
    from map to map, and bytes from pixel to pixel."""
    from lanewise.native.plan import Slot

    found: dict[Place, tuple[int, int, int]] = {}
    written: set[Place] = set()
    for call, one in zip(calls, made, strict=True):
        accesses = _accesses(one.kernels[1])
        for (place, apart, pitch), access in zip(_shrunk(call, small), accesses, strict=True):
            if access != "read":
                written.add(place)
            elif apart and isinstance(place, Slot) and place not in written and not place.offset:
                strip = call.ways[0].strip if apart != PIXEL_BYTES else call.extent
                maps = place.size * strip // (PIXEL_BYTES * call.extent * pitch)
                found[place] = maps, pitch, apart
    return sorted(((place, *rest) for place, rest in found.items()), key=lambda one: -one[1])


def _accesses(kernel: Kernel | Choice) -> list[str]:
    from lanewise.native.plan import Choice

    return [] if isinstance(kernel, Choice) else [buffer.access for buffer in kernel.buffers]


def _keys(call: Call) -> frozenset[_Key]:
    if call.who != "slice":
        return frozenset()
    return frozenset(_key(call, way) for way in call.ways)


def _key(call: Call, way: Along) -> _Key:
    return call.phase, way.axis, way.extent, way.part


def _way(call: Call, key: _Key) -> Along:
    return next(way for way in call.ways if _key(call, way) == key)


def _runs(calls: Sequence[Call]) -> Iterator[_Run]:
    """Neighbours that may take turns; and the calls between."""
    run = _Run([], frozenset())
    for call in calls:
        keys = _keys(call)
        common = frozenset(key for key in run.keys & keys if not _crosses(call, run.calls, key))
        if common:
            run = _Run([*run.calls, call], common)
            continue
        later = _Run([call], keys)
        while len(run.calls) > 1 and (both := _drawn(run.calls, later)):
            later = _Run([run.calls[-1], *later.calls], both)
            left = run.calls[:-1]
            run = _Run(left, _common(left))
        if run.calls:
            yield run
        run = later
    if run.calls:
        yield run


def _settled(run: _Run) -> Iterator[_Run]:
    """Pixels only where a call of the run knows no other way: else as many channels as agree."""
    if min(run.keys, default=(0, "", 0, 0))[1] != "pixels" or any(
        all(way.axis == "pixels" for way in call.ways) for call in run.calls
    ):
        yield run
        return
    by_channels = [
        replace(call, ways=tuple(way for way in call.ways if way.axis == "channels"))
        for call in run.calls
    ]
    yield from _runs(by_channels)


def _common(calls: Sequence[Call]) -> frozenset[_Key]:
    return frozenset(
        key
        for key in frozenset.intersection(*map(_keys, calls))
        if not any(_crosses(call, calls[:i], key) for i, call in enumerate(calls))
    )


def _drawn(earlier: Sequence[Call], later: _Run) -> frozenset[_Key]:
    """The keys of the later calls with the last of the earlier ones, if that shares more with
    them."""
    *left, last = earlier
    common = frozenset(
        key
        for key in later.keys & _keys(last)
        if not any(_crosses(call, [last], key) for call in later.calls)
    )
    closer = _shared(last, later.calls) > _shared(last, left)
    return common if closer else frozenset()


def _shared(call: Call, others: Sequence[Call]) -> int:
    """Bytes that a call has in common with others."""
    theirs = {place for other in others for place in _slots(other)}
    return sum(size for name, size in _slots(call) if (name, size) in theirs)


def _slots(call: Call) -> set[tuple[str, int]]:
    from lanewise.native.plan import Slot

    return {(place.name, place.size) for place in call.places if isinstance(place, Slot)}


def _crosses(call: Call, others: Sequence[Call], key: _Key) -> bool:
    """Whether what is one piece to the call is another to one of the others, or the whole: parts of
    a split and of a concatenation may lie across each other, and then neither must be ahead."""
    strips = {strip for one in (call, *others) if (strip := _way(one, key).strip)}
    return len(strips) > 1 or any(
        a != b and a[0] == b[0] and a[1] < b[2] and b[1] < a[2]
        for other in others
        for a, b in product(_spans(call, key), _spans(other, key))
    )


def _spans(call: Call, key: _Key) -> set[tuple[str, int, int, int]]:
    """Name, first byte, end, and bytes from piece to piece of each value that a call names."""
    from lanewise.native.plan import Slot

    whole = key[1] == "pixels"  # a piece is some pixels of every map
    return {
        (place.name, place.offset, place.offset + _bytes(place, apart, key[2], whole), apart)
        for place, apart in zip(call.places, _way(call, key).apart, strict=True)
        if isinstance(place, Slot)
    }


def _bytes(place: Place, apart: int, extent: int, whole: bool) -> int:
    """How much of its slot a place has."""
    from lanewise.native.plan import Slot

    size = place.size if isinstance(place, Slot) else 0
    return size if whole or not apart else apart * extent


def _block(calls: Sequence[Call], ways: Sequence[Along]) -> int:
    """The most channels or pixels, a divisor of all, whose bytes fit the cache."""
    extent = ways[0].extent
    strip = max(way.strip for way in ways)
    if strip:
        return strip
    if len(calls) == 1 and ways[0].axis == "channels":
        return extent
    places = {
        place: _piece_bytes(place, apart, way)
        for call, way in zip(calls, ways, strict=True)
        for place, apart in zip(call.places, way.apart, strict=True)
    }
    most = max(1, CHAIN_BYTES // max(1, sum(places.values())))
    return max(block for block in range(1, extent + 1) if extent % block == 0 and block <= most)


def _piece_bytes(place: Place, apart: int, way: Along) -> int:
    """Bytes of one channel, or of one pixel of all maps."""
    from lanewise.native.plan import Slot

    if way.axis == "channels" or not apart or not isinstance(place, Slot):
        return apart
    return place.size // way.extent


def _alone(calls: Sequence[Call]) -> set[str]:
    """Values that one chain alone names: they stand there for one block only."""
    from lanewise.native.plan import Slot

    chains: dict[str, set[int]] = {}
    whole: dict[str, bool] = {}
    for call in calls:
        named = [(place, apart) for place, apart in _places(call)]
        for place, apart in named:
            if isinstance(place, Slot):
                chains.setdefault(place.name, set()).add(call.chain)
                fits = call.block < call.extent and not place.kept and _is_whole(call, place, apart)
                whole[place.name] = whole.get(place.name, True) and fits
    return {name for name, names in chains.items() if len(names) == 1 and whole[name]}


def _places(call: Call) -> Iterator[tuple[Place, int]]:
    yield from zip(call.places, call.apart or (0,) * len(call.places), strict=True)
    for way in call.ways:
        for one in (*way.opening, *way.closing):
            yield from ((place, 0) for place in one.places)


def _is_whole(call: Call, place: Place, apart: int) -> bool:
    """Whether the pieces of a place are all of its slot."""
    from lanewise.native.plan import Slot

    assert isinstance(place, Slot)
    if call.chain < 0 or not apart or place.offset:
        return False
    if call.ways[0].axis == "channels":
        return place.size == apart * call.extent
    return place.size % (PIXEL_BYTES * call.extent) == 0


def _with_kernel(call: Call, small: set[str]) -> Call:
    """The call with the kernel for its block; values of the chain alone are as large as that."""
    places, apart, pitches = zip(*_shrunk(call, small), strict=True)
    kernel = call.ways[0].make(call.block, pitches)
    return replace(call, kernels={1: kernel}, places=places, apart=apart, ways=())


def _shrunk(call: Call, small: set[str]) -> Iterator[tuple[Place, int, int]]:
    """Every place as it is in the chain, bytes from piece to piece, pixels from map to map."""
    from lanewise.native.plan import Slot

    way = call.ways[0]
    pixels, usual = way.axis == "pixels", (call.extent,) * len(call.places)
    for place, apart, whole in zip(call.places, call.apart, way.pitches or usual, strict=True):
        if not isinstance(place, Slot) or place.name not in small:
            yield place, apart, whole
        elif pixels:
            pitch = call.block + APART
            maps = place.size // (PIXEL_BYTES * call.extent)
            yield replace(place, size=PIXEL_BYTES * maps * pitch), 0, pitch
        else:
            yield replace(place, size=rounded(apart * call.block)), 0, call.extent
