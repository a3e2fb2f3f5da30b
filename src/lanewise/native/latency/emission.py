"""A plan for one image → LLVM IR: steps of tasks that threads share out, and the call from Python.

    for each step
        every thread: its share of the step's tasks, always the same ones
        barrier

`run_forward` is called by the engine's usual threads (`driver_threads.py`). `call_image` is the
short way for small networks: a function that Python calls directly (METH_FASTCALL), with an image
and a result as buffers. It runs on the calling thread alone and holds the interpreter's
lock meanwhile, which is cheaper than giving it away for a few microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator

from lanewise.native import debug
from lanewise.native.driver import WORD, Addresses, Function, call_kernel, choice_functions
from lanewise.native.driver_threads import threads
from lanewise.native.emit import deal
from lanewise.native.latency.planner import ImagePlan
from lanewise.native.machine_code import Module
from lanewise.native.plan import Call, Phase, Place, Plan, Slot
from lanewise.native.target import Target

#: bytes of CPython's Py_buffer, and where the fields stand that are read (64-bit, since 3.11)
VIEW_BYTES = 80
VIEW_ADDRESS, VIEW_LENGTH, VIEW_FORMAT = 0, 16, 40
#: PyBUF_FORMAT | PyBUF_C_CONTIGUOUS, and with PyBUF_WRITABLE
READ_FLAGS, WRITE_FLAGS = 0x0004 | 0x0038, 0x0004 | 0x0038 | 0x0001
#: what `call_image` returns: done, or the caller must take the long way
DONE, NOT_HERE = 1, 0
#: symbols that are given to the code when it is loaded: the context's own address, and CPython's
CONTEXT = "lanewise_context"
IMPORTS = ("PyObject_GetBuffer", "PyBuffer_Release", "PyErr_Clear", "PyLong_FromLong")


def modules(
    plan: ImagePlan, target: Target, image_values: int, outputs: int, profile: int | None = None
) -> Iterator[Module]:
    """Everything as textual modules. `image_values`, `outputs`: numbers that go in and come out.
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
        _call_image(image_values, outputs),
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


# ---- the call from Python -----------------------------------------------------------------------


def _call_image(image_values: int, outputs: int) -> str:
    """PyObject *call_image(self, args, count): an image and a result, both as buffers.

    1 when done; 0 where the long way must be taken: an argument is not what this way takes, a pixel
    is not finite, or another thread is on the long way.
    """
    f = Function("define ptr @call_image(ptr %self, ptr %args, i64 %count) noinline nounwind")
    f.block(f"""  %image.view = alloca [{VIEW_BYTES} x i8], align 16
  %result.view = alloca [{VIEW_BYTES} x i8], align 16
  %two = icmp eq i64 %count, 2
  br i1 %two, label %free, label %refuse
free:
  %busy.p = getelementptr i64, ptr @{CONTEXT}, i64 {WORD["busy"]}
  %busy = load i64, ptr %busy.p, align 8
  %idle = icmp eq i64 %busy, 0
  br i1 %idle, label %image.get, label %refuse
image.get:
  %image.object = load ptr, ptr %args, align 8
  %image.got = call i32 @PyObject_GetBuffer(ptr %image.object, ptr %image.view, i32 {READ_FLAGS})
  %image.ok = icmp eq i32 %image.got, 0
  br i1 %image.ok, label %result.get, label %clear
result.get:
  %result.at = getelementptr ptr, ptr %args, i64 1
  %result.object = load ptr, ptr %result.at, align 8
  %result.got = call i32 @PyObject_GetBuffer(ptr %result.object, ptr %result.view,
    i32 {WRITE_FLAGS})
  %result.ok = icmp eq i32 %result.got, 0
  br i1 %result.ok, label %look, label %release.image.clear
look:""")
    for name, values in (("image", image_values), ("result", outputs)):
        _read_view(f, name, values)
    f.do(f"%image.byte = icmp eq i8 %image.letter, {ord('B')}")
    f.do(f"%image.bytes = icmp eq i64 %image.length, {image_values}")
    f.do("%image.is.bytes = and i1 %image.byte, %image.bytes")
    f.do("%image.usable = or i1 %image.is.floats, %image.is.bytes")
    f.do("%usable = and i1 %image.usable, %result.is.floats")
    f.do("br i1 %usable, label %work, label %release")
    f.label("work")
    f.do("%kind = zext i1 %image.is.bytes to i64")
    stored = {"images": "ptr %image.address", "logits": "ptr %result.address"}
    for field, value in {**stored, "images_are_bytes": "i64 %kind", "threads": "i64 1"}.items():
        f.do(f"store {value}, ptr {f.word(WORD[field])}, align 8")
    f.do("%mode = call i64 @flush_denormals()")
    f.do(f"call void @run_forward(ptr %context, ptr {f.pointer('arena')}, i64 0)")
    f.do("call void @restore_mode(i64 %mode)")
    f.do(f"%fault = load <16 x float>, ptr {f.pointer('faults')}, align 64")
    f.block(f"""  %odd = fcmp uno <16 x float> %fault, zeroinitializer
  %odd.bits = bitcast <16 x i1> %odd to i16
  %finite = icmp eq i16 %odd.bits, 0
  %outcome = select i1 %finite, i64 {DONE}, i64 {NOT_HERE}
  br label %release
release:
  %status = phi i64 [ {NOT_HERE}, %look ], [ %outcome, %work ]
  call void @PyBuffer_Release(ptr %result.view)
  call void @PyBuffer_Release(ptr %image.view)
  %answer = call ptr @PyLong_FromLong(i64 %status)
  ret ptr %answer
release.image.clear:
  call void @PyBuffer_Release(ptr %image.view)
  br label %clear
clear:
  call void @PyErr_Clear()
  br label %refuse
refuse:
  %no = call ptr @PyLong_FromLong(i64 {NOT_HERE})
  ret ptr %no""")
    return "\n".join([*_DECLARATIONS, f.text().replace("%context,", f"@{CONTEXT},")])


def _read_view(f: Function, name: str, values: int) -> None:
    """What a Py_buffer tells: address, bytes, and whether it is so many floats."""
    fields = {"address": VIEW_ADDRESS, "length": VIEW_LENGTH, "format": VIEW_FORMAT}
    for field, at in fields.items():
        kind = "i64" if field == "length" else "ptr"
        f.do(f"%{name}.{field}.p = getelementptr i8, ptr %{name}.view, i64 {at}")
        f.do(f"%{name}.{field} = load {kind}, ptr %{name}.{field}.p, align 8")
    f.do(f"%{name}.letter = load i8, ptr %{name}.format, align 1")
    f.do(f"%{name}.float = icmp eq i8 %{name}.letter, {ord('f')}")
    f.do(f"%{name}.floats = icmp eq i64 %{name}.length, {4 * values}")
    f.do(f"%{name}.is.floats = and i1 %{name}.float, %{name}.floats")


_DECLARATIONS = (
    f"@{CONTEXT} = external global i8",
    "declare i32 @PyObject_GetBuffer(ptr, ptr, i32)",
    "declare void @PyBuffer_Release(ptr)",
    "declare void @PyErr_Clear()",
    "declare ptr @PyLong_FromLong(i64)",
)
