"""Winograd's transforms: small fixed matrices, and how a nest multiplies by them.

F(m, r) computes m neighbouring outputs of a convolution with r taps by n = m + r − 1
multiplications instead of m · r: both are polynomials, evaluated at n points, multiplied there, and
interpolated. In two dimensions, for tiles of m × m outputs,

    y  = Aᵀ [(G w Gᵀ) ⊙ (Bᵀ x B)] A            x: n × n inputs, w: r × r taps
    dw = Gᵀ [Σ (A dy Aᵀ) ⊙ (Bᵀ x B)] G         the adjoint, summed over tiles and images

The points are 0, ±p, ±q … and ∞. With a pair ±p, the rows of a matrix for p and −p have the same
even entries and opposite odd ones, so both cost little more than one. Where the points lie
decides the rounding error: {0, ±3/4, ±3/2, ∞} is wrong by half as much as {0, ±1, ±2, ∞}.

Source: Winograd, Arithmetic Complexity of Computations (1980); Lavin and Gray, Fast Algorithms for
Convolutional Neural Networks (2016).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple, TypeAlias

from lanewise.native.nest import Constant, Value, op
from lanewise.native.writer import Writer

Row: TypeAlias = tuple[Fraction, ...]
Numbers: TypeAlias = tuple[float, ...]

#: n → the positive points of the pairs; 0 and ∞ are always there
POINTS = {
    4: (Fraction(1),),
    6: (Fraction(3, 4), Fraction(3, 2)),
    8: (Fraction(1, 2), Fraction(1), Fraction(2)),
}


@dataclass(frozen=True, eq=False)
class Matrix:
    """A small matrix, exactly, and as what a nest multiplies by: numbers, worked out once."""

    rows: tuple[Row, ...]

    @cached_property
    def numbers(self) -> tuple[Numbers, ...]:
        """Row by row."""
        return tuple(_numbers(row) for row in self.rows)

    @cached_property
    def columns(self) -> tuple[Numbers, ...]:
        """Column by column."""
        return tuple(zip(*self.numbers, strict=True))

    @cached_property
    def halves(self) -> tuple[Halves, ...]:
        """Row by row: the even entries and the odd ones."""
        return tuple(map(_halves, self.rows))


class Halves(NamedTuple):
    """A row's even entries, then its odd ones, as multiples of one `factor`; zeros elsewhere."""

    even: Numbers
    factor: float
    odd: Numbers


def _numbers(row: Iterable[Fraction]) -> Numbers:
    return tuple(map(float, row))


def _halves(row: Row) -> Halves:
    nothing = Fraction(0)
    even = [c if j % 2 == 0 else nothing for j, c in enumerate(row)]
    odd = [c if j % 2 else nothing for j, c in enumerate(row)]
    factor = next((c for c in reversed(odd) if c), Fraction(1))
    return Halves(_numbers(even), float(factor), _numbers(c / factor for c in odd))


@dataclass(frozen=True)
class Algorithm:
    """F(outputs × outputs, taps × taps)."""

    outputs: int
    taps: int

    @property
    def size(self) -> int:
        """Inputs of a tile along one axis, and points."""
        return self.outputs + self.taps - 1

    @property
    def points(self) -> int:
        """Products of one tile and one pair of maps."""
        return self.size**2

    @cached_property
    def finite(self) -> tuple[Fraction, ...]:
        """All points but ∞, in the order of the rows."""
        pairs = (point for p in POINTS[self.size] for point in (p, -p))
        return (Fraction(0), *pairs)

    @cached_property
    def source(self) -> Matrix:
        """Bᵀ, n × n: row i holds the coefficients of Π (x − p_j) without its factor i; the last
        row those of the whole product."""
        finite = self.finite
        rows = [_product([q for q in finite if q != p]) for p in finite]
        return Matrix(tuple(tuple(_padded(row, self.size)) for row in (*rows, _product(finite))))

    @cached_property
    def kernel(self) -> Matrix:
        """G, n × r: powers of the points over what interpolation divides by."""
        rows = [_powers(p, self.taps, _divisor(p, self.finite)) for p in self.finite]
        return Matrix((*rows, _last(self.taps)))

    @cached_property
    def result(self) -> Matrix:
        """A, n × m: powers of the points."""
        rows = [_powers(p, self.outputs, Fraction(1)) for p in self.finite]
        return Matrix((*rows, _last(self.outputs)))

    @cached_property
    def growth(self) -> float:
        """Rounding error of a result, relative to ε · C · rms(w) · rms(x) for sums over C maps:
        where the direct sum has r². Of the worst place in a tile."""
        source, kernel, result = (
            [[c**2 for c in row] for row in m.numbers]
            for m in (self.source, self.kernel, self.result)
        )
        sizes = [sum(b) * sum(g) for b, g in zip(source, kernel, strict=True)]
        return max(
            sum(row[i] * size for row, size in zip(result, sizes, strict=True))
            for i in range(self.outputs)
        )

    @cached_property
    def weight_growth(self) -> float:
        """Rounding error of a weight's gradient, relative to that of the direct sum; of the worst
        tap."""
        source, kernel, result = (
            [[c**2 for c in row] for row in m.numbers]
            for m in (self.source, self.kernel, self.result)
        )
        sizes = [sum(b) * sum(a) for b, a in zip(source, result, strict=True)]
        return (
            max(
                sum(row[t] * size for row, size in zip(kernel, sizes, strict=True))
                for t in range(self.taps)
            )
            / self.outputs**2
        )


def _product(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of Π (x − root), that of x⁰ first."""
    found = [Fraction(1)]
    for root in roots:
        shifted, scaled = [Fraction(0), *found], [*(-root * c for c in found), Fraction(0)]
        found = [a + b for a, b in zip(shifted, scaled, strict=True)]
    return found


def _padded(row: Sequence[Fraction], size: int) -> list[Fraction]:
    return [*row, *[Fraction(0)] * (size - len(row))]


def _powers(point: Fraction, count: int, divisor: Fraction) -> tuple[Fraction, ...]:
    return tuple(point**i / divisor for i in range(count))


def _divisor(point: Fraction, finite: Sequence[Fraction]) -> Fraction:
    found = Fraction(1)
    for other in finite:
        found *= point - other if other != point else 1
    return found


def _last(size: int) -> tuple[Fraction, ...]:
    return (*[Fraction(0)] * (size - 1), Fraction(1))


# ---- multiplying --------------------------------------------------------------------------------


def spread(
    writer: Writer, matrix: Matrix, values: Sequence[Value], rows: Sequence[int] | None = None
) -> list[Value]:
    """matrix · values where rows 2i + 1 and 2i + 2 belong to points p and −p; only some rows, if
    asked for: a pair is whole or absent."""
    found: dict[int, Value] = {}
    last = len(matrix.rows) - 1
    for i in range(last + 1) if rows is None else rows:
        if i in found:
            continue
        if i in (0, last):
            found[i] = combine(writer, matrix.numbers[i], values)
        else:
            found[i], found[i + 1] = _pair(writer, matrix.halves[i], values)
    return list(found.values())


def _pair(writer: Writer, row: Halves, values: Sequence[Value]) -> tuple[Value, Value]:
    """Σ even + Σ odd, Σ even − Σ odd."""
    even = combine(writer, row.even, values)
    rest = combine(writer, row.odd, values)
    return _plus(writer, even, row.factor, rest), _plus(writer, even, -row.factor, rest)


def gather(
    writer: Writer, matrix: Matrix, values: Sequence[Value], rows: Sequence[int] | None = None
) -> list[Value]:
    """transposed(matrix) · values, for a matrix as in `spread`: sums and differences of the values
    of p and −p first; only some rows of the result, if asked for: even ones need sums alone, odd
    ones differences."""
    wanted = range(len(matrix.columns)) if rows is None else rows
    last = len(matrix.rows) - 1
    sums, differences = {}, {}
    for i in range(1, last, 2):
        if any(j % 2 == 0 for j in wanted):
            sums[i] = writer.let(op("add", values[i], values[i + 1]), "s")
        if any(j % 2 for j in wanted):
            differences[i] = writer.let(op("sub", values[i], values[i + 1]), "d")
    found = []
    for j in wanted:
        pairs = sums if j % 2 == 0 else differences
        column = matrix.columns[j]
        factors = [column[0], *(column[i] for i in pairs), column[last]]
        found.append(combine(writer, factors, [values[0], *pairs.values(), values[last]]))
    return found


def combine(writer: Writer, factors: Sequence[float], values: Sequence[Value]) -> Value:
    """Σ factor · value; a term with the factor 1 begins, if there is one."""
    terms = [(c, value) for c, value in zip(factors, values, strict=True) if c]
    first = next((i for i, (c, _) in enumerate(terms) if c == 1), 0)
    factor, total = terms.pop(first)
    if factor != 1:
        total = writer.let(op("mul", Constant(factor, "f32", total.lanes), total), "u")
    for c, value in terms:
        total = _plus(writer, total, c, value)
    return total


def _plus(writer: Writer, total: Value, factor: float, value: Value) -> Value:
    """total + factor · value, in one operation."""
    if abs(factor) == 1:
        return writer.let(op("add" if factor > 0 else "sub", total, value), "u")
    return writer.let(op("fma", Constant(factor, "f32", value.lanes), value, total), "u")
