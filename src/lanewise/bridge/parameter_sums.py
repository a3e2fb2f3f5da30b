"""Which sums make the gradients of a layer's parameters, in the words of `sums.py`."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, prod, sqrt
from typing import Any

from lanewise.bridge.sums import Seen, Sum, rms
from lanewise.native.algorithms import chosen_for_weights
from lanewise.net import layers as kinds


def parameter_sums(layer: kinds.Layer, seen: Seen, batch: int) -> dict[str, Sum]:
    """For each parameter that such a layer may have: its gradient sums so many times the gradient
    of a value, times something of this size."""
    rule = PARAMETER_SUMS.get(type(layer))
    return rule(layer, seen, batch) if rule else {}


def _at_each_position(layer: kinds.Layer, seen: Seen, batch: int) -> dict[str, Sum]:
    terms = batch * prod(seen.shape[1:])
    return {"weight": Sum(terms, seen.sizes[0]), "bias": Sum(terms)}


def _of_conv(layer: kinds.Conv, seen: Seen, batch: int) -> dict[str, Sum]:
    """By Winograd's algorithm the terms have the same sum and more size in between."""
    found = _at_each_position(layer, seen, batch)
    algorithm = None if seen.exact else chosen_for_weights(layer, seen.in_shapes[0])
    if algorithm is None:
        return found
    direct, growth = found["weight"], max(1.0, algorithm.weight_growth)
    weight = Sum(ceil(direct.terms * growth**2), direct.weight / growth)
    return found | {"weight": weight}


def _of_transposed(layer: kinds.TransposedConv, seen: Seen, batch: int) -> dict[str, Sum]:
    positions = batch * prod(seen.in_shapes[0][1:])
    return {
        "weight": Sum(positions, seen.sizes[0]),
        "bias": Sum(batch * prod(seen.shape[1:])),
    }


def _of_subsample(layer: kinds.Subsample, seen: Seen, batch: int) -> dict[str, Sum]:
    terms = batch * prod(seen.shape[1:])
    window = sqrt(prod(layer.kernel)) * seen.sizes[0]
    return {"weight": Sum(terms, window), "bias": Sum(terms)}


def _of_prelu(layer: kinds.PReLU, seen: Seen, batch: int) -> dict[str, Sum]:
    counted = seen.shape[1:] if layer.per_channel else seen.shape
    return {"weight": Sum(batch * prod(counted), seen.sizes[0])}


def _of_norm(layer: kinds.Layer, seen: Seen, batch: int) -> dict[str, Sum]:
    """The weight's sums what was normalised, a difference of numbers with the reach's size."""
    terms = batch * prod(seen.shape[1:])
    assert seen.statistic is not None
    return {"weight": Sum(terms, rms(seen.statistic.reach)), "bias": Sum(terms)}


# Kinds that are not here have no parameters.
PARAMETER_SUMS: dict[type[kinds.Layer], Callable[[Any, Seen, int], dict[str, Sum]]] = {
    kinds.Conv: _of_conv,
    kinds.DepthwiseConv: _at_each_position,
    kinds.PartialConv: _at_each_position,
    kinds.TransposedConv: _of_transposed,
    kinds.Subsample: _of_subsample,
    kinds.Linear: _at_each_position,
    kinds.PReLU: _of_prelu,
    kinds.BatchNorm: _of_norm,
    kinds.LayerNorm: _of_norm,
    kinds.GroupNorm: _of_norm,
    kinds.ChannelScale: _at_each_position,
}
