"""Upsampling: each pixel repeated, or bilinear."""

from __future__ import annotations

from lanewise.native.fuse import Operation
from lanewise.native.kernels import upsample
from lanewise.native.nest import Kernel
from lanewise.native.planner import Planner
from lanewise.native.rules.windows import masked
from lanewise.net.layers import Upsample


def _sizes(operation: Operation) -> tuple[int, upsample.Size, upsample.Size, bool]:
    """Channels, height × width, scale, and whether bilinear."""
    layer = operation.layer
    assert isinstance(layer, Upsample)
    channels, height, width = operation.input_shapes[0]
    return channels, (height, width), layer.scale, layer.bilinear


def upsample_forward(plan: Planner, operation: Operation) -> None:
    channels, size, scale, bilinear = _sizes(operation)

    def write(name: str) -> Kernel:
        if not bilinear:
            return upsample.nearest(name, channels, size, scale)
        rows, columns = map(upsample.interpolation, size, scale)
        return upsample.weighted_sums(name, channels, rows, columns)

    plan.call(
        "upsample_bilinear" if bilinear else "upsample",
        (channels, size, scale),
        write,
        plan.value(operation.inputs[0]),
        plan.value(operation.name),
    )


def upsample_gradient(plan: Planner, operation: Operation) -> None:
    channels, size, scale, bilinear = _sizes(operation)
    source = operation.inputs[0]
    mask = plan.joined_relu(source)

    def write(name: str) -> Kernel:
        if not bilinear:
            return upsample.nearest_gradient(name, channels, size, scale, mask=mask)
        rows, columns = map(upsample.interpolation_gradient, size, scale)
        return upsample.weighted_sums(name, channels, rows, columns, mask=mask)

    plan.contribute(
        source,
        lambda target: plan.call(
            "upsample_bilinear_gradient" if bilinear else "upsample_gradient",
            (channels, size, scale, mask),
            write,
            plan.gradient(operation.name),
            *masked(plan, source),
            target,
        ),
    )
