"""Register tiles: cut into blocks, and filled with products tap by tap."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lanewise.native.kernels.taps import Segment
from lanewise.native.nest import Read, Register, Value, op
from lanewise.native.writer import Writer


def products(
    writer: Writer,
    cells: list[list[Register]],
    weight_at: Callable[[int, int], Value],
    source_at: Callable[[int], Value],
    part: Segment,
    order: Sequence[int],
    multiply: str = "fma",
) -> None:
    """cells[i][j] += weight(i, t) · source(pattern[j][t]) for every tap that meets a column."""
    loaded: dict[int, Read] = {}
    # Leftmost source columns first: a column can then leave its register as the next one comes.
    for t in order:
        met = part.of_tap(t)
        for _, j in met:
            if j not in loaded:
                loaded[j] = writer.let(source_at(j), "x")
        if not met:
            continue
        for i, line in enumerate(cells):
            scalar = writer.let(weight_at(i, t), "w")
            for j, column in met:
                add_product(writer, line[j], scalar, loaded[column], multiply)


def add_product(writer: Writer, cell: Register, a: Value, b: Value, multiply: str = "fma") -> None:
    """cell += a · b, rounded once; or of pairs, `dot`."""
    writer.assign(cell, op(multiply, a, b, Read(cell)))


def blocks(size: int, width: int) -> Sequence[tuple[int, int, int]]:
    """Cut `size` into blocks of `width` and a rest: (first, width, how many)."""
    whole, rest = divmod(size, width)
    parts = [(0, width, whole)] if whole else []
    return parts + ([(whole * width, rest, 1)] if rest else [])
