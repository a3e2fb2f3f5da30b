"""How far float32 may lie from the exact values of a net: the oracle's tolerances.

`disturbances` asks the arithmetic of each layer (`sums.py`), forward and backward, for the rounding
errors to expect at the sizes seen in one exact (float64) run. The reference then runs again with
random errors of LOUDNESS times that size added to every value and every gradient; MARGIN times how
far its results move is how far honest float32 may be off. Nothing is guessed about depth,
cancellation or saturation: the net itself answers.

Where a value stands close to a kink (a ReLU near 0, two nearly equal values under a max pool), the
disturbed run takes the other side, and the results move far more than rounding can explain. Such a
draw of images and weights is recognised by that, and the oracle draws again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod, sqrt
from typing import TYPE_CHECKING, Any

from lanewise.bridge.sums import ARITHMETIC, EPSILON, Amount, Seen, Statistic, rms
from lanewise.net import layers as kinds
from lanewise.net.graph import Graph, Node
from lanewise.size.shapes import Shape, infer_shapes

if TYPE_CHECKING:
    import torch

LOUDNESS = 2.0
MARGIN = 4.0
# Rounding moves a tensor by less than this, relative to its size; more can only come from a kink.
STEADY = 2e-4


@dataclass
class Sizes:
    """Root mean squares seen in one run: of each node's value, and of the gradient on it.

    `buffers`: the running statistics that batch normalisation uses, empty where it uses those of
    the batch. `exact`: no convolution is computed by Winograd's algorithm. `one_by_one`: by the
    program for single images, which has its own choice.
    """

    graph: Graph
    buffers: dict[str, Any] = field(default_factory=dict)
    exact: bool = False
    one_by_one: bool = False
    values: dict[str, float] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)
    statistics: dict[str, Statistic] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._norms: dict[str, list[Node]] = {}
        self._normalised: dict[str, torch.Tensor] = {}
        for node in self.graph.nodes:
            if type(node.layer) in STATISTICS:
                self._norms.setdefault(node.inputs[0], []).append(node)

    def watch(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """For `to_torch(watch=…)`: note the value, and its gradient when it arrives."""
        self.values[name] = rms(value.detach())
        for node in self._norms.get(name, ()):
            rule = STATISTICS[type(node.layer)]
            self.statistics[node.name] = rule(node, value.detach(), self.buffers)
            self._normalised[node.name] = value.detach()
        if value.requires_grad:
            value.register_hook(lambda gradient: self._arrived(name, gradient))
        return value

    def _arrived(self, name: str, gradient: torch.Tensor) -> None:
        self.gradients[name] = rms(gradient)
        found = self.statistics.get(name)
        if found is not None:
            pull = _pull(self._normalised.pop(name), found, gradient)
            self.statistics[name] = replace(found, pull=pull)


# ---- what norms divide by -----------------------------------------------------------------------


def _of_batch(node: Node, value: torch.Tensor, buffers: dict[str, Any]) -> Statistic:
    """One for each channel."""
    import torch

    layer = node.layer
    assert isinstance(layer, kinds.BatchNorm)
    others = (0, *range(2, value.dim()))
    square = value.square().mean(others, keepdim=True)
    together = min(len(value), layer.ghost or len(value))
    if buffers:
        mean, variance = (
            torch.from_numpy(buffers[f"{node.name}.running_{which}"]).reshape(square.shape)
            for which in ("mean", "var")
        )
        square = square + mean.square()
    else:
        parts = value.split(together)
        found = torch.stack([part.var(others, unbiased=False, keepdim=True) for part in parts])
        variance = 1 / (1 / (found + layer.eps)).mean(0) - layer.eps
    return _statistic(square, variance + layer.eps, together * prod(value.shape[2:]))


def _of_pixels(node: Node, value: torch.Tensor, buffers: dict[str, Any]) -> Statistic:
    """One for each pixel of each image."""
    assert isinstance(node.layer, kinds.LayerNorm)
    variance = value.var(1, unbiased=False, keepdim=True) + node.layer.eps
    return _statistic(value.square().mean(1, keepdim=True), variance, value.shape[1])


def _of_groups(node: Node, value: torch.Tensor, buffers: dict[str, Any]) -> Statistic:
    """One for each group of channels of each image, repeated for its channels."""
    layer = node.layer
    assert isinstance(layer, kinds.GroupNorm)
    groups = value.reshape(len(value), layer.groups, -1)
    members = value.shape[1] // layer.groups

    def spread(values: torch.Tensor) -> torch.Tensor:
        along = values.repeat_interleave(members, dim=1)
        return along.reshape(len(value), -1, *[1] * (value.dim() - 2))

    variance = groups.var(-1, unbiased=False) + layer.eps
    return _statistic(spread(groups.square().mean(-1)), spread(variance), groups.shape[-1])


def _statistic(square: torch.Tensor, variance: torch.Tensor, terms: int) -> Statistic:
    gain = variance.rsqrt()
    return Statistic(gain, square.sqrt() * gain, terms)


def _pull(value: torch.Tensor, found: Statistic, gradient: torch.Tensor) -> Amount:
    """mean(dy · x̂) / rms(dy), over the axes that a statistic stands for (of a group norm, over a
    channel's)."""
    assert not isinstance(found.gain, float)
    axes = [axis for axis, size in enumerate(found.gain.shape) if size == 1]
    size = rms(gradient)
    if not axes or not size:
        return 0.0
    centred = (value - value.mean(axes, keepdim=True)) * found.gain
    return (centred * gradient).mean(axes, keepdim=True) / size


STATISTICS: dict[type[kinds.Layer], Callable[..., Statistic]] = {
    kinds.BatchNorm: _of_batch,
    kinds.LayerNorm: _of_pixels,
    kinds.GroupNorm: _of_groups,
}


# ---- errors to expect ---------------------------------------------------------------------------


@dataclass
class Error:
    """The size of a rounding error: of each value on its own, and of what values share.

    The second has one number for each group of values that share it.
    """

    own: Amount = 0.0
    shared: Amount = 0.0

    def grow(self, own: Amount, shared: Amount = 0.0) -> None:
        """More errors on the same value."""
        self.own, self.shared = self.own + own, self.shared + shared


@dataclass(frozen=True)
class Disturbances:
    """Per node, the rounding error on its value and on the gradient of its value."""

    values: dict[str, Error]
    gradients: dict[str, Error]


def disturbances(graph: Graph, sizes: Sizes, weights: dict[str, float], batch: int) -> Disturbances:
    """Errors to expect at every node; `weights` are the rms of `<node>.weight` by node name."""
    shapes = infer_shapes(graph)
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    values = {node.name: Error() for node in graph.nodes}
    gradients = {node.name: Error() for node in graph.nodes}
    # A softmax is rounded next to 1, whatever is left of it after the label is subtracted.
    gradients[graph.output.name].grow(4 * EPSILON / batch)
    for node in graph.nodes:
        sums = ARITHMETIC[type(node.layer)](node.layer, seen(node, shapes, sizes, weights))
        values[node.name].grow(sums.forward, sums.shared)
        size = sizes.gradients.get(node.name, 0.0)
        for source, backward in zip(node.inputs, sums.backward, strict=True):
            gradients[source].grow(backward.error(size), sums.shared_back.error(size))
        # Each further reader adds its gradient to what is there.
        additions = max(0, readers[node.name] - 1)
        gradients[node.name].grow(EPSILON * sqrt(additions) * size)
    return Disturbances(values, gradients)


def seen(node: Node, shapes: dict[str, Shape], sizes: Sizes, weights: dict[str, float]) -> Seen:
    """What the exact run tells about a node."""
    return Seen(
        tuple(shapes[name] for name in node.inputs),
        shapes[node.name],
        tuple(sizes.values[name] for name in node.inputs),
        sizes.values[node.name],
        weights.get(node.name, 0.0),
        sizes.statistics.get(node.name),
        sizes.exact,
        sizes.one_by_one,
    )


@dataclass(frozen=True)
class Noise:
    """Adds random errors of LOUDNESS times the expected size; `sign` gives the mirrored run. Values
    and gradients of the layers `stepping` get `step` of their own size on top."""

    expected: Disturbances
    seed: int
    sign: int
    stepping: frozenset[str] = frozenset()
    step: float = 0.0

    def watch(self) -> Callable[[str, torch.Tensor], torch.Tensor]:
        """For `to_torch(watch=…)`. Zeros stay zeros: an exact 0 has no rounding error."""
        import torch

        generator = torch.Generator().manual_seed(self.seed)

        def random(values: torch.Tensor, size: Amount, shape: torch.Size) -> torch.Tensor:
            uniform = torch.rand(shape, generator=generator, dtype=values.dtype) * 2 - 1
            return self.sign * LOUDNESS * size * uniform

        def disturbed(values: torch.Tensor, error: Error, steps: bool) -> torch.Tensor:
            noise = random(values, error.own, values.shape)
            if steps:
                noise = noise + random(values, self.step / LOUDNESS, values.shape) * values
            if isinstance(error.shared, torch.Tensor):
                noise = noise + random(values, error.shared, error.shared.shape)
            return values + noise * (values.detach() != 0)

        def watch(name: str, value: torch.Tensor) -> torch.Tensor:
            error, arriving = self.expected.values[name], self.expected.gradients[name]
            steps = name in self.stepping
            value = disturbed(value, error, steps) if steps or _some(error) else value
            if value.requires_grad and (steps or _some(arriving)):
                value.register_hook(lambda gradient: disturbed(gradient, arriving, steps))
            return value

        return watch


def _some(error: Error) -> bool:
    return not (isinstance(error.own, float) and error.own == 0.0)
