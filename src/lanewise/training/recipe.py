"""Every setting of a training as one value, and the defaults for the data at hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from lanewise.errors import LanewiseError
from lanewise.native.precisions import PRECISIONS
from lanewise.training.schedule import SCHEDULES

if TYPE_CHECKING:
    from lanewise.native.optimizers import Optimizer

OPTIMIZERS = ("sgd", "adamw")
_LARGEST_SEED = 2**63 - 1


class RecipeError(LanewiseError, ValueError):
    """A setting of a training has an impossible value."""


@dataclass(frozen=True)
class Recipe:
    """How a net is trained. Two trainings with equal recipes, nets and data give equal bits.

    learning_rate: the highest of the schedule ("constant", "cosine", "one-cycle"; `schedule.py`).
    warm_up: the share of all steps in which the rate rises to it.
    optimizer: "sgd" (momentum, nesterov) or "adamw" (betas, epsilon); weight_decay is for both:
        an L2 term of the gradient for sgd, decoupled for adamw, as in PyTorch.
    smoothing: label smoothing, 0 … 1.
    seed: of the initial weights, the order of the images and dropout.
    exact: no convolution by Winograd's algorithm, which is quicker and rounds more.
    precision: "fp32", or "bf16" for maps and multiplied weights; what is learned stays fp32.
    """

    epochs: int = 5
    batch: int = 128
    learning_rate: float = 0.1
    schedule: str = "one-cycle"
    warm_up: float = 0.3
    optimizer: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 5e-4
    smoothing: float = 0.0
    seed: int = 0
    exact: bool = False
    precision: str = "fp32"

    def __post_init__(self) -> None:
        for name, good, wanted in _RULES:
            value = getattr(self, name)
            if not _holds(good, value):
                raise RecipeError(f"{name.replace('_', ' ')} is {value!r}; use {wanted}")
        if self.nesterov and self.optimizer == "sgd" and self.momentum == 0:
            object.__setattr__(self, "nesterov", False)

    def steps_per_epoch(self, images: int) -> int:
        """How many updates one pass over the images takes; the last batch may be short."""
        return -(-images // self.batch)

    def engine_optimizer(self) -> Optimizer:
        """The engine's own record of the optimizer."""
        from lanewise.native.optimizers import SGD, AdamW

        if self.optimizer == "sgd":
            return SGD(self.momentum, self.nesterov, self.weight_decay)
        return AdamW(self.betas, self.epsilon, self.weight_decay)

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` gives the equal recipe back."""
        return {**asdict(self), "betas": list(self.betas)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Recipe:
        """The recipe that `to_json` wrote. RecipeError for missing, unknown or bad values.

        Where nothing is said of `exact` or `precision`, the run began when there was no other way.
        """
        if isinstance(values, dict):
            values = {"exact": True, "precision": "fp32", **values}
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            found = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise RecipeError(f"recipe: found {found}; wanted {sorted(names)}")
        return cls(**{**values, "betas": tuple(values["betas"])})

    def __str__(self) -> str:
        how = {
            "sgd": f"SGD momentum {self.momentum:g}" + (" Nesterov" if self.nesterov else ""),
            "adamw": "AdamW",
        }[self.optimizer]
        parts = [
            f"{self.epochs} {'epoch' if self.epochs == 1 else 'epochs'}",
            f"batch {self.batch}",
            f"{how}, decay {self.weight_decay:g}",
            f"{self.schedule} to {self.learning_rate:g}",
            *([f"smoothing {self.smoothing:g}"] if self.smoothing else []),
            f"seed {self.seed}",
            *(["exact"] if self.exact else []),
            *([self.precision] if self.precision != "fp32" else []),
        ]
        return ", ".join(parts)


def _whole(low: int, high: int) -> Any:
    return lambda value: (
        isinstance(value, int) and not isinstance(value, bool) and (low <= value <= high)
    )


def _number(low: float, high: float, *, above: bool = False) -> Any:
    """A finite number from `low` (or above it) to `high`."""
    return lambda value: (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (low < value if above else low <= value)
        and value <= high
    )


# Field → (what holds, what to use instead), in the order in which they are checked.
_RULES: tuple[tuple[str, Any, str], ...] = (
    ("epochs", _whole(1, 10**6), "a whole number, 1 to 1000000"),
    ("batch", _whole(1, 10**6), "a whole number, 1 to 1000000, such as 128"),
    ("learning_rate", _number(0, 1e3, above=True), "a number above 0, at most 1000, such as 0.1"),
    ("schedule", SCHEDULES.__contains__, " or ".join(SCHEDULES)),
    ("warm_up", _number(0, 1), "a share of all steps, 0 to 1"),
    ("optimizer", OPTIMIZERS.__contains__, " or ".join(OPTIMIZERS)),
    ("momentum", lambda value: _number(0, 1)(value) and value < 1, "0 to below 1, such as 0.9"),
    ("nesterov", lambda value: isinstance(value, bool), "True or False"),
    (
        "betas",
        lambda value: len(value) == 2 and all(0 <= beta < 1 for beta in value),
        "two numbers from 0 to below 1, such as (0.9, 0.999)",
    ),
    ("epsilon", _number(0, 1, above=True), "a small number above 0, such as 1e-8"),
    ("weight_decay", _number(0, 1e3), "0 to 1000, such as 0.0005"),
    ("smoothing", lambda value: _number(0, 1)(value) and value < 1, "0 to below 1, such as 0.1"),
    ("seed", _whole(0, _LARGEST_SEED), f"a whole number, 0 to {_LARGEST_SEED}"),
    ("exact", lambda value: isinstance(value, bool), "True or False"),
    ("precision", PRECISIONS.__contains__, " or ".join(PRECISIONS)),
)


def _holds(rule: Any, value: Any) -> bool:
    try:
        return bool(rule(value))
    except TypeError:
        return False


@dataclass(frozen=True)
class Task:
    """What the defaults depend on: the training images and their channels, the network's layers
    with weights, and its parameters.

    pairs: a batch must not be a single image, which has no variance for a batch normalisation.
    normed: its layers are normalised, so that large ones bear larger learning rates.
    radial: the net ends in `rbf`, whose squared distances pass back tenfold gradients.
    """

    images: int
    channels: int
    layers: int
    params: int
    pairs: bool = False
    normed: bool = False
    radial: bool = False

    @property
    def easy(self) -> bool:
        """Gray images and a shallow net, which plain SGD trains fastest; anything else starts
        sooner and more surely with AdamW, with normalisation layers and without."""
        return self.channels == 1 and self.layers <= 5


def choose_recipe(task: Task, given: Mapping[str, Any]) -> Recipe:
    """The defaults for `task`, with the settings in `given` (None: not given) instead.

    RecipeError for an unknown or impossible one.
    """
    settings = check_settings(given)
    optimizer = settings.get("optimizer", "sgd" if task.easy else "adamw")
    batch = settings.get("batch", _batch(task))
    defaults = {
        "epochs": _epochs(task),
        "batch": batch,
        "optimizer": optimizer,
        "learning_rate": _learning_rate(task, optimizer, batch),
        "weight_decay": 5e-4 if optimizer == "sgd" else 0.01,
    }
    return Recipe(**{**defaults, **settings})


def check_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not None; RecipeError for an unknown or impossible one."""
    settings = {name: value for name, value in given.items() if value is not None}
    known = [field.name for field in fields(Recipe)]
    for name in settings:
        if name not in known:
            raise RecipeError(f"no setting is called {name}; there are {', '.join(known)}")
    Recipe(**settings)
    return settings


def _batch(task: Task) -> int:
    """Small data sets get smaller batches, so that an epoch has enough steps to learn from."""
    size = 128 if task.images >= 8_000 else 64 if task.images >= 2_000 else 32
    while task.pairs and size > 2 and task.images % size == 1:
        size -= 1
    return size


def _epochs(task: Task) -> int:
    """As many passes as show the net a fair number of images."""
    shown = 220_000 if task.easy else 600_000
    return min(30, max(4, round(shown / max(1, task.images))))


def _learning_rate(task: Task, optimizer: str, batch: int) -> float:
    """For SGD with the root of the batch, up to where it becomes unstable; for AdamW by size."""
    if optimizer == "sgd":
        best = (0.1 if task.easy else 0.05) / (10 if task.radial else 1)
        return round(best * min(1.5, math.sqrt(batch / 128)), 4)
    if task.params < 2_000_000:
        return 2e-3
    return 1e-3 if task.normed else 3e-4
