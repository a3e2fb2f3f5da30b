"""The size report as text for a terminal and as Markdown.

The table is laid out here and not by rich, because importing rich's console and table takes about
as long as the whole of `lanewise size` may (0.15 s). What does not fit beside the layer's name goes
below it: first the formula, then what the layer stores, then its receptive field. Where a network
branches, `from` names what a layer reads other than the layer above it.

    layer     output    formula                     parameters     MACs  field   bytes
    conv1     6x28x28   ⌊(28 + 4 − 5)/1⌋ + 1 = 28          156  117,600    5/1  18,816
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from textwrap import wrap

from lanewise.errors import counted
from lanewise.net.layers import PartialConv, RadialBasis, Subsample
from lanewise.size.field import Pixels
from lanewise.size.formula import GIVEN, UNCHANGED
from lanewise.size.report import Row, SizeReport, Totals
from lanewise.size.windows import show_shape

GAP = "  "
NO_BREAK = "\N{NO-BREAK SPACE}"
# Formulas of windows are shorter; longer are only sums over many inputs.
LONGEST_FORMULA = 60


@dataclass(frozen=True)
class Column:
    """A column of the report. `below` is how its cell reads on a line below the layer."""

    title: str
    cell: Callable[[Row], str]
    total: Callable[[Totals], str]
    right: bool = False
    below: str = "{}"


def show_field(size: tuple[Pixels, Pixels], jump: tuple[Pixels, Pixels]) -> str:
    """`32/4`: a receptive field and its jump; `8x9/0.5`."""
    return f"{show_pixels(size)}/{show_pixels(jump)}"


def show_pixels(pixels: tuple[Pixels, Pixels]) -> str:
    """`1.5`, or `1.5x2` where height and width differ."""
    height, width = (f"{round(n, 2)}" for n in pixels)
    return height if height == width else f"{height}x{width}"


def show_bytes(count: int) -> str:
    """`241.0 KiB`: binary units, one decimal; exact below 1 KiB."""
    if count < 1024:
        return counted(count, "byte")
    exponent = min((count.bit_length() - 1) // 10, 4)
    return f"{count / 1024**exponent:,.1f} {'KMGT'[exponent - 1]}iB"


def _number(count: int) -> str:
    return f"{count:,}" if count else ""


def _arithmetic(row: Row) -> str:
    return "" if row.formula in (GIVEN, UNCHANGED) else row.formula


def _is_worth_a_line(cell: str) -> bool:
    return bool(cell) and not cell.startswith(UNCHANGED)


def _nothing(totals: Totals) -> str:
    return ""


COLUMNS = (
    Column("layer", lambda row: row.name, lambda totals: "total"),
    Column("output", lambda row: show_shape(row.output), _nothing),
    Column("formula", _arithmetic, _nothing),
    Column("params", lambda row: _number(row.params), lambda t: f"{t.params:,}", right=True),
    Column("MACs", lambda row: _number(row.macs), lambda t: f"{t.macs:,}", right=True),
    Column(
        "field",
        lambda row: show_field(row.receptive_field, row.jump),
        _nothing,
        right=True,
        below="field {}",
    ),
    Column(
        "bytes",
        lambda row: _number(row.activation_bytes),
        lambda t: f"{t.activations_bytes:,}",
        right=True,
        below="{} bytes",
    ),
)
# Layers of LeNet-5's time: where one occurs, its count of connections is told.
COUNTED_IN_1998 = (PartialConv.word, RadialBasis.word, Subsample.word)
# The order in which columns leave the table where the terminal is too narrow.
LEAVING = ("formula", "from", "bytes", "field")


def as_text(report: SizeReport, width: int = 80, notes: bool = True) -> str:
    """The report for a terminal of `width` columns, ending in a newline."""
    columns = _fitting(report, width)
    lines = [report.heading, ""]
    lines += _table(report, columns, width)
    if notes:
        lines.append("")
        for note in _notes(report):
            lines += wrap(note, width, subsequent_indent=GAP)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def as_markdown(report: SizeReport, notes: bool = True) -> str:
    """The report as a Markdown table, ending in a newline."""
    lines = [f"**{report.heading}**", ""]
    columns = _columns(report)
    lines.append(_markdown_line([column.title for column in columns]))
    lines.append(_markdown_line(["---:" if column.right else "---" for column in columns]))
    lines += [_markdown_line(cells) for cells in _cells(report, columns)]
    if notes:
        lines += ["", *(f"- {note}" for note in _notes(report))]
    return "\n".join(lines) + "\n"


def aligned(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Rows of cells as lines with aligned columns; `right` says which columns align right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        GAP.join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]


def _columns(report: SizeReport) -> tuple[Column, ...]:
    """The columns of a network: with `from` where it is no chain."""
    read = {
        row.name: ", ".join(row.inputs)
        for above, row in pairwise(report.rows)
        if row.inputs != (above.name,)
    }
    if not read:
        return COLUMNS
    reads = Column("from", lambda row: read.get(row.name, ""), _nothing, below="from {}")
    return (*COLUMNS[:2], reads, *COLUMNS[2:])


def _cells(report: SizeReport, columns: Sequence[Column]) -> list[list[str]]:
    """One list of cells a layer, and the totals as the last."""
    rows = [[column.cell(row) for column in columns] for row in report.rows]
    return [*rows, [column.total(report.totals) for column in columns]]


def _fitting(report: SizeReport, width: int) -> tuple[Column, ...]:
    """The columns that fit beside each other, the others having left in their order."""
    columns = _columns(report)
    for title in (*LEAVING, ""):
        if _table_width(report, columns) <= width:
            break
        columns = tuple(column for column in columns if column.title != title)
    return columns


def _table_width(report: SizeReport, columns: Sequence[Column]) -> int:
    rows = [[column.title for column in columns], *_cells(report, columns)]
    return max(map(len, aligned(rows, [True] * len(columns))))


def _table(report: SizeReport, columns: Sequence[Column], width: int) -> Iterator[str]:
    rows = [[column.title for column in columns], *_cells(report, columns)]
    title, *lines, total = aligned(rows, [column.right for column in columns])
    yield title
    # Below the outputs, unless long names would leave too little room.
    indent = " " * (min(10, max(len(row[0]) for row in rows)) + len(GAP))
    left = [column for column in _columns(report) if column.title not in _titles(columns)]
    for row, line in zip(report.rows, lines, strict=True):
        yield line
        below = "; ".join(map(_unbroken, _below(row, left)))
        for part in wrap(below, width, initial_indent=indent, subsequent_indent=indent):
            yield part.replace(NO_BREAK, " ")
    yield ""
    yield total


def _titles(columns: Sequence[Column]) -> set[str]:
    return {column.title for column in columns}


def _unbroken(text: str) -> str:
    """Text that lines break only after its commas, so that a formula stays together unless it
    is longer than any formula of a window."""
    return ", ".join(
        part if len(part) > LONGEST_FORMULA else part.replace(" ", NO_BREAK)
        for part in text.split(", ")
    )


def _below(row: Row, left: Sequence[Column]) -> Iterator[str]:
    """What a layer's second line says: the cells of the columns that left."""
    for column in left:
        cell = column.cell(row)
        if _is_worth_a_line(cell):
            yield column.below.format(cell)


def _notes(report: SizeReport) -> Iterator[str]:
    totals = report.totals
    padded = f" ({totals.padded_macs:,} of them)" if totals.padded_macs else ""
    yield (
        f"Memory in fp32: parameters {show_bytes(4 * totals.params)}, activations "
        f"{show_bytes(totals.activations_bytes)} (layers without bytes work in place), "
        f"at most {show_bytes(totals.peak_bytes)} of them alive at once in inference."
    )
    yield (
        "MACs: multiply–adds of convolutions and linear for one image, without bias, taps on "
        f"padding included{padded}. {totals.flops:,} FLOPs = 2 · MACs."
    )
    if totals.buffers:
        yield f"Besides the parameters, bn keeps {totals.buffers:,} running values, not trained."
    if any(row.kind in COUNTED_IN_1998 for row in report.rows):
        yield f"Connections as counted for LeNet-5 in 1998: {totals.connections:,}."
    yield "field: receptive field / jump, in pixels of the input, padding included."
    yield from report.remarks


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
