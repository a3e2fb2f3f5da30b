"""The driver of a training: net + data + recipe → a trained model, in a run folder or in memory.

prepare     what the user named → a Job: everything opened and checked, nothing compiled yet
prepare_again   the same from a run folder, to go on
execute     Job → Outcome: compile, train, judge; saved on the way where there is a folder
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lanewise.data import DataSet, Split, native_shape, open_data, open_test
from lanewise.errors import DataError
from lanewise.size.report import size
from lanewise.training.checkpoint import Checkpoint
from lanewise.training.choice import (
    Choice,
    check_trainable,
    default_net,
    fit_classes,
    note_enlarging,
)
from lanewise.training.interrupt import Interrupt
from lanewise.training.keeper import Keeper
from lanewise.training.loop import Diverged, Loop
from lanewise.training.progress import Extent, Silent
from lanewise.training.recipe import Recipe, Task, check_settings, choose_recipe
from lanewise.training.record import SPLIT_SEED, Source, machine, new_record, reopen
from lanewise.training.report import report_page
from lanewise.training.run_folder import (
    RunFolder,
    abandon,
    open_run,
    stored_preprocessing,
    stored_recipe,
)
from lanewise.training.scores import Scores, score

if TYPE_CHECKING:
    from lanewise.api import Net
    from lanewise.native import Program

Weights = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Job:
    """Everything that a training needs, opened and checked. `record` is its run.json."""

    choice: Choice
    data: DataSet
    recipe: Recipe
    record: dict[str, Any]

    @property
    def params(self) -> int:
        """Trainable numbers of the network."""
        return int(self.record["net"]["params"])

    def header(self) -> list[str]:
        """What a run begins with, one fact a line: `name: …`."""
        macs = size(self.choice.graph).totals.macs
        notes = [f"note: {note}" for note in self.choice.notes]
        net = f"net: {self.choice.name}, {self.params:,} parameters, {macs:,} MACs an image"
        return [*self.data.summary, net, *notes, f"recipe: {self.recipe}"]


@dataclass(frozen=True)
class Outcome:
    """What came out. `finished` is False after Ctrl-C; `judged` is then empty.

    judged: the best weights on the test images ("test"), or on the validation images ("val") where
    there are none; judged_on says which.
    """

    job: Job
    run: RunFolder | None
    checkpoint: Checkpoint
    weights: Weights
    finished: bool
    compile_seconds: float
    judged: Scores | None = None
    judged_on: str = ""

    def result(self) -> dict[str, Any]:
        """The document of `lanewise train --json`."""
        history = self.checkpoint.history
        best = history[self.checkpoint.best - 1] if self.checkpoint.best else None
        images = len(self.job.data.train) * len(history)
        training = sum(len(self.job.data.train) / item.images_per_second for item in history)
        return {
            "run": str(self.run) if self.run else None,
            "epochs": len(history),
            "params": self.job.params,
            "compile_seconds": round(self.compile_seconds, 3),
            "train_seconds": round(sum(item.seconds for item in history), 3),
            "images_per_second": round(images / training, 1) if training else 0.0,
            "val_accuracy": best.val_accuracy if best else None,
            "test_accuracy": self.judged.accuracy
            if self.judged and self.judged_on == "test"
            else None,
        }


def prepare(
    net: Net | None,
    data: Any,
    *,
    fit: str | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    settings: Mapping[str, Any],
    watcher: Silent,
) -> Job:
    """The job for a network (None: chosen for the data) and DATA.

    NetError, SizeError, DataError or RecipeError where one of them cannot be used.
    """
    check_settings(settings)  # a bad setting is told before an hour of decoding
    choice = Choice(net.text, net.graph) if net else default_net(native_shape(data))
    check_trainable(choice)
    opened = open_data(
        data,
        input_shape=choice.input_shape,
        fit=fit,
        seed=SPLIT_SEED,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        on_progress=watcher.reading,
    )
    choice = fit_classes(choice, len(opened.class_names))
    choice = _advised(choice, data) if net else choice
    params = size(choice.graph).totals.params
    recipe = choose_recipe(_task(choice, opened, params), settings)
    _check_batches(choice, len(opened.train), recipe.batch)
    source = Source.of(data, val_fraction, test_fraction)
    record = new_record(choice, opened, source, recipe, params)
    return Job(choice, opened, recipe, record)


def _advised(choice: Choice, data: Any) -> Choice:
    """With a note where the network enlarges the images for nothing."""
    try:
        return note_enlarging(choice, native_shape(data))
    except DataError:  # none of the few images that were looked at is a good one
        return choice


def _task(choice: Choice, data: DataSet, params: int) -> Task:
    return Task(
        images=len(data.train),
        channels=data.preprocessing.channels,
        layers=choice.layers,
        params=params,
        pairs=choice.pairs,
        normed=choice.normed,
        radial=choice.radial,
    )


def _check_batches(choice: Choice, images: int, batch: int) -> None:
    """DataError where a batch is too small for the statistics of a batch normalisation."""
    from lanewise.native.given import enough_for_statistics, normalised_shapes

    graph = choice.graph
    enough_for_statistics(graph, normalised_shapes(graph), images, batch, option="--batch")


def prepare_again(run: RunFolder, data: Any = None, *, watcher: Silent) -> Job:
    """The job of a run folder, with its own net, recipe and preprocessing; `data` if it moved."""
    record = run.read_record()
    text, graph = run.read_net(record["net"]["name"])
    choice = Choice(text, graph)
    check_trainable(choice)
    run.check_net(graph, record)
    recipe = stored_recipe(run, record)
    rule = stored_preprocessing(run, record)
    opened = reopen(run, record, rule, data, watcher.reading)
    return Job(choice, opened, recipe, record)


def execute(
    job: Job,
    run: RunFolder | None,
    *,
    threads: int | None = None,
    resume: bool = False,
    watcher: Silent,
    interrupt: Interrupt | None = None,
) -> Outcome:
    """Train and judge. With `resume`, from where the run folder says. `interrupt`: one in force.

    After Ctrl-C the state is saved and the outcome is not `finished`. RunError where the folder
    cannot be written, or the loss diverges (Diverged); EngineError where this machine cannot run
    the net.
    """
    try:
        program = _compile(job, threads)
    except BaseException:
        if run is not None and not resume:
            abandon(run)
        raise
    execution = _Execution(job, run, program, watcher)
    try:
        if interrupt is not None:
            return execution.carry_out(resume, interrupt)
        with Interrupt() as interrupt:
            return execution.carry_out(resume, interrupt)
    finally:
        watcher.stopped()
        program.close()


def _compile(job: Job, threads: int | None) -> Program:
    from lanewise.native import compile_net

    program = compile_net(
        job.choice.graph,
        training=True,
        optimizer=job.recipe.engine_optimizer(),
        threads=threads,
        exact=job.recipe.exact,
        precision=job.recipe.precision,
    )
    rule = job.data.preprocessing
    program.set_normalisation(rule.mean, rule.std)
    return program


class _Execution:
    """One training from its first or next step to its end: the steps of `execute`."""

    def __init__(self, job: Job, run: RunFolder | None, program: Program, watcher: Silent) -> None:
        self._job, self._run = job, run
        self._program, self._watcher = program, watcher

    def carry_out(self, resume: bool, interrupt: Interrupt) -> Outcome:
        checkpoint, keeper = self._begin(resume)
        checkpoint = self._train(checkpoint, keeper, lambda: interrupt.asked)
        finished = checkpoint.epoch == self._job.recipe.epochs
        outcome = self._outcome(checkpoint, finished)
        if finished:
            outcome = self._judge(outcome)
            self._job.record["result"] = outcome.result()
        keeper.write_record(self._job.record, "complete" if finished else "interrupted")
        return outcome

    def _begin(self, resume: bool) -> tuple[Checkpoint, Keeper]:
        """Fresh or stored weights, and the first save, so that any later moment can go on."""
        program, run = self._program, self._run
        self._job.record["machine"] = machine(program)
        self._announce_engine()
        if resume and run is not None:
            checkpoint = run.read_state(program)
            keeper = Keeper(run, program, checkpoint.best)
            keeper.write_record(self._job.record, "running")
            self._announce_position(checkpoint)
        else:
            program.initialise(self._job.recipe.seed)
            checkpoint, keeper = Checkpoint(), Keeper(run, program)
            keeper.begin(self._job.choice.text, checkpoint, self._job.record)
        return checkpoint, keeper

    def _train(
        self, checkpoint: Checkpoint, keeper: Keeper, stop: Callable[[], bool]
    ) -> Checkpoint:
        job, watcher = self._job, self._watcher
        watcher.started(
            checkpoint, Extent(job.recipe.epochs, len(job.data.train), job.recipe.batch)
        )
        loop = Loop(
            program=self._program,
            train=job.data.train,
            val=job.data.val,
            classes=len(job.data.class_names),
            recipe=job.recipe,
            watcher=watcher,
            keep=keeper.keep,
            stop=stop,
        )
        try:
            checkpoint = loop.run(checkpoint)
        except Diverged as error:
            keeper.save_best(error.checkpoint)
            keeper.write_record(job.record, "diverged")
            raise Diverged(f"{error}{self._saved_words(error)}", error.checkpoint) from None
        finally:
            watcher.stopped()
        keeper.save(checkpoint)
        return checkpoint

    def _outcome(self, checkpoint: Checkpoint, finished: bool) -> Outcome:
        weights = checkpoint.best_weights
        if weights is None:  # stopped in the first epoch: what there is so far
            weights = {name: array.copy() for name, array in self._program.learned.items()}
        return Outcome(
            job=self._job,
            run=self._run,
            checkpoint=checkpoint,
            weights=weights,
            finished=finished,
            compile_seconds=self._program.compile_seconds,
        )

    def _judge(self, outcome: Outcome) -> Outcome:
        """The best weights on the test images, or on the validation images; and the report."""
        data = self._job.data
        name, split = ("test", data.test) if data.test else ("val", data.val)
        if not len(split):
            return outcome
        for key, array in self._program.learned.items():
            array[...] = outcome.weights[key]
        scores = score(
            self._program.forward(split.images), split.labels, data.class_names, split.sources
        )
        outcome = replace(outcome, judged=scores, judged_on=name)
        if self._run is not None:
            page = report_page(self._job.record, outcome.checkpoint.history, scores, name, split)
            self._run.write_report(page)
        return outcome

    def _announce_position(self, checkpoint: Checkpoint) -> None:
        epochs = self._job.recipe.epochs
        where = f"going on in epoch {checkpoint.epoch + 1} of {epochs}"
        done = checkpoint.epoch == epochs
        self._watcher.tell(f"resume: {'complete, nothing is left to train' if done else where}")

    def _announce_engine(self) -> None:
        program = self._program
        how = "loaded from the cache" if program.from_cache else "compiled"
        threads = f"{program.threads} thread" + ("s" if program.threads != 1 else "")
        self._watcher.tell(f"engine: {threads}, {how} in {program.compile_seconds:.2f} s")

    def _saved_words(self, error: Diverged) -> str:
        """What a diverged run still has."""
        best = error.checkpoint.best
        return f". {self._run} keeps the weights of epoch {best}" if self._run and best else ""


def own_images(folder: str | os.PathLike[str], watcher: Silent) -> tuple[Split, str]:
    """The test images of a run, or its validation images; and what they are, in words."""
    run = open_run(folder)
    record = run.read_record()
    data = reopen(run, record, stored_preprocessing(run, record), on_progress=watcher.reading)
    if data.test:
        return data.test, f"test images of {data.name}"
    if len(data.val):
        return data.val, f"validation images of {data.name}, which has no test images"
    raise DataError(f"{run}: its data has neither test nor validation images; name other DATA")


def other_images(folder: str | os.PathLike[str], data: Any, watcher: Silent) -> Split:
    """The images of other data under the run's preprocessing and classes.

    DataError where it has classes that the model does not know.
    """
    run = open_run(folder)
    record = run.read_record()
    rule = stored_preprocessing(run, record)
    split = open_test(data, rule, record["class_names"], on_progress=watcher.reading)
    if not len(split):
        raise DataError(f"{data}: no images to test on; name other DATA")
    return split
