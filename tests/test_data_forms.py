"""Digits, IDX files, .npz and arrays: what is read, and what each bad input is told."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lanewise.data import Preprocessing, native_shape, open_data, open_test
from lanewise.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 6, 5), dtype=np.uint8)
LABELS = np.arange(60) % 3


def message(spec, **options) -> str:
    with pytest.raises(DataError) as caught:
        open_data(spec, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder: Path, packed: bool, images=IMAGES, labels=LABELS, test=12) -> Path:
    folder.mkdir(exist_ok=True)
    for stem, part in (("train", slice(test, None)), ("t10k", slice(0, test))):
        for kind, array in (("images", images[part]), ("labels", labels[part].astype(np.uint8))):
            name = f"{stem}-{kind}-idx{array.ndim}-ubyte"
            data = idx(array)
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(data))
            else:
                (folder / name).write_bytes(data)
    return folder


def test_digits_are_scikit_learns_scaled_to_bytes():
    from sklearn.datasets import load_digits

    data = open_data("digits", val_fraction=0, test_fraction=0)
    bunch = load_digits()
    assert np.array_equal(data.train.labels, bunch.target)
    assert np.array_equal(data.train.images[:, 0], np.floor(bunch.images * 255 / 16 + 0.5))
    assert data.train.images.max() == 255 and data.class_names == tuple("0123456789")
    assert native_shape("digits") == (1, 8, 8)


def test_digits_are_read_without_importing_scikit_learn():
    code = (
        "import sys; from lanewise.data import open_data; open_data('digits'); "
        "sys.exit(any(name.split('.')[0] in ('sklearn', 'PIL') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_room_starts_no_thread_and_no_heavy_module():
    code = (
        "import sys, threading; import lanewise.data; "
        "sys.exit(threading.active_count() > 1 or 'PIL' in sys.modules or 'sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("packed", [False, True])
def test_idx_folder(tmp_path, packed):
    write_idx(tmp_path, packed)
    assert native_shape(tmp_path) == (1, 6, 5)
    data = open_data(tmp_path)
    assert [len(data.train), len(data.val), len(data.test)] == [43, 5, 12]
    assert np.array_equal(data.test.images[:, 0], IMAGES[:12])
    assert data.test.sources[3] == "t10k-images#3"
    for split in (data.train, data.val):
        for image, source in zip(split.images, split.sources, strict=True):
            stem, number = source.split("#")
            assert stem == "train-images" and np.array_equal(image[0], IMAGES[12 + int(number)])


def test_idx_in_colour_and_resized(tmp_path):
    colour = np.random.default_rng(1).integers(0, 256, (60, 6, 5, 3), dtype=np.uint8)
    write_idx(tmp_path, True, colour)
    assert native_shape(tmp_path) == (3, 6, 5)
    data = open_data(tmp_path, input_shape=(3, 6, 5))
    assert np.array_equal(data.test.images, colour[:12].transpose(0, 3, 1, 2))
    small = open_data(tmp_path, input_shape=(1, 3, 3), fit="stretch")
    assert small.train.images.shape[1:] == (1, 3, 3)
    assert small.summary[2].startswith("input: 1x3x3 gray, bilinear from 6x5")
    assert small.summary[3] == "fit: stretch"


def test_idx_of_several_gzip_members(tmp_path):
    write_idx(tmp_path, True)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    data = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(data[:20]) + gzip.compress(data[20:]))
    assert len(open_data(tmp_path).train) == 43


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("train-images-idx3-ubyte", b"\0\0\x08\x03" + bytes(8), "not an IDX file"),
        ("train-images-idx3-ubyte", b"PK\3\4 something", "not an IDX file"),
        ("train-images-idx3-ubyte", b"", "train-images-idx3-ubyte: "),
        ("train-images-idx3-ubyte", idx(IMAGES)[:-7], "found 1,793 values where the header says"),
        ("train-images-idx3-ubyte", b"\0\0\x0d" + idx(IMAGES)[3:], "element type 0xd; wanted 0x8"),
        ("train-images-idx3-ubyte", idx(IMAGES[:, 0, 0]), "found shape (60,); wanted (N, H, W)"),
        ("train-labels-idx1-ubyte", idx(np.zeros(47, np.uint8)), "found 47 labels for 48 images"),
        ("train-labels-idx1-ubyte", idx(np.zeros(48, np.uint8)), "48 images of 1 class"),
        ("train-labels-idx1-ubyte", idx(np.full(48, 200, np.uint8)), "label 200 at 0 is out of"),
    ],
)
def test_damaged_idx(tmp_path, name, content, expected):
    write_idx(tmp_path, False)
    (tmp_path / name).write_bytes(content)
    assert expected in message(tmp_path, input_shape=(1, 6, 5))


def test_damaged_gzip_and_missing_files(tmp_path):
    write_idx(tmp_path, True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for content in (whole[:-300], b"not gzip", b"", whole[:-4] + b"\xff\xff\xff\xff"):
        path.write_bytes(content)
        text = message(tmp_path, input_shape=(1, 6, 5))
        assert "train-images-idx3-ubyte.gz" in text and "again" in text
    path.unlink()
    assert "no train images beside it" in message(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    assert "wanted train-images-idx3-ubyte and train-labels" in message(tmp_path)


def test_npz(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, images=IMAGES, labels=LABELS)
    assert native_shape(path) == (1, 6, 5)
    data = open_data(path, val_fraction=0, test_fraction=0)
    assert np.array_equal(data.train.images[:, 0], IMAGES) and data.class_names == ("0", "1", "2")
    assert data.train.sources[7] == "set.npz#7"
    np.savez_compressed(path, images=IMAGES, labels=LABELS, class_names=["x", "y", "z"])
    assert open_data(path).class_names == ("x", "y", "z")


def test_bad_npz(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, x_train=IMAGES, y_train=LABELS)
    assert "found arrays x_train, y_train; wanted images and labels" in message(path)
    np.savez(path, images=IMAGES, labels=LABELS, class_names=["x", "y"])
    assert "label 2 at 2 is out of range; there are 2 class names" in message(path)
    np.savez(path, images=np.array([object()]), labels=LABELS)
    assert "cannot be read as .npz" in message(path, input_shape=(1, 2, 2))
    path.write_bytes(path.read_bytes()[:100])
    assert "cannot be read as .npz" in message(path)
    path.write_bytes(b"no zip")
    assert "cannot be read as .npz" in message(path)
    np.savez(path, images=IMAGES[:, 0], labels=LABELS)
    assert "found shape (60, 5); wanted (N, H, W[, C])" in message(path)


def test_arrays_and_string_labels():
    data = open_data((IMAGES, LABELS), val_fraction=0, test_fraction=0)
    assert np.array_equal(data.train.images[:, 0], IMAGES) and data.test is None
    assert data.val.images.shape == (0, 1, 6, 5)
    names = np.array(["dog", "ant", "cat"])[LABELS]
    data = open_data((IMAGES, names), val_fraction=0, test_fraction=0)
    assert data.class_names == ("ant", "cat", "dog")
    assert [data.class_names[label] for label in data.train.labels] == list(names)


NAN = np.where(np.arange(1800).reshape(60, 6, 5) == 33, np.nan, 0.5)
BAD_IMAGES = {
    "nan": (NAN, "1 number NaN or infinite, the first at [1, 0, 3]"),
    "unit floats": (IMAGES / 255, "Type: (images * 255).round().astype('uint8')"),
    "byte floats": (IMAGES.astype(float), "Type: images.round().astype('uint8')"),
    "signed floats": (IMAGES - 128.0, "Type: ((images - -128) * (255 / 255))"),
    "ints": (IMAGES.astype(np.int64), "found int64; wanted uint8"),
    "16 bits": (IMAGES.astype(np.uint16) * 257, "Type: (images // 257).astype('uint8')"),
    "flat": (IMAGES.reshape(60, 30), "found shape (60, 30); wanted (N, H, W)"),
    "flat squares": (np.zeros((60, 64), np.uint8), "Type: images.reshape(-1, 8, 8)"),
    "channels first": (np.zeros((60, 3, 8, 8), np.uint8), "images.transpose(0, 2, 3, 1)"),
    "objects": (np.full((60, 2, 2), None), "found object; wanted uint8"),
    "no pixels": (np.zeros((60, 0, 4), np.uint8), "found shape (60, 0, 4)"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images(kind):
    images, expected = BAD_IMAGES[kind]
    assert expected in message((images, LABELS))


BAD_LABELS = {
    "negative": (LABELS - 1, "label -1 at 0 is negative"),
    "out of range": (LABELS * 100, "label 200 at 2 is out of range: 60 images cannot have 201"),
    "floats": (
        LABELS.astype(float),
        "found float64; wanted whole numbers 0 to K-1. Type: labels.as",
    ),
    "nan": (
        np.where(LABELS == 1, np.nan, 0),
        "20 numbers NaN or infinite, the first at [1]",
    ),
    "one-hot": (
        np.eye(3)[LABELS],
        "found shape (60, 3); wanted (60,). For one-hot rows, type: labels.argm",
    ),
    "column": (LABELS[:, None], "Type: labels.reshape(-1)"),
    "too few": (LABELS[:59], "found 59 labels for 60 images"),
    "one class": (LABELS * 0, "60 images of 1 class"),
    "none": (np.array([None] * 60), "found object; wanted whole numbers"),
}


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_bad_labels(kind):
    labels, expected = BAD_LABELS[kind]
    assert expected in message((IMAGES, labels))


@pytest.mark.parametrize("spec", [None, 3, (IMAGES,), {"images": IMAGES}])
def test_neither_path_nor_arrays(spec):
    assert "wanted a name, a path or (images, labels)" in message(spec)


def test_no_images_at_all():
    assert "0 images of 0 class" in message((IMAGES[:0], LABELS[:0]))


def test_too_few_images_to_split():
    text = message((IMAGES[:2], [0, 1]))
    assert "2 training images cannot give 2 to test and val" in text
    assert "val_fraction is 1.5; wanted at least 0" in message((IMAGES, LABELS), val_fraction=1.5)


def test_moments_are_those_of_the_training_pixels():
    images = np.random.default_rng(3).integers(0, 256, (301, 7, 9, 3), dtype=np.uint8)
    data = open_data((images, np.arange(301) % 2))
    pixels = data.train.images.astype(np.float64) / 255
    assert np.allclose(data.preprocessing.mean, pixels.mean((0, 2, 3)), atol=1e-6)
    assert np.allclose(data.preprocessing.std, pixels.std((0, 2, 3)), atol=1e-6)
    flat = open_data((np.full((20, 4, 4), 51, np.uint8), np.arange(20) % 2))
    assert flat.preprocessing.mean == (0.2,) and flat.preprocessing.std == (1.0,)


def test_a_stored_record_is_taken_as_it_is():
    record = Preprocessing(3, 4, 4, fit="pad", mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    data = open_data((IMAGES, LABELS), preprocessing=record)
    assert data.preprocessing == record and data.train.images.shape[1:] == (3, 4, 4)


def test_the_fingerprint_sees_pixels_labels_names_and_splits():
    first = open_data((IMAGES, LABELS)).fingerprint
    assert first == open_data((IMAGES.copy(), LABELS.tolist())).fingerprint
    pixel = IMAGES.copy()
    pixel[7, 2, 2] ^= 128
    label = LABELS.copy()
    label[0] = 1
    others = [
        open_data((pixel, LABELS)),
        open_data((IMAGES, label)),
        open_data((IMAGES, np.array(["a", "b", "c"])[LABELS])),
        open_data((IMAGES, LABELS), seed=1),
    ]
    assert len({first, *(data.fingerprint for data in others)}) == 5


def test_open_test_takes_the_test_part_or_everything(tmp_path):
    write_idx(tmp_path, True)
    data = open_data(tmp_path)
    split = open_test(tmp_path, data.preprocessing, data.class_names)
    assert np.array_equal(split.images, data.test.images)
    whole = open_test((IMAGES, LABELS), data.preprocessing, ("red", "green", "blue"))
    assert len(whole) == 60 and np.array_equal(whole.labels, LABELS)


def mnist() -> Path:
    named = os.environ.get("LANEWISE_DATA")
    base = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not (base / "mnist").is_dir():
        pytest.skip(f"no MNIST at {base / 'mnist'}; LANEWISE_DATA names the folder above it")
    return base / "mnist"


def test_mnist():
    data = open_data(mnist())
    assert [len(data.train), len(data.val), len(data.test)] == [55_000, 5_000, 10_000]
    assert data.preprocessing.mean == pytest.approx((0.1307,), abs=5e-4)
    assert data.preprocessing.std == pytest.approx((0.3081,), abs=5e-4)
    assert data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    # Classes keep their share to within one image.
    whole = np.bincount(data.train.labels) + np.bincount(data.val.labels)
    assert np.abs(np.bincount(data.val.labels) - whole / 12).max() < 1
