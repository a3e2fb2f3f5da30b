"""Object files linked once, loaded without LLVM; and what is known without asking it."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lanewise.native import compile_net, known, linked
from lanewise.native.link import ObjectFile, Unlinkable, link
from lanewise.native.linked import MAGIC, Block, load_code
from lanewise.native.machine_code import compile_ir
from lanewise.native.target import find_target, read_host
from lanewise.net.parse import parse

TARGET = find_target()
BLOCKS = sys.platform == "linux" and TARGET.triple.startswith("x86_64")
blocks_only = pytest.mark.skipif(not BLOCKS, reason="blocks are for Linux on x86-64")

CALLER = """
@table = private unnamed_addr constant [4 x i64] [i64 3, i64 5, i64 7, i64 11], align 64
declare i64 @twice(i64)
declare i64 @outside(i64)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
@word = external global i64

define i64 @look(i64 %i) {
  %at = getelementptr [4 x i64], ptr @table, i64 0, i64 %i
  %found = load i64, ptr %at
  %double = call i64 @twice(i64 %found)
  ret i64 %double
}
define i64 @ask(i64 %i) {
  %found = call i64 @outside(i64 %i)
  %again = call i64 @outside(i64 %found)
  ret i64 %again
}
define i64 @read() {
  %found = load i64, ptr @word
  ret i64 %found
}
define void @clear(ptr %to, i64 %bytes) {
  call void @llvm.memset.p0.i64(ptr %to, i8 0, i64 %bytes, i1 false)
  ret void
}
"""
CALLED = "define i64 @twice(i64 %i) {\n  %d = shl i64 %i, 1\n  ret i64 %d\n}\n"
VARIABLE = (
    "@count = global i64 1\ndefine i64 @next() {\n  %a = load i64, ptr @count\n"
    "  %b = add i64 %a, 1\n  store i64 %b, ptr @count\n  ret i64 %b\n}\n"
)
OUTSIDE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(lambda value: value + 100)
WORD = ctypes.c_int64(42)
IMPORTS = {
    "outside": ctypes.cast(OUTSIDE, ctypes.c_void_p).value or 0,
    "word": ctypes.addressof(WORD),
}


def call(code: linked.Code, symbol: str, *arguments: int) -> int:
    kinds = [ctypes.c_int64] * len(arguments)
    return ctypes.CFUNCTYPE(ctypes.c_int64, *kinds)(code.address(symbol))(*arguments)


@pytest.fixture(params=["object files", "block"])
def code(request: pytest.FixtureRequest) -> Iterator[linked.Code]:
    objects: tuple[bytes, ...] = (compile_ir(CALLER, TARGET), compile_ir(CALLED, TARGET))
    if request.param == "block":
        objects = link(objects, TARGET)
        if BLOCKS:
            assert len(objects) == 1 and objects[0].startswith(MAGIC)
    loaded = load_code(objects, IMPORTS)
    yield loaded
    loaded.close()


def test_calls_tables_and_what_is_outside_are_found(code: linked.Code) -> None:
    assert [call(code, "look", i) for i in range(4)] == [6, 10, 14, 22]
    assert call(code, "ask", 1) == 201
    assert call(code, "read") == 42
    filled = np.ones(1000, np.uint8)
    call(code, "clear", filled.ctypes.data, 999)
    assert filled.sum() == 1


def test_what_is_not_there_is_told(code: linked.Code) -> None:
    with pytest.raises(KeyError):
        code.address("nobody")
    code.close()
    with pytest.raises(RuntimeError, match="closed"):
        code.address("look")


@blocks_only
def test_a_block_that_lacks_something_is_not_loaded() -> None:
    objects = link([compile_ir(CALLER, TARGET), compile_ir(CALLED, TARGET)], TARGET)
    with pytest.raises(RuntimeError, match="'word', which was not given"):
        Block(objects[0], {"outside": IMPORTS["outside"]})


@blocks_only
def test_the_pages_of_a_block_are_never_writable_and_executable() -> None:
    objects = link([compile_ir(CALLED, TARGET)], TARGET)
    block = Block(objects[0], {})
    address = block.address("twice")
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(part, 16) for part in line.split()[0].split("-"))
        if begin <= address < end:
            assert line.split()[1] == "r-xp"
            break
    else:
        pytest.fail("the block is nowhere")


@pytest.mark.parametrize("code", [VARIABLE, "declare i64 @f()\n@p = global ptr @f\n"])
def test_what_only_llvm_can_link_stays_as_it_is(code: str) -> None:
    objects = (compile_ir(code, TARGET),)
    assert link(objects, TARGET) == objects
    if BLOCKS:
        with pytest.raises(Unlinkable):
            ObjectFile(objects[0])


def test_other_machines_objects_stay_as_they_are() -> None:
    objects = (b"something",)
    assert link(objects, find_target("neon")) == objects
    assert link(objects, TARGET) == objects  # no object file


# ---- without LLVM -------------------------------------------------------------------------------

NET = "input 1x6x6; conv 2 k3; relu; flatten; linear 3"
LOAD = f"""
import sys
from lanewise.native import compile_net
from lanewise.net.parse import parse
import numpy as np
with compile_net(parse({NET!r}), training=True) as program:
    program.initialise(0)
    images = np.arange(72, dtype=np.float32).reshape(2, 1, 6, 6) / 72
    print(program.from_cache, "llvmlite" in sys.modules, program.forward(images).tobytes().hex())
"""


def load(folder: Path) -> list[str]:
    environment = {**os.environ, "LANEWISE_CACHE": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", LOAD], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.split()


@blocks_only
def test_a_program_from_the_cache_needs_no_llvm_and_computes_the_same(tmp_path: Path) -> None:
    cold, warm = load(tmp_path), load(tmp_path)
    assert cold[:2] == ["False", "True"]
    assert warm[:2] == ["True", "False"]
    assert cold[2] == warm[2]
    told = json.loads((tmp_path / known.FILE).read_text())
    assert told["host"]["cpu"] == read_host().cpu and len(told["engine"]) == 64
    (tmp_path / known.FILE).write_text(json.dumps({**told, "stamp": "of another machine"}))
    assert load(tmp_path) == ["True", "True", warm[2]]  # asked again, found the same


@pytest.fixture
def fresh() -> Iterator[None]:
    known._kept.cache_clear()
    known.stamp.cache_clear()
    yield
    known._kept.cache_clear()
    known.stamp.cache_clear()


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("content", ["", "no JSON", "[]", '{"host": {"cpu": "x"}}'])
def test_a_damaged_file_is_as_none(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANEWISE_CACHE", str(tmp_path))
    (tmp_path / known.FILE).write_text(content)
    assert known.recall("host") is None


@pytest.mark.usefixtures("fresh")
def test_nothing_is_kept_where_the_processor_is_not_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANEWISE_CACHE", str(tmp_path))
    monkeypatch.setattr(known, "_CPUINFO", tmp_path / "nothing")
    known.remember("llvm", ["1", [1]])
    assert known.recall("llvm") is None and list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("fresh")
@pytest.mark.skipif(not BLOCKS, reason="/proc describes the processor on Linux")
def test_a_changed_source_or_processor_makes_all_of_it_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = known.stamp()
    for name, found in [
        ("_sources", lambda: iter(["nest.py 10 20"])),
        ("_llvmlite", lambda: iter(["__init__.py 1 2"])),
        ("_processor", lambda: "flags: avx9"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(known, name, found)
            known.stamp.cache_clear()
            assert known.stamp() != first
    monkeypatch.setenv("LANEWISE_CACHE", str(tmp_path / "there"))
    known.stamp.cache_clear()
    known._kept.cache_clear()
    known.remember("llvm", ["1", [1]])
    known._kept.cache_clear()
    assert known.recall("llvm") == ["1", [1]]


def test_without_the_cache_the_same_is_computed() -> None:
    images = np.arange(72, dtype=np.float32).reshape(2, 1, 6, 6) / 72
    with (
        compile_net(parse(NET), training=True) as kept,
        compile_net(parse(NET), training=True, cache=False) as made,
    ):
        for program in (kept, made):
            program.initialise(0)
        assert kept.forward(images).tobytes() == made.forward(images).tobytes()
