"""Shortcuts that leave out pixels (`shortcuts.py`), forward: where a convolution normalises what it
reads and adds a shortcut to it, it takes the shortcut's values from the larger map where they
stand. Pool and channels of zeros are then passed over.
"""

from __future__ import annotations

from lanewise.native.fuse import Operation
from lanewise.native.kernels.fused_norm import Thin
from lanewise.native.planner import Planner
from lanewise.native.rules import fused_norm
from lanewise.native.rules.shortcuts import leaves_out
from lanewise.native.rules.windows import window
from lanewise.net.layers import BatchNorm, ChannelPad


def passed_over(plan: Planner, operation: Operation) -> bool:
    """Whether nobody reads this pool, or these channels of zeros behind one; noted."""
    pool, last = _shortcut(plan, operation)
    if pool is None or pool.relu or last.relu or not _added(plan, last):
        return False
    before = last.layer.before if isinstance(last.layer, ChannelPad) else 0
    thin = Thin(pool.input_shapes[0], window(pool).stride, before)
    plan.thin[last.name] = pool.inputs[0], thin
    return True


def _shortcut(plan: Planner, operation: Operation) -> tuple[Operation | None, Operation]:
    """The pool of single values that an operation is, or is behind; and the last of the two."""
    if isinstance(operation.layer, ChannelPad):
        pool = plan.by_name[operation.inputs[0]]
        return (pool if leaves_out(pool) and plan.uses[pool.name] == 1 else None), operation
    if not leaves_out(operation):
        return None, operation
    readers = plan.readers.get(operation.name, [])
    padded = len(readers) == 1 and isinstance(readers[0].layer, ChannelPad)
    return operation, readers[0] if padded else operation


def _added(plan: Planner, last: Operation) -> bool:
    """Whether a normalisation alone reads it, and adds it to what a convolution makes of it."""
    readers = plan.readers.get(last.name, [])
    if len(readers) != 1 or not isinstance(readers[0].layer, BatchNorm):
        return False
    norm = readers[0]
    return norm.inputs[1:] == (last.name,) != norm.inputs[:1] and fused_norm.made_by_reader(
        plan, norm
    )
