"""The native program around the kernels: steps, slices, jobs, barriers — as LLVM IR.

One call trains for many steps without coming back to Python:

    for each step
        for each phase of the plan
            every worker:                                   what all slices told, for itself
            every group of slices, whoever takes its ticket: prologue, then the phase's segments
            barrier
        every job:                                          final gradient, update
        barrier

Phases go through the slices to and fro: those that were worked on last are still in the cache.

All state stands in one array of 64-bit words, the context; `FIELDS` names them. Python fills it
(`program.py`), native code reads it. Tickets and barriers are atomic counters in it, each on a
cache line of its own. A waiting thread spins, and after a while yields its time slice to others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby

from lanewise.flags import MOST_THREADS
from lanewise.native.names import SHARE
from lanewise.native.plan import (
    PROLOGUE,
    Call,
    Choice,
    Place,
    Plan,
    Region,
    Slot,
)

#: counters that several threads write, each alone on its cache line
SHARED = ("generation", "arrived", "passed")
#: what Python tells native code; addresses, counts and switches
FIELDS = (
    "threads",
    "command",
    "yield_function",
    "leave",
    "arena",
    "arena_stride",
    "kept",
    "constants",  # what is worked out of the parameters alone, for all threads
    "stale",  # whether it must be worked out anew
    "capacity",
    "tickets",  # a counter on a cache line of its own for each phase, and one for the jobs
    "parameters",
    "buffers",
    "gradients",
    "partials",
    "state0",
    "state1",
    "images",
    "image_count",
    "images_are_bytes",
    "labels",
    "order",
    "total",
    "batch",
    "steps",
    "first_step",
    "seed",
    "step_settings",
    "loss_settings",
    "scale",
    "shift",
    "losses",
    "corrects",
    "update",
    "logits",
    "input_gradient",
    "groups",
    "together",  # groups (training) or slices (forward) that a thread takes at once
    "whole",  # slices (forward) that one thread takes alone; all threads share each of the others
    # for one image (`latency/`):
    "packed",  # weights as its kernels read them
    "faults",  # a vector that is NaN where a pixel was not finite
    "busy",  # whether a thread is on the long way
)
WORDS_PER_LINE = 8
TRAIN, FORWARD = 0, 1
SPINS = 20_000  # pauses before a worker goes back to sleep in Python: about a millisecond
YIELD_EVERY = 64  # pauses between two offers of the time slice: a few microseconds

WORD = {name: i * WORDS_PER_LINE for i, name in enumerate(SHARED)}
_first_field = len(SHARED) * WORDS_PER_LINE
WORD.update({name: _first_field + i for i, name in enumerate(FIELDS)})
PARKED = -(-(_first_field + len(FIELDS)) // WORDS_PER_LINE) * WORDS_PER_LINE
SEEN = PARKED + MOST_THREADS * WORDS_PER_LINE
CONTEXT_WORDS = SEEN + MOST_THREADS * WORDS_PER_LINE


@dataclass
class Function:
    """Builds one function's text; names are numbered."""

    head: str
    lines: list[str] = field(default_factory=list)
    count: int = 0

    def emit(self, instruction: str) -> str:
        self.count += 1
        name = f"%n{self.count}"
        self.lines.append(f"  {name} = {instruction}")
        return name

    def do(self, instruction: str) -> None:
        self.lines.append(f"  {instruction}")

    def block(self, text: str) -> None:
        """Lines written out as they are."""
        self.lines += text.split("\n")

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")

    def word(self, number: int | str) -> str:
        """The address of a word of the context."""
        return self.emit(f"getelementptr i64, ptr %context, i64 {number}")

    def read(self, name: str) -> str:
        """A field of the context."""
        return self.emit(f"load i64, ptr {self.word(WORD[name])}, align 8")

    def pointer(self, name: str) -> str:
        """A field of the context that holds an address."""
        return self.emit(f"load ptr, ptr {self.word(WORD[name])}, align 8")

    def offset(self, pointer: str, count: str | int, size: int = 1) -> str:
        """pointer + count · size bytes."""
        if isinstance(count, int):
            return self.offset_bytes(pointer, str(count * size)) if count * size else pointer
        step = count if size == 1 else self.emit(f"mul i64 {count}, {size}")
        return self.offset_bytes(pointer, step)

    def offset_bytes(self, pointer: str, step: str) -> str:
        return self.emit(f"getelementptr i8, ptr {pointer}, i64 {step}")

    def text(self) -> str:
        return "\n".join([self.head + " {", "entry:", *self.lines, "}"])


@dataclass(frozen=True)
class Addresses:
    """How a plan's places become addresses inside a function of (context, arena, …).

    `slice` is the slice's number in the batch, `t` its number among those worked on together.
    `profile`: where in the arena each call adds its clock ticks (64-bit words), if it shall.
    """

    plan: Plan
    partial_bytes: int
    profile: int | None = None

    def of(self, f: Function, place: Place, slice: str, t: str | int) -> str:
        if isinstance(place, Region):
            return self.region(f, place, slice)
        if place.name in self.plan.kept.offsets:
            return self.kept(f, place, slice)
        if place.name in self.plan.constants.offsets:
            before = self.plan.constants.offsets[place.name] + place.offset
            return f.offset(f.pointer("constants"), before)
        base = f.offset("%arena", self.plan.arena.offsets[place.name] + place.offset)
        return f.offset(base, t, place.size) if place.name in self.plan.crossing else base

    def kept(self, f: Function, slot: Slot, number: str) -> str:
        """Every slice has its own: all slices of one slot stand behind each other."""
        before = self.plan.kept.offsets[slot.name]
        start = f.offset(f.pointer("kept"), f.read("capacity"), before) if before else None
        mine = f.offset(start or f.pointer("kept"), number, slot.size)
        return f.offset(mine, slot.offset)

    def region(self, f: Function, region: Region, slice: str) -> str:
        base = f.offset(f.pointer(region.name), region.offset)
        if region.name == "partials":
            return f.offset(base, "%group", self.partial_bytes)
        return f.offset(base, slice, region.slice_stride) if region.slice_stride else base


def call_kernel(
    f: Function,
    call: Call,
    width: int,
    addresses: Addresses,
    slice: str,
    t: str | int,
    piece: str = "",
    share: bool = False,
) -> None:
    """Call the kernel of `width` slices on the call's places, from a channel or pixel on; symbols
    are fields of the context. `share`: only the share of thread %thread of %threads."""
    kernel = call.kernels[width]
    arguments = ["ptr %context"] if isinstance(kernel, Choice) else []
    first_ahead = len(call.places) - call.ahead
    for i, place in enumerate(call.places):
        apart = call.apart[i] if call.apart else 0
        address = addresses.of(f, place, slice, t)
        address = f.offset(address, piece, apart) if piece and apart else address
        address = f.offset(address, call.block * apart) if i >= first_ahead else address
        arguments.append(f"ptr {address}")
    arguments += [f"i64 {_symbol(f, symbol)}" for symbol in call.symbols]
    arguments += ["i64 %thread", "i64 %threads"] * share
    begun = _ticks(f) if addresses.profile is not None else ""
    f.do(f"call void @{kernel.name}{SHARE * share}({', '.join(arguments)})")
    if addresses.profile is not None:
        number = next(i for i, other in enumerate(addresses.plan.calls) if other is call)
        _add_ticks(f, begun, addresses.profile + 8 * number)


def _symbol(f: Function, name: str) -> str:
    """A size of the batch that is at hand, or a field of the context."""
    return f"%{name}" if name in ("slices", "images") else f.read(name)


def _ticks(f: Function) -> str:
    return f.emit("call i64 @llvm.readcyclecounter()")


def _add_ticks(f: Function, begun: str, place: int) -> None:
    """Add the ticks since `begun` to a word of the worker's arena."""
    spent = f.emit(f"sub i64 {_ticks(f)}, {begun}")
    word = f.offset("%arena", place)
    old = f.emit(f"load i64, ptr {word}, align 8")
    f.do(f"store i64 {f.emit(f'add i64 {old}, {spent}')}, ptr {word}, align 8")


def choice_functions(choice: Choice) -> list[str]:
    """A kernel of two forms, picked by a field of the context; and one that threads share."""
    both = choice.one.shares and choice.zero.shares
    return [_choice_function(choice, share) for share in (False, True)[: 1 + both]]


def _choice_function(choice: Choice, share: bool) -> str:
    count, symbols = len(choice.one.buffers), len(choice.one.symbols) + 2 * share
    names = [f"ptr %a{i}" for i in range(count)] + [f"i64 %s{i}" for i in range(symbols)]
    end = SHARE * share
    f = Function(
        f"define internal void @{choice.name}{end}(ptr %context, {', '.join(names)})"
        " noinline nounwind"
    )
    one = f.emit(f"icmp ne i64 {f.read(choice.field)}, 0")
    f.do(f"br i1 {one}, label %one, label %zero")
    for label, kernel in (("one", choice.one), ("zero", choice.zero)):
        f.label(label)
        f.do(f"call void @{kernel.name}{end}({', '.join(names)})")
        f.do("ret void")
    return f.text()


# ---- a phase: what every worker does, and one chunk of slices ------------------------------------

_SEGMENT = "(ptr %context, ptr %arena, i64 %t, i64 %slice, i64 %group)"
_OWN = "(ptr %context, ptr %arena, i64 %slices, i64 %images)"


def phase_functions(plan: Plan, name: str, addresses: Addresses, training: bool) -> list[str]:
    """For each phase p: in training `name_worker{p}` and `name_leader{p}`, what comes before the
    slices, and `name_{p}_1` … `name_{p}_W`: 1 … W slices, from one on, through all segments."""
    functions = []
    for number, phase in enumerate(plan.phases):
        if training:
            functions += [
                _own_calls(f"{name}_worker{number}", phase.worker, addresses),
                _own_calls(f"{name}_leader{number}", phase.leader, addresses),
            ]
        for i, run in enumerate(phase.segments):
            if not run[0].wide:
                functions.append(_segment(f"{name}_{number}_segment{i}", run, addresses))
        for width in plan.widths:
            functions.append(_chunk(plan, name, number, width, addresses, training))
    return functions


def _own_calls(name: str, calls: tuple[Call, ...], addresses: Addresses) -> str:
    f = Function(f"define internal void @{name}{_OWN} noinline nounwind")
    for call in calls:
        call_kernel(f, call, 1, addresses, "0", 0)
    f.do("ret void")
    return f.text()


def _segment(name: str, run: tuple[Call, ...], addresses: Addresses) -> str:
    f = Function(f"define internal void @{name}{_SEGMENT} noinline nounwind")
    before = "entry"
    for chain, calls in groupby(run, key=lambda call: call.chain):
        together = list(calls)
        if chain >= 0 and together[0].block < together[0].extent:
            before = _chain(f, chain, together, addresses, before)
            continue
        for call in together:
            call_kernel(f, call, 1, addresses, "%slice", "%t")
    f.do("ret void")
    return f.text()


def _chain(f: Function, chain: int, calls: list[Call], addresses: Addresses, before: str) -> str:
    """All calls for a block of channels or pixels, then for the next; the label after the loop."""
    head, after, piece = f"chain{chain}", f"after{chain}", f"%piece{chain}"
    f.do(f"br label %{head}")
    f.label(head)
    f.do(f"{piece} = phi i64 [ 0, %{before} ], [ {piece}.next, %{head} ]")
    for call in calls:
        call_kernel(f, call, 1, addresses, "%slice", "%t", piece)
    f.do(f"{piece}.next = add i64 {piece}, {calls[0].block}")
    more = f.emit(f"icmp ult i64 {piece}.next, {calls[0].extent}")
    f.do(f"br i1 {more}, label %{head}, label %{after}")
    f.label(after)
    return after


def _chunk(
    plan: Plan, name: str, number: int, width: int, addresses: Addresses, training: bool
) -> str:
    phase = plan.phases[number]
    f = Function(
        f"define internal void @{name}_{number}_{width}(ptr %context, ptr %arena, i64 %first,"
        " i64 %start, i64 %images, i64 %slices, i64 %groups, i64 %step) noinline nounwind"
    )
    f.do("br label %work")
    f.label("work")
    slices = ["%first"] + [f.emit(f"add i64 %first, {i}") for i in range(1, width)]
    groups = []
    for t, first in enumerate(slices):
        scaled = f.emit(f"mul i64 {first}, %groups")
        groups.append(f.emit(f"udiv i64 {scaled}, %slices") if training else "0")
        if phase.prologue:
            call_prologue(f, plan, t, first, "training" if training else "forward")
        if training and addresses.partial_bytes and number == 0:
            f.do(f"call void @clear_partials(ptr %context, i64 {first}, i64 %slices, i64 %groups)")
    # Within a group of slices the order must not depend on how many are taken at once.
    order = range(width) if ascending(number) else reversed(range(width))
    turns = list(order)
    for i, run in enumerate(phase.segments):
        if run[0].wide:
            # Wide kernels find the first slice's places, and the others' behind them.
            call_kernel(f, run[0], width, addresses, "%first", 0)
            continue
        for t in turns:
            f.do(
                f"call void @{name}_{number}_segment{i}(ptr %context, ptr %arena, i64 {t},"
                f" i64 {slices[t]}, i64 {groups[t]})"
            )
    f.do("ret void")
    return f.text()


def call_prologue(
    f: Function,
    plan: Plan,
    t: int,
    slice: str,
    kind: str,
    start: str = "%start",
    step: str = "%step",
) -> None:
    """Which images the slice's lanes hold; it stands `t`-th in %arena."""
    places = [
        f.offset(f.offset("%arena", plan.arena.offsets[slot]), t * PROLOGUE[slot])
        if slot in plan.arena.offsets
        else "null"
        for slot in PROLOGUE
    ]
    pointers = ", ".join(f"ptr {place}" for place in places)
    f.do(
        f"call void @{kind}_prologue(ptr %context, {pointers}, i64 {slice}, i64 {start},"
        f" i64 %images, i64 {step})"
    )


def ascending(phase: int) -> bool:
    """Which way a phase goes through the slices."""
    return phase % 2 == 0
