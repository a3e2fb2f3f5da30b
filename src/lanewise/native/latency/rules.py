"""The table from layer kind to the kernels for one image.

A kind that stands in `COPIED` has no kernel of its own here: its values are copied into all sixteen
lanes, the usual kernel runs on them, and lane 0 is taken. That is always right, and costs sixteen
times the layer's own work; plans and measurements call it "sixteen copies".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lanewise.native.chains import whole
from lanewise.native.fuse import Operation
from lanewise.native.kernels import image_moves as moves
from lanewise.native.latency import channelwise, products
from lanewise.native.latency.planner import ImagePlanner, size_of
from lanewise.native.plan import Call, Place, Slot
from lanewise.native.planner import Planner
from lanewise.native.rules import FORWARD
from lanewise.net.layers import (
    ACTIVATIONS,
    NOISES,
    AdaptiveAvg,
    AdaptiveMax,
    Add,
    AvgPool,
    BatchNorm,
    ChannelPad,
    ChannelScale,
    ChannelShuffle,
    ChannelSplit,
    Concat,
    Conv,
    DepthwiseConv,
    GlobalAvg,
    GlobalMax,
    GlobalSum,
    GroupNorm,
    L2Pool,
    Layer,
    LayerNorm,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Multiply,
    PartialConv,
    PReLU,
    RadialBasis,
    Subsample,
    SumPool,
    TransposedConv,
    Upsample,
)

Rule = Callable[[ImagePlanner, Operation], None]


def sixteen_copies(plan: ImagePlanner, operation: Operation) -> None:
    """The kernel for sixteen images, all of them this one."""
    plan.purpose += " (sixteen copies)"
    places = {
        f"value {name}": plan.copies(name, shape)
        for name, shape in zip(operation.inputs, operation.input_shapes, strict=True)
    }
    result = plan.scratch(f"copies {operation.name}", operation.elements * 64)
    places[f"value {operation.name}"] = result
    for call in _usual_calls(plan, operation):
        kernel = call.kernels.get(1) or whole(call)
        assert not call.symbols
        moved = tuple(_renamed(place, places, operation) for place in call.places)
        plan.add(Call({1: kernel}, moved, purpose=plan.purpose))
    size = size_of(operation.shape)
    target = plan.value(operation.name)
    plan.call("from_copies", size, lambda name: moves.from_copies(name, *size), result, target)


def _usual_calls(plan: ImagePlanner, operation: Operation) -> list[Call]:
    """What the rule for sixteen images calls."""
    inputs = {
        name: replace(plan.by_name[name], inputs=(), shape=shape)
        for name, shape in zip(operation.inputs, operation.input_shapes, strict=True)
    }
    around = (*inputs.values(), operation)
    usual = Planner(
        plan.target, around, plan.layout, plan.buffers, plan.shelf, training=False, exact=plan.exact
    )
    FORWARD[type(operation.layer)](usual, operation)
    return usual.calls


def _renamed(place: Place, places: dict[str, Slot], operation: Operation) -> Place:
    """A place of the usual rule here: a value's copies, or bytes of the operation's own."""
    if not isinstance(place, Slot):
        return place
    if place.name in places:
        return replace(places[place.name], offset=place.offset)
    return replace(place, name=f"{place.name} of {operation.name}", worker=False)


#: kinds without a kernel of their own, each with the reason
COPIED: dict[type[Layer], str] = {
    LayerNorm: "sums over the channels of a pixel are sums over lanes",
    GroupNorm: "a group of channels may end within a vector",
    RadialBasis: "the last layer of one small network",
    **dict.fromkeys(NOISES, "does nothing in inference, and is left out before"),
}

RULES: dict[type[Layer], Rule] = {
    **dict.fromkeys(COPIED, sixteen_copies),
    Conv: products.any_convolution,
    DepthwiseConv: products.depthwise_convolution,
    PartialConv: products.convolution,
    TransposedConv: products.convolution,
    Linear: products.connection,
    MaxPool: channelwise.max_pool,
    AdaptiveMax: channelwise.max_pool,
    AvgPool: channelwise.sum_pool,
    SumPool: channelwise.sum_pool,
    AdaptiveAvg: channelwise.sum_pool,
    L2Pool: channelwise.l2,
    Subsample: channelwise.subsampling,
    GlobalMax: channelwise.global_pool,
    GlobalAvg: channelwise.global_pool,
    GlobalSum: channelwise.global_pool,
    **dict.fromkeys(ACTIVATIONS, channelwise.activate),
    PReLU: channelwise.factor,
    ChannelScale: channelwise.factor,
    BatchNorm: channelwise.normalise,
    LocalResponseNorm: channelwise.neighbours,
    ChannelShuffle: channelwise.rearrange,
    ChannelSplit: channelwise.rearrange,
    ChannelPad: channelwise.rearrange,
    Upsample: channelwise.upsampling,
    Add: channelwise.join,
    Multiply: channelwise.join,
    Concat: channelwise.concatenate,
}
