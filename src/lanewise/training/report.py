"""report.html: the run on one page that needs nothing else, no script and no network."""

from __future__ import annotations

import base64
import html
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lanewise.training.checkpoint import EpochRecord
from lanewise.training.scores import Mistake, Scores

if TYPE_CHECKING:
    from lanewise.data import Split

_WIDTH, _HEIGHT, _MARGIN = 420, 200, 36
_MOST_CLASSES = 30  # a larger confusion matrix is no longer read by eye

_STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .15rem .6rem; text-align: right }
th { font-weight: 600 } .left td, .left th { text-align: left }
.curves { display: flex; flex-wrap: wrap; gap: 1rem }
svg text { font: 11px system-ui, sans-serif; fill: #555 }
.mistakes { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0; width: 9rem }
figure img { width: 100%; image-rendering: pixelated; border: 1px solid #ccc }
figcaption { font-size: .8rem; overflow-wrap: anywhere }
"""


def report_page(
    record: Mapping[str, Any],
    history: Sequence[EpochRecord],
    scores: Scores,
    judged_on: str,
    split: Split,
) -> str:
    """The whole page. `scores` are those of the best weights on `split`."""
    title = f"{record['data']['name']} · {record['net']['name']}"
    low, high = scores.interval
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>Accuracy on {scores.count:,} {judged_on} images: "
        f"<b>{100 * scores.accuracy:.2f} %</b> "
        f"(95 % interval {100 * low:.2f} to {100 * high:.2f}).</p>",
        _facts(record),
        "<h2>Epochs</h2>",
        f'<div class="curves">{_losses(history)}{_accuracies(history)}</div>',
        "<h2>Classes</h2>",
        _classes(scores),
        _confusion(scores),
        _mistakes(scores.worst, split),
    ]
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title>\n<style>\n{_STYLE}</style>\n"
        + "\n".join(parts)
        + "\n</html>\n"
    )


def curve(
    title: str, lines: Sequence[tuple[str, str, Sequence[float]]], low: float, high: float
) -> str:
    """An SVG chart; `lines` are (name, colour, one value per epoch) between `low` and `high`."""
    span = (high - low) or 1.0
    most = max(len(values) for _, _, values in lines)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img">',
        f'<text x="{_MARGIN}" y="14">{html.escape(title)}</text>',
        f'<path d="M{_MARGIN} 20V{_HEIGHT - 20}H{_WIDTH - 8}" stroke="#999" fill="none"/>',
        f'<text x="2" y="28">{high:.3g}</text><text x="2" y="{_HEIGHT - 22}">{low:.3g}</text>',
        f'<text x="{_WIDTH - 60}" y="{_HEIGHT - 5}">epoch {most}</text>',
    ]
    for number, (name, colour, values) in enumerate(lines):
        points = " ".join(
            f"{_across(index, most):.1f},{_up((value - low) / span):.1f}"
            for index, value in enumerate(values)
        )
        parts.append(
            f'<polyline points="{points}" stroke="{colour}" stroke-width="2" fill="none"/>'
        )
        parts += [
            f'<circle cx="{point.split(",")[0]}" cy="{point.split(",")[1]}" r="2.5" '
            f'fill="{colour}"/>'
            for point in points.split()
        ]
        left = _WIDTH - 130 + 65 * number
        parts.append(f'<text x="{left}" y="14" style="fill:{colour}">{html.escape(name)}</text>')
    return "".join([*parts, "</svg>"])


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """uint8 (C, H, W), C = 1 or 3, as a PNG file."""
    channels, height, width = pixels.shape
    rows = pixels.transpose(1, 2, 0).reshape(height, width * channels)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    colour = 0 if channels == 1 else 2
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _across(index: int, count: int) -> float:
    return _MARGIN + (_WIDTH - _MARGIN - 12) * (index / max(1, count - 1))


def _up(share: float) -> float:
    return _HEIGHT - 20 - (_HEIGHT - 44) * share


def _facts(record: Mapping[str, Any]) -> str:
    lines = [*record["data"]["summary"], *record["net"]["notes"]]
    recipe = ", ".join(f"{name} {value}" for name, value in record["recipe"].items())
    rows = [line.split(": ", 1) if ": " in line else ["", line] for line in lines]
    rows += [["net", f"{record['net']['name']}, {record['net']['params']:,} parameters"]]
    rows += [["recipe", recipe], ["version", record["lanewise"]], ["begun", record["created"]]]
    cells = "".join(
        f"<tr><th>{html.escape(name.strip())}</th><td>{html.escape(value)}</td></tr>"
        for name, value in rows
    )
    return f'<table class="left">{cells}</table>'


def _losses(history: Sequence[EpochRecord]) -> str:
    lines = [("train", "#2563eb", [record.loss for record in history])]
    val = [record.val_loss for record in history if record.val_loss is not None]
    if val:
        lines.append(("val", "#ea580c", val))
    return curve("loss", lines, 0.0, max(max(values) for _, _, values in lines))


def _accuracies(history: Sequence[EpochRecord]) -> str:
    lines = [("train", "#2563eb", [100 * record.train_accuracy for record in history])]
    val = [100 * record.val_accuracy for record in history if record.val_accuracy is not None]
    if val:
        lines.append(("val", "#ea580c", val))
    return curve("accuracy, %", lines, min(min(values) for _, _, values in lines), 100.0)


def _classes(scores: Scores) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(item.name)}</th><td>{_percent(item.precision)}</td>"
        f"<td>{_percent(item.recall)}</td><td>{item.count:,}</td></tr>"
        for item in scores.classes
    )
    heads = "<tr><th>class</th><th>precision</th><th>recall</th><th>images</th></tr>"
    return f"<table>{heads}{rows}</table>"


def _confusion(scores: Scores) -> str:
    """True classes down, predicted across; the deeper the colour, the larger the share."""
    names = [html.escape(item.name) for item in scores.classes]
    if len(names) > _MOST_CLASSES:
        return ""
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = []
    for true, (name, counts) in enumerate(zip(names, scores.confusion.tolist(), strict=True)):
        total = max(1, sum(counts))
        cells = "".join(
            f'<td style="background:rgb({_tint(true == called, count / total)})">{count}</td>'
            for called, count in enumerate(counts)
        )
        rows.append(f"<tr><th>{name}</th>{cells}</tr>")
    return (
        "<h2>Confusion</h2><p>Rows: true class. Columns: predicted class.</p>"
        f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"
    )


def _mistakes(worst: Sequence[Mistake], split: Split) -> str:
    if not worst:
        return ""
    figures = "".join(
        f'<figure><img alt="" src="data:image/png;base64,{_encoded(split.images[item.index])}">'
        f"<figcaption>{html.escape(item.true)} taken for <b>{html.escape(item.predicted)}</b>, "
        f"{100 * item.confidence:.1f} %<br>{html.escape(item.source)}</figcaption></figure>"
        for item in worst
    )
    return f'<h2>Worst mistakes</h2><div class="mistakes">{figures}</div>'


def _encoded(pixels: npt.NDArray[np.uint8]) -> str:
    return base64.b64encode(png(pixels)).decode()


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _tint(right: bool, share: float) -> str:
    """Blue for right answers; red for wrong ones, which a few already make visible."""
    return f"37 99 235 / {0.5 * share:.2f}" if right else f"220 38 38 / {min(0.8, 8 * share):.2f}"
