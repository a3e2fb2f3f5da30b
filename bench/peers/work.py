"""What a served contender is given, and what it hands back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lanewise.net.graph import Graph
from lanewise.net.layers import Layer
from lanewise.net.parse import parse
from lanewise.size.shapes import Shape, infer_shapes

Arrays = Mapping[str, np.ndarray]
Kind = Literal["training", "inference"]


class Unsupported(Exception):
    """This contender has no rule for something in the network."""


@dataclass(frozen=True)
class Work:
    """A network with its weights, and finished float32 batches N×C×H×W with their labels."""

    kind: Kind
    graph: Graph
    weights: Arrays
    batches: list[tuple[np.ndarray, np.ndarray]]
    threads: int
    first_rate: float  # of the step that is compared
    rate: float  # of those that are timed
    momentum: float
    folder: Path  # with model.onnx where there is one
    options: Mapping[str, Any] = field(default_factory=dict)  # of this contender's setting

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Name of each layer → channels × height × width, or features."""
        return infer_shapes(self.graph)

    @property
    def images(self) -> np.ndarray:
        """The first batch."""
        return self.batches[0][0]


@dataclass(frozen=True)
class Ready:
    """What it computed first, and `run(n)`, which does the work n times.

    `outcome`: `logits` of an inference; of a training step `loss` and, under our names, the weights
    and running statistics it left.
    """

    outcome: Arrays
    run: Callable[[int], None]


Rule = Callable[..., Any]


def rule_for(rules: Mapping[type[Layer], Rule], layer: Layer, who: str) -> Rule:
    """The rule of a layer's kind; Unsupported where there is none."""
    if type(layer) not in rules:
        raise Unsupported(f"{who} has no rule for `{layer.word}` here")
    return rules[type(layer)]


# ---- through files ------------------------------------------------------------------------------

ARRAYS = "arrays.npz"
FIELDS = ("kind", "threads", "first_rate", "rate", "momentum", "options")


def store_arrays(work: Work, file: Path) -> None:
    """Weights and batches."""
    arrays = {f"weights/{name}": value for name, value in work.weights.items()}
    for number, (images, labels) in enumerate(work.batches):
        arrays |= {f"images/{number}": images, f"labels/{number}": labels}
    np.savez(file, **arrays)  # type: ignore[arg-type]


def store_work(work: Work, text: str) -> None:
    """All but the arrays into its folder; `text` is the network's."""
    told = {name: getattr(work, name) for name in FIELDS} | {"net": text}
    (work.folder / "work.json").write_text(json.dumps(told), encoding="utf-8")


def read(folder: Path) -> Work:
    """What was stored there."""
    told = json.loads((folder / "work.json").read_text(encoding="utf-8"))
    with np.load(folder / ARRAYS) as arrays:
        weights = {
            name.partition("/")[2]: arrays[name] for name in arrays if name.startswith("weights/")
        }
        count = sum(name.startswith("images/") for name in arrays)
        batches = [(arrays[f"images/{i}"], arrays[f"labels/{i}"]) for i in range(count)]
    graph = parse(told.pop("net"), "net")
    return Work(graph=graph, weights=weights, batches=batches, folder=folder, **told)
