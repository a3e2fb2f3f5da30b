"""The loop: the same bits wherever it is called, stopped, killed and resumed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from counting_engine import CountingEngine
from lanewise.data import DataSet, Preprocessing, Split
from lanewise.training import loop, start
from lanewise.training.checkpoint import Checkpoint
from lanewise.training.loop import Diverged, Loop
from lanewise.training.progress import Silent
from lanewise.training.recipe import Recipe
from lanewise.training.run_folder import STATE, RunFolder, create_run
from lanewise.training.start import Outcome, execute, prepare, prepare_again
from stopping import Stop, StopAfter

NET = "input 1x8x8; conv 8 k3 pad1; relu; maxpool 2; flatten; dropout 0.2; linear 10"


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> list[CountingEngine]:
    """Every program that is compiled counts instead."""
    made: list[CountingEngine] = []

    def compile_net(*_: object, **__: object) -> CountingEngine:
        made.append(CountingEngine(classes=10))
        return made[-1]

    monkeypatch.setattr("lanewise.native.compile_net", compile_net, raising=False)
    return made


def random_split(count: int, seed: int) -> Split:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, 1, 2, 2), np.uint8)
    return Split(images, random.integers(0, 3, count).astype(np.int32), [""] * count)


def run_loop(
    program: CountingEngine,
    *,
    images: int = 50,
    recipe: Recipe | None = None,
    checkpoint: Checkpoint | None = None,
    keep: Callable[[Checkpoint], None] = lambda checkpoint: None,
    stop: Callable[[], bool] = lambda: False,
) -> Checkpoint:
    recipe = recipe or Recipe(epochs=3, batch=16)
    train, val = random_split(images, 0), random_split(9, 1)
    steps = Loop(program, train, val, 3, recipe, Silent(), keep, stop)  # type: ignore[arg-type]
    return steps.run(checkpoint or Checkpoint())


# The loop by itself ------------------------------------------------------------------------------


def test_every_epoch_has_every_step_and_is_recorded() -> None:
    program = CountingEngine()
    done = run_loop(program)
    assert (done.epoch, done.step, program.steps_done) == (3, 0, 3 * 4)
    assert [record.epoch for record in done.history] == [1, 2, 3]
    assert all(record.loss == 1.0 for record in done.history)
    assert all(record.train_accuracy == (8 + 8 + 8 + 1) / 50 for record in done.history)
    assert done.history[-1].learning_rate < 1e-4 < done.history[0].learning_rate


def test_the_mean_loss_weighs_a_short_last_batch_by_its_images() -> None:
    program = CountingEngine(loss=lambda step: float(step))
    done = run_loop(program, recipe=Recipe(epochs=1, batch=16))
    assert done.history[0].loss == pytest.approx((16 * (0 + 1 + 2) + 2 * 3) / 50)


@pytest.mark.parametrize("images", [1, 15, 16, 17])
def test_any_number_of_images(images: int) -> None:
    program = CountingEngine()
    done = run_loop(program, images=images)
    assert program.steps_done == 3 * -(-images // 16) and done.epoch == 3


def test_where_a_call_ends_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one_call, many = CountingEngine(), CountingEngine()
    monkeypatch.setattr(loop, "CALL_SECONDS", 1e9)
    run_loop(one_call, images=500)
    monkeypatch.setattr(loop, "CALL_SECONDS", 0.0)
    run_loop(many, images=500)
    assert len(many.calls) == 96 > len(one_call.calls)
    np.testing.assert_array_equal(
        one_call.parameters["linear1.weight"], many.parameters["linear1.weight"]
    )


def test_another_seed_shows_other_batches() -> None:
    weights = []
    for seed in (0, 1):
        program = CountingEngine()
        run_loop(program, recipe=Recipe(epochs=1, batch=16, seed=seed))
        weights.append(program.parameters["linear1.weight"].tolist())
    assert weights[0] != weights[1]


def test_stopping_leaves_a_whole_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CALL_SECONDS", 0.0)
    whole, parts = CountingEngine(), CountingEngine()
    run_loop(whole)
    checkpoint = Checkpoint()
    while checkpoint.epoch < 3:
        checkpoint = run_loop(parts, checkpoint=checkpoint, stop=lambda: True)
        assert checkpoint.epoch * 4 + checkpoint.step == parts.steps_done
    np.testing.assert_array_equal(
        whole.parameters["linear1.weight"], parts.parameters["linear1.weight"]
    )


def test_what_is_kept_is_always_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CALL_SECONDS", 0.0)
    program = CountingEngine()
    seen = []

    def keep(checkpoint: Checkpoint) -> None:
        assert checkpoint.epoch * 4 + checkpoint.step == program.steps_done
        assert len(checkpoint.losses) == checkpoint.step
        seen.append(program.steps_done)

    run_loop(program, keep=keep)
    assert seen == list(range(1, 13))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_with_a_remedy(bad: float) -> None:
    program = CountingEngine(loss=lambda step: bad if step == 6 else 1.0)
    with pytest.raises(Diverged, match=rf"epoch 2 step 3: the loss is {bad}.*--lr 0\.025") as stop:
        run_loop(program)
    assert stop.value.checkpoint.best == 1


def test_a_loss_far_above_guessing_stops_too() -> None:
    program = CountingEngine(loss=lambda step: 1e5)
    with pytest.raises(Diverged, match="diverged"):
        run_loop(program)


def test_infinite_logits_stop_too(monkeypatch: pytest.MonkeyPatch) -> None:
    program = CountingEngine()
    logits = np.full((9, 3), np.inf, np.float32)
    monkeypatch.setattr(program, "forward", lambda images: logits)
    with pytest.raises(Diverged, match="epoch 1 step 4: the loss is nan"):
        run_loop(program)


# With a run folder -------------------------------------------------------------------------------


def job(**settings: Any) -> start.Job:
    from lanewise.api import Net

    settings = {"epochs": 2, "batch": 64, "learning_rate": 0.05, **settings}
    return prepare(Net(NET), "digits", settings=settings, watcher=Silent())


def train_in(folder: Path, watcher: Silent | None = None, **options: Any) -> Outcome:
    return execute(job(), create_run(folder), watcher=watcher or Silent(), **options)


def resume_in(folder: Path, watcher: Silent | None = None, **options: Any) -> Outcome:
    run = RunFolder(folder)
    watcher = watcher or Silent()
    again = prepare_again(run, watcher=watcher)
    return execute(again, run, watcher=watcher, resume=True, **options)


def final_bits(folder: Path) -> dict[str, bytes]:
    """The last weights and optimizer state, and the best weights."""
    from safetensors.numpy import load_file

    arrays = load_file(folder / STATE)
    arrays |= load_file(folder / "weights.safetensors")
    return {name: array.tobytes() for name, array in arrays.items()}


@pytest.mark.usefixtures("small_calls", "counting")
def test_stopped_at_every_call_and_resumed_the_end_is_the_same(tmp_path: Path) -> None:
    train_in(tmp_path / "whole")
    wanted = final_bits(tmp_path / "whole")
    with pytest.raises(Stop):
        train_in(tmp_path / "parts", StopAfter(1))
    stops = 1
    while True:
        try:
            outcome = resume_in(tmp_path / "parts", StopAfter(2))
            break
        except Stop:
            stops += 1
    assert stops > 20 and outcome.finished
    assert final_bits(tmp_path / "parts") == wanted


@pytest.mark.usefixtures("small_calls")
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("calls", [1, 22, 23, 24, 45])
def test_the_engine_resumes_to_the_same_bits(tmp_path: Path, optimizer: str, calls: int) -> None:
    """23 steps make an epoch: stopped in the first, at its end, and near the end of the last."""
    recipe = {"optimizer": optimizer, "learning_rate": 0.05 if optimizer == "sgd" else 0.003}
    whole, parts = create_run(tmp_path / "whole"), create_run(tmp_path / "parts")
    execute(job(**recipe), whole, watcher=Silent(), threads=1)
    with pytest.raises(Stop):
        execute(job(**recipe), parts, watcher=StopAfter(calls), threads=2)
    outcome = resume_in(tmp_path / "parts", threads=1)
    assert final_bits(tmp_path / "parts") == final_bits(tmp_path / "whole")
    assert outcome.result()["test_accuracy"] > 0.5


@pytest.mark.usefixtures("counting")
def test_a_finished_run_can_be_resumed_and_stays_as_it_is(tmp_path: Path) -> None:
    first = train_in(tmp_path / "run")
    before = final_bits(tmp_path / "run")
    again = resume_in(tmp_path / "run")
    assert again.finished and again.result() == first.result()
    assert final_bits(tmp_path / "run") == before


def test_what_a_run_folder_holds(tmp_path: Path) -> None:
    outcome = train_in(tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == [
        "history.jsonl",
        "net.net",
        "report.html",
        "run.json",
        "state.safetensors",
        "weights.safetensors",
    ]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "complete" and record["result"] == outcome.result()
    assert record["class_names"] == [str(digit) for digit in range(10)]
    assert record["skipped"] == {"count": 0, "files": []}
    assert record["recipe"]["epochs"] == 2 and record["data"]["fingerprint"]
    assert record["machine"]["threads"] >= 1 and record["machine"]["numpy"] == np.__version__
    assert (tmp_path / "run" / "net.net").read_text() == NET
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<svg" in page and "<script" not in page and "http" not in page


def test_a_diverged_run_keeps_what_was_good(
    tmp_path: Path, counting: list[CountingEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lanewise.native.compile_net",
        lambda *_, **__: CountingEngine(10, lambda step: float("nan") if step > 30 else 1.0),
        raising=False,
    )
    with pytest.raises(Diverged, match="keeps the weights of epoch 1"):
        train_in(tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["status"] == "diverged"
    assert RunFolder(tmp_path / "run").read_weights()


@pytest.mark.usefixtures("small_calls", "counting")
def test_a_full_disk_names_the_file_and_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lanewise.errors import RunError
    from lanewise.training import files

    folder, writes = tmp_path / "run", 0
    train_in(tmp_path / "whole")
    replace_file = files.os.replace

    def full(*paths: Any) -> None:
        nonlocal writes
        writes += 1
        if writes > 20:
            raise OSError(28, "No space left on device")
        replace_file(*paths)

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(RunError, match=r"No space left.*free some space.*--resume") as refusal:
        train_in(folder)
    assert str(folder) in str(refusal.value)
    monkeypatch.setattr(files.os, "replace", replace_file)
    resume_in(folder)
    assert final_bits(folder) == final_bits(tmp_path / "whole")


@pytest.mark.usefixtures("counting")
def test_a_net_that_does_not_compile_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise Stop

    monkeypatch.setattr("lanewise.native.compile_net", refuse, raising=False)
    with pytest.raises(Stop):
        train_in(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("counting")
def test_without_validation_images_the_last_epoch_is_taken() -> None:
    data = DataSet(
        "none",
        ("a", "b", "c"),
        random_split(20, 0),
        random_split(0, 1),
        None,
        Preprocessing(1, 2, 2),
    )
    work = job()
    work = start.Job(work.choice, data, work.recipe, work.record)
    outcome = execute(work, None, watcher=Silent())
    assert outcome.checkpoint.best == 2 and outcome.judged is None
    assert outcome.result()["val_accuracy"] is None and outcome.result()["test_accuracy"] is None


def test_digits_are_learnt_in_seconds() -> None:
    work = prepare(None, "digits", settings={"epochs": 12}, watcher=Silent())
    outcome = execute(work, None, watcher=Silent())
    result = outcome.result()
    assert result["test_accuracy"] > 0.95 and result["val_accuracy"] > 0.95
    assert result["train_seconds"] < 20 and result["params"] == work.params
