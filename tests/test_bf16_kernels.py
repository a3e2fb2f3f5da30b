"""Single kernels of bf16 maps: the sums are those of fp32, rounded once when they are complete."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lanewise.native.directions import plan_directions
from lanewise.native.kernels import points
from lanewise.native.kernels.conv import correlate
from lanewise.native.kernels.correlation import (
    Correlation,
    Tile,
    packed_shape,
    paired_shape,
    paired_weights,
)
from lanewise.native.kernels.points import PointTile, points_of, products
from lanewise.native.kernels.taps import forward_taps, gradient_taps
from lanewise.native.nest import Buffer, Load, Loop, Op, Statement, Store
from lanewise.native.nest_check import check
from lanewise.native.nest_show import show
from lanewise.native.precision import narrowed
from lanewise.native.precisions import nearest_bf16
from lanewise.native.target import find_target
from lanewise.native.ways import correlation_way
from lanewise.net.parse import parse
from native_kernel import aligned, execute, placed


def test_a_kernel_of_halved_maps_is_the_same_sum() -> None:
    """The convolution's nest with its source and its target as bf16, machine code and meaning."""
    axis = forward_taps(6, 6, 3, 1, 1, 1)
    sizes = Correlation(1, 4, 3, axis, axis, weight_group=108, weight_map=27, weight_source=9)
    plain = correlate("conv", sizes, Tile(2, 3), bias=True, relu=True)
    half = narrowed(plain, frozenset({0, 3}), "conv_bf16")
    check(half)
    assert [b.dtype for b in half.buffers] == ["bf16", "f32", "f32", "bf16"]
    assert "float(source" in show(half)
    random = np.random.default_rng(2)
    maps = nearest_bf16(random.standard_normal((3, 6, 6, 16), np.float32))
    weight, bias = (placed(random.standard_normal(n, np.float32)) for n in (108, 4))
    short = placed((maps.view(np.uint32) >> 16).astype(np.uint16), np.uint16)
    result = aligned((4, 6, 6, 16), np.uint16)
    execute(half, short, weight, bias, result)
    full = aligned((4, 6, 6, 16))
    execute(plain, placed(maps), weight, bias, full)
    assert (result == nearest_bf16(full).view(np.uint32) >> 16).all()


def stores_and_loads(body: tuple[Statement, ...]) -> tuple[set[Buffer], set[Buffer]]:
    """The buffers that are written, and those that are read."""
    written: set[Buffer] = set()
    read: set[Buffer] = set()

    def value(one: object) -> None:
        if isinstance(one, Load):
            read.add(one.buffer)
        for argument in one.arguments if isinstance(one, Op) else ():
            value(argument)

    def statement(one: Statement) -> None:
        if isinstance(one, Loop):
            for inner in one.body:
                statement(inner)
        elif isinstance(one, Store):
            written.add(one.buffer)
            value(one.value)
        elif hasattr(one, "value"):
            value(one.value)

    for each in body:
        statement(each)
    return written, read


def test_no_sum_is_rounded_before_it_is_complete() -> None:
    """What is both written and read as bf16 is a gradient that several layers add to; sums that
    wait for more sources must be fp32. This net's sums wait, in fp32."""
    graph = parse("input 128x12x12; conv 96 k3 stride2 pad1; flatten; linear 3")
    taps = forward_taps(12, 6, 3, 2, 1, 1)
    sizes = Correlation(1, 96, 128, taps, taps, 96 * 128 * 9, 128 * 9, 9)
    waiting = [correlation_way(find_target(), sizes, p).sources for p in ("fp32", "bf16")]
    assert waiting[1] == 0
    for plan in plan_directions(graph, find_target(), True, precision="bf16").values():
        for kernel in plan.kernels:
            written, read = stores_and_loads(kernel.body)
            assert not [b.name for b in written & read if b.dtype == "bf16"], kernel.name


#: sizes of a correlation: groups, maps, sources of a group, size, kernel, stride, padding
PAIRED = (
    (1, 5, 6, 7, 3, 1, 1),
    (2, 4, 2, 9, 5, 1, 2),
    (1, 3, 4, 8, 3, 2, 1),
    (1, 2, 2, 5, 1, 2, 0),
    (1, 6, 8, 5, 1, 1, 0),
)


def correlation(sizes: tuple[int, ...], forward: bool) -> Correlation:
    groups, maps, sources, size, kernel, stride, pad = sizes
    out, area = (size + 2 * pad - kernel) // stride + 1, kernel * kernel
    make = forward_taps if forward else gradient_taps
    taps = make(size, out, kernel, stride, pad, 1)
    if forward:
        strides = maps * sources * area, sources * area, area
        return Correlation(groups, maps, sources, taps, taps, *strides)
    return Correlation(
        groups, sources, maps, taps, taps, maps * sources * area, area, sources * area
    )


@pytest.mark.parametrize("forward", [True, False], ids=["forward", "gradient"])
@pytest.mark.parametrize("sizes", PAIRED, ids=str)
def test_pairs_of_sources_make_the_same_sums(sizes: tuple[int, ...], forward: bool) -> None:
    """The kernel for processors that multiply pairs, with its two multiply–adds written out."""
    one = correlation(sizes, forward)
    if one.sources % 2:
        one = correlation((*sizes[:1], sizes[1] + 1, *sizes[2:]), forward)
    random = np.random.default_rng(9)
    shape = (one.groups * one.sources, one.rows.source, one.columns.source, 16)
    maps = nearest_bf16(random.standard_normal(shape, np.float32))
    weight = placed(nearest_bf16(random.standard_normal(one.weights, np.float32)))
    runs, length = paired_shape(one)
    both = aligned((runs, length), np.int32)
    execute(paired_weights("paired_weights", runs, length), weight, both)
    tiles: list[Any] = [Tile(2, 3, packs=2, pairs=True)]
    if points_of(one):
        tiles += [PointTile(2, 3, 2, packs=packs, pairs=True) for packs in (True, False)]
    short = placed((maps.view(np.uint32) >> 16).astype(np.uint16), np.uint16)
    plain = aligned((one.groups * one.maps, one.rows.destination, one.columns.destination, 16))
    execute(correlate("plain", one, Tile(2, 3)), placed(maps), weight, plain)
    for tile in tiles:
        direct = isinstance(tile, Tile)
        kernel = correlate("conv", one, tile) if direct else products("conv", one, tile)
        shapes = packed_shape(one, tile) if direct else points.packed_shape(one, tile)
        packed = [aligned(shapes, np.int32)] if tile.packs else []
        result = aligned(plain.shape)
        pairs = zip([short, both, *packed, result], kernel.buffers, strict=True)
        execute(kernel, *(array.reshape(buffer.shape) for array, buffer in pairs))
        np.testing.assert_allclose(result, plain, rtol=1e-5, atol=1e-5)
