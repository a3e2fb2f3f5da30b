"""The steps of the native program, which no network changes: prologues, tickets, slices, jobs.

`driver.py` and `driver_jobs.py` emit what the plan decides (segments, jobs); this text calls it,
in the threads of `driver_threads.py`. It is control only, so it is written directly in LLVM IR.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lanewise.native.driver import Function, ascending
from lanewise.native.driver_threads import threads
from lanewise.native.nest import LANES
from lanewise.native.target import Target

_MIX = """
; a 32-bit finaliser: every input bit reaches every output bit
define internal i32 @mix(i32 %a) {
  %b = lshr i32 %a, 16
  %c = xor i32 %a, %b
  %d = mul i32 %c, 2146121005
  %e = lshr i32 %d, 15
  %f = xor i32 %d, %e
  %g = mul i32 %f, -2073254261
  %h = lshr i32 %g, 16
  %i = xor i32 %g, %h
  ret i32 %i
}
"""


def loops(
    target: Target,
    phases: Mapping[str, Sequence[bool]],
    jobs: int,
    widths: tuple[int, ...],
    profile: int | None = None,
) -> str:
    """All fixed functions: the threads, and what they run.

    `phases`: for each direction, whether they have wide calls. `profile`: where in the arena each
    job adds its clock ticks, if it shall.
    """
    training = "train" in phases
    parts = [
        "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)",
        "declare i64 @llvm.readcyclecounter()",
        *threads(target, training),
        _MIX,
        _prologue("forward"),
        _slices(widths),
        _forward(widths),
    ]
    if training:
        parts += [_prologue("training"), _groups(widths), _train(phases["train"], jobs, widths)]
        parts += [_jobs(jobs, profile)]
    return "\n".join(parts)


def _prologue(kind: str) -> str:
    """Which image each lane holds, its label, its share of the mean loss, its random key.

    Lanes beyond the last image repeat it with a share of zero.
    """
    f = Function(
        f"define internal void @{kind}_prologue(ptr %context, ptr %index, ptr %label, ptr %weight,"
        " ptr %keys, i64 %slice, i64 %start, i64 %images, i64 %step) noinline nounwind"
    )
    f.do("br label %prepare")
    f.label("prepare")
    first = f.emit(f"mul i64 %slice, {LANES}")
    training = kind == "training"
    if training:
        order, labels = f.pointer("order"), f.pointer("labels")
        count = f.emit("uitofp i64 %images to float")
        share = f.emit(f"fdiv float 1.0, {count}")
        key = _step_key(f)
    f.do("br label %lanes")
    f.label("lanes")
    f.do("%lane = phi i64 [ 0, %prepare ], [ %lane.next, %lanes ]")
    number = f.emit(f"add i64 {first}, %lane")
    inside = f.emit(f"icmp ult i64 {number}, %images")
    last = f.emit("sub i64 %images, 1")
    clamped = f.emit(f"select i1 {inside}, i64 {number}, i64 {last}")
    place = f.emit(f"add i64 {clamped}, %start")
    image = place
    if training:
        at = f.offset(order, place, 8)
        image = f.emit(f"load i64, ptr {at}, align 8")
    f.do(f"store i64 {image}, ptr {f.offset('%index', '%lane', 8)}, align 8")
    if training:
        label = f.emit(f"load i32, ptr {f.offset(labels, image, 4)}, align 4")
        f.do(f"store i32 {label}, ptr {f.offset('%label', '%lane', 4)}, align 4")
        weight = f.emit(f"select i1 {inside}, float {share}, float 0.0")
        f.do(f"store float {weight}, ptr {f.offset('%weight', '%lane', 4)}, align 4")
        _store_key(f, key, image)
    f.do("%lane.next = add i64 %lane, 1")
    f.do(f"%more = icmp ult i64 %lane.next, {LANES}")
    f.do("br i1 %more, label %lanes, label %done")
    f.label("done")
    f.do("ret void")
    return f.text()


def _step_key(f: Function) -> str:
    """Random bits of a seed and the number of a step."""
    number = f.emit(f"add i64 {f.read('first_step')}, %step")
    whole_seed = f.read("seed")
    low = f.emit(f"trunc i64 {whole_seed} to i32")
    high = f.emit(f"trunc i64 {f.emit(f'lshr i64 {whole_seed}, 32')} to i32")
    seed = f.emit(f"xor i32 {low}, {f.emit(f'call i32 @mix(i32 {high})')}")
    mixed_seed = f.emit(f"call i32 @mix(i32 {seed})")
    step32 = f.emit(f"trunc i64 {number} to i32")
    both = f.emit(f"xor i32 {mixed_seed}, {step32}")
    return f.emit(f"call i32 @mix(i32 {both})")


def _store_key(f: Function, key: str, image: str) -> None:
    """The lane's own: mixed with the number of its image."""
    sample = f.emit(f"trunc i64 {image} to i32")
    joined = f.emit(f"xor i32 {key}, {sample}")
    mixed = f.emit(f"call i32 @mix(i32 {joined})")
    f.do(f"store i32 {mixed}, ptr {f.offset('%keys', '%lane', 4)}, align 4")


_REST = "i64 %start, i64 %images, i64 %slices, i64 %groups, i64 %step"
_TICKET_BYTES = 64


def _chunks(widths: tuple[int, ...], name: str, phase: int) -> str:
    """The functions of a phase, widest first, as arguments."""
    return ", ".join(f"ptr @{name}_{phase}_{width}" for width in widths)


def _slices(widths: tuple[int, ...]) -> str:
    """Slices from … to − 1, up or down, as many at a time as the widths allow (they end with 1)."""
    chunks = ", ".join(f"ptr %chunk{width}" for width in widths)
    f = Function(
        "define internal void @take_slices(ptr %context, ptr %arena, i64 %from, i64 %to, i1 %up,"
        f" {chunks}, {_REST}) noinline nounwind"
    )
    ends = ", ".join(f"[ %left{width}, %do{width} ]" for width in widths)
    f.block(f"""  %all = sub i64 %to, %from
  br label %head
head:
  %left = phi i64 [ %all, %entry ], {ends}
  %more = icmp ugt i64 %left, 0
  br i1 %more, label %try{widths[0]}, label %done""")
    for width, narrower in zip(widths, [*widths[1:], None], strict=True):
        otherwise = f"try{narrower}" if narrower else "done"
        f.block(f"""try{width}:
  %fits{width} = icmp uge i64 %left, {width}
  br i1 %fits{width}, label %do{width}, label %{otherwise}
do{width}:
  %left{width} = sub i64 %left, {width}
  %done{width} = sub i64 %all, %left
  %offset{width} = select i1 %up, i64 %done{width}, i64 %left{width}
  %s{width} = add i64 %from, %offset{width}
  call void %chunk{width}(ptr %context, ptr %arena, i64 %s{width}, {_REST})
  br label %head""")
    f.label("done")
    f.do("ret void")
    return f.text()


def _forward(widths: tuple[int, ...]) -> str:
    """All slices, some at a time, whoever takes the ticket; the last ones by all threads."""
    f = Function(
        "define internal void @run_forward(ptr %context, ptr %arena, i64 %thread) noinline nounwind"
    )
    images = f.read("image_count")
    more = f.emit(f"add i64 {images}, {LANES - 1}")
    slices = f.emit(f"udiv i64 {more}, {LANES}")
    ticket, together, whole = f.pointer("tickets"), f.read("together"), f.read("whole")
    threads, values = f.read("threads"), f.pointer("arena")
    stale = f.emit(f"icmp ne i64 {f.read('stale')}, 0")
    rest = f"i64 0, i64 {images}, i64 {slices}, i64 1, i64 0"
    chunks = _chunks(widths, "forward", 0)
    f.block(f"""  br i1 {stale}, label %constants, label %take
constants:
  call void @forward_constants(ptr %context, ptr %arena, i64 %thread, i64 {threads})
  br label %take
take:
  %number = atomicrmw add ptr {ticket}, i64 1 acq_rel
  %from = mul i64 %number, {together}
  %left = icmp ult i64 %from, {whole}
  br i1 %left, label %work, label %rest
work:
  %end = add i64 %from, {together}
  %fits = icmp ule i64 %end, {whole}
  %to = select i1 %fits, i64 %end, i64 {whole}
  call void @take_slices(ptr %context, ptr %arena, i64 %from, i64 %to, i1 true, {chunks}, {rest})
  br label %take
rest:
  %slice = phi i64 [ {whole}, %take ], [ %slice.next, %share ]
  %more = icmp ult i64 %slice, {slices}
  br i1 %more, label %share, label %done
share:
  call void @forward_together(ptr %context, ptr %arena, ptr {values}, i64 %slice, i64 {images},
    i64 %thread, i64 {threads})
  %slice.next = add i64 %slice, 1
  br label %rest
done:
  call void @barrier(ptr %context)
  ret void""")
    return f.text()


def _groups(widths: tuple[int, ...]) -> str:
    """One phase: groups of slices by ticket, up or down, until none is left; then the barrier."""
    chunks = ", ".join(f"ptr %chunk{width}" for width in widths)
    f = Function(
        "define internal void @take_groups(ptr %context, ptr %arena, ptr %ticket, i64 %together,"
        f" i1 %up, {chunks}, {_REST}) noinline nounwind"
    )
    f.block(f"""  %groups.less = sub i64 %groups, 1
  %together.less = sub i64 %together, 1
  %items.up = add i64 %groups, %together.less
  %items = udiv i64 %items.up, %together
  br label %take
take:
  %number = atomicrmw add ptr %ticket, i64 1 acq_rel
  %left = icmp ult i64 %number, %items
  br i1 %left, label %work, label %done
work:
  %back.less = sub i64 %items, 1
  %back = sub i64 %back.less, %number
  %item = select i1 %up, i64 %number, i64 %back
  %g0 = mul i64 %item, %together
  %g1.far = add i64 %g0, %together
  %g1.fits = icmp ult i64 %g1.far, %groups
  %g1 = select i1 %g1.fits, i64 %g1.far, i64 %groups
  %s0.scaled = mul i64 %g0, %slices
  %s0.up = add i64 %s0.scaled, %groups.less
  %s0 = udiv i64 %s0.up, %groups
  %s1.scaled = mul i64 %g1, %slices
  %s1.up = add i64 %s1.scaled, %groups.less
  %s1 = udiv i64 %s1.up, %groups
  call void @take_slices(ptr %context, ptr %arena, i64 %s0, i64 %s1, i1 %up, {chunks}, {_REST})
  br label %take
done:
  call void @barrier(ptr %context)
  ret void""")
    return f.text()


def _train(phases: Sequence[bool], jobs: int, widths: tuple[int, ...]) -> str:
    """Many steps: the phases one after the other, then the jobs. `phases`: are they wide?"""
    f = Function(
        "define internal void @run_train(ptr %context, ptr %arena, i64 %thread) noinline nounwind"
    )
    total, batch, steps = f.read("total"), f.read("batch"), f.read("steps")
    most, tickets, update = f.read("groups"), f.pointer("tickets"), f.read("update")
    together = f.read("together")
    f.block(f"""  %first = icmp eq i64 %thread, 0
  %updates = icmp ne i64 {update}, 0
  %leads = and i1 %first, %updates
  br label %step.head
step.head:
  %step = phi i64 [ 0, %entry ], [ %step.next, %step.end ]
  %any = icmp ult i64 %step, {steps}
  br i1 %any, label %step.begin, label %finished
step.begin:
  %start = mul i64 %step, {batch}
  %rest = sub i64 {total}, %start
  %short = icmp ult i64 %rest, {batch}
  %images = select i1 %short, i64 %rest, i64 {batch}
  %images.up = add i64 %images, {LANES - 1}
  %slices = udiv i64 %images.up, {LANES}
  %few = icmp ult i64 %slices, {most}
  %groups = select i1 %few, i64 %slices, i64 {most}
  br label %phase0""")
    for phase, wide in enumerate(phases):
        # Without wide calls groups go one by one: nobody waits long for the last of them.
        _phase(f, phase, len(phases), widths, tickets, together if wide else "1")
    f.label(f"phase{len(phases)}")
    ticket = f.offset(tickets, len(phases) * _TICKET_BYTES)
    _reset(f, "jobs", f.offset(tickets, (len(phases) - 1) * _TICKET_BYTES), "take.jobs")
    f.block(f"""take.jobs:
  call void @take_jobs(ptr %context, ptr %arena, ptr {ticket},
    i64 %slices, i64 %groups, i64 %step)
  br label %step.end
step.end:
  %step.next = add i64 %step, 1
  br label %step.head
finished:
  ret void""")
    return f.text()


def _phase(
    f: Function, phase: int, phases: int, widths: tuple[int, ...], tickets: str, together: str
) -> None:
    """A phase of a step. Everybody has left the phase before: its ticket begins anew."""
    before = (phase - 1) % (phases + 1)
    f.label(f"phase{phase}")
    _reset(f, f"phase{phase}", f.offset(tickets, before * _TICKET_BYTES), f"work{phase}")
    f.label(f"work{phase}")
    own = "(ptr %context, ptr %arena, i64 %slices, i64 %images)"
    f.do(f"call void @train_worker{phase}{own}")
    f.do(f"br i1 %leads, label %lead{phase}, label %slices{phase}")
    f.label(f"lead{phase}")
    f.do(f"call void @train_leader{phase}{own}")
    f.do(f"br label %slices{phase}")
    f.label(f"slices{phase}")
    up = "true" if ascending(phase) else "false"
    ticket = f.offset(tickets, phase * _TICKET_BYTES)
    f.do(
        f"call void @take_groups(ptr %context, ptr %arena, ptr {ticket}, i64 {together},"
        f" i1 {up}, {_chunks(widths, 'train', phase)}, {_REST})"
    )
    f.do(f"br label %phase{phase + 1}")


def _reset(f: Function, name: str, ticket: str, then: str) -> None:
    """The first worker sets a ticket nobody uses back to zero."""
    f.do(f"br i1 %first, label %reset.{name}, label %{then}")
    f.label(f"reset.{name}")
    f.do(f"store atomic i64 0, ptr {ticket} release, align 8")
    f.do(f"br label %{then}")


def _jobs(jobs: int, profile: int | None) -> str:
    """The jobs by ticket, then the barrier."""
    job = "call void @job(ptr %context, i64 %number, i64 %step, i64 %slices, i64 %groups)"
    return f"""define internal void @take_jobs(ptr %context, ptr %arena, ptr %ticket,
    i64 %slices, i64 %groups, i64 %step) noinline nounwind {{
entry:
  br label %take
take:
  %number = atomicrmw add ptr %ticket, i64 1 acq_rel
  %todo = icmp ult i64 %number, {jobs}
  br i1 %todo, label %work, label %done
work:
  {_profiled(profile, job)}
  br label %take
done:
  call void @barrier(ptr %context)
  ret void
}}"""


def _profiled(profile: int | None, call: str) -> str:
    """The call of job %number, its clock ticks added to the job's word."""
    if profile is None:
        return call
    return f"""%begun = call i64 @llvm.readcyclecounter()
  {call}
  %ended = call i64 @llvm.readcyclecounter()
  %spent = sub i64 %ended, %begun
  %words = getelementptr i8, ptr %arena, i64 {profile}
  %word = getelementptr i64, ptr %words, i64 %number
  %before = load i64, ptr %word, align 8
  %after = add i64 %before, %spent
  store i64 %after, ptr %word, align 8"""
