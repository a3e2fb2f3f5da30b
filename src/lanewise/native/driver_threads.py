"""The threads of the native program: commands, waiting, barriers, the floating-point mode.

`begin` announces the command that stands in the context, `run` carries it out as one of the
threads, `worker` follows commands until it is told to leave. Who meets whom when:

    caller    begin ─ run ──────────┐            a command ends when all threads have passed its
    worker    (sees it) ─ run ──────┴─ barrier   last barrier; then the caller may give the next

All of it is about atomics and control, so it is written directly in LLVM IR.
"""

from __future__ import annotations

from lanewise.native.driver import (
    FORWARD,
    PARKED,
    SEEN,
    SPINS,
    WORD,
    WORDS_PER_LINE,
    YIELD_EVERY,
    Function,
)
from lanewise.native.target import Target

#: per architecture: a spinning thread's hint, and reading and setting the floating-point mode
_PAUSE = {"x86": "call void @llvm.x86.sse2.pause()", "arm": "call void @llvm.aarch64.hint(i32 1)"}

_X86_MODE = """
declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define internal i64 @flush_denormals() {
  %word = alloca i32, align 4
  call void @llvm.x86.sse.stmxcsr(ptr %word)
  %old = load i32, ptr %word, align 4
  %new = or i32 %old, 32832
  store i32 %new, ptr %word, align 4
  call void @llvm.x86.sse.ldmxcsr(ptr %word)
  %wide = zext i32 %old to i64
  ret i64 %wide
}
define internal void @restore_mode(i64 %mode) {
  %word = alloca i32, align 4
  %old = trunc i64 %mode to i32
  store i32 %old, ptr %word, align 4
  call void @llvm.x86.sse.ldmxcsr(ptr %word)
  ret void
}
"""

_ARM_MODE = """
declare void @llvm.aarch64.hint(i32)
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)
define internal i64 @flush_denormals() {
  %old = call i64 @llvm.aarch64.get.fpcr()
  %new = or i64 %old, 16777216
  call void @llvm.aarch64.set.fpcr(i64 %new)
  ret i64 %old
}
define internal void @restore_mode(i64 %mode) {
  call void @llvm.aarch64.set.fpcr(i64 %mode)
  ret void
}
"""


def threads(target: Target, training: bool) -> list[str]:
    """`begin`, `run`, `worker` (called from Python), `barrier`, and what they need."""
    family = "arm" if target.triple.startswith(("aarch64", "arm64")) else "x86"
    mode = _ARM_MODE if family == "arm" else _X86_MODE
    pause = _PAUSE[family]
    return [mode, _barrier(pause), _begin(), _run(training), _worker(pause)]


def _barrier(pause: str) -> str:
    """Everyone waits for the last one. The last opens the gate for all."""
    f = Function("define internal void @barrier(ptr %context) noinline nounwind")
    threads = f.read("threads")
    alone = f.emit(f"icmp ule i64 {threads}, 1")
    f.do(f"br i1 {alone}, label %done, label %arrive")
    f.label("arrive")
    arrived, passed = f.word(WORD["arrived"]), f.word(WORD["passed"])
    gate = f.emit(f"load atomic i64, ptr {passed} acquire, align 8")
    before = f.emit(f"atomicrmw add ptr {arrived}, i64 1 acq_rel")
    mine = f.emit(f"add i64 {before}, 1")
    last = f.emit(f"icmp eq i64 {mine}, {threads}")
    f.do(f"br i1 {last}, label %open, label %spin")
    f.label("open")
    f.do(f"store atomic i64 0, ptr {arrived} release, align 8")
    following = f.emit(f"add i64 {gate}, 1")
    f.do(f"store atomic i64 {following}, ptr {passed} release, align 8")
    f.do("br label %done")
    f.label("spin")
    f.lines += [
        "  %turn = phi i64 [ 0, %arrive ], [ %turn.next, %again ]",
        f"  %now = load atomic i64, ptr {passed} acquire, align 8",
        f"  %opened = icmp ne i64 %now, {gate}",
        "  br i1 %opened, label %done, label %wait",
        "wait:",
        f"  {pause}",
        "  %turn.next = add i64 %turn, 1",
        f"  %part = urem i64 %turn.next, {YIELD_EVERY}",
        "  %long = icmp eq i64 %part, 0",
        "  br i1 %long, label %yield, label %again",
        "yield:",
    ]
    f.do(f"call i32 {f.pointer('yield_function')}()")
    f.do("br label %again")
    f.label("again")
    f.do("br label %spin")
    f.label("done")
    f.do("ret void")
    return f.text()


def _begin() -> str:
    """Announce a command; how many workers sleep in Python and must be woken."""
    f = Function("define i64 @begin(ptr %context) noinline nounwind")
    generation = f.word(WORD["generation"])
    f.emit(f"atomicrmw add ptr {generation}, i64 1 seq_cst")
    threads = f.read("threads")
    f.block(f"""  br label %head
head:
  %i = phi i64 [ 1, %entry ], [ %i.next, %body ]
  %count = phi i64 [ 0, %entry ], [ %count.next, %body ]
  %more = icmp ult i64 %i, {threads}
  br i1 %more, label %body, label %done
body:
  %line = mul i64 %i, {WORDS_PER_LINE}
  %word = add i64 %line, {PARKED}
  %flag.p = getelementptr i64, ptr %context, i64 %word
  %flag = load atomic i64, ptr %flag.p seq_cst, align 8
  %count.next = add i64 %count, %flag
  %i.next = add i64 %i, 1
  br label %head
done:
  ret i64 %count""")
    return f.text()


def _run(training: bool) -> str:
    """The command of the context, as one of its threads."""
    f = Function("define void @run(ptr %context, i64 %thread) noinline nounwind")
    mode = f.emit("call i64 @flush_denormals()")
    arena = f.emit(f"mul i64 %thread, {f.read('arena_stride')}")
    mine = f.offset(f.pointer("arena"), arena)
    forward = f.emit(f"icmp eq i64 {f.read('command')}, {FORWARD}")
    f.do(f"br i1 {forward}, label %forward, label %train")
    f.label("forward")
    f.do(f"call void @run_forward(ptr %context, ptr {mine}, i64 %thread)")
    f.do("br label %done")
    f.label("train")
    if training:
        f.do(f"call void @run_train(ptr %context, ptr {mine}, i64 %thread)")
    f.do("br label %done")
    f.label("done")
    f.do(f"call void @restore_mode(i64 {mode})")
    f.do("ret void")
    return f.text()


def _worker(pause: str) -> str:
    """Follow commands until told to leave (1), or until nothing came for a while (0: sleep)."""
    f = Function("define i64 @worker(ptr %context, i64 %thread) noinline nounwind")
    generation = f.word(WORD["generation"])
    line = f.emit(f"mul i64 %thread, {WORDS_PER_LINE}")
    seen = f.word(f.emit(f"add i64 {line}, {SEEN}"))
    parked = f.word(f.emit(f"add i64 {line}, {PARKED}"))
    leave = f.word(WORD["leave"])
    f.block(f"""  store atomic i64 0, ptr {parked} seq_cst, align 8
  br label %watch
watch:
  %known = load i64, ptr {seen}, align 8
  br label %spin
spin:
  %turn = phi i64 [ 0, %watch ], [ %turn.next, %wait ]
  %now = load atomic i64, ptr {generation} seq_cst, align 8
  %new = icmp ne i64 %now, %known
  br i1 %new, label %follow, label %wait
wait:
  {pause}
  %turn.next = add i64 %turn, 1
  %patient = icmp ult i64 %turn.next, {SPINS}
  br i1 %patient, label %spin, label %park
park:
  store atomic i64 1, ptr {parked} seq_cst, align 8
  %again = load atomic i64, ptr {generation} seq_cst, align 8
  %late = icmp ne i64 %again, %known
  br i1 %late, label %unpark, label %sleep
unpark:
  store atomic i64 0, ptr {parked} seq_cst, align 8
  br label %follow
sleep:
  ret i64 0
follow:
  %command = load atomic i64, ptr {generation} seq_cst, align 8
  store i64 %command, ptr {seen}, align 8
  %stop = load i64, ptr {leave}, align 8
  %leaving = icmp ne i64 %stop, 0
  br i1 %leaving, label %gone, label %work
work:
  call void @run(ptr %context, i64 %thread)
  br label %watch
gone:
  ret i64 1""")
    return f.text()
