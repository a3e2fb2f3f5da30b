"""Convolutions over a table of connections, and transposed ones, against PyTorch in float64."""

from __future__ import annotations

import numpy as np
import pytest

from lanewise.native.kernels import conv, partial_conv, weights
from lanewise.native.kernels.correlation import Correlation, Tile
from lanewise.native.kernels.taps import Taps, forward_taps, gradient_taps
from lanewise.native.nest_count import count
from native_kernel import aligned, execute, placed

torch = pytest.importorskip("torch", reason="the definitions are PyTorch's")
functional = torch.nn.functional
LANES = 16


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return placed(np.random.default_rng(seed).normal(size=shape))


def exact(values: np.ndarray) -> torch.Tensor:
    return torch.tensor(values.astype(float), requires_grad=True)


def images(lanes: np.ndarray) -> torch.Tensor:
    """(C, H, W, 16) → (16, C, H, W)."""
    return exact(np.moveaxis(lanes, -1, 0))


def close(computed: np.ndarray, wanted: torch.Tensor) -> None:
    lanes = np.moveaxis(wanted.detach().numpy(), 0, -1)
    np.testing.assert_allclose(computed, lanes, rtol=2e-5, atol=2e-5)


# ---- partial connections ------------------------------------------------------------------------

LENET = tuple(
    tuple((start + i) % 6 for i in maps)
    for maps, starts in (
        ((0, 1, 2), range(6)),
        ((0, 1, 2, 3), range(6)),
        ((0, 1, 3, 4), range(3)),
        ((0, 1, 2, 3, 4, 5), range(1)),
    )
    for start in starts
)
#: table, channels, (height, width), kernel, stride, pad, dilation
PARTIAL = [
    (LENET, 6, (14, 14), (5, 5), (1, 1), (0, 0), (1, 1)),
    (((0,), (2, 0), (2,)), 4, (7, 6), (3, 2), (2, 1), (1, 0), (1, 2)),
    (((1, 0),), 2, (3, 3), (3, 3), (1, 1), (0, 0), (1, 1)),
]


def axes(make, size: tuple, kernel: tuple, stride: tuple, pad: tuple, dilation: tuple):
    """Row and column taps, and the size of the result."""
    out = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, pad, dilation, strict=True)
    )
    parts = zip(size, out, kernel, stride, pad, dilation, strict=True)
    return [make(*part) for part in parts], out


@pytest.mark.parametrize("case", PARTIAL)
@pytest.mark.parametrize("width", [1, 4])
def test_partial_convolution(case: tuple, width: int) -> None:
    reads, channels, size, kernel, stride, pad, dilation = case
    forward, out = axes(forward_taps, *case[2:])
    backward, _ = axes(gradient_taps, *case[2:])
    connections = partial_conv.forward_connections(reads, channels)
    assert connections.total == sum(map(len, reads))
    x, bias = normal(channels, *size, LANES), normal(len(reads), seed=1)
    weight = normal(connections.total, *kernel, seed=2)
    y = aligned((len(reads), *out, LANES))
    nest = partial_conv.correlate_connected("f", connections, *forward, width, bias=True)
    small = len(reads) < 10
    execute(nest, x, weight.ravel(), bias, y, interpret=small)
    full, own = torch.zeros(len(reads), channels, *kernel, dtype=torch.float64), exact(weight)
    for line, maps in zip(connections.lines, reads, strict=True):
        assert tuple(source for source, _ in line) == maps
    pairs = [(k, c) for k, maps in enumerate(reads) for c in maps]
    for n, (k, c) in enumerate(pairs):
        full[k, c] = own[n]
    inputs, biases = images(x), exact(bias)
    wanted = functional.conv2d(inputs, full, biases, stride, pad, dilation)
    close(y, wanted)
    dy, dx = normal(*y.shape, seed=3), aligned(x.shape)
    wanted.backward(images(dy))
    back = partial_conv.gradient_connections(reads, channels)
    for mask in (False, True):
        nest = partial_conv.correlate_connected("b", back, *backward, width, mask=mask)
        execute(nest, dy, weight.ravel(), *[x] * mask, dx, interpret=small)
        close(dx, inputs.grad * (inputs > 0) if mask else inputs.grad)
    tile = weights.WeightTile(1, 1, min(2, kernel[1]), width)
    nest = partial_conv.weight_gradient_connected("w", connections, *forward, tile)
    dw = placed(np.ones(weight.shape))
    execute(nest, x, dy, dw, interpret=small)
    np.testing.assert_allclose(dw - 1, own.grad, rtol=1e-4, atol=2e-4)


def test_what_is_not_connected_is_not_multiplied() -> None:
    forward, out = axes(forward_taps, *PARTIAL[0][2:])
    backward, _ = axes(gradient_taps, *PARTIAL[0][2:])
    connections = partial_conv.forward_connections(LENET, 6)
    macs = LANES * 60 * 25 * out[0] * out[1]
    tile = weights.WeightTile(1, 1, 5, 2)
    for nest in (
        partial_conv.correlate_connected("f", connections, *forward, 5),
        partial_conv.correlate_connected(
            "b", partial_conv.gradient_connections(LENET, 6), *backward, 5
        ),
        partial_conv.weight_gradient_connected("w", connections, *forward, tile),
    ):
        assert count(nest).multiply_adds == macs


def test_a_map_that_no_kernel_reads_has_gradient_zero() -> None:
    backward, out = axes(gradient_taps, (4, 4), (2, 2), (1, 1), (0, 0), (1, 1))
    back = partial_conv.gradient_connections(((0,), (2,)), 3)
    dy, dx = normal(2, *out, LANES), aligned((3, 4, 4, LANES))
    nest = partial_conv.correlate_connected("b", back, *backward, 2)
    execute(nest, dy, normal(2 * 4), dx)
    assert (dx[1] == 0).all() and (dx[0] != 0).all()


# ---- transposed convolution ---------------------------------------------------------------------

#: groups, channels, kernels, size, kernel, stride, pad, output_pad, dilation
TRANSPOSED = [
    (1, 3, 5, (4, 5), (4, 4), (2, 2), (1, 1), (0, 0), (1, 1)),
    (2, 4, 6, (3, 4), (3, 2), (3, 2), (1, 0), (2, 1), (1, 2)),
    (1, 2, 3, (5, 3), (1, 2), (2, 3), (0, 0), (1, 0), (1, 1)),
    (3, 3, 3, (1, 1), (3, 3), (1, 1), (0, 1), (0, 0), (1, 1)),
]


@pytest.mark.parametrize("case", TRANSPOSED)
def test_transposed_convolution(case: tuple) -> None:
    """The kernels of convolution with input and output swapped are those of its transposition."""
    groups, channels, kernels, size, kernel, stride, pad, more, dilation = case
    x, bias = normal(channels, *size, LANES), normal(kernels, seed=1)
    weight = normal(channels, kernels // groups, *kernel, seed=2)
    inputs, own, biases = images(x), exact(weight), exact(bias)
    wanted = functional.conv_transpose2d(inputs, own, biases, stride, pad, more, groups, dilation)
    out = tuple(wanted.shape[2:])
    parts = list(zip(out, size, kernel, stride, pad, dilation, strict=True))
    ups: list[Taps] = [gradient_taps(*part) for part in parts]
    downs: list[Taps] = [forward_taps(*part) for part in parts]
    each, from_each, area = kernels // groups, channels // groups, kernel[0] * kernel[1]
    sizes = Correlation(groups, each, from_each, *ups, each * from_each * area, area, each * area)
    y = aligned((kernels, *out, LANES))
    nest = conv.correlate("f", sizes, Tile(2, 3), bias=True)
    execute(nest, x, weight.ravel(), bias, y, interpret=False)
    close(y, wanted)
    dy, dx, dw = normal(*y.shape, seed=3), aligned(x.shape), placed(np.ones(weight.shape))
    wanted.backward(images(dy))
    sizes = Correlation(groups, from_each, each, *downs, each * from_each * area, each * area, area)
    execute(conv.correlate("b", sizes, Tile(2, 3)), dy, weight.ravel(), dx, interpret=False)
    close(dx, inputs.grad)
    tile = weights.WeightTile(1, 2, 1, 2)
    nest = weights.weight_gradient("w", groups, from_each, each, *downs, tile)
    execute(nest, dy, x, dw, interpret=False)
    np.testing.assert_allclose(dw - 1, own.grad, rtol=1e-4, atol=2e-4)
