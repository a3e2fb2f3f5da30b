"""Convolutions, depthwise ones too: forward, weight and bias gradients, input gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any, TypeAlias

from lanewise.native.fuse import Operation
from lanewise.native.kernels import conv, depthwise, matrix_conv, points
from lanewise.native.kernels.correlation import Correlation, Tile, paired_shape, paired_weights
from lanewise.native.kernels.depthwise import Depthwise
from lanewise.native.kernels.fused_norm import Tells
from lanewise.native.kernels.matrix_conv import MatrixTile
from lanewise.native.kernels.points import PointTile
from lanewise.native.kernels.taps import (
    LONGEST_LINE,
    Taps,
    forward_taps,
    gradient_taps,
    joined,
    phases,
)
from lanewise.native.kernels.winograd_places import Winograd
from lanewise.native.matrix_ways import matrix_tile
from lanewise.native.nest import LANES, Kernel
from lanewise.native.plan import FLOAT, Place, Slot
from lanewise.native.planner import Planner
from lanewise.native.point_ways import point_tile
from lanewise.native.rules import (
    fused_norm,
    matrices,
    pointwise,
    shortcuts,
    weight_gradient,
    winograd,
)
from lanewise.native.rules.batch_norm import before_norm, folded_norm, value_again
from lanewise.native.rules.grouped import is_depthwise, layer_of, parts
from lanewise.native.rules.stores import Store, store_of
from lanewise.native.rules.windows import masked, packed, taps
from lanewise.native.tiles import map_tile
from lanewise.native.ways import correlation_way, pooled_way, way_at_once

#: who writes a nest, its sizes and its tile
_Way: TypeAlias = tuple[Callable[..., Kernel], Any, Any]


def conv_forward(plan: Planner, operation: Operation) -> None:
    if pointwise.applies(plan, operation):
        pointwise.forward(plan, operation)
        return
    layer, source = layer_of(operation), plan.value(operation.inputs[0])
    options: dict[str, Any] = {"bias": layer.bias, "affine": operation.norm is not None}
    constants: list[Place] = [
        *([plan.parameter(operation, "bias")] if layer.bias else []),
        *folded_norm(plan, operation),
    ]
    fast = winograd.chosen(plan, operation, forward=True)
    way = _by_matrices(plan, operation, forward_taps, source, fast)
    store = store_of(plan, operation)
    if fast and not way:
        options |= store.options(plan)
        results = [*constants, *store.places(plan)]
        reads = fused_norm.forward_source(plan, operation)
        tells = fused_norm.statistics(plan, operation)
        options["away"] = bool(tells.way) and fused_norm.goes_away(operation)
        winograd.correlate(plan, operation, fast, options, reads, tells, results, forward=True)
        plan.stored.add(store.written.name)
        return
    correlate, sizes, tile = way or _nest(plan, operation, forward_taps, source)
    by_channels = isinstance(sizes, Depthwise)
    if by_channels:
        store = Store(operation)
    elif store.pool:
        even = pooled_way(plan.target, sizes) if isinstance(tile, Tile) else None
        store, tile = (store, even) if even else (Store(operation), tile)
    options |= store.options(plan)
    tells = _statistics(plan, operation, tile)
    if tells.way:
        options |= {"tells": tells.way, "away": fused_norm.goes_away(operation)}
    places = [before_norm(plan, operation)] if by_channels else store.places(plan)
    _call(
        plan,
        _stem("conv_forward", tile),
        (tile, *options.items()),
        sizes,
        lambda name, sizes: correlate(name, sizes, tile, **options),
        source,
        _weights(plan, operation, sizes, tile, "forward"),
        [*packed(plan, operation, sizes, tile), *tells.places, *constants, *places],
    )
    plan.stored.add(store.written.name)


def _statistics(plan: Planner, operation: Operation, tile: Any) -> winograd.Fused[Tells | None]:
    """What a direct convolution of all channels tells of its result."""
    if not isinstance(tile, Tile | PointTile):
        return winograd.Fused(None)
    return fused_norm.statistics(plan, operation)


def _call(
    plan: Planner,
    stem: str,
    key: object,
    sizes: Any,
    write: Callable[[str, Any], Kernel],
    source: Place,
    weight: Place,
    others: Sequence[Place],
) -> None:
    """Call a kernel of these sizes; `others` are places of its results' maps. A depthwise one looks
    at a channel at a time."""
    if not isinstance(sizes, Depthwise):
        plan.call(stem, (sizes, key), lambda name: write(name, sizes), source, weight, *others)
        return
    maps, taps = sizes.maps, sizes.taps
    source_map = sizes.sources * sizes.rows.source * sizes.columns.source * LANES * FLOAT
    result_map = maps * sizes.rows.destination * sizes.columns.destination * LANES * FLOAT
    plan.call_channels(
        stem,
        (replace(sizes, groups=1), key),
        lambda name, block: write(name, replace(sizes, groups=block)),
        sizes.groups,
        (source, source_map),
        (weight, maps * sizes.sources * taps * FLOAT),
        *((place, result_map if _is_map(place) else maps * FLOAT) for place in others),
    )


def _stem(name: str, tile: Any) -> str:
    return f"matrix_{name}" if isinstance(tile, MatrixTile) else name


def _is_map(place: Place) -> bool:
    """A value or a gradient, and not a number for every map."""
    return isinstance(place, Slot) and not place.worker


def conv_gradient(plan: Planner, operation: Operation) -> None:
    layer, dy = layer_of(operation), plan.gradient(operation.name)
    if pointwise.applies(plan, operation):
        pointwise.gradient(plan, operation)
        return
    inward = plan.wants_gradient(operation.inputs[0])
    both = inward and winograd.chosen_for_both(plan, operation) is not None
    first = both or operation.name in plan.unpulled  # who reads dy first makes it
    if inward and first:
        _input_gradient(plan, operation, both)
    if not both:
        weight_gradient.emit(plan, operation)
    if layer.bias:
        pixels = operation.shape[1] * operation.shape[2]
        plan.call(
            "conv_bias_gradient",
            (layer.kernels, pixels),
            lambda name: conv.bias_gradient(name, layer.kernels, pixels),
            dy,
            plan.partial(operation, "bias"),
        )
    if inward and not first:
        _input_gradient(plan, operation, both=False)


def _input_gradient(plan: Planner, operation: Operation, both: bool) -> None:
    """`both`: with that of the weights in the same pass."""
    source, dy = operation.inputs[0], plan.gradient(operation.name)
    fast = winograd.chosen(plan, operation, forward=False)
    way = _by_matrices(plan, operation, gradient_taps, dy, fast)
    nest = way or (None if fast else _nest(plan, operation, gradient_taps, dy))
    beside = shortcuts.taken(plan, operation, *nest[1:]) if nest else None

    def emit(add: bool, target: Slot) -> None:
        options: dict[str, Any] = {"mask": plan.joined_relu(source), "accumulate": add}
        results: list[Place] = [*masked(plan, source), target]
        if beside:
            options["thin"] = beside.shape
            results.insert(0, beside.place)
        if nest:
            _direct_input_gradient(plan, operation, nest, options, results)
        elif fast:
            keep = not both or layer_of(operation).bias
            reads = fused_norm.error_source(plan, operation, keep)
            tells = fused_norm.gradient_sums(plan, operation)
            large = fused_norm.goes_away(plan.by_name[source])
            options["away"] = bool(tells.way) and not add and large
            own = operation, fast, options
            if both:
                values = fused_norm.gradient_source(plan, operation)
                values = values or fused_norm.as_it_stands(value_again(plan, source))
                winograd.both_gradients(plan, *own, (reads, values), tells, results)
            else:
                winograd.correlate(plan, *own, reads, tells, results, forward=False)

    plan.contribute(source, lambda target: emit(False, target), lambda target: emit(True, target))


def _direct_input_gradient(
    plan: Planner,
    operation: Operation,
    nest: _Way,
    options: Mapping[str, Any],
    results: Sequence[Place],
) -> None:
    dy = plan.gradient(operation.name)
    correlate, sizes, tile = nest
    tells = _gradient_sums(plan, operation, sizes, tile, options)
    if tells.way:
        large = fused_norm.goes_away(plan.by_name[operation.inputs[0]])
        if options["mask"] and isinstance(tile, Tile) and tile.waits(sizes.sources):
            tile = way_at_once(plan.target, sizes)  # what is told must be masked
        options = {**options, "tells": tells.way, "away": large and not options["accumulate"]}
    _call(
        plan,
        _stem("conv_input_gradient", tile),
        (tile, *options.items()),
        sizes,
        lambda name, sizes: correlate(name, sizes, tile, **options),
        dy,
        _weights(plan, operation, sizes, tile, "gradient"),
        [*packed(plan, operation, sizes, tile), *tells.places, *results],
    )


def _gradient_sums(
    plan: Planner, operation: Operation, sizes: Any, tile: Any, options: Mapping[str, Any]
) -> winograd.Fused[Tells | None]:
    """What it tells of the gradient of its input, where results are met in one order, whatever the
    tile: not pixels between those of a stride that a 1 × 1 convolution skips, unless they are
    zero."""
    skips = sizes.rows.taps * sizes.columns.taps == 1 and len(phases(sizes.rows)) > 1
    given = options["accumulate"] or "thin" in options
    if (skips and given) or not isinstance(tile, Tile | PointTile):
        return winograd.Fused(None)
    return fused_norm.gradient_sums(plan, operation, lambda one: pointwise.applies(plan, one))


def _weights(plan: Planner, operation: Operation, sizes: Any, tile: Any, direction: str) -> Place:
    """The parameters; or pairs of them, that every worker makes for itself at the beginning."""
    given = plan.parameter(operation, "weight")
    if isinstance(tile, MatrixTile):
        return matrices.weights(plan, operation, sizes, tile, direction)
    if not isinstance(tile, Tile | PointTile) or not tile.pairs:
        return given
    shape = paired_shape(sizes)
    pairs = plan.constants(f"pairs {operation.name} {direction}", prod(shape) * FLOAT)
    plan.call(
        "paired_weights",
        shape,
        lambda name: paired_weights(name, *shape),
        given,
        pairs,
        who="worker",
    )
    return pairs


def _nest(plan: Planner, operation: Operation, make: Callable[..., Taps], source: Slot) -> _Way:
    """The nest that computes one direction from `source`, its sizes and its tile; `make` tells
    which."""
    sizes = _sizes(operation, make)
    small = map_tile(plan.target, sizes.rows, sizes.columns) if is_depthwise(operation) else None
    if small:
        own = sizes.groups, sizes.maps, sizes.sources, sizes.rows, sizes.columns
        return depthwise.correlate, Depthwise(*own), small
    pairs = plan.precision == "bf16" and source.maps
    tile = point_tile(plan.target, sizes, pairs)
    if tile:
        return points.products, sizes, tile
    return conv.correlate, sizes, correlation_way(plan.target, sizes, plan.precision, pairs=pairs)


def _by_matrices(
    plan: Planner,
    operation: Operation,
    make: Callable[..., Taps],
    source: Slot,
    fast: Winograd | None,
) -> _Way | None:
    """The same by small matrices of bf16, where the processor has them and nothing is quicker.
    `fast`: Winograd's algorithm that would do it."""
    if plan.precision != "bf16" or not source.maps:
        return None
    sizes = _sizes(operation, make)
    tile = matrix_tile(plan.target, sizes, fast)
    return (matrix_conv.correlate, sizes, tile) if tile else None


def _sizes(operation: Operation, make: Callable[..., Taps]) -> Correlation:
    groups, kernels, channels = parts(operation)
    rows, columns = joined(*taps(operation, make), LONGEST_LINE)
    forward = make is forward_taps
    maps, sources = (kernels, channels) if forward else (channels, kernels)
    area = rows.taps * columns.taps
    return Correlation(
        groups,
        maps,
        sources,
        rows,
        columns,
        weight_group=kernels * channels * area,
        weight_map=channels * area if forward else area,
        weight_source=area if forward else channels * area,
    )
