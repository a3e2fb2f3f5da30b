"""Inverted residuals whose many maps are never kept (`inverted.py`): their gradients, some rows
at a time, from that of the normalised depthwise result to that of the few maps.

What comes to the many maps, dy, needs only their normalised and rectified values, because the sums
that normalisation wants follow from the convolution's weight gradient:

    Σ dy (W x)[k]  =  Σ_c w[k,c] · Σ dy[k] x[c]
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lanewise.native.fuse import Operation
from lanewise.native.kernels import batch_norm_gradient as gradient_kernels
from lanewise.native.kernels import depthwise, depthwise_gradients, expansion, told_products
from lanewise.native.kernels import pointwise as point_kernels
from lanewise.native.kernels.batch_norm import MOMENTS
from lanewise.native.kernels.batch_norm_gradient import RowsBehind
from lanewise.native.kernels.depthwise import Depthwise, MapTile
from lanewise.native.kernels.pointwise import Products
from lanewise.native.kernels.taps import forward_taps, gradient_taps
from lanewise.native.kernels.told_products import ToldProducts
from lanewise.native.nest import Kernel
from lanewise.native.plan import FLOAT, Call, Place, Rows, Slot
from lanewise.native.planner import Planner
from lanewise.native.rules import batch_norm_gradient, pointwise
from lanewise.native.rules.batch_norm import cleared
from lanewise.native.rules.inverted_rows import (
    expand,
    mean_of,
    near_copy,
    near_rows,
    scaled_weights,
)
from lanewise.native.rules.norm_places import (
    VECTOR,
    lane_weight,
    map_bytes,
    moments_of,
    partials_of,
    rectifier_of,
    size_of,
    sums_of,
)
from lanewise.native.rules.units import (
    BACKWARD_CHANNELS,
    Strip,
    Unit,
    backward_strips,
    channels_at_a_time,
    new_rows,
    rows_of,
    runs_of,
    weight_taps,
)
from lanewise.native.rules.windows import masked, taps
from lanewise.native.tiles import (
    line_tile,
    map_gradients_tile,
    map_tile,
    map_weight_tile,
    pair_tile,
)


def gradients(plan: Planner, unit: Unit, add: bool, target: Slot) -> None:
    strips = backward_strips(unit)
    weights = scaled_weights(plan, unit)
    for strip in strips:
        plan.purpose = f"{unit.expansion.name} gradient"
        x = near_rows(plan, unit, strip)
        plan.purpose = f"{unit.after.name} gradient"
        behind = _behind(plan, unit, strip, new_rows(strips, strip))
        plan.purpose = f"{unit.expansion.name} gradient"
        value = expand(plan, unit, strip, (x, _apart(unit, strip)), BACKWARD_CHANNELS)
        plan.purpose = f"{unit.depthwise.name} gradient"
        reached = _depthwise_gradients(plan, unit, strip, behind, value)
        plan.purpose = f"{unit.expansion.name} gradient"
        _expansion_weights(plan, unit, strip, x, reached, last=strip is strips[-1])
        _source_gradient(plan, unit, strip, reached, weights, add, target)
    plan.purpose = f"{unit.norm.name} gradient"


@dataclass(frozen=True)
class _Behind:
    """How the gradient of the depthwise convolution's result is made of that of the normalised, of
    those rows that no strip before has worked out; the places, the last of which is the ring, and
    bytes from channel to channel at each."""

    rows: RowsBehind
    places: tuple[Place, ...]
    apart: tuple[int, ...]


def _behind(plan: Planner, unit: Unit, strip: Strip, rows: range) -> _Behind:
    deep, after = unit.depthwise, unit.after
    (channels, whole), wide = size_of(after), after.shape[2]
    ring = strip.ring * wide
    given = plan.scratch(f"ring gradient {deep.name}", channels * ring * VECTOR)
    d = rows_of(plan.value(deep.name), rows, wide)
    if unit.projection is None:
        pitch, dy = whole, rows_of(plan.gradient(after.name), rows, wide)
    else:
        pitch, dy = len(rows) * wide, _returned(plan, unit, strip, rows, d)
    known = (moments_of(plan, after), batch_norm_gradient.pull_of(plan, after), lane_weight())
    return _Behind(
        RowsBehind(tuple(runs_of(strip, rows, wide)), after.rectifier, (whole, pitch, ring)),
        (d, dy, *known, given),
        (map_bytes(after), pitch * VECTOR, MOMENTS * FLOAT, 2 * FLOAT, 0, ring * VECTOR),
    )


def _depthwise_gradients(
    plan: Planner, unit: Unit, strip: Strip, behind: _Behind, value: Slot
) -> Slot:
    """What the strip adds to the gradient of the depthwise convolution's weights; what comes to the
    many maps. In one pass, where the registers are enough."""
    _, columns = taps(unit.depthwise, gradient_taps)
    tile = map_gradients_tile(plan.target, strip.taps, columns)
    if tile:
        return _both_gradients(plan, unit, strip, behind, value, tile)
    given = _result_gradient(plan, unit, strip, behind)
    _depthwise_weights(plan, unit, strip, given, value)
    return _value_gradient(plan, unit, strip, given, value)


def _both_gradients(
    plan: Planner, unit: Unit, strip: Strip, behind: _Behind, value: Slot, tile: MapTile
) -> Slot:
    deep, norm = unit.depthwise, unit.norm
    channels, rectifier, pitch = norm.shape[0], rectifier_of(norm), _apart(unit, strip)
    _, columns = taps(deep, gradient_taps)
    sizes = Depthwise(1, 1, 1, strip.taps, columns)
    told, near = sums_of(plan, norm), _near_gradient(plan, unit, strip)
    way = plan.by_channels(
        "reached",
        (sizes, tile, behind.rows, pitch, rectifier),
        lambda name, block: depthwise_gradients.gradients(
            name, replace(sizes, groups=block), tile, behind.rows, pitch, rectifier
        ),
        channels,
        *behind.apart,
        sizes.taps * FLOAT,
        strip.taps.destination * columns.destination * VECTOR,
        *(2 * VECTOR, sizes.taps * FLOAT, pitch * VECTOR),
        opening=(cleared(plan, told),) if strip.number == 0 else (),
        strip=channels_at_a_time(channels, BACKWARD_CHANNELS),
        part=strip.number + 1,
    )
    weight, partial = plan.parameter(deep, "weight"), plan.partial(deep, "weight")
    plan.call_pieces((way,), *behind.places, weight, value, told, partial, near)
    return near


def _near_gradient(plan: Planner, unit: Unit, strip: Strip) -> Slot:
    """Where what comes to the many maps of a strip stands."""
    size = unit.norm.shape[0] * _apart(unit, strip) * VECTOR
    return plan.scratch(f"strip gradient {unit.norm.name} {strip.number}", size)


def _result_gradient(plan: Planner, unit: Unit, strip: Strip, behind: _Behind) -> Slot:
    """The gradient of the depthwise convolution's result, by itself."""
    channels = unit.after.shape[0]
    way = plan.by_channels(
        "gradient_rows",
        behind.rows,
        lambda name, block: gradient_kernels.gradient_rows(name, block, behind.rows),
        channels,
        *behind.apart,
        strip=channels_at_a_time(channels, BACKWARD_CHANNELS),
        part=strip.number + 1,
    )
    plan.call_pieces((way,), *behind.places)
    given = behind.places[-1]
    assert isinstance(given, Slot)
    return given


def _returned(plan: Planner, unit: Unit, strip: Strip, rows: range, d: Slot) -> Slot:
    """What comes back to the normalised result, worked out again: to read it would take longer. The
    value before the normalisation is fetched meanwhile."""
    conv = unit.projection
    assert conv
    (maps, channels), (_, whole) = pointwise.maps_of(conv), size_of(unit.after)
    pixels, block = len(rows) * conv.shape[2], channels_at_a_time(channels, BACKWARD_CHANNELS)
    tile = line_tile(plan.target, block, maps)
    pitches = (pixels + expansion.APART, pixels)
    returned = plan.scratch(
        f"strip gradient {unit.after.name} {strip.number}", channels * pixels * VECTOR
    )
    dy = near_copy(plan, kept_gradient(plan, conv), rows, conv, strip)
    way = plan.by_channels(
        "conv_input_gradient",
        (maps, channels, pitches, whole, tile),
        lambda name, block: point_kernels.products(
            name,
            Products(block, maps, 1, channels),
            pixels,
            tile,
            pitches=pitches,
            ahead=(block, whole),
        ),
        channels,
        *(0, FLOAT, pixels * VECTOR, whole * VECTOR),
        strip=block,
        part=strip.number + 1,
    )
    plan.call_pieces((way,), dy, plan.parameter(conv, "weight"), returned, d)
    return returned


def _value_gradient(plan: Planner, unit: Unit, strip: Strip, given: Slot, value: Slot) -> Slot:
    """What comes to the many maps, normalised but not rectified, and what that adds to the sums."""
    deep, norm = unit.depthwise, unit.norm
    channels, rectifier = norm.shape[0], rectifier_of(norm)
    _, columns = taps(deep, gradient_taps)
    pitch = _apart(unit, strip)
    sizes = Depthwise(1, 1, 1, strip.taps, columns)
    tile = map_tile(plan.target, strip.taps, columns)
    assert tile
    told, near = sums_of(plan, norm), _near_gradient(plan, unit, strip)
    one = strip.taps.destination * columns.destination * VECTOR
    way = plan.by_channels(
        "reached",
        (sizes, tile, pitch, rectifier),
        lambda name, block: expansion.reached(
            name, replace(sizes, groups=block), tile, pitch, rectifier
        ),
        channels,
        strip.taps.source * columns.source * VECTOR,
        sizes.taps * FLOAT,
        *[one] * bool(rectifier),
        *(2 * VECTOR, pitch * VECTOR),
        opening=(cleared(plan, told),) if strip.number == 0 else (),
        strip=channels_at_a_time(channels, BACKWARD_CHANNELS),
        part=strip.number + 1,
    )
    weight, values = plan.parameter(deep, "weight"), [value] * bool(rectifier)
    plan.call_pieces((way,), given, weight, *values, told, near)
    return near


def _apart(unit: Unit, strip: Strip) -> int:
    """Pixels from map to map of what lies near."""
    return len(strip.many) * unit.norm.shape[2] + expansion.APART


def _depthwise_weights(plan: Planner, unit: Unit, strip: Strip, given: Slot, value: Slot) -> None:
    _, columns = taps(unit.depthwise, forward_taps)
    rows, channels = weight_taps(unit, strip), unit.depthwise.shape[0]
    line = map_weight_tile(plan.target, rows, columns)
    assert line
    sizes = Depthwise(1, 1, 1, rows, columns)
    way = plan.by_channels(
        "conv_weight_gradient",
        (sizes, line),
        lambda name, block: depthwise.weight_gradient(name, replace(sizes, groups=block), line),
        channels,
        rows.source * columns.source * VECTOR,
        rows.destination * columns.destination * VECTOR,
        sizes.taps * FLOAT,
        strip=channels_at_a_time(channels, BACKWARD_CHANNELS),
        part=strip.number + 1,
    )
    plan.call_pieces((way,), value, given, plan.partial(unit.depthwise, "weight"))


def _expansion_weights(
    plan: Planner, unit: Unit, strip: Strip, x: Slot, reached: Slot, *, last: bool
) -> None:
    """What the strip adds to the gradient of the first convolution's weights."""
    conv = unit.expansion
    (maps, sources), wide = pointwise.maps_of(conv), unit.norm.shape[2]
    tile = pair_tile(plan.target, maps, sources)
    sums = plan.scratch(f"sums {conv.name}", maps * sources * VECTOR)
    pixels = len(strip.many) * wide
    way = plan.by_pixels(
        "conv_weight_gradient",
        (maps, sources, tile),
        lambda name, block, pitches: point_kernels.weight_sums(
            name, maps, sources, block, tile, pitches
        ),
        pixels,
        *(Rows(pixels, _apart(unit, strip)), Rows(pixels, _apart(unit, strip)), False),
        opening=(cleared(plan, sums),) if strip.number == 0 else (),
        closing=(_finish_sums(plan, unit, sums),) if last else (),
        strip=pointwise.strips_of(conv, pixels).pixels,
        part=strip.number + 1,
    )
    plan.call_pieces((way,), x, reached, sums)


def _finish_sums(plan: Planner, unit: Unit, sums: Slot) -> Call:
    conv, norm = unit.expansion, unit.norm
    maps, sources = pointwise.maps_of(conv)
    parameters = partials_of(plan, norm)
    affine = bool(parameters)
    return plan.made(
        "finish_sums",
        (maps, sources, affine),
        lambda name: expansion.finish_sums(name, maps, sources, affine=affine),
        sums,
        plan.parameter(conv, "weight"),
        moments_of(plan, norm),
        mean_of(plan, unit),
        sums_of(plan, norm),
        plan.partial(conv, "weight"),
        *parameters,
    )


def _source_gradient(
    plan: Planner, unit: Unit, strip: Strip, reached: Slot, weights: Slot, add: bool, target: Slot
) -> None:
    """Some rows of the gradient of the few maps."""
    conv, wide = unit.expansion, unit.norm.shape[2]
    maps, sources = pointwise.maps_of(conv)
    sizes = Products(sources, maps, 1, sources)
    tile = line_tile(plan.target, sources, maps)
    values = masked(plan, conv.inputs[0])
    pixels = len(strip.many) * wide
    rows = Rows(pixels, pointwise.pixels_of(conv))
    mask = bool(values)
    way = plan.by_pixels(
        "conv_input_gradient",
        (sizes, mask, add),
        lambda name, block, pitches: point_kernels.products(
            name, sizes, block, tile, pitches=pitches, mask=mask, accumulate=add
        ),
        pixels,
        Rows(pixels, _apart(unit, strip)),
        False,
        *(rows for _ in values),
        rows,
        strip=pointwise.strips_of(conv, pixels).pixels,
        part=strip.number + 1,
    )
    near = [rows_of(place, strip.many, wide) for place in (*values, target)]
    plan.call_pieces((way,), reached, weights, *near)


def projection_gradient(plan: Planner, unit: Unit) -> None:
    """Of a projection: what it sends back is worked out again where it is wanted, so here only its
    sums are told."""
    conv, after = unit.projection, unit.after
    assert conv
    (maps, sources), told = pointwise.maps_of(conv), sums_of(plan, after)
    dy, parameters = plan.gradient(conv.name), partials_of(plan, after)
    pointwise.weight_gradient(plan, conv, dy)
    plan.has_gradient(after.name)
    plan.told_gradients.add(after.name)
    sizes, tile = Products(sources, maps, 1, sources), line_tile(plan.target, sources, maps)

    def write(
        name: str, block: int, pitches: tuple[int, ...], ahead: tuple[int, int] | None = None
    ) -> Kernel:
        tells = ToldProducts(sources, after.rectifier, pitches[1])
        return point_kernels.products(
            name, sizes, block, tile, pitches=pitches, ahead=ahead, told=tells
        )

    closing = plan.made(
        "finish_told",
        (sources, bool(parameters)),
        lambda name: told_products.finish_told(name, sources, affine=bool(parameters)),
        moments_of(plan, after),
        told,
        *parameters,
    )
    way = plan.by_pixels(
        "conv_told_gradient",
        (sizes, after.rectifier),
        write,
        pointwise.pixels_of(conv),
        *(True, False, True, False, False),
        fetches=(maps, sources),
        opening=(cleared(plan, told),),
        closing=(closing,),
    )
    known = (plan.value(unit.depthwise.name), moments_of(plan, after), told)
    plan.call_pieces((way,), dy, plan.parameter(conv, "weight"), *known)


def kept_gradient(plan: Planner, conv: Operation) -> Slot:
    """Where the gradient of a projection's result is kept, whole. Near, in the phase that works it
    out, is another."""
    return plan.scratch(f"kept gradient {conv.name}", conv.elements * VECTOR)
