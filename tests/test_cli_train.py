"""`lanewise train`, `test` and `predict`: documents, text, Ctrl-C and kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lanewise.cli.main import VERBS, main

NET = "input 1x8x8; conv 8 k3 pad1; relu; maxpool 2; flatten; linear 10"
TRAIN = ["train", "digits", "--net", NET, "--batch", "64"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A short training on the digits."""
    folder = str(tmp_path_factory.mktemp("runs") / "digits")
    assert main([*TRAIN, "--epochs", "8", "--run", folder, "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve digits as image files, one per class folder and mode, and a file that is none."""
    from lanewise.data import open_data

    folder = tmp_path_factory.mktemp("pictures")
    split = open_data("digits").train
    for index in range(12):
        image = Image.fromarray(split.images[index, 0]).resize((16, 16), Image.Resampling.NEAREST)
        place = folder / str(split.labels[index])
        place.mkdir(exist_ok=True)
        image.convert("RGB" if index % 2 else "L").save(place / f"{index}.png")
    return folder


# Training ----------------------------------------------------------------------------------------


def test_the_document_of_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "run")
    assert main([*TRAIN, "--epochs", "3", "--run", folder, "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert list(document) == [
        "run",
        "epochs",
        "params",
        "compile_seconds",
        "train_seconds",
        "images_per_second",
        "val_accuracy",
        "test_accuracy",
    ]
    assert (document["run"], document["epochs"], document["params"]) == (folder, 3, 1370)
    assert 0.5 < document["test_accuracy"] <= 1 and document["images_per_second"] > 0
    assert "epoch 3/3" in err


def test_the_text_of_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "run")
    assert main([*TRAIN, "--epochs", "2", "--run", folder]) == 0
    out, err = capsys.readouterr()
    header = [line.split()[0] for line in err.splitlines() if line[:1] not in (" ", "")]
    assert header == [
        "data",
        "split",
        "input",
        "duplicates",
        "net",
        "recipe",
        "run",
        "engine",
        "epoch",
        "epoch",
    ]
    assert [line[:4].strip() for line in out.splitlines()] == [
        "val",
        "test",
        "time",
        "run",
        "next",
        "",
    ]
    assert all(len(line) <= 80 or folder in line for line in (out + err).splitlines())


def test_quiet_says_the_result_alone(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--resume", run, "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "test" in out


def test_without_a_folder_runs_are_numbered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        assert main([*TRAIN, "--epochs", "1", "--json", "--quiet"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["run"] == os.path.join("runs", f"digits-net-{number}")


def test_a_net_for_other_classes_is_said(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = len(list(pictures.iterdir()))
    arguments = ["train", str(pictures), "--net", NET, "--epochs", "1"]
    assert main([*arguments, "--run", str(tmp_path / "run")]) == 0
    err = capsys.readouterr().err
    assert f"data has {classes} classes: linear1 is now linear {classes}" in " ".join(err.split())
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert len(record["class_names"]) == classes and record["net"]["notes"]


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_examples_and_fits_a_terminal(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert "examples:" in out and "--json" in out and "--quiet" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_training_loads_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    code = """
import sys
from lanewise.cli.main import main
main(sys.argv[1:])
print([name for name in ("sklearn", "rich", "torch", "PIL", "scipy") if name in sys.modules])
"""
    arguments = [*TRAIN, "--epochs", "1", "--quiet", "--run", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


# Testing -----------------------------------------------------------------------------------------


def test_the_document_of_test(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", run, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    trained = json.loads(Path(run, "run.json").read_text())["result"]
    assert document["accuracy"] == trained["test_accuracy"]
    low, high = document["interval"]
    assert 0 < low < document["accuracy"] < high <= 1
    confusion = np.array(document["confusion"])
    assert confusion.shape == (10, 10) and confusion.sum() == 180
    assert np.trace(confusion) / 180 == document["accuracy"]
    for index, entry in enumerate(document["classes"]):
        assert list(entry) == ["name", "precision", "recall", "count"]
        assert entry["count"] == confusion[index].sum()
        assert entry["recall"] == confusion[index, index] / confusion[index].sum()
    worst = [entry["confidence"] for entry in document["worst"]]
    assert worst == sorted(worst, reverse=True)


def test_the_text_of_test(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", run]) == 0
    out = capsys.readouterr().out
    assert "95 % interval" in out and "180 test images of digits" in out
    assert "precision" in out and "true \\ called" in out and "worst mistakes" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_other_data_is_judged(run: str, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", run, str(pictures), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert sum(entry["count"] for entry in document["classes"]) == 12
    assert document["accuracy"] > 0.5


def test_other_classes_are_refused(
    run: str, tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = next(pictures.rglob("*.png")).read_bytes()
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(picture)
    assert main(["test", run, str(tmp_path)]) == 2
    assert "cat, dog" in capsys.readouterr().err


def test_changed_data_is_refused(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    data, folder = tmp_path / "data", str(tmp_path / "run")
    shutil.copytree(pictures, data)
    arguments = ["train", str(data), "--net", NET, "--epochs", "1", "--quiet"]
    assert main([*arguments, "--run", folder]) == 0
    image = next(data.rglob("*.png"))
    Image.new("L", (16, 16), 77).save(image)
    capsys.readouterr()
    assert main(["test", folder]) == 2
    assert main(["train", "--resume", folder]) == 2
    err = capsys.readouterr().err
    assert err.count("not the data that") == 2 and "train anew" in err


# Predicting --------------------------------------------------------------------------------------


def test_the_document_of_predict(
    run: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "letter.png"
    bad.write_text("Dear Sir or Madam")
    first, *_ = sorted(pictures.rglob("*.png"))
    paths = [str(first), str(bad), str(pictures), "nowhere.jpg"]
    assert main(["predict", run, *paths, "--json"]) == 0
    out, _ = capsys.readouterr()
    entries = json.loads(out)
    files = [str(path) for path in sorted(pictures.rglob("*.png"))]
    assert [entry["path"] for entry in entries] == [str(first), str(bad), *files, "nowhere.jpg"]
    errors = [entry for entry in entries if "error" in entry]
    assert [set(entry) for entry in errors] == [{"path", "error"}] * 2
    for entry in entries:
        if "label" in entry:
            assert list(entry) == ["path", "label", "confidence", "top"]
            assert entry["top"][0] == [entry["label"], entry["confidence"]]
            shares = [share for _, share in entry["top"]]
            assert len(shares) == 5 and shares == sorted(shares, reverse=True)
    assert entries[0]["label"] == entries[2]["label"]


def test_the_text_of_predict(run: str, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", run, str(pictures), "nowhere.jpg"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 12
    assert err.startswith("lanewise: nowhere.jpg: cannot be read: ") and err.count("\n") == 1


def test_nothing_that_can_be_read_is_code_2(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", run, "nowhere.jpg"]) == 2
    assert main(["predict", run, "nowhere.jpg", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)[0]["path"] == "nowhere.jpg"


def test_a_model_and_the_command_line_agree(
    run: str, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import lanewise as lw

    assert main(["predict", run, str(pictures), "--json"]) == 0
    labels = [entry["label"] for entry in json.loads(capsys.readouterr().out)]
    assert lw.load(run).predict(str(pictures)).tolist() == labels


# Ctrl-C and kill ---------------------------------------------------------------------------------

LONG = [*TRAIN, "--epochs", "3000"]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A training in a process of its own that would go on for a long time."""
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "lanewise", *LONG, "--run", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        yield process, folder
    finally:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if word in line:
            return
    raise AssertionError(f"the process ended before it said {word}:\n{''.join(lines)}")


@pytest.mark.skipif(sys.platform == "win32", reason="there Ctrl-C reaches the whole console")
@pytest.mark.parametrize("presses", [1, 5])
def test_ctrl_c_saves_and_says_how_to_go_on(
    started: tuple[subprocess.Popen[str], Path], presses: int
) -> None:
    process, folder = started
    wait_for(process, "epoch    2/3000")
    for _ in range(presses):
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == ""
    assert f"lanewise train --resume {folder}" in err and "Traceback" not in err
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "interrupted"
    assert not [name for name in os.listdir(folder) if name.endswith(".part")]
    assert main(["test", str(folder), "--quiet"]) == 0


KILLED = """
import sys
from lanewise.training import keeper, loop
loop.CALL_SECONDS, keeper.LEAST_SECONDS, keeper._SHARE = 0.0, 0.0, 1e9
from lanewise.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


# Running statistics of both kinds, branches, every noise.
GRAPH = """\
parameters classes=10
input 1x8x8
conv 8 k3 pad1 nobias; bn ghost 16; prelu
residual { conv 8 k3 pad1 nobias; bn; spatialdropout 0.1; stochasticdepth 0.1 }
relu; maxpool 2; flatten; dropout 0.1; linear classes
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("net", [NET, GRAPH], ids=["chain", "graph"])
def test_killed_at_any_moment_the_end_is_the_same(tmp_path: Path, net: str) -> None:
    """Saved after every step, and killed five times wherever it happens to be."""
    from safetensors.numpy import load_file

    def final(folder: Path) -> dict[str, bytes]:
        arrays = load_file(folder / "state.safetensors") | load_file(folder / "weights.safetensors")
        return {name: array.tobytes() for name, array in arrays.items()}

    short = ["train", "digits", "--net", net, "--batch", "64", "--epochs", "12", "--quiet"]
    assert main([*short, "--run", str(tmp_path / "whole")]) == 0
    folder, positions = tmp_path / "killed", []
    arguments = [*short, "--run", str(folder)]
    for moment in (0.0, 0.011, 0.023, 0.057, 0.003):
        before = saved(folder)
        process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments])
        while process.poll() is None and (saved(folder) == before or not saved(folder)):
            time.sleep(0.001)
        time.sleep(moment)
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
        positions.append(saved(folder))
        arguments = ["train", "--resume", str(folder), "--quiet"]
    assert len(set(positions)) == 5
    assert main(["train", "--resume", str(folder), "--quiet"]) == 0
    assert final(folder) == final(tmp_path / "whole")


def saved(folder: Path) -> int:
    """When the run in `folder` was last saved; 0 before it is a run."""
    if not (folder / "run.json").exists():
        return 0
    return (folder / "state.safetensors").stat().st_mtime_ns
