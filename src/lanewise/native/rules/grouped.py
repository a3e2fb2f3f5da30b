"""Every convolution as a grouped one."""

from __future__ import annotations

from lanewise.native.fuse import Operation
from lanewise.net.layers import Conv, DepthwiseConv
from lanewise.size.windows import conv_of

#: kernels of a map up to which a convolution of one channel is computed map by map
MOST_MULTIPLIER = 3


def layer_of(operation: Operation) -> Conv:
    """The convolution, of whichever kind, as a grouped one."""
    assert isinstance(operation.layer, Conv | DepthwiseConv)
    return conv_of(operation.layer, operation.input_shapes[0])


def parts(operation: Operation) -> tuple[int, int, int]:
    """Groups; kernels and channels of each."""
    layer = layer_of(operation)
    channels = operation.input_shapes[0][0]
    return layer.groups, layer.kernels // layer.groups, channels // layer.groups


def is_depthwise(operation: Operation) -> bool:
    """Whether it looks at one channel at a time, and makes few maps of it."""
    _, kernels, channels = parts(operation)
    return channels == 1 and kernels <= MOST_MULTIPLIER
