"""How far float32 may lie from the exact values of a net: the oracle's tolerances.

A sum of n rounded float32 terms is wrong by about ε·√n times the size such a sum typically has,
√n · rms(factor) · rms(factor). `disturbances` says so for each layer, forward and backward, from
the sizes seen in one exact (float64) run. The reference then runs again with random errors of
LOUDNESS times that size added to every value and every gradient; MARGIN times how far its results
move is how far honest float32 may be off. Nothing is guessed about depth, cancellation or
saturation: the net itself answers.

Where a value stands close to a kink (a ReLU near 0, two nearly equal values under a max pool), the
disturbed run takes the other side, and the results move far more than rounding can explain. Such a
draw of images and weights is recognised by that, and the oracle draws again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod, sqrt
from typing import TYPE_CHECKING

from lanewise.net import layers as kinds
from lanewise.net.graph import Graph
from lanewise.size.shapes import Shape, infer_shapes

if TYPE_CHECKING:
    import torch

EPSILON = 2.0**-24  # half the distance from 1 to the next float32
LOUDNESS = 2.0
MARGIN = 4.0
# Rounding moves a tensor by less than this, relative to its size; more can only come from a kink.
STEADY = 2e-4
# tanh and sigmoid are polynomials: allow them the error of a sum of this many terms.
APPROXIMATED = 64


@dataclass
class Sizes:
    """Root mean squares seen in one run: of each node's value, and of the gradient on it."""

    values: dict[str, float] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)

    def watch(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """For `to_torch(watch=…)`: note the value, and its gradient when it arrives."""
        self.values[name] = rms(value)
        if value.requires_grad:
            value.register_hook(lambda gradient: self._arrived(name, gradient))
        return value

    def _arrived(self, name: str, gradient: torch.Tensor) -> None:
        self.gradients[name] = rms(gradient)


def rms(values: torch.Tensor) -> float:
    """Root mean square."""
    return float(values.detach().square().mean().sqrt())


@dataclass(frozen=True)
class Sum:
    """A layer's arithmetic for one output value: how many terms, and the size of its weights."""

    terms: int
    weight: float = 1.0

    def error(self, size: float) -> float:
        """The rounding error that is to be expected for inputs of this root mean square."""
        return EPSILON * sqrt(self.terms) * self.natural(size)

    def natural(self, size: float) -> float:
        """The size that a sum of this many independent terms has."""
        return sqrt(self.terms) * self.weight * size


@dataclass(frozen=True)
class Arithmetic:
    """A layer forward (inputs → value) and backward (gradient of its value → of its input)."""

    forward: Sum
    backward: Sum


EXACT = Sum(0)


def _conv(layer: kinds.Conv, in_shape: Shape, weight: float) -> Arithmetic:
    taps = prod(layer.kernel)
    forward = taps * in_shape[0] // layer.groups + layer.bias
    return Arithmetic(Sum(forward, weight), Sum(taps * layer.kernels // layer.groups, weight))


def _linear(layer: kinds.Linear, in_shape: Shape, weight: float) -> Arithmetic:
    return Arithmetic(Sum(in_shape[0] + layer.bias, weight), Sum(layer.features, weight))


def _max_pool(layer: kinds.MaxPool, in_shape: Shape, weight: float) -> Arithmetic:
    return Arithmetic(EXACT, Sum(prod(layer.kernel)))


def _avg_pool(layer: kinds.AvgPool, in_shape: Shape, weight: float) -> Arithmetic:
    window = Sum(prod(layer.kernel), 1 / prod(layer.kernel))
    return Arithmetic(window, window)


def _sum_pool(layer: kinds.SumPool, in_shape: Shape, weight: float) -> Arithmetic:
    return Arithmetic(Sum(prod(layer.kernel)), Sum(prod(layer.kernel)))


def _global_avg(layer: kinds.GlobalAvg, in_shape: Shape, weight: float) -> Arithmetic:
    area = prod(in_shape[1:])
    return Arithmetic(Sum(area, 1 / area), Sum(1, 1 / area))


def _global_sum(layer: kinds.GlobalSum, in_shape: Shape, weight: float) -> Arithmetic:
    return Arithmetic(Sum(prod(in_shape[1:])), EXACT)


def _one_rounding(layer: kinds.Layer, in_shape: Shape, weight: float) -> Arithmetic:
    return Arithmetic(Sum(1), Sum(1))


def _smooth(layer: kinds.Layer, in_shape: Shape, weight: float) -> Arithmetic:
    # √(terms · terms) · ε = APPROXIMATED · ε would be too much: the weight takes one root back.
    approximated = Sum(APPROXIMATED, APPROXIMATED**-0.5)
    return Arithmetic(approximated, approximated)


def _exact(layer: kinds.Layer, in_shape: Shape, weight: float) -> Arithmetic:
    return Arithmetic(EXACT, EXACT)


# Kind → (layer, input shape, rms of its weights) → its sums.
ARITHMETIC: dict[type[kinds.Layer], Callable[..., Arithmetic]] = {
    kinds.Input: _exact,
    kinds.Conv: _conv,
    kinds.MaxPool: _max_pool,
    kinds.AvgPool: _avg_pool,
    kinds.SumPool: _sum_pool,
    kinds.GlobalMax: _exact,
    kinds.GlobalAvg: _global_avg,
    kinds.GlobalSum: _global_sum,
    kinds.Flatten: _exact,
    kinds.Linear: _linear,
    kinds.ReLU: _exact,
    kinds.LeakyReLU: _one_rounding,
    kinds.Tanh: _smooth,
    kinds.Sigmoid: _smooth,
    kinds.Dropout: _one_rounding,
}


@dataclass(frozen=True)
class Disturbances:
    """Per node, the size of the rounding error on its value and on the gradient of its value."""

    values: dict[str, float]
    gradients: dict[str, float]


def disturbances(graph: Graph, sizes: Sizes, weights: dict[str, float], batch: int) -> Disturbances:
    """Errors to expect at every node; `weights` are the rms of `<node>.weight` by node name."""
    shapes = infer_shapes(graph)
    # A softmax is rounded next to 1, whatever is left of it after the label is subtracted.
    values, gradients = {}, {graph.output.name: 4 * EPSILON / batch}
    for node in graph.nodes:
        if not node.inputs:
            continue
        source = node.inputs[0]
        rule = ARITHMETIC[type(node.layer)]
        sums = rule(node.layer, shapes[source], weights.get(node.name, 0.0))
        values[node.name] = sums.forward.error(sizes.values[source])
        error = sums.backward.error(sizes.gradients.get(node.name, 0.0))
        gradients[source] = gradients.get(source, 0.0) + error
    return Disturbances(values, gradients)


@dataclass(frozen=True)
class Noise:
    """Adds random errors of LOUDNESS times the expected size; `sign` gives the mirrored run."""

    expected: Disturbances
    seed: int
    sign: int

    def watch(self) -> Callable[[str, torch.Tensor], torch.Tensor]:
        """For `to_torch(watch=…)`. Zeros stay zeros: an exact 0 has no rounding error."""
        import torch

        generator = torch.Generator().manual_seed(self.seed)

        def disturbed(values: torch.Tensor, size: float) -> torch.Tensor:
            random = torch.rand(values.shape, generator=generator, dtype=values.dtype) * 2 - 1
            return values + self.sign * LOUDNESS * size * random * (values.detach() != 0)

        def watch(name: str, value: torch.Tensor) -> torch.Tensor:
            size = self.expected.values.get(name, 0.0)
            value = disturbed(value, size) if size else value
            arriving = self.expected.gradients.get(name, 0.0)
            if value.requires_grad and arriving:
                value.register_hook(lambda gradient: disturbed(gradient, arriving))
            return value

        return watch
