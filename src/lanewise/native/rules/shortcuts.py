"""Shortcuts that leave out pixels: a pool of single values with a stride, as in ResNets for CIFAR.

The gradient of such a pool reaches one pixel of several, and the other pixels get zeros. Where a
convolution with the same strides reads the same map and is the next to give a gradient, as beside
the shortcut of a residual block, the pool writes nothing: the convolution begins the sums of those
pixels with the pool's gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lanewise.native.fuse import Operation
from lanewise.native.kernels.correlation import Correlation, Tile
from lanewise.native.planner import Planner
from lanewise.native.rules.windows import window
from lanewise.native.waiting import Waiting
from lanewise.net.layers import AvgPool, Conv, MaxPool


def leaves_out(operation: Operation) -> bool:
    """Whether this is a pool of single values: of each window's one value there is nothing to
    choose, and no argument to keep."""
    if not isinstance(operation.layer, MaxPool | AvgPool):
        return False
    moves = window(operation)
    return moves.kernel == (1, 1) and moves.pad == ((0, 0), (0, 0))


def wait(plan: Planner, operation: Operation, emit: Callable[[], None]) -> None:
    """Write the gradient of such a pool's source by `emit`, or leave it to the convolution that is
    the next to give one. Its own gradient must stay as it is until then, so nobody may add to it.
    """
    source, place = operation.inputs[0], plan.gradient(operation.name)
    if _next_reader(plan, operation) and plan.sharing.stays(operation.name, place):
        plan.waiting[source] = Waiting(place, window(operation).stride, operation.shape, emit)
    else:
        emit()


def _next_reader(plan: Planner, operation: Operation) -> bool:
    """Whether nothing has been given to the source yet, and next comes a convolution with the same
    strides."""
    source, order = operation.inputs[0], plan.operations
    if source in plan.written or source in plan.waiting or window(operation).stride == (1, 1):
        return False
    here = order.index(operation)
    before = [one for one in plan.readers[source] if order.index(one) < here]
    if not before or not isinstance(before[-1].layer, Conv) or before[-1].layer.groups != 1:
        return False
    return window(before[-1]).stride == window(operation).stride


def taken(plan: Planner, operation: Operation, sizes: Any, tile: Any) -> Waiting | None:
    """What a convolution's input gradient begins its sums with, if it can: noted. Sums that wait
    for more sources cannot."""
    waiting = plan.waiting.get(operation.inputs[0])
    direct = isinstance(sizes, Correlation) and isinstance(tile, Tile)
    if waiting is None or not direct or 0 < tile.sources < sizes.sources:
        return None
    return plan.waiting.pop(operation.inputs[0])
