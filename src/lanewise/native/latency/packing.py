"""Weights as the kernels for one image read them: laid out anew whenever they are given.

Batch normalisations that follow a convolution are folded in: with factor = weight / √(var + eps)
the kernels are multiplied by the factor, and the bias becomes shift + (bias − mean) · factor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from lanewise.native.kernels.winograd_transforms import Algorithm
from lanewise.native.nest import LANES
from lanewise.net.graph import Graph
from lanewise.net.layers import (
    BatchNorm,
    Conv,
    DepthwiseConv,
    Layer,
    PartialConv,
    TransposedConv,
)

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Pack:
    """One array of laid-out numbers at `offset` floats; a plain value, kept with the machine code.

    kind: a key of `PACKERS`. node: whose weights. norm: the batch normalisation that is folded in,
    or "". sizes: whole numbers that the kind needs (see each packer).
    """

    kind: str
    node: str
    norm: str
    sizes: tuple[int, ...]
    offset: int
    floats: int


@dataclass(frozen=True)
class Given:
    """A layer, its arrays, and the factor and shift of the normalisation that follows it."""

    layer: Layer
    channels: int  # of its input
    arrays: Arrays
    factor: np.ndarray | None
    shift: np.ndarray | None

    @property
    def weight(self) -> np.ndarray:
        """Dense kernels (K, C, R, S), normalisation folded in."""
        dense = dense_kernels(self.layer, self.arrays["weight"], self.channels)
        if self.factor is None:
            return dense
        return dense * self.factor.reshape(-1, *[1] * (dense.ndim - 1))

    def bias(self, kernels: int) -> np.ndarray:
        """One number for each kernel, normalisation folded in."""
        plain = self.arrays.get("bias", np.zeros(kernels, np.float32))
        if self.factor is None or self.shift is None:
            return plain
        return plain * self.factor + self.shift


def dense_kernels(layer: Layer, weight: np.ndarray, channels: int) -> np.ndarray:
    """The weights of any convolution as (kernels, channels, R, S), with zeros where a kernel does
    not see a channel; those of a full connection as they are."""
    if isinstance(layer, PartialConv):
        dense = np.zeros((len(layer.table), channels, *layer.kernel), np.float32)
        pairs = [(k, c) for k, maps in enumerate(layer.table) for c in maps]
        for (k, c), one in zip(pairs, weight, strict=True):
            dense[k, c] = one
        return dense
    if isinstance(layer, TransposedConv):
        each, groups = channels // layer.groups, layer.groups
        dense = np.zeros((layer.kernels, channels, *layer.kernel), np.float32)
        wide = layer.kernels // groups
        for g in range(groups):
            part = weight[g * each : (g + 1) * each].swapaxes(0, 1)
            dense[g * wide : (g + 1) * wide, g * each : (g + 1) * each] = part
        return dense
    groups = _groups(layer, channels)
    if groups == 1:
        return weight
    kernels, each = len(weight), channels // groups
    dense = np.zeros((kernels, channels, *weight.shape[2:]), np.float32)
    for g in range(groups):
        rows = slice(g * kernels // groups, (g + 1) * kernels // groups)
        dense[rows, g * each : (g + 1) * each] = weight[rows]
    return dense


def _groups(layer: Layer, channels: int) -> int:
    if isinstance(layer, DepthwiseConv):
        return channels
    return layer.groups if isinstance(layer, Conv) else 1


def vectors(numbers: np.ndarray, count: int) -> np.ndarray:
    """Numbers in the lanes of `count` vectors, zeros behind them; axis 0 becomes the last."""
    padded = np.zeros((count * LANES, *numbers.shape[1:]), np.float32)
    padded[: len(numbers)] = numbers
    return np.moveaxis(padded.reshape(count, LANES, *numbers.shape[1:]), 1, -1)


def _kernels(given: Given, sizes: tuple[int, ...]) -> np.ndarray:
    """Sizes: first kernel, blocks, vectors of a block, first channel, channels, lanes of the
    source. (blocks, groups, R, lanes, S, vectors, 16)."""
    first, count, wide, begin, channels, lanes = sizes
    dense = given.weight[first : first + count * wide * LANES]
    taps = dense.shape[2:]
    groups = -(-channels // lanes)
    padded = np.zeros((count * wide * LANES, groups * lanes, *taps), np.float32)
    there = dense[:, begin : begin + channels]
    padded[: len(there), : there.shape[1]] = there
    axes = (count, wide, LANES, groups, lanes, *taps)
    return padded.reshape(axes).transpose(0, 3, 5, 4, 6, 1, 2)


def _factors(given: Given, sizes: tuple[int, ...]) -> np.ndarray:
    """Winograd's factors G w Gᵀ. Sizes: first kernel, blocks, vectors of a block, channels, results
    of a tile along an axis, taps. (blocks, points, vectors of channels, 16, vectors, 16)."""
    first, count, wide, channels, outputs, taps = sizes
    algorithm = Algorithm(outputs, taps)
    g = np.array(algorithm.kernel.numbers)
    dense = given.weight[first : first + count * wide * LANES]
    turned = np.matmul(np.matmul(g, dense), g.T).astype(np.float32)
    groups = -(-channels // LANES)
    shape = (count * wide * LANES, groups * LANES, *turned.shape[2:])
    padded = np.zeros(shape, np.float32)
    padded[: len(turned), :channels] = turned
    axes = (count, wide, LANES, groups, LANES, algorithm.points)
    return padded.reshape(axes).transpose(0, 5, 3, 4, 1, 2)


def _plain(given: Given, sizes: tuple[int, ...]) -> np.ndarray:
    """(K, C, R, S) as it is."""
    return given.weight


def _plain_bias(given: Given, sizes: tuple[int, ...]) -> np.ndarray:
    """Sizes: kernels."""
    return given.bias(sizes[0])


def _bias(given: Given, sizes: tuple[int, ...]) -> np.ndarray:
    """Sizes: kernels, vectors."""
    return vectors(given.bias(sizes[0]), sizes[1])


def _connection(given: Given, sizes: tuple[int, ...]) -> np.ndarray:
    """Sizes: first output, blocks, vectors of a block, and how the inputs lie: channels, pixels,
    lanes (16 or 1). (blocks, inputs, vectors, 16)."""
    first, count, wide, channels, pixels, lanes = sizes
    rows = given.weight[first : first + count * wide * LANES]
    groups = -(-channels // lanes)
    padded = np.zeros((count * wide * LANES, groups * lanes, pixels), np.float32)
    padded[: len(rows), :channels] = rows.reshape(len(rows), channels, pixels)
    axes = (count, wide, LANES, groups, lanes, pixels)
    return padded.reshape(axes).transpose(0, 3, 5, 4, 1, 2)


def _depthwise(given: Given, sizes: tuple[int, ...]) -> np.ndarray:
    """Sizes: vectors. (vectors, taps, 16): a channel's own kernel."""
    weight = given.arrays["weight"]
    if given.factor is not None:
        weight = weight * given.factor.reshape(-1, 1, 1, 1)
    return vectors(weight.reshape(len(weight), -1), sizes[0])


def _channels(which: str) -> Any:
    def pack(given: Given, sizes: tuple[int, ...]) -> np.ndarray:
        """Sizes: vectors."""
        return vectors(given.arrays[which], sizes[0])

    return pack


def _scale(given: Given, sizes: tuple[int, ...]) -> np.ndarray:
    """Sizes: vectors."""
    assert given.factor is not None
    return vectors(given.factor, sizes[0])


def _shift(given: Given, sizes: tuple[int, ...]) -> np.ndarray:
    """Sizes: vectors."""
    assert given.shift is not None
    return vectors(given.shift, sizes[0])


PACKERS = {
    "kernels": _kernels,
    "factors": _factors,
    "plain": _plain,
    "plain bias": _plain_bias,
    "bias": _bias,
    "connection": _connection,
    "depthwise": _depthwise,
    "weight of channels": _channels("weight"),
    "bias of channels": _channels("bias"),
    "scale": _scale,
    "shift": _shift,
}


def packed_floats(packs: tuple[Pack, ...]) -> int:
    """Room for all arrays."""
    return max((pack.offset + pack.floats for pack in packs), default=LANES)


def pack_all(
    packs: tuple[Pack, ...],
    graph: Graph,
    channels: Mapping[str, int],
    learned: Arrays,
    packed: np.ndarray,
) -> None:
    """Write all arrays into `packed`. `channels`: of each layer's input."""
    nodes = {node.name: node.layer for node in graph.nodes}
    for pack in packs:
        given = _given(pack, nodes, channels, learned)
        values = PACKERS[pack.kind](given, pack.sizes)
        assert floats_of(values.shape) == pack.floats, pack
        view = packed[pack.offset : pack.offset + values.size]
        view.reshape(values.shape)[...] = values


def _given(
    pack: Pack, nodes: Mapping[str, Layer], channels: Mapping[str, int], learned: Arrays
) -> Given:
    start = f"{pack.node}."
    arrays = {
        name.removeprefix(start): array
        for name, array in learned.items()
        if name.startswith(start) and "." not in name.removeprefix(start)
    }
    factor = shift = None
    if pack.norm:
        layer = nodes[pack.norm]
        assert isinstance(layer, BatchNorm)
        factor, shift = factor_and_shift(layer, pack.norm, learned)
    return Given(nodes[pack.node], channels[pack.node], arrays, factor, shift)


def factor_and_shift(layer: BatchNorm, node: str, learned: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """y = x · factor + shift, per channel, worked out in float64."""
    mean, variance = (
        learned[f"{node}.running_{which}"].astype(np.float64) for which in ("mean", "var")
    )
    factor = 1 / np.sqrt(variance + layer.eps)
    if layer.affine:
        factor = factor * learned[f"{node}.weight"]
        return factor, learned[f"{node}.bias"] - mean * factor
    return factor, -mean * factor


def floats_of(shape: tuple[int, ...]) -> int:
    """Room for an array, in whole vectors."""
    return -(-prod(shape) // LANES) * LANES
