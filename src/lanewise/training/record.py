"""run.json: every setting of a run, so that anyone can tell later how it came about."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from lanewise import __version__
from lanewise.data import DataSet, Preprocessing, open_data
from lanewise.errors import DataError, RunError
from lanewise.training.choice import Choice
from lanewise.training.recipe import Recipe
from lanewise.training.run_folder import FORMAT, RECORD, RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lanewise.native import Program

# The split never depends on --seed: runs with several seeds are compared on the same images.
SPLIT_SEED = 0
_PACKAGES = ("numpy", "llvmlite", "PIL", "simplejpeg", "safetensors")


@dataclass(frozen=True)
class Source:
    """Where a data set came from and how it was divided: enough to open it again.

    spec: "digits" or an absolute path; None for arrays, which only their owner has.
    """

    spec: str | None
    val_fraction: float | None = None
    test_fraction: float | None = None

    @classmethod
    def of(
        cls, data: Any, val_fraction: float | None = None, test_fraction: float | None = None
    ) -> Source:
        """The source that the user's DATA names."""
        spec = None
        if isinstance(data, (str, os.PathLike)):
            text = os.fspath(data)
            spec = text if text == "digits" else os.path.abspath(os.path.expanduser(text))
        return cls(spec, val_fraction, test_fraction)


def new_record(
    choice: Choice, data: DataSet, source: Source, recipe: Recipe, params: int
) -> dict[str, Any]:
    """The record of a training that begins; `machine` is filled in by whoever compiles."""
    splits = {"train": data.train, "val": data.val, "test": data.test}
    return {
        "format": FORMAT,
        "lanewise": __version__,
        "status": "running",
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "net": {"name": choice.name, "params": params, "notes": list(choice.notes)},
        "data": {
            "name": data.name,
            "spec": source.spec,
            "fingerprint": data.fingerprint,
            "images": {name: len(split) if split else 0 for name, split in splits.items()},
            "split": {
                "seed": SPLIT_SEED,
                "val_fraction": source.val_fraction,
                "test_fraction": source.test_fraction,
            },
            "summary": list(data.summary),
        },
        "class_names": list(data.class_names),
        "preprocessing": data.preprocessing.to_json(),
        "skipped": {
            "count": len(data.skipped),
            "files": [{"path": item.path, "reason": item.reason} for item in data.skipped],
        },
        "recipe": recipe.to_json(),
        "machine": {},
        "result": None,
    }


def machine(program: Program) -> dict[str, Any]:
    """What the run was computed with."""
    return {
        "platform": platform.platform(),
        "target": program.target.name,
        "cpu": program.target.cpu,
        "threads": program.threads,
        "python": platform.python_version(),
        **_versions(),
    }


def reopen(
    run: RunFolder,
    record: Mapping[str, Any],
    preprocessing: Preprocessing,
    data: Any = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> DataSet:
    """The very data set of a run: from where it was, or from `data` if it was moved.

    RunError where the run was trained on arrays and none are given; DataError where the data is not
    what it was.
    """
    stored = record["data"]
    spec = stored["spec"] if data is None else data
    if spec is None:
        raise RunError(f"{run}: it was trained on arrays in memory; give the data")
    opened = open_data(
        spec,
        seed=stored["split"]["seed"],
        val_fraction=stored["split"]["val_fraction"],
        test_fraction=stored["split"]["test_fraction"],
        preprocessing=preprocessing,
        on_progress=on_progress,
    )
    if opened.fingerprint != stored["fingerprint"]:
        where = spec if isinstance(spec, (str, os.PathLike)) else "the data"
        raise DataError(
            f"{where}: not the data that {run.path / RECORD} describes (other images, labels or "
            "classes than then); bring the old data back, or train anew"
        )
    return opened


def _versions() -> dict[str, str]:
    """Of the packages that this process has used; asking for others would import them."""
    loaded = {name: sys.modules.get(name) for name in _PACKAGES}
    return {
        name: str(getattr(module, "__version__", "")) for name, module in loaded.items() if module
    }
