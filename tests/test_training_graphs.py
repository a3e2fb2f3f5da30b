"""Nets with branches, normalisation, noise and settings: trained, stopped, kept, used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import lanewise as lw
from lanewise.cli.main import main
from lanewise.data import open_data
from lanewise.training import loop
from lanewise.training.progress import Silent
from lanewise.training.run_folder import STATE, WEIGHTS, RunFolder, create_run
from lanewise.training.start import Job, execute, prepare, prepare_again
from lanewise.training.tensors import read_tensors
from stopping import Stop, StopAfter

# Statistics of the batch and of slices, every kind of noise, every kind of trained factor.
NET = """\
parameters classes=10 width=1

block unit kernels {
    residual {
        conv kernels k3 pad1 nobias; bn; prelu channels; spatialdropout 0.1
        conv kernels k3 pad1 nobias; bn momentum 0.3; scale 0.5; stochasticdepth 0.2
    }
    relu
}

input 1x8x8
conv 16*width k3 stride2 pad1 nobias; bn ghost 16; prelu
unit 16*width
concat { depthwise k3 pad1; groupnorm 4 } { maxpool 3 stride1 pad1 }
globalavg; flatten; dropout 0.1; linear classes
"""
FAMILY = "resnet-cifar n=1 width=0.25 size=8"
# One value a channel and image behind its second convolution.
NARROW = "input 1x8x8; conv 8 k3 stride2; relu; conv 8 k3; bn; flatten; linear 3"


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """The test digits, uint8 (N, 8, 8), and their labels."""
    test = open_data("digits").test
    assert test is not None
    return test.images[:, 0], test.labels


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted, on one thread."""
    folder = tmp_path_factory.mktemp("graphs") / "whole"
    execute(job(), create_run(folder), watcher=Silent(), threads=1)
    return folder


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of a family, trained at the command line."""
    folder = tmp_path_factory.mktemp("graphs") / "family"
    options = ["--net", FAMILY, "--epochs", "3", "--quiet", "--run", str(folder)]
    assert main(["train", "digits", *options]) == 0
    return folder


def job(**settings: object) -> Job:
    wanted = {"epochs": 2, "batch": 64, "optimizer": "adamw", "learning_rate": 0.004, **settings}
    return prepare(lw.Net(NET), "digits", settings=wanted, watcher=Silent())


def kept(folder: Path) -> dict[str, bytes]:
    """Everything that a run keeps of its numbers: the last and the best, to the bit."""
    arrays, _ = read_tensors(folder / STATE)
    arrays |= {f"best {name}": array for name, array in read_tensors(folder / WEIGHTS)[0].items()}
    return {name: array.tobytes() for name, array in arrays.items()}


# Stopped and resumed -----------------------------------------------------------------------------


@pytest.mark.usefixtures("small_calls")
@pytest.mark.parametrize("calls", [(1, 3), (22, 1, 1), (30, 15)])
def test_stopped_anywhere_the_end_is_the_same(
    tmp_path: Path, whole: Path, calls: tuple[int, ...]
) -> None:
    """23 steps make an epoch; the threads change from stop to stop."""
    run = create_run(tmp_path / "parts")
    for number, steps in enumerate(calls):
        work = prepare_again(run, watcher=Silent()) if number else job()
        options = {"threads": 2 - number % 2, "resume": number > 0}
        with pytest.raises(Stop):
            execute(work, run, watcher=StopAfter(steps), **options)
    again = prepare_again(run, watcher=Silent())
    assert execute(again, run, watcher=Silent(), threads=2, resume=True).finished
    assert kept(run.path) == kept(whole)
    assert any("running_var" in name for name in kept(whole))


def test_any_threads_write_the_same_weights(tmp_path: Path, whole: Path) -> None:
    execute(job(), create_run(tmp_path / "two"), watcher=Silent(), threads=2)
    assert (tmp_path / "two" / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()


def test_the_best_weights_have_the_statistics_of_their_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first epoch is declared the best: what is kept of it is what one epoch alone gives."""
    monkeypatch.setattr(loop, "is_better", lambda history, best: best == 0)
    steady = {"schedule": "constant", "warm_up": 0.0}
    runs = {number: create_run(tmp_path / str(number)) for number in (1, 2)}
    outcomes = {
        number: execute(job(epochs=number, **steady), run, watcher=Silent())
        for number, run in runs.items()
    }
    best = {number: run.read_weights() for number, run in runs.items()}
    last, _ = read_tensors(runs[2].path / STATE)
    for name, array in best[1].items():
        np.testing.assert_array_equal(best[2][name], array)
        assert not np.array_equal(last[f"parameter {name}"], array), name
    first, second = (outcomes[number].judged for number in (1, 2))
    assert first and second and first.accuracy == second.accuracy


# Kept and used -----------------------------------------------------------------------------------


def test_an_image_is_judged_alone_as_among_others(
    whole: Path, digits: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    """Prediction uses the running statistics, so that one image has no influence on another."""
    images, labels = digits
    model = lw.load(whole)
    logits = model.logits(images)
    np.testing.assert_array_equal(model.logits(images[5:30])[0], logits[5])
    # Alone it takes another way, with its sums in another order.
    np.testing.assert_allclose(model.logits(images[5:6])[0], logits[5], rtol=1e-5, atol=1e-6)
    assert (logits.argmax(axis=1) == labels).mean() == model.test_accuracy
    model.save(tmp_path / "saved")
    loaded = lw.load(tmp_path / "saved")
    assert loaded.weights.keys() == model.weights.keys() and loaded.net.text == NET
    np.testing.assert_array_equal(loaded.logits(images), logits)


def test_other_running_statistics_answer_otherwise(
    whole: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    model = lw.load(whole)
    before = model.logits(digits[0][:20])
    model.close()
    model.weights["bn3.running_mean"] = model.weights["bn3.running_mean"] + 1
    assert not np.allclose(model.logits(digits[0][:20]), before)


def test_a_file_without_running_statistics_is_of_another_net(whole: Path, tmp_path: Path) -> None:
    lw.load(whole).save(tmp_path / "saved")
    run = RunFolder(tmp_path / "saved")
    weights = run.read_weights()
    del weights["bn1.running_var"]
    run.write_weights(weights, 2)
    with pytest.raises(lw.RunError, match=r"weights\.safetensors: bn1\.running_var is missing"):
        lw.load(run.path)


def test_the_estimator_takes_graphs_and_families(digits: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = digits
    names = np.array(["even", "odd"])[labels % 2]
    for net in (NET, FAMILY):
        classifier = lw.Classifier(net, epochs=2, batch=32, threads=2).fit(images, names)
        assert classifier.score(images, names) > 0.5
        one = classifier.predict_proba(images[:1])
        # One image takes another way than many, with its sums in another order.
        np.testing.assert_allclose(one, classifier.predict_proba(images)[:1], atol=1e-6)
        assert classifier.model_.weights["linear1.weight"].shape[0] == 2
        assert "block unit" in classifier.model_.net.text


# Families at the command line --------------------------------------------------------------------


def test_a_family_is_fitted_to_data_and_stays_readable(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (90, 10, 12), np.uint8)
    np.savez(tmp_path / "three.npz", images=images, labels=np.arange(90) % 3)
    command = ["train", str(tmp_path / "three.npz"), "--net", FAMILY, "--epochs", "1"]
    assert main([*command, "--run", str(tmp_path / "run")]) == 0
    err = capsys.readouterr().err
    told = " ".join(err.split())
    assert f"net {FAMILY}, " in told and "3x8x8 rgb, bilinear from 10x12" in told
    assert f"{FAMILY} has 10 outputs and the data has 3 classes: its parameter" in told
    assert all(len(line) <= 80 for line in err.splitlines() if "run" not in line[:3])
    text = (tmp_path / "run" / "net.net").read_text()
    assert "parameters size=8 classes=3 width=0.25 n=1\n" in text and "block unit" in text
    page = (tmp_path / "run" / "report.html").read_text()
    assert FAMILY in page and "its parameter classes is now 3" in page
    assert lw.load(tmp_path / "run").net.name == FAMILY


def test_a_family_is_tested_and_resumed_under_its_name(
    family: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((family / "run.json").read_text())
    assert record["net"]["name"] == FAMILY and record["result"]["test_accuracy"] > 0.3
    assert main(["test", str(family), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["accuracy"] == record["result"]["test_accuracy"]
    before = kept(family)
    assert main(["train", "--resume", str(family)]) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert f"net {FAMILY}, " in told and "complete, nothing is left" in told
    assert kept(family) == before


# Batches that are too small ----------------------------------------------------------------------


def narrow_data(count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    return random.integers(0, 256, (count, 8, 8), np.uint8), np.arange(count) % 3


def test_a_batch_of_one_image_is_refused_before_anything_is_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lanewise.native.compile_net", None, raising=False)
    with pytest.raises(lw.DataError, match=r"129 images in batches of 128\).*use --batch 127, or"):
        lw.train(NARROW, narrow_data(161), batch=128, quiet=True)


def test_a_batch_that_nobody_chose_leaves_no_single_image() -> None:
    work = prepare(lw.Net(NARROW), narrow_data(161), settings={}, watcher=Silent())
    assert len(work.data.train) == 129 and work.recipe.batch == 31
    larger = NARROW.replace("8 k3; bn", "8 k3 pad1; bn")
    work = prepare(lw.Net(larger), narrow_data(161), settings={}, watcher=Silent())
    assert work.recipe.batch == 32


def test_a_program_refuses_a_step_that_has_no_variance() -> None:
    program = lw.compile(NARROW, training=True)
    program.initialise(0)
    images, labels = narrow_data(33)
    before = {name: array.copy() for name, array in program.learned.items()}
    with pytest.raises(lw.DataError, match=r"bn1: bn over 8x1x1 .*there is one image.*more images"):
        program.step(images[:1], labels[:1], lr=0.1)
    rates = np.full(2, 0.1, np.float32)
    with pytest.raises(lw.DataError, match=r"33 images in batches of 32\).*use batch 31, or one"):
        program.run_steps(images, labels, np.arange(33), 32, rates)
    with pytest.raises(lw.DataError, match=r"33 images in batches of 1\).*so use batch 3$"):
        program.run_steps(images, labels, np.arange(33), 1, np.full(33, 0.1, np.float32))
    for name, array in program.learned.items():
        np.testing.assert_array_equal(array, before[name])
    loss, _ = program.step(images[:2], labels[:2], lr=0.1)
    assert np.isfinite(loss)
    program.close()


@pytest.mark.parametrize(("count", "batch", "other"), [(33, 32, 31), (34, 17, 16), (40, 17, 16)])
def test_a_ghost_of_one_image_is_refused(count: int, batch: int, other: int) -> None:
    """Its slices of 16 images have statistics of their own, also those of full batches."""
    net = NARROW.replace("bn;", "bn ghost 16;")
    images, labels = narrow_data(count)
    words = rf"the last group of a batch being a single image.*use --batch {other}, or"
    with pytest.raises(lw.DataError, match=words):
        lw.train(net, (images, labels), batch=batch, val_fraction=0, test_fraction=0, quiet=True)
