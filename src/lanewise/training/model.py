"""What the user holds: a trained network with its classes and its preprocessing.

model = lw.train("lenet5", "photos/", epochs=10)
model.predict(["holiday.jpg"])              # array(['cat'], …)
model.save("run/"); model = lw.load("run/")
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lanewise.api import Net
from lanewise.data import Preprocessing, list_images
from lanewise.data.decode import decoded_blocks
from lanewise.errors import DataError
from lanewise.size.cost import learned_shapes
from lanewise.training.checkpoint import EpochRecord
from lanewise.training.progress import choose
from lanewise.training.recipe import RecipeError
from lanewise.training.run_folder import (
    WEIGHTS,
    continue_run,
    create_run,
    open_run,
    stored_preprocessing,
)
from lanewise.training.scores import Scores, score, softmax
from lanewise.training.start import Outcome, Weights, execute, prepare, prepare_again
from lanewise.training.tensors import check_shapes

if TYPE_CHECKING:
    from lanewise.data import Split
    from lanewise.native import Program
    from lanewise.net.graph import Graph

    NetSpec = str | os.PathLike[str] | Graph | Net
    Images = npt.NDArray[Any] | Sequence[str | os.PathLike[str]] | str | os.PathLike[str]


def train(
    net: NetSpec | None = None,
    data: Any = None,
    *,
    run: str | os.PathLike[str] | None = None,
    resume: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    fit: str | None = None,
    val_fraction: float | None = None,
    test_fraction: float | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Model:
    """Train a network on images; the model with the best weights.

    net: what `lanewise.Net` takes; None: chosen for the data.
    data: "digits" (the default), a folder, an .npz, or (images, labels): uint8 (N, H, W[, C]) and
        whole numbers 0 … K−1 or strings.
    settings: epochs, batch, learning_rate, seed … : the fields of `Recipe`; the others get the
        defaults for the data.
    run: a new folder to save the training in, while it goes on; None: nothing is written.
    resume: the folder of a run to go on with instead; only `data` (if it moved or was arrays),
        `threads` and `quiet` may be given beside it.
    fit: how images of another size become the net's: "crop" (default), "pad" or "stretch".
    val_fraction, test_fraction: shares that are split off where the data brings no such split.
    threads: of the engine; the result does not depend on them, bit for bit.
    quiet: print no progress to standard error.

    NetError, SizeError, DataError, RecipeError, RunError say what was wrong. Ctrl-C saves to the
    run folder, then raises KeyboardInterrupt.
    """
    with choose(quiet) as watcher:
        if resume is None:
            job = prepare(
                Net(net) if net is not None else None,
                "digits" if data is None else data,
                fit=fit,
                val_fraction=val_fraction,
                test_fraction=test_fraction,
                settings=settings,
                watcher=watcher,
            )
            folder = create_run(run) if run is not None else None
        else:
            others = {"net": net, "run": run, "fit": fit, "val_fraction": val_fraction}
            _refuse_beside_resume({**others, "test_fraction": test_fraction, **settings})
            folder = continue_run(resume)
            job = prepare_again(folder, data, watcher=watcher)
        for line in job.header():
            watcher.tell(line)
        outcome = execute(job, folder, threads=threads, resume=resume is not None, watcher=watcher)
    if not outcome.finished:
        saved = f"state saved; go on with lanewise.train(resume={str(folder)!r})" if folder else ""
        raise KeyboardInterrupt(saved)
    return Model.of(outcome)


def load(folder: str | os.PathLike[str]) -> Model:
    """The model that a training, or `Model.save`, left in a folder; its best weights.

    RunError where the folder or one of its files is missing, damaged or of another net.
    """
    run = open_run(folder)
    record = run.read_record()
    text, graph = run.read_net(record["net"]["name"])
    run.check_net(graph, record)
    weights = run.read_weights()
    check_shapes(run.path / WEIGHTS, learned_shapes(graph), weights)
    return Model(
        net=Net.of(text, graph),
        class_names=tuple(record["class_names"]),
        preprocessing=stored_preprocessing(run, record),
        weights=weights,
        history=run.read_history(),
        record=record,
    )


@dataclass(eq=False)
class Model:
    """A trained network. Compiled when it first predicts, and then kept ready.

    net: the network as it was trained. class_names: the meaning of each output, in order.
    preprocessing: how any image becomes the net's input; the same here as in training.
    weights: name → float32 array, as in PyTorch. history: one record per epoch.
    record: the run's settings and results, as in run.json.
    """

    net: Net
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    weights: Weights = field(repr=False)
    history: tuple[EpochRecord, ...] = field(repr=False)
    record: dict[str, Any] = field(repr=False)
    threads: int | None = None
    # one for images side by side (False), one for single images (True)
    _programs: dict[bool, Program] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, outcome: Outcome) -> Model:
        """The model that a training gave."""
        job = outcome.job
        return cls(
            net=Net.of(job.choice.text, job.choice.graph),
            class_names=job.data.class_names,
            preprocessing=job.data.preprocessing,
            weights=outcome.weights,
            history=outcome.checkpoint.history,
            record=job.record,
        )

    @property
    def val_accuracy(self) -> float | None:
        """Of these weights on the validation images; None without such images."""
        return self._result("val_accuracy")

    @property
    def test_accuracy(self) -> float | None:
        """Of these weights on the test images; None without such images."""
        return self._result("test_accuracy")

    def predict(self, images: Images) -> npt.NDArray[np.str_]:
        """The label of each image: str (N,). Images as in `predict_proba`."""
        return np.array(self.class_names)[self.logits(images).argmax(axis=1)]

    def predict_proba(self, images: Images) -> npt.NDArray[np.float32]:
        """float32 (N, K): the probability of each class, in the order of `class_names`.

        images: uint8 (N, H, W) or (N, H, W, C) of any size, or paths of files and folders. They are
        brought to the net's size and colour by `preprocessing`. Floats are refused, because their
        range cannot be known: the message says how to convert. DataError for what cannot be used.
        """
        return softmax(self.logits(images))

    def logits(self, images: Images) -> npt.NDArray[np.float32]:
        """float32 (N, K): the net's raw outputs."""
        if isinstance(images, np.ndarray):
            return self.forward(self.preprocessing.batch(images))
        paths = [images] if isinstance(images, (str, os.PathLike)) else images
        return self.forward(_decoded(list_images(paths), self.preprocessing))

    def forward(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The net itself: uint8 (N, C, H, W), prepared already → float32 (N, K).

        Images are taken one after the other or side by side, whichever is quicker for so many of
        them; logits of the two ways differ by rounding only.
        """
        from lanewise.native.side_by_side import one_by_one

        single = one_by_one(self.net.graph, len(images))
        if single not in self._programs:
            self._programs[single] = self._compile(len(images))
        return self._programs[single].forward(images)

    def judge(self, split: Split) -> Scores:
        """How good the model is on labelled images."""
        logits = self.forward(split.images)
        return score(logits, split.labels, self.class_names, split.sources)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the model into a new folder, from which `load` brings it back. RunError if not."""
        run = create_run(folder)
        run.write_net(self.net.text)
        run.write_weights(self.weights, len(self.history))
        run.write_history(self.history)
        run.write_record(self.record)

    def close(self) -> None:
        """End the engine's threads; the model stays usable and compiles again when asked."""
        while self._programs:
            self._programs.popitem()[1].close()

    def __getstate__(self) -> dict[str, Any]:
        """Copies and worker processes compile their own program."""
        return {**self.__dict__, "_programs": {}}

    def _compile(self, batch: int) -> Program:
        from lanewise.native import compile_net

        # A run goes on as it began, and so do its predictions.
        recipe = self.record.get("recipe", {})
        program = compile_net(
            self.net.graph,
            threads=self.threads,
            batch=batch,
            exact=bool(recipe.get("exact", True)),
            precision=recipe.get("precision", "fp32"),
        )
        rule = self.preprocessing
        program.set_normalisation(rule.mean, rule.std)
        program.set_learned(self.weights)
        return program

    def _result(self, name: str) -> float | None:
        value: float | None = (self.record.get("result") or {}).get(name)
        return value


def _decoded(paths: list[str], rule: Preprocessing) -> npt.NDArray[np.uint8]:
    """uint8 (N, C, H, W); DataError with the path of the first image that cannot be used."""
    images: list[npt.NDArray[np.uint8]] = []
    names = iter(paths)
    for block in decoded_blocks(paths, rule):
        for outcome, path in zip(block.outcomes, names, strict=False):
            if isinstance(outcome, str):
                raise DataError(f"{path}: {outcome}")
        images.append(block.images)
    return images[0] if len(images) == 1 else np.concatenate(images)


def _refuse_beside_resume(options: dict[str, Any]) -> None:
    for name, value in options.items():
        if value is not None:
            raise RecipeError(
                f"resume: {name} cannot be given beside it, a run goes on as it began; leave it "
                "out, or train anew"
            )
