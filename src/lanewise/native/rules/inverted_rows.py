"""Inverted residuals whose many maps are never kept (`inverted.py`): rows of the few maps and of
the many, worked out near where they are read."""

from __future__ import annotations

from lanewise.native.fuse import Operation
from lanewise.native.kernels import expansion
from lanewise.native.kernels.batch_norm import MOMENTS
from lanewise.native.kernels.pointwise import Products
from lanewise.native.nest import Kernel
from lanewise.native.plan import FLOAT, Slot
from lanewise.native.planner import Planner
from lanewise.native.rules import pointwise
from lanewise.native.rules.norm_places import VECTOR, moments_of, rectifier_of, size_of
from lanewise.native.rules.units import Strip, Unit, channels_at_a_time, rows_of
from lanewise.native.tiles import line_tile


def near_rows(plan: Planner, unit: Unit, strip: Strip) -> Slot:
    """A strip of the few maps, laid out for the first cache, which every block of channels reads
    again."""
    source = unit.expansion.inputs[0]
    return near_copy(plan, plan.value(source), strip.many, plan.by_name[source], strip)


def near_copy(plan: Planner, maps: Slot, rows: range, shape: Operation, strip: Strip) -> Slot:
    """Some rows of maps of an operation's shape."""
    (count, whole), wide = size_of(shape), shape.shape[2]
    pixels = len(rows) * wide
    size = count * (pixels + expansion.APART) * VECTOR
    near = plan.scratch(f"near {maps.name} {plan.phase} {strip.number}", size)
    plan.call(
        "near_rows",
        (count, pixels, whole),
        lambda name: expansion.near_rows(name, count, pixels, whole),
        rows_of(maps, rows, wide),
        near,
    )
    return near


def expand(plan: Planner, unit: Unit, strip: Strip, few: tuple[Slot, int], most: int) -> Slot:
    """A strip of the many maps, normalised and rectified, from the few maps: where they stand, and
    pixels from one to the next."""
    conv, norm = unit.expansion, unit.norm
    (maps, sources), (_, _, wide) = pointwise.maps_of(conv), norm.shape
    pixels, (x, pitch) = len(strip.many) * wide, few
    value = plan.scratch(f"strip {norm.name} {plan.phase} {strip.number}", maps * pixels * VECTOR)
    block = channels_at_a_time(maps, most)
    tile = line_tile(plan.target, block, sources)
    rectifier = rectifier_of(norm)

    def write(name: str, block: int) -> Kernel:
        sizes = Products(block, sources, sources, 1)
        return expansion.expand(name, sizes, pixels, tile, pitch, rectifier)

    way = plan.by_channels(
        "expand",
        (sources, pixels, tile, pitch, rectifier),
        write,
        maps,
        *(0, sources * FLOAT, MOMENTS * FLOAT, pixels * VECTOR),
        strip=block,
        part=strip.number + 1,
    )
    plan.call_pieces(
        (way,),
        x,
        scaled_weights(plan, unit),
        moments_of(plan, norm),
        value,
    )
    return value


def scaled_weights(plan: Planner, unit: Unit) -> Slot:
    """A worker's: those of convolution and normalisation together."""
    maps, sources = pointwise.maps_of(unit.expansion)
    return plan.constants(f"scaled {unit.expansion.name}", maps * sources * FLOAT)


def mean_of(plan: Planner, unit: Unit) -> Slot:
    """A worker's: the means of the few maps."""
    sources = unit.expansion.input_shapes[0][0]
    return plan.constants(f"mean before {unit.norm.name}", sources * FLOAT)
