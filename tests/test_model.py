"""`lw.train`, `lw.load`, `Model`, and the scikit-learn estimator."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lanewise as lw
from lanewise.data import open_data
from lanewise.training.scores import (
    confusion_matrix,
    mean_loss,
    score,
    softmax,
    wilson,
    worst_mistakes,
)

NET = "input 1x8x8; conv 8 k3 pad1; relu; maxpool 2; flatten; linear 10"


@pytest.fixture(scope="module")
def model() -> lw.Model:
    return lw.train(NET, "digits", epochs=8, batch=64, quiet=True)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """The test digits, uint8 (N, 8, 8), and their labels."""
    test = open_data("digits").test
    assert test is not None
    return test.images[:, 0], test.labels


# Training and predicting -------------------------------------------------------------------------


def test_a_model_knows_what_it_was_trained_on(model: lw.Model) -> None:
    assert model.net == lw.Net(NET) and model.net.text == NET
    assert model.class_names == tuple("0123456789")
    assert [record.epoch for record in model.history] == list(range(1, 9))
    assert model.test_accuracy is not None and model.test_accuracy > 0.9
    assert model.val_accuracy == max(record.val_accuracy or 0 for record in model.history)


def test_labels_are_the_likeliest_classes(
    model: lw.Model, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    images, labels = digits
    probabilities, predicted = model.predict_proba(images), model.predict(images)
    assert probabilities.shape == (180, 10) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(predicted, probabilities.argmax(axis=1).astype(str))
    assert (predicted == labels.astype(str)).mean() == model.test_accuracy


def test_images_of_other_sizes_and_colours_are_prepared(
    model: lw.Model, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    large = np.repeat(np.repeat(digits[0], 4, axis=1), 4, axis=2)
    rgb = np.repeat(large[..., None], 3, axis=3)
    np.testing.assert_array_equal(model.predict(large), model.predict(rgb))
    assert (model.predict(large) == model.predict(digits[0])).mean() > 0.9


def test_paths_are_predicted(
    model: lw.Model, digits: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    for index in range(3):
        Image.fromarray(digits[0][index]).save(tmp_path / f"{index}.png")
    wanted = model.predict(digits[0][:3]).tolist()
    assert model.predict(tmp_path).tolist() == wanted
    assert model.predict([tmp_path / "2.png", str(tmp_path / "0.png")]).tolist() == [
        wanted[2],
        wanted[0],
    ]
    (tmp_path / "1.png").write_bytes(b"not a picture")
    with pytest.raises(lw.DataError, match=r"1\.png: not an image"):
        model.predict(tmp_path)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((2, 8, 8)), r"found float64; wanted uint8.*\* 255"),
        (np.full((2, 8, 8), np.nan), "NaN or infinite"),
        (np.zeros((8, 8), np.uint8), r"found shape \(8, 8\)"),
        (np.zeros((2, 8, 8, 5), np.uint8), "5 channels"),
    ],
)
def test_arrays_that_are_no_images_are_refused(
    model: lw.Model, images: np.ndarray, words: str
) -> None:
    with pytest.raises(lw.DataError, match=words):
        model.predict(images)


def test_saved_and_loaded_it_answers_the_same(
    model: lw.Model, digits: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    model.save(tmp_path / "saved")
    loaded = lw.load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.logits(digits[0]), model.logits(digits[0]))
    assert (loaded.net, loaded.net.text, loaded.net.name) == (model.net, NET, "net")
    assert loaded.class_names == model.class_names and loaded.history == model.history
    assert loaded.preprocessing == model.preprocessing
    assert loaded.test_accuracy == model.test_accuracy
    with pytest.raises(lw.RunError, match="holds a run already"):
        model.save(tmp_path / "saved")


@pytest.mark.parametrize("name", ["net.net", "run.json", "history.jsonl", "weights.safetensors"])
def test_a_missing_or_damaged_file_is_named(model: lw.Model, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run"
    model.save(folder)
    path = folder / name
    path.write_bytes(b"\xff" + path.read_bytes()[1 : path.stat().st_size // 2])
    with pytest.raises(lw.RunError, match=rf"{name}: damaged .*train again"):
        lw.load(folder)
    path.unlink()
    with pytest.raises(lw.RunError, match=name):
        lw.load(folder)


def test_weights_of_another_net_are_refused(model: lw.Model, tmp_path: Path) -> None:
    model.save(tmp_path / "run")
    net = tmp_path / "run" / "net.net"
    net.write_text(net.read_text().replace("conv 8", "conv 9"))
    with pytest.raises(lw.RunError, match=r"conv1\.weight is float32 8x1x3x3, the net wants"):
        lw.load(tmp_path / "run")


def test_a_run_folder_is_a_model(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    trained = lw.train(NET, "digits", epochs=2, run=tmp_path / "run", quiet=True)
    loaded = lw.load(tmp_path / "run")
    np.testing.assert_array_equal(loaded.logits(digits[0]), trained.logits(digits[0]))
    resumed = lw.train(resume=tmp_path / "run", quiet=True)
    np.testing.assert_array_equal(resumed.logits(digits[0]), trained.logits(digits[0]))
    with pytest.raises(lw.LanewiseError, match="epochs cannot be given beside it"):
        lw.train(resume=tmp_path / "run", epochs=3, quiet=True)


def test_two_trainings_and_any_threads_give_the_same_bits() -> None:
    first, second, other = (
        lw.train(NET, "digits", epochs=1, seed=seed, threads=threads, quiet=True).weights
        for seed, threads in ((0, 1), (0, 2), (1, 1))
    )
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not all(np.array_equal(first[name], other[name]) for name in first)


def test_arrays_are_data_and_their_run_is_resumed_with_them(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 8, 8), np.uint8)
    labels = np.array(["dark", "light"])[(images.mean(axis=(1, 2)) > 127).astype(int)]
    net = "input 1x8x8; flatten; linear 2"
    trained = lw.train(net, (images, labels), epochs=2, run=tmp_path / "run", quiet=True)
    assert trained.class_names == ("dark", "light")
    with pytest.raises(lw.RunError, match="trained on arrays in memory; give the data"):
        lw.train(resume=tmp_path / "run", quiet=True)
    again = lw.train(data=(images, labels), resume=tmp_path / "run", quiet=True)
    assert all(np.array_equal(trained.weights[name], again.weights[name]) for name in again.weights)
    with pytest.raises(lw.DataError, match="not the data that"):
        lw.train(data=(images[::-1], labels), resume=tmp_path / "run", quiet=True)


def test_a_closed_or_copied_model_goes_on(
    model: lw.Model, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    wanted = model.predict(digits[0])
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict(digits[0]), wanted)
        other.close()
        np.testing.assert_array_equal(other.predict(digits[0]), wanted)


# Scores ------------------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    logits = np.array([[2, 0, 0], [0, 3, 0], [0, 1, 0], [5, 0, 0]], np.float32)
    labels = np.array([0, 1, 0, 1], np.int32)
    scores = score(logits, labels, ("a", "b", "c"), ["w", "x", "y", "z"])
    assert scores.accuracy == 0.5 and scores.count == 4
    assert scores.confusion.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert [(item.precision, item.recall, item.count) for item in scores.classes] == [
        (0.5, 0.5, 2),
        (0.5, 0.5, 2),
        (None, None, 0),
    ]
    assert [(item.source, item.true, item.predicted) for item in scores.worst] == [
        ("z", "b", "a"),
        ("y", "a", "b"),
    ]


def test_scores_are_those_of_scikit_learn() -> None:
    from sklearn import metrics

    random = np.random.default_rng(0)
    logits = random.normal(size=(200, 4)).astype(np.float32)
    labels = random.integers(0, 4, 200).astype(np.int32)
    predicted = logits.argmax(axis=1)
    scores = score(logits, labels, tuple("abcd"), [""] * 200)
    assert scores.accuracy == metrics.accuracy_score(labels, predicted)
    np.testing.assert_array_equal(
        confusion_matrix(labels, predicted, 4), metrics.confusion_matrix(labels, predicted)
    )
    precision, recall, _, count = metrics.precision_recall_fscore_support(labels, predicted)
    np.testing.assert_allclose([item.precision for item in scores.classes], precision)
    np.testing.assert_allclose([item.recall for item in scores.classes], recall)
    assert [item.count for item in scores.classes] == count.tolist()
    probabilities = softmax(logits)
    assert mean_loss(logits, labels) == pytest.approx(metrics.log_loss(labels, probabilities))


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    # Wilson's formula by hand; of 0 in n the upper end is z² / (n + z²).
    [(9886, 10000, 0.986325, 0.990502), (5, 10, 0.236593, 0.763407), (0, 20, 0.0, 0.161125)],
)
def test_wilson_intervals(right: int, count: int, low: float, high: float) -> None:
    assert wilson(right, count) == pytest.approx((low, high), abs=2e-6)
    mirrored = wilson(count - right, count)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=2e-6)


def test_huge_logits_stay_finite() -> None:
    logits = np.array([[1e30, -1e30], [88.0, 89.0]], np.float32)
    assert np.isfinite(softmax(logits)).all()
    assert mean_loss(logits[1:], np.array([1], np.int32)) == pytest.approx(np.log1p(np.exp(-1)))


def test_no_mistake_is_no_mistake() -> None:
    logits = np.eye(3, dtype=np.float32)
    assert worst_mistakes(logits, np.arange(3, dtype=np.int32), tuple("abc"), [""] * 3, 5) == ()


# The estimator -----------------------------------------------------------------------------------


def test_the_estimator_learns_rows_and_images() -> None:
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    names = np.array([f"digit {label}" for label in y])
    rows = lw.Classifier(NET, epochs=6, batch=32).fit(X[:1200], names[:1200])
    assert rows.score(X[1200:], names[1200:]) > 0.8
    assert rows.classes_.tolist() == sorted(set(names)) and rows.n_features_in_ == 64
    images = lw.Classifier(NET, epochs=6, batch=32).fit(X[:1200].reshape(-1, 8, 8), names[:1200])
    np.testing.assert_array_equal(images.predict_proba(X), rows.predict_proba(X))


def test_the_estimator_is_cloned_and_searched() -> None:
    from sklearn.base import clone
    from sklearn.datasets import load_digits
    from sklearn.model_selection import GridSearchCV

    X, y = load_digits(return_X_y=True)
    estimator = lw.Classifier(NET, epochs=2)
    assert clone(estimator).get_params() == estimator.get_params()
    search = GridSearchCV(estimator, {"learning_rate": [1e-6, 0.05]}, cv=2).fit(X, y)
    assert search.best_params_ == {"learning_rate": 0.05}
    assert search.predict(X[:5]).dtype == y.dtype


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (np.full((4, 64), np.nan), "NaN"),
        (np.zeros((4, 60)), "no square image; give image_shape"),
        (np.array([["a"] * 64] * 4), "wanted numbers"),
    ],
)
def test_the_estimator_refuses_what_are_no_images(X: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lw.Classifier(NET).fit(X, [0, 1, 0, 1])


def test_the_estimator_refuses_other_shapes_and_lengths() -> None:
    from sklearn.exceptions import NotFittedError

    random = np.random.default_rng(0)
    X, y = random.random((40, 6)), np.tile([3, 7], 20)
    estimator = lw.Classifier("input 1x2x3; flatten; linear 2", epochs=1, image_shape=(2, 3))
    with pytest.raises(NotFittedError):
        estimator.predict(X)
    assert set(estimator.fit(X, y).predict(X)) <= {3, 7}
    with pytest.raises(ValueError, match="found 5 values an image"):
        estimator.predict(X[:, :5])
    with pytest.raises(ValueError, match="NaN"):
        estimator.predict(np.full((2, 6), np.nan))
    with pytest.raises(ValueError, match=r"y: found shape \(39,\)"):
        estimator.fit(X, y[1:])
