"""Layers that were measured already, a file each: a long sweep can be made in parts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from caches import Lines
from one_layer import Layer, Measured


@dataclass(frozen=True)
class Kept:
    """A folder of what was measured of one commit; what another one left is measured anew. Without
    a folder nothing is kept."""

    folder: Path | None
    commit: str

    def read(self, layer: Layer) -> tuple[list[Measured], list[dict[str, float]]] | None:
        """A layer's points, and what was measured of the machine beside them; None if they are not
        there."""
        path = self._path(layer)
        if path is None or not path.exists():
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["commit"] != self.commit:
            return None
        return [_point(layer, one) for one in found["points"]], found["rounds"]

    def write(
        self, layer: Layer, points: Sequence[Measured], rounds: Sequence[dict[str, float]]
    ) -> None:
        """A file is there as a whole or not at all."""
        path = self._path(layer)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        told = {
            "commit": self.commit,
            "layer": layer.label,
            "rounds": rounds,
            "points": [asdict(point) for point in points],
        }
        part = path.with_suffix(".part")
        part.write_text(json.dumps(told) + "\n", encoding="utf-8")
        part.replace(path)

    def _path(self, layer: Layer) -> Path | None:
        name = f"k{layer.kernel}-{layer.stride}-{layer.channels}-{layer.kernels}.json"
        return self.folder / name if self.folder else None


def _point(layer: Layer, told: dict[str, Any]) -> Measured:
    found = (tuple(one) if isinstance(one, list) else one for one in told.pop("lines"))
    lists = {name: tuple(told.pop(name)) for name in ("kernels", "seconds", "shares")}
    return Measured(**{**told, **lists, "layer": layer, "lines": Lines._make(found)})
