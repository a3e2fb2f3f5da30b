"""What a loop nest costs, exactly: how often each statement runs times what it does.

Trip counts are multiplied; only loops whose bounds depend on one another are enumerated. The
multiply–adds must equal those of the size calculus (`lanewise.size.cost`) times the lanes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from lanewise.native.nest import (
    ELEMENT_BYTES,
    MATRIX_STATEMENTS,
    Fetch,
    Kernel,
    Load,
    Loop,
    MatrixDot,
    MatrixLoad,
    MatrixStatement,
    MatrixStore,
    Op,
    Statement,
    Store,
    Transpose,
    Value,
)
from lanewise.native.nest_domain import Domain

#: Operations that move or reinterpret numbers and compute nothing.
FREE = frozenset({"splat", "asfloat", "asint"})
#: how many multiply–adds an operation is in every lane
MULTIPLY_ADDS = {"fma": 1, "dot": 2}


@dataclass(frozen=True)
class Counts:
    """Executed work of one call of a kernel.

    `multiply_adds`: fused multiply–adds × lanes. `arithmetic`: results of all other operations
    × lanes (sums over lanes: the lanes summed; conversions, comparisons and choices included).
    `loaded`, `stored`: bytes by array, as often as the statements say so (a repeated load counts
    again); an array that is not touched is not listed. Table look-ups in indices, transpositions
    and the loops themselves are not counted.
    """

    multiply_adds: int
    arithmetic: int
    loaded: Mapping[str, int] = field(default_factory=dict)
    stored: Mapping[str, int] = field(default_factory=dict)

    @property
    def operations(self) -> int:
        """Floating-point operations as the field counts them: a multiply–add is two."""
        return 2 * self.multiply_adds + self.arithmetic


def count(kernel: Kernel, symbols: Mapping[str, int] | None = None) -> Counts:
    """The work of one call, for given values of the symbols.

    Raises NestError where a trip count depends on numbers known only when the kernel runs.
    """
    domain = Domain(symbols or {}, kernel.buffers)
    total: Counter[tuple[str, str]] = Counter()
    _add_body(kernel.body, domain, total)
    by_kind: dict[str, dict[str, int]] = {"load": {}, "store": {}}
    for (kind, name), amount in total.items():
        if kind in by_kind and amount:
            by_kind[kind][name] = amount
    multiply_adds, arithmetic = total["work", "fma"], total["work", "other"]
    return Counts(multiply_adds, arithmetic, by_kind["load"], by_kind["store"])


def _add_body(body: tuple[Statement, ...], domain: Domain, total: Counter[tuple[str, str]]) -> None:
    once: Counter[tuple[str, str]] = Counter()
    for statement in body:
        if not isinstance(statement, Loop):
            _add_statement(statement, once)
            continue
        domain.enter(statement)
        if not domain.never_runs():
            _add_body(statement.body, domain, total)
        domain.leave()
    if once:
        trips = domain.trips()
        for key, amount in once.items():
            total[key] += amount * trips


def _add_statement(statement: Statement, once: Counter[tuple[str, str]]) -> None:
    seen: set[int] = set()
    if isinstance(statement, Fetch):
        return
    if isinstance(statement, MATRIX_STATEMENTS):
        _add_matrix(statement, once)
        return
    if isinstance(statement, Transpose):
        for value in statement.values:
            _add_value(value, once, seen)
        return
    assert not isinstance(statement, Loop)
    _add_value(statement.value, once, seen)
    if isinstance(statement, Store):
        dtype, lanes = statement.buffer.dtype, statement.value.lanes
        once["store", statement.buffer.name] += ELEMENT_BYTES[dtype] * lanes


def _add_matrix(statement: MatrixStatement, once: Counter[tuple[str, str]]) -> None:
    """Of a product all elements count, whatever stands in them."""
    if isinstance(statement, MatrixDot):
        sums, terms = statement.sums, 2 * statement.left.columns
        once["work", "fma"] += sums.rows * sums.columns * terms
    elif isinstance(statement, MatrixLoad | MatrixStore):
        kind = "load" if isinstance(statement, MatrixLoad) else "store"
        matrix = statement.matrix
        size = ELEMENT_BYTES[statement.buffer.dtype] * matrix.rows * matrix.columns
        once[kind, statement.buffer.name] += size


def _add_value(value: Value, once: Counter[tuple[str, str]], seen: set[int]) -> None:
    """A node that one statement uses twice is evaluated once."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Load):
        once["load", value.buffer.name] += ELEMENT_BYTES[value.dtype] * value.lanes
    elif isinstance(value, Op):
        for argument in value.arguments:
            _add_value(argument, once, seen)
        if value.name not in FREE:
            kind = "fma" if value.name in MULTIPLY_ADDS else "other"
            each = MULTIPLY_ADDS.get(value.name, 1)
            once["work", kind] += each * max(value.lanes, value.arguments[0].lanes)
