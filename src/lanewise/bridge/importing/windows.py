"""Numbers that PyTorch takes for one axis or for both, as this package writes them."""

from __future__ import annotations

from typing import Any

from lanewise.bridge.importing.builder import NoLayer
from lanewise.bridge.importing.values import Border, Value
from lanewise.net.layers import NO_PAD, Pad, Pair, Sides


def pair(value: Any) -> Pair:
    """`2`, `(2,)` or `(2, 3)` → (height, width)."""
    if isinstance(value, int):
        return value, value
    numbers = [int(number) for number in value]
    if len(numbers) not in (1, 2):
        raise NoLayer(f"{len(numbers)} numbers where height and width have one each")
    return numbers[0], numbers[-1]


def sides(value: Any) -> Sides:
    """A pad for each side: the same at both ends of an axis."""
    height, width = pair(value)
    return (height, height), (width, width)


def with_border(read: Value, pad: Pad) -> tuple[Value, Pad]:
    """The maps without the zeros that were put around them, and the pad with them."""
    border = read.border
    if border is None:
        return read, pad
    inner = Value(read.entry, read.shape, read.dims, read.order)
    if border.fill or isinstance(pad, str):
        raise NoLayer("a convolution over maps padded with something else than zeros")
    return inner, _added(pad, border)


def _added(pad: Sides, border: Border) -> Sides:
    """Both pads together; NoLayer where they would cut the maps."""
    ((a, b), (c, d)), ((e, f), (g, h)) = pad, border.sides
    if min(e, f, g, h) < 0:
        raise NoLayer("maps that were cut at their border")
    return (a + e, b + f), (c + g, d + h)


def with_filled_border(read: Value, pad: Sides, fill: float) -> tuple[Value, Sides]:
    """The maps without the border that was put around them, and the pad with it; it must be filled
    with what the pool pads with itself. Rows cut off at the end may be rows that no window reads:
    they are left to the caller, who compares shapes."""
    border = read.border
    if border is None:
        return read, pad
    inner = Value(read.entry, read.shape, read.dims, read.order)
    (top, bottom), (left, right) = border.sides
    if pad != NO_PAD or border.fill != fill or min(top, left) < 0:
        raise NoLayer(f"pooling of maps padded with {border.fill}")
    return inner, ((top, max(0, bottom)), (left, max(0, right)))
