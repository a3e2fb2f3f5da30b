"""Pools as ONNX operators. Rules: see `onnx_rules`.

Ceil's last window becomes an explicit pad. ONNX Runtime refuses pads as large as the window; those
are put around the maps first.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from lanewise.net import layers as kinds
from lanewise.net.graph import Node
from lanewise.net.layers import Layer
from lanewise.ship.onnx_sheet import Array, Read, Sheet
from lanewise.size.axis import adaptive_windows
from lanewise.size.shapes import Window, resolve_window


def max_pool(sheet: Sheet, node: Node, read: Read) -> str:
    return _pooled(sheet, "MaxPool", node.name, _window(node, read), read[0], float("-inf"))


def _window(node: Node, read: Read) -> Window:
    assert isinstance(node.layer, kinds.Pool)
    return resolve_window(node.layer, read[1])


def _pooled(sheet: Sheet, operator: str, name: str, window: Window, value: str, fill: float) -> str:
    """The operator over whole windows, the pads included."""
    ends = [axis.end + axis.overhang for axis in window.axes]
    pads = [axis.begin for axis in window.axes] + ends
    if any(pad >= size for pad, size in zip(pads, window.kernel * 2, strict=True)):
        around = np.array([0, 0, *pads[:2], 0, 0, *pads[2:]], np.int64)
        inputs = [value, sheet.constant(f"{name}.pads", around)]
        inputs.append(sheet.constant(f"{name}.fill", np.float32(fill)))
        value, pads = sheet.call("Pad", inputs, f"{name}.padded"), [0, 0, 0, 0]
    settings: dict[str, Any] = {
        "kernel_shape": window.kernel,
        "strides": window.stride,
        "pads": pads,
    }
    if operator == "AveragePool":
        settings["count_include_pad"] = 1
    return sheet.call(operator, [value], name, **settings)


def avg_pool(sheet: Sheet, node: Node, read: Read) -> str:
    """What ceil's windows reach over beyond the pads does not count in the mean."""
    layer, window, name = node.layer, _window(node, read), node.name
    assert isinstance(layer, kinds.AvgPool)
    if not layer.unpadded and not any(axis.overhang for axis in window.axes):
        return _pooled(sheet, "AveragePool", name, window, read[0], 0.0)
    mean = _pooled(sheet, "AveragePool", f"{name}.full", window, read[0], 0.0)
    rows, columns = (np.array(axis.counted(layer.unpadded)) for axis in window.axes)
    counts = np.outer(rows, columns)
    factors = prod(window.kernel) / counts[None].astype(np.float32)
    return sheet.call("Mul", [mean, sheet.constant(f"{name}.factors", factors)], name)


def _sums(sheet: Sheet, name: str, window: Window, value: str, weight: Array | float = 1.0) -> str:
    """The sums of the windows, times a weight."""
    mean = _pooled(sheet, "AveragePool", f"{name}.mean", window, value, 0.0)
    factor = np.asarray(weight, np.float32) * prod(window.kernel)
    return sheet.call("Mul", [mean, sheet.constant(f"{name}.factor", factor)], f"{name}.sum")


def sum_pool(sheet: Sheet, node: Node, read: Read) -> str:
    total = _sums(sheet, node.name, _window(node, read), read[0])
    return sheet.call("Identity", [total], node.name)


def l2_pool(sheet: Sheet, node: Node, read: Read) -> str:
    square = sheet.call("Mul", [read[0], read[0]], f"{node.name}.square")
    total = _sums(sheet, node.name, _window(node, read), square)
    return sheet.call("Sqrt", [total], node.name)


def subsample(sheet: Sheet, node: Node, read: Read) -> str:
    weight, bias = (sheet.array(node, name).reshape(-1, 1, 1) for name in ("weight", "bias"))
    total = _sums(sheet, node.name, _window(node, read), read[0], weight)
    return sheet.call("Add", [total, sheet.constant(f"{node.name}.bias", bias)], node.name)


def adaptive_max(sheet: Sheet, node: Node, read: Read) -> str:
    """Where the windows are not alike: the largest of each band of rows, then of columns."""
    if (window := _even_windows(node, read)) is not None:
        return sheet.call("MaxPool", [read[0]], node.name, kernel_shape=window, strides=window)
    assert isinstance(node.layer, kinds.AdaptivePool)
    value = read[0]
    for axis, (n, out) in enumerate(zip(read[1][1:], node.layer.size, strict=True), 2):
        name = node.name if axis == 3 else f"{node.name}.rows"
        value = _bands(sheet, name, value, axis, adaptive_windows(n, out))
    return value


def _bands(
    sheet: Sheet, name: str, value: str, axis: int, windows: tuple[tuple[int, int], ...]
) -> str:
    bands = []
    for number, (first, end) in enumerate(windows):
        cut = [
            sheet.constant(f"{name}.{number}.{word}", np.array([place], np.int64))
            for word, place in (("from", first), ("to", end), ("axis", axis))
        ]
        band = sheet.call("Slice", [value, *cut], f"{name}.{number}")
        bands.append(sheet.call("ReduceMax", [band, cut[-1]], f"{name}.{number}.max", keepdims=1))
    return sheet.call("Concat", bands, name, axis=axis)


def adaptive_avg(sheet: Sheet, node: Node, read: Read) -> str:
    """Where the windows are not alike: a product with the share of each row, and each column."""
    if (window := _even_windows(node, read)) is not None:
        return sheet.call("AveragePool", [read[0]], node.name, kernel_shape=window, strides=window)
    assert isinstance(node.layer, kinds.AdaptivePool)
    rows, columns = map(_shares, read[1][1:], node.layer.size)
    name = node.name
    left = sheet.call("MatMul", [sheet.constant(f"{name}.of_rows", rows), read[0]], f"{name}.rows")
    return sheet.call("MatMul", [left, sheet.constant(f"{name}.of_columns", columns.T)], name)


def _shares(n: int, out: int) -> Array:
    shares = np.zeros((out, n), np.float32)
    for row, (first, end) in zip(shares, adaptive_windows(n, out), strict=True):
        row[first:end] = 1 / (end - first)
    return shares


def _even_windows(node: Node, read: Read) -> tuple[int, int] | None:
    """The window of an ordinary pool that does the same, if one does."""
    assert isinstance(node.layer, kinds.AdaptivePool)
    (_, height, width), (rows, columns) = read[1], node.layer.size
    if height % rows or width % columns:
        return None
    return height // rows, width // columns


def _whole(operator: str) -> Callable[..., str]:
    def rule(sheet: Sheet, node: Node, read: Read) -> str:
        return sheet.call(operator, [read[0]], node.name)

    return rule


def global_sum(sheet: Sheet, node: Node, read: Read) -> str:
    axes = sheet.constant(f"{node.name}.axes", np.array([2, 3], np.int64))
    return sheet.call("ReduceSum", [read[0], axes], node.name, keepdims=1)


RULES: dict[type[Layer], Callable[..., str]] = {
    kinds.MaxPool: max_pool,
    kinds.AvgPool: avg_pool,
    kinds.SumPool: sum_pool,
    kinds.L2Pool: l2_pool,
    kinds.Subsample: subsample,
    kinds.AdaptiveMax: adaptive_max,
    kinds.AdaptiveAvg: adaptive_avg,
    kinds.GlobalMax: _whole("GlobalMaxPool"),
    kinds.GlobalAvg: _whole("GlobalAveragePool"),
    kinds.GlobalSum: global_sum,
}
