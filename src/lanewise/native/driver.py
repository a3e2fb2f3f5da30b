"""The native program around the kernels: steps, slices, jobs, barriers — as LLVM IR.

One call trains for many steps without coming back to Python:

    for each step
        every group of slices, whoever takes its ticket:   prologue, then the plan's segments
        barrier
        every job:                                          final gradient, update
        barrier

All state stands in one array of 64-bit words, the context; `FIELDS` names them. Python fills it
(`program.py`), native code reads it. Tickets and barriers are atomic counters in it, each on a
cache line of its own. A waiting thread spins, and after a while yields its time slice to others.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lanewise.flags import MOST_THREADS
from lanewise.native.nest import LANES, Kernel
from lanewise.native.plan import (
    FLOAT,
    PROLOGUE,
    Call,
    Choice,
    Job,
    Place,
    Plan,
    Region,
    Slot,
)

#: counters that several threads write, each alone on its cache line
SHARED = ("generation", "arrived", "passed", "slice_ticket", "job_ticket")
#: what Python tells native code; addresses, counts and switches
FIELDS = (
    "threads",
    "command",
    "yield_function",
    "leave",
    "arena",
    "arena_stride",
    "kept",
    "capacity",
    "parameters",
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

    def read(self, name: str) -> str:
        """A field of the context."""
        address = self.emit(f"getelementptr i64, ptr %context, i64 {WORD[name]}")
        return self.emit(f"load i64, ptr {address}, align 8")

    def pointer(self, name: str) -> str:
        """A field of the context that holds an address."""
        address = self.emit(f"getelementptr i64, ptr %context, i64 {WORD[name]}")
        return self.emit(f"load ptr, ptr {address}, align 8")

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
        if place.name in self.plan.kept:
            return self.kept(f, place, slice)
        base = f.offset("%arena", self.plan.arena.offsets[place.name])
        return f.offset(base, t, place.size) if place.name in self.plan.crossing else base

    def kept(self, f: Function, slot: Slot, number: str) -> str:
        """Every slice has its own: all slices of one slot stand behind each other."""
        before = 0
        for name, size in self.plan.kept.items():
            if name == slot.name:
                break
            before += size
        start = f.offset(f.pointer("kept"), f.read("capacity"), before)
        return f.offset(start, number, slot.size)

    def region(self, f: Function, region: Region, slice: str) -> str:
        base = f.offset(f.pointer(region.name), region.offset)
        if region.name == "partials":
            return f.offset(base, "%group", self.partial_bytes)
        return f.offset(base, slice, region.slice_stride) if region.slice_stride else base


def call_kernel(
    f: Function, call: Call, width: int, addresses: Addresses, slice: str, t: str | int
) -> None:
    """Call the kernel of `width` slices on the call's places; symbols are fields of the context."""
    kernel = call.kernels[width]
    arguments = ["ptr %context"] if isinstance(kernel, Choice) else []
    arguments += [f"ptr {addresses.of(f, place, slice, t)}" for place in call.places]
    arguments += [f"i64 {f.read(symbol)}" for symbol in call.symbols]
    begun = _ticks(f) if addresses.profile is not None else ""
    f.do(f"call void @{kernel.name}({', '.join(arguments)})")
    if addresses.profile is not None:
        number = next(i for i, other in enumerate(addresses.plan.calls) if other is call)
        _add_ticks(f, begun, addresses.profile + 8 * number)


def _ticks(f: Function) -> str:
    return f.emit("call i64 @llvm.readcyclecounter()")


def _add_ticks(f: Function, begun: str, place: int) -> None:
    """Add the ticks since `begun` to a word of the worker's arena."""
    spent = f.emit(f"sub i64 {_ticks(f)}, {begun}")
    word = f.offset("%arena", place)
    old = f.emit(f"load i64, ptr {word}, align 8")
    f.do(f"store i64 {f.emit(f'add i64 {old}, {spent}')}, ptr {word}, align 8")


def choice_function(choice: Choice) -> str:
    """A kernel of two forms, picked by a field of the context."""
    count, symbols = len(choice.one.buffers), len(choice.one.symbols)
    names = [f"ptr %a{i}" for i in range(count)] + [f"i64 %s{i}" for i in range(symbols)]
    f = Function(
        f"define internal void @{choice.name}(ptr %context, {', '.join(names)}) noinline nounwind"
    )
    one = f.emit(f"icmp ne i64 {f.read(choice.field)}, 0")
    f.do(f"br i1 {one}, label %one, label %zero")
    for label, kernel in (("one", choice.one), ("zero", choice.zero)):
        f.label(label)
        f.do(f"call void @{kernel.name}({', '.join(names)})")
        f.do("ret void")
    return f.text()


# ---- one chunk of slices through the plan -------------------------------------------------------

_SEGMENT = "(ptr %context, ptr %arena, i64 %t, i64 %slice, i64 %group)"


def chunk_functions(plan: Plan, name: str, addresses: Addresses, training: bool) -> list[str]:
    """`name_1` and `name_W`: 1 or W slices, starting at a slice, through all segments."""
    functions = []
    runs = plan.segments
    for number, run in enumerate(runs):
        if run[0].wide:
            continue
        f = Function(f"define internal void @{name}_segment{number}{_SEGMENT} noinline nounwind")
        for call in run:
            call_kernel(f, call, 1, addresses, "%slice", "%t")
        f.do("ret void")
        functions.append(f.text())
    for width in plan.widths:
        functions.append(_chunk(plan, name, width, addresses, training))
    return functions


def _chunk(plan: Plan, name: str, width: int, addresses: Addresses, training: bool) -> str:
    f = Function(
        f"define internal void @{name}_{width}(ptr %context, ptr %arena, i64 %first,"
        " i64 %start, i64 %images, i64 %slices, i64 %groups, i64 %step) noinline nounwind"
    )
    f.do("br label %work")
    f.label("work")
    slices = ["%first"] + [f.emit(f"add i64 %first, {i}") for i in range(1, width)]
    groups = []
    for t, first in enumerate(slices):
        scaled = f.emit(f"mul i64 {first}, %groups")
        groups.append(f.emit(f"udiv i64 {scaled}, %slices") if training else "0")
        places = [
            f.offset(f.offset("%arena", plan.arena.offsets[slot]), t * PROLOGUE[slot])
            if slot in plan.arena.offsets
            else "null"
            for slot in PROLOGUE
        ]
        pointers = ", ".join(f"ptr {place}" for place in places)
        kind = "training" if training else "forward"
        f.do(
            f"call void @{kind}_prologue(ptr %context, {pointers}, i64 {first}, i64 %start,"
            f" i64 %images, i64 %step)"
        )
        if training and addresses.partial_bytes:
            f.do(f"call void @clear_partials(ptr %context, i64 {first}, i64 %slices, i64 %groups)")
    for number, run in enumerate(plan.segments):
        if run[0].wide:
            # Wide kernels find the first slice's places, and the others' behind them.
            call_kernel(f, run[0], width, addresses, "%first", 0)
            continue
        for t in range(width):
            f.do(
                f"call void @{name}_segment{number}(ptr %context, ptr %arena, i64 {t},"
                f" i64 {slices[t]}, i64 {groups[t]})"
            )
    f.do("ret void")
    return f.text()


# ---- jobs ---------------------------------------------------------------------------------------

REDUCE_FLOATS = 4096


@dataclass(frozen=True)
class UpdateKernels:
    """The kernels that finish a step, and how many state arrays the optimizer has."""

    update: Kernel
    reduce: Kernel | None
    states: int


def job_functions(
    plan: Plan, updates: UpdateKernels, convolution_floats: int, addresses: Addresses
) -> tuple[list[str], list[str]]:
    """`@job(context, number, step, slices, groups)`, and what each number is for."""
    f = Function(
        "define internal void @job(ptr %context, i64 %number, i64 %step, i64 %slices, i64 %groups)"
        " noinline nounwind"
    )
    functions = [_update(updates)]
    shares: list[tuple[str, int]] = []
    purposes: list[str] = []
    if updates.reduce is not None:
        functions.append(_reduce_job(updates.reduce, convolution_floats))
        shares.append(("reduce_job", -(-convolution_floats // REDUCE_FLOATS)))
        purposes += ["conv update"] * shares[-1][1]
    for index, job in enumerate(plan.jobs):
        functions.append(_parameter_job(f"parameter_job{index}", job, addresses))
        shares.append((f"parameter_job{index}", job.blocks))
        purposes += [f"{job.parameter.name.rpartition('.')[0]} gradient"] * job.blocks
    functions.append(_loss_job(plan, addresses))
    shares.append(("loss_job", 1))
    purposes.append("loss")
    before = 0
    for name, blocks in shares:
        inside = f.emit(f"icmp ult i64 %number, {before + blocks}")
        f.do(f"br i1 {inside}, label %do_{name}, label %after_{name}")
        f.label(f"do_{name}")
        block = f.emit(f"sub i64 %number, {before}")
        f.do(f"call void @{name}(ptr %context, i64 {block}, i64 %step, i64 %slices, i64 %groups)")
        f.do("ret void")
        f.label(f"after_{name}")
        before += blocks
    f.do("ret void")
    return [*functions, f.text()], purposes


_JOB = "(ptr %context, i64 %block, i64 %step, i64 %slices, i64 %groups) noinline nounwind"


def _update(updates: UpdateKernels) -> str:
    """Update `count` parameters from `first` on, unless only gradients are wanted."""
    f = Function(
        "define internal void @update(ptr %context, i64 %first, i64 %count, i64 %step)"
        " noinline nounwind"
    )
    wanted = f.emit(f"icmp ne i64 {f.read('update')}, 0")
    f.do(f"br i1 {wanted}, label %work, label %done")
    f.label("work")
    names = ["parameters", "gradients", "state0", "state1"][: 2 + updates.states]
    places = [f.offset(f.pointer(name), "%first", FLOAT) for name in names]
    places.append(f.offset(f.pointer("step_settings"), "%step", 16 * FLOAT))
    blocks = f.emit(f"udiv i64 %count, {LANES}")
    arguments = ", ".join(f"ptr {place}" for place in places)
    f.do(f"call void @{updates.update.name}({arguments}, i64 {blocks})")
    f.do("br label %done")
    f.label("done")
    f.do("ret void")
    return f.text()


def _reduce_job(reduce: Kernel, floats: int) -> str:
    f = Function(f"define internal void @reduce_job{_JOB}")
    first = f.emit(f"mul i64 %block, {REDUCE_FLOATS}")
    left = f.emit(f"sub i64 {floats}, {first}")
    short = f.emit(f"icmp ult i64 {left}, {REDUCE_FLOATS}")
    count = f.emit(f"select i1 {short}, i64 {left}, i64 {REDUCE_FLOATS}")
    partials = f.offset(f.pointer("partials"), first, FLOAT)
    gradients = f.offset(f.pointer("gradients"), first, FLOAT)
    blocks = f.emit(f"udiv i64 {count}, {LANES}")
    f.do(f"call void @{reduce.name}(ptr {partials}, ptr {gradients}, i64 %groups, i64 {blocks})")
    f.do(f"call void @update(ptr %context, i64 {first}, i64 {count}, i64 %step)")
    f.do("ret void")
    return f.text()


def _parameter_job(name: str, job: Job, addresses: Addresses) -> str:
    f = Function(f"define internal void @{name}{_JOB}")
    places = [addresses.kept(f, slot, "0") for slot in job.places]
    places[-1] = f.offset(places[-1], "%block", job.rows * LANES * FLOAT)
    begin = f.emit(f"mul i64 %block, {job.floats}")
    first = f.emit(f"add i64 {begin}, {job.parameter.offset}")
    places.append(f.offset(f.pointer("gradients"), first, FLOAT))
    f.do(f"call void @{job.kernel.name}({', '.join(f'ptr {p}' for p in places)}, i64 %slices)")
    f.do(f"call void @update(ptr %context, i64 {first}, i64 {job.floats}, i64 %step)")
    f.do("ret void")
    return f.text()


def _loss_job(plan: Plan, addresses: Addresses) -> str:
    """Add up what the slices wrote, in their order, in double precision."""
    f = Function(f"define internal void @loss_job{_JOB}")
    slots = {
        slot.name: slot for call in plan.calls for slot in call.places if isinstance(slot, Slot)
    }
    loss, correct = (addresses.kept(f, slots[name], "0") for name in ("loss", "correct"))
    loss_at = f.offset(f.pointer("losses"), "%step", 8)
    correct_at = f.offset(f.pointer("corrects"), "%step", 8)
    f.block(f"""  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %i.next, %head ]
  %sum = phi double [ 0.0, %entry ], [ %sum.next, %head ]
  %hits = phi double [ 0.0, %entry ], [ %hits.next, %head ]
  %at = mul i64 %i, 64
  %loss.p = getelementptr i8, ptr {loss}, i64 %at
  %loss.v = load float, ptr %loss.p, align 4
  %loss.d = fpext float %loss.v to double
  %sum.next = fadd double %sum, %loss.d
  %hit.p = getelementptr i8, ptr {correct}, i64 %at
  %hit.v = load float, ptr %hit.p, align 4
  %hit.d = fpext float %hit.v to double
  %hits.next = fadd double %hits, %hit.d
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, %slices
  br i1 %more, label %head, label %done
done:
  store double %sum.next, ptr {loss_at}, align 8
  %whole = fptosi double %hits.next to i64
  store i64 %whole, ptr {correct_at}, align 8
  ret void""")
    return f.text()


def clear_partials(partial_bytes: int) -> str:
    """Zero a group's sums when its first slice begins."""
    f = Function(
        "define internal void @clear_partials(ptr %context, i64 %slice, i64 %slices, i64 %groups)"
        " noinline nounwind"
    )
    f.block("""  %scaled = mul i64 %slice, %groups
  %group = udiv i64 %scaled, %slices
  %none = icmp eq i64 %slice, 0
  %before = sub i64 %scaled, %groups
  %group.before = udiv i64 %before, %slices
  %changed = icmp ne i64 %group, %group.before
  %begins = or i1 %none, %changed
  br i1 %begins, label %clear, label %done
clear:""")
    start = f.offset(f.pointer("partials"), "%group", partial_bytes)
    f.do(
        f"call void @llvm.memset.p0.i64(ptr align 64 {start}, i8 0, i64 {partial_bytes}, i1 false)"
    )
    f.do("br label %done")
    f.label("done")
    f.do("ret void")
    return f.text()
