"""Kernels of the loop-nest language that are wrong are refused, and only those."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lanewise.native import nest_domain, nest_run
from lanewise.native.nest import (
    LANES,
    Buffer,
    Constant,
    Entry,
    Index,
    Kernel,
    Loop,
    Op,
    Read,
    Store,
    Symbol,
    Value,
    Var,
    as_index,
    op,
    table,
)
from lanewise.native.nest_check import NestError, check
from lanewise.native.nest_count import count
from lanewise.native.nest_run import run
from lanewise.native.writer import Writer
from nest_examples import SLICES, padded_rows, plain_convolution, random_arrays

# ---- broken kernels -----------------------------------------------------------------------------


def refused(kernel: Kernel, *told: str, symbols: dict[str, int] | None = None) -> None:
    with pytest.raises(NestError) as caught:
        check(kernel, symbols)
    text = str(caught.value)
    assert kernel.name in text
    for part in told:
        assert part in text, text


def one_statement(build: Callable[[Writer, Buffer], None], **about: object) -> Kernel:
    """A kernel with y[4][16], into which `build` writes."""
    y = Buffer("y", (4, LANES), access="write")
    writer = Writer("broken", [y], **about)  # type: ignore[arg-type]
    build(writer, y)
    return writer.finish()


def test_one_row_too_few_in_the_source() -> None:
    refused(
        plain_convolution(rows=5), "x has size 5 on axis 1", "p + r goes from 0 to 5", "acc1 +="
    )


def test_a_table_that_does_not_fit_the_padding() -> None:
    refused(padded_rows(pad=2), "x has size 5 on axis 0", "p + r - 2 goes from -1 to 3")


def test_rows_that_are_not_written() -> None:
    refused(plain_convolution(first=1), "y[0][0][0][0] is written never")


def test_rows_that_are_written_twice() -> None:
    def build(writer: Writer, y: Buffer) -> None:
        with writer.loop("i", 4) as i:
            writer.store(y, i, 0, value=Constant(0.0))
        with writer.loop("i", 3, start=2) as i:
            writer.store(y, i, 0, value=Constant(1.0))

    refused(one_statement(build), "y[2][0] is written twice")


def test_a_loop_that_the_index_does_not_name_writes_again() -> None:
    def build(writer: Writer, y: Buffer) -> None:
        with writer.loop("i", 4) as i, writer.loop("again", 5):
            writer.store(y, i, 0, value=Constant(0.0))

    refused(one_statement(build), "written 5 times")


def test_lanes_that_reach_over_the_end() -> None:
    def build(writer: Writer, y: Buffer) -> None:
        with writer.loop("i", 4) as i:
            writer.store(y, i, 1, value=Constant(0.0))

    refused(one_statement(build), "size 16 on axis 1", "and 16 lanes from there")


def test_an_array_that_is_never_written() -> None:
    refused(one_statement(lambda writer, y: None), "y[0][0] is written never")


def test_a_register_that_is_read_before_it_is_assigned() -> None:
    def build(writer: Writer, y: Buffer) -> None:
        acc = writer.register("acc")
        with writer.loop("i", 4) as i:
            writer.store(y, i, 0, value=Read(acc))
            writer.assign(acc, Constant(0.0))

    refused(one_statement(build), "register acc1 may be read before it is assigned", "y[i] = acc1")


def test_a_register_assigned_in_a_loop_that_may_not_turn() -> None:
    def build(writer: Writer, y: Buffer) -> None:
        acc = writer.register("acc")
        with writer.loop("j", Symbol("turns")):
            writer.assign(acc, Constant(0.0))
        with writer.loop("i", 4) as i:
            writer.store(y, i, 0, value=Read(acc))

    refused(one_statement(build, symbols=[Symbol("turns")]), "acc1 may be read before")


def test_lanes_and_types_must_agree() -> None:
    def store(value: Value) -> Kernel:
        def build(writer: Writer, y: Buffer) -> None:
            with writer.loop("i", 4) as i:
                writer.store(y, i, 0, value=value)

        return one_statement(build)

    one, half, whole = Constant(1.0), Constant(1.0, lanes=8), Constant(1, "i32")
    assert check(store(op("add", one, one))) == ()
    refused(store(op("add", one, half)), "equal lanes", "y[i][0:8] = 1 + 1")
    refused(store(op("add", whole, one)), "add does not take i32 f32")
    refused(store(whole), "the array is f32, the value i32")
    refused(store(op("tofloat", Constant(1 << 33, "i32"))), "is no i32")
    refused(store(Op("add", (one, one), "i32", LANES)), "gives f32, not i32")
    refused(store(op("splat", one)), "splat takes 1 lane or a few")
    refused(store(Op("hypot", (one, one), "f32", LANES)), "no operation hypot")


def test_reading_an_output_and_writing_an_input() -> None:
    def read(writer: Writer, y: Buffer) -> None:
        with writer.loop("i", 4) as i:
            writer.store(y, i, 0, value=writer.load(y, i, 0))

    refused(one_statement(read), "y is only to be written")
    x = Buffer("x", (LANES,))
    writer = Writer("broken", [x])
    writer.store(x, 0, value=Constant(0.0))
    refused(writer.finish(), "x is only to be read")


def test_names_and_scopes() -> None:
    stray = Var("stray")
    refused(
        one_statement(lambda writer, y: writer.store(y, stray, 0, value=Constant(0.0))),
        "stray is used outside its loop",
    )
    other = Buffer("other", (LANES,))
    refused(
        one_statement(lambda writer, y: writer.store(other, 0, value=Constant(0.0))),
        "other is",
    )
    refused(
        one_statement(lambda writer, y: writer.store(y, Symbol("n"), 0, value=Constant(0.0))),
        "symbol n has no value",
    )
    twin = Buffer("y", (4, LANES))
    refused(Writer("broken", [twin, twin]).finish(), "two parameters are named y")


def test_a_table_look_up_outside_of_the_table() -> None:
    short = table("short", [0, 1, 2])

    def build(writer: Writer, y: Buffer) -> None:
        with writer.loop("i", 4) as i:
            writer.store(y, Entry(short, as_index(i)), 0, value=Constant(0.0))

    refused(one_statement(build), "short has 3 entries", "i goes from 0 to 3")


def test_an_array_of_fixed_size_under_a_symbol() -> None:
    """Small samples would miss it; the large one does not."""
    x = Buffer("x", (10, LANES), access="update")
    writer = Writer("broken", [x], [SLICES])
    with writer.loop("n", SLICES) as n:
        writer.store(x, n, 0, value=Constant(0.0))
    refused(writer.finish(), "slices = 4096")
    assert check(writer.finish(), {"slices": 10}) == ()
    refused(writer.finish(), "slices = 11", symbols={"slices": 11})


def test_numbers_known_only_when_the_kernel_runs() -> None:
    order = Buffer("order", (8,), "i64", below=20)
    pool = Buffer("pool", (20, LANES))
    y = Buffer("y", (8, LANES), access="write")

    def gather(offset: int) -> Kernel:
        writer = Writer("gather", [order, pool, y])
        with writer.loop("i", 8) as i:
            at = Entry(order, as_index(i))
            writer.store(y, i, 0, value=writer.load(pool, as_index(at) + offset, 0))
        return writer.finish()

    assert check(gather(0)) == ()
    refused(gather(1), "goes from 1 to 20")
    arrays = random_arrays(gather(0)) | {"order": np.arange(8)[::-1] * 2}
    run(gather(0), arrays)
    np.testing.assert_array_equal(arrays["y"], arrays["pool"][arrays["order"]])
    arrays["order"][3] = 20
    with pytest.raises(NestError, match="order holds 20, which is not below 20"):
        run(gather(0), arrays)


# ---- properties ---------------------------------------------------------------------------------

SIZES = (3, 4)


@st.composite
def writing_kernels(draw: st.DrawFn) -> Kernel:
    """Loops and stores on y[3][4] at small affine indices; many are right, most are not."""
    y = Buffer("y", SIZES, access="write")
    parts: list[Store | Loop] = []
    for _ in range(draw(st.integers(1, 3))):
        outer, inner = Var("i"), Var("j")
        small = st.integers(0, 2)
        limits = table("limits", draw(st.lists(st.integers(0, 4), min_size=4, max_size=4)))
        stop = draw(st.sampled_from([as_index(4), as_index(2), as_index(outer)]))
        if draw(st.booleans()):
            stop = as_index(Entry(limits, as_index(outer)))
        lanes = draw(st.sampled_from([1, 1, 2, 4]))
        stores = []
        for _ in range(draw(st.integers(1, 2))):
            row = as_index(outer) * draw(st.integers(0, 1)) + draw(small)
            column = as_index(inner) * draw(st.sampled_from([0, 1, 1, 2])) + draw(small)
            if draw(st.booleans()):
                row, column = row, column + as_index(outer) * draw(st.integers(-1, 1))
            stores.append(Store(y, (row, column), Constant(0.0, lanes=lanes)))
        body = Loop(inner, as_index(draw(small)), stop, draw(st.integers(1, 2)), tuple(stores))
        rows = draw(st.integers(0, 3))
        parts.append(Loop(outer, as_index(draw(small)), as_index(rows), 1, (body,)))
    return Kernel("random", (y,), (), tuple(parts))


@st.composite
def tilings(draw: st.DrawFn) -> Kernel:
    """y[3][4] cut into rectangles, each written by loops: always right."""
    y = Buffer("y", SIZES, access="write")
    cut_rows = sorted({0, 3, *draw(st.lists(st.integers(0, 3), max_size=2))})
    parts = []
    for top, bottom in pairwise(cut_rows):
        cuts = sorted({0, 4, *draw(st.lists(st.integers(0, 4), max_size=2))})
        for left, right in pairwise(cuts):
            i, j = Var("i"), Var("j")
            store = Store(y, (as_index(i), as_index(j) + left), Constant(0.0, lanes=1))
            inner = Loop(j, Index(), as_index(right - left), 1, (store,))
            parts.append(Loop(i, as_index(top), as_index(bottom), 1, (inner,)))
    return Kernel("tiling", (y,), (), tuple(parts))


def write_counts(kernel: Kernel) -> Counter[tuple[int, ...]]:
    """By brute force: how often each element is written, inside the array or not."""
    counts: Counter[tuple[int, ...]] = Counter()

    def execute(body: tuple[Store | Loop, ...], state: nest_run._State) -> None:
        for statement in body:
            if isinstance(statement, Loop):
                stop = state.integer(statement.stop)
                for turn in range(state.integer(statement.start), stop, statement.step):
                    state.vars[statement.var] = turn
                    execute(statement.body, state)
            else:
                *place, last = (state.integer(part) for part in statement.index)
                for lane in range(statement.value.lanes):
                    counts[(*place, last + lane)] += 1

    arrays = {"y": np.zeros(SIZES, np.float32)}
    execute(kernel.body, nest_run._State(kernel, arrays, {}))
    return counts


@given(st.one_of(writing_kernels(), tilings()))
@settings(deadline=None, max_examples=200)
def test_the_checker_agrees_with_brute_force(kernel: Kernel) -> None:
    """A refused kernel is wrong and a passed one right (an unreached table entry may refuse)."""
    counts = write_counts(kernel)
    right = counts == dict.fromkeys(np.ndindex(SIZES), 1)
    try:
        check(kernel)
        passed, told = True, ""
    except NestError as error:
        passed, told = False, str(error)
    assert passed == right or "limits has 4 entries" in told, told
    stores = sum(counts.values()) * 4
    assert count(kernel).stored == ({"y": stores} if stores else {})


@given(tilings())
@settings(deadline=None, max_examples=30)
def test_a_tiling_without_one_of_its_tiles_is_refused(kernel: Kernel) -> None:
    check(kernel)
    refused(Kernel(kernel.name, kernel.buffers, (), kernel.body[1:]), "is written never")


def test_boxes_that_do_not_merge_are_added_up() -> None:
    """A pinwheel: five rectangles around the middle of 3×3, no two of which make a rectangle."""
    y = Buffer("y", (3, 3), access="write")
    writer = Writer("pinwheel", [y])
    for top, left, height, width in [(0, 0, 1, 2), (0, 2, 2, 1), (1, 0, 2, 1), (2, 1, 1, 2)]:
        with writer.loop("i", height) as i, writer.loop("j", width) as j:
            place = as_index(i) + top, as_index(j) + left
            writer.store(y, *place, value=Constant(0.0, lanes=1))
    refused(writer.finish(), "y[1][1] is written never")
    writer.store(y, 1, 1, value=Constant(0.0, lanes=1))
    assert check(writer.finish()) == ()


def test_what_cannot_be_proven_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    y = Buffer("y", (1 << 12,), access="write")
    writer = Writer("entangled", [y])
    with writer.loop("i", 64) as i, writer.loop("j", 64) as j:
        writer.store(y, as_index(i) * 64 + j, value=Constant(0.0, lanes=1))
    kernel = writer.finish()
    assert check(kernel) == ()
    monkeypatch.setattr("lanewise.native.nest_writes.MOST_POINTS", 1000)
    (note,) = check(kernel)
    assert "not proven that y is written once" in note and "entangled" in note


def test_a_large_output_costs_little_to_prove() -> None:
    """The proof works axis by axis: 2^40 elements are as easy as 2^10."""
    y = Buffer("y", (1 << 10, 1 << 13, 1 << 13, LANES), access="write")
    writer = Writer("large", [y])
    with writer.loop("k", 1 << 10, step=4) as k, writer.loop("p", 1 << 13) as p:
        for part in ((0, 1 << 12), (1 << 12, 1 << 13)):
            with writer.loop("q", part[1], part[0], step=2) as q:
                for a in range(4):
                    for b in range(2):
                        place = as_index(k) + a, p, as_index(q) + b, 0
                        writer.store(y, *place, value=Constant(0.0))
    assert check(writer.finish()) == ()
    assert count(writer.finish()).stored == {"y": 1 << (10 + 13 + 13 + 4 + 2)}


def test_too_many_points_are_not_enumerated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nest_domain, "MOST_POINTS", 10)
    with pytest.raises(NestError, match="loops p, r make more than 10 points"):
        count(padded_rows())
