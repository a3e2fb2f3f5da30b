"""Which operations are units of an inverted residual whose many maps are never kept, and by which
strips of rows they are taken (`inverted.py`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lanewise.native.fuse import Operation
from lanewise.native.kernels.taps import Taps, forward_taps, gradient_taps
from lanewise.native.plan import Slot
from lanewise.native.planner import Planner
from lanewise.native.rules import convolution, expanded
from lanewise.native.rules.norm_places import VECTOR
from lanewise.native.rules.windows import taps
from lanewise.native.tiles import map_tile, map_weight_tile
from lanewise.net.layers import BatchNorm, Conv, DepthwiseConv

#: bytes of the many maps of a slice from which they are not kept
LARGE = 1 << 20
#: maps before the convolution, at most: of more, reading is quicker
MOST_SOURCES = 32
#: bytes of the few maps of a strip forward, and of the many maps' gradient of one backward: parts
#: of the second-level cache
FORWARD_BYTES = 384 << 10
BACKWARD_BYTES = 1 << 20
#: channels at a time, at most
FORWARD_CHANNELS = 8
BACKWARD_CHANNELS = 4


@dataclass(frozen=True)
class Unit:
    """The four operations."""

    expansion: Operation
    norm: Operation
    depthwise: Operation
    after: Operation


@dataclass(frozen=True)
class Strip:
    """Rows of the many maps and of the depthwise convolution's result that belong together, and
    their relation."""

    number: int
    many: range
    result: range
    taps: Taps


def unit_of(plan: Planner, operation: Operation) -> Unit | None:
    """The unit that an operation belongs to."""
    names = [one.name for one in plan.operations]
    at = names.index(operation.name)
    for first in range(max(0, at - 3), at + 1):
        four = plan.operations[first : first + 4]
        if len(four) == 4 and _fits(plan, *four):
            return Unit(*four)
    return None


def _fits(
    plan: Planner, conv: Operation, norm: Operation, deep: Operation, after: Operation
) -> bool:
    if not plan.training or plan.exact or plan.precision != "fp32":
        return False
    if norm.inputs != (conv.name,) or not expanded.expands(plan, norm, conv):
        return False
    if norm.elements * VECTOR < LARGE or conv.input_shapes[0][0] > MOST_SOURCES:
        return False
    if not _is_plain_depthwise(deep) or deep.inputs != (norm.name,) or plan.uses[norm.name] > 1:
        return False
    layer = after.layer
    if not isinstance(layer, BatchNorm) or layer.ghost or after.inputs != (deep.name,):
        return False
    if plan.uses[deep.name] > 1:
        return False
    return _strips_fit(plan, Unit(conv, norm, deep, after))


def _is_plain_depthwise(operation: Operation) -> bool:
    if not isinstance(operation.layer, Conv | DepthwiseConv) or operation.relu or operation.norm:
        return False
    groups, kernels, channels = convolution.parts(operation)
    plain = not convolution.layer_of(operation).bias
    return plain and groups > 1 and (kernels, channels) == (1, 1)


def _strips_fit(plan: Planner, unit: Unit) -> bool:
    forward, backward = forward_strips(unit), backward_strips(unit)
    _, columns = taps(unit.depthwise, forward_taps)
    _, back = taps(unit.depthwise, gradient_taps)
    tiles = [
        *(map_tile(plan.target, one.taps, columns) for one in forward),
        *(map_tile(plan.target, one.taps, back) for one in backward),
        *(map_weight_tile(plan.target, weight_taps(unit, one), columns) for one in backward),
    ]
    return bool(forward and backward) and all(tiles)


def forward_strips(unit: Unit) -> list[Strip]:
    """Some rows of the result each, and the rows that they read; none where they read too much
    twice."""
    rows, _ = taps(unit.depthwise, forward_taps)
    line = unit.norm.shape[2] * unit.expansion.input_shapes[0][0] * VECTOR
    most = (FORWARD_BYTES // line - rows.taps) // max(1, rows.advance) + 1
    if most * rows.advance < rows.taps:
        return []
    parts = _cut(rows, most, 1)
    return [Strip(i, source, own, relation) for i, (own, source, relation) in enumerate(parts)]


def backward_strips(unit: Unit) -> list[Strip]:
    """Some rows of the many maps each, and the rows of the result that read them."""
    rows, _ = taps(unit.depthwise, gradient_taps)
    channels, _, wide = unit.norm.shape
    most = BACKWARD_BYTES // (channels * wide * VECTOR)
    if most < rows.taps:
        return []
    parts = _cut(rows, most, rows.period)
    return [Strip(i, own, source, relation) for i, (own, source, relation) in enumerate(parts)]


def _cut(rows: Taps, most: int, period: int) -> list[tuple[range, range, Taps]]:
    """The destinations in parts of at most so many, a multiple of the period: of each the
    destinations, the sources that they meet, and the relation between."""
    even = -(-rows.destination // max(1, -(-rows.destination // max(1, most))))
    step = -(-even // period) * period
    found = []
    for begin in range(0, rows.destination, step):
        own = range(begin, min(begin + step, rows.destination))
        lines = rows.sources[own.start : own.stop]
        met = [s for line in lines for s in line if s is not None]
        if not met:
            return []
        source = range(min(met), max(met) + 1)
        moved = tuple(
            tuple(None if s is None else s - source.start for s in line) for line in lines
        )
        relation = Taps(len(own), len(source), rows.taps, moved, rows.period, rows.advance)
        found.append((own, source, relation))
    return found


def weight_taps(unit: Unit, strip: Strip) -> Taps:
    """The relation of a backward strip, seen from the result."""
    rows, _ = taps(unit.depthwise, forward_taps)
    lines = rows.sources[strip.result.start : strip.result.stop]
    moved = tuple(
        tuple(None if s is None or s not in strip.many else s - strip.many.start for s in line)
        for line in lines
    )
    return Taps(len(strip.result), len(strip.many), rows.taps, moved, 1, rows.advance)


def channels_at_a_time(channels: int, most: int) -> int:
    return max(n for n in range(1, most + 1) if channels % n == 0)


def rows_of(slot: Slot, rows: range, wide: int) -> Slot:
    """A place whose maps have rows of so many pixels, from a row on."""
    return replace(slot, offset=slot.offset + rows.start * wide * VECTOR)
