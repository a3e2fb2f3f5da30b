"""What parameters and running statistics begin with.

Weights and biases of convolutions and full connections are uniform within ±1/√(inputs of one
output), as PyTorch does by default. Through many layers that no normalisation follows, such values
die away; there weights are uniform within ±√(6/inputs), which keeps the size of what a ReLU passes
(He, Zhang, Ren, Sun: Delving deep into rectifiers, 2015), and biases are 0. Factors of
normalisations begin at 1, what they add at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from lanewise.net.graph import Graph
from lanewise.net.layers import (
    CONVOLUTIONS,
    NORMS,
    BatchNorm,
    ChannelScale,
    GroupNorm,
    Layer,
    LayerNorm,
    Linear,
    LocalResponseNorm,
    PReLU,
    Subsample,
)

if TYPE_CHECKING:  # NumPy loads its generators where they are first named
    from numpy.random import Generator

Arrays = Mapping[str, np.ndarray]
Initial: TypeAlias = "Callable[[Layer, Arrays, Generator], None]"

PRELU_SLOPE = 0.25  # He et al. 2015, and PyTorch
#: so many layers with weights may follow each other without normalisation before values die away
SHALLOW = 7


def fill(graph: Graph, parameters: Arrays, buffers: Arrays, seed: int) -> None:
    """Set every parameter and running statistic of a net; one seed gives the same bits."""
    random = np.random.Generator(np.random.Philox(seed))
    own: dict[str, dict[str, np.ndarray]] = {}
    for full, array in parameters.items():
        owner, _, name = full.rpartition(".")
        own.setdefault(owner, {})[name] = array
    usual = _lasting if deep_without_norms(graph) else _uniform
    for node in graph.nodes:
        if node.name in own:
            INITIAL.get(type(node.layer), usual)(node.layer, own[node.name], random)
    for full, array in buffers.items():
        array[...] = 1.0 if full.endswith("running_var") else 0.0


def deep_without_norms(graph: Graph) -> bool:
    """Whether a net is so deep that its values need help, and has no normalisation that helps."""
    kinds = [type(node.layer) for node in graph.nodes]
    weighted = sum(kind in (*CONVOLUTIONS, Linear) for kind in kinds)
    helped = any(kind in NORMS and kind is not LocalResponseNorm for kind in kinds)
    return weighted > SHALLOW and not helped


def _lasting(layer: Layer, own: Arrays, random: Generator) -> None:
    bound = np.sqrt(6 / prod(own["weight"].shape[1:]))
    own["weight"][...] = random.uniform(-bound, bound, own["weight"].shape)
    if "bias" in own:
        own["bias"][...] = 0.0


def _uniform(layer: Layer, own: Arrays, random: Generator) -> None:
    bound = 1 / np.sqrt(prod(own["weight"].shape[1:]))
    for array in own.values():
        array[...] = random.uniform(-bound, bound, array.shape)


def _subsample(layer: Layer, own: Arrays, random: Generator) -> None:
    """As a full connection of the window's values would be."""
    assert isinstance(layer, Subsample)
    bound = 1 / np.sqrt(prod(layer.kernel))
    for array in own.values():
        array[...] = random.uniform(-bound, bound, array.shape)


def _one_and_zero(layer: Layer, own: Arrays, random: Generator) -> None:
    for name, array in own.items():
        array[...] = 1.0 if name == "weight" else 0.0


def _slope(layer: Layer, own: Arrays, random: Generator) -> None:
    own["weight"][...] = PRELU_SLOPE


def _scale(layer: Layer, own: Arrays, random: Generator) -> None:
    assert isinstance(layer, ChannelScale)
    own["weight"][...] = layer.initial


#: kinds that do not begin uniformly within ±1/√(inputs of one output)
INITIAL: dict[type[Layer], Initial] = {
    BatchNorm: _one_and_zero,
    LayerNorm: _one_and_zero,
    GroupNorm: _one_and_zero,
    Subsample: _subsample,
    PReLU: _slope,
    ChannelScale: _scale,
}
