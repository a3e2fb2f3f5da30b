"""Rules for layers that treat every channel by itself: the usual kernels, with channels in lanes.

A kernel for C channels of sixteen images is one for C vectors of channels of one image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lanewise.native.fuse import Operation
from lanewise.native.kernels import activation, factors, gating, joins, pool, subsample, upsample
from lanewise.native.kernels import image_moves as moves
from lanewise.native.kernels import image_response_norm as image_norm
from lanewise.native.kernels.in_lanes import parameters_in_lanes
from lanewise.native.kernels.l2_pool import l2_pool
from lanewise.native.kernels.taps import balanced_width, forward_taps
from lanewise.native.latency.planner import (
    MOST_TASKS,
    VECTOR,
    ImagePlanner,
    size_of,
    vectors_of,
)
from lanewise.native.nest import LANES, Kernel
from lanewise.native.plan import FLOAT, Place, Region, Slot
from lanewise.native.rules import activations as activation_rules
from lanewise.native.rules import normalisation, pooling
from lanewise.native.rules.channels import channel_origins
from lanewise.native.rules.windows import taps
from lanewise.net.layers import (
    AdaptiveMax,
    BatchNorm,
    Concat,
    MaxPool,
    Multiply,
    PReLU,
    Upsample,
)

#: pixels whose neighbours are summed, and whose powers are worked out, together
PIXELS = 4


def _by_vectors(
    plan: ImagePlanner,
    stem: str,
    key: object,
    operation: Operation,
    write: Callable[[str, int], Kernel],
    sources: Sequence[tuple[Place, int]],
) -> None:
    """Tasks of some vectors of channels: `write(name, vectors)`. With every source: bytes from one
    vector of channels to the next."""
    pixels = size_of(operation.shape)[1]
    most = max(pixels, *(apart // VECTOR for _, apart in sources))
    count, block = plan.blocks_of_vectors(vectors_of(operation.shape), most)
    places = [*sources, (plan.value(operation.name), pixels * VECTOR)]
    plan.tasks(
        f"image_{stem}",
        (key, block),
        lambda name: write(name, block),
        count,
        *((place, apart * block) for place, apart in places),
    )


def _read(plan: ImagePlanner, operation: Operation, which: int = 0) -> tuple[Place, int]:
    shape = operation.input_shapes[which]
    return plan.read(operation.inputs[which], shape), size_of(shape)[1] * VECTOR


def _per_channel(plan: ImagePlanner, operation: Operation, which: str) -> tuple[Region, int]:
    vectors = vectors_of(operation.shape)
    kind = f"{which} of channels"
    return plan.pack(kind, operation.node, (vectors, LANES), vectors), VECTOR


# ---- pooling ------------------------------------------------------------------------------------


def max_pool(plan: ImagePlanner, operation: Operation) -> None:
    rows, columns = pooling.forward_windows(operation)
    assert isinstance(operation.layer, MaxPool | AdaptiveMax)
    relu = operation.relu

    def write(name: str, vectors: int) -> Kernel:
        return pool.max_pool(name, vectors, rows, columns, relu=relu, argument=False)

    _by_vectors(plan, "max_pool", (rows, columns, relu), operation, write, [_read(plan, operation)])


def sum_pool(plan: ImagePlanner, operation: Operation) -> None:
    rows, columns = pooling.forward_windows(operation)
    scale = pooling.pool_scale(operation)

    def write(name: str, vectors: int) -> Kernel:
        return pool.sum_pool(name, vectors, rows, columns, scale=scale)

    key = (rows, columns, scale)
    _by_vectors(plan, "sum_pool", key, operation, write, [_read(plan, operation)])


def l2(plan: ImagePlanner, operation: Operation) -> None:
    rows, columns = taps(operation, forward_taps)

    def write(name: str, vectors: int) -> Kernel:
        return l2_pool(name, vectors, rows, columns)

    _by_vectors(plan, "l2_pool", (rows, columns), operation, write, [_read(plan, operation)])


def subsampling(plan: ImagePlanner, operation: Operation) -> None:
    rows, columns = taps(operation, forward_taps)

    def write(name: str, vectors: int) -> Kernel:
        kernel = subsample.subsample(name, vectors, rows, columns)
        return parameters_in_lanes(kernel, ("weight", "bias"))

    parameters = [_per_channel(plan, operation, which) for which in ("weight", "bias")]
    sources = [_read(plan, operation), *parameters]
    _by_vectors(plan, "subsample", (rows, columns), operation, write, sources)


def global_pool(plan: ImagePlanner, operation: Operation) -> None:
    mode, (_, height, width) = pooling.global_mode(operation), operation.input_shapes[0]
    relu = operation.relu

    def write(name: str, vectors: int) -> Kernel:
        return pool.global_pool(name, mode, vectors, height, width, argument=False, relu=relu)

    key = (height, width, relu)
    _by_vectors(plan, f"global_{mode}", key, operation, write, [_read(plan, operation)])


def upsampling(plan: ImagePlanner, operation: Operation) -> None:
    layer, (_, *size) = operation.layer, operation.input_shapes[0]
    assert isinstance(layer, Upsample)
    height, width = size

    def write(name: str, vectors: int) -> Kernel:
        if not layer.bilinear:
            return upsample.nearest(name, vectors, (height, width), layer.scale)
        rows, columns = map(upsample.interpolation, (height, width), layer.scale)
        return upsample.weighted_sums(name, vectors, rows, columns)

    key = (height, width, layer.scale, layer.bilinear)
    _by_vectors(plan, "upsample", key, operation, write, [_read(plan, operation)])


# ---- value by value -----------------------------------------------------------------------------


def activate(plan: ImagePlanner, operation: Operation) -> None:
    word, parameter = operation.layer.word, activation_rules.activation_parameter(operation.layer)
    pixels, chains = size_of(operation.shape)[1], activation_rules.polynomials(plan.target)

    def write(name: str, vectors: int) -> Kernel:
        return activation.activation(name, word, vectors * pixels, parameter, chains=chains)

    _by_vectors(plan, word, (pixels, parameter), operation, write, [_read(plan, operation)])


def factor(plan: ImagePlanner, operation: Operation) -> None:
    """One factor a channel; a single one for all stays where the parameters are."""
    layer, pixels = operation.layer, size_of(operation.shape)[1]
    single = isinstance(layer, PReLU) and not layer.per_channel

    def write(name: str, vectors: int) -> Kernel:
        if single:
            return factors.factor(name, layer.word, 1, vectors * pixels)
        kernel = factors.factor(name, layer.word, vectors, pixels)
        return parameters_in_lanes(kernel, ("weight",))

    if single:
        at = plan.layout.parameters[f"{operation.node}.weight"].offset * FLOAT
        weight: tuple[Region, int] = Region("parameters", at), 0
    else:
        weight = _per_channel(plan, operation, "weight")
    key = (pixels, single)
    _by_vectors(plan, layer.word, key, operation, write, [_read(plan, operation), weight])


def normalise(plan: ImagePlanner, operation: Operation) -> None:
    """A batch normalisation that follows no convolution: a factor and a shift a channel."""
    assert isinstance(operation.layer, BatchNorm)
    vectors, pixels = vectors_of(operation.shape), size_of(operation.shape)[1]
    relu, node = operation.relu, operation.node

    def write(name: str, vectors: int) -> Kernel:
        return moves.scale_and_shift(name, vectors, pixels, relu=relu)

    both = [
        (plan.pack(kind, node, (vectors, LANES), vectors, norm=node), VECTOR)
        for kind in ("scale", "shift")
    ]
    sources = [_read(plan, operation), *both]
    _by_vectors(plan, "norm", (pixels, relu), operation, write, sources)


def neighbours(plan: ImagePlanner, operation: Operation) -> None:
    """Local response normalisation, in tasks of some pixels of all channels."""
    sizes = normalisation.neighbours(operation)
    count = max(n for n in range(1, MOST_TASKS + 1) if sizes.pixels % n == 0)
    block = sizes.pixels // count
    key = (sizes, balanced_width(block, PIXELS), block)
    row = image_norm.Row(sizes).length * FLOAT
    room = Slot(f"room {operation.name}", key[1] * row, worker=True)
    values = _read(plan, operation)[0], plan.value(operation.name)
    plan.tasks(
        "image_response_norm",
        key,
        lambda name: image_norm.response_norm(name, *key),
        count,
        (values[0], block * VECTOR),
        (room, 0),
        (values[1], block * VECTOR),
    )


# ---- several inputs -----------------------------------------------------------------------------


def join(plan: ImagePlanner, operation: Operation) -> None:
    """Sums and products; an input of one pixel meets every pixel of its channel."""
    kind = "mul" if isinstance(operation.layer, Multiply) else "add"
    pixels, relu = size_of(operation.shape)[1], operation.relu
    narrow = tuple(size_of(shape)[1] != pixels for shape in operation.input_shapes)

    def write(name: str, vectors: int) -> Kernel:
        if kind == "add" and not any(narrow):
            return joins.add(name, vectors * pixels, len(narrow), relu=relu)
        return gating.join(name, gating.Join(kind, vectors, pixels, narrow), relu=relu)

    sources = [_read(plan, operation, which) for which in range(len(narrow))]
    _by_vectors(plan, kind, (pixels, narrow, relu), operation, write, sources)


def concatenate(plan: ImagePlanner, operation: Operation) -> None:
    """Channels of all inputs behind each other."""
    counts = [shape[0] for shape in operation.input_shapes]
    origins = tuple((n, c) for n, count in enumerate(counts) for c in range(count))
    assert isinstance(operation.layer, Concat)
    _move(plan, operation, origins)


def rearrange(plan: ImagePlanner, operation: Operation) -> None:
    """Channels shuffled, split off or padded."""
    origins, _, _ = channel_origins(operation)
    _move(plan, operation, tuple(None if c is None else (0, c) for c in origins))


def _move(plan: ImagePlanner, operation: Operation, origins: moves.Origins) -> None:
    counts, pixels = [shape[0] for shape in operation.input_shapes], size_of(operation.shape)[1]
    sources = [_read(plan, operation, which)[0] for which in range(len(counts))]
    plan.call(
        "image_move",
        (origins, tuple(counts), pixels),
        lambda name: moves.move_channels(name, origins, counts, pixels),
        *sources,
        plan.value(operation.name),
    )
