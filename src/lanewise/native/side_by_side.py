"""Whether so many images are quicker side by side, in a vector's lanes, or one after the other.

Sixteen side by side take the same time however many of the lanes are used. Two things decide for
whole lanes. Where maps are small everything is near, and the lanes win by far. Where sixteen maps
of a layer are more than the caches hold, they come from memory: Winograd's algorithm has so much
to do with each value that they may, but a 1 × 1 convolution waits for them, and single images,
whose maps stay near, are up to twice as fast (docs/performance-notes.md has the measurements).
"""

from __future__ import annotations

from math import prod

from lanewise.native.nest import LANES
from lanewise.net.graph import Graph
from lanewise.net.layers import Conv
from lanewise.size.report import SizeReport, size

FLOAT = 4
#: images from which sixteen in the lanes are quicker: small networks; large ones, of each slice
FEWEST_SMALL, FEWEST_LARGE = 8, 12
#: bytes of the largest value of sixteen images, from which a network is large
LARGE = 24 << 20
#: of a large network's multiply–adds, what must be 3 × 3 or 5 × 5 of stride 1
ENOUGH = 0.75


def one_by_one(graph: Graph, batch: int | None) -> bool:
    """Whether so many images are better taken one after the other; None: as many as one likes."""
    if batch is None:
        return False
    report = size(graph)
    largest = max(prod(row.output) for row in report.rows) * LANES * FLOAT
    if largest < LARGE:
        return batch < FEWEST_SMALL
    slices = -(-batch // LANES)
    return batch < FEWEST_LARGE * slices or _near_share(graph, report) < ENOUGH


def _near_share(graph: Graph, report: SizeReport) -> float:
    """The share of the multiply–adds that have much to do with each value they read."""
    found = {
        node.name
        for node in graph.nodes
        if isinstance(node.layer, Conv) and node.layer.groups == 1 and _is_near(node.layer)
    }
    whole = sum(row.macs for row in report.rows)
    return sum(row.macs for row in report.rows if row.name in found) / max(1, whole)


def _is_near(layer: Conv) -> bool:
    return layer.stride == layer.dilation == (1, 1) and layer.kernel in ((3, 3), (5, 5))
