"""How numbers between layers are kept, in words, and whose weights that concerns. `precision.py`
says what the words mean, and does it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from lanewise.errors import EngineError
from lanewise.native.target import Target
from lanewise.net.layers import CONVOLUTIONS, Layer, Linear

PRECISIONS = ("fp32", "bf16")


def check_precision(precision: str) -> str:
    """The same word, if it is one; EngineError with those there are."""
    if precision not in PRECISIONS:
        raise EngineError(f"precision is {precision!r}; use {' or '.join(PRECISIONS)}")
    return precision


def multiplied_weights(layers: Iterable[tuple[str, Layer]]) -> frozenset[str]:
    """Of layers with their names: the parameters that "bf16" rounds before they are multiplied,
    those of layers that multiply every weight with many values."""
    multiplies = (*CONVOLUTIONS, Linear)
    return frozenset(f"{name}.weight" for name, layer in layers if isinstance(layer, multiplies))


def multiplies_pairs(target: Target) -> bool:
    """Whether the processor multiplies and adds two pairs of bf16 at once."""
    return target.has("avx512bf16")


def multiplies_matrices(target: Target) -> bool:
    """Whether it multiplies small matrices of such pairs by one instruction (AMX)."""
    return all(map(target.has, ("amx-tile", "amx-bf16", "avx512bf16")))


def nearest_bf16(values: np.ndarray) -> np.ndarray:
    """The nearest bf16 of each float32, of two equally near ones the even, as float32; what is no
    number stays none."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    nearest = bits + (0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return np.where(np.isnan(values), values, nearest.view(np.float32))


def rounded_to_bf16(
    arrays: Mapping[str, np.ndarray], names: frozenset[str]
) -> dict[str, np.ndarray]:
    """The arrays, those of these names rounded."""
    return {name: nearest_bf16(a) if name in names else a for name, a in arrays.items()}
