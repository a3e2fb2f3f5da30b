"""Which operations are units of an inverted residual whose many maps are never kept, and by which
strips of rows they are taken (`inverted.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lanewise.native.fuse import Operation
from lanewise.native.kernels.batch_norm_gradient import Run
from lanewise.native.kernels.taps import Taps, forward_taps, gradient_taps
from lanewise.native.plan import Slot
from lanewise.native.planner import Planner
from lanewise.native.rules import expanded, grouped, pointwise
from lanewise.native.rules.batch_norm import sends_away
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
FORWARD_BYTES = 448 << 10
BACKWARD_BYTES = 128 << 10
#: bytes of a row of the many maps, at most
LINE_BYTES = 320 << 10
#: channels at a time, at most
FORWARD_CHANNELS = 8
BACKWARD_CHANNELS = 8


@dataclass(frozen=True)
class Unit:
    """The four operations, and the 1 × 1 convolution that alone reads them, if the gradient of the
    last is worked out again from that of its few maps."""

    expansion: Operation
    norm: Operation
    depthwise: Operation
    after: Operation
    projection: Operation | None = None


@dataclass(frozen=True)
class Strip:
    """Rows of the many maps and of the depthwise convolution's result that belong together, and
    their relation. Backward the result's rows stand in a ring of so many, row r at place r modulo
    `ring`: what a strip has in common with the one before stays where it is."""

    number: int
    many: range
    result: range
    taps: Taps
    ring: int = 0


def unit_of(plan: Planner, operation: Operation) -> Unit | None:
    """The unit that an operation belongs to."""
    names = [one.name for one in plan.operations]
    at = names.index(operation.name)
    for first in range(max(0, at - 3), at + 1):
        four = plan.operations[first : first + 4]
        if len(four) == 4 and _fits(plan, *four):
            return Unit(*four, _projection(plan, four[-1]))
    return None


def _projection(plan: Planner, after: Operation) -> Operation | None:
    """The convolution behind a unit, if it makes few maps of what it alone reads, and if their
    gradient is theirs alone."""
    if plan.uses[after.name] != 1 or not sends_away(after, after.inputs[0]):
        return None
    conv, sources = plan.readers[after.name][0], after.shape[0]
    if len(after.inputs) > 1 or not pointwise.applies(plan, conv) or plan.uses[conv.name] != 1:
        return None
    norm, maps = plan.readers[conv.name][0], conv.shape[0]
    alone = isinstance(norm.layer, BatchNorm) and norm.inputs[0] == conv.name
    return conv if alone and maps <= MOST_SOURCES and 2 * maps <= sources else None


def projects(plan: Planner, conv: Operation) -> bool:
    """Whether this is the 1 × 1 convolution behind a unit."""
    before = plan.by_name[conv.inputs[0]] if conv.inputs else conv
    unit = unit_of(plan, before)
    return unit is not None and unit.after is before and unit.projection is conv


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
    groups, kernels, channels = grouped.parts(operation)
    plain = not grouped.layer_of(operation).bias
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
    line = channels * wide * VECTOR
    if line > LINE_BYTES:
        return []
    most = max(1, BACKWARD_BYTES // line)
    parts = _cut(rows, most, rows.period)
    ring = max((len(source) for _, source, _ in parts), default=0)
    return [
        Strip(i, own, source, _in_ring(relation, source, ring), ring)
        for i, (own, source, relation) in enumerate(parts)
    ]


def _in_ring(relation: Taps, source: range, ring: int) -> Taps:
    moved = tuple(
        tuple(None if s is None else (s + source.start) % ring for s in line)
        for line in relation.sources
    )
    return replace(relation, source=ring, sources=moved)


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


def new_rows(strips: Sequence[Strip], strip: Strip) -> range:
    """The rows of the result that no strip before it meets."""
    met = max((one.result.stop for one in strips[: strip.number]), default=strip.result.start)
    return range(met, strip.result.stop)


def runs_of(strip: Strip, rows: range, wide: int) -> list[Run]:
    """Rows of the result one after the other, and where they stand in the ring."""
    found: list[Run] = []
    for row in rows:
        read, written = (row - rows.start) * wide, row % strip.ring * wide
        if found and written == found[-1].target + found[-1].pixels:
            found[-1] = replace(found[-1], pixels=found[-1].pixels + wide)
        else:
            found.append(Run(read, written, wide))
    return found


def weight_taps(unit: Unit, strip: Strip) -> Taps:
    """The relation of a backward strip, seen from the ring of the result."""
    rows, _ = taps(unit.depthwise, forward_taps)
    moved: list[tuple[int | None, ...]] = [(None,) * rows.taps] * strip.ring
    for row in strip.result:
        met = (s if s in strip.many else None for s in rows.sources[row])
        moved[row % strip.ring] = tuple(None if s is None else s - strip.many.start for s in met)
    return Taps(strip.ring, len(strip.many), rows.taps, tuple(moved), 1, rows.advance)


def channels_at_a_time(channels: int, most: int) -> int:
    return max(n for n in range(1, most + 1) if channels % n == 0)


def rows_of(slot: Slot, rows: range, wide: int) -> Slot:
    """A place whose maps have rows of so many pixels, from a row on."""
    return replace(slot, offset=slot.offset + rows.start * wide * VECTOR)
