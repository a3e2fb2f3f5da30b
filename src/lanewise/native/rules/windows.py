"""What several rules ask of an operation: its window, its taps, the mask of a joined ReLU."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from lanewise.errors import EngineError
from lanewise.native.fuse import Operation
from lanewise.native.kernels import matrix_conv, points
from lanewise.native.kernels.correlation import Tile, packed_shape
from lanewise.native.kernels.matrix_conv import MatrixTile
from lanewise.native.kernels.points import PointTile
from lanewise.native.kernels.taps import Taps
from lanewise.native.plan import FLOAT, Slot
from lanewise.native.planner import Planner
from lanewise.net.layers import Conv, DepthwiseConv, PartialConv, Pool, TransposedConv
from lanewise.net.show import show_layer
from lanewise.size.axis import Axis
from lanewise.size.shapes import Window, resolve_transposed, resolve_window, show_shape


def window(operation: Operation) -> Window:
    """How the operation's window moves over its input."""
    layer = operation.layer
    assert isinstance(layer, Conv | DepthwiseConv | PartialConv | Pool)
    moves = resolve_window(layer, operation.input_shapes[0])
    if isinstance(layer, Pool) and not all(map(_has_values, moves.axes)):
        raise EngineError(
            f"{operation.node}: {show_layer(layer)} over "
            f"{show_shape(operation.input_shapes[0])} has a window of padding alone; "
            "make the padding smaller"
        )
    return moves


def _has_values(axis: Axis) -> bool:
    """Whether every window reads a value; one behind the image, as Caffe's may, has none."""
    return min(axis.counted(unpadded=True)) > 0


def taps(operation: Operation, make: Callable[..., Taps]) -> tuple[Taps, Taps]:
    """Row taps and column taps of a window, forward or gradient."""
    return _both(window(operation), make)


def transposed_taps(operation: Operation, make: Callable[..., Taps]) -> tuple[Taps, Taps]:
    """The same of a transposed convolution. `gradient_taps`: its output × tap → its input;
    `forward_taps`: the other way."""
    assert isinstance(operation.layer, TransposedConv)
    return _both(resolve_transposed(operation.layer, operation.input_shapes[0]), make)


def _both(moves: Window, make: Callable[..., Taps]) -> tuple[Taps, Taps]:
    rows, columns = (
        make(
            moves.axes[axis].n,
            moves.out[axis],
            moves.kernel[axis],
            moves.stride[axis],
            moves.pad[axis][0],
            moves.dilation[axis],
        )
        for axis in (0, 1)
    )
    return rows, columns


def masked(plan: Planner, source: str) -> list[Slot]:
    """The value whose sign masks a gradient, where a ReLU was joined to its producer."""
    return [plan.value(source)] if plan.joined_relu(source) else []


def packed(plan: Planner, operation: Operation, sizes: Any, tile: Any) -> list[Slot]:
    """Where a tile that packs copies what it reads, and where sums of matrices are stored."""
    if isinstance(tile, MatrixTile):
        shapes = {
            "packed": matrix_conv.packed_shape(sizes, tile),
            "sums": matrix_conv.sums_shape(tile),
        }
        return [
            plan.scratch(f"{what} {len(plan.calls)} {operation.name}", prod(shape) * FLOAT)
            for what, shape in shapes.items()
        ]
    if not isinstance(tile, Tile | PointTile) or not tile.packs:
        return []
    if isinstance(tile, Tile):
        shape: tuple[int, ...] = packed_shape(sizes, tile)
    else:
        shape = points.packed_shape(sizes, tile)
    return [plan.scratch(f"packed {len(plan.calls)} {operation.name}", prod(shape) * FLOAT)]
