"""Channels moved as they are: shuffle, split, padchannels."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from lanewise.native.fuse import Operation
from lanewise.native.kernels import channels
from lanewise.native.nest import LANES
from lanewise.native.plan import FLOAT, Slot
from lanewise.native.planner import Planner
from lanewise.native.rules import thin_values
from lanewise.native.rules.windows import masked
from lanewise.net.layers import ChannelPad, ChannelShuffle, ChannelSplit


def channel_origins(operation: Operation) -> tuple[channels.Origins, int, int]:
    """Where each channel comes from, out of how many, and their pixels."""
    layer, (count, *size) = operation.layer, operation.input_shapes[0]
    if isinstance(layer, ChannelShuffle):
        origins = channels.shuffled(count, layer.groups)
    elif isinstance(layer, ChannelSplit):
        origins = channels.split(count, layer.part, layer.of)
    else:
        assert isinstance(layer, ChannelPad)
        origins = channels.padded(count, layer.before, layer.after)
    return origins, count, prod(size)


def move_forward(plan: Planner, operation: Operation) -> None:
    """A part of a split mostly stands where it should already."""
    if thin_values.passed_over(plan, operation):
        return
    key, source = channel_origins(operation), plan.value(operation.inputs[0])
    if isinstance(operation.layer, ChannelSplit):
        before = (operation.layer.part - 1) * operation.elements * LANES * FLOAT
        if plan.value(operation.name) == replace(source, offset=source.offset + before):
            return
    plan.call(
        "copy_channels",
        key,
        lambda name: channels.copy_channels(name, *key),
        source,
        plan.value(operation.name),
    )


def move_gradient(plan: Planner, operation: Operation) -> None:
    if isinstance(operation.layer, ChannelPad):
        pixels = prod(operation.shape[1:])
        plan.pass_gradient(operation, operation.inputs[0], operation.layer.before * pixels)
        return
    origins, count, pixels = channel_origins(operation)
    key, source = (channels.backward(origins, count), len(origins), pixels), operation.inputs[0]
    mask = plan.joined_relu(source)

    def write(target: Slot) -> None:
        plan.call(
            "copy_channels_gradient",
            (key, mask),
            lambda name: channels.copy_channels(name, *key, mask=mask),
            plan.gradient(operation.name),
            *masked(plan, source),
            target,
        )

    def add(target: Slot) -> None:
        plan.call(
            "add_channels",
            key,
            lambda name: channels.add_channels(name, *key),
            plan.gradient(operation.name),
            target,
        )

    # A sum must be masked on all channels; what is added here concerns some.
    plan.contribute(source, write, None if mask else add)
