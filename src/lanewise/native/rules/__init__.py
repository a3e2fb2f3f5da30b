"""The table from layer kind to kernels: what computes it, and what computes its gradients.

A rule reads an operation's sizes, asks the planner for places, and calls kernels. `FORWARD` and
`GRADIENT` have the same keys; `flatten` is in neither because it moves nothing. One file a family
of layers, as in `kernels/`; `windows.py` is what several of them ask.
"""

from __future__ import annotations

from collections.abc import Callable

from lanewise.native.fuse import Operation
from lanewise.native.plan import Planner
from lanewise.native.rules import (
    activations,
    batch_norm,
    channels,
    convolution,
    factors,
    full_connection,
    gating,
    joins,
    noise,
    partial,
    pooling,
    radial,
    transposed,
    upsampling,
)
from lanewise.net.layers import (
    ACTIVATIONS,
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
    Dropout,
    GlobalAvg,
    GlobalMax,
    GlobalSum,
    L2Pool,
    Layer,
    Linear,
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

Rule = Callable[[Planner, Operation], None]

FORWARD: dict[type[Layer], Rule] = {
    Conv: convolution.conv_forward,
    PartialConv: partial.partial_forward,
    TransposedConv: transposed.transposed_forward,
    MaxPool: pooling.max_pool_forward,
    AvgPool: pooling.sum_pool_forward,
    SumPool: pooling.sum_pool_forward,
    L2Pool: pooling.l2_pool_forward,
    Subsample: pooling.subsample_forward,
    AdaptiveMax: pooling.max_pool_forward,
    AdaptiveAvg: pooling.sum_pool_forward,
    GlobalMax: pooling.global_pool_forward,
    GlobalAvg: pooling.global_pool_forward,
    GlobalSum: pooling.global_pool_forward,
    Linear: full_connection.linear_forward,
    RadialBasis: radial.radial_forward,
    **dict.fromkeys(ACTIVATIONS, activations.activation_forward),
    PReLU: factors.factor_forward,
    ChannelScale: factors.factor_forward,
    BatchNorm: batch_norm.forward,
    Dropout: noise.dropout_forward,
    ChannelShuffle: channels.move_forward,
    ChannelSplit: channels.move_forward,
    ChannelPad: channels.move_forward,
    Upsample: upsampling.upsample_forward,
    Add: joins.add_forward,
    Multiply: gating.join_forward,
    Concat: joins.concat_forward,
}

GRADIENT: dict[type[Layer], Rule] = {
    Conv: convolution.conv_gradient,
    PartialConv: partial.partial_gradient,
    TransposedConv: transposed.transposed_gradient,
    MaxPool: pooling.max_pool_gradient,
    AvgPool: pooling.sum_pool_gradient,
    SumPool: pooling.sum_pool_gradient,
    L2Pool: pooling.l2_pool_gradient,
    Subsample: pooling.subsample_gradient,
    AdaptiveMax: pooling.max_pool_gradient,
    AdaptiveAvg: pooling.sum_pool_gradient,
    GlobalMax: pooling.global_pool_gradient,
    GlobalAvg: pooling.global_pool_gradient,
    GlobalSum: pooling.global_pool_gradient,
    Linear: full_connection.linear_gradient,
    RadialBasis: radial.radial_gradient,
    **dict.fromkeys(ACTIVATIONS, activations.activation_gradient),
    PReLU: factors.factor_gradient,
    ChannelScale: factors.factor_gradient,
    BatchNorm: batch_norm.gradient,
    Dropout: noise.dropout_gradient,
    ChannelShuffle: channels.move_gradient,
    ChannelSplit: channels.move_gradient,
    ChannelPad: channels.move_gradient,
    Upsample: upsampling.upsample_gradient,
    Add: joins.add_gradient,
    Multiply: gating.product_gradient,
    Concat: joins.concat_gradient,
}
