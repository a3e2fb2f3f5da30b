"""The arrays that machine code reads and writes, as NumPy sees them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lanewise.errors import EngineError
from lanewise.native.plan import Layout, Parameter


def aligned(count: int, dtype: type = np.float32) -> np.ndarray:
    """Zeros that begin on a cache line."""
    size = np.dtype(dtype).itemsize
    try:
        raw = np.zeros(count * size + 64, np.uint8)
    except MemoryError:
        raise EngineError(
            f"there is no room for {count * size:,} bytes; use a smaller batch, fewer threads or"
            " a smaller net"
        ) from None
    start = -raw.ctypes.data % 64
    return raw[start : start + count * size].view(dtype)


def views(layout: Layout, flat: np.ndarray) -> dict[str, np.ndarray]:
    """Name → its part of the flat array, in its shape."""

    def view(p: Parameter) -> np.ndarray:
        return flat[p.offset : p.offset + p.size].reshape(p.shape)

    return {name: view(p) for name, p in layout.parameters.items()}


def read_only(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    views = {name: array.view() for name, array in arrays.items()}
    for view in views.values():
        view.flags.writeable = False
    return views
