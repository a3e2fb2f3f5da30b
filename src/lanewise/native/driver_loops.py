"""The steps of the native program, which no network changes: prologues, tickets, slices, jobs.

`driver.py` and `driver_jobs.py` emit what the plan decides (segments, jobs); this text calls it,
in the threads of `driver_threads.py`. It is control only, so it is written directly in LLVM IR.
"""

from __future__ import annotations

from lanewise.native.driver import WORD, Function
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
    jobs: int,
    widths: tuple[int, ...],
    training: bool,
    profile: int | None = None,
) -> str:
    """All fixed functions: the threads, and what they run.

    `profile`: where in the arena each job adds its clock ticks, if it shall.
    """
    parts = [
        "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)",
        "declare i64 @llvm.readcyclecounter()",
        *threads(target, training),
        _MIX,
        _prologue("forward"),
        _slices("forward", widths),
        _forward(),
    ]
    if training:
        parts += [_prologue("training"), _slices("train", widths), _train(jobs, profile)]
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
        number = f.emit(f"add i64 {f.read('first_step')}, %step")
        whole_seed = f.read("seed")
        low = f.emit(f"trunc i64 {whole_seed} to i32")
        high = f.emit(f"trunc i64 {f.emit(f'lshr i64 {whole_seed}, 32')} to i32")
        seed = f.emit(f"xor i32 {low}, {f.emit(f'call i32 @mix(i32 {high})')}")
        mixed_seed = f.emit(f"call i32 @mix(i32 {seed})")
        step32 = f.emit(f"trunc i64 {number} to i32")
        both = f.emit(f"xor i32 {mixed_seed}, {step32}")
        key = f.emit(f"call i32 @mix(i32 {both})")
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


def _store_key(f: Function, key: str, image: str) -> None:
    sample = f.emit(f"trunc i64 {image} to i32")
    joined = f.emit(f"xor i32 {key}, {sample}")
    mixed = f.emit(f"call i32 @mix(i32 {joined})")
    f.do(f"store i32 {mixed}, ptr {f.offset('%keys', '%lane', 4)}, align 4")


def _slices(name: str, widths: tuple[int, ...]) -> str:
    """Slices from … to − 1, as many at a time as the widths allow (they end with 1)."""
    f = Function(
        f"define internal void @{name}_slices(ptr %context, ptr %arena, i64 %from, i64 %to,"
        " i64 %start, i64 %images, i64 %slices, i64 %groups, i64 %step) noinline nounwind"
    )
    rest = "i64 %start, i64 %images, i64 %slices, i64 %groups, i64 %step"
    ends = ", ".join(f"[ %end{width}, %do{width} ]" for width in widths)
    f.block(f"""  br label %head
head:
  %s = phi i64 [ %from, %entry ], {ends}
  %more = icmp ult i64 %s, %to
  br i1 %more, label %try{widths[0]}, label %done""")
    for width, narrower in zip(widths, [*widths[1:], None], strict=True):
        otherwise = f"try{narrower}" if narrower else "done"
        f.block(f"""try{width}:
  %end{width} = add i64 %s, {width}
  %fits{width} = icmp ule i64 %end{width}, %to
  br i1 %fits{width}, label %do{width}, label %{otherwise}
do{width}:
  call void @{name}_{width}(ptr %context, ptr %arena, i64 %s, {rest})
  br label %head""")
    f.label("done")
    f.do("ret void")
    return f.text()


def _forward() -> str:
    """All slices, some at a time, whoever takes the ticket."""
    f = Function(
        "define internal void @run_forward(ptr %context, ptr %arena, i64 %thread) noinline nounwind"
    )
    images = f.read("image_count")
    more = f.emit(f"add i64 {images}, {LANES - 1}")
    slices = f.emit(f"udiv i64 {more}, {LANES}")
    ticket, together = f.word(WORD["slice_ticket"]), f.read("together")
    rest = f"i64 0, i64 {images}, i64 {slices}, i64 1, i64 0"
    f.block(f"""  br label %take
take:
  %number = atomicrmw add ptr {ticket}, i64 1 acq_rel
  %from = mul i64 %number, {together}
  %left = icmp ult i64 %from, {slices}
  br i1 %left, label %work, label %done
work:
  %end = add i64 %from, {together}
  %whole = icmp ule i64 %end, {slices}
  %to = select i1 %whole, i64 %end, i64 {slices}
  call void @forward_slices(ptr %context, ptr %arena, i64 %from, i64 %to, {rest})
  br label %take
done:
  call void @barrier(ptr %context)
  ret void""")
    return f.text()


def _train(jobs: int, profile: int | None) -> str:
    """Many steps: groups of slices by ticket, barrier, jobs by ticket, barrier."""
    f = Function(
        "define internal void @run_train(ptr %context, ptr %arena, i64 %thread) noinline nounwind"
    )
    total, batch, steps = f.read("total"), f.read("batch"), f.read("steps")
    most, together = f.read("groups"), f.read("together")
    rest = "i64 %start, i64 %images, i64 %slices, i64 %groups, i64 %step"
    job = "call void @job(ptr %context, i64 %number, i64 %step, i64 %slices, i64 %groups)"
    slice_ticket, job_ticket = f.word(WORD["slice_ticket"]), f.word(WORD["job_ticket"])
    f.block(f"""  %leader = icmp eq i64 %thread, 0
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
  %groups.less = sub i64 %groups, 1
  br i1 %leader, label %reset.jobs, label %take.group
reset.jobs:
  store atomic i64 0, ptr {job_ticket} release, align 8
  br label %take.group
take.group:
  %item = atomicrmw add ptr {slice_ticket}, i64 1 acq_rel
  %g0 = mul i64 %item, {together}
  %left = icmp ult i64 %g0, %groups
  br i1 %left, label %group, label %groups.done
group:
  %g1.far = add i64 %g0, {together}
  %g1.fits = icmp ult i64 %g1.far, %groups
  %g1 = select i1 %g1.fits, i64 %g1.far, i64 %groups
  %s0.scaled = mul i64 %g0, %slices
  %s0.up = add i64 %s0.scaled, %groups.less
  %s0 = udiv i64 %s0.up, %groups
  %s1.scaled = mul i64 %g1, %slices
  %s1.up = add i64 %s1.scaled, %groups.less
  %s1 = udiv i64 %s1.up, %groups
  call void @train_slices(ptr %context, ptr %arena, i64 %s0, i64 %s1, {rest})
  br label %take.group
groups.done:
  call void @barrier(ptr %context)
  br i1 %leader, label %reset.groups, label %take.job
reset.groups:
  store atomic i64 0, ptr {slice_ticket} release, align 8
  br label %take.job
take.job:
  %number = atomicrmw add ptr {job_ticket}, i64 1 acq_rel
  %todo = icmp ult i64 %number, {jobs}
  br i1 %todo, label %work, label %jobs.done
work:
  {_profiled(profile, job)}
  br label %take.job
jobs.done:
  call void @barrier(ptr %context)
  br label %step.end
step.end:
  %step.next = add i64 %step, 1
  br label %step.head
finished:
  ret void""")
    return f.text()


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
