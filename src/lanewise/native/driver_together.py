"""One slice on all threads: where fewer slices are left than there are threads.

Every call that is large enough is shared out: a thread carries out its turns of the loops that the
kernel's author marked (`nest.Loop.shared`), or its pieces of a chain, and all meet before the next
call. Smaller calls are made by the first thread alone. Which share is whose follows from the
thread's number; no sum is cut, so the bits are those of one thread.

Values stand in the first thread's arena. What a kernel works out on its way (`Buffer.own`), and
what stands there for one piece of a chain only, every thread has in its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby

from lanewise.native.driver import Addresses, Function, call_kernel, call_prologue
from lanewise.native.nest import LANES, Kernel
from lanewise.native.nest_count import count
from lanewise.native.plan import FLOAT, Call, Choice, Place, Plan, Slot

#: operations and loads of a vector from which a call is shared: microseconds; to meet takes one
LEAST_WORK = 16_000
#: of all shared calls together, from which a slice is shared at all: less than half a millisecond
#: is not worth that all threads must come each time
LEAST_SLICE = 1_000_000


@dataclass(frozen=True)
class _Unit:
    """Calls that are made in turns: one, or a chain of several pieces."""

    calls: tuple[Call, ...]
    shared: bool

    @property
    def pieces(self) -> int:
        """Of a chain; 0 for a call that is made as a whole."""
        first = self.calls[0]
        return first.extent // first.block if in_pieces(first) else 0


def in_pieces(call: Call) -> bool:
    """Whether it is part of a chain of several pieces."""
    return call.chain >= 0 and call.block < call.extent


@dataclass(frozen=True)
class _Together(Addresses):
    """Values in the first thread's arena, %values; what is a thread's own in %arena."""

    own: frozenset[str] = field(default_factory=frozenset)

    def of(self, f: Function, place: Place, slice: str, t: str | int) -> str:
        """As `Addresses.of`."""
        offsets = self.plan.arena.offsets
        if isinstance(place, Slot) and place.name in offsets and place.name not in self.own:
            return f.offset("%values", offsets[place.name] + place.offset)
        return super().of(f, place, slice, t)


def shares(plan: Plan) -> bool:
    """Whether threads have enough to share of a slice."""
    calls = [call for unit in _units(plan) if unit.shared for call in unit.calls]
    pieces = (call.extent // call.block if in_pieces(call) else 1 for call in calls)
    each = (work(_kernel(call)) for call in calls)
    return sum(n * one for n, one in zip(pieces, each, strict=True)) >= LEAST_SLICE


def together(plan: Plan, addresses: Addresses) -> list[str]:
    """`forward_constants`: what is worked out of the parameters; `forward_together`: one slice."""
    units = list(_units(plan))
    own = frozenset(name for unit in units if unit.shared for name in _own(unit))
    mine = _Together(plan, addresses.partial_bytes, addresses.profile, own)
    return [_constants(plan, addresses), _slice(plan, units, mine)]


def _constants(plan: Plan, addresses: Addresses) -> str:
    f = Function(
        "define internal void @forward_constants(ptr %context, ptr %arena, i64 %thread,"
        " i64 %threads) noinline nounwind"
    )
    alone = _Alone(f)
    made: set[str] = set()  # since all threads have met
    for call in (call for phase in plan.phases for call in phase.worker):
        names = {place.name for place in call.places if isinstance(place, Slot)}
        if names & made:
            alone.end()
            f.do("call void @barrier(ptr %context)")
            made.clear()
        made |= names
        if _kernel(call).shares:
            alone.end()
            call_kernel(f, call, 1, addresses, "0", 0, share=True)
        else:
            alone.begin()
            call_kernel(f, call, 1, addresses, "0", 0)
    alone.end()
    f.do("call void @barrier(ptr %context)")
    f.do("ret void")
    return f.text()


def _slice(plan: Plan, units: list[_Unit], addresses: Addresses) -> str:
    f = Function(
        "define internal void @forward_together(ptr %context, ptr %arena, ptr %values, i64 %slice,"
        " i64 %images, i64 %thread, i64 %threads) noinline nounwind"
    )
    alone = _Alone(f)
    alone.begin()
    call_prologue(f, plan, 0, "%slice", "forward", start="0", step="0")
    for number, unit in enumerate(units):
        if not unit.shared:
            alone.begin()
            _whole_unit(f, number, unit, addresses)
            continue
        if alone.end():
            f.do("call void @barrier(ptr %context)")
        if unit.pieces:
            _pieces(f, number, unit, addresses)
        else:
            call_kernel(f, unit.calls[0], 1, addresses, "%slice", 0, share=True)
        f.do("call void @barrier(ptr %context)")
    alone.end()
    f.do("ret void")
    return f.text()


class _Alone:
    """What only the first thread does, from `begin` to `end`."""

    def __init__(self, f: Function) -> None:
        self.f, self.count, self.open = f, 0, False

    def begin(self) -> None:
        if self.open:
            return
        self.open, self.count = True, self.count + 1
        first = self.f.emit("icmp eq i64 %thread, 0")
        self.f.do(f"br i1 {first}, label %alone{self.count}, label %all{self.count}")
        self.f.label(f"alone{self.count}")

    def end(self) -> bool:
        """Whether there was anything."""
        if self.open:
            self.f.do(f"br label %all{self.count}")
            self.f.label(f"all{self.count}")
        was, self.open = self.open, False
        return was


def _whole_unit(f: Function, number: int, unit: _Unit, addresses: Addresses) -> None:
    if unit.pieces:
        _loop(f, number, unit, addresses, "0", str(unit.pieces))
    else:
        call_kernel(f, unit.calls[0], 1, addresses, "%slice", 0)


def _pieces(f: Function, number: int, unit: _Unit, addresses: Addresses) -> None:
    """This thread's pieces of a chain."""
    ends = []
    for extra in (0, unit.pieces):
        scaled = f.emit(f"mul i64 %thread, {unit.pieces}")
        ends.append(f.emit(f"udiv i64 {f.emit(f'add i64 {scaled}, {extra}')}, %threads"))
    _loop(f, number, unit, addresses, *ends)


def _loop(
    f: Function, number: int, unit: _Unit, addresses: Addresses, first: str, stop: str
) -> None:
    block, n = unit.calls[0].block, number
    f.do(f"br label %before{n}")
    f.label(f"before{n}")
    f.do(f"br label %head{n}")
    f.label(f"head{n}")
    f.do(f"%number{n} = phi i64 [ {first}, %before{n} ], [ %number{n}.next, %body{n} ]")
    f.do(f"%more{n} = icmp ult i64 %number{n}, {stop}")
    f.do(f"br i1 %more{n}, label %body{n}, label %after{n}")
    f.label(f"body{n}")
    f.do(f"%piece{n} = mul i64 %number{n}, {block}")
    for call in unit.calls:
        call_kernel(f, call, 1, addresses, "%slice", 0, f"%piece{n}")
    f.do(f"%number{n}.next = add i64 %number{n}, 1")
    f.do(f"br label %head{n}")
    f.label(f"after{n}")


# ---- what is shared -----------------------------------------------------------------------------


def _units(plan: Plan) -> Iterator[_Unit]:
    """The calls of a slice in their order, and whether they are shared."""
    (phase,) = plan.phases
    uses = Counter(
        name for call in plan.calls for name in {p.name for p in call.places if isinstance(p, Slot)}
    )
    for chain, group in groupby(phase.slices, key=lambda call: call.chain):
        calls = tuple(group)
        if chain >= 0 and in_pieces(calls[0]):
            yield _Unit(calls, _shared_pieces(calls, uses))
            continue
        for call in calls:
            kernel = _kernel(call)
            private = all(uses[name] == 1 for name in _own_of(call))
            yield _Unit((call,), kernel.shares and private and work(kernel) >= LEAST_WORK)


def _shared_pieces(calls: tuple[Call, ...], uses: Counter[str]) -> bool:
    """A chain of large calls in which no piece needs what another one leaves."""
    inside = Counter(
        name for call in calls for name in {p.name for p in call.places if isinstance(p, Slot)}
    )
    large = sum(work(_kernel(call)) for call in calls) * (calls[0].extent // calls[0].block)
    own = _own(_Unit(calls, True))
    return large >= LEAST_WORK and all(inside[name] == uses[name] for name in own)


def _own(unit: _Unit) -> set[str]:
    """Slots of a shared unit that each thread has for itself."""
    own = {name for call in unit.calls for name in _own_of(call)}
    if not unit.pieces:
        return own
    for call in unit.calls:
        accesses = [buffer.access for buffer in _kernel(call).buffers]
        for place, apart, access in zip(call.places, call.apart, accesses, strict=True):
            if isinstance(place, Slot) and not place.worker and not apart and access != "read":
                own.add(place.name)
    return own


def _own_of(call: Call) -> set[str]:
    return {
        place.name
        for place, buffer in zip(call.places, _kernel(call).buffers, strict=True)
        if isinstance(place, Slot) and buffer.own
    }


def _kernel(call: Call) -> Kernel:
    """The kernel for one slice; of two forms the one that does more."""
    kernel = call.kernels[1]
    if isinstance(kernel, Choice):
        both = kernel.one.shares and kernel.zero.shares
        return kernel.one if both or kernel.zero.shares else kernel.zero
    return kernel


@lru_cache(maxsize=256)
def work(kernel: Kernel) -> int:
    """Operations and loads of vectors, about."""
    counts = count(kernel, {symbol.name: 1 for symbol in kernel.symbols})
    loads = sum(counts.loaded.values()) // (LANES * FLOAT)
    return loads + (counts.multiply_adds + counts.arithmetic) // LANES
