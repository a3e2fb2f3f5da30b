"""Files that are whole or absent, and a run folder that says what is wrong with it."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from lanewise.errors import RunError
from lanewise.net.load import read_text
from lanewise.net.parse import parse
from lanewise.training import files
from lanewise.training.checkpoint import Checkpoint, EpochRecord, is_better
from lanewise.training.files import remove_leftovers, write_atomically
from lanewise.training.report import png
from lanewise.training.run_folder import (
    FORMAT,
    RunFolder,
    continue_run,
    create_numbered_run,
    create_run,
    open_run,
)
from lanewise.training.tensors import check_shapes, fill, read_tensors, write_tensors

# Atomic writes -----------------------------------------------------------------------------------


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "ä file.json"
    for content in (b"old", b"new, longer"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some space"),
        (errno.EACCES, "choose a folder that you may write"),
        (errno.EROFS, "choose a folder that you may write"),
        (errno.EIO, "choose another folder"),
    ],
)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_refused_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int, remedy: str
) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(b"old")

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, step, refuse)
    with pytest.raises(RunError) as refusal:
        write_atomically(path, b"new")
    assert str(refusal.value).startswith(f"{path}: cannot be written ({os.strerror(number)}); ")
    assert remedy in str(refusal.value)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["run.json"]


def test_an_interrupt_while_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(b"old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["run.json"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".state.safetensors.17.part").write_bytes(b"half")
    (tmp_path / "mine.part").write_bytes(b"not ours")
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["mine.part"]


# Tensors -----------------------------------------------------------------------------------------

ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([], np.float64),
    "c": np.array([-1, 2**60], np.int64),
}


def test_tensors_come_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {**ARRAYS, "d": np.arange(6.0).reshape(2, 3).T}, {"epoch": 3, "π": None})
    arrays, record = read_tensors(path)
    assert record == {"epoch": 3, "π": None}
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    np.testing.assert_array_equal(arrays["d"], np.arange(6.0).reshape(2, 3).T)


def test_equal_arrays_are_equal_files(tmp_path: Path) -> None:
    """The library writes its metadata in an order that it draws anew for every file."""
    contents = set()
    for number in range(12):
        write_tensors(tmp_path / str(number), {**ARRAYS, "Zoë": ARRAYS["b"]}, {"epoch": 3})
        contents.add((tmp_path / str(number)).read_bytes())
    assert len(contents) == 1
    assert set(read_tensors(tmp_path / "0")[0]) == {*ARRAYS, "Zoë"}


def test_other_readers_read_the_file(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    path = tmp_path / "x.safetensors"
    write_tensors(path, ARRAYS, None)
    np.testing.assert_array_equal(load_file(path)["a.weight"], ARRAYS["a.weight"])


@pytest.mark.parametrize("kept", [0, 4, 30, 200, -1])
def test_a_truncated_file_is_named(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, ARRAYS, None)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(RunError, match=r"x\.safetensors: damaged .*train again"):
        read_tensors(path)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, ARRAYS, None)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match="do not match their checksum"):
        read_tensors(path)


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(RunError, match="damaged"):
        read_tensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, r"w is missing; it belongs to another net"),
        ({"w": np.zeros((2, 3), "f4"), "v": np.zeros(1, "f4")}, "v is not in the net"),
        ({"w": np.zeros((3, 2), "f4")}, r"w is float32 3x2, the net wants float32 2x3"),
        ({"w": np.zeros((2, 3), "f8")}, r"w is float64 2x3, the net wants float32 2x3"),
    ],
)
def test_tensors_of_another_net_are_refused(arrays: dict[str, np.ndarray], words: str) -> None:
    target = np.ones((2, 3), np.float32)
    with pytest.raises(RunError, match=words):
        check_shapes(Path("x"), {"w": (2, 3)}, arrays)
    with pytest.raises(RunError, match=words):
        fill(Path("x"), {"w": target}, arrays)
    assert (target == 1).all()


# Run folders -------------------------------------------------------------------------------------


def record(**changes: object) -> dict[str, object]:
    values = {
        "lanewise": "0.1.0",
        "status": "complete",
        "created": "2026-01-01",
        "net": {"name": "net", "params": 7, "notes": []},
        "data": {
            "name": "digits",
            "spec": None,
            "fingerprint": "",
            "images": {},
            "split": {"seed": 0, "val_fraction": None, "test_fraction": 0.1},
            "summary": ["data: digits"],
        },
        "class_names": ["a", "b"],
        "preprocessing": {
            "channels": 1,
            "height": 8,
            "width": 8,
            "background": [0],
            "mean": [0.5],
            "std": [1],
        },
        "skipped": {},
        "recipe": {},
        "machine": {},
        "result": None,
    }
    return {"format": FORMAT, **values, **changes}


def test_folders_are_numbered_and_never_taken_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [str(create_numbered_run("my photos", "../net.net")) for _ in range(3)]
    assert names == [os.path.join("runs", f"my-photos-net.net-{n}") for n in (1, 2, 3)]


def test_a_file_called_runs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").write_text("")
    with pytest.raises(RunError, match=r"runs.*cannot be written"):
        create_numbered_run("digits", "net")


def test_an_empty_folder_may_become_a_run(tmp_path: Path) -> None:
    assert create_run(tmp_path).path == tmp_path
    assert os.listdir(tmp_path) == []


def test_a_folder_with_something_in_it_may_not(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(RunError, match="is not empty; choose a new folder"):
        create_run(tmp_path)
    RunFolder(tmp_path).write_record(record())
    with pytest.raises(RunError, match="holds a run already; go on with it by --resume"):
        create_run(tmp_path)


def test_a_folder_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"run: cannot be written .*choose another folder"):
        create_run(tmp_path / "file" / "run")


def test_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        open_run(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"no run\.json in it"):
        open_run(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="not a folder"):
        continue_run(tmp_path / "file")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", r"run\.json: damaged"),
        (b"\xff\xfe", r"run\.json: damaged \(byte 0 is not UTF-8\)"),
        (b"[]", r"format None, and this version of Lanewise reads 1"),
        (json.dumps(record(format=99)).encode(), "format 99, .*use the version that wrote it"),
        (json.dumps({"format": FORMAT}).encode(), r"damaged \(lanewise is missing\)"),
        (b'{"format": NaN}', r"damaged \(NaN is no number\)"),
        (json.dumps(record(net={})).encode(), r"damaged \(net\.name is missing\)"),
        (json.dumps(record(net=None)).encode(), r"damaged \(net has no entries\)"),
        (json.dumps(record(class_names=["a", 3])).encode(), r"class_names\[1\] is no text"),
        (json.dumps(record(class_names="ab")).encode(), r"class_names is no list"),
        (json.dumps(record(created=None)).encode(), r"created is no text"),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(RunError, match=words):
        open_run(tmp_path).read_record()


def test_a_record_keeps_names_that_are_no_text(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.write_record(record(skipped={"files": ["caf\udce9.png", "日本"]}))
    assert run.read_record()["skipped"]["files"] == ["caf\udce9.png", "日本"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, r"class names: 2, and the net in net\.net has 3"),
        ({"class_names": ["a", "b", "c"]}, ""),
        (
            {"preprocessing": {"channels": 1, "height": 9, "width": 8}},
            r"images: \(1, 9, 8\), and the net in net\.net has \(1, 8, 8\)",
        ),
    ],
)
def test_a_record_that_speaks_of_another_net(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    graph = parse("input 1x8x8; flatten; linear 3")
    if not words:
        RunFolder(tmp_path).check_net(graph, record(**changes))
        return
    with pytest.raises(RunError, match=r"run\.json: damaged \(" + words):
        RunFolder(tmp_path).check_net(graph, record(**changes))


def test_weights_that_were_there_are_not_called_unmade(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    (tmp_path / "state.safetensors").write_bytes(b"")
    run.write_history(())
    with pytest.raises(RunError, match=r"not there yet, .*--resume"):
        run.read_weights()
    run.write_history((epoch(1, 0.5),))
    with pytest.raises(RunError, match=r"weights\.safetensors: no such file; copy"):
        run.read_weights()


def test_the_net_is_kept_verbatim(tmp_path: Path) -> None:
    text = read_text("lenet5")[0].replace("\n", "\r\n")
    run = RunFolder(tmp_path)
    run.write_net(text)
    assert run.read_net("lenet5")[0] == text
    (tmp_path / "net.net").write_text("input 1x8x8; convv 3")
    with pytest.raises(RunError, match=r"net\.net: damaged \(.*unknown layer"):
        run.read_net("lenet5")
    (tmp_path / "net.net").unlink()
    with pytest.raises(RunError, match=r"net\.net: no such file"):
        run.read_net("lenet5")


def epoch(number: int, val_accuracy: float | None) -> EpochRecord:
    return EpochRecord(number, 1.5, 0.5, 0.7, val_accuracy, 0.1, 2.0, 1000.0)


def test_the_history_comes_back(tmp_path: Path) -> None:
    run, history = RunFolder(tmp_path), (epoch(1, 0.5), epoch(2, None))
    run.write_history(history)
    assert run.read_history() == history
    (tmp_path / "history.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(RunError, match=r"history\.jsonl: damaged"):
        run.read_history()


def test_the_best_epoch_is_the_earlier_one_on_a_tie() -> None:
    def best_of(accuracies: list[float | None]) -> int:
        best = 0
        for number in range(1, len(accuracies) + 1):
            history = tuple(epoch(i + 1, accuracies[i]) for i in range(number))
            best = number if is_better(history, best) else best
        return best

    assert best_of([0.5, 0.7, 0.7, 0.6]) == 2
    assert best_of([0.0, 0.0]) == 1
    assert best_of([None, None, None]) == 3


def test_positions_add_up() -> None:
    start = Checkpoint()
    half = start.after_steps(np.array([2.0]), np.array([3]), 0.5)
    half = half.after_steps(np.array([1.0]), np.array([4]), 0.25)
    assert (half.step, half.losses.tolist(), half.corrects.tolist()) == (2, [2, 1], [3, 4])
    assert half.seconds == 0.75 and start.step == 0
    done = half.after_epoch(epoch(1, 0.5)).with_best({})
    assert (done.epoch, done.step, done.best, len(done.losses)) == (1, 0, 1, 0)


# The report's pictures ---------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_read_by_pillow(channels: int) -> None:
    import io

    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (channels, 5, 7), np.uint8)
    image = np.asarray(Image.open(io.BytesIO(png(pixels))))
    np.testing.assert_array_equal(image.reshape(5, 7, channels), pixels.transpose(1, 2, 0))
