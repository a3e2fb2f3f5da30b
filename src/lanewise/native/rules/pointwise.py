"""1 × 1 convolutions in training, where maps are too large for the second cache: some pixels of all
maps at a time, together with the normalisations before and behind (`chains.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from lanewise.native import chains
from lanewise.native.fuse import Operation
from lanewise.native.kernels import pointwise as kernels
from lanewise.native.kernels.pointwise import Products
from lanewise.native.nest import LANES, Kernel
from lanewise.native.plan import FLOAT, Call, Place, Slot, Strips
from lanewise.native.planner import Planner
from lanewise.native.rules.batch_norm import before_norm, cleared, value_again
from lanewise.native.rules.batch_norm_gradient import gradient_before_sums
from lanewise.native.rules.windows import masked
from lanewise.native.tiles import line_tile, pair_tile
from lanewise.net.layers import BatchNorm, Conv
from lanewise.size.windows import resolve_window

#: bytes of the maps of a slice from which they are taken some pixels at a time
LARGE = 768 << 10


#: pixels of a strip, at most
STRIP_PIXELS = 64
#: weights up to which the sums of their lanes stay in the second cache from strip to strip
FEW_WEIGHTS = 4096


def applies(plan: Planner, operation: Operation) -> bool:
    """Whether this is such a convolution, large, in training, with a normalisation to join and few
    enough weights; others multiply quicker from copies of the whole (`ways.py`)."""
    layer = operation.layer
    if not plan.training or not isinstance(layer, Conv) or layer.groups > 1 or layer.bias:
        return False
    if prod(maps_of(operation)) > FEW_WEIGHTS or not _beside_a_norm(plan, operation):
        return False
    moves = resolve_window(layer, operation.input_shapes[0])
    plain = (moves.kernel, moves.stride, moves.pad) == ((1, 1), (1, 1), ((0, 0), (0, 0)))
    maps = operation.shape[0] + operation.input_shapes[0][0]
    return plain and not operation.relu and maps * pixels_of(operation) * LANES * FLOAT > LARGE


def _beside_a_norm(plan: Planner, operation: Operation) -> bool:
    before = plan.by_name[operation.inputs[0]]
    after = plan.readers.get(operation.name, ())
    return any(isinstance(one.layer, BatchNorm) for one in (before, *after))


def pixels_of(operation: Operation) -> int:
    return prod(operation.shape[1:])


def maps_of(operation: Operation) -> tuple[int, int]:
    """Kernels, and maps that they read."""
    return operation.shape[0], operation.input_shapes[0][0]


def strips_of(operation: Operation, pixels: int) -> Strips:
    """How so many pixels of what is made of few maps lie, if some of all maps are read at a
    time."""
    maps, sources = maps_of(operation)
    most = min(STRIP_PIXELS, chains.CHAIN_BYTES // 2 // ((maps + sources) * LANES * FLOAT))
    fitting = (Strips(maps, block) for block in range(max(1, most), 0, -1))
    return next(strips for strips in fitting if strips.fits(pixels))


def forward(plan: Planner, operation: Operation) -> None:
    maps, sources = maps_of(operation)
    _products(
        plan,
        "conv_forward",
        operation,
        Products(maps, sources, sources, 1),
        plan.value(operation.inputs[0]),
        before_norm(plan, operation),
    )


def gradient(plan: Planner, operation: Operation) -> None:
    """Of weights and input, from the gradient of the result."""
    gradients_from(plan, operation, plan.gradient(operation.name))


def gradients_from(
    plan: Planner, operation: Operation, dy: Slot, strips: Strips | None = None
) -> None:
    """The same from a gradient that stands elsewhere, in strips, and is not the whole of it."""
    weight_gradient(plan, operation, dy, strips)
    source = operation.inputs[0]
    if not plan.wants_gradient(source):
        return
    maps, sources = maps_of(operation)
    weights = Products(sources, maps, 1, sources)

    def emit(add: bool, target: Slot) -> None:
        values = masked(plan, source)
        _products(plan, "conv_input_gradient", operation, weights, dy, target, values, add, strips)

    if not strips and (near := gradient_before_sums(plan, source)):
        emit(False, near)
        return
    plan.contribute(source, lambda target: emit(False, target), lambda target: emit(True, target))


def _products(
    plan: Planner,
    stem: str,
    operation: Operation,
    weights: Products,
    source: Place,
    target: Place,
    values: Sequence[Place] = (),
    add: bool = False,
    strips: Strips | None = None,
) -> None:
    """Destination maps from source maps, which may lie in strips; `values` mask the result, `add`
    adds it to the target."""

    mask = bool(values)
    tile = line_tile(plan.target, weights.maps, weights.sources)

    def write(
        name: str, block: int, pitches: tuple[int, ...], ahead: tuple[int, int] | None = None
    ) -> Kernel:
        return kernels.products(
            name, weights, block, tile, pitches=pitches, mask=mask, accumulate=add, ahead=ahead
        )

    key = (weights, mask, add)
    marks = (strips or True, False, *(True for _ in values), True)
    fetches = (weights.maps, weights.sources)
    way = plan.by_pixels(stem, key, write, pixels_of(operation), *marks, fetches=fetches)
    plan.call_pieces((way,), source, plan.parameter(operation, "weight"), *values, target)


def multiply(
    plan: Planner, operation: Operation, x: Slot, matrix: Slot, begin: Slot, target: Slot
) -> None:
    """target = matrix · x + begin, at every pixel of what the convolution reads."""
    sources = operation.input_shapes[0][0]
    weights = Products(sources, sources, sources, 1)

    tile = line_tile(plan.target, sources, sources)

    def write(name: str, block: int, pitches: tuple[int, ...]) -> Kernel:
        return kernels.products(name, weights, block, tile, pitches=pitches, bias=True)

    marks = (True, False, False, True)
    way = plan.by_pixels("pull", sources, write, pixels_of(operation), *marks)
    plan.call_pieces((way,), x, matrix, begin, target)


def weight_lanes(plan: Planner, operation: Operation) -> tuple[Slot, Call, Call]:
    """The sums of every lane for the weights; what clears them, and what adds them up."""
    weights = prod(maps_of(operation))
    sums = plan.scratch(f"sums {operation.name}", weights * LANES * FLOAT)
    closing = plan.made(
        "add_weight_lanes",
        weights,
        lambda name: kernels.add_weight_lanes(name, weights),
        sums,
        plan.partial(operation, "weight"),
    )
    return sums, cleared(plan, sums), closing


def weight_gradient(
    plan: Planner, operation: Operation, dy: Slot, strips: Strips | None = None
) -> None:
    maps, sources = maps_of(operation)
    tile = pair_tile(plan.target, maps, sources)
    x = value_again(plan, operation.inputs[0])
    sums, opening, closing = weight_lanes(plan, operation)
    way = plan.by_pixels(
        "conv_weight_gradient",
        (maps, sources, tile),
        lambda name, block, pitches, ahead=None: kernels.weight_sums(
            name, maps, sources, block, tile, pitches, ahead
        ),
        pixels_of(operation),
        *(True, strips or True, False),
        fetches=(maps, sources),
        opening=(opening,),
        closing=(closing,),
    )
    plan.call_pieces((way,), x, dy, sums)
