"""What follows when all slices are through: gradients finished, parameters updated, losses added.

A step's jobs are numbered and taken by ticket: first the shares of the convolutions' gradients
(the groups' sums added in their order), then blocks of the full connections' gradients, then the
loss. Each job updates the parameters whose gradient it finished, while they are in its cache.
"""

from __future__ import annotations

from dataclasses import dataclass

from lanewise.native.driver import Addresses, Function
from lanewise.native.nest import ELEMENT_BYTES, LANES, Kernel
from lanewise.native.plan import FLOAT, Job, Plan, Slot

REDUCE_FLOATS = 4096


@dataclass(frozen=True)
class UpdateKernels:
    """The kernels that finish a step, and how many state arrays the optimizer has."""

    update: Kernel
    reduce: Kernel | None
    states: int


def job_functions(
    plan: Plan, updates: UpdateKernels, summed_floats: int, addresses: Addresses
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
        functions.append(_reduce_job(updates.reduce, summed_floats))
        shares.append(("reduce_job", -(-summed_floats // REDUCE_FLOATS)))
        purposes += ["update"] * shares[-1][1]
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
    element = ELEMENT_BYTES[job.kernel.buffers[len(places) - 1].dtype]
    places[-1] = f.offset(places[-1], "%block", job.rows * LANES * element)
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
