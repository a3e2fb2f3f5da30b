"""Products of small matrices of bf16 (AMX). No processor that has them is at hand: the assembly is
looked at, the same kernels are run with every instruction written out in ordinary ones, and the
machine code with every instruction carried out by a signal handler."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lanewise.native import matrix_ways
from lanewise.native.compile import write_modules
from lanewise.native.kernels import conv, matrix_gradient
from lanewise.native.kernels.correlation import Correlation, Tile
from lanewise.native.kernels.images import row_blocks
from lanewise.native.kernels.matrix_conv import (
    MatrixTile,
    correlate,
    even_block,
    packed_shape,
    sums_shape,
    weights_shape,
)
from lanewise.native.kernels.matrix_gradient import GradientSizes
from lanewise.native.kernels.matrix_weights import matrix_weights
from lanewise.native.kernels.taps import Taps, forward_taps, gradient_taps
from lanewise.native.lower_matrices import sizes_of
from lanewise.native.machine_code import assembly, count_spills
from lanewise.native.matrix_ways import gradient_rows, matrix_tile
from lanewise.native.nest import LANES, Buffer, Kernel, Matrix
from lanewise.native.nest_check import NestError, check
from lanewise.native.nest_count import count
from lanewise.native.nest_run import run
from lanewise.native.nest_show import show
from lanewise.native.optimizers import SGD
from lanewise.native.precisions import multiplies_matrices, nearest_bf16
from lanewise.native.target import Target
from lanewise.native.writer import Writer
from lanewise.net.parse import parse
from matrix_targets import with_matrices
from native_kernel import aligned, compile_kernel, execute, placed

# ---- the language -------------------------------------------------------------------------------

SUMS, LEFT, RIGHT = Matrix(0, 3, 16), Matrix(5, 3, 7), Matrix(6, 7, 16)


def product(
    sums: Matrix = SUMS, left: Matrix = LEFT, right: Matrix = RIGHT, first: int = 0
) -> Kernel:
    """target += left · right, whose rows lie along different axes."""
    one = Buffer("left", (2, 4, 7), "i32", align=4)
    two = Buffer("right", (7, 2, 16), "i32")
    target = Buffer("target", (3, 16), access="update")
    writer = Writer("product", [one, two, target])
    writer.matrix_load(sums, target, 0, 0, axis=0)
    writer.matrix_load(left, one, 1, first, 0, axis=1)
    writer.matrix_load(right, two, 0, 1, 0, axis=0)
    writer.matrix_dot(sums, left, right)
    writer.matrix_store(sums, target, 0, 0, axis=0)
    return writer.finish()


def random_pairs(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Bits of two bf16 each, of very different sizes, so that the order of sums shows."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((*shape, 2)) * 10.0 ** random.integers(-4, 5, (*shape, 2))
    return placed(
        (values.astype("f4").view(np.uint32) >> 16).astype(np.uint16).view("i4")[..., 0], np.int32
    )


def test_a_product_is_that_of_the_instruction_bit_for_bit() -> None:
    """The written-out code and the interpreter, held against the sum in NumPy."""
    left, right = random_pairs((2, 4, 7), 1), random_pairs((7, 2, 16), 2)
    start = np.random.default_rng(3).standard_normal((3, 16)).astype("f4")
    native, slow = placed(start), placed(start)
    kernel = product(first=1)
    check(kernel)
    compile_kernel(kernel)(left, right, native)
    run(kernel, {"left": left, "right": right, "target": slow})
    halves = []
    for shift in (16, 0):
        a, b = (
            (bits.view(np.uint32) << shift & 0xFFFF0000).view("f4").astype("f8")
            for bits in (left[1, 1:4], right[:, 1])
        )
        total = np.zeros((3, 16), "f4")
        for k in range(7):
            total = (a[:, k : k + 1] * b[k] + total).astype("f4")
        halves.append(total)
    assert native.tobytes() == slow.tobytes() == (start + (halves[0] + halves[1])).tobytes()


def test_a_product_can_be_shown_and_counted() -> None:
    text = show(product())
    assert "m5 = left[1][0]" in text and "m0 += matrix_dot(m5, m6);" in text
    counted = count(product())
    assert counted.multiply_adds == 3 * 16 * 14
    assert counted.loaded == {"target": 192, "left": 84, "right": 448}
    assert counted.stored == {"target": 192}


def unassigned() -> Kernel:
    target = Buffer("target", (3, 16), access="update")
    writer = Writer("unassigned", [target])
    writer.matrix_store(SUMS, target, 0, 0, axis=0)
    return writer.finish()


def written_once() -> Kernel:
    target = Buffer("target", (3, 16), access="write")
    writer = Writer("written", [target])
    writer.matrix_zero(SUMS)
    writer.matrix_store(SUMS, target, 0, 0, axis=0)
    return writer.finish()


@pytest.mark.parametrize(
    ("write", "fault"),
    [
        (lambda: product(right=Matrix(6, 6, 16)), "do not agree"),
        (lambda: product(left=SUMS), "three matrices"),
        (lambda: product(left=Matrix(8, 3, 7)), "there is no matrix 8"),
        (lambda: product(sums=Matrix(0, 17, 16), left=Matrix(5, 17, 7)), "1 to 16 rows"),
        (lambda: product(first=2), "left has size 4 on axis 1"),
        (unassigned, "before it is assigned"),
        (written_once, "where 'update' is"),
    ],
)
def test_faults_are_named(write: Callable[[], Kernel], fault: str) -> None:
    with pytest.raises(NestError, match=fault):
        check(write())


def test_the_sizes_are_what_the_instruction_reads() -> None:
    """Palette, bytes of a row from byte 16 on, rows from byte 48 on."""
    found = sizes_of([SUMS, LEFT, RIGHT])
    words = np.frombuffer(found[16:32], "<u2")
    assert (len(found), found[0], found[1]) == (64, 1, 0)
    assert words.tolist() == [64, 0, 0, 0, 0, 28, 64, 0]
    assert list(found[48:56]) == [3, 0, 0, 0, 0, 3, 7, 0]


# ---- convolutions -------------------------------------------------------------------------------

#: maps, sources, size, kernel, stride, padding, dilation; rows of a strip
SIZES = (
    (16, 32, 5, 3, 1, 1, 1, 2),
    (20, 35, 6, 3, 1, 1, 1, 4),  # blocks that are not full, an odd source
    (40, 17, 7, 3, 2, 1, 1, 2),  # a stride; three blocks of kernels
    (33, 66, 4, 1, 1, 0, 1, 1),
    (18, 8, 5, 1, 2, 0, 1, 2),  # in its gradient most pixels meet nothing
    (5, 3, 7, 5, 1, 2, 1, 8),
    (17, 4, 9, 3, 1, 2, 2, 2),  # dilated
)


def correlation(sizes: tuple[int, ...], forward: bool) -> Correlation:
    maps, sources, size, kernel, stride, pad, dilation, _ = sizes
    out, area = (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1, kernel * kernel
    make = forward_taps if forward else gradient_taps
    taps = make(size, out, kernel, stride, pad, dilation)
    strides = (sources * area, area) if forward else (area, sources * area)
    both = (maps, sources) if forward else (sources, maps)
    return Correlation(1, *both, taps, taps, maps * sources * area, *strides)


def tile_of(sizes: Correlation, rows: int) -> MatrixTile:
    pairs = even_block(-(-sizes.sources // 2))
    return MatrixTile(even_block(sizes.maps), pairs, rows * min(sizes.rows.period, 2))


@pytest.mark.parametrize("forward", [True, False], ids=["forward", "gradient"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_matrices_make_the_same_sums(sizes: tuple[int, ...], forward: bool) -> None:
    one = correlation(sizes, forward)
    tile = tile_of(one, sizes[-1])
    random = np.random.default_rng(11)
    small = one.weights < 1000
    weight = placed(nearest_bf16(random.standard_normal(one.weights, np.float32)))
    laid_out = aligned(weights_shape(one, tile), np.int32)
    execute(matrix_weights("weights", one, tile), weight, laid_out, interpret=small)
    shape = (one.sources, one.rows.source, one.columns.source, LANES)
    maps = nearest_bf16(random.standard_normal(shape, np.float32))
    short = placed((maps.view(np.uint32) >> 16).astype(np.uint16), np.uint16)
    bias = placed(random.standard_normal(one.maps, np.float32))
    plain = aligned((one.maps, one.rows.destination, one.columns.destination, LANES))
    direct = conv.correlate("plain", one, Tile(2, 3), bias=True, relu=True)
    execute(direct, placed(maps), weight, bias, plain, interpret=False)
    result = aligned(plain.shape)
    packed, sums = aligned(packed_shape(one, tile), np.int32), aligned(sums_shape(tile))
    kernel = correlate("conv", one, tile, bias=True, relu=True)
    execute(kernel, short, laid_out, packed, sums, bias, result, interpret=small)
    np.testing.assert_allclose(result, plain, rtol=1e-5, atol=2e-5)


def test_only_what_meets_the_image_is_multiplied() -> None:
    """Padding is not; sources and kernels that fill their blocks are exactly the size calculus'."""
    one = correlation((32, 64, 6, 3, 1, 1, 1, 2), True)
    kernel = correlate("conv", one, tile_of(one, 2))
    assert count(kernel).multiply_adds == 16 * 32 * 64 * (6 * 3 - 2) ** 2


#: kernels, source maps, high, wide, kernel, padding, stride of rows, dilation; rows of a strip
GRADIENTS = (
    (16, 16, 4, 6, 3, 1, 1, 1, 2),
    (20, 24, 5, 8, 3, 1, 1, 1, 2),  # kernels and maps that do not fill their blocks
    (40, 64, 7, 4, 3, 1, 2, 1, 2),  # three blocks of kernels, four of maps; rows have a stride
    (33, 8, 4, 4, 1, 0, 1, 1, 1),
    (17, 32, 6, 6, 5, 2, 1, 1, 8),  # all rows at once: no sum waits
    (5, 17, 8, 8, 3, 2, 1, 2, 3),  # dilated; one map at a time
    (18, 48, 6, 6, 3, 0, 1, 1, 4),
)


def gradient_sizes(maps: int, sources: int, *shape: int) -> GradientSizes:
    high, wide, kernel, pad, stride, dilation = shape

    def axis(size: int, step: int) -> Taps:
        out = (size + 2 * pad - dilation * (kernel - 1) - 1) // step + 1
        return forward_taps(size, out, kernel, step, pad, dilation)

    return GradientSizes(maps, sources, axis(high, stride), axis(wide, 1))


def as_pairs(values: np.ndarray, shape: tuple[object, ...]) -> np.ndarray:
    """bf16 of neighbouring images side by side."""
    short = placed((values.view(np.uint32) >> 16).astype(np.uint16), np.uint16)
    return short.view(np.int32).reshape(shape)


@pytest.mark.parametrize("numbers", GRADIENTS, ids=str)
def test_matrices_make_the_gradient_of_the_weights(numbers: tuple[int, ...]) -> None:
    sizes = gradient_sizes(*numbers[:-1])
    rows, columns = sizes.rows, sizes.columns
    random = np.random.default_rng(13)
    x, dy = (
        nearest_bf16(random.standard_normal((maps, high, wide, LANES), np.float32))
        for maps, high, wide in (
            (sizes.sources, rows.source, columns.source),
            (sizes.maps, rows.destination, columns.destination),
        )
    )
    expected = np.zeros((sizes.maps, sizes.sources, rows.taps, columns.taps))
    for p, q, r, s in np.ndindex(rows.destination, columns.destination, *expected.shape[2:]):
        i, j = rows.sources[p][r], columns.sources[q][s]
        if i is not None and j is not None:
            expected[:, :, r, s] += dy[:, p, q].astype("f8") @ x[:, i, j].T
    kernel = matrix_gradient.weight_gradient("gradient", sizes, numbers[-1])
    source, gradient = kernel.buffers[:2]
    turned = aligned(matrix_gradient.turned_shape(sizes, numbers[-1]), np.int32)
    sums = aligned((row_blocks(sizes.maps), sizes.sources, sizes.area, LANES))
    given = as_pairs(x, source.shape), as_pairs(dy, gradient.shape)
    execute(kernel, *given, turned, sums, interpret=sizes.area == 1)
    found = sums.transpose(0, 3, 1, 2).reshape(-1, *expected.shape[1:])[: sizes.maps]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=5e-5)


def test_strides_and_odd_widths_have_no_such_gradient() -> None:
    even = gradient_sizes(16, 16, 4, 6, 3, 1, 1, 1)
    assert even.possible
    odd = gradient_sizes(16, 16, 4, 5, 3, 1, 1, 1)
    odd_result = gradient_sizes(16, 16, 4, 6, 2, 0, 1, 1)
    stride = replace(even, columns=forward_taps(6, 3, 3, 2, 1, 1))
    assert not any(one.possible for one in (odd, odd_result, stride))


# ---- assembly -----------------------------------------------------------------------------------

NET = (
    "input 64x8x8; conv 64 k3 pad1; relu; conv 64 k1; relu; conv 48 k3 stride2 pad1; "
    "flatten; linear 3"
)


def instructions(target: Target, precision: str = "bf16") -> dict[str, Counter[str]]:
    """The matrix instructions of every function, and its spills."""
    modules, _ = write_modules(parse(NET), target, True, SGD(), precision=precision)
    found: dict[str, Counter[str]] = {}
    for module in modules:
        text = assembly(module.text, target, module.quick)
        for name, spills in count_spills(text, target).items():
            body = text.split(f"\n{name}:", 1)[1].split(f".size\t{name},", 1)[0]
            used = re.findall(r"\t(tdpbf16ps|tile\w+|ldtilecfg)\b", body)
            if used:
                found[name] = Counter(used) + Counter(spills=spills)
                assert (used[0], used[-1]) == ("ldtilecfg", "tilerelease"), name
    return found


@pytest.mark.parametrize("cpu", ["sapphirerapids", "graniterapids"])
def test_processors_with_matrices_use_them(cpu: str) -> None:
    found = instructions(with_matrices(cpu))
    convolutions = {name: one for name, one in found.items() if name.startswith("matrix_conv")}
    gradients = {name for name in found if name.startswith("matrix_weight_gradient")}
    assert (len(convolutions), len(gradients)) == (5, 2)
    assert {*convolutions, *gradients} == set(found)
    for name, one in found.items():
        assert (one["ldtilecfg"], one["tilerelease"], one["spills"]) == (1, 1, 0), name
        assert one["tdpbf16ps"] >= 4, name
    for name, one in convolutions.items():
        assert one["tileloadd"] <= one["tdpbf16ps"] * (1.1 if one["tdpbf16ps"] > 8 else 1), name
    for name in gradients:  # beside two of each factor, the four sums that wait
        assert found[name]["tileloadd"] <= 2 * found[name]["tdpbf16ps"], name


def test_others_do_not() -> None:
    for lacking in ("amx-tile", "amx-bf16", "avx512bf16"):
        assert not multiplies_matrices(with_matrices("sapphirerapids", lacking))
    assert not instructions(with_matrices("sapphirerapids", "amx-tile"))


def test_fp32_does_not() -> None:
    assert not instructions(with_matrices("sapphirerapids"), "fp32")


# ---- the choice ---------------------------------------------------------------------------------


def test_the_count_of_cycles_chooses() -> None:
    has, has_not = with_matrices("sapphirerapids"), with_matrices("icelake-server", "amx-tile")
    large, thin = (correlation((64, n, 32, 3, 1, 1, 1, 1), True) for n in (64, 3))
    assert matrix_tile(has, large) and not matrix_tile(has, thin)
    assert not matrix_tile(has_not, large)
    assert not matrix_tile(has, replace(large, groups=2))
    assert not matrix_tile(has, replace(large, maps=8))
    tile = matrix_tile(has, large)
    assert tile and (tile.maps, tile.pairs) == (16, 16)
    cycles = matrix_ways.matrix_cycles(large, tile)
    assert large.maps * large.sources * large.rows.pairs**2 / 32 < cycles


def test_the_count_of_cycles_chooses_the_gradient() -> None:
    has, has_not = with_matrices("sapphirerapids"), with_matrices("icelake-server", "amx-tile")
    large, thin = (gradient_sizes(64, n, 32, 32, 3, 1, 1, 1) for n in (64, 3))
    assert gradient_rows(has, large) and not gradient_rows(has, thin)
    assert not gradient_rows(has_not, large)
    products = large.maps * large.sources * large.rows.pairs * large.columns.pairs
    assert products / 32 < matrix_ways.gradient_cycles(large, 1)
