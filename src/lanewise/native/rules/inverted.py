"""Inverted residuals whose many maps are never kept: a large 1 × 1 convolution that makes many maps
of few, its batch normalisation, a depthwise convolution, and the next normalisation.

Reading the many maps from memory takes longer than working them out again from the few. So their
statistics are taken from those of the few (`kernels/expansion.py`), and where the depthwise
convolution needs them, forward and back, some rows of them are made, normalised and rectified, some
channels at a time. They, and all gradients between, stay in the second-level cache: only the
depthwise convolution's result and its gradient are kept.

Forward a strip is some rows of that result, with the rows that it reads. Backward it is some rows
of the expanded maps, with the gradients that reach them.
"""

from __future__ import annotations

from dataclasses import replace

from lanewise.native.fuse import Operation
from lanewise.native.kernels import depthwise_told, expansion, second_moments
from lanewise.native.kernels.batch_norm import TOLD
from lanewise.native.kernels.depthwise import Depthwise
from lanewise.native.kernels.taps import forward_taps
from lanewise.native.plan import FLOAT, Slot
from lanewise.native.planner import Planner
from lanewise.native.rules import batch_norm, batch_norm_gradient, convolution, expanded, pointwise
from lanewise.native.rules.batch_norm import cleared
from lanewise.native.rules.inverted_gradient import (
    gradients,
    kept_gradient,
    projection_gradient,
)
from lanewise.native.rules.inverted_rows import expand, mean_of, scaled_weights
from lanewise.native.rules.norm_places import (
    VECTOR,
    lane_weight,
    layer_of,
    map_bytes,
    moments_of,
    size_of,
    statistics_of,
    sums_of,
)
from lanewise.native.rules.units import (
    FORWARD_CHANNELS,
    Strip,
    Unit,
    channels_at_a_time,
    forward_strips,
    projects,
    rows_of,
    unit_of,
)
from lanewise.native.rules.windows import taps
from lanewise.native.tiles import map_told_tile


def conv_forward(plan: Planner, operation: Operation) -> None:
    """A convolution; where its maps are not kept, what a slice tells of the maps before."""
    unit = unit_of(plan, operation)
    if unit and operation is unit.expansion:
        _tell_products(plan, operation)
    elif unit and operation is unit.depthwise:
        _depthwise_forward(plan, unit)
    else:
        convolution.conv_forward(plan, operation)


def _told(plan: Planner, operation: Operation) -> Slot:
    floats = second_moments.told_floats(operation.input_shapes[0][0])
    return plan.scratch(f"products {operation.name}", floats * FLOAT)


def _tell_products(plan: Planner, operation: Operation) -> None:
    sources, pixels = operation.input_shapes[0][0], pointwise.pixels_of(operation)
    x = plan.value(operation.inputs[0])
    sizes = {"strip": second_moments.STRIP, "totals": 1, "products": sources}
    strip, totals, products = (
        plan.scratch(f"{which} before {operation.name}", sources * vectors * VECTOR)
        for which, vectors in sizes.items()
    )
    plan.call(
        "lane_products",
        (sources, pixels),
        lambda name: second_moments.lane_products(name, sources, pixels),
        *(x, strip, totals, products),
    )
    plan.call(
        "tell_products",
        (sources, pixels),
        lambda name: second_moments.tell_products(name, sources, pixels),
        *(x, totals, products, lane_weight()),
        _told(plan, operation),
        *expanded.few_moments(plan, operation),
    )


def norm_forward(plan: Planner, operation: Operation) -> None:
    """A batch normalisation; of maps that are not kept, its constants alone."""
    unit = unit_of(plan, operation)
    if not unit or operation is not unit.norm:
        batch_norm.forward(plan, operation)
        return
    conv, layer = unit.expansion, layer_of(operation)
    (maps, sources), pixels = pointwise.maps_of(conv), pointwise.pixels_of(conv)
    products = plan.constants(f"products before {operation.name}", sources * sources * FLOAT)
    moments = moments_of(plan, operation)
    plan.barrier()
    key = (maps, sources, pixels, layer.eps)
    plan.call(
        "collect_expanded",
        (key, layer.affine),
        lambda name: second_moments.collect(name, *key, affine=layer.affine),
        _told(plan, conv),
        plan.parameter(conv, "weight"),
        *batch_norm.affine_parameters(plan, operation),
        *(mean_of(plan, unit), products, moments),
        symbols=("slices", "images"),
        who="worker",
    )
    plan.call(
        "scaled_weights",
        (maps, sources),
        lambda name: expansion.scaled_weights(name, maps, sources),
        plan.parameter(conv, "weight"),
        moments,
        scaled_weights(plan, unit),
        who="worker",
    )
    batch_norm.update_running(plan, operation, moments)


def _depthwise_forward(plan: Planner, unit: Unit) -> None:
    strips = forward_strips(unit)
    for strip in strips:
        plan.purpose = f"{unit.expansion.name} forward"
        few = plan.value(unit.expansion.inputs[0])
        x = rows_of(few, strip.many, unit.norm.shape[2])
        pitch = pointwise.pixels_of(unit.expansion)
        value = expand(plan, unit, strip, (x, pitch), FORWARD_CHANNELS)
        plan.purpose = f"{unit.depthwise.name} forward"
        _correlate(plan, unit, strip, value)
    plan.purpose = f"{unit.after.name} forward"
    plan.told.add(unit.after.name)


def _correlate(plan: Planner, unit: Unit, strip: Strip, value: Slot) -> None:
    """A strip of the depthwise convolution's result, and what it adds to its statistics."""
    deep, after = unit.depthwise, unit.after
    (channels, whole), wide = size_of(after), after.shape[2]
    _, columns = taps(deep, forward_taps)
    sizes = Depthwise(1, 1, 1, strip.taps, columns)
    tile = map_told_tile(plan.target, strip.taps, columns)
    assert tile
    told, away = statistics_of(plan, after), batch_norm.sends_away(after, deep.name)
    way = plan.by_channels(
        "conv_forward",
        (sizes, tile, whole, away),
        lambda name, block: depthwise_told.correlate_told(
            name, replace(sizes, groups=block), tile, whole, away=away
        ),
        channels,
        strip.taps.source * columns.source * VECTOR,
        *(sizes.taps * FLOAT, TOLD * VECTOR, map_bytes(after)),
        opening=(cleared(plan, told),) if strip.number == 0 else (),
        strip=channels_at_a_time(channels, FORWARD_CHANNELS),
        part=strip.number + 1,
    )
    target = rows_of(plan.value(deep.name), strip.result, wide)
    plan.call_pieces((way,), value, plan.parameter(deep, "weight"), told, target)


# ---- gradients ----------------------------------------------------------------------------------


def depthwise_gradient(plan: Planner, operation: Operation) -> None:
    """Of a depthwise convolution; in a unit, its first normalisation does it."""
    if unit_of(plan, operation) is None:
        convolution.conv_gradient(plan, operation)


def conv_gradient(plan: Planner, operation: Operation) -> None:
    """Of a convolution; the one behind a unit tells what its normalisation wants to know."""
    if projects(plan, operation):
        unit = unit_of(plan, plan.by_name[operation.inputs[0]])
        assert unit
        projection_gradient(plan, unit)
    else:
        expanded.convolution_gradient(plan, operation)


def norm_gradient(plan: Planner, operation: Operation) -> None:
    """Of a batch normalisation: the second of a unit tells its sums; with the first comes all that
    is between."""
    unit = unit_of(plan, operation)
    if unit and operation is unit.after:
        told = batch_norm_gradient.tell_sums(plan, operation, keep=unit.projection is None)
        batch_norm_gradient.collect_pull(plan, operation, told)
    elif unit and operation is unit.norm:
        source = unit.expansion.inputs[0]
        plan.contribute(
            source,
            lambda target: gradients(plan, unit, False, target),
            lambda target: gradients(plan, unit, True, target),
        )
        told = sums_of(plan, operation)
        expanded.pull_later(plan, operation, unit.expansion, told)
    else:
        before = plan.by_name[operation.inputs[0]]
        if projects(plan, before):
            plan.kept_gradients[before.name] = kept_gradient(plan, before)
        expanded.norm_gradient(plan, operation)
