"""The rule for 3 × 3 and 5 × 5 convolutions of stride 1 by Winograd's algorithm, where it pays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from math import prod

from lanewise.native.fuse import Operation
from lanewise.native.kernels import image_winograd
from lanewise.native.kernels.image_winograd import Products, Strip, strip_taps
from lanewise.native.kernels.taps import forward_taps
from lanewise.native.kernels.winograd_transforms import Algorithm
from lanewise.native.latency.planner import VECTOR, Ending, ImagePlanner, moved, vectors_of
from lanewise.native.latency.tiles import accumulators, cut, product_tile
from lanewise.native.nest import LANES
from lanewise.native.plan import FLOAT, Region, Slot
from lanewise.native.rules.windows import window
from lanewise.net.layers import Conv
from lanewise.size.shapes import Shape

#: bytes of transformed sources that a strip may always have: those of a second-level cache
STRIP_BYTES = 1280 << 10
#: tiles of a strip at least, so that every factor that is read meets some
LEAST_TILES = 24
#: bytes that may be read and written over and over: they stay in the second-level cache
NEAR_BYTES = 1000 << 10
#: bytes of factors that stay in the first-level cache
FACTOR_BYTES = 32 << 10
#: strips that are shared out, and vectors of output channels that one takes, where each is a task
LEAST_STRIPS, MOST_VECTORS = 6, 4
#: taps → the algorithms that are tried
ALGORITHMS = {3: (Algorithm(4, 3), Algorithm(2, 3)), 5: (Algorithm(4, 5),)}
#: what a byte of weights that comes from memory costs, and a number that is transformed (in vectors
#: of 16), in multiply–adds: fitted to layers of 16 to 512 channels on maps of 7 × 7 to 56 × 56
BYTE, TRANSFORMED = 8.7, 120.0
#: channels on both sides at least; the share of the direct way's cost from which it is not worth it
LEAST_CHANNELS, WORTH = LANES, 1.0


def chosen(operation: Operation, plan: ImagePlanner) -> Algorithm | None:
    """Which algorithm the plan takes, or None for the direct one."""
    shape = operation.input_shapes[0]
    flattened = shape != plan.by_name[operation.inputs[0]].shape
    if plan.exact or flattened or not isinstance(operation.layer, Conv):
        return None
    return cheapest(operation.layer, shape, operation.shape)


def cheapest(layer: Conv, source: Shape, result: Shape) -> Algorithm | None:
    """Which algorithm costs least for maps of these shapes, or None for the direct one."""
    taps, whole = layer.kernel[0], (1, 1)
    if layer.groups != 1 or layer.kernel != (taps, taps) or taps not in ALGORITHMS:
        return None
    if (layer.stride, layer.dilation) != (whole, whole) or min(
        source[0], result[0]
    ) < LEAST_CHANNELS:
        return None
    pairs = source[0] * layer.kernels
    direct = taps**2 * (prod(result[1:]) + BYTE * FLOAT) * pairs
    best = min(ALGORITHMS[taps], key=lambda one: _cost(one, result, source[0]))
    return best if WORTH * _cost(best, result, source[0]) < direct else None


def _cost(algorithm: Algorithm, shape: Shape, channels: int) -> float:
    """Products, factors to be read, transforms."""
    kernels, *sizes = shape
    tiles = prod(-(-size // algorithm.outputs) for size in sizes)
    vectors = vectors_of((channels,)) + vectors_of((kernels,))
    pairs = channels * kernels
    one = (tiles + BYTE * FLOAT) * pairs + tiles * vectors * TRANSFORMED
    return algorithm.points * one


@dataclass(frozen=True)
class _Part:
    """A strip, and where it begins in the source and in the result (rows)."""

    strip: Strip
    source_row: int
    result_row: int


def _strips(operation: Operation, algorithm: Algorithm, wanted: int = 0) -> Iterator[_Part]:
    """Strips of `wanted` rows of tiles; otherwise as large as pays where all threads share each."""
    moves = window(operation)
    channels, height, width = operation.input_shapes[0]
    rows, columns = operation.shape[1:]
    (top, _), (left, _) = moves.pad
    m = algorithm.outputs
    down, across = -(-rows // m), -(-columns // m)
    source_columns, result_columns, _, _ = strip_taps(algorithm, 0, across, width, columns, left)
    # A strip reads all factors; so it may be as large as they are before it is cut.
    one = algorithm.points * vectors_of((channels,)) * VECTOR
    most = max(STRIP_BYTES, one * vectors_of(operation.shape) * LANES)
    if not wanted:
        wanted = max(1, most // (one * across), -(-LEAST_TILES // across))
        wanted = -(-down // max(1, round(down / wanted)))
    for first in range(0, down, wanted):
        count = min(wanted, down - first)
        source, result, begin, start = strip_taps(algorithm, first, count, height, rows, top)
        strip = Strip(
            algorithm,
            (height, width),
            (rows, columns),
            source,
            source_columns,
            result,
            result_columns,
        )
        yield _Part(strip, begin, start)


def convolution_by_winograd(plan: ImagePlanner, operation: Operation, algorithm: Algorithm) -> None:
    """With few channels a strip is a task, otherwise all threads share a strip."""
    if near_bytes(operation, algorithm) <= NEAR_BYTES:
        _strips_as_tasks(plan, operation, algorithm)
    else:
        _strips_shared(plan, operation, algorithm)


def near_bytes(operation: Operation, algorithm: Algorithm) -> int:
    """What one row of tiles reads and writes over and over: factors, transformed values, products;
    nearly endless where it is not worth it."""
    sources, total = vectors_of(operation.input_shapes[0]), vectors_of(operation.shape)
    down, across = (-(-size // algorithm.outputs) for size in operation.shape[1:])
    if total > MOST_VECTORS or down < LEAST_STRIPS:
        return NEAR_BYTES + 1
    return algorithm.points * (sources * total * LANES + (sources + total) * across) * VECTOR


def _strips_as_tasks(plan: ImagePlanner, operation: Operation, algorithm: Algorithm) -> None:
    """One thread takes a strip through everything, near itself."""
    ending, total = plan.ending(operation), vectors_of(operation.shape)
    source = plan.read(operation.inputs[0], operation.input_shapes[0])
    ((_, _, _, factors),) = _factors(plan, operation, algorithm, total)
    bias = _bias(plan, operation)
    groups = [list(parts) for _, parts in groupby(_strips(operation, algorithm, 1), _strip)]
    for number, parts in enumerate(groups):
        last = number == len(groups) - 1
        _strip_tasks(plan, operation, parts, source, (factors, bias), ending, last)


def _strip_tasks(
    plan: ImagePlanner,
    operation: Operation,
    parts: list[_Part],
    source: Slot,
    weights: tuple[Region, Region],
    ending: Ending,
    barrier: bool,
) -> None:
    """Strips that are alike, a task each. `weights`: factors and bias."""
    strip, relu, adds = parts[0].strip, ending.relu, bool(ending.summands)
    algorithm = strip.algorithm
    sources, total = vectors_of(operation.input_shapes[0]), vectors_of(operation.shape)
    together = accumulators(plan.target) // total
    together = -(-strip.tiles // -(-strip.tiles // together))
    sizes = Products(total, sources, together, _group(sources, total), near=True)
    turned = algorithm.points * sources * strip.tiles * VECTOR
    room = turned + algorithm.points * total * strip.tiles * VECTOR
    work = Slot(f"products {operation.name}", room, worker=True)
    row, step = operation.input_shapes[0][2] * VECTOR, operation.shape[2] * VECTOR
    places = [
        (moved(slot, parts[0].result_row * step), algorithm.outputs * step)
        for slot in (*ending.summands, ending.target)
    ]
    factors, bias = weights
    plan.tasks(
        "image_winograd_strip",
        (strip, sizes, relu, adds),
        lambda name: image_winograd.convolve(name, strip, sizes, relu=relu, adds=adds),
        len(parts),
        (moved(source, parts[0].source_row * row), algorithm.outputs * row),
        (work, 0),
        (factors, 0),
        (bias, 0),
        (moved(work, turned), 0),
        *places,
        barrier=barrier,
    )


def _factors(
    plan: ImagePlanner, operation: Operation, algorithm: Algorithm, vectors: int
) -> list[tuple[int, int, int, Region]]:
    """Of blocks of so many vectors of output channels: first, vectors, blocks, and factors."""
    channels, total = operation.input_shapes[0][0], vectors_of(operation.shape)
    sources, norm = vectors_of((channels,)), operation.norm[0] if operation.norm else ""
    return [
        (first, wide, count, plan.pack(
            "factors",
            operation.node,
            (count, algorithm.points, sources, LANES, wide, LANES),
            first * LANES, count, wide, channels, algorithm.outputs, algorithm.taps,
            norm=norm,
        ))
        for first, wide, count in cut(total, vectors)
    ]  # fmt: skip


def _bias(plan: ImagePlanner, operation: Operation) -> Region:
    norm, total = operation.norm[0] if operation.norm else "", vectors_of(operation.shape)
    return plan.pack("bias", operation.node, (total, LANES), operation.shape[0], total, norm=norm)


def _group(sources: int, vectors: int) -> int:
    """Vectors of source channels whose factors of one point stay in the first-level cache; all
    where their number has no divisor near that."""
    most = max(1, FACTOR_BYTES // (LANES * vectors * VECTOR))
    best = max(one for one in range(1, most + 1) if sources % one == 0)
    return best if 2 * best > most else sources


def _strip(part: _Part) -> Strip:
    return part.strip


def _strips_shared(plan: ImagePlanner, operation: Operation, algorithm: Algorithm) -> None:
    """Strip by strip: transform (tasks of source channels), multiply (tasks of output channels)."""
    source = plan.read(operation.inputs[0], operation.input_shapes[0])
    ending = plan.ending(operation)
    sources, total = vectors_of(operation.input_shapes[0]), vectors_of(operation.shape)
    parts = list(_strips(operation, algorithm))
    tiles = parts[0].strip.tiles
    line = forward_taps(tiles, tiles, 1, 1, 0, 1)
    work = algorithm.points * tiles * sources * total * LANES * LANES
    vectors, together = product_tile(plan.target, total, line, work)
    blocks = _factors(plan, operation, algorithm, vectors)
    bias = _bias(plan, operation)
    for part in parts:
        turned = _transformed(plan, operation, part, source)
        for first, wide, count, factors in blocks:
            sizes = Products(wide, sources, together, _group(sources, wide))
            weights = factors, moved(bias, first * VECTOR)
            last = first + wide * count == total
            _products(plan, operation, part, turned, sizes, weights, ending, (first, count), last)


def _transformed(plan: ImagePlanner, operation: Operation, part: _Part, source: Slot) -> Slot:
    """The strip's tiles of all sources."""
    strip, shape = part.strip, operation.input_shapes[0]
    sources = vectors_of(shape)
    size = strip.algorithm.points * sources * strip.tiles * VECTOR
    turned = plan.scratch(f"transformed {operation.name}", size)
    plan.tasks(
        "image_transform",
        (strip, sources),
        lambda name: image_winograd.transform_source(name, strip, sources),
        sources,
        (moved(source, part.source_row * shape[2] * VECTOR), prod(shape[1:]) * VECTOR),
        (turned, strip.tiles * VECTOR),
    )
    return turned


def _products(
    plan: ImagePlanner,
    operation: Operation,
    part: _Part,
    turned: Slot,
    sizes: Products,
    weights: tuple[Region, Region],
    ending: Ending,
    block: tuple[int, int],
    barrier: bool,
) -> None:
    """Blocks of output channels of a strip, a task each. `weights`: factors and bias; `block`: the
    first vector, and how many blocks."""
    strip, relu, adds = part.strip, ending.relu, bool(ending.summands)
    (first, count), (factors, bias), wide = block, weights, sizes.vectors
    points, shape = strip.algorithm.points, operation.shape
    result_map = prod(shape[1:]) * VECTOR
    before = part.result_row * shape[2] * VECTOR + first * result_map
    room = points * wide * strip.tiles * VECTOR
    plan.tasks(
        "image_winograd",
        (strip, sizes, relu, adds),
        lambda name: image_winograd.multiply(name, strip, sizes, relu=relu, adds=adds),
        count,
        (turned, 0),
        (factors, points * sizes.sources * LANES * wide * VECTOR),
        (bias, wide * VECTOR),
        (Slot(f"products {operation.name}", room, worker=True), 0),
        *((moved(slot, before), wide * result_map) for slot in (*ending.summands, ending.target)),
        barrier=barrier,
    )
