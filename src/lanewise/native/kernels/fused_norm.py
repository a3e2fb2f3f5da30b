"""Batch normalisation inside a convolution: what it reads is normalised on the way, and what it
writes is added up for the normalisation that follows.

    forward   reads rectifier(x · scale + shift (+ other)),   tells mean and squares of its result
    backward  reads scale · dy + slope · (x − mean) + offset, tells Σ dx and Σ dx · x̂ of its result

The formulas are those of `batch_norm.py` and `batch_norm_gradient.py`, whose passes over whole maps
these are instead of. `told` is what those tell, summed tile by tile in the tiles' order.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Protocol, TypeAlias

from lanewise.native.kernels.batch_norm import (
    INVERSE,
    MEAN,
    MOMENTS,
    RECTIFIERS,
    SCALE,
    SHIFT,
    TOLD,
    summed,
)
from lanewise.native.kernels.batch_norm_gradient import OFFSET, SLOPE, through
from lanewise.native.kernels.functions import is_positive, keep_where, number, rectified
from lanewise.native.nest import (
    LANES,
    Buffer,
    Entry,
    IndexLike,
    Read,
    Value,
    as_index,
    op,
    table,
)
from lanewise.native.writer import Writer

Shape: TypeAlias = tuple[int, ...]

# ---- what a convolution reads -------------------------------------------------------------------


class Reading(Protocol):
    """What a convolution reads: a map's value as it stands, or what is made of it on the way.

    `buffers`: what it is made from. `kept`: where it is written, too, if anywhere.
    """

    buffers: list[Buffer]
    kept: Buffer | None
    away: bool  # past the caches

    def constants(self, writer: Writer, map: IndexLike) -> list[Value]:
        """What is the same for a whole map."""
        ...

    def value(self, writer: Writer, constants: list[Value], at: tuple[IndexLike, ...]) -> Value:
        """The value at (map, row, column, lane)."""
        ...


class Plain:
    """Values as they stand in an array: buffer source."""

    def __init__(self, shape: Shape, stem: str = "") -> None:
        self.buffers = [Buffer(f"{stem}source", shape)]
        self.kept: Buffer | None = None
        self.away = False

    def constants(self, writer: Writer, map: IndexLike) -> list[Value]:
        return []

    def value(self, writer: Writer, constants: list[Value], at: tuple[IndexLike, ...]) -> Value:
        return writer.load(self.buffers[0], *at)


class _Normalised:
    """Buffers source, moments, [other], [kept]."""

    def __init__(self, shape: Shape, made: Normalise, stem: str) -> None:
        self.source, self.thin = Buffer(f"{stem}source", shape), made.thin
        self.other = Buffer("other", (*made.thin.shape, LANES) if made.thin else shape)
        self.moments = Buffer(f"{stem}moments", (shape[0], MOMENTS), align=4)
        self.kept = Buffer("kept", shape, access="update") if made.keep else None
        self.made, self.away = made, made.away
        self.buffers = [self.source, self.moments, *[self.other] * made.plus]
        self.buffers += [self.kept] if self.kept else []

    def constants(self, writer: Writer, map: IndexLike) -> list[Value]:
        rows = (SCALE, SHIFT)
        return [writer.let(writer.splat(self.moments, map, row), "constant") for row in rows]

    def value(self, writer: Writer, constants: list[Value], at: tuple[IndexLike, ...]) -> Value:
        y: Value = op("fma", writer.load(self.source, *at), *constants)
        if self.made.plus:
            y = op("add", y, writer.load(self.other, *self._other_at(at)))
        return RECTIFIERS[self.made.rectifier](y)

    def _other_at(self, at: tuple[IndexLike, ...]) -> tuple[IndexLike, ...]:
        if not self.thin:
            return at
        map, row, column, lane = at
        (down, across), origin = self.thin.stride, Entry(self._origin, as_index(map))
        return origin, as_index(row) * down, as_index(column) * across, lane

    @cached_property
    def _origin(self) -> Buffer:
        return table("origin", [max(0, n) for n in self._origins])

    @property
    def _origins(self) -> list[int]:
        """Of each map the other's; negative: it has none."""
        assert self.thin
        maps, (others, *_) = self.source.shape[0], self.thin.shape
        assert isinstance(maps, int)
        moved = (n - self.thin.before for n in range(maps))
        return [n if n < others else -1 for n in moved]

    def cases(self) -> list[tuple[Buffer, Reading]]:
        """Where some maps have no other: tables of those that have one and of those that have
        none, and how each is read."""
        alone = copy(self)
        alone.made = replace(self.made, plus=False)
        has = [int(n >= 0) for n in self._origins]
        found: list[tuple[Buffer, Reading]] = [(table("has_other", has), self)]
        return [*found, (table("has_none", [1 - n for n in has]), alone)]


def cases(reading: Reading) -> Sequence[tuple[Buffer | None, Reading]]:
    """Ways to read a map: with each the table of how often it is taken, map by map (once or not);
    None: once for every map."""
    if isinstance(reading, _Normalised) and reading.thin:
        return reading.cases()
    return [(None, reading)]


class _Pulled:
    """Buffers source, gradient, moments, pull, lane_weight, kept."""

    def __init__(self, shape: Shape, made: Pull, stem: str) -> None:
        self.source, self.gradient = Buffer(f"{stem}source", shape), Buffer("gradient", shape)
        self.moments = Buffer(f"{stem}moments", (shape[0], MOMENTS), align=4)
        self.pull = Buffer("pull", (shape[0], 2), align=4)
        self.weights = Buffer("lane_weight", (LANES,))
        self.kept = Buffer("kept", shape, access="update") if made.keep else None
        self.made, self.away = made, made.away
        inputs = [self.source, self.gradient, self.moments, self.pull, self.weights]
        self.buffers = [*inputs, *([self.kept] if self.kept else [])]

    def constants(self, writer: Writer, map: IndexLike) -> list[Value]:
        rows = [(self.moments, row) for row in (MEAN, SCALE, SHIFT)]
        rows += [(self.pull, row) for row in (SLOPE, OFFSET)]
        living = writer.let(is_positive(writer.load(self.weights, 0)), "living")
        return [*(writer.let(writer.splat(b, map, row), "constant") for b, row in rows), living]

    def value(self, writer: Writer, constants: list[Value], at: tuple[IndexLike, ...]) -> Value:
        mean, scale, begin, slope, offset, living = constants
        x = writer.let(writer.load(self.source, *at), "x")
        normalised = op("fma", x, scale, begin)
        dy = through(self.made.rectifier, normalised, writer.load(self.gradient, *at))
        pulled = op("fma", op("sub", x, mean), slope, offset)
        return keep_where(living, op("fma", scale, dy, pulled))


@dataclass(frozen=True)
class Thin:
    """Every `stride`-th row and column of a larger map of this shape (channels, rows, columns),
    behind `before` channels of zeros and before others."""

    shape: tuple[int, ...]
    stride: tuple[int, int]
    before: int


@dataclass(frozen=True)
class Normalise:
    """x · scale + shift, `plus` another value, then the `rectifier`; to `keep` also elsewhere. The
    other may be a `thin` one."""

    rectifier: str
    plus: bool
    keep: bool
    away: bool = False
    thin: Thin | None = None

    def reading(self, shape: Shape, stem: str = "") -> Reading:
        return _Normalised(shape, self, stem)


@dataclass(frozen=True)
class Pull:
    """The gradient of a normalisation's source from that of its result; kept also elsewhere."""

    rectifier: str
    keep: bool = True
    away: bool = False

    def reading(self, shape: Shape, stem: str = "") -> Reading:
        return _Pulled(shape, self, stem)


@dataclass(frozen=True)
class AsItStands:
    """Nothing is made of the value."""

    def reading(self, shape: Shape, stem: str = "") -> Reading:
        return Plain(shape, stem)


# ---- what is added up of its result -------------------------------------------------------------


class Tally(Protocol):
    """Two sums over all pixels of each map, in rows 0 and 1 of `told`: of `a` and of `b · c`."""

    buffers: list[Buffer]
    told: Buffer
    pivots: bool  # whether sums are taken about a pixel
    beside: list[Buffer]  # of them, those that are read where the results are

    def begin(self, writer: Writer, map: IndexLike, pivot: Value | None) -> None:
        """Before a map's first pixel."""
        ...

    def constants(self, writer: Writer, map: IndexLike) -> list[Value]:
        """What is the same for a whole map."""
        ...

    def terms(
        self, writer: Writer, constants: list[Value], at: tuple[IndexLike, ...], value: Value
    ) -> tuple[Value, Value, Value]:
        """a, b, c of one result."""
        ...

    def finish(self, writer: Writer) -> None:
        """After the last pixel of all maps: from sums to what is told."""
        ...


class _Moments:
    """Mean and squares about it: buffer told (maps, 3, 16). Sums are taken about the pivot."""

    pivots = True

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.told = Buffer("told", (shape[0], TOLD, LANES), access="update")
        self.buffers = [self.told]
        self.beside: list[Buffer] = []

    def begin(self, writer: Writer, map: IndexLike, pivot: Value | None) -> None:
        assert pivot is not None
        for row, value in enumerate((number(0.0), number(0.0), pivot)):
            writer.store(self.told, map, row, 0, value=value)

    def constants(self, writer: Writer, map: IndexLike) -> list[Value]:
        return [writer.let(writer.load(self.told, map, 2, 0), "pivot")]

    def terms(
        self, writer: Writer, constants: list[Value], at: tuple[IndexLike, ...], value: Value
    ) -> tuple[Value, Value, Value]:
        away = writer.let(op("sub", value, constants[0]), "away")
        return away, away, away

    def finish(self, writer: Writer) -> None:
        maps, pixels = self.shape[0], prod(self.shape[1:-1])
        with writer.loop("k", maps) as k:
            total, square, pivot = (
                writer.let(writer.load(self.told, k, row, 0), "sum") for row in range(TOLD)
            )
            shift = writer.let(op("mul", total, number(1.0 / pixels)), "shift")
            writer.store(self.told, k, 0, 0, value=op("add", pivot, shift))
            about = rectified(op("fma", op("neg", total), shift, square))
            writer.store(self.told, k, 1, 0, value=about)


class _GradientSums:
    """Buffers x, norm, told (maps, 2, 16), [norm_weight, norm_bias]: Σ dy and Σ dy · x̂ of every
    lane; their sums over the lanes are added to the gradients of bias and weight."""

    pivots = False

    def __init__(self, shape: Shape, made: SumGradients) -> None:
        self.made, self.maps = made, shape[0]
        self.x = Buffer("x", shape)
        self.moments = Buffer("norm", (shape[0], MOMENTS), align=4)
        self.told = Buffer("told", (shape[0], 2, LANES), access="update")
        names = ("norm_weight", "norm_bias") if made.affine else ()
        self.parameters = [Buffer(name, (shape[0],), access="update", align=4) for name in names]
        self.buffers, self.beside = [self.x, self.moments, self.told, *self.parameters], [self.x]

    def begin(self, writer: Writer, map: IndexLike, pivot: Value | None) -> None:
        for row in range(2):
            writer.store(self.told, map, row, 0, value=number(0.0))

    def constants(self, writer: Writer, map: IndexLike) -> list[Value]:
        rows = (MEAN, SCALE, SHIFT) if self.made.rectifier else (MEAN,)
        return [writer.let(writer.splat(self.moments, map, row), "constant") for row in rows]

    def terms(
        self, writer: Writer, constants: list[Value], at: tuple[IndexLike, ...], value: Value
    ) -> tuple[Value, Value, Value]:
        x = writer.let(writer.load(self.x, *at), "x")
        dy = value
        if self.made.rectifier:
            _, scale, begin = constants
            dy = writer.let(through(self.made.rectifier, op("fma", x, scale, begin), value), "dy")
        return dy, op("sub", x, constants[0]), dy

    def finish(self, writer: Writer) -> None:
        with writer.loop("k", self.maps) as k:
            inverse = writer.splat(self.moments, k, INVERSE)
            total = writer.let(writer.load(self.told, k, 0, 0), "total")
            product = writer.let(op("mul", writer.load(self.told, k, 1, 0), inverse), "product")
            writer.store(self.told, k, 1, 0, value=product)
            for target, value in zip(self.parameters, (product, total), strict=False):
                old = writer.load(target, k, lanes=1)
                writer.store(target, k, value=op("add", old, op("lanesum", value)))


@dataclass(frozen=True)
class Moments:
    """Of every lane the mean and the squares about it, for the normalisation that follows."""

    def tally(self, shape: Shape) -> Tally:
        return _Moments(shape)


@dataclass(frozen=True)
class SumGradients:
    """Σ dy and Σ dy · x̂ of every lane, for the normalisation whose result's gradient this is."""

    rectifier: str
    affine: bool

    def tally(self, shape: Shape) -> Tally:
        return _GradientSums(shape, self)


Reads: TypeAlias = Normalise | Pull | AsItStands
Tells: TypeAlias = Moments | SumGradients


class Sums:
    """The two sums of one map, while its results are in registers."""

    def __init__(self, writer: Writer, tally: Tally, map: IndexLike) -> None:
        self.writer, self.tally, self.map = writer, tally, map
        self.constants = tally.constants(writer, map)
        self.registers = [
            writer.assign(writer.register("sum"), writer.load(tally.told, map, row, 0))
            for row in range(2)
        ]

    def terms(self, at: tuple[IndexLike, ...], value: Value) -> tuple[Value, Value, Value]:
        return self.tally.terms(self.writer, self.constants, at, value)

    def add(self, parts: Sequence[Value]) -> None:
        """Some part of both."""
        for register, part in zip(self.registers, parts, strict=True):
            self.writer.assign(register, op("add", Read(register), part))

    def add_tile(self, told: Sequence[tuple[Value, Value, Value]], columns: int) -> None:
        """Σ a and Σ b · c of a tile: row by row, then the rows."""
        totals: list[Value] = []
        products: list[Value] = []
        for first in range(0, len(told), columns):
            row = told[first : first + columns]
            totals.append(self.writer.let(summed([a for a, _, _ in row]), "part"))
            product: Value = self.writer.let(op("mul", row[0][1], row[0][2]), "part")
            for _, b, c in row[1:]:
                product = self.writer.let(op("fma", b, c, product), "part")
            products.append(product)
        self.add([self.writer.let(summed(values), "part") for values in (totals, products)])

    def store(self) -> None:
        for row, register in enumerate(self.registers):
            self.writer.store(self.tally.told, self.map, row, 0, value=Read(register))
