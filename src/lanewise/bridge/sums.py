"""The arithmetic of every layer, as sums: how wrong honest float32 may be.

A sum of n rounded float32 terms is wrong by about ε·√n times the size such a sum typically has,
√n · rms(factor) · rms(factor). `ARITHMETIC` says for each kind of layer which sums make its value
and the gradients of its inputs; `parameter_sums.py` which make the gradients of its parameters.

A statistic of many values (a mean, a variance) is wrong in one way for all that are normalised by
it. So an error has two parts: one that differs from value to value, and one that is shared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import hypot, prod, sqrt
from typing import TYPE_CHECKING, Any, TypeAlias

from lanewise.native.algorithms import chosen
from lanewise.native.kernels.winograd_transforms import Algorithm
from lanewise.native.latency.winograd import cheapest
from lanewise.net import layers as kinds
from lanewise.size.shapes import Shape, resolve_window

if TYPE_CHECKING:
    import torch

# A number, or one for each channel, group or pixel, in a shape that fits the value.
Amount: TypeAlias = "float | torch.Tensor"

EPSILON = 2.0**-24  # half the distance from 1 to the next float32
# Exponentials, roots and powers are polynomials: allow them the error of a sum of so many terms.
APPROXIMATED = 64
# Winograd's transforms of both factors and of the result, in two dimensions.
TRANSFORMS = 16
# A handful of operations on one value.
FEW = 8
# Statistics are summed in several rows at once (lanes, accumulators), each this much shorter.
ROWS = 16


@dataclass(frozen=True)
class Sum:
    """A layer's arithmetic for one output value: how many terms, and the size of its weights."""

    terms: int
    weight: Amount = 1.0

    def error(self, size: Amount) -> Amount:
        """The rounding error that is to be expected for inputs of this root mean square."""
        return EPSILON * sqrt(self.terms) * self.natural(size)

    def natural(self, size: Amount) -> Amount:
        """The size that a sum of this many independent terms has."""
        return sqrt(self.terms) * self.weight * size


def rms(amount: Amount) -> float:
    """Root mean square."""
    return amount if isinstance(amount, float) else float(amount.square().mean().sqrt())


EXACT = Sum(0)


def rounded(operations: int, weight: Amount = 1.0) -> Sum:
    """So many roundings in a row of something that has the size of its input × weight."""
    return Sum(operations, operations**-0.5 * weight)


@dataclass(frozen=True)
class Statistic:
    """What a norm divides by: 1 / deviation, and the size of the values (mean included) times
    that; `terms` values were summed for each. `pull`: the mean of dy · x̂, relative to dy's size."""

    gain: Amount
    reach: Amount
    terms: int
    pull: Amount = 0.0


@dataclass(frozen=True)
class Seen:
    """What a rule may ask: shapes, and root mean squares of one exact run."""

    in_shapes: tuple[Shape, ...]
    shape: Shape
    sizes: tuple[float, ...]  # of the inputs
    value: float
    weight: float = 0.0
    statistic: Statistic | None = None
    exact: bool = False
    one_by_one: bool = False


@dataclass(frozen=True)
class Arithmetic:
    """The error of a value, and the sums that take the gradient on it to each of its inputs.

    `shared` and `shared_back` are what all values of one statistic have in common.
    """

    forward: Amount
    backward: tuple[Sum, ...]
    shared: Amount = 0.0
    shared_back: Sum = EXACT


def _one(seen: Seen, forward: Sum, backward: Sum) -> Arithmetic:
    return Arithmetic(forward.error(seen.sizes[0]), (backward,))


def _exact(layer: kinds.Layer, seen: Seen) -> Arithmetic:
    return Arithmetic(0.0, (EXACT,) * len(seen.in_shapes))


# ---- convolutions and full connections ----------------------------------------------------------


def _conv(layer: kinds.Conv, seen: Seen) -> Arithmetic:
    taps = prod(layer.kernel)
    sources, kernels = seen.in_shapes[0][0] // layer.groups, layer.kernels // layer.groups
    forward, backward = (
        _winograd(algorithm, terms, seen.weight) if algorithm else Sum(taps * terms, seen.weight)
        for terms, algorithm in (
            (sources + layer.bias, _algorithm(layer, seen, forward=True)),
            (kernels, _algorithm(layer, seen, forward=False)),
        )
    )
    return _one(seen, forward, backward)


def _algorithm(layer: kinds.Conv, seen: Seen, forward: bool) -> Algorithm | None:
    """Which of Winograd's algorithms the engine takes for this direction."""
    if seen.exact:
        return None
    if seen.one_by_one and forward:
        return cheapest(layer, seen.in_shapes[0], seen.shape)
    return chosen(layer, seen.in_shapes[0], forward)


def _winograd(algorithm: Algorithm, terms: int, weight: Amount) -> Sum:
    """A sum over maps at every point, of larger numbers than the direct sum's: `growth` tells how
    much larger. To and from the points there are some more roundings."""
    return Sum(terms + TRANSFORMS, weight * algorithm.growth)


def _depthwise(layer: kinds.DepthwiseConv, seen: Seen) -> Arithmetic:
    taps = prod(layer.kernel)
    backward = Sum(taps * layer.multiplier, seen.weight)
    return _one(seen, Sum(taps + layer.bias, seen.weight), backward)


def _partial(layer: kinds.PartialConv, seen: Seen) -> Arithmetic:
    taps = prod(layer.kernel)
    widest = max(map(len, layer.table))
    readers = max(sum(row.count(i) for row in layer.table) for i in range(seen.in_shapes[0][0]))
    forward = Sum(taps * widest + layer.bias, seen.weight)
    return _one(seen, forward, Sum(taps * readers, seen.weight))


def _transposed(layer: kinds.TransposedConv, seen: Seen) -> Arithmetic:
    """An output value meets one tap in every `stride`."""
    met = prod(_steps(layer.kernel, layer.stride))
    forward = Sum(met * seen.in_shapes[0][0] // layer.groups + layer.bias, seen.weight)
    backward = Sum(prod(layer.kernel) * layer.kernels // layer.groups, seen.weight)
    return _one(seen, forward, backward)


def _steps(kernel: kinds.Pair, stride: kinds.Pair) -> tuple[int, ...]:
    return tuple(-(-k // s) for k, s in zip(kernel, stride, strict=True))


def _linear(layer: kinds.Linear, seen: Seen) -> Arithmetic:
    forward = Sum(seen.in_shapes[0][0] + layer.bias, seen.weight)
    return _one(seen, forward, Sum(layer.features, seen.weight))


def _radial(layer: kinds.RadialBasis, seen: Seen) -> Arithmetic:
    """Sums of (x ∓ 1)², all positive, and of their derivatives 2 (x ∓ 1)."""
    apart, terms = hypot(1.0, seen.sizes[0]), seen.in_shapes[0][0]
    forward = rounded(terms, terms).error(apart**2)
    return Arithmetic(forward, (Sum(layer.features, 2 * apart),))


# ---- pools --------------------------------------------------------------------------------------


def _max_pool(layer: kinds.MaxPool, seen: Seen) -> Arithmetic:
    return _one(seen, EXACT, Sum(prod(layer.kernel)))


def _avg_pool(layer: kinds.AvgPool, seen: Seen) -> Arithmetic:
    """A window at the border divides by less: by the values it has."""
    axes = resolve_window(layer, seen.in_shapes[0]).axes
    least = prod(min(axis.counted(layer.unpadded)) for axis in axes)
    window = Sum(prod(layer.kernel), 1 / least)
    return _one(seen, window, window)


def _sum_pool(layer: kinds.SumPool, seen: Seen) -> Arithmetic:
    return _one(seen, Sum(prod(layer.kernel)), Sum(prod(layer.kernel)))


def _l2_pool(layer: kinds.L2Pool, seen: Seen) -> Arithmetic:
    """A root halves the relative error of the sum of squares; the gradient is dy · x / y."""
    window = prod(layer.kernel)
    overlapping = prod(_steps(layer.kernel, layer.stride))
    return _one(seen, Sum(window), Sum(window + overlapping, window**-0.5))


def _subsample(layer: kinds.Subsample, seen: Seen) -> Arithmetic:
    window = prod(layer.kernel)
    overlapping = prod(_steps(layer.kernel, layer.stride))
    return _one(seen, Sum(window + 1, seen.weight), Sum(overlapping, seen.weight))


def _adaptive_max(layer: kinds.AdaptiveMax, seen: Seen) -> Arithmetic:
    return _one(seen, EXACT, Sum(4))


def _adaptive_avg(layer: kinds.AdaptiveAvg, seen: Seen) -> Arithmetic:
    """Windows are up to two positions longer than the quotient, and overlap by as much."""
    axes = list(zip(seen.in_shapes[0][1:], layer.size, strict=True))
    area, least = prod(n // size + 2 for n, size in axes), prod(-(-n // size) for n, size in axes)
    overlapping = prod(-(-size // n) + 1 for n, size in axes)
    return _one(seen, Sum(area, 1 / least), Sum(overlapping, 1 / least))


def _global_avg(layer: kinds.GlobalAvg, seen: Seen) -> Arithmetic:
    area = prod(seen.in_shapes[0][1:])
    return _one(seen, Sum(area, 1 / area), Sum(1, 1 / area))


def _global_sum(layer: kinds.GlobalSum, seen: Seen) -> Arithmetic:
    return _one(seen, Sum(prod(seen.in_shapes[0][1:])), EXACT)


# ---- value by value -----------------------------------------------------------------------------


def _one_rounding(layer: kinds.Layer, seen: Seen) -> Arithmetic:
    return _one(seen, Sum(1), Sum(1))


def _smooth(layer: kinds.Layer, seen: Seen) -> Arithmetic:
    """A sigmoid of something near 0 is rounded next to ½: its own size counts as well."""
    approximated = rounded(APPROXIMATED)
    return Arithmetic(approximated.error(max(seen.sizes[0], seen.value)), (approximated,))


def _piecewise(layer: kinds.Layer, seen: Seen) -> Arithmetic:
    return Arithmetic(rounded(FEW).error(max(seen.sizes[0], seen.value)), (rounded(FEW),))


def _prelu(layer: kinds.PReLU, seen: Seen) -> Arithmetic:
    slope = max(1.0, seen.weight)
    return _one(seen, Sum(1, slope), Sum(1, slope))


def _scale(layer: kinds.ChannelScale, seen: Seen) -> Arithmetic:
    return _one(seen, Sum(1, seen.weight), Sum(1, seen.weight))


# ---- norms --------------------------------------------------------------------------------------


def _norm(layer: kinds.Layer, seen: Seen) -> Arithmetic:
    """(x − mean) / deviation · weight, and dy · weight / deviation less two means of it.

    One of the two is x̂ · mean(dy · x̂), and all x̂ of a mean are wrong by its rounding error: where
    they reach far, and dy goes with them, that is the larger error.
    """
    found = seen.statistic
    assert found is not None
    weight = seen.weight or 1.0
    summed = found.terms // ROWS + FEW
    pulled = (1.0 + (found.reach * found.pull) ** 2) ** 0.5
    return Arithmetic(
        rounded(FEW, weight).error(found.reach),
        (rounded(FEW, weight * found.gain),),
        rounded(summed, weight).error(found.reach),
        rounded(summed, weight * found.gain * pulled),
    )


def _response_norm(layer: kinds.LocalResponseNorm, seen: Seen) -> Arithmetic:
    """A power of a sum of squares; each gradient collects those of `size` neighbours."""
    shrunk = seen.value / (seen.sizes[0] or 1.0)
    approximated = rounded(APPROXIMATED + layer.size, shrunk)
    return _one(seen, approximated, approximated)


# ---- channels and joins -------------------------------------------------------------------------


def _upsample(layer: kinds.Upsample, seen: Seen) -> Arithmetic:
    area = prod(layer.scale)
    if layer.bilinear:
        return _one(seen, Sum(4, 0.5), Sum(4 * area, 0.5))
    return _one(seen, EXACT, Sum(area))


def _add(layer: kinds.Add, seen: Seen) -> Arithmetic:
    additions = len(seen.sizes) - 1
    forward = rounded(additions).error(hypot(*seen.sizes)) if additions else 0.0
    return Arithmetic(forward, tuple(_gathered(seen, i, 1.0) for i in range(len(seen.sizes))))


def _multiply(layer: kinds.Multiply, seen: Seen) -> Arithmetic:
    def others(i: int) -> float:
        return prod(size for j, size in enumerate(seen.sizes) if j != i)

    count = len(seen.sizes)
    backward = tuple(_gathered(seen, i, others(i), count - 1) for i in range(count))
    return Arithmetic(rounded(count).error(seen.value), backward)


def _gathered(seen: Seen, i: int, factor: float, operations: int = 0) -> Sum:
    """The gradient of one input: a value that was spread over the map collects all of it."""
    spread = prod(seen.shape) // prod(seen.in_shapes[i])
    return Sum(spread * max(1, operations), factor) if spread > 1 or operations else EXACT


# Kind → (layer, what was seen) → its sums.
ARITHMETIC: dict[type[kinds.Layer], Callable[[Any, Seen], Arithmetic]] = {
    kinds.Input: _exact,
    kinds.Conv: _conv,
    kinds.DepthwiseConv: _depthwise,
    kinds.PartialConv: _partial,
    kinds.TransposedConv: _transposed,
    kinds.MaxPool: _max_pool,
    kinds.AvgPool: _avg_pool,
    kinds.SumPool: _sum_pool,
    kinds.L2Pool: _l2_pool,
    kinds.Subsample: _subsample,
    kinds.AdaptiveMax: _adaptive_max,
    kinds.AdaptiveAvg: _adaptive_avg,
    kinds.GlobalMax: _exact,
    kinds.GlobalAvg: _global_avg,
    kinds.GlobalSum: _global_sum,
    kinds.Flatten: _exact,
    kinds.Linear: _linear,
    kinds.RadialBasis: _radial,
    kinds.ReLU: _exact,
    kinds.LeakyReLU: _one_rounding,
    kinds.ReLU6: _exact,
    **dict.fromkeys((kinds.ELU, kinds.SiLU, kinds.GELU, kinds.Tanh, kinds.Sigmoid), _smooth),
    kinds.HardSigmoid: _piecewise,
    kinds.HardSwish: _piecewise,
    kinds.PReLU: _prelu,
    kinds.BatchNorm: _norm,
    kinds.LayerNorm: _norm,
    kinds.GroupNorm: _norm,
    kinds.LocalResponseNorm: _response_norm,
    kinds.ChannelScale: _scale,
    kinds.ChannelShuffle: _exact,
    kinds.ChannelSplit: _exact,
    kinds.ChannelPad: _exact,
    kinds.Upsample: _upsample,
    **dict.fromkeys(kinds.NOISES, _one_rounding),
    kinds.Add: _add,
    kinds.Multiply: _multiply,
    kinds.Concat: _exact,
}
