"""The cache of machine code: entries survive, damage and bad disks cost time and nothing else."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lanewise import flags
from lanewise.native import cache as cache_module
from lanewise.native.cache import (
    Entry,
    MachineCodeCache,
    fingerprint,
    hash_sources,
    pack,
    unpack,
)
from lanewise.native.target import Target

KEY = "ab" * 32
ENTRY = Entry((b"first object", b"", b"\x00\xff" * 500), {"symbols": ["step"], "bytes": 123})
TARGET = Target("avx2", "x86_64-linux", "haswell", "+avx2,+fma", 16, 8, 2, True)


@pytest.fixture(autouse=True)
def nothing_warned_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_warned", set())


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- one entry ----------------------------------------------------------------------------------


def test_an_entry_comes_back(tmp_path: Path) -> None:
    cache = MachineCodeCache(tmp_path / "not" / "there yet")
    assert cache.get(KEY) is None
    cache.put(KEY, ENTRY)
    assert cache.get(KEY) == ENTRY
    assert cache.get("cd" * 32) is None
    assert len(files(tmp_path / "not" / "there yet")) == 1  # no unfinished file is left


def test_a_second_put_replaces_the_first(tmp_path: Path) -> None:
    cache = MachineCodeCache(tmp_path)
    cache.put(KEY, Entry((b"old",), {}))
    cache.put(KEY, ENTRY)
    assert cache.get(KEY) == ENTRY


facts = st.dictionaries(st.text(), st.integers() | st.text() | st.none() | st.booleans())


@given(st.lists(st.binary()), facts)
def test_what_is_packed_is_unpacked(objects: list[bytes], metadata: dict[str, object]) -> None:
    entry = Entry(tuple(objects), metadata)
    assert unpack(pack(entry)) == entry


@given(st.data())
def test_any_flipped_bit_is_seen(data: st.DataObject) -> None:
    content = bytearray(pack(ENTRY))
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    assert unpack(bytes(content)) is None


@given(st.integers(0, len(pack(ENTRY)) - 1), st.binary(min_size=1))
def test_any_other_length_is_seen(length: int, more: bytes) -> None:
    assert unpack(pack(ENTRY)[:length]) is None
    assert unpack(pack(ENTRY) + more) is None


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "older format"])
def test_a_damaged_entry_is_deleted_and_built_again(tmp_path: Path, damage: str) -> None:
    cache = MachineCodeCache(tmp_path)
    cache.put(KEY, ENTRY)
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    path.write_bytes(
        {
            "cut": good[:-1],
            "flip": good[:200] + bytes([good[200] ^ 4]) + good[201:],
            "empty": b"",
            "text": b"this is not machine code, " * 40,
            "older format": good[:6] + b"\x00\x00" + good[8:],
        }[damage]
    )
    assert cache.get(KEY) is None
    assert files(tmp_path) == []
    cache.put(KEY, ENTRY)
    assert cache.get(KEY) == ENTRY


def test_metadata_that_json_cannot_hold_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        MachineCodeCache(tmp_path).put(KEY, Entry((), {"path": tmp_path}))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no POSIX owner here")
def test_code_that_others_may_write_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = MachineCodeCache(tmp_path)
    cache.put(KEY, ENTRY)
    (path,) = tmp_path.iterdir()
    path.chmod(0o666)
    assert cache.get(KEY) is None
    path.chmod(0o600)
    assert cache.get(KEY) == ENTRY
    facts = list(path.stat())
    facts[stat.ST_UID] = os.geteuid() + 1
    monkeypatch.setattr(os, "fstat", lambda _: os.stat_result(facts))
    assert cache.get(KEY) is None


# ---- two processes ------------------------------------------------------------------------------

RACE = """
import sys
from lanewise.native.cache import Entry, MachineCodeCache
folder, name = sys.argv[1:]
cache, mine = MachineCodeCache(folder), Entry((name.encode() * 100_000,), {"by": name})
for _ in range(150):
    cache.put("k", mine)
    found = cache.get("k")
    assert found is not None, "an entry was lost or seen half written"
    assert found.objects[0] == found.metadata["by"].encode() * 100_000
"""


def test_processes_race_on_one_key(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", RACE, str(tmp_path), name], stderr=subprocess.PIPE)
        for name in ("a", "b", "c")
    ]
    for racer in racers:
        _, problem = racer.communicate(timeout=60)
        assert (racer.returncode, problem) == (0, b"")
    assert len(files(tmp_path)) == 1


# ---- disks that refuse --------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_disk_that_cannot_be_written_warns_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: int,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    cache = MachineCodeCache(tmp_path)
    for _ in range(3):
        cache.put(KEY, ENTRY)
        assert cache.get(KEY) is None
    assert files(tmp_path) == []
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lanewise: cannot write the cache of machine code in ")
    assert str(tmp_path) in line and os.strerror(number) in line and "LANEWISE_CACHE" in line


def test_a_full_disk_in_the_middle_of_a_file_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    unfinished = tmp_path / "code-x.part"
    unfinished.touch()
    handle = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr("tempfile.mkstemp", lambda **_: (handle, str(unfinished)))
    MachineCodeCache(tmp_path).put(KEY, ENTRY)
    assert files(tmp_path) == []
    assert "No space left" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_warns_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    for name in ("a", "a", "b"):
        cache = MachineCodeCache(tmp_path / "file" / name)
        assert cache.get(KEY) is None
        cache.put(KEY, ENTRY)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all("Not a directory" in line for line in lines)


def test_an_entry_that_cannot_be_read_warns_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = MachineCodeCache(tmp_path)
    (tmp_path / f"{KEY}.lwcode").mkdir()
    assert cache.get(KEY) is None and cache.get(KEY) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot read the cache" in line


def test_no_home_folder_means_no_cache(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(flags, "cache_folder", homeless)
    for _ in range(2):
        cache = MachineCodeCache()
        cache.put(KEY, ENTRY)
        assert cache.get(KEY) is None
    assert len(capsys.readouterr().err.splitlines()) == 1


# ---- size ---------------------------------------------------------------------------------------


def test_the_longest_unused_entries_go_first(tmp_path: Path) -> None:
    size = len(pack(ENTRY))
    cache = MachineCodeCache(tmp_path, largest=3 * size)
    for age, key in enumerate(["c", "b", "a"]):
        cache.put(key, ENTRY)
        os.utime(tmp_path / f"{key}.lwcode", (1000 - age, 1000 - age))
    assert cache.get("a") == ENTRY  # used just now: no longer the oldest
    cache.put("d", ENTRY)
    assert files(tmp_path) == ["a.lwcode", "c.lwcode", "d.lwcode"]


def test_an_entry_larger_than_the_bound_is_kept_alone(tmp_path: Path) -> None:
    cache = MachineCodeCache(tmp_path, largest=10)
    cache.put("a", ENTRY)
    cache.put("b", ENTRY)
    assert files(tmp_path) == ["b.lwcode"] and cache.get("b") == ENTRY


def test_eviction_touches_only_its_own_files(tmp_path: Path) -> None:
    for name in ("code-old.part", "code-new.part", "notes.txt"):
        (tmp_path / name).write_bytes(bytes(100))
    os.utime(tmp_path / "code-old.part", (1000, 1000))
    MachineCodeCache(tmp_path, largest=10).put("a", ENTRY)
    assert files(tmp_path) == ["a.lwcode", "code-new.part", "notes.txt"]


# ---- the folder ---------------------------------------------------------------------------------


def test_the_flag_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANEWISE_CACHE", str(tmp_path / "mine"))
    cache = MachineCodeCache()
    cache.put(KEY, ENTRY)
    assert cache.get(KEY) == ENTRY
    assert cache.folder == tmp_path / "mine" / "code"


@pytest.mark.parametrize(
    ("platform", "name", "variables", "expected"),
    [
        ("linux", "posix", {"XDG_CACHE_HOME": "/x"}, "/x/lanewise"),
        ("linux", "posix", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/lanewise"),
        ("linux", "posix", {}, "/home/me/.cache/lanewise"),
        ("darwin", "posix", {}, "/home/me/Library/Caches/lanewise"),
    ],
)
def test_the_folder_of_each_platform(
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    name: str,
    variables: dict[str, str],
    expected: str,
) -> None:
    for variable in ("LANEWISE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert flags.cache_folder() == Path(expected)


# ---- the key ------------------------------------------------------------------------------------


def test_the_key_depends_on_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"training": True, "threads": 2}
    first = fingerprint("input 1x28x28\n", options, TARGET)
    assert first == fingerprint("input 1x28x28\n", dict(reversed(options.items())), TARGET)
    others = [
        fingerprint("input 1x28x29\n", options, TARGET),
        fingerprint("input 1x28x28\n", {**options, "threads": 3}, TARGET),
        fingerprint("input 1x28x28\n", options, replace(TARGET, cpu="znver3")),
        fingerprint("input 1x28x28\n", options, replace(TARGET, features="+avx2")),
    ]
    with monkeypatch.context() as patch:
        patch.setattr("llvmlite.__version__", "0.0.1")
        others.append(fingerprint("input 1x28x28\n", options, TARGET))
    with monkeypatch.context() as patch:
        patch.setattr("llvmlite.binding.llvm_version_info", (1, 2, 3))
        others.append(fingerprint("input 1x28x28\n", options, TARGET))
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "engine_hash", lambda: "another engine")
        others.append(fingerprint("input 1x28x28\n", options, TARGET))
    assert len({first, *others}) == len(others) + 1
    assert len(first) == 64 and set(first) <= set("0123456789abcdef")


def test_the_key_is_the_same_in_another_process() -> None:
    program = (
        "from lanewise.native.cache import fingerprint\n"
        "from lanewise.native.target import Target\n"
        f"print(fingerprint('net', {{'a': [1, 2]}}, {TARGET!r}))\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    other = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert other.stdout.strip() == fingerprint("net", {"a": [1, 2]}, TARGET)


def test_every_change_of_the_source_changes_the_hash(tmp_path: Path) -> None:
    room = tmp_path / "native"
    (room / "kernels").mkdir(parents=True)
    hashes = [hash_sources([room])]
    for name, text in [("a.py", "x"), ("a.py", "y"), ("kernels/b.py", "x"), ("c.py", "")]:
        (room / name).write_text(text)
        hashes.append(hash_sources([room]))
    (room / "c.py").rename(room / "d.py")
    hashes.append(hash_sources([room]))
    assert len(set(hashes)) == len(hashes)
    (room / "notes.txt").write_text("of no concern")
    assert hash_sources([room]) == hashes[-1]
