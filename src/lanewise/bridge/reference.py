"""What a net should compute: values and gradients from PyTorch in float64, with error bounds.

`Question` is all that decides the answer; `Reference` runs it once exactly and twice disturbed (see
`rounding.py`) and holds, for every tensor, the exact values and how far float32 may lie from them.

Tensors are called `logits` (as in inference, without dropout), `loss`, `<parameter>.grad` and
`input.grad`; gradients are those of the mean loss over the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod, sqrt
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lanewise.bridge.rounding import (
    EPSILON,
    LOUDNESS,
    MARGIN,
    STEADY,
    Noise,
    Sizes,
    Sum,
    disturbances,
)
from lanewise.bridge.torch_module import copy_weights, to_torch
from lanewise.net.graph import Graph, Node
from lanewise.net.layers import Dropout
from lanewise.size.shapes import infer_shapes

if TYPE_CHECKING:
    import torch
    from torch import nn

    Watch: TypeAlias = Callable[[str, torch.Tensor], torch.Tensor]
    Observer: TypeAlias = Callable[[], Watch]  # a new watch for every pass

Values: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Arrays: TypeAlias = dict[str, Values]


@dataclass(frozen=True)
class Question:
    """A net with its weights, images N×C×H×W as the first layer sees them, and labels N.

    `masks` are the factors of each dropout layer in training, by name. `training=False` asks for
    the logits only.
    """

    graph: Graph
    weights: Arrays
    images: Values
    labels: Values
    label_smoothing: float = 0.0
    masks: Arrays | None = None
    training: bool = True

    @property
    def batch(self) -> int:
        """The number of images."""
        return len(self.images)

    @property
    def has_dropout(self) -> bool:
        """Whether training and inference compute different values."""
        return any(isinstance(node.layer, Dropout) for node in self.graph.nodes)


@dataclass
class Tensor:
    """A result's exact values, the size by which errors are measured, the error of its own last
    summation, and how far disturbances have moved it (all absolute).

    The size is the largest value, or what a sum of that many independent terms would have if that
    is larger: a gradient that is zero only because its terms cancel is rounded all the same.
    """

    values: Values
    size: float
    summed: float
    moved: float = 0.0

    @property
    def steady(self) -> bool:
        """Whether rounding alone explains how far it moved."""
        return self.moved <= STEADY * self.size

    @property
    def tolerance(self) -> float:
        """How far float32 may be off. Rounding is in proportion to its cause and gets a margin;
        kinks, that come singly, are doubled."""
        rounding = min(self.moved, STEADY * self.size)
        return MARGIN * (self.summed + rounding) + 2 * (self.moved - rounding)


class Reference:
    """The exact answer to a question, and how far rounding moves it.

    One pair of disturbed runs, mirror images, is made at once; `shake` makes another.
    """

    def __init__(self, question: Question, seed: int = 0) -> None:
        self._question, self._seed = question, seed
        sizes = Sizes()
        exact = _run(question, lambda: sizes.watch)
        sums = _last_sums(question, sizes, exact)
        self.tensors = {
            name: _tensor(values, sums.get(name, LastSum(1, 0.0))) for name, values in exact.items()
        }
        self._expected = disturbances(
            question.graph, sizes, _weight_sizes(question), question.batch
        )
        self._shakes = 0
        self.shake()

    @property
    def steady(self) -> bool:
        """Whether no kink has been met."""
        return all(tensor.steady for tensor in self.tensors.values())

    def shake(self) -> None:
        """Two more disturbed runs: tolerances grow where they meet kinks not met before."""
        seed = self._seed + 1000 * self._shakes
        self._shakes += 1
        for sign in (1, -1):
            run = _run(self._question, Noise(self._expected, seed, sign).watch)
            for name, tensor in self.tensors.items():
                tensor.moved = max(tensor.moved, _largest(run[name] - tensor.values))


@dataclass(frozen=True)
class LastSum:
    """The summation that makes a tensor itself, which no disturbance of a node shows."""

    terms: int
    natural: float


def _tensor(values: Values, last: LastSum) -> Tensor:
    size = max(_largest(values), last.natural) or 1.0
    return Tensor(values, size, LOUDNESS * EPSILON * sqrt(last.terms) * size)


def exact_values(question: Question) -> Arrays:
    """Every tensor's exact values alone."""
    return _run(question, lambda: _unchanged)


def _unchanged(name: str, value: torch.Tensor) -> torch.Tensor:
    return value


def _largest(values: Values) -> float:
    return float(np.abs(values).max(initial=0.0))


def _run(question: Question, observer: Observer) -> Arrays:
    """One pass in float64. Where there is dropout, logits need a pass of their own, without."""
    result = {}
    if not question.training or question.has_dropout:
        result["logits"] = _values(_forward(question, observer(), None)[1])
    if not question.training:
        return result
    model, logits, images = _forward(question, observer(), question.masks)
    loss = _loss(question, logits)
    loss.backward()
    gradients = {f"{name}.grad": _values(value.grad) for name, value in model.named_parameters()}
    first = {"logits": _values(logits), "loss": _values(loss), "input.grad": _values(images.grad)}
    return first | gradients | result


def _forward(
    question: Question, watch: Watch, masks: Arrays | None
) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """(the module, its logits, the images as a leaf that takes a gradient)."""
    import torch

    mask = None if masks is None else lambda name: torch.from_numpy(masks[name]).double()
    model = to_torch(question.graph, dropout_mask=mask, watch=watch).double().eval()
    copy_weights(question.weights, model)
    images = torch.from_numpy(question.images.astype("f8")).requires_grad_(question.training)
    with torch.set_grad_enabled(question.training):
        return model, model(images), images


def _loss(question: Question, logits: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.cross_entropy(
        logits.flatten(1),
        torch.from_numpy(question.labels.astype("i8")),
        label_smoothing=question.label_smoothing,
    )


def _values(tensor: torch.Tensor | None) -> Values:
    assert tensor is not None, "every parameter of a net takes part in its result"
    return tensor.detach().numpy()


def _weight_sizes(question: Question) -> dict[str, float]:
    """Root mean square of `<node>.weight`, by node."""
    return {
        name.removesuffix(".weight"): float(np.sqrt(np.mean(np.square(values, dtype="f8"))))
        for name, values in question.weights.items()
        if name.endswith(".weight")
    }


def _last_sums(question: Question, sizes: Sizes, exact: Arrays) -> dict[str, LastSum]:
    """Of the loss (an exponential, a logarithm) and every parameter's gradient."""
    sums = {"loss": LastSum(16, 1 + _largest(exact["logits"]))}
    shapes = infer_shapes(question.graph)
    for node in question.graph.nodes if question.training else ():
        terms = question.batch * prod(shapes[node.name][1:])
        for parameter, factor in _summed_with(node, sizes):
            natural = Sum(terms, factor).natural(sizes.gradients.get(node.name, 0.0))
            sums[f"{node.name}.{parameter}.grad"] = LastSum(terms, natural)
    return sums


def _summed_with(node: Node, sizes: Sizes) -> list[tuple[str, float]]:
    """A gradient sums, over images and positions, the node's gradient times this size."""
    return [("weight", sizes.values[node.inputs[0]]), ("bias", 1.0)] if node.inputs else []
