"""Some rows of the maps that a 1 × 1 convolution makes of few, normalised and rectified: worked out
where they are read, and what their gradients need.

With dy what comes to the normalised maps, all that a batch normalisation and its convolution want
are the sums of dy, and of dy with the few maps x (`finish_sums`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from lanewise.native.kernels.batch_norm import (
    INVERSE,
    MOMENTS,
    RECTIFIERS,
    SCALE,
    SHIFT,
    UNROLLED,
)
from lanewise.native.kernels.batch_norm_gradient import through
from lanewise.native.kernels.depthwise import Depthwise, MapTile, correlate_into
from lanewise.native.kernels.functions import number
from lanewise.native.kernels.lanes import pieces, spread, total
from lanewise.native.kernels.pointwise import LineTile, Products, tiles
from lanewise.native.kernels.register_tiles import add_product, blocks
from lanewise.native.nest import (
    LANES,
    Buffer,
    Index,
    IndexLike,
    Kernel,
    Read,
    Register,
    Value,
    as_index,
    op,
)
from lanewise.native.writer import Writer

#: pixels more from map to map of rows that lie near: maps of a size that is a power of two would
#: meet in few sets of the caches
APART = 1


def near_rows(name: str, maps: int, pixels: int, pitch: int) -> Kernel:
    """Buffers source (maps, pitch), target (maps, pixels + APART): some pixels of all maps, copied
    so that those of several maps do not meet in one set of the first cache."""
    source = Buffer("source", (maps, pitch, LANES))
    target = Buffer("target", (maps, pixels + APART, LANES), access="update")
    writer = Writer(name, [source, target])
    with writer.loop("c", maps) as c:
        for first, count, times in blocks(pixels, UNROLLED):
            with writer.loop("n", first + count * times, first, count) as n:
                for k in range(count):
                    at = as_index(n) + k
                    writer.store(target, c, at, 0, value=writer.load(source, c, at, 0))
    return writer.finish()


def expand(
    name: str,
    sizes: Products,
    pixels: int,
    tile: LineTile,
    pitch: int,
    rectifier: str,
) -> Kernel:
    """Buffers source (sources, pitch), weight, moments (maps, 5), target (maps, pixels): weight ·
    source, normalised and rectified. The weights are those of `scaled_weights`: what is left of the
    normalisation is where the sums begin."""
    source = Buffer("source", (sizes.sources, pitch, LANES))
    weight = Buffer("weight", (sizes.maps * sizes.sources,), align=4)
    moments = Buffer("moments", (sizes.maps, MOMENTS), align=4)
    target = Buffer("target", (sizes.maps, pixels, LANES), access="write")
    writer = Writer(name, [source, weight, moments, target])
    for columns in tiles(writer, "n", pixels, tile.pixels):
        for lines in tiles(writer, "k", sizes.maps, tile.maps):
            shifts = [
                writer.let(writer.splat(moments, lines.begin + i, SHIFT), "begin")
                for i in range(lines.width)
            ]
            cells = [writer.accumulators("a", columns.width, shift) for shift in shifts]
            with writer.loop("c", sizes.sources) as c:
                at = lines.begin * sizes.weight_map + as_index(c) * sizes.weight_source
                loaded = [
                    writer.let(writer.load(source, c, columns.begin + j, 0), "x")
                    for j in range(columns.width)
                ]
                for i, row in enumerate(cells):
                    scalar = writer.let(writer.splat(weight, at + i * sizes.weight_map), "w")
                    for x, cell in zip(loaded, row, strict=True):
                        add_product(writer, cell, scalar, x)
            for i, row in enumerate(cells):
                for j, cell in enumerate(row):
                    y = RECTIFIERS[rectifier](Read(cell))
                    writer.store(target, lines.begin + i, columns.begin + j, 0, value=y)
    return writer.finish()


@dataclass(frozen=True)
class _Reached:
    """The gradient that reaches a normalised and rectified value, through the rectifier: goes to
    the target, and is summed for each map."""

    value: Buffer
    told: Buffer
    target: Buffer
    rectifier: str
    sums: list[Register] = field(default_factory=list)

    @property
    def buffers(self) -> list[Buffer]:
        return [*[self.value] * bool(self.rectifier), self.told, self.target]

    def start(self, writer: Writer, at: tuple[IndexLike, ...]) -> Value:
        return number(0.0)

    def store(self, writer: Writer, at: tuple[IndexLike, ...], value: Value) -> None:
        k, row, column, _ = at
        if self.rectifier:
            known = writer.let(writer.load(self.value, *at), "known")
            value = through(self.rectifier, known, value)
        value = writer.let(value, "dy")
        wide = self.value.shape[2]
        assert isinstance(wide, int)
        writer.store(self.target, k, as_index(row) * wide + column, 0, value=value)
        self.sums.append(self.sums.pop(0))
        writer.assign(self.sums[0], op("add", Read(self.sums[0]), value))

    @contextmanager
    def around(self, writer: Writer, source: Buffer, weight: Buffer, k: Index) -> Iterator[None]:
        self.sums[:] = writer.accumulators("sum", 4)
        yield
        before = writer.load(self.told, k, 0, 0)
        writer.store(self.told, k, 0, 0, value=op("add", before, total(self.sums)))


def reached(name: str, sizes: Depthwise, tile: MapTile, pitch: int, rectifier: str) -> Kernel:
    """Buffers source, weight, [value], told (maps, 2, 16), target (maps, pitch): the depthwise
    convolution's gradient, through the rectifier where there is one; its sums of every lane are
    added to the first that are told."""
    maps = sizes.groups
    shape = (maps, sizes.rows.destination, sizes.columns.destination, LANES)
    goal = _Reached(
        Buffer("value", shape),
        Buffer("told", (maps, 2, LANES), access="update"),
        Buffer("target", (maps, pitch, LANES), access="update"),
        rectifier,
    )
    return correlate_into(name, sizes, tile, goal, goal.around)


def scaled_weights(name: str, maps: int, sources: int) -> Kernel:
    """Buffers weight (maps, sources), moments, scaled (maps, sources): those of convolution and
    normalisation together."""
    weight = Buffer("weight", (maps, sources), align=4)
    moments = Buffer("moments", (maps, MOMENTS), align=4)
    scaled = Buffer("scaled", (maps, sources), access="write", align=4)
    writer = Writer(name, [weight, moments, scaled])
    with writer.loop("k", maps) as k:
        scale = writer.let(writer.load(moments, k, SCALE, lanes=1), "scale")
        for piece in pieces(sources):
            for i in range(piece.count):
                at = piece.start + i * piece.lanes
                row = writer.load(weight, k, at, lanes=piece.lanes)
                writer.store(scaled, k, at, value=op("mul", row, spread(scale, piece.lanes)))
    return writer.finish()


def finish_sums(name: str, maps: int, sources: int, *, affine: bool) -> Kernel:
    """Buffers sums (maps, sources, 16), weight (maps, sources), moments, mean (sources), told
    (maps, 2, 16), partial (maps, sources), [weight, bias]. With the sums of dy · x, where dy is
    what comes to the normalised maps, and of dy (told):

        Σ dy · x̂[k]  =  inv[k] · Σ_c w[k,c] · (Σ dy x[c] − mean[c] · Σ dy)

    is told as well; both are added to the gradients of the normalisation's parameters, scale ·
    Σ dy x to those of the convolution's weights.
    """
    sums = Buffer("sums", (maps, sources, LANES))
    weight = Buffer("matrix", (maps, sources), align=4)
    moments = Buffer("moments", (maps, MOMENTS), align=4)
    mean = Buffer("mean", (sources,), align=4)
    told = Buffer("told", (maps, 2, LANES), access="update")
    partial = Buffer("partial", (maps, sources), access="update", align=4)
    parameters = [
        Buffer(which, (maps,), access="update", align=4) for which in ("weight", "bias")
    ] * affine
    writer = Writer(name, [sums, weight, moments, mean, told, partial, *parameters])
    with writer.loop("k", maps) as k:
        scale = writer.let(writer.load(moments, k, SCALE, lanes=1), "scale")
        whole = writer.let(writer.load(told, k, 0, 0), "whole")
        (product,) = writer.accumulators("product", 1)
        with writer.loop("c", sources) as c:
            part = writer.let(writer.load(sums, k, c, 0), "part")
            less = op("mul", writer.splat(mean, c), whole)
            add_product(writer, product, writer.splat(weight, k, c), op("sub", part, less))
            old = writer.load(partial, k, c, lanes=1)
            writer.store(partial, k, c, value=op("fma", scale, op("lanesum", part), old))
        inverse = writer.splat(moments, k, INVERSE)
        away = writer.let(op("mul", Read(product), inverse), "away")
        writer.store(told, k, 1, 0, value=away)
        for target, value in zip(parameters, (away, whole), strict=False):
            old = writer.load(target, k, lanes=1)
            writer.store(target, k, value=op("add", old, op("lanesum", value)))
    return writer.finish()
