"""The oracle's verdict: a row for each tensor, as a table and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

from lanewise.net.graph import Graph


class Disagreement(AssertionError):
    """The engine and PyTorch differ by more than rounding; the message is the table."""


@dataclass(frozen=True)
class Row:
    """One tensor: its largest error and what is allowed, relative to its size."""

    name: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether it agrees (NaN does not)."""
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Comparison:
    """The verdict on one net: a row a tensor, and the draw that was used."""

    graph: Graph
    batch: int
    seed: int
    target: str
    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """Whether every tensor agrees."""
        return all(row.ok for row in self.rows)

    def summary(self) -> str:
        """`13 of 13 tensors agree with PyTorch (batch 17, seed 0, host)`, and which differ."""
        wrong = [row.name for row in self.rows if not row.ok]
        drawn = f"(batch {self.batch}, seed {self.seed}, {self.target})"
        count = f"{len(self.rows) - len(wrong)} of {len(self.rows)} tensors agree with PyTorch"
        return f"{count} {drawn}" + (f"; not {', '.join(wrong)}" if wrong else "")

    def as_json(self) -> dict[str, Any]:
        """The document of `lanewise verify --json`; an error that is no number is null."""
        return {"ok": self.ok, "tensors": [_row_json(row) for row in self.rows]}

    def as_text(self) -> str:
        """An aligned table with a verdict for each tensor."""
        width = max(len("tensor"), *(len(row.name) for row in self.rows))
        lines = [f"{'tensor':<{width}}    error  tolerance  verdict"]
        for row in self.rows:
            verdict = "ok" if row.ok else "DIFFERS"
            lines.append(
                f"{row.name:<{width}}  {row.error:7.1e}    {row.tolerance:7.1e}  {verdict}"
            )
        return "\n".join(lines)


def _row_json(row: Row) -> dict[str, Any]:
    error = row.error if isfinite(row.error) else None
    return {"name": row.name, "error": error, "tolerance": row.tolerance}
