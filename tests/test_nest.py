"""The loop-nest language: shown, counted and interpreted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lanewise.native import nest_run, nest_types
from lanewise.native.nest import (
    LANES,
    OPERATIONS,
    Buffer,
    Constant,
    FromIndex,
    Kernel,
    LaneNumbers,
    Read,
    Register,
    Value,
    as_index,
    op,
)
from lanewise.native.nest_check import NestError, check
from lanewise.native.nest_count import Counts, count
from lanewise.native.nest_run import run
from lanewise.native.nest_show import show
from lanewise.native.nest_types import SIGNATURES
from lanewise.native.writer import Writer
from native_kernel import aligned, execute, placed
from nest_examples import padded_rows, plain_convolution, random_arrays, transposing


def test_the_plain_convolution_is_the_definition() -> None:
    kernel = plain_convolution()
    assert check(kernel) == ()
    arrays = random_arrays(kernel)
    run(kernel, arrays)
    windows = np.lib.stride_tricks.sliding_window_view(arrays["x"], (3, 3), axis=(1, 2))
    wanted = np.einsum("cpqlrs,kcrs->kpql", windows.astype(float), arrays["w"].astype(float))
    wanted += arrays["b"][:, None, None, None]
    np.testing.assert_allclose(arrays["y"], wanted, rtol=1e-5)


def test_its_work_is_counted() -> None:
    macs = 4 * 4 * 4 * 3 * 3 * 3
    assert count(plain_convolution()) == Counts(
        multiply_adds=macs * LANES,
        arithmetic=0,
        loaded={"b": 4 * 4 * 4 * 4, "x": macs * LANES * 4, "w": macs * 4},
        stored={"y": 4 * 4 * 4 * LANES * 4},
    )
    assert count(plain_convolution()).operations == 2 * macs * LANES


def test_it_is_shown_as_a_student_would_write_it() -> None:
    assert show(plain_convolution()) == (
        "kernel plain\n"
        "  x  f32 [3][6][6] x 16  read\n"
        "  w  f32 [4][3][3][3]    read\n"
        "  b  f32 [4]             read\n"
        "  y  f32 [4][4][4] x 16  write\n"
        "  named values: 1 of f32 x 16\n"
        "\n"
        "for (k = 0; k < 4; k++) {\n"
        "    for (p = 0; p < 4; p++) {\n"
        "        for (q = 0; q < 4; q++) {\n"
        "            acc1 = b[k];\n"
        "            for (c = 0; c < 3; c++) {\n"
        "                for (r = 0; r < 3; r++) {\n"
        "                    for (s = 0; s < 3; s++) {\n"
        "                        acc1 += x[c][p + r][q + s] * w[k][c][r][s];\n"
        "                    }\n"
        "                }\n"
        "            }\n"
        "            y[k][p][q] = acc1;\n"
        "        }\n"
        "    }\n"
        "}\n"
    )


def test_padding_by_tables() -> None:
    kernel = padded_rows()
    assert check(kernel) == ()
    assert count(kernel).multiply_adds == (2 + 3 + 3 + 3 + 2) * LANES
    arrays = random_arrays(kernel)
    run(kernel, arrays)
    padded = np.pad(arrays["x"], ((1, 1), (0, 0))).astype(float)
    wanted = sum(padded[r : r + 5] * arrays["w"][r] for r in range(3))
    np.testing.assert_allclose(arrays["y"], wanted, rtol=1e-5)
    text = show(kernel)
    assert "for (r = begin[p]; r < end[p]; r++) {" in text
    assert "x[p + r - 1] * w[r];" in text and "= {1, 0, 0, 0, 0}" in text


@pytest.mark.parametrize("slices", [1, 3])
def test_transposing(slices: int) -> None:
    kernel = transposing()
    assert check(kernel) == check(kernel, {"slices": slices}) == ()
    arrays = random_arrays(kernel, slices)
    run(kernel, arrays, {"slices": slices})
    np.testing.assert_array_equal(arrays["target"], arrays["source"].transpose(0, 2, 1))
    work = count(kernel, {"slices": slices})
    assert work.multiply_adds == 0
    assert work.arithmetic == 2 * slices * 16 * 32
    assert work.loaded == {"source": slices * 16 * 32}
    assert work.stored == {"target": slices * 16 * 32 * 4}
    assert "target[n][i + 15] = t16;" in show(kernel)
    assert "(t1, t2, … t16) = transpose(" in show(kernel)
    assert "float(int(source[n][2][i:i + 16]))," in show(kernel)


def test_groups_of_lanes() -> None:
    """Fewer vectors than lanes are transposed group by group; some neighbours fill all lanes."""
    source, target = Buffer("source", (4, 16)), Buffer("target", (5, 16), access="write")
    writer = Writer("groups", [source, target])
    for i, value in enumerate(writer.transpose([writer.load(source, j, 0) for j in range(4)])):
        writer.store(target, i, 0, value=value)
    writer.store(target, 4, 0, value=writer.splat(source, 1, 8, lanes=4))
    x, y = placed(np.arange(64.0).reshape(4, 16)), aligned((5, 16))
    execute(writer.finish(), x, y)
    np.testing.assert_array_equal(y[:4].reshape(4, 4, 4), x.reshape(4, 4, 4).swapaxes(0, 1))
    np.testing.assert_array_equal(y[4], np.tile(x[1, 8:12], 4))


# ---- operations ---------------------------------------------------------------------------------


def test_every_operation_has_types_and_a_meaning() -> None:
    assert set(SIGNATURES) == set(OPERATIONS) == {"splat", *nest_run.OPERATION}
    for name, lines in SIGNATURES.items():
        for line in lines:
            *arguments, result = line.split()
            assert len(arguments) == OPERATIONS[name][0]
            assert result == (OPERATIONS[name][1] or arguments[-1])


@pytest.mark.parametrize(
    ("name", "line"), [(name, line) for name, lines in SIGNATURES.items() for line in lines]
)
def test_an_operation_gives_the_type_and_lanes_it_says(name: str, line: str) -> None:
    *arguments, _ = line.split()
    lanes = 1 if name == "splat" else LANES
    values = [Constant(1, dtype, lanes) for dtype in arguments]
    value = op(name, *values)
    assert nest_types.value_fault(value) is None
    kernel = Kernel("one", (), (), ())
    result = nest_run._State(kernel, {}, {}).value(value)
    assert result.dtype == nest_run.DTYPES[value.dtype]
    assert result.shape == (value.lanes,)


def evaluated(value: Value) -> list[float]:
    with np.errstate(all="ignore"):
        return nest_run._State(Kernel("one", (), (), ()), {}, {}).value(value).tolist()


def test_the_meaning_of_the_operations() -> None:
    def f(number: float) -> Constant:
        return Constant(number, lanes=1)

    def i(number: int) -> Constant:
        return Constant(number, "i32", 1)

    assert [evaluated(op("round", f(x))) for x in (0.5, 1.5, 2.5, -0.5, -1.5)] == [
        [0], [2], [2], [0], [-2]
    ]  # fmt: skip
    assert evaluated(op("widen", Constant(200, "u8", 1))) == [200]
    assert evaluated(op("narrow", i(511))) == [255]
    assert evaluated(op("tofloat", i(-1))) == [-1.0]
    assert evaluated(op("asint", f(1.0))) == [0x3F800000]
    assert evaluated(op("asfloat", i(0x40490FDB))) == [float(np.float32(math.pi))]
    assert evaluated(op("shr", i(-1), i(28))) == [15]
    assert evaluated(op("shl", i(3), i(31))) == [-(2**31)]
    assert evaluated(op("mul", i(0x9E3779B9), i(3))) == [0x9E3779B9 * 3 % 2**32 - 2**32]
    assert evaluated(op("xor", i(0b1100), i(0b1010))) == [0b0110]
    assert evaluated(op("select", op("gt", f(2.0), f(1.0)), f(3.0), f(4.0))) == [3.0]
    assert evaluated(op("max", f(math.nan), f(1.0))) == [1.0]
    assert evaluated(op("div", f(1.0), f(0.0))) == [math.inf]
    numbers = op("tofloat", LaneNumbers())
    assert evaluated(op("lanesum", numbers)) == [120.0]
    assert evaluated(FromIndex(as_index(-5))) == [-5] * LANES
    third = float(np.float32(1 / 3))
    assert evaluated(op("fma", f(third), f(3.0), f(-1.0))) == [third * 3.0 - 1.0]
    with pytest.raises(NestError, match="shift by 32"):
        evaluated(op("shl", i(1), i(32)))
    with pytest.raises(NestError, match="no 32-bit integer"):
        evaluated(op("round", f(3e9)))


def test_the_interpreter_refuses_arrays_that_do_not_fit_and_places_outside() -> None:
    kernel = plain_convolution(rows=5)
    arrays = random_arrays(kernel)
    with pytest.raises(NestError, match="outside of"):
        run(kernel, arrays)
    with pytest.raises(NestError, match="no array is given for b"):
        run(kernel, {name: array for name, array in arrays.items() if name != "b"})
    with pytest.raises(NestError, match="x is f32"):
        run(kernel, arrays | {"x": arrays["x"][:, :4]})


# ---- show ---------------------------------------------------------------------------------------


def shown(value: Value, register: Register) -> str:
    writer = Writer("shown", [])
    writer.assign(register, value)
    return show(writer.finish()).splitlines()[-1]


def test_expressions_keep_their_structure() -> None:
    a, b, c = (Register(name, "f32", LANES) for name in "abc")
    x, y, z = map(Read, (a, b, c))
    assert shown(op("fma", x, y, z), c) == "c += a * b;"
    assert shown(op("fma", x, y, z), a) == "a = a * b + c;"
    assert shown(op("add", op("mul", x, y), z), a) == "a = (a * b) + c;"
    assert shown(op("mul", op("add", x, y), z), a) == "a = (a + b) * c;"
    assert shown(op("add", x, op("add", y, z)), b) == "b = a + (b + c);"
    assert shown(op("sub", x, y), a) == "a -= b;"
    assert shown(op("add", x, y), b) == "b += a;"
    assert shown(op("max", x, Constant(0.0)), b) == "b = max(a, 0);"
    assert shown(op("select", op("gt", x, Constant(0.5)), y, z), a) == "a = a > 0.5 ? b : c;"
    assert shown(op("neg", op("add", x, y)), c) == "c = -(a + b);"
    assert shown(Constant(0.1), a) == "a = 0.1;"
    hashed = op("xor", LaneNumbers(), Constant(0x9E3779B9, "i32"))
    assert shown(hashed, Register("h", "i32", LANES)) == "h = lane ^ 0x9e3779b9;"


def test_loops_of_the_same_name_and_of_one_turn() -> None:
    y = Buffer("y", (2, 2, LANES), access="write")
    writer = Writer("names", [y])
    with writer.loop("i", 2) as one, writer.loop("i", 2) as two, writer.loop("once", 1) as once:
        writer.store(y, one, as_index(two) + once, 0, value=Constant(0.0))
    lines = show(writer.finish()).splitlines()
    assert "for (i = 0; i < 2; i++) {" in lines
    assert "    for (i_2 = 0; i_2 < 2; i_2++) {" in lines
    assert "        y[i][i_2] = 0;" in lines
    assert check(writer.finish()) == ()


def test_zeros_keep_their_signs() -> None:
    """0 and −0 are equal, and two numbers."""
    target = Buffer("y", (2, LANES), access="write")
    writer = Writer("signs", [target])
    for row, value in enumerate((0.0, -0.0)):
        writer.store(target, row, 0, value=Constant(value, lanes=LANES))
    y = placed(np.ones((2, LANES), np.float32))
    execute(writer.finish(), y)
    assert np.signbit(y).all(axis=1).tolist() == [False, True]
