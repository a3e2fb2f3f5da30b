"""Targets, code generation, spill counts and loading, on one small hand-written kernel."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lanewise.errors import EngineError
from lanewise.native import machine_code
from lanewise.native import target as target_module
from lanewise.native.machine_code import (
    CompileTimes,
    Library,
    Module,
    assembly,
    compile_ir,
    compile_modules,
    count_spills,
)
from lanewise.native.target import FAMILIES, Host, find_target, missing, read_host

VECTOR = "<16 x float>"
FMA = f"declare {VECTOR} @llvm.fma.v16f32({VECTOR}, {VECTOR}, {VECTOR})\n"


def kernel(name: str, sums: int) -> str:
    """y[s] = Σ_i x[i] · w[i][s] over n vectors x of 16 lanes, for `sums` running sums at once."""
    each = range(sums)
    lines = [
        f"define void @{name}(ptr %x, ptr %w, ptr %y, i64 %n) {{",
        "entry:",
        "  br label %loop",
    ]
    lines += ["loop:", "  %i = phi i64 [ 0, %entry ], [ %i1, %loop ]"]
    lines += [f"  %a{s} = phi {VECTOR} [ zeroinitializer, %entry ], [ %b{s}, %loop ]" for s in each]
    lines += [f"  %xi = getelementptr {VECTOR}, ptr %x, i64 %i", f"  %v = load {VECTOR}, ptr %xi"]
    lines += [f"  %wi = getelementptr [{sums} x float], ptr %w, i64 %i"]
    for s in each:
        lines += [
            f"  %p{s} = getelementptr float, ptr %wi, i64 {s}",
            f"  %f{s} = load float, ptr %p{s}",
            f"  %e{s} = insertelement {VECTOR} poison, float %f{s}, i64 0",
            f"  %s{s} = shufflevector {VECTOR} %e{s}, {VECTOR} poison, <16 x i32> zeroinitializer",
            f"  %b{s} = call {VECTOR} @llvm.fma.v16f32("
            f"{VECTOR} %v, {VECTOR} %s{s}, {VECTOR} %a{s})",
        ]
    lines += ["  %i1 = add i64 %i, 1", "  %done = icmp eq i64 %i1, %n"]
    lines += ["  br i1 %done, label %exit, label %loop", "exit:"]
    for s in each:
        lines += [f"  %y{s} = getelementptr {VECTOR}, ptr %y, i64 {s}"]
        lines += [f"  store {VECTOR} %b{s}, ptr %y{s}"]
    return "\n".join([*lines, "  ret void", "}", ""])


def constant(name: str, value: int) -> str:
    return f"define i64 @{name}() {{\n  ret i64 {value}\n}}\n"


def call(library: Library, symbol: str, *arguments: int) -> int:
    kinds = [ctypes.c_int64] * len(arguments)
    return ctypes.CFUNCTYPE(ctypes.c_int64, *kinds)(library.address(symbol))(*arguments)


def runs_here(name: str) -> bool:
    host = read_host()
    return FAMILIES[name].architecture == host.architecture and not missing(FAMILIES[name], host)


def fake_host(
    monkeypatch: pytest.MonkeyPatch,
    *lacking: str,
    architecture: str = "x86_64",
    features: tuple[str, ...] = FAMILIES["avx512"].required,
) -> None:
    """A CPU with everything AVX-512 needs, but for `lacking`."""
    host = Host(
        f"{architecture}-unknown-linux-gnu",
        "skylake-avx512",
        {feature: feature not in lacking for feature in features},
    )
    monkeypatch.setattr(target_module, "read_host", lambda: host)
    monkeypatch.delenv("LANEWISE_TARGET", raising=False)


# ---- targets ------------------------------------------------------------------------------------


def test_the_host_is_the_best_family_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_host(monkeypatch)
    best = find_target("host")
    assert (best.name, best.cpu, best.vector_registers, best.register_lanes, best.native) == (
        ("avx512", "skylake-avx512", 32, 16, True)
    )
    assert best.has("avx512bw") and not best.has("avx512bf16")


@pytest.mark.parametrize("lacking", ["avx512f", "avx512bw", "avx512vl", "avx512dq"])
def test_partial_avx512_gets_plain_avx2(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    fake_host(monkeypatch, lacking)
    best = find_target("host")
    assert (best.name, best.vector_registers, best.register_lanes) == ("avx2", 16, 8)
    assert "+avx512" not in best.features


def test_an_avx2_host_keeps_its_own_features(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_host(monkeypatch, features=(*FAMILIES["avx2"].required, "avxvnni"))
    best = find_target("host")
    assert (best.name, best.cpu) == ("avx2", "skylake-avx512") and best.has("avxvnni")


def test_an_arm_host_is_neon(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_host(monkeypatch, architecture="arm64", features=("neon",))
    best = find_target("host")
    assert (best.name, best.vector_registers, best.register_lanes, best.native) == (
        ("neon", 32, 4, True)
    )


@pytest.mark.parametrize(
    ("asked", "lacking"), [("avx512", "avx512dq"), ("avx2", "fma"), ("avx2", "avx2")]
)
def test_a_missing_feature_is_named(
    monkeypatch: pytest.MonkeyPatch, asked: str, lacking: str
) -> None:
    fake_host(monkeypatch, lacking)
    with pytest.raises(EngineError, match=rf"{asked}.* needs the CPU feature {lacking}, .*host"):
        find_target(asked)


def test_a_cpu_of_no_family(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_host(monkeypatch, "avx2")
    with pytest.raises(
        EngineError, match=r"skylake-avx512.* has none of AVX-512, AVX2 .*, or NEON"
    ):
        find_target("host")
    fake_host(monkeypatch, architecture="riscv64", features=())
    with pytest.raises(EngineError, match="riscv64"):
        find_target("host")


def test_an_unknown_target_lists_the_known_ones() -> None:
    with pytest.raises(EngineError, match=r"avx1024.* is not known: use host, .*neon"):
        find_target("avx1024")


def test_the_flag_replaces_the_default_only(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_host(monkeypatch)
    monkeypatch.setenv("LANEWISE_TARGET", "avx2")
    assert find_target("host").name == "avx2"
    assert find_target("avx512").name == "avx512"


def test_another_architecture_compiles_but_is_not_native(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_host(monkeypatch)
    assert not find_target("neon").native
    fake_host(monkeypatch, architecture="aarch64", features=("neon",))
    assert not find_target("avx2").native and find_target("neon").native


# ---- code ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["host", "avx512", "avx2"])
def test_the_kernel_computes_its_sums(name: str) -> None:
    if name != "host" and not runs_here(name):
        pytest.skip(f"this CPU cannot run {name}")
    library = Library.load(compile_ir(FMA + kernel("sums", 3), find_target(name)))
    generator = np.random.default_rng(1)
    x = generator.standard_normal((50, 16)).astype(np.float32)
    w = generator.standard_normal((50, 3)).astype(np.float32)
    x, w, y = aligned(x), aligned(w), aligned(np.zeros((3, 16), np.float32))
    call(library, "sums", x.ctypes.data, w.ctypes.data, y.ctypes.data, 50)
    np.testing.assert_allclose(y, w.T.astype(np.float64) @ x, rtol=1e-5, atol=1e-5)


def aligned(values: np.ndarray) -> np.ndarray:
    """The same values at an address that is a multiple of 64."""
    room = np.zeros(values.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    copy = room[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def test_avx2_code_uses_no_register_of_avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_host(monkeypatch)  # a machine that has AVX-512 must still get plain AVX2
    text = assembly(FMA + kernel("sums", 20), find_target("avx2"))
    large = assembly(FMA + kernel("sums", 20), find_target("avx512"))
    beyond = r"%zmm|%k[0-7]\b|%[xy]mm(1[6-9]|2\d|3[01])"
    assert "%ymm" in text and not re.search(beyond, text)
    assert re.search(beyond, large)


def test_neon_compiles_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_host(monkeypatch)
    neon = find_target("neon")
    code = compile_ir(FMA + kernel("sums", 3), neon)
    assert code[:4] == b"\x7fELF" and code[18:20] == b"\xb7\x00"  # machine 183: AArch64
    assert re.search(r"fmla\s+v\d+\.4s", assembly(FMA + kernel("sums", 3), neon))


@pytest.mark.parametrize(("name", "fits", "spills"), [("avx512", 24, 40), ("avx2", 6, 12)])
def test_spills_are_counted_for_each_function(
    monkeypatch: pytest.MonkeyPatch, name: str, fits: int, spills: int
) -> None:
    fake_host(monkeypatch)
    target = find_target(name)
    text = FMA + kernel("small", fits) + kernel("large", spills)
    counts = count_spills(assembly(text, target), target)
    assert counts["small"] == 0 and counts["large"] > 10
    assert set(counts) == {"small", "large"}


def test_spills_of_neon(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_host(monkeypatch)
    neon = find_target("neon")
    counts = count_spills(assembly(FMA + kernel("small", 4) + kernel("large", 12), neon), neon)
    assert counts["small"] == 0 and counts["large"] > 10


def test_spills_agree_with_llvms_own_remarks(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_host(monkeypatch)
    for name in ("avx512", "avx2", "neon"):
        target = find_target(name)
        text = assembly(FMA + kernel("large", 50), target)
        remarks = re.findall(r"^.*(?:%[xyz]mm|\b[qv]\d).*(?:Spill|Reload)$", text, re.MULTILINE)
        assert count_spills(text, target) == {"large": len(remarks)}


def test_a_pointer_in_rbp_is_no_spill() -> None:
    avx2 = target_module._target("avx2", "x86_64-linux", "haswell", "", native=False)
    head = "\t.type f,@function\nf:\n"
    load = "\tvmovups 32(%rbp,%rax), %ymm0\n"
    assert count_spills(head + load, avx2) == {"f": 0}
    assert count_spills(head + "\tmovq\t%rsp, %rbp\n" + load, avx2) == {"f": 1}


def test_text_that_does_not_parse_is_a_bug_of_ours() -> None:
    with pytest.raises(RuntimeError, match="expected"):
        compile_ir("define nonsense", find_target())


def test_times_are_added_up() -> None:
    times = CompileTimes()
    code = compile_ir(FMA + kernel("sums", 8), find_target(), times)
    assert min(times.parse, times.verify, times.codegen) > 0 and times.load == 0
    Library.load(code, times=times).address("sums")
    assert times.load > 0
    before = times.codegen
    compile_ir(FMA + kernel("sums", 8), find_target(), times)
    assert times.codegen > before
    assert times.total == times.parse + times.verify + times.codegen + times.load


def test_modules_are_the_same_on_any_number_of_threads() -> None:
    texts = [FMA + kernel(f"sums{count}", count) for count in (2, 30, 5, 17, 9)]
    alone = tuple(compile_ir(text, find_target()) for text in texts)
    for threads in (1, 2, 4):
        times = CompileTimes()
        assert compile_modules(map(Module, texts), find_target(), threads, times) == alone
        assert times.codegen > 0


def test_llvmlites_own_call_gives_the_same_code(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine_code._unlocked_emit() is not None
    unlocked = compile_ir(FMA + kernel("sums", 9), find_target())
    monkeypatch.setattr(machine_code, "_unlocked_emit", lambda: None)
    assert compile_ir(FMA + kernel("sums", 9), find_target()) == unlocked


# ---- loading ------------------------------------------------------------------------------------


def test_objects_call_each_other_and_imports() -> None:
    caller = "declare i64 @one()\ndeclare i64 @outside(i64)\n"
    caller += "define i64 @both() {\n  %a = call i64 @one()\n  %b = call i64 @outside(i64 %a)\n"
    caller += "  ret i64 %b\n}\n"
    outside = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(lambda value: value + 41)
    address = ctypes.cast(outside, ctypes.c_void_p).value
    assert address
    objects = compile_modules([Module(caller), Module(constant("one", 1))], find_target())
    assert call(Library.load(objects, {"outside": address}), "both") == 42


def test_libraries_may_use_the_same_names() -> None:
    libraries = [
        Library.load(compile_ir(constant("f", value), find_target())) for value in range(4)
    ]
    assert [call(library, "f") for library in libraries] == [0, 1, 2, 3]


def test_tables_far_larger_than_the_code_are_in_reach() -> None:
    size = 4_000_000
    kind = f"{{ [{size} x float], [3 x i64] }}"
    text = f"@table = internal constant {kind} {{ [{size} x float] zeroinitializer,"
    text += " [3 x i64] [i64 7, i64 8, i64 9] }, align 64\n"
    text += "define i64 @look(i64 %i) {\n"
    text += f"  %p = getelementptr {kind}, ptr @table, i64 0, i32 1, i64 %i\n"
    text += "  %v = load i64, ptr %p\n  ret i64 %v\n}\n"
    library = Library.load(compile_ir(text, find_target()))
    assert [call(library, "look", index) for index in range(3)] == [7, 8, 9]


def test_memory_is_filled_and_copied_by_the_c_library() -> None:
    text = "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)\n"
    text += "declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)\n"
    text += "declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)\n"
    text += "define void @work(ptr %a, ptr %b, i64 %n) {\n"
    text += "  call void @llvm.memset.p0.i64(ptr %a, i8 0, i64 %n, i1 false)\n"
    text += "  call void @llvm.memcpy.p0.p0.i64(ptr %b, ptr %a, i64 %n, i1 false)\n"
    text += "  %c = getelementptr i8, ptr %b, i64 1\n"
    text += "  call void @llvm.memmove.p0.p0.i64(ptr %b, ptr %c, i64 %n, i1 false)\n  ret void\n}\n"
    library = Library.load(compile_ir(text, find_target()))
    a, b = np.full(1000, 5, np.uint8), np.full(1001, 6, np.uint8)
    call(library, "work", a.ctypes.data, b.ctypes.data, 1000)
    assert not a.any() and not b[:999].any() and (b[999:] == 6).all()


def test_a_symbol_that_is_not_there() -> None:
    library = Library.load(compile_ir(constant("f", 1), find_target()))
    with pytest.raises(KeyError, match="g"):
        library.address("g")
    assert call(library, "f") == 1


def test_a_symbol_that_nobody_gave() -> None:
    text = "declare void @nobody()\ndefine void @f() {\n  call void @nobody()\n  ret void\n}\n"
    with pytest.raises(RuntimeError, match="materialize"):
        Library.load(compile_ir(text, find_target())).address("f")


def test_a_closed_library_gives_no_address() -> None:
    library = Library.load(compile_ir(constant("f", 1), find_target()))
    assert call(library, "f") == 1
    library.close()
    library.close()
    with pytest.raises(RuntimeError, match="closed"):
        library.address("g")
    with pytest.raises(RuntimeError, match="closed"):
        library.address("f")


def test_several_threads_compile_load_and_drop() -> None:
    def work(value: int) -> int:
        library = Library.load(compile_ir(constant("f", value), find_target()))
        return call(library, "f")

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(60))) == list(range(60))


def test_the_process_may_end_while_a_thread_is_in_the_code() -> None:
    program = (
        "import ctypes, threading, time\n"
        "from lanewise.native.machine_code import Library, compile_ir\n"
        "from lanewise.native.target import find_target\n"
        "text = 'define void @spin() {\\n  br label %again\\nagain:\\n  br label %again\\n}'\n"
        "library = Library.load(compile_ir(text, find_target()))\n"
        "library.itself = library\n"
        "spin = ctypes.CFUNCTYPE(None)(library.address('spin'))\n"
        "threading.Thread(target=spin, daemon=True).start()\n"
        "time.sleep(0.05)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
