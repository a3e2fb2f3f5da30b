"""Bad data at the command line: one message and code 2, or what is bad is named and left out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lanewise.cli.main import main
from refusals import NET, SHORT, Refused


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of eight gray images."""
    folder = tmp_path / "photos"
    for name, level in (("dark", 40), ("light", 210)):
        (folder / name).mkdir(parents=True)
        for index in range(8):
            Image.new("L", (10, 12), level + index).save(folder / name / f"{index}.png")
    return folder


def test_data_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    message = refused("train", tmp_path / "nowhere", *SHORT)
    assert str(tmp_path / "nowhere") in message and "no such file or folder" in message


def test_an_empty_folder(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "one folder per class" in refused("train", tmp_path / "empty", *SHORT)


def test_one_class(refused: Refused, photos: Path) -> None:
    shutil.rmtree(photos / "light")
    assert "one class folder (dark)" in refused("train", photos, *SHORT)


def test_a_folder_without_one_good_image(refused: Refused, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "bad" / name).mkdir(parents=True)
        (tmp_path / "bad" / name / "1.png").write_text("Dear Sir or Madam")
    message = refused("train", tmp_path / "bad", *SHORT)
    assert "usable images in 0 of 2 class folders" in message and "2 files were skipped" in message


def test_a_slip_in_the_name_of_the_data(refused: Refused) -> None:
    assert "no such file or folder; did you mean digits? DATA is" in refused("train", "diigts")


def test_bad_images_are_skipped_named_and_counted(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tmp_path / "whole.jpg"
    Image.new("RGB", (64, 64), (1, 2, 3)).save(whole)
    (photos / "dark" / "cut.jpg").write_bytes(whole.read_bytes()[:300])
    (photos / "dark" / "letter.png").write_text("Dear Sir or Madam")
    (photos / "light" / "nothing.png").write_bytes(b"")
    folder = tmp_path / "run"
    arguments = ["train", str(photos), "--net", NET, "--epochs", "1", "--run", str(folder)]
    assert main(arguments) == 0
    err = capsys.readouterr().err
    record = json.loads((folder / "run.json").read_text())
    assert record["skipped"]["count"] == 3
    paths = [item["path"] for item in record["skipped"]["files"]]
    assert paths == ["dark/cut.jpg", "dark/letter.png", "light/nothing.png"]
    assert all(path in err for path in paths) and "skipped" in err
    assert sum(record["data"]["images"].values()) == 16


def test_mixed_sizes_and_modes_are_one_data_set(photos: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    gray = Image.fromarray(random.integers(0, 256, (20, 30), np.uint8))
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK"):
        name = "cmyk.tif" if mode == "CMYK" else f"mode-{mode}.png"
        gray.convert("L" if mode == "LA" else "RGB").convert(mode).save(photos / "dark" / name)
    deep = random.integers(0, 2**16, (9, 9), np.uint16)
    Image.fromarray(deep).save(photos / "light" / "deep.png")
    for net in (NET, NET.replace("1x8x8", "3x8x8")):
        folder = tmp_path / f"run{net[6]}"
        arguments = ["--net", net, "--epochs", "1", "--quiet", "--run", str(folder)]
        assert main(["train", str(photos), *arguments]) == 0
        record = json.loads((folder / "run.json").read_text())
        assert record["skipped"]["count"] == 0
        assert sum(record["data"]["images"].values()) == 24


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (np.zeros((4, 8, 8), np.uint8), np.array([0, 1, 2, 99]), "label 99 at 3 is out of range"),
        (np.zeros((4, 8, 8), np.uint8), np.array([0, 1, -1, 1]), "label -1 at 2 is negative"),
        (np.zeros((4, 8, 8), np.uint8), np.array([0, 1]), "2 labels for 4 images"),
        (np.full((4, 8, 8), np.nan), np.array([0, 1, 0, 1]), "NaN"),
        (np.zeros((4, 8, 8)), np.array([0, 1, 0, 1]), "uint8"),
        (np.zeros((4, 8, 8), np.uint8), np.array([1, 1, 1, 1]), "1 class"),
    ],
)
def test_arrays_that_cannot_be(
    refused: Refused, tmp_path: Path, images: np.ndarray, labels: np.ndarray, words: str
) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, images=images, labels=labels)
    message = refused("train", path, *SHORT)
    assert words in message and "data.npz" in message


def test_two_classes_of_one_name(refused: Refused, tmp_path: Path) -> None:
    arrays = {"images": np.zeros((4, 8, 8), np.uint8), "labels": np.array([0, 1, 2, 0])}
    np.savez(tmp_path / "data.npz", class_names=np.array(["cat", "dog", "cat"]), **arrays)
    message = refused("train", tmp_path / "data.npz", *SHORT)
    assert "class_names: cat stands there more than once" in message


def test_a_number_of_thousands_of_digits(refused: Refused) -> None:
    for verb in ("train", "size", "verify"):
        option = "--epochs" if verb == "train" else "--batch"
        message = refused(verb, "lenet5", option, "9" * 5000)
        assert "use a whole number from 1" in message and len(message) < 200


def test_a_damaged_archive(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_bytes(b"PK\x03\x04 half")
    assert "data.npz" in refused("train", tmp_path / "data.npz", *SHORT)
