"""Pictures of the size rule along one axis, as SVG text, drawn by nobody else's help.

    layers_picture     for each layer: the values with their padding, and under them every window
                       with its taps and the output that it makes
    rule_picture       the output size over a number that is looked for, with those that fit

Colours are of middle brightness, and nothing is painted behind them: both read on light paper and
on dark. Long axes are drawn at their two ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from lanewise.size.axis import Axis

GRAY, BLUE, ORANGE, GREEN = "#7b7f86", "#3f86c9", "#d0802a", "#3f9a5f"
CELL = 24  # pixels a value is wide
ROW = 15  # pixels from one window to the next
_LETTER = 6.7  # pixels a letter of the text is wide, about
# More values than this are drawn at both ends only, so many at each.
_MOST, _END = 36, 15
# More windows than this leave out those in the middle.
_MOST_WINDOWS = 24


@dataclass(frozen=True)
class Drawn:
    """A layer along one axis: `title` stands above, `formula` below. `grown`: a transposed
    convolution, whose every input value writes a window of the output."""

    title: str
    formula: str
    axis: Axis
    grown: bool = False


def layers_picture(layers: Sequence[Drawn]) -> str:
    """The layers below each other, as an SVG document."""
    parts: list[str] = []
    top, width = 0.0, 0.0
    for layer in layers:
        inside, size = _layer(layer)
        parts.append(f'<g transform="translate(0 {top:g})">{"".join(inside)}</g>')
        top += size[1] + 18
        width = max(width, size[0])
    return _document(parts, width, top - 18)


def rule_picture(
    title: str, name: str, sizes: Mapping[int, int], wanted: int, formula: str = ""
) -> str:
    """`sizes`: a number called `name` → the output size with it; `wanted` is marked."""
    numbers = sorted(sizes)
    high = max(max(sizes.values()), wanted)
    step = min(18.0, 220 / high)
    left, top = 34.0, 30.0
    bottom = top + high * step
    parts = [_text(0, 14, title, GRAY, weight=True)]
    for size in _ticks(high):
        y = bottom - size * step
        parts.append(_text(left - 8, y + 4, str(size), GRAY, anchor="end"))
        parts.append(_line(left, y, left + CELL * len(numbers), y, GRAY, faint=True))
    for place, number in enumerate(numbers):
        x, y = left + CELL * place, bottom - sizes[number] * step
        fits = sizes[number] == wanted
        colour = ORANGE if fits else BLUE
        parts.append(_rect(x + 4, y, CELL - 8, bottom - y, colour, 0.75 if fits else 0.3))
        label = ORANGE if fits else GRAY
        parts.append(_text(x + CELL / 2, bottom + 15, str(number), label, "middle", weight=fits))
    y = bottom - wanted * step
    parts.append(_line(left, y, left + CELL * len(numbers), y, ORANGE))
    right = left + CELL * len(numbers)
    parts.append(_text(right + 6, y + 4, f"output {wanted}", ORANGE))
    parts.append(_text(right + 6, bottom + 15, name, GRAY))
    parts.append(_text(left, bottom + 38, formula, GRAY))
    longest = max(len(name), len(f"output {wanted}")) * _LETTER
    widths = (right + 12 + longest, left + len(formula) * _LETTER, len(title) * _LETTER * 1.1)
    return _document(parts, max(widths), bottom + 46)


# A layer ------------------------------------------------------------------------------------------


def _layer(layer: Drawn) -> tuple[list[str], tuple[float, float]]:
    axis = layer.axis
    places = _places(axis)
    right = (max(places.values()) + 1) * CELL
    read = {position for window in axis.reads for position in window}
    parts = [_text(0, 14, layer.title, GRAY, weight=True)]
    parts += _values(axis, places, read, GREEN if layer.grown else BLUE)
    top = 30.0 + CELL + 12
    number = -1
    for number, (index, window) in enumerate(_windows(axis, places)):
        y = top + number * ROW
        parts += _window(window, places, y) if window else _dots(places, y)
        parts += _output(index, right, y, layer.grown)
    bottom = top + (number + 1) * ROW + 8
    parts.append(_text(0, bottom + 10, layer.formula, GRAY))
    width = max(right + 3 * CELL, len(layer.formula) * _LETTER, len(layer.title) * _LETTER * 1.1)
    return parts, (width, bottom + 16)


def _places(axis: Axis) -> dict[int, float]:
    """Position (0 … n − 1 are values) → column; of long axes only the two ends have one."""
    last = axis.n + axis.end + axis.overhang
    positions = range(-axis.begin, max(last, axis.n))
    if len(positions) <= _MOST:
        return {position: float(column) for column, position in enumerate(positions)}
    first, end = positions[:_END], positions[-_END:]
    places = {position: float(column) for column, position in enumerate(first)}
    return places | {position: _END + 1.5 + column for column, position in enumerate(end)}


def _values(axis: Axis, places: Mapping[int, float], read: set[int], own: str) -> Iterator[str]:
    """The row of values: numbered, padding dashed, what no window reads faint."""
    for position, column in places.items():
        x, real = column * CELL, 0 <= position < axis.n
        unread = position not in read
        fill = 0.0 if unread or not real else 0.3
        colour = own if real and not unread else GRAY
        yield _rect(x + 1, 30, CELL - 2, CELL - 2, colour, fill, dashed=not real, faint=unread)
        text = str(position + 1) if real else "0"
        small = len(text) > 2
        yield _text(
            x + CELL / 2, 30 + CELL / 2 + 3, text, GRAY, "middle", faint=unread, small=small
        )
    if axis.n + axis.begin + axis.end > len(places):
        yield _text((_END + 0.75) * CELL, 30 + CELL / 2 + 3, "…", GRAY, "middle")


def _windows(axis: Axis, places: Mapping[int, float]) -> Iterator[tuple[int, range | None]]:
    """(number, positions) of the windows that are wholly drawn; (−1, None) where some are not."""
    drawn = [
        (index, window)
        for index, window in enumerate(axis.reads)
        if all(position in places for position in window)
    ]
    if len(drawn) > _MOST_WINDOWS:
        drawn = drawn[: _MOST_WINDOWS // 2] + drawn[-_MOST_WINDOWS // 2 :]
    before = -1
    for index, window in drawn:
        if index > before + 1:
            yield -1, None
        yield index, window
        before = index
    if before + 1 < axis.out:
        yield -1, None


def _window(window: range, places: Mapping[int, float], y: float) -> Iterator[str]:
    """A line over the window's reach, and a block for each tap."""
    first, last = places[window[0]] * CELL, (places[window[-1]] + 1) * CELL
    yield _line(first + 3, y + 5, last - 3, y + 5, ORANGE)
    for position in window:
        yield _rect(places[position] * CELL + 4, y, CELL - 8, 10, ORANGE, 0.8)


def _dots(places: Mapping[int, float], y: float) -> Iterator[str]:
    middle = (max(places.values()) + 1) * CELL / 2
    yield _text(middle, y + 8, "…", GRAY, "middle")


def _output(index: int, right: float, y: float, grown: bool) -> Iterator[str]:
    """The output that a window makes, at the right end of its row; `grown`: the input it is of."""
    if index < 0:
        return
    colour = BLUE if grown else GREEN
    yield _text(right + 8, y + 9, "←" if grown else "→", GRAY)
    yield _rect(right + CELL, y - 1, CELL - 2, 12, colour, 0.3)
    middle = right + CELL + (CELL - 2) / 2
    yield _text(middle, y + 9, str(index + 1), GRAY, "middle", small=index >= 99)


# SVG ----------------------------------------------------------------------------------------------


def _ticks(high: int) -> Iterable[int]:
    step = max(1, -(-high // 10))
    return range(0, high + 1, step)


def _document(parts: Iterable[str], width: float, height: float) -> str:
    body = "\n".join(part for part in parts if part)
    size = f'width="{width + 2:.0f}" height="{height + 2:.0f}"'
    view = f'viewBox="-1 -1 {width + 2:.0f} {height + 2:.0f}"'
    font = 'font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view} {font}>\n{body}\n</svg>\n'


def _text(
    x: float,
    y: float,
    text: str,
    colour: str,
    anchor: str = "start",
    *,
    weight: bool = False,
    faint: bool = False,
    small: bool = False,
) -> str:
    if not text:
        return ""
    bold = ' font-size="10"' if small else ""
    bold += ' font-weight="bold"' if weight else ""
    pale = ' opacity="0.55"' if faint else ""
    place = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}"{bold}{pale}>{escape(text)}</text>'


def _rect(
    x: float,
    y: float,
    width: float,
    height: float,
    colour: str,
    fill: float,
    *,
    dashed: bool = False,
    faint: bool = False,
) -> str:
    dash = ' stroke-dasharray="3 3"' if dashed else ""
    pale = ' stroke-opacity="0.5"' if faint else ""
    place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="2"'
    return f'<rect {place} fill="{colour}" fill-opacity="{fill:g}" stroke="{colour}"{dash}{pale}/>'


def _line(
    x: float, y: float, right: float, down: float, colour: str, *, faint: bool = False
) -> str:
    pale = ' stroke-opacity="0.3"' if faint else ""
    ends = f'x1="{x:g}" y1="{y:g}" x2="{right:g}" y2="{down:g}"'
    return f'<line {ends} stroke="{colour}"{pale}/>'
