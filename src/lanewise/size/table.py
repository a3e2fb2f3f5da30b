"""The size report as text for a terminal and as Markdown.

The table is laid out here and not by rich, because importing rich's console and table takes about
as long as the whole of `lanewise size` may (0.15 s). What does not fit beside the layer's name goes
below it: first the formula, then what the layer stores, then its receptive field.

    layer     output    formula                     parameters     MACs  field   bytes
    conv1     6x28x28   ⌊(28 + 4 − 5)/1⌋ + 1 = 28          156  117,600    5/1  18,816
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap

from lanewise.net.layers import Pair
from lanewise.net.values import PAIR
from lanewise.size.formula import GIVEN, UNCHANGED
from lanewise.size.report import Row, SizeReport, Totals
from lanewise.size.shapes import show_shape

GAP = "  "
NO_BREAK = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Column:
    """A column of the report. `below` is how its cell reads on a line below the layer."""

    title: str
    cell: Callable[[Row], str]
    total: Callable[[Totals], str]
    right: bool = False
    below: str = "{}"


def show_field(size: Pair, jump: Pair) -> str:
    """`32/4`: a receptive field and its jump."""
    return f"{PAIR.show(size)}/{PAIR.show(jump)}"


def show_bytes(count: int) -> str:
    """`241.0 KiB`: binary units, one decimal; exact below 1 KiB."""
    if count < 1024:
        return f"{count} bytes"
    exponent = min((count.bit_length() - 1) // 10, 4)
    return f"{count / 1024**exponent:,.1f} {'KMGT'[exponent - 1]}iB"


def _number(count: int) -> str:
    return f"{count:,}" if count else ""


def _arithmetic(row: Row) -> str:
    return "" if row.formula in (GIVEN, UNCHANGED) else row.formula


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
# The order in which columns leave the table where the terminal is too narrow.
LEAVING = ("formula", "bytes", "field")


def as_text(report: SizeReport, width: int = 80, notes: bool = True) -> str:
    """The report for a terminal of `width` columns, ending in a newline."""
    columns = _fitting(report, width)
    lines = [_heading(report), ""]
    lines += _table(report, columns, width)
    if notes:
        lines.append("")
        for note in _notes(report):
            lines += wrap(note, width, subsequent_indent=GAP)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def as_markdown(report: SizeReport, notes: bool = True) -> str:
    """The report as a Markdown table, ending in a newline."""
    lines = [f"**{_heading(report)}**", ""]
    lines.append(_markdown_line([column.title for column in COLUMNS]))
    lines.append(_markdown_line(["---:" if column.right else "---" for column in COLUMNS]))
    lines += [_markdown_line(cells) for cells in _cells(report, COLUMNS)]
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


def _heading(report: SizeReport) -> str:
    batch = f", batch {report.batch}" if report.batch > 1 else ""
    return f"{report.name}: input {show_shape(report.input)}{batch}"


def _cells(report: SizeReport, columns: Sequence[Column]) -> list[list[str]]:
    """One list of cells a layer, and the totals as the last."""
    rows = [[column.cell(row) for column in columns] for row in report.rows]
    return [*rows, [column.total(report.totals) for column in columns]]


def _fitting(report: SizeReport, width: int) -> tuple[Column, ...]:
    """The columns that fit beside each other, the others having left in their order."""
    columns: tuple[Column, ...] = COLUMNS
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
    for row, line in zip(report.rows, lines, strict=True):
        yield line
        below = "; ".join(map(_unbroken, _below(row, columns)))
        for part in wrap(below, width, initial_indent=indent, subsequent_indent=indent):
            yield part.replace(NO_BREAK, " ")
    yield ""
    yield total


def _unbroken(text: str) -> str:
    """Text that lines break only after its commas, so that a formula stays together."""
    return text.replace(" ", NO_BREAK).replace(f",{NO_BREAK}", ", ")


def _below(row: Row, columns: Sequence[Column]) -> Iterator[str]:
    """What a layer's second line says: the cells of the columns that left."""
    for column in COLUMNS:
        if column not in columns and column.cell(row):
            yield column.below.format(column.cell(row))


def _notes(report: SizeReport) -> Iterator[str]:
    totals = report.totals
    padded = f" ({totals.padded_macs:,} of them)" if totals.padded_macs else ""
    yield (
        f"Memory in fp32: parameters {show_bytes(4 * totals.params)}, activations "
        f"{show_bytes(totals.activations_bytes)} (layers without bytes work in place), "
        f"at most {show_bytes(totals.peak_bytes)} of them alive at once in inference."
    )
    yield (
        "MACs: multiply–adds of conv and linear for one image, without bias, taps on padding "
        f"included{padded}. {totals.flops:,} FLOPs = 2 · MACs."
    )
    yield "field: receptive field / jump, in pixels of the input, padding included."
    yield from report.remarks


def _markdown_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
