"""The multiply–adds of the emitted loop nests equal the size calculus, layer by layer.

The calculus counts a tap on padding like any other (`macs`) and says how many there are
(`padded_macs`); the nests skip them. Forward, input gradient and weight gradient each perform
`macs − padded_macs` multiply–adds per image.
"""

from __future__ import annotations

import pytest

from lanewise.native.kernels.correlation import Correlation, Tile
from lanewise.native.kernels.weights import WeightTile
from lanewise.native.nest import LANES, Kernel
from lanewise.native.nest_check import check
from lanewise.native.nest_count import count
from lanewise.net.graph import Graph
from lanewise.net.load import load
from lanewise.net.parse import parse
from nest_products import counted, expected

NETS = {
    "lenet5": "lenet5",
    "tiny-vgg": "tiny-vgg",
    "strides": "input 3x17x11; conv 6 k3 stride 2 pad 1; conv 4 k5x3 stride 3x1 pad 2:0x1:2; "
    "flatten; linear 5",
    "dilation": "input 2x15x15; conv 4 k3 dilation 2 pad 2; conv 6 k3 dilation 3x1 stride 2; "
    "flatten; linear 5",
    "groups": "input 6x9x9; conv 12 k3 pad1 groups 3; conv 12 k3 pad same groups 12; "
    "conv 5 k1; flatten; linear 3",
    "depthwise": "input 3x9x8; depthwise k3 pad1 multiplier 2; depthwise k3 stride2 pad1; "
    "depthwise k5 pad 2; depthwise k7 pad3; flatten; linear 3",
    "partial": "input 4x9x8; partialconv 0,1/1,2,3/0,3 k3 pad1; partialconv 0,2/1 k3 stride2; "
    "flatten; linear 3",
    "transposed": "input 3x5x6; convtranspose 4 k4 stride2 pad1; "
    "convtranspose 2 k3x2 stride 2x3 outputpad1x0; flatten; linear 3",
}


def graph_of(name: str) -> Graph:
    text = NETS[name]
    return parse(text) if ";" in text else load(text)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("target", ["host", "avx2"])
def test_nests_count_what_the_calculus_says(name: str, target: str) -> None:
    graph = graph_of(name)
    found = counted(graph, target)
    for layer, macs in expected(graph).items():
        assert list(found[layer].values()) == 3 * [macs], (layer, found[layer])


@pytest.mark.parametrize("tile", [(1, 1), (2, 3), (4, 6)])
def test_the_tile_changes_no_count_and_every_nest_is_proven(tile: tuple[int, int]) -> None:
    from lanewise.native.kernels import conv, taps, weights

    rows = taps.forward_taps(9, 5, 3, 2, 1, 1)
    columns = taps.forward_taps(10, 10, 3, 1, 1, 1)
    sizes = Correlation(1, 5, 3, rows, columns, 0, 27, 9)
    kernels: list[Kernel] = [
        conv.correlate("forward", sizes, Tile(*tile), bias=True, relu=True),
        weights.weight_gradient(
            "weights", 1, 5, 3, rows, columns, WeightTile(tile[0], 2, 3, tile[1])
        ),
    ]
    for kernel in kernels:
        assert check(kernel) == ()
        assert count(kernel).multiply_adds == LANES * 5 * 3 * rows.pairs * columns.pairs
