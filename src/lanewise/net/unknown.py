"""`?`: a number of the notation that is to be found.

It stands in a layer's field in place of an integer (or in a pair, in place of one of its parts). A
network with one can be shown, and solved by `lanewise.size.solve`, and nothing else: whoever asks
for its shapes is told so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lanewise.net.layers import Layer


@dataclass(frozen=True, order=True)
class Unknown:
    """A `?` of the notation: it stands in a layer's field where a number is to be found.

    Equal ones of a layer are one number: `k ?` is a square, while `k ?x?` are two. `field_name` is
    where it was written, `place` counts its parts (height 0, width 1; of a pad top, bottom, left,
    right 0 … 3). `forgotten`: the text says nothing there.
    """

    field_name: str
    place: int = 0
    forgotten: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return "?"


def unknowns(value: Any) -> Iterator[Unknown]:
    """Every `?` in a value of a field, as often as it stands there."""
    if isinstance(value, Unknown):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from unknowns(part)


def unknowns_of(layer: Layer) -> tuple[Unknown, ...]:
    """The numbers that are to be found of a layer, each once, in the order of its fields."""
    return tuple(dict.fromkeys(one for value in vars(layer).values() for one in unknowns(value)))


def with_numbers(layer: Any, numbers: Mapping[Unknown, int]) -> Any:
    """The layer with numbers where `?` stands."""
    return replace(layer, **{name: _known(value, numbers) for name, value in vars(layer).items()})


def _known(value: Any, numbers: Mapping[Unknown, int]) -> Any:
    if isinstance(value, Unknown):
        return numbers.get(value, value)
    return tuple(_known(part, numbers) for part in value) if isinstance(value, tuple) else value
