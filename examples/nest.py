"""Prints the loop nest of a small convolution for a register tile of maps × columns.

    python examples/nest.py 1 1      as a textbook writes it
    python examples/nest.py 2 2      every weight and every value is used twice

Padding, stride and dilation change only the tables that `forward_taps` makes.
"""

from __future__ import annotations

import sys

from lanewise.native.kernels.conv import correlate
from lanewise.native.kernels.correlation import Correlation, Tile
from lanewise.native.kernels.taps import forward_taps
from lanewise.native.nest_show import show

# Two 2×2 kernels slide over three maps of 5×5 values: along an axis, 4 places.
TAPS = forward_taps(size=5, out=4, kernel=2, stride=1, pad=0, dilation=1)
SIZES = Correlation(
    groups=1,
    maps=2,
    sources=3,
    rows=TAPS,
    columns=TAPS,
    weight_group=2 * 3 * 2 * 2,
    weight_map=3 * 2 * 2,
    weight_source=2 * 2,
)

if __name__ == "__main__":
    maps, columns = map(int, sys.argv[1:3])
    print(show(correlate("conv", SIZES, Tile(maps, columns), bias=True)), end="")
