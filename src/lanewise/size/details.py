"""What a table of sizes never says: what is not read, what sees padding, which images fit, memory.

    layer     field/jump  centre  unread  padding  with all above

`unread`: rows x columns of its input that none of a layer's windows reads; `padding`: the share of
its outputs whose window reaches beyond its input, `with all above` that of outputs which depend on
padding anywhere. Behind a layer that sees the whole map there is nothing of that to tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from lanewise.net.graph import Graph
from lanewise.net.layers import JOINS, Foreign
from lanewise.size.conventions import TORCH, Convention
from lanewise.size.coverage import Coverage, infer_coverage
from lanewise.size.field import Pixels, Reach, infer_fields
from lanewise.size.inputs import Sizes, infer_inputs
from lanewise.size.reading import read
from lanewise.size.report import Row, SizeReport, size
from lanewise.size.shapes import infer_shapes
from lanewise.size.table import GAP, aligned, show_bytes, show_field, show_pixels
from lanewise.size.windows import Shape

_TITLES = ("layer", "field/jump", "centre", "unread", "padding", "with all above")
# So many joins whose branches lie apart are told by name.
_MANY = 4


@dataclass(frozen=True)
class Details:
    """The report and what it does not say. `coverage` has the layers whose output is a map, `apart`
    the joins whose branches do not have the same centres, with the distance in pixels. `inputs` is
    None where a layer is not Lanewise's: nobody knows what it would make of another image."""

    report: SizeReport
    coverage: dict[str, Coverage]
    inputs: tuple[Sizes, Sizes] | None
    apart: dict[str, tuple[Pixels, Pixels]]

    def as_json(self) -> dict[str, Any]:
        """The document of `lanewise size NET --details --json`: the report's, and more."""
        document = self.report.as_json()
        for layer in document["layers"]:
            covered = self.coverage.get(layer["name"])
            layer["padded_share"] = covered.padded_share if covered else None
            layer["unused"] = list(covered.unused) if covered else None
        first = self.coverage[self.report.rows[0].name]
        sizes: list[dict[str, Any] | None] = [None, None]
        if self.inputs:
            pairs = zip(self.inputs, self.report.input[1:], strict=True)
            sizes = [one.as_json(n) for one, n in pairs]
        return document | {
            "image": {"unused": list(first.unused), "height": sizes[0], "width": sizes[1]},
            "branches_apart": {name: list(distance) for name, distance in self.apart.items()},
        }


def details(graph: Graph, rule: Convention = TORCH, batch: int = 1) -> Details:
    """Everything about a network as it was written and this convention reads it. SizeError where a
    layer cannot exist."""
    own = read(graph, rule)
    shapes = infer_shapes(own)
    return Details(
        size(own, batch),
        infer_coverage(own, shapes),
        None
        if any(isinstance(n.layer, Foreign) for n in graph.nodes)
        else infer_inputs(graph, rule),
        dict(_apart(own, shapes)),
    )


def _apart(graph: Graph, shapes: dict[str, Shape]) -> Iterator[tuple[str, tuple[Pixels, Pixels]]]:
    """Joins of maps of one size, whose first outputs look at different places."""
    fields = infer_fields(graph, shapes)
    for node in graph.nodes:
        if not isinstance(node.layer, JOINS):
            continue
        meeting = [name for name in node.inputs if shapes[name] and len(shapes[name]) == 3]
        beside = [name for name in meeting if shapes[name][1:] == shapes[node.name][1:]]
        heights = [_centre(fields[name].height) for name in beside]
        widths = [_centre(fields[name].width) for name in beside]
        if len(beside) > 1 and (len(set(heights)) > 1 or len(set(widths)) > 1):
            yield node.name, (max(heights) - min(heights), max(widths) - min(widths))


def _centre(reach: Reach) -> float:
    return reach.middle / (2 * reach.parts)


def as_text(told: Details, width: int = 80, notes: bool = True) -> str:
    """For a terminal of `width` columns, ending in a newline."""
    report = told.report
    rows = [_TITLES, *(_row(row, told.coverage.get(row.name)) for row in report.rows)]
    lines = [report.heading, "", *aligned(rows, (False, *(True,) * 5))]
    lines += ["", *_memory(report)]
    if notes:
        lines.append("")
        for note in _notes(told):
            lines += wrap(note, width, subsequent_indent=GAP)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _row(row: Row, covered: Coverage | None) -> tuple[str, ...]:
    unread = f"{row.unread[0]}x{row.unread[1]}" if any(row.unread) else ""
    places = row.output[1] * row.output[2] if covered else 0
    own = _percent(row.padded_outputs / places) if places else ""
    through = _percent(covered.padded_share) if covered else ""
    field = show_field(row.receptive_field, row.jump)
    return row.name, field, show_pixels(row.centre), unread, own, through


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share else ""


def _memory(report: SizeReport) -> list[str]:
    memory = report.memory
    assert memory is not None
    images = "1 image" if report.batch == 1 else f"{report.batch} images"
    rows = [
        (f"memory, {images}", "inference", "training"),
        ("values and gradients", show_bytes(memory.inference), show_bytes(memory.alive)),
        ("parameters", *(show_bytes(memory.parameters),) * 2),
        ("their gradients", "", show_bytes(memory.gradients)),
        ("momentum", "", show_bytes(memory.momentum)),
        ("together", show_bytes(memory.predicting), show_bytes(memory.training)),
    ]
    return aligned(rows, (False, True, True))


def _notes(told: Details) -> Iterator[str]:
    memory = told.report.memory
    assert memory is not None
    yield (
        "field/jump, centre: in pixels of the image; the centre is that of the first output's "
        "field, from the middle of the first pixel. unread: rows x columns of its input that no "
        "window of the layer reads. padding: outputs whose window reaches beyond the layer's "
        "input; with all above: that depend on padding anywhere."
    )
    yield (
        "Memory is that of values alive at once in fp32; training keeps "
        f"{show_bytes(memory.kept)} for the backward pass, and computes nothing twice. In bf16 "
        "values and their gradients take half of that, parameters as much."
    )
    yield from _image(told)
    yield from _unused(told)
    for name, distance in list(told.apart.items())[:_MANY]:
        yield f"{name}: its branches look at places {show_pixels(distance)} pixels apart."
    if len(told.apart) > _MANY:
        yield f"So do {len(told.apart) - _MANY} more joins."
    yield from told.report.remarks


def _image(told: Details) -> Iterator[str]:
    """The smallest image, and the sizes that divide exactly."""
    if told.inputs is None:
        return
    (heights, widths), (_, height, width) = told.inputs, told.report.input
    yield f"Smallest image: {heights.smallest}x{widths.smallest}."
    same = heights == widths and height == width
    for what, sizes, n in (("", heights, height), ("Widths: ", widths, width)):
        if not (same and what):
            label = "" if same else what or "Heights: "
            yield f"{label}{_exact(sizes, n)}"


def _unused(told: Details) -> Iterator[str]:
    """What of the image is never used."""
    rows, columns = told.coverage[told.report.rows[0].name].unused
    if rows or columns:
        unused = f"{_counted(rows, 'row')} and {_counted(columns, 'column')}"
        yield f"The result does not depend on {unused} of the image."


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _exact(sizes: Sizes, n: int) -> str:
    if not sizes.exact:
        return "No size divides exactly in every layer."
    beside = " and ".join(map(str, sizes.beside(n)))
    if n in sizes.beside(n):
        return f"{n} divides exactly in every layer{_series(sizes)}."
    do = "do" if len(sizes.beside(n)) > 1 else "does"
    return f"{n} does not divide exactly in every layer; {beside} {do}{_series(sizes)}."


def _series(sizes: Sizes) -> str:
    if sizes.every is None:
        return f" (so do {', '.join(map(str, sizes.exact))})"
    return f" (in general {sizes.exact[0]} + {sizes.every}·i)"
