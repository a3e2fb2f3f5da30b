"""Whether everybody computed the same, before anything is timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rivals import Arrays, Rival


def agree(expected: Arrays, rivals: Sequence[Rival]) -> dict[str, float]:
    """Relative difference of each rival from ours, in each thing; SystemExit where too large."""
    found: dict[str, float] = {}
    for rival in rivals:
        values = rival.check()
        name = f"{rival.contender.name} {rival.contender.setting}"
        differences = {key: difference(expected[key], values[key]) for key in expected}
        found |= {f"{name}: {key}": value for key, value in differences.items()}
        for key, value in differences.items():
            if not value <= rival.tolerances[key]:  # NaN is not
                raise SystemExit(
                    f"{name} computes something else: its {key} differ by {value:.1e} of the"
                    f" whole, {rival.tolerances[key]:.0e} is allowed; nothing was timed"
                )
    return found


def agreed(agreement: Mapping[str, float]) -> str:
    """The largest difference of each kind, among all in fp32 and among all in bf16."""
    worst: dict[str, dict[str, float]] = {"fp32": {}, "bf16": {}}
    for place, value in agreement.items():
        name, _, key = place.rpartition(": ")
        kinds = worst["bf16" if "bf16" in name else "fp32"]
        kinds[key] = max(kinds.get(key, 0.0), value)
    told = [
        f"{number} " + ", ".join(f"{key} {value:.0e}" for key, value in kinds.items())
        for number, kinds in worst.items()
        if kinds
    ]
    return f"relative differences at most: {'; '.join(told)}"


def difference(found: np.ndarray, theirs: np.ndarray) -> float:
    """How long the difference is, relative to the whole."""
    return float(np.linalg.norm(found - theirs)) / max(float(np.linalg.norm(theirs)), 1e-30)
