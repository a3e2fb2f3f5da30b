"""Counts of channels and features that hang on a `?`: sums like 2·a + 64, and what must hold.

The calculus needs no more than sums: layers add channels (`concat`), multiply them by a number
(`depthwise`, `flatten`) or divide them (`split`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import reduce
from math import lcm
from typing import TypeAlias

from lanewise.net.check import LARGEST
from lanewise.net.unknown import Unknown

# Node name and the `?` in its layer.
Symbol: TypeAlias = tuple[str, Unknown]


@dataclass(frozen=True)
class Amount:
    """constant + Σ factor · symbol, the symbols in order and no factor 0."""

    constant: Fraction
    terms: tuple[tuple[Symbol, Fraction], ...]

    def times(self, factor: Fraction | int) -> Amount:
        """Every part multiplied."""
        terms = tuple((symbol, part * factor) for symbol, part in self.terms)
        return Amount(self.constant * factor, terms)


# A number where nothing is unknown.
Count: TypeAlias = "int | Amount"


@dataclass(frozen=True)
class System:
    """What must hold: `zeros` are 0, `multiples` are multiples of their number, `least` at least
    theirs. Only what still hangs on a symbol stands here."""

    zeros: tuple[Amount, ...] = ()
    multiples: tuple[tuple[Amount, int], ...] = ()
    least: tuple[tuple[Amount, int], ...] = ()


class Impossible(Exception):
    """No number can stand for a `?` here."""


def symbol(name: str, unknown: Unknown) -> Amount:
    """The unknown number of a node's layer."""
    return Amount(Fraction(0), (((name, unknown), Fraction(1)),))


def total(counts: tuple[Count, ...]) -> Count:
    """Their sum."""
    return _plain(reduce(_sum, map(_amount, counts)))


def product(count: Count, factor: Fraction | int) -> Count:
    """count · factor; a fraction only where `require_multiple` was asked before."""
    return _plain(_amount(count).times(factor))


def require_equal(system: System, one: Count, other: Count) -> System:
    """The system in which both are the same number; Impossible if they cannot be."""
    difference = _plain(_sum(_amount(one), _amount(other).times(-1)))
    if isinstance(difference, int):
        if difference:
            raise Impossible
        return system
    return replace(system, zeros=(*system.zeros, difference))


def require_multiple(system: System, count: Count, of: int) -> System:
    """The system in which `count` is a multiple; Impossible if it cannot be."""
    if isinstance(count, int):
        if count % of:
            raise Impossible
        return system
    return system if of == 1 else replace(system, multiples=(*system.multiples, (count, of)))


def require_least(system: System, count: Count, least: int) -> System:
    """The system in which `count` is at least so much; Impossible if it cannot be."""
    if isinstance(count, int):
        if count < least:
            raise Impossible
        return system
    return replace(system, least=(*system.least, (count, least)))


def known_from(system: System) -> dict[Symbol, int]:
    """The symbols that an equation of their own determines; Impossible where none can be."""
    found: dict[Symbol, int] = {}
    for zero in system.zeros:
        if len(zero.terms) == 1:
            ((name, factor),) = zero.terms
            value = -zero.constant / factor
            if (
                value.denominator != 1
                or not 1 <= value <= LARGEST
                or found.get(name, value) != value
            ):
                raise Impossible
            found[name] = int(value)
    return found


def with_known(count: Count, known: Mapping[Symbol, int]) -> Count:
    """The count with numbers for the symbols that are known."""
    if isinstance(count, int) or not any(name in known for name, _ in count.terms):
        return count
    constant = count.constant + sum(
        factor * known[name] for name, factor in count.terms if name in known
    )
    terms = tuple((name, factor) for name, factor in count.terms if name not in known)
    return _plain(Amount(constant, terms))


def system_with(system: System, known: Mapping[Symbol, int]) -> System:
    """The system with numbers for the symbols that are known; Impossible where it cannot hold."""
    left = System()
    for zero in system.zeros:
        left = require_equal(left, with_known(zero, known), 0)
    for count, of in system.multiples:
        left = require_multiple(left, with_known(count, known), of)
    for count, least in system.least:
        left = require_least(left, with_known(count, known), least)
    return left


def solutions(system: System) -> Iterator[dict[Symbol, int]]:
    """Every way to satisfy a system whose symbols are all bounded (`unbounded` is empty)."""
    if not system.zeros:
        yield {}
        return
    zero = system.zeros[0]
    sign = 1 if zero.terms[0][1] > 0 else -1
    for values in _positive([abs(factor) for _, factor in zero.terms], -sign * zero.constant):
        known = {name: value for (name, _), value in zip(zero.terms, values, strict=True)}
        try:
            left = system_with(system, known)
            more = known_from(left)
            left = system_with(left, more)
        except Impossible:
            continue
        for others in solutions(left):
            yield {**known, **more, **others}


def unbounded(system: System, symbols: tuple[Symbol, ...]) -> tuple[Symbol, ...]:
    """The symbols that no equation bounds: those of none, or of one with parts of both signs."""
    bounded: set[Symbol] = set()
    for zero in system.zeros:
        if len({factor > 0 for _, factor in zero.terms}) == 1:
            bounded |= {name for name, _ in zero.terms}
    return tuple(name for name in symbols if name not in bounded)


def row_of(system: System, name: Symbol) -> tuple[int, int]:
    """(first, step): the symbol may be first, first + step, first + 2·step …, as far as it stands
    alone in what must be a multiple. Impossible if it may be nothing."""
    alone = [
        (count, of)
        for count, of in system.multiples
        if [symbol for symbol, _ in count.terms] == [name]
    ]
    step = lcm(*(of * count.terms[0][1].denominator for count, of in alone))
    fitting = [
        value
        for value in range(1, min(step, LARGEST) + 1)
        if all((count.constant + value * count.terms[0][1]) % of == 0 for count, of in alone)
    ]
    if not fitting:
        raise Impossible
    # What fits repeats evenly: each condition alone does.
    return fitting[0], fitting[1] - fitting[0] if len(fitting) > 1 else step


def _positive(factors: list[Fraction], wanted: Fraction) -> Iterator[tuple[int, ...]]:
    """Every row of numbers from 1 whose sum, each times its factor, is `wanted`."""
    first, *others = factors
    if not others:
        last = wanted / first
        if last.denominator == 1 and last >= 1:
            yield (int(last),)
        return
    value = 1
    while first * value < wanted:
        for rest in _positive(others, wanted - first * value):
            yield (value, *rest)
        value += 1


def _amount(count: Count) -> Amount:
    return count if isinstance(count, Amount) else Amount(Fraction(count), ())


def _plain(amount: Amount) -> Count:
    """A number where no symbol is left."""
    if amount.terms:
        return amount
    if amount.constant.denominator != 1:
        raise Impossible
    return int(amount.constant)


def _sum(one: Amount, other: Amount) -> Amount:
    terms: dict[Symbol, Fraction] = {}
    for name, factor in (*one.terms, *other.terms):
        terms[name] = terms.get(name, Fraction(0)) + factor
    kept = tuple(sorted((name, factor) for name, factor in terms.items() if factor))
    return Amount(one.constant + other.constant, kept)
