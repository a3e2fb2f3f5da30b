"""Class folders: layouts, odd files, bad files, classes, and the errors a beginner meets."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lanewise.data import decode, list_images, native_shape, open_data, open_test
from lanewise.errors import DataError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LANEWISE_CACHE", str(tmp_path_factory.mktemp("cache")))


def picture(seed: int, size=(8, 8), mode="RGB") -> Image.Image:
    """Pixels that differ for each seed."""
    shape = (size[1], size[0], 3)
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(array).convert(mode)


def fill(folder: Path, names: dict[str, int], start: int = 0, extension="png") -> Path:
    """A folder of class folders: {class: number of images}."""
    for number, (name, count) in enumerate(names.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            seed = start + 1000 * number + index
            picture(seed).save(folder / name / f"{index:03}.{extension}")
    return folder


def reasons(data) -> dict[str, str]:
    return {item.path: item.reason for item in data.skipped}


def test_class_folders_become_splits_with_sorted_classes(tmp_path):
    fill(tmp_path, {"dog": 20, "cat": 20, "10": 10, "2": 10})
    data = open_data(tmp_path, input_shape=(3, 8, 8))
    assert data.class_names == ("10", "2", "cat", "dog")
    assert [len(data.train), len(data.val), len(data.test)] == [48, 6, 6]
    assert data.train.images.shape == (48, 3, 8, 8) and data.train.images.dtype == np.uint8
    assert data.train.images.flags.c_contiguous and data.train.labels.dtype == np.int32
    for split in (data.train, data.val, data.test):
        for image, label, source in zip(split.images, split.labels, split.sources, strict=True):
            assert Path(source).parent.name == data.class_names[label]
            assert np.array_equal(image, np.asarray(Image.open(source)).transpose(2, 0, 1))


@pytest.mark.parametrize("val", ["val", "valid", "validation", "VAL"])
def test_split_folders_are_used_as_given(tmp_path, val):
    fill(tmp_path / "train", {"a": 5, "b": 5})
    fill(tmp_path / val, {"a": 2, "b": 1}, 50)
    fill(tmp_path / "test", {"a": 1, "b": 3}, 90)
    data = open_data(tmp_path, input_shape=(3, 8, 8))
    assert [len(data.train), len(data.val), len(data.test)] == [10, 3, 4]
    assert all(f"{os.sep}{val}{os.sep}" in source for source in data.val.sources)
    assert "as given" in data.summary[1]


def test_a_missing_val_is_taken_from_train_and_leaves_test_alone(tmp_path):
    fill(tmp_path / "train", {"a": 10, "b": 10})
    fill(tmp_path / "test", {"a": 4, "b": 4}, 500)
    data = open_data(tmp_path, input_shape=(3, 8, 8), val_fraction=0.2)
    assert [len(data.train), len(data.val), len(data.test)] == [16, 4, 8]
    with pytest.raises(DataError, match="has a test split of its own; leave test_fraction out"):
        open_data(tmp_path, input_shape=(3, 8, 8), test_fraction=0.2)


def test_a_class_named_train_is_a_class(tmp_path):
    fill(tmp_path, {"bus": 4, "train": 4})
    assert open_data(tmp_path, input_shape=(3, 8, 8)).class_names == ("bus", "train")


def test_nested_folders_belong_to_their_class(tmp_path):
    fill(tmp_path, {"a": 3, "b": 3})
    picture(77).save(tmp_path / "a" / "deep.png")
    (tmp_path / "a" / "x" / "y").mkdir(parents=True)
    os.rename(tmp_path / "a" / "deep.png", tmp_path / "a" / "x" / "y" / "deep.png")
    data = open_data(tmp_path, input_shape=(3, 8, 8), val_fraction=0, test_fraction=0)
    deep = [i for i, source in enumerate(data.train.sources) if source.endswith("deep.png")]
    assert data.class_names == ("a", "b") and data.train.labels[deep] == [0]


def test_links_are_followed_and_loops_of_links_end(tmp_path):
    fill(tmp_path / "d", {"a": 3, "b": 3})
    (tmp_path / "d" / "a" / "again").symlink_to(tmp_path / "d" / "a", target_is_directory=True)
    data = open_data(tmp_path / "d", input_shape=(3, 8, 8), val_fraction=0, test_fraction=0)
    assert len(data.train) == 6


def test_names_in_any_alphabet(tmp_path):
    fill(tmp_path, {"ä ö": 3, "中文": 3, "naïve 'x'": 3})
    data = open_data(tmp_path, input_shape=(3, 8, 8))
    assert data.class_names == tuple(sorted(["ä ö", "中文", "naïve 'x'"]))
    assert any("中文" in line for line in data.summary)


def test_a_name_that_is_not_unicode(tmp_path):
    fill(tmp_path, {"a": 3, "b": 3})
    odd = os.path.join(os.fsencode(tmp_path), b"a", b"\xff\xfe.png")
    try:
        with open(odd, "wb") as file:
            file.write(b"no image")
    except OSError:
        pytest.skip("this file system takes only unicode names")
    data = open_data(tmp_path, input_shape=(3, 8, 8))
    assert len(data.skipped) == 1
    "\n".join(data.summary).encode("utf-8")  # can be printed


def test_hidden_and_system_entries_are_passed_over(tmp_path):
    fill(tmp_path, {"a": 3, "b": 3})
    for name in (".ipynb_checkpoints", "__MACOSX", ".hidden"):
        fill(tmp_path, {name: 2})
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._000.png"):
        (tmp_path / "a" / name).write_bytes(b"system")
    data = open_data(tmp_path, input_shape=(3, 8, 8), val_fraction=0, test_fraction=0)
    assert data.class_names == ("a", "b") and len(data.train) == 6 and not data.skipped
    assert any("__MACOSX" in line and "passed over" in line for line in data.summary)


def test_every_bad_file_is_named_with_its_reason_and_skipped(tmp_path):
    fill(tmp_path, {"a": 6, "b": 6})
    jpeg = io.BytesIO()
    picture(3, (40, 40)).save(jpeg, "JPEG")
    png = io.BytesIO()
    picture(4, (40, 40)).save(png, "PNG")
    bad = {
        "a/truncated.jpg": (jpeg.getvalue()[:-200], "truncated"),
        "a/truncated.png": (png.getvalue()[:300], "damaged"),
        "a/text.png": (b"hello, I am text", "begins with b'hello, I am "),
        "a/zero.gif": (b"", "empty file"),
        "a/photo.heic": (b"", "extension .heic is not read"),
        "a/heic.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        "a/notes.txt": (b"x", "extension .txt is not read"),
        "a/nothing": (b"x", "no extension is not read"),
    }
    for name, (content, _) in bad.items():
        (tmp_path / name).write_bytes(content)
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "b" / "float.tif")
    picture(5).save(tmp_path / "loose.png")
    data = open_data(tmp_path, input_shape=(3, 8, 8), val_fraction=0, test_fraction=0)
    found = reasons(data)
    for name, (_, reason) in bad.items():
        assert reason in found.pop(name), name
    assert "32-bit float" in found.pop("b/float.tif")
    assert found.pop("loose.png") == "not in a class folder"
    assert not found and len(data.train) == 12
    assert f"skipped: {len(bad) + 2} files" in data.summary


def test_a_decompression_bomb_is_skipped(tmp_path):
    fill(tmp_path, {"a": 3, "b": 3})
    for name, size in (("bomb.png", (10_000, 10_000)), ("huge.png", (20_000, 20_000))):
        Image.new("1", size).save(tmp_path / "a" / name)
    data = open_data(tmp_path, input_shape=(3, 8, 8))
    assert all("decompression bomb" in reason for reason in reasons(data).values())
    assert set(reasons(data)) == {"a/bomb.png", "a/huge.png"}


def test_an_unreadable_file_is_skipped(tmp_path, monkeypatch):
    fill(tmp_path, {"a": 3, "b": 3})

    def guarded(path, *options, **more):
        if path.endswith(os.path.join("a", "000.png")):
            raise PermissionError(errno.EACCES, "Permission denied")
        return open(path, *options, **more)

    monkeypatch.setattr(decode, "open", guarded, raising=False)
    data = open_data(tmp_path, input_shape=(3, 8, 8))
    assert reasons(data) == {"a/000.png": "cannot be read: Permission denied"}


def test_a_dangling_link_is_skipped(tmp_path):
    fill(tmp_path, {"a": 3, "b": 3})
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    data = open_data(tmp_path, input_shape=(3, 8, 8))
    assert "cannot be read" in reasons(data)["a/gone.png"]


def test_content_decides_not_the_extension(tmp_path):
    fill(tmp_path, {"a": 3, "b": 3})
    picture(9).save(tmp_path / "a" / "x.gif")
    os.rename(tmp_path / "a" / "x.gif", tmp_path / "a" / "gif_named.jpg")
    data = open_data(tmp_path, input_shape=(3, 8, 8))
    assert not data.skipped and any("GIF P 1" in line for line in data.summary)


def test_empty_class_folders_are_left_out_and_said(tmp_path):
    fill(tmp_path, {"a": 4, "b": 0, "c": 4})
    (tmp_path / "a.txt").write_text("a list of sorts")
    data = open_data(tmp_path, input_shape=(3, 8, 8), val_fraction=0, test_fraction=0)
    assert data.class_names == ("a", "c") and sorted(set(data.train.labels)) == [0, 1]
    assert any("left out, no usable image: b" in line for line in data.summary)


def test_a_class_of_only_bad_files_is_left_out_and_labels_follow(tmp_path):
    fill(tmp_path, {"a": 4, "b": 0, "c": 4})
    (tmp_path / "b" / "x.png").write_bytes(b"nonsense")
    data = open_data(tmp_path, input_shape=(3, 8, 8), val_fraction=0, test_fraction=0)
    assert data.class_names == ("a", "c") and list(data.train.labels) == [0] * 4 + [1] * 4
    assert any("no usable image: b" in line for line in data.summary)


def message(folder, **options) -> str:
    with pytest.raises(DataError) as caught:
        open_data(folder, input_shape=(3, 8, 8), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_such_path_names_the_nearest(tmp_path):
    fill(tmp_path, {"photos": 1})
    text = message(tmp_path / "fotos")
    assert "no such file or folder" in text and "did you mean" in text and "photos" in text
    assert "did you mean digits?" in message("digit")


def test_empty_folder(tmp_path):
    assert "found no class folders and no images" in message(tmp_path)


def test_images_directly_in_the_folder(tmp_path):
    for index in range(7):
        picture(index).save(tmp_path / f"{index}.png")
    text = message(tmp_path)
    assert "7 images directly in the folder" in text and "0.png" in text and "and 2 more" in text
    assert "one folder per class" in text


def test_one_class(tmp_path):
    fill(tmp_path, {"cat": 3})
    assert "one class folder (cat)" in message(tmp_path)


def test_one_class_that_is_really_the_data_set(tmp_path):
    fill(tmp_path / "photos", {"cat": 3, "dog": 3})
    assert f"did you mean {tmp_path / 'photos'}?" in message(tmp_path)


def test_all_files_bad(tmp_path):
    fill(tmp_path, {"a": 0, "b": 3})
    (tmp_path / "a" / "x.png").write_bytes(b"nonsense")
    text = message(tmp_path)
    assert "usable images in 1 of 2 class folders" in text and "a/x.png" in text


def test_train_and_test_with_other_classes(tmp_path):
    fill(tmp_path / "train", {"cat": 3, "dog": 3})
    fill(tmp_path / "test", {"Cat": 3, "dog": 3})
    text = message(tmp_path)
    assert "only in test/: Cat" in text and "only in train/: cat" in text


def test_a_class_that_only_test_has_images_of(tmp_path):
    fill(tmp_path / "train", {"cat": 3, "dog": 3, "eel": 0})
    fill(tmp_path / "test", {"cat": 3, "dog": 3, "eel": 2})
    assert "class eel has images in test/ but none in train/" in message(tmp_path)


def test_val_without_train(tmp_path):
    fill(tmp_path / "val", {"cat": 3, "dog": 3})
    fill(tmp_path / "test", {"cat": 3, "dog": 3})
    assert "no train/ with class folders" in message(tmp_path)


def test_two_folders_for_one_part(tmp_path):
    for name in ("train", "val", "valid"):
        fill(tmp_path / name, {"cat": 3, "dog": 3})
    assert "are folders for val; keep one" in message(tmp_path)


def test_a_file_that_is_no_data_set(tmp_path):
    (tmp_path / "x.csv").write_text("1,2")
    assert "a kind that holds no data set" in message(tmp_path / "x.csv")


def test_wrong_channels_and_fit(tmp_path):
    fill(tmp_path, {"a": 3, "b": 3})
    with pytest.raises(DataError, match="4 input channels cannot read images; use 1"):
        open_data(tmp_path, input_shape=(4, 8, 8))
    assert "fit is 'squash'; wanted crop or pad or stretch" in message(tmp_path, fit="squash")


def test_native_shape_is_the_median_and_sees_gray(tmp_path):
    fill(tmp_path / "colour", {"a": 3, "b": 3})
    assert native_shape(tmp_path / "colour") == (3, 8, 8)
    for index, size in enumerate([(10, 6), (12, 8), (14, 10), (30, 20), (9, 5)]):
        folder = tmp_path / "gray" / "ab"[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        gray = picture(index, size, "L")
        gray.convert("RGB" if index else "L").save(folder / f"{index}.png")
    assert native_shape(str(tmp_path / "gray")) == (1, 8, 12)


def test_duplicates_across_splits_are_counted(tmp_path):
    fill(tmp_path / "train", {"a": 5, "b": 5})
    fill(tmp_path / "val", {"a": 3, "b": 3}, 100)
    fill(tmp_path / "test", {"a": 2, "b": 3}, 0)
    data = open_data(tmp_path, input_shape=(3, 8, 8))
    line = next(line for line in data.summary if line.startswith("duplicates"))
    assert "5 of 5 test images have the very pixels of a training image" in line


def test_open_test_maps_labels_by_name(tmp_path):
    fill(tmp_path / "m", {"a": 5, "b": 5, "c": 5})
    model = open_data(tmp_path / "m", input_shape=(3, 8, 8))
    fill(tmp_path / "t", {"c": 2, "b": 3}, 70)
    split = open_test(tmp_path / "t", model.preprocessing, model.class_names)
    assert list(split.labels) == [1, 1, 1, 2, 2] and len(split.sources) == 5
    fill(tmp_path / "u", {"c": 2, "zebra": 3}, 70)
    with pytest.raises(DataError, match="the model does not know: zebra; it knows a, b, c"):
        open_test(tmp_path / "u", model.preprocessing, model.class_names)


def test_list_images_keeps_the_order_given(tmp_path):
    fill(tmp_path, {"z": 2, "a": 2})
    (tmp_path / "z" / "notes.txt").write_text("x")
    single = str(tmp_path / "a" / "001.png")
    listed = list_images([single, tmp_path / "z", "nowhere.png"])
    assert [os.path.basename(path) for path in listed] == [
        "001.png",
        "000.png",
        "001.png",
        "nowhere.png",
    ]
    assert listed[0] == single
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images in this folder"):
        list_images([tmp_path / "empty"])
    with pytest.raises(DataError, match="no images were named"):
        list_images([])


def test_progress_reaches_the_end_in_order(tmp_path):
    fill(tmp_path, {"a": 20, "b": 20})
    seen: list[tuple[int, int]] = []
    open_data(tmp_path, input_shape=(3, 8, 8), on_progress=lambda *done: seen.append(done))
    assert seen[-1] == (40, 40) and seen == sorted(seen)


def test_a_stopped_scan_leaves_nothing_behind(tmp_path, monkeypatch):
    fill(tmp_path / "d", {"a": 20, "b": 20})
    monkeypatch.setenv("LANEWISE_CACHE", str(tmp_path / "c"))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_data(tmp_path / "d", input_shape=(3, 8, 8), on_progress=stop)
    assert list((tmp_path / "c" / "data").iterdir()) == []


def test_the_header_says_what_was_done(tmp_path):
    for name, count in (("cat", 10), ("dog", 20), ("eel", 0)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(count):
            mode = "L" if index == 0 else "RGB"
            size = (20, 10) if index < 8 else (10, 10)
            picture(count * 100 + index, size, mode).save(
                tmp_path / "photos" / name / f"{index}.png"
            )
    (tmp_path / "photos" / "cat" / "x.png").write_bytes(b"")
    data = open_data(tmp_path / "photos", input_shape=(3, 5, 5), seed=4)
    assert data.summary == (
        "data: photos, 30 images: cat 10, dog 20",
        "split: train 24, val 3, test 3 (val and test stratified from train, seed 4)",
        "input: 3x5x5 rgb, bilinear from 10x10 … 10x20, EXIF orientation applied",
        "fit: crop, 16 of 30 images lose 50 % (median) of their area; pad would keep it",
        "files: PNG RGB 28, PNG L 2",
        "duplicates: no image has the same pixels as one of another split",
        "note: classes left out, no usable image: eel",
        "skipped: 1 file",
        "  cat/x.png: empty file (0 bytes)",
    )
    assert max(map(len, data.summary)) <= 80
