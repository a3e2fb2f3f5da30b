"""The cached store: same bits, never stale, rebuilt when damaged, done without when unwritable."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lanewise import flags
from lanewise.data import decode as decoding
from lanewise.data import open_data, store_file
from lanewise.data import store as storing


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("LANEWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


@pytest.fixture
def folder(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(20):
            array = rng.integers(0, 256, (9 + index % 3, 8, 3), dtype=np.uint8)
            Image.fromarray(array).save(tmp_path / "photos" / name / f"{index}.png")
    (tmp_path / "photos" / "a" / "bad.png").write_bytes(b"bad")
    return tmp_path / "photos"


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The paths that were decoded so far."""
    seen: list[str] = []
    original = decoding.decode_path

    def watched(path, rule):
        seen.append(path)
        return original(path, rule)

    monkeypatch.setattr(decoding, "decode_path", watched)
    return seen


def opened(folder: Path, **options):
    return open_data(folder, input_shape=(3, 6, 6), **options)


def assert_same(first, second) -> None:
    assert first.fingerprint == second.fingerprint and first.class_names == second.class_names
    assert first.skipped == second.skipped and first.preprocessing == second.preprocessing
    for name in ("train", "val", "test"):
        one, two = getattr(first, name), getattr(second, name)
        assert np.array_equal(one.images, two.images) and np.array_equal(one.labels, two.labels)
        assert list(one.sources) == list(two.sources)


def test_the_second_opening_decodes_nothing_and_gives_the_same_bits(folder, cache, decoded):
    first = opened(folder)
    assert len(decoded) == 41
    second = opened(folder)
    assert len(decoded) == 41
    assert_same(first, second)
    assert first.summary == second.summary
    assert len(list(cache.iterdir())) == 1


def test_one_and_four_threads_and_no_cache_give_the_same_bits(folder, cache, monkeypatch):
    monkeypatch.setattr(decoding, "TINY_FILE", 0)
    monkeypatch.setattr(decoding, "BLOCK_BYTES", 1)
    first = opened(folder)
    for threads in ("1", "4"):
        monkeypatch.setenv("LANEWISE_THREADS", threads)
        assert_same(first, opened(folder, cache=False))
    assert len(list(cache.iterdir())) == 1


def test_splits_given_by_folders_are_views_of_the_mapped_file(folder, cache):
    for part in ("val", "test"):
        for name in ("a", "b"):
            (folder.parent / "set" / part / name).mkdir(parents=True)
            source = folder / name / "1.png"
            (folder.parent / "set" / part / name / "1.png").write_bytes(source.read_bytes())
    folder.rename(folder.parent / "set" / "train")
    data = opened(folder.parent / "set")
    assert not data.train.images.flags.owndata and not data.train.images.flags.writeable
    assert len(data.train) == 40 and len(data.val) == 2


@pytest.mark.parametrize("change", ["touch", "grow", "add", "remove", "fit", "size"])
def test_any_change_makes_a_new_store(folder, cache, decoded, change):
    opened(folder)
    count, path, options = len(decoded), folder / "a" / "3.png", {"input_shape": (3, 6, 6)}
    if change == "touch":
        os.utime(path, (1, 1))
    elif change == "grow":
        status = path.stat()
        path.write_bytes(path.read_bytes() + b"\0")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "add":
        Image.new("RGB", (5, 5)).save(folder / "b" / "new.png")
    elif change == "remove":
        path.unlink()
    else:
        options |= {"fit": "pad"} if change == "fit" else {"input_shape": (3, 7, 6)}
    open_data(folder, **options)
    assert len(decoded) > count


@pytest.mark.parametrize("place", [0, 70, 2000, -200, -20, -1])
def test_a_flipped_bit_is_found_and_the_store_rebuilt(folder, cache, decoded, capsys, place):
    first = opened(folder)
    (path,) = cache.iterdir()
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)
    assert_same(first, opened(folder))
    assert "is damaged" in capsys.readouterr().err and len(decoded) == 82
    assert_same(first, opened(folder))
    assert len(decoded) == 82


@pytest.mark.parametrize("length", [0, 10, 64, 1000, -1])
def test_a_truncated_store_is_rebuilt(folder, cache, decoded, capsys, length):
    first = opened(folder)
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:length])
    assert_same(first, opened(folder))
    assert "is damaged" in capsys.readouterr().err and len(decoded) == 82


def test_a_cache_that_cannot_be_made_is_done_without(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("LANEWISE_CACHE", str(tmp_path / "file"))
    data = opened(folder)
    assert len(data.train) == 32
    captured = capsys.readouterr()
    assert "cannot be written" in captured.err and "LANEWISE_CACHE" in captured.err
    assert captured.out == ""
    assert any("cannot be written" in line for line in data.summary)


def test_a_read_only_cache_is_done_without(folder, cache, monkeypatch, capsys):
    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(store_file.tempfile, "mkstemp", refused)
    assert len(opened(folder).train) == 32
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize("writes", [1, 2, 3, 4, 5])  # header, three blocks, record
def test_a_full_disk_loses_nothing(folder, cache, monkeypatch, capsys, writes):
    expected = opened(folder, cache=False)
    monkeypatch.setattr(decoding, "BLOCK_BYTES", 1)  # several blocks of sixteen images
    left = [writes]
    original = store_file.PartFile._write

    def limited(self, data):
        left[0] -= 1
        if not left[0]:
            original(self, memoryview(data)[: len(data) // 2])  # half of it still found room
            raise OSError(errno.ENOSPC, "No space left on device")
        original(self, data)

    monkeypatch.setattr(store_file.PartFile, "_write", limited)
    assert_same(expected, opened(folder))
    assert "No space left on device" in capsys.readouterr().err
    assert list(cache.iterdir()) == []


def test_a_failing_rename_loses_nothing(folder, cache, monkeypatch, capsys):
    expected = opened(folder, cache=False)

    def refused(*paths):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(store_file.os, "replace", refused)
    assert_same(expected, opened(folder))
    assert "Permission denied" in capsys.readouterr().err and list(cache.iterdir()) == []


def test_old_stores_are_removed_and_used_ones_kept(folder, cache):
    opened(folder)
    (used,) = cache.iterdir()
    old, part = cache / "old.images", cache / "x.abc.part"
    for path in (old, part):
        path.write_bytes(b"x")
        os.utime(path, (time.time() - 40 * 24 * 3600,) * 2)
    os.utime(used, (time.time() - 29 * 24 * 3600,) * 2)
    open_data(folder, input_shape=(1, 6, 6))
    assert used.exists() and not old.exists() and not part.exists()


def test_the_cache_has_a_platform_default(monkeypatch, tmp_path):
    monkeypatch.delenv("LANEWISE_CACHE", raising=False)
    monkeypatch.setattr(flags.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert storing.store_folder() == tmp_path / "lanewise" / "data"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert storing.store_folder() == tmp_path / "home" / ".cache" / "lanewise" / "data"


def test_no_home_folder_means_no_cache(folder, monkeypatch, capsys):
    monkeypatch.delenv("LANEWISE_CACHE", raising=False)

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(flags, "cache_folder", homeless)
    assert len(opened(folder).train) == 32
    assert "no home folder" in capsys.readouterr().err


def test_a_large_split_is_gathered_outside_memory(folder, cache, monkeypatch):
    from lanewise.data import loaded

    expected = opened(folder)
    monkeypatch.setattr(loaded, "MOST_MEMORY", 100)
    assert_same(expected, opened(folder))
