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
    convolution,
    factors,
    full_connection,
    joins,
    noise,
    pooling,
)
from lanewise.net.layers import (
    ACTIVATIONS,
    Add,
    AvgPool,
    BatchNorm,
    ChannelScale,
    Concat,
    Conv,
    Dropout,
    GlobalAvg,
    GlobalMax,
    GlobalSum,
    Layer,
    Linear,
    MaxPool,
    PReLU,
    SumPool,
)

Rule = Callable[[Planner, Operation], None]

FORWARD: dict[type[Layer], Rule] = {
    Conv: convolution.conv_forward,
    MaxPool: pooling.max_pool_forward,
    AvgPool: pooling.sum_pool_forward,
    SumPool: pooling.sum_pool_forward,
    GlobalMax: pooling.global_pool_forward,
    GlobalAvg: pooling.global_pool_forward,
    GlobalSum: pooling.global_pool_forward,
    Linear: full_connection.linear_forward,
    **dict.fromkeys(ACTIVATIONS, activations.activation_forward),
    PReLU: factors.factor_forward,
    ChannelScale: factors.factor_forward,
    BatchNorm: batch_norm.forward,
    Dropout: noise.dropout_forward,
    Add: joins.add_forward,
    Concat: joins.concat_forward,
}

GRADIENT: dict[type[Layer], Rule] = {
    Conv: convolution.conv_gradient,
    MaxPool: pooling.max_pool_gradient,
    AvgPool: pooling.sum_pool_gradient,
    SumPool: pooling.sum_pool_gradient,
    GlobalMax: pooling.global_pool_gradient,
    GlobalAvg: pooling.global_pool_gradient,
    GlobalSum: pooling.global_pool_gradient,
    Linear: full_connection.linear_gradient,
    **dict.fromkeys(ACTIVATIONS, activations.activation_gradient),
    PReLU: factors.factor_gradient,
    ChannelScale: factors.factor_gradient,
    BatchNorm: batch_norm.gradient,
    Dropout: noise.dropout_gradient,
    Add: joins.add_gradient,
    Concat: joins.concat_gradient,
}
