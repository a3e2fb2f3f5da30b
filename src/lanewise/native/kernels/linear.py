"""Full connection: forward, gradient of the input, gradients of weight and bias.

    y[o]     = b[o] + Σ_i  w[o,i] · x[i]
    dx[i]    =        Σ_o  w[o,i] · dy[o]
    dw[o,i]  =        Σ over slices and lanes  dy[o] · x[i]
    db[o]    =        Σ over slices and lanes  dy[o]

The first two are one nest, `connect`: lanes are images, and several slices of 16 images are worked
on together, so that a weight is loaded once for all of them. The weight gradient is a product of
matrices with features in the lanes; its x comes from `images.to_rows`, block by block.
"""

from __future__ import annotations

from dataclasses import dataclass

from lanewise.native.kernels.functions import is_positive, keep_where, number, rectified
from lanewise.native.kernels.images import row_blocks
from lanewise.native.kernels.lanes import number as number_in_lanes
from lanewise.native.kernels.lanes import pieces, spread
from lanewise.native.kernels.register_tiles import add_product, blocks
from lanewise.native.nest import (
    LANES,
    Buffer,
    Index,
    IndexLike,
    Kernel,
    Read,
    Register,
    Symbol,
    Value,
    as_index,
    op,
)
from lanewise.native.writer import Writer

#: accumulators a tile may have where 32 vector registers exist
ACCUMULATORS = 24


# ---- forward, and the gradient of the input -----------------------------------------------------


def forward(
    name: str,
    outputs: int,
    inputs: int,
    slices: int,
    *,
    bias: bool,
    relu: bool,
    maps: int | None = None,
) -> Kernel:
    """Buffers source (slices, inputs, 16), weight (outputs, inputs), [bias], target
    (slices, outputs, 16). `maps`: outputs of a register tile."""
    return _connect(name, slices, outputs, inputs, (inputs, 1), maps, bias=bias, relu=relu)


def input_gradient(
    name: str, outputs: int, inputs: int, slices: int, *, mask: bool, maps: int | None = None
) -> Kernel:
    """Buffers source (dy: slices, outputs, 16), weight (outputs, inputs), [value], target
    (dx: slices, inputs, 16)."""
    return _connect(name, slices, inputs, outputs, (1, inputs), maps, mask=mask)


def _connect(
    name: str,
    slices: int,
    maps: int,
    sources: int,
    weight_strides: tuple[int, int],
    tile: int | None,
    *,
    bias: bool = False,
    relu: bool = False,
    mask: bool = False,
) -> Kernel:
    """target[s][k] = bias[k] + Σ_c weight[k·stride + c·stride] · source[s][c]."""
    source = Buffer("source", (slices, sources, LANES))
    weight = Buffer("weight", (maps * sources,), align=4)
    biases = Buffer("bias", (maps,), align=4)
    value = Buffer("value", (slices, maps, LANES))
    target = Buffer("target", (slices, maps, LANES), access="write")
    writer = Writer(name, [source, weight, *[biases] * bias, *[value] * mask, target])
    by_map, by_source = weight_strides

    def finish(s: int, k: IndexLike, result: Value) -> None:
        if relu:
            result = rectified(result)
        if mask:
            result = keep_where(is_positive(writer.load(value, s, k, 0)), result)
        writer.store(target, s, k, 0, value=result)

    for first, count, times in blocks(maps, tile or max(1, ACCUMULATORS // slices)):
        with writer.loop("k", first + count * times, first, count, shared=True) as k:
            begin = [
                writer.splat(biases, as_index(k) + i) if bias else number(0.0) for i in range(count)
            ]
            cells = [writer.accumulators("a", slices, start) for start in begin]
            with writer.loop("c", sources) as c:
                x = [writer.let(writer.load(source, s, c, 0), "x") for s in range(slices)]
                for i, line in enumerate(cells):
                    at = (as_index(k) + i) * by_map + as_index(c) * by_source
                    scalar = writer.let(writer.splat(weight, at), "w")
                    for cell, vector in zip(line, x, strict=True):
                        add_product(writer, cell, scalar, vector)
            for i, line in enumerate(cells):
                for s, cell in enumerate(line):
                    finish(s, as_index(k) + i, Read(cell))
    return writer.finish()


# ---- gradients of weight and bias ---------------------------------------------------------------


@dataclass(frozen=True)
class GradientTile:
    """Registers of the weight gradient: outputs × vectors of inputs."""

    outputs: int
    vectors: int


def gradient_tile(outputs: int, inputs: int) -> GradientTile:
    """The tile that cuts the inputs most evenly: 400 → 5 tiles of 5 vectors, 84 → 1 of 6."""
    vectors = sum(piece.count for piece in pieces(inputs))
    best = min((3, 4, 5, 6), key=lambda width: (_cost(vectors, width), width))
    best = min(best, vectors)
    return GradientTile(min(outputs, ACCUMULATORS // best + (best == 5)), best)


def _cost(vectors: int, width: int) -> float:
    """Cycles per output and lane, one load and two multiply–adds a cycle."""
    outputs = ACCUMULATORS // width + (width == 5)
    total = 0.0
    for _, wide, times in blocks(vectors, width):
        total += times * max(wide / 2, (outputs + wide) / outputs)
    return total


@dataclass(frozen=True)
class LaneVector:
    """Some neighbouring inputs: in which block they lie, and how many lanes they take."""

    block: int
    lane: int
    lanes: int


def weight_gradient(
    name: str, outputs: int, inputs: int, block: int, tile: GradientTile | None = None
) -> Kernel:
    """Buffers rows (slices, blocks, 16 images, 16 inputs), gradient (slices, outputs, 16 images),
    target (block, inputs); symbol slices.

    Computes `block` of the outputs: the caller moves the pointers of gradient and target to the
    first of them.
    """
    slices = Symbol("slices")
    rows = Buffer("rows", (slices, row_blocks(inputs), LANES, LANES))
    gradient = Buffer("gradient", (slices, outputs, LANES))
    align = 64 if inputs % LANES == 0 else 4
    target = Buffer("target", (block, inputs), access="write", align=align)
    writer = Writer(name, [rows, gradient, target], [slices])
    tile = tile or gradient_tile(block, inputs)
    for start, turns, vectors in vector_tiles(inputs, tile.vectors):
        with writer.loop("b", turns) as b:
            first_block = as_index(b) * len(vectors) + start
            for o, count, times in blocks(block, tile.outputs):
                with writer.loop("o", o + count * times, o, count) as first:
                    _gradient_tile(writer, as_index(first), count, first_block, vectors)
    return writer.finish()


def _gradient_tile(
    writer: Writer, first: Index, count: int, start: Index, vectors: list[LaneVector]
) -> None:
    """`count` outputs from the first × some vectors of inputs; `start`: the block that the vectors'
    block numbers count from."""
    rows, gradient, target = writer.buffers
    cells = [
        [
            writer.assign(writer.register("dw", lanes=v.lanes), number_in_lanes(0.0, v.lanes))
            for v in vectors
        ]
        for _ in range(count)
    ]
    with writer.loop("s", writer.symbols[0]) as s, writer.loop("l", LANES) as lane:
        x = [
            writer.let(writer.load(rows, s, start + v.block, lane, v.lane, lanes=v.lanes))
            for v in vectors
        ]
        for i, line in enumerate(cells):
            dy = writer.load(gradient, s, first + i, lane, lanes=1)
            wide = {v.lanes: writer.let(spread(dy, v.lanes), "dy") for v in vectors}
            for v, cell, vector in zip(vectors, line, x, strict=True):
                add_product(writer, cell, wide[v.lanes], vector)
    for i, line in enumerate(cells):
        for v, cell in zip(vectors, line, strict=True):
            at = (start + v.block) * LANES + v.lane
            writer.store(target, first + i, at, value=Read(cell))


def vector_tiles(inputs: int, width: int) -> list[tuple[int, int, list[LaneVector]]]:
    """(first block, how many such tiles, vectors of one): whole blocks, then what is left."""
    whole = inputs // LANES
    tail = [
        LaneVector(0, piece.start % LANES, piece.lanes)
        for piece in pieces(inputs)
        if piece.lanes < LANES
    ]
    tiles = []
    for first, count, times in blocks(whole, width):
        tiles.append((first, times, [LaneVector(i, 0, LANES) for i in range(count)]))
    if tail and tiles and tiles[-1][1] == 1 and len(tiles[-1][2]) + len(tail) <= width:
        first, _, vectors = tiles.pop()
        joined = [LaneVector(whole - first, v.lane, v.lanes) for v in tail]
        return [*tiles, (first, 1, vectors + joined)]
    return [*tiles, (whole, 1, tail)] if tail else tiles


def bias_gradient(name: str, outputs: int) -> Kernel:
    """Buffers gradient (slices, outputs, 16), target (outputs,); symbol slices."""
    slices = Symbol("slices")
    gradient = Buffer("gradient", (slices, outputs, LANES))
    target = Buffer("target", (outputs,), access="write", align=4)
    writer = Writer(name, [gradient, target], [slices])
    with writer.loop("o", outputs) as o:
        cell: Register = writer.assign(writer.register("db"), number(0.0))
        with writer.loop("s", slices) as s:
            writer.assign(cell, op("add", Read(cell), writer.load(gradient, s, o, 0)))
        writer.store(target, o, value=op("lanesum", Read(cell)))
    return writer.finish()
