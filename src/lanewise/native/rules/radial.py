"""Radial basis functions: distances from fixed codes."""

from __future__ import annotations

from lanewise.native.fuse import Operation
from lanewise.native.kernels import radial
from lanewise.native.planner import Planner
from lanewise.native.tiles import linear_maps
from lanewise.net.codes import radial_codes
from lanewise.net.layers import RadialBasis


def _codes(operation: Operation) -> radial.Codes:
    layer = operation.layer
    assert isinstance(layer, RadialBasis)
    return radial_codes(layer.features, operation.input_shapes[0][0])


def radial_forward(plan: Planner, operation: Operation) -> None:
    codes, source = _codes(operation), operation.inputs[0]
    maps = linear_maps(plan.target, len(codes), 1)
    plan.call(
        "radial",
        codes,
        lambda name: radial.radial(name, codes, maps=maps),
        plan.value(source),
        plan.value(operation.name),
    )


def radial_gradient(plan: Planner, operation: Operation) -> None:
    codes, source = _codes(operation), operation.inputs[0]
    # Each input of the tile takes two registers: its value and its sum.
    maps = max(1, linear_maps(plan.target, len(codes[0]), 1) // 2)
    mask = plan.joined_relu(source)
    plan.contribute(
        source,
        lambda target: plan.call(
            "radial_gradient",
            (codes, mask),
            lambda name: radial.radial_gradient(name, codes, maps=maps, mask=mask),
            plan.gradient(operation.name),
            plan.value(source),
            target,
        ),
    )
