"""The table from layer kind to torch: each rule appends one layer to a `Draft`.

A rule is `rule(draft, node, *reads)`, one (value, shape) for every layer that the node reads, and
returns the node's own value. torch's layers are used wherever they compute the same; what torch
does not have stands in `torch_layers.py`. One file a family, as in `native.rules`; may import net
and size, and torch inside functions.
"""

from __future__ import annotations

from lanewise.bridge.draft import Rule
from lanewise.bridge.rules import channels, convolutions, joins, norms, pools, values
from lanewise.net import layers as kinds

RULES: dict[type[kinds.Layer], Rule] = {
    kinds.Input: joins.image,
    kinds.Conv: convolutions.conv,
    kinds.DepthwiseConv: convolutions.depthwise,
    kinds.PartialConv: convolutions.partial,
    kinds.TransposedConv: convolutions.transposed,
    kinds.MaxPool: pools.max_pool,
    kinds.AvgPool: pools.avg_pool,
    kinds.SumPool: pools.sum_pool,
    kinds.L2Pool: pools.l2_pool,
    kinds.Subsample: pools.subsample,
    kinds.AdaptiveMax: pools.adaptive_max,
    kinds.AdaptiveAvg: pools.adaptive_avg,
    kinds.GlobalMax: pools.global_max,
    kinds.GlobalAvg: pools.global_avg,
    kinds.GlobalSum: pools.global_sum,
    kinds.Flatten: channels.flatten,
    kinds.Linear: channels.linear,
    kinds.RadialBasis: channels.radial_basis,
    kinds.ReLU: values.relu,
    kinds.LeakyReLU: values.leaky_relu,
    kinds.ReLU6: values.relu6,
    kinds.ELU: values.elu,
    kinds.SiLU: values.silu,
    kinds.GELU: values.gelu,
    kinds.Tanh: values.tanh,
    kinds.Sigmoid: values.sigmoid,
    kinds.HardSigmoid: values.hard_sigmoid,
    kinds.HardSwish: values.hard_swish,
    kinds.PReLU: values.prelu,
    kinds.BatchNorm: norms.batch_norm,
    kinds.LayerNorm: norms.layer_norm,
    kinds.GroupNorm: norms.group_norm,
    kinds.LocalResponseNorm: norms.local_response_norm,
    kinds.ChannelScale: norms.channel_scale,
    kinds.ChannelShuffle: channels.shuffle,
    kinds.ChannelSplit: channels.split,
    kinds.ChannelPad: channels.pad,
    kinds.Upsample: channels.upsample,
    kinds.Dropout: values.dropout,
    kinds.SpatialDropout: values.spatial_dropout,
    kinds.StochasticDepth: values.stochastic_depth,
    kinds.Add: joins.add,
    kinds.Multiply: joins.multiply,
    kinds.Concat: joins.concat,
}
