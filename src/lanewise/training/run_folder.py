"""A run is a folder; this file says what stands in it, and reads and writes each of them.

    net.net              the network's text
    run.json             every setting: net, data, class names, preprocessing, recipe, machine,
                         versions, what was skipped, and the results
    history.jsonl        one line per finished epoch
    weights.safetensors  the best weights: highest validation accuracy, the earlier epoch on a tie
                         (without validation images: the last epoch)
    state.safetensors    the last weights, the optimizer's arrays and the position, for --resume
    report.html          the run on one page

No pickle, every write atomic. The state is written last: whatever a killed process leaves behind,
going on from the state makes everything after it again, with the same bits.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lanewise.data import Preprocessing
from lanewise.errors import DataError, LanewiseError, RunError
from lanewise.net.graph import Graph
from lanewise.net.parse import parse
from lanewise.size.shapes import infer_shapes
from lanewise.training.checkpoint import Checkpoint, EpochRecord
from lanewise.training.files import refused, remove_leftovers, write_atomically
from lanewise.training.recipe import Recipe
from lanewise.training.record_form import problem
from lanewise.training.tensors import Arrays, fill, read_tensors, write_tensors

if TYPE_CHECKING:
    from lanewise.native import Program

NET, RECORD, HISTORY = "net.net", "run.json", "history.jsonl"
WEIGHTS, STATE, REPORT = "weights.safetensors", "state.safetensors", "report.html"
FORMAT = 1
_REMEDY = "copy the run folder again from where it came, or train again"


@dataclass(frozen=True)
class RunFolder:
    """The files of one run. Every method raises RunError with the file's name and a remedy."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    # Writing ------------------------------------------------------------------------------------

    def write_net(self, text: str) -> None:
        write_atomically(self.path / NET, text.encode("utf-8"))

    def write_record(self, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # File names that are no valid text must not end a training.
        write_atomically(self.path / RECORD, text.encode("utf-8", "backslashreplace"))

    def write_history(self, history: tuple[EpochRecord, ...]) -> None:
        lines = [json.dumps(record.to_json()) + "\n" for record in history]
        write_atomically(self.path / HISTORY, "".join(lines).encode())

    def write_weights(self, weights: Arrays, epoch: int) -> None:
        write_tensors(self.path / WEIGHTS, weights, {"epoch": epoch})

    def write_report(self, page: str) -> None:
        write_atomically(self.path / REPORT, page.encode("utf-8", "backslashreplace"))

    def write_state(self, program: Program, checkpoint: Checkpoint) -> None:
        """Where the training stands; `checkpoint` and `program` must be of the same moment."""
        arrays: Arrays = {"losses": checkpoint.losses, "corrects": checkpoint.corrects}
        arrays |= {f"parameter {name}": array for name, array in program.learned.items()}
        arrays |= {f"optimizer {name}": array for name, array in program.optimizer_state.items()}
        position = {
            "epoch": checkpoint.epoch,
            "step": checkpoint.step,
            "steps_done": program.steps_done,
            "seconds": checkpoint.seconds,
            "best": checkpoint.best,
            "history": [record.to_json() for record in checkpoint.history],
        }
        write_tensors(self.path / STATE, arrays, position)

    # Reading ------------------------------------------------------------------------------------

    def read_record(self) -> dict[str, Any]:
        """run.json, checked to have every entry that `write_record` is given."""
        path = self.path / RECORD
        try:
            record = json.loads(_text(path), parse_constant=_refuse_constant)
        except ValueError as error:
            raise RunError(f"{path}: damaged ({error}); {_REMEDY}") from None
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            found = record.get("format") if isinstance(record, dict) else None
            raise RunError(
                f"{path}: format {found!r}, and this version of Lanewise reads {FORMAT}; "
                "use the version that wrote it, or train again"
            )
        wrong = problem(record)
        if wrong:
            raise RunError(f"{path}: damaged ({wrong}); {_REMEDY}")
        return record

    def read_net(self, name: str) -> tuple[str, Graph]:
        """(text, graph); the graph is called `name`."""
        path = self.path / NET
        text = _text(path)
        try:
            return text, parse(text, name)
        except LanewiseError as error:
            raise RunError(f"{path}: damaged ({error}); {_REMEDY}") from None

    def check_net(self, graph: Graph, record: Mapping[str, Any]) -> None:
        """RunError unless the net has the input and the outputs that run.json speaks of."""
        shapes = infer_shapes(graph)
        rule = record["preprocessing"]
        image = tuple(rule[side] for side in ("channels", "height", "width"))
        for what, found, wanted in (
            ("images", image, shapes[graph.nodes[0].name]),
            ("class names", len(record["class_names"]), prod(shapes[graph.output.name])),
        ):
            if found != wanted:
                raise RunError(
                    f"{self.path / RECORD}: damaged ({what}: {found}, and the net in {NET} has "
                    f"{wanted}); {_REMEDY}"
                )

    def read_history(self) -> tuple[EpochRecord, ...]:
        path = self.path / HISTORY
        try:
            return tuple(EpochRecord(**json.loads(line)) for line in _text(path).splitlines())
        except (ValueError, TypeError) as error:
            raise RunError(f"{path}: damaged ({error}); {_REMEDY}") from None

    def read_weights(self) -> Arrays:
        """The best weights, by name."""
        path = self.path / WEIGHTS
        if not path.exists() and (self.path / STATE).exists() and not self.read_history():
            raise RunError(
                f"{path}: not there yet, the training was stopped before; go on with "
                f"`lanewise train --resume {self.path}`"
            )
        return read_tensors(path)[0]

    def read_state(self, program: Program) -> Checkpoint:
        """Bring `program` to the saved state; the position that belongs to it."""
        path = self.path / STATE
        arrays, position = read_tensors(path)
        try:
            losses, corrects = arrays.pop("losses"), arrays.pop("corrects")
            checkpoint = _checkpoint(position, losses, corrects)
            steps_done = int(position["steps_done"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path}: damaged ({error}); {_REMEDY}") from None
        targets = {f"parameter {name}": array for name, array in program.learned.items()}
        targets |= {f"optimizer {name}": array for name, array in program.optimizer_state.items()}
        fill(path, targets, arrays)
        program.steps_done = steps_done
        if checkpoint.best:
            return replace(checkpoint, best_weights=self.read_weights())
        return checkpoint


def open_run(folder: str | os.PathLike[str]) -> RunFolder:
    """The run in `folder`; RunError where there is no such folder or no run in it."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        what = "not a folder" if path.exists() else "no such folder"
        raise RunError(f"{path}: {what}; give the folder of a run, as `lanewise train` printed it")
    if not (path / RECORD).exists():
        raise RunError(
            f"{path}: no {RECORD} in it, so it is not the folder of a run; give the folder that "
            "`lanewise train` printed"
        )
    return RunFolder(path)


def create_run(folder: str | os.PathLike[str]) -> RunFolder:
    """A new, empty folder for a run; RunError where something stands there already."""
    path = Path(folder).expanduser()
    if (path / RECORD).exists():
        raise RunError(
            f"{path}: holds a run already; go on with it by --resume {path}, or choose another "
            "folder"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise RunError(f"{path}: is not empty; choose a new folder")
        # Finds out now, not after an epoch, that nothing can be written there.
        write_atomically(path / ".writable", b"")
        (path / ".writable").unlink()
    except OSError as error:
        raise refused(path, error) from None
    return RunFolder(path)


def create_numbered_run(data: str, net: str) -> RunFolder:
    """runs/DATA-NET-N below the current folder, N the first free number."""
    stem = f"{_plain(data)}-{_plain(net)}"
    number = 1
    while True:
        path = Path("runs") / f"{stem}-{number}"
        try:
            path.mkdir(parents=True)
            return create_run(path)
        except FileExistsError:
            if not path.exists():  # a file stands where a folder is wanted
                raise refused(path, NotADirectoryError(20, "runs is a file")) from None
            number += 1
        except OSError as error:
            raise refused(path, error) from None


def abandon(run: RunFolder) -> None:
    """Remove the folder of a run that never began, with what this process put into it."""
    with contextlib.suppress(OSError):
        for name in (NET, HISTORY, STATE, RECORD):
            (run.path / name).unlink(missing_ok=True)
        run.path.rmdir()


def continue_run(folder: str | os.PathLike[str]) -> RunFolder:
    """The run in `folder`, cleared of what a killed process was just writing."""
    run = open_run(folder)
    remove_leftovers(run.path)
    return run


def stored_preprocessing(run: RunFolder, record: Mapping[str, Any]) -> Preprocessing:
    """The preprocessing in run.json, as a value."""
    try:
        return Preprocessing.from_json(record["preprocessing"])
    except DataError as error:
        raise RunError(f"{run.path / RECORD}: damaged ({error}); {_REMEDY}") from None


def stored_recipe(run: RunFolder, record: Mapping[str, Any]) -> Recipe:
    """The recipe in run.json, as a value."""
    try:
        return Recipe.from_json(record["recipe"])
    except (LanewiseError, TypeError) as error:
        raise RunError(f"{run.path / RECORD}: damaged ({error}); {_REMEDY}") from None


def _checkpoint(position: Any, losses: np.ndarray, corrects: np.ndarray) -> Checkpoint:
    history = tuple(EpochRecord(**values) for values in position["history"])
    checkpoint = Checkpoint(
        epoch=int(position["epoch"]),
        step=int(position["step"]),
        losses=losses,
        corrects=corrects,
        seconds=float(position["seconds"]),
        history=history,
        best=int(position["best"]),
    )
    if len(history) != checkpoint.epoch or not (
        len(losses) == len(corrects) == checkpoint.step and 0 <= checkpoint.best <= len(history)
    ):
        raise ValueError("its position does not add up")
    return checkpoint


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; {_REMEDY}") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise RunError(f"{path}: damaged (byte {error.start} is not UTF-8); {_REMEDY}") from None


def _plain(name: str) -> str:
    """A name for a folder: letters, digits, dot, dash and underscore stay."""
    kept = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)
    return kept.strip(".-") or "run"
