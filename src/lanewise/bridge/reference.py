"""What a net should compute: values and gradients from PyTorch in float64, with error bounds.

`Question` is all that decides the answer; `Reference` runs it once exactly and twice disturbed (see
`rounding.py`) and holds, for every tensor, the exact values and how far float32 may lie from them.

Tensors are called `logits` (as in inference: no noise, running statistics), `loss`,
`<parameter>.grad`, `input.grad`, and `bn1.running_mean` as one step of training leaves it; the loss
and the gradients, those of the mean loss over the batch, are those of training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod, sqrt
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lanewise.bridge.draft import Watch
from lanewise.bridge.halves import STEP, Rounded, rounded_nodes, rounded_parameters
from lanewise.bridge.parameter_sums import parameter_sums
from lanewise.bridge.rounding import (
    LOUDNESS,
    MARGIN,
    STEADY,
    Noise,
    Sizes,
    disturbances,
    seen,
)
from lanewise.bridge.sums import EPSILON, ROWS
from lanewise.bridge.torch_module import copy_weights, to_torch
from lanewise.net.graph import Graph
from lanewise.net.layers import NOISES, BatchNorm
from lanewise.size.shapes import infer_shapes

if TYPE_CHECKING:
    import torch
    from torch import nn

# Steps between neighbouring bf16 move a tensor by less than this, relative to its size.
BF16_STEADY = 0.1
# A new watch for every pass; the argument says whether it is one of training.
Observer: TypeAlias = Callable[[bool], Watch]
Values: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Arrays: TypeAlias = dict[str, Values]


@dataclass(frozen=True)
class Question:
    """A net with its weights, images N×C×H×W as the first layer sees them, and labels N.

    `masks` are the factors of each noise layer in training, by name; `buffers` the running
    statistics before the step. `training=False` asks for the logits only. `exact`: no convolution
    was computed by Winograd's algorithm, which rounds more. `precision`: "bf16" where maps and
    multiplied weights are rounded to that (`halves.py`). `one_by_one`: it was the program for
    single images, which rounds weights alone.
    """

    graph: Graph
    weights: Arrays
    images: Values
    labels: Values
    label_smoothing: float = 0.0
    masks: Arrays | None = None
    training: bool = True
    buffers: Arrays = field(default_factory=dict)
    exact: bool = False
    precision: str = "fp32"
    one_by_one: bool = False

    @property
    def batch(self) -> int:
        """The number of images."""
        return len(self.images)

    @property
    def differs_in_training(self) -> bool:
        """Whether training and inference compute different values."""
        return any(isinstance(node.layer, (*NOISES, BatchNorm)) for node in self.graph.nodes)

    @property
    def halved(self) -> bool:
        """Whether maps are rounded to bf16."""
        return self.precision == "bf16" and not self.one_by_one

    def rounded(self, training: bool) -> frozenset[str]:
        """The layers whose values are rounded to bf16."""
        return rounded_nodes(self.graph, training) if self.halved else frozenset()

    @property
    def multiplied(self) -> Arrays:
        """The weights as they are multiplied."""
        if self.precision == "fp32":
            return self.weights
        return rounded_parameters(self.graph, self.weights)

    @property
    def directions(self) -> tuple[bool, ...]:
        """The passes that answer it, of training (True) or inference (False)."""
        if not self.training:
            return (False,)
        return (False, True) if self.differs_in_training else (True,)


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
    steadiness: float = STEADY

    @property
    def steady(self) -> bool:
        """Whether rounding alone explains how far it moved."""
        return self.moved <= self.steadiness * self.size

    @property
    def tolerance(self) -> float:
        """How far float32 may be off. Rounding is in proportion to its cause and gets a margin;
        kinks, that come singly, are doubled."""
        rounding = min(self.moved, self.steadiness * self.size)
        return MARGIN * (self.summed + rounding) + 2 * (self.moved - rounding)


class Reference:
    """The exact answer to a question, and how far rounding moves it.

    One pair of disturbed runs, mirror images, is made at once; `shake` makes another.
    """

    def __init__(self, question: Question, seed: int = 0) -> None:
        self._question, self._seed = question, seed
        sizes = {
            training: Sizes(
                question.graph,
                {} if training else question.buffers,
                question.exact,
                question.one_by_one,
            )
            for training in question.directions
        }
        exact = _run(question, lambda training: sizes[training].watch)
        sums = _last_sums(question, sizes, exact)
        self.tensors = {
            name: _tensor(
                values, sums.get(name, LastSum(1, 0.0)), BF16_STEADY if question.halved else STEADY
            )
            for name, values in exact.items()
        }
        self._expected = {
            training: disturbances(question.graph, found, _weight_sizes(question), question.batch)
            for training, found in sizes.items()
        }
        self._shakes = 0
        self.shake()

    @property
    def steady(self) -> bool:
        """Whether no kink has been met; steps between neighbouring bf16 meet them in every draw."""
        return self._question.halved or all(tensor.steady for tensor in self.tensors.values())

    def shake(self) -> None:
        """Two more disturbed runs: tolerances grow where they meet kinks not met before."""
        seed = self._seed + 1000 * self._shakes
        self._shakes += 1
        for sign in (1, -1):
            run = _run(self._question, self._noisy(seed, sign))
            for name, tensor in self.tensors.items():
                tensor.moved = max(tensor.moved, _largest(run[name] - tensor.values))
        if self._question.halved and "loss" in self.tensors:
            # A single number stays where it is by chance, a few steps here or there.
            loss = self.tensors["loss"]
            loss.moved = max(loss.moved, self.tensors["logits"].moved)

    def _noisy(self, seed: int, sign: int) -> Observer:
        return lambda training: Noise(
            self._expected[training], seed, sign, self._question.rounded(training), STEP
        ).watch()


@dataclass(frozen=True)
class LastSum:
    """The summation that makes a tensor itself, which no disturbance of a node shows."""

    terms: int
    natural: float


def _tensor(values: Values, last: LastSum, steadiness: float) -> Tensor:
    size = max(_largest(values), last.natural) or 1.0
    summed = LOUDNESS * EPSILON * sqrt(last.terms) * size
    return Tensor(values, size, summed, steadiness=steadiness)


def exact_values(question: Question) -> Arrays:
    """Every tensor's exact values alone."""
    return _run(question, lambda training: lambda name, value: value)


def _largest(values: Values) -> float:
    return float(np.abs(values).max(initial=0.0))


def _run(question: Question, observer: Observer) -> Arrays:
    """One pass in float64; where inference differs from training, logits need one of their own."""
    result: Arrays = {}
    if False in question.directions:
        result["logits"] = _values(_forward(question, observer(False), False)[1])
    if not question.training:
        return result
    model, logits, images = _forward(question, observer(True), True)
    loss = _loss(question, logits)
    loss.backward()
    first = {"logits": _values(logits), "loss": _values(loss), "input.grad": _values(images.grad)}
    gradients = {f"{name}.grad": _values(value.grad) for name, value in model.named_parameters()}
    return first | gradients | _running(model) | result


def _running(model: nn.Module) -> Arrays:
    """The running statistics, as they are now."""
    return {
        name: _values(value).copy()
        for name, value in model.state_dict().items()
        if name.endswith((".running_mean", ".running_var"))
    }


def _forward(
    question: Question, watch: Watch, training: bool
) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """(the module, its logits, the images as a leaf that takes a gradient)."""
    import torch

    masks = question.masks if training else None
    mask = None if masks is None else lambda name: torch.from_numpy(masks[name]).double()
    watch = Rounded(rounded, watch) if (rounded := question.rounded(training)) else watch
    model = to_torch(question.graph, dropout_mask=mask, watch=watch).double().train(training)
    copy_weights(question.multiplied | _buffers(question, model), model)
    images = torch.from_numpy(question.images.astype("f8")).requires_grad_(question.training)
    with torch.set_grad_enabled(question.training):
        return model, model(images), images


def _buffers(question: Question, model: nn.Module) -> Arrays:
    """Those of the question; torch's fresh ones where it gives none."""
    return _running(model) | question.buffers


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


def _last_sums(question: Question, sizes: dict[bool, Sizes], exact: Arrays) -> dict[str, LastSum]:
    """Of the loss (an exponential, a logarithm), every parameter's gradient, running statistics."""
    sums = {"loss": LastSum(16, 1 + _largest(exact["logits"]))}
    if not question.training:
        return sums
    shapes, found = infer_shapes(question.graph), sizes[True]
    for node in question.graph.nodes:
        arriving = found.gradients.get(node.name, 0.0)
        known = seen(node, shapes, found, {})
        for parameter, total in parameter_sums(node.layer, known, question.batch).items():
            natural = float(total.natural(arriving))
            sums[f"{node.name}.{parameter}.grad"] = LastSum(total.terms, natural)
        if isinstance(node.layer, BatchNorm):
            terms = prod(known.shape[1:]) + question.batch // ROWS
            for which in ("mean", "var"):
                name = f"{node.name}.running_{which}"
                before = question.buffers.get(name, np.zeros(()))
                kept = (1 - node.layer.momentum) * _largest(before)
                sums[name] = LastSum(terms, kept)
    return sums
