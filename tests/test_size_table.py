"""The size report as it is printed: totals re-added from the rows, widths, Markdown, JSON."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from lanewise.api import Net
from lanewise.net.load import load, zoo_names
from lanewise.size.report import SizeReport, size
from lanewise.size.table import as_markdown, as_text, show_bytes

# The table is the same for every network: each fifth of the zoo, families and variants alike.
NETS = sorted({"lenet5", *zoo_names()[::5]})


def added(report: SizeReport, cells: list[list[str]]) -> None:
    """Every printed column of numbers adds up to its printed total, and to the report's."""
    title, *rows, total = cells
    wanted = {
        "params": report.totals.params,
        "MACs": report.totals.macs,
        "bytes": report.totals.activations_bytes,
    }
    found = 0
    for column, name in enumerate(title):
        if name in wanted:
            printed = [int(row[column].replace(",", "") or 0) for row in rows]
            assert sum(printed) == int(total[column].replace(",", "")) == wanted[name]
            found += 1
    assert found >= 2


def text_cells(text: str) -> list[list[str]]:
    """The cells of a printed table, cut where the titles and gaps say; lines below are skipped."""
    lines = text.split("\n\n")[1].splitlines() + text.split("\n\n")[2].splitlines()
    width = max(map(len, lines))
    lines = [line.ljust(width) for line in lines if not line.startswith("  ")]
    gaps = [i for i in range(1, width) if all(line[i - 1 : i + 1] == "  " for line in lines)]
    cuts = [0, *[i for i in gaps if i + 1 not in gaps], width]
    return [[line[a:b].strip() for a, b in pairwise(cuts)] for line in lines]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("width", [60, 80, 200])
def test_totals_re_added_from_the_printed_rows(name: str, width: int) -> None:
    report = size(load(name), batch=2)
    added(report, text_cells(as_text(report, width)))


@pytest.mark.parametrize("name", NETS)
def test_totals_re_added_from_markdown(name: str) -> None:
    report = size(load(name))
    lines = [line for line in as_markdown(report).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(row) for row in cells}) == 1
    added(report, [cells[0], *cells[2:]])


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("width", [60, 72, 80, 100])
def test_no_line_is_wider_than_the_terminal(name: str, width: int) -> None:
    text = as_text(size(load(name), batch=128), width)
    assert max(map(len, text.splitlines())) <= width
    assert all(line == line.rstrip() for line in text.splitlines())


def test_every_formula_and_byte_is_printed_at_every_width() -> None:
    report = size(load("vgg16"))
    for width in (60, 80, 200):
        words = " ".join(as_text(report, width).split())
        for row in report.rows:
            if "/" in row.formula:
                assert row.formula in words
            if row.activation_bytes:
                assert f"{row.activation_bytes:,}" in words


def test_lenet_as_it_is_printed_at_80_columns() -> None:
    lines = as_text(size(load("lenet5"))).splitlines()
    assert lines[:5] == [
        "lenet5: input 1x28x28",
        "",
        "layer     output    formula                    params     MACs  field   bytes",
        "input     1x28x28                                                 1/1   3,136",
        "conv1     6x28x28   ⌊(28 + 4 − 5)/1⌋ + 1 = 28     156  117,600    5/1  18,816",
    ]
    assert "total                                          61,706  416,520         35,512" in lines


def test_same_beyond_pytorch_is_remarked() -> None:
    def remarks(layer: str) -> tuple[str, ...]:
        return Net(f"input 1x28x29; {layer}").size().remarks

    assert remarks("conv 6 k5 pad same") == remarks("conv 6 k5 stride2 pad1") == ()
    assert remarks("conv 6 k5 stride2 pad same") == (
        "conv1: pad same at stride 2 is TensorFlow's rule, here pad 1:2x2; "
        "PyTorch has pad same for convolutions of stride 1 only.",
    )
    assert "here pad 1;" in remarks("maxpool 3 stride1 pad same")[0]
    report = Net("input 1x28x29; maxpool 3 stride1 pad same").size()
    assert report.remarks[0] in " ".join(as_text(report).split())


def test_long_names_leave_room_for_formulas() -> None:
    text = as_text(Net(f"input 1x28x28; {'a' * 30}: conv 6 k3x5 dilation 1x2").size(), 60)
    assert "width ⌊(28 + 0 − (2·4 + 1))/1⌋ + 1 = 20" in text


def test_json_is_the_interface_s() -> None:
    document = json.loads(json.dumps(size(load("lenet5")).as_json()))
    assert list(document) == ["name", "input", "layers", "totals", "convention", "memory"]
    assert document["name"] == "lenet5"
    assert document["input"] == [1, 28, 28]
    assert document["layers"][0] == {
        "name": "conv1",
        "kind": "conv",
        "inputs": ["input"],
        "output": [6, 28, 28],
        "formula": "⌊(28 + 4 − 5)/1⌋ + 1 = 28",
        "params": 156,
        "macs": 117_600,
        "connections": 117_600 - 9_864 + 4_704,
        "receptive_field": [5, 5],
        "jump": [1, 1],
        "centre": [0, 0],
        "unread": [0, 0],
        "padded_outputs": 28 * 28 - 24 * 24,
    }
    assert len(document["layers"]) == 12
    assert document["totals"] == {
        "params": 61_706,
        "macs": 416_520,
        "flops": 833_040,
        "buffers": 0,
        "connections": 413_174,
        "activations_bytes": 35_512,
        "peak_bytes": 23_520,
    }
    assert document["convention"] == "torch"
    assert document["memory"]["inference"] == {
        "activations_bytes": 23_520,
        "bytes": 23_520 + 4 * 61_706,
    }


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (1023, "1,023 bytes"), (1024, "1.0 KiB"), (2**20, "1.0 MiB"),
     (5 * 2**40, "5.0 TiB"), (2**54, "16,384.0 TiB")],
)  # fmt: skip
def test_bytes_in_words(count: int, shown: str) -> None:
    assert show_bytes(count) == shown
