"""A kernel with images in the lanes becomes one with channels in the lanes.

Where a layer treats every channel alike and by itself (pooling, depthwise convolution, factors),
its kernel for sixteen images of C channels is also one for one image of 16 C channels. The numbers
that belong to a channel are then no longer the same for all lanes: what was one number of a
parameter becomes a vector of sixteen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lanewise.native.nest import (
    LANES,
    Assign,
    Buffer,
    Fetch,
    Kernel,
    Load,
    Loop,
    Op,
    Statement,
    Store,
    Transpose,
    Value,
    as_index,
)


def parameters_in_lanes(kernel: Kernel, names: Sequence[str]) -> Kernel:
    """The kernel with every number of the buffers of these names as a vector of sixteen."""
    turned = {
        buffer: replace(buffer, shape=(*buffer.shape, LANES), align=64)
        for buffer in kernel.buffers
        if buffer.name in names
    }
    buffers = tuple(turned.get(buffer, buffer) for buffer in kernel.buffers)
    return replace(kernel, buffers=buffers, body=_body(kernel.body, turned))


def _body(body: Sequence[Statement], turned: dict[Buffer, Buffer]) -> tuple[Statement, ...]:
    return tuple(_statement(one, turned) for one in body)


def _statement(one: Statement, turned: dict[Buffer, Buffer]) -> Statement:
    if isinstance(one, Loop):
        return replace(one, body=_body(one.body, turned))
    if isinstance(one, Assign | Store):
        return replace(one, value=_value(one.value, turned))
    if isinstance(one, Fetch):
        return one
    assert isinstance(one, Transpose)
    return replace(one, values=tuple(_value(value, turned) for value in one.values))


def _value(value: Value, turned: dict[Buffer, Buffer]) -> Value:
    if not isinstance(value, Op):
        assert not (isinstance(value, Load) and value.buffer in turned), "a number in all lanes"
        return value
    (first, *others) = value.arguments
    if value.name == "splat" and isinstance(first, Load) and first.buffer in turned:
        return Load(turned[first.buffer], (*first.index, as_index(0)), LANES)
    return replace(value, arguments=tuple(_value(one, turned) for one in (first, *others)))
