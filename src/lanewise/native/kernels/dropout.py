"""Dropout whose mask is a pure function of (seed, step, sample, layer, element).

Every lane has a key, made from seed, step and sample (`lane_keys`); every element of every layer
mixes its number and the layer's salt into it. Where a whole feature map or a whole image falls
together, its elements have one number (`decisions`). No state and no stored mask: the gradient asks
the same function again. All arithmetic is on unsigned 32-bit integers, modulo 2³².
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lanewise.native.kernels.activation import every_vector
from lanewise.native.kernels.functions import integer, is_positive, keep_where, number
from lanewise.native.nest import (
    LANES,
    Buffer,
    Constant,
    FromIndex,
    Index,
    Kernel,
    Value,
    as_index,
    op,
)
from lanewise.native.writer import Writer
from lanewise.net.layers import Noise, SpatialDropout, StochasticDepth
from lanewise.size.shapes import Shape

#: mix(x): three shifts and two multiplications; every input bit reaches every output bit
SHIFTS = (16, 15, 16)
FACTORS = (0x7FEB352D, 0x846CA68B)
#: neighbouring elements lie this far apart before they are mixed (2³² / golden ratio)
STRIDE = 0x9E3779B9


def decisions(layer: Noise, shape: Shape) -> int:
    """How many numbers an image's elements have: one each, one a channel, or one for all. Elements
    with one number are neighbours in memory."""
    if isinstance(layer, StochasticDepth):
        return 1
    return shape[0] if isinstance(layer, SpatialDropout) else prod(shape)


def dropout(
    name: str, elements: int, rate: float, salt: int, *, together: int = 1, mask: bool = False
) -> Kernel:
    """Buffers source, keys (one i32 per lane), [value], target; `together` neighbouring elements
    share a number.

    Kept values are multiplied by 1 / (1 − rate). The gradient is the same kernel with dy as the
    source; there `mask` zeroes where `value` is not positive.
    """
    shape = (elements // together, together, LANES)
    source, value = Buffer("source", shape), Buffer("value", shape)
    keys = Buffer("keys", (LANES,), "i32")
    target = Buffer("target", shape, access="write")
    writer = Writer(name, [source, keys, *[value] * mask, target])
    key = writer.let(writer.load(keys, 0), "key")

    def one(hashed: Value, i: Index, j: Index) -> None:
        kept: Value = op("mul", writer.load(source, i, j, 0), number(kept_scale(rate)))
        if mask:
            kept = keep_where(is_positive(writer.load(value, i, j, 0)), kept)
        writer.store(target, i, j, 0, value=_keep_at_least(hashed, kept, rate))

    if together == 1:
        for i in every_vector(writer, elements):
            one(_hashed(writer, key, i, salt), i, as_index(0))
    else:
        with writer.loop("c", elements // together) as c:
            hashed = _hashed(writer, key, as_index(c), salt)
            for j in every_vector(writer, together):
                one(hashed, as_index(c), j)
    return writer.finish()


def _hashed(writer: Writer, key: Value, place: Index, salt: int) -> Value:
    """What a number of the layer becomes in every lane, its top bit flipped."""
    spread = op("mul", FromIndex(place, lanes=1), Constant(_signed(STRIDE), "i32", 1))
    spread = op("add", spread, Constant(_signed(salt), "i32", 1))
    mixed = _mixed(writer, op("xor", key, op("splat", spread)))
    return writer.let(op("xor", mixed, integer(-(2**31))), "h")


def kept_scale(rate: float) -> float:
    """What kept values are multiplied by, so that the mean stays."""
    return 1.0 / (1.0 - rate) if rate < 1.0 else 0.0


def threshold(rate: float) -> int:
    """A hash below this number drops the element."""
    return round(rate * 2**32)


def _keep_at_least(hashed: Value, kept: Value, rate: float) -> Value:
    """Unsigned comparison by a signed one: the top bit is flipped on both sides."""
    if threshold(rate) >= 2**32:
        return number(0.0)
    limit = integer(threshold(rate) - 2**31)
    return keep_where(op("ge", hashed, limit), kept)


def _mixed(writer: Writer, x: Value) -> Value:
    for shift, factor in zip(SHIFTS, (*FACTORS, None), strict=True):
        x = writer.let(x, "h")
        x = op("xor", x, op("shr", x, integer(shift)))
        if factor is not None:
            x = op("mul", x, integer(_signed(factor)))
    return writer.let(x, "h")


def _signed(number: int) -> int:
    """The 32-bit two's complement of an unsigned number."""
    number &= 0xFFFFFFFF
    return number - 2**32 if number >= 2**31 else number


# ---- the same in numpy: the definition ----------------------------------------------------------


def mix(x: ArrayLike) -> NDArray[np.uint32]:
    """The finaliser of the hash: uint32 → uint32, one to one."""
    x = np.asarray(x, np.uint32).copy()
    for shift, factor in zip(SHIFTS, (*FACTORS, 1), strict=True):
        x ^= x >> np.uint32(shift)
        x = np.multiply(x, np.uint32(factor), dtype=np.uint32)
    return x


def lane_keys(seed: int, step: int, sample_numbers: ArrayLike) -> NDArray[np.uint32]:
    """mix(sample ^ mix(step ^ mix(low ^ mix(high)))), all modulo 2³²: one key for every sample.

    low and high are the halves of the 64-bit seed; mix(0) is 0.
    """
    samples = np.asarray(sample_numbers).astype(np.uint32)
    of_seed = np.uint32(seed & 0xFFFFFFFF) ^ mix(np.uint32(seed >> 32))
    of_step = mix(np.uint32(step & 0xFFFFFFFF) ^ mix(of_seed))
    return mix(samples ^ of_step)


def dropout_mask(keys: ArrayLike, numbers: int, rate: float, salt: int) -> NDArray[np.bool_]:
    """True where the elements of a number are kept, as (numbers, lanes)."""
    spread = np.arange(numbers, dtype=np.uint64) * STRIDE + (salt & 0xFFFFFFFF)
    places = (spread & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    hashed = mix(np.asarray(keys).astype(np.uint32)[None, :] ^ places[:, None])
    return hashed.astype(np.uint64) >= threshold(rate)


def noise_mask(layer: Noise, keys: ArrayLike, shape: Shape, salt: int) -> NDArray[np.bool_]:
    """True where an element of a noise layer is kept: (lanes, *shape), with 1 for every axis along
    which all elements fall together."""
    numbers = decisions(layer, shape)
    sizes, found = [], 1
    for size in shape:
        sizes.append(size if found < numbers else 1)
        found *= size
    return dropout_mask(keys, numbers, layer.rate, salt).T.reshape(-1, *sizes)
