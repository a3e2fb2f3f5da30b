"""A plan for one image → LLVM IR: steps of tasks that threads share out, and the call from Python.

    for each step
        every thread: its share of the step's tasks, always the same ones
        barrier

`run_forward` is called by the engine's usual threads (`driver_threads.py`), or for small networks
by Python itself (`python_call.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

from lanewise.native import debug
from lanewise.native.driver import Addresses, Function, call_kernel, choice_functions
from lanewise.native.driver_threads import threads
from lanewise.native.emit import deal
from lanewise.native.latency.planner import ImagePlan
from lanewise.native.latency.python_call import call_image
from lanewise.native.machine_code import Module
from lanewise.native.plan import Call, Phase, Place, Plan, Slot
from lanewise.native.target import Target
from lanewise.size.shapes import Shape


def modules(
    plan: ImagePlan, target: Target, image: Shape, output: Shape, profile: int | None = None
) -> Iterator[Module]:
    """Everything as textual modules. `image`, `output`: the shapes of what goes in and comes out.
    `profile`: where in the arena the clock ticks of every step are added, if they shall be."""
    addresses = _ImageAddresses(plan, 0)
    choices = {choice.name: choice_functions(choice) for choice in plan.choices}
    steps = [_step(f"step{number}", phase, addresses) for number, phase in enumerate(plan.phases)]
    driver = [
        "declare i64 @llvm.readcyclecounter()",
        *threads(target, training=False),
        *(text for both in choices.values() for text in both),
        *steps,
        _run_forward(len(steps), profile),
        call_image(image, output),
    ]
    debug.kernels(plan.kernels)
    return (debug.module(module, target) for module in deal(plan.kernels, driver, target))


class _ImageAddresses(Addresses):
    """All threads share the values; what is a thread's own stands behind them."""

    def of(self, f: Function, place: Place, slice: str, t: str | int) -> str:
        """As `Addresses.of`."""
        plan = self.plan
        if not (isinstance(place, Slot) and place.worker and isinstance(plan, ImagePlan)):
            return super().of(f, place, slice, t)
        first = f.offset("%arena", plan.threads_at)
        return f.offset(f.offset(first, "%thread", plan.thread_bytes), place.offset)


def purposes(plan: Plan) -> list[str]:
    """What each step is for."""
    return [phase.slices[0].purpose for phase in plan.phases]


def _run_forward(steps: int, profile: int | None) -> str:
    """The first thread tells how long each step took, with the wait for the others."""
    f = Function(
        "define internal void @run_forward(ptr %context, ptr %arena, i64 %thread) noinline nounwind"
    )
    threads = f.read("threads")
    first = f.emit("icmp eq i64 %thread, 0")
    for number in range(steps):
        begun = f.emit("call i64 @llvm.readcyclecounter()") if profile is not None else ""
        f.do(f"call void @step{number}(ptr %context, ptr %arena, i64 %thread, i64 {threads})")
        f.do("call void @barrier(ptr %context)")
        if profile is not None:
            spent = f.emit(f"sub i64 {f.emit('call i64 @llvm.readcyclecounter()')}, {begun}")
            mine = f.emit(f"select i1 {first}, i64 {spent}, i64 0")
            word = f.offset("%arena", profile + 8 * number)
            f.do(f"atomicrmw add ptr {word}, i64 {mine} monotonic")
    f.do("ret void")
    return f.text()


def _step(name: str, phase: Phase, addresses: Addresses) -> str:
    """One thread's share: tasks from thread · n / threads to (thread + 1) · n / threads − 1."""
    f = Function(
        f"define internal void @{name}(ptr %context, ptr %arena, i64 %thread, i64 %threads)"
        " noinline nounwind"
    )
    calls = phase.slices
    total = sum(call.extent for call in calls)
    f.do(f"%scaled = mul i64 %thread, {total}")
    f.do("%first = udiv i64 %scaled, %threads")
    f.do(f"%scaled.next = add i64 %scaled, {total}")
    f.do("%stop = udiv i64 %scaled.next, %threads")
    f.do("br label %call0")
    before = 0
    for number, call in enumerate(calls):
        _call_tasks(f, number, call, before, addresses)
        before += call.extent
    f.label(f"call{len(calls)}")
    f.do("ret void")
    return f.text()


def _call_tasks(f: Function, number: int, call: Call, before: int, addresses: Addresses) -> None:
    """Those tasks of a call that are the thread's; the call's first is the step's task `before`."""
    n, count = number, call.extent
    f.label(f"call{n}")
    for which in ("first", "stop"):
        f.do(f"%{which}{n}.own = sub i64 %{which}, {before}")
        f.do(f"%{which}{n}.low = icmp slt i64 %{which}{n}.own, 0")
        f.do(f"%{which}{n}.up = select i1 %{which}{n}.low, i64 0, i64 %{which}{n}.own")
        f.do(f"%{which}{n}.high = icmp sgt i64 %{which}{n}.up, {count}")
        f.do(f"%{which}{n} = select i1 %{which}{n}.high, i64 {count}, i64 %{which}{n}.up")
    f.do(f"br label %head{n}")
    f.label(f"head{n}")
    f.do(f"%task{n} = phi i64 [ %first{n}, %call{n} ], [ %task{n}.next, %body{n} ]")
    f.do(f"%more{n} = icmp slt i64 %task{n}, %stop{n}")
    f.do(f"br i1 %more{n}, label %body{n}, label %call{n + 1}")
    f.label(f"body{n}")
    call_kernel(f, call, 1, addresses, "0", 0, f"%task{n}")
    f.do(f"%task{n}.next = add i64 %task{n}, 1")
    f.do(f"br label %head{n}")
