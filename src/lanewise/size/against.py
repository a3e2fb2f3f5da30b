"""Two networks beside each other: which layers are alike, which changed, and what that costs.

Layers are aligned by their text, as the lines of two files are; those that then stand against each
other are paired by their kind. Layers of the same text may still differ in size and cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lanewise.errors import counted
from lanewise.net.graph import Graph
from lanewise.net.show import show_layer
from lanewise.size.report import Row, SizeReport, size
from lanewise.size.table import GAP, aligned
from lanewise.size.windows import show_shape

# So many alike in a row are one line of the text.
_FEW = 4
# Longer names would make the totals wider than a terminal.
_LONGEST_NAME = 16
_TITLES = ("", "layer", "output", "params", "MACs")
_RIGHT = (False, False, False, True, True)


@dataclass(frozen=True)
class Side:
    """A layer of one network: how it is written, and its sizes."""

    text: str
    row: Row

    @property
    def sizes(self) -> tuple[object, ...]:
        """What makes two layers alike."""
        return self.text, self.row.output, self.row.params, self.row.macs


@dataclass(frozen=True)
class Pair:
    """Two layers that stand for each other, or one that the other network does not have."""

    a: Side | None
    b: Side | None

    @property
    def change(self) -> str:
        """`same`, `changed`, `removed` (only in the first) or `added` (only in the second)."""
        if self.a is None or self.b is None:
            return "removed" if self.b is None else "added"
        return "same" if self.a.sizes == self.b.sizes else "changed"


@dataclass(frozen=True)
class Comparison:
    """Both reports and their layers in pairs, in the order of both networks."""

    a: SizeReport
    b: SizeReport
    pairs: tuple[Pair, ...]

    def as_json(self) -> dict[str, Any]:
        """The document of `lanewise size A --against B --json`."""
        one, two = self.a.as_json(), self.b.as_json()
        rows_a, rows_b = _by_name(one), _by_name(two)
        totals = one["totals"]
        return {
            **{
                side: {"name": report["name"], "input": report["input"], "totals": report["totals"]}
                for side, report in (("a", one), ("b", two))
            },
            "layers": [
                {"change": pair.change, "a": _json(pair.a, rows_a), "b": _json(pair.b, rows_b)}
                for pair in self.pairs
            ],
            "difference": {key: two["totals"][key] - totals[key] for key in totals},
        }


def compare(a: Graph, b: Graph, batch: int = 1) -> Comparison:
    """The comparison for `batch` images; SizeError where a layer of either cannot exist."""
    reports = size(a, batch), size(b, batch)
    one, two = (
        [
            Side(show_layer(node.layer), row)
            for node, row in zip(graph.nodes, report.rows, strict=True)
        ]
        for graph, report in zip((a, b), reports, strict=True)
    )
    return Comparison(*reports, tuple(_align(one, two)))


def as_text(comparison: Comparison, width: int = 80) -> str:
    """The comparison for a terminal of `width` columns, ending in a newline.

    A layer that both have alike is one line; of one that changed, `-` is the first network's and
    `+` the second's.
    """
    a, b = comparison.a, comparison.b
    lines = [
        f"- {a.name}: input {show_shape(a.input)}",
        f"+ {b.name}: input {show_shape(b.input)}",
        "",
    ]
    rows = [_TITLES, *_rows(comparison.pairs)]
    lines += aligned(_cut(rows, width), _RIGHT)
    lines += ["", *total_lines(a, b, (a.name, b.name))]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _align(one: list[Side], two: list[Side]) -> Iterator[Pair]:
    """Pairs of equal text; what stands between them is paired by kind."""
    for same, begin, end, start, stop in _blocks([s.text for s in one], [s.text for s in two]):
        left, right = one[begin:end], two[start:stop]
        if same:
            yield from map(Pair, left, right)
            continue
        kinds = [s.row.kind for s in left], [s.row.kind for s in right]
        for paired, first, last, low, high in _blocks(*kinds):
            if paired:
                yield from map(Pair, left[first:last], right[low:high])
            else:
                yield from (Pair(side, None) for side in left[first:last])
                yield from (Pair(None, side) for side in right[low:high])


def _blocks(one: list[str], two: list[str]) -> Iterator[tuple[bool, int, int, int, int]]:
    """(whether equal, begin and end in `one`, begin and end in `two`), covering both."""
    from difflib import SequenceMatcher  # slow to import, and needed here alone

    for tag, *places in SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        begin, end, start, stop = places
        yield tag == "equal", begin, end, start, stop


def _rows(pairs: Sequence[Pair]) -> Iterator[tuple[str, ...]]:
    alike: list[Pair] = []
    for pair in pairs:
        if pair.change == "same":
            alike.append(pair)
            continue
        yield from _alike(alike)
        alike = []
        if pair.a is not None:
            yield _row("-", pair.a)
        if pair.b is not None:
            yield _row("+", pair.b)
    yield from _alike(alike)


def _alike(pairs: list[Pair]) -> Iterator[tuple[str, ...]]:
    """Layers that both have: the first and the last of many, and how many stand between."""
    sides = [pair.a for pair in pairs if pair.a is not None]
    if len(sides) <= _FEW:
        yield from (_row(" ", side) for side in sides)
        return
    yield _row(" ", sides[0])
    yield "", f"… {counted(len(sides) - 2, 'layer')} alike", "", "", ""
    yield _row(" ", sides[-1])


def _row(mark: str, side: Side) -> tuple[str, ...]:
    row = side.row
    return mark, side.text, show_shape(row.output), _count(row.params), _count(row.macs)


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _cut(rows: list[tuple[str, ...]], width: int) -> list[tuple[str, ...]]:
    """The rows with long layers cut, so that the lines fit."""
    others = [max(len(row[column]) for row in rows) for column in (0, 2, 3, 4)]
    room = max(12, width - sum(others) - 4 * len(GAP))
    return [
        (mark, text if len(text) <= room else f"{text[: room - 1]}…", *rest)
        for mark, text, *rest in rows
    ]


def total_lines(one: SizeReport, other: SizeReport, names: tuple[str, str]) -> list[str]:
    """A line for each total: both values, the difference and the ratio."""
    return aligned(list(_totals(one, other, names)), (False, True, True, True))


def _totals(
    one: SizeReport, other: SizeReport, names: tuple[str, str]
) -> Iterator[tuple[str, ...]]:
    a, b = one.totals, other.totals
    fitting = max(map(len, names)) <= _LONGEST_NAME
    yield "total", *(names if fitting else ("-", "+")), "difference"
    for title, left, right in (
        ("layers", len(one.rows) - 1, len(other.rows) - 1),
        ("params", a.params, b.params),
        ("MACs", a.macs, b.macs),
        ("activation bytes", a.activations_bytes, b.activations_bytes),
        ("peak bytes", a.peak_bytes, b.peak_bytes),
    ):
        yield title, f"{left:,}", f"{right:,}", _difference(left, right)


def _difference(one: int, two: int) -> str:
    if one == two:
        return "same"
    return f"{two - one:+,}" + (f" ({100 * (two - one) / one:+.1f} %)" if one else "")


def _by_name(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {layer["name"]: layer for layer in document["layers"]}


def _json(side: Side | None, rows: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    if side is None:
        return None
    row = side.row
    known = rows.get(row.name) or {"name": row.name, "kind": row.kind, "output": list(row.output)}
    return {"text": side.text, **known}
