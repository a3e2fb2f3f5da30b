"""Shapes and parameters of random layers of every kind, against PyTorch's layer of that kind.

Every kind is either in TWINS (what PyTorch makes of it) or in ALONE (a test of its own).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chains import CONVS
from lanewise.errors import SizeError
from lanewise.net.layers import (
    ELU,
    GELU,
    JOINS,
    KINDS,
    AdaptiveAvg,
    AdaptiveMax,
    AvgPool,
    BatchNorm,
    ChannelPad,
    ChannelScale,
    ChannelShuffle,
    ChannelSplit,
    Conv,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAvg,
    GlobalMax,
    GlobalSum,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    Input,
    L2Pool,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    MaxPool,
    PartialConv,
    PReLU,
    RadialBasis,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    SpatialDropout,
    StochasticDepth,
    Subsample,
    SumPool,
    Tanh,
    TransposedConv,
    Upsample,
)
from lanewise.size.axis import adaptive_windows, longest_window, transposed_size
from lanewise.size.cost import Cost, cost, layer_buffers, layer_parameters
from lanewise.size.shapes import SHAPES, Shape
from lanewise.size.windows import conv_of, resolve_transposed, resolve_window

torch = pytest.importorskip("torch")
nn = torch.nn

SMALL = st.integers(1, 5)
PAIRS = st.tuples(SMALL, SMALL)
SIDES = st.integers(0, 3).map(lambda n: (n, n))
PADS = st.tuples(SIDES, SIDES)
RATES = st.floats(0, 0.9)
MAPS = st.tuples(st.integers(1, 8), st.integers(1, 12), st.integers(1, 12))
FEATURES = st.tuples(st.integers(1, 60))
ANY = st.one_of(MAPS, FEATURES)

DEPTHWISE = st.builds(
    DepthwiseConv,
    kernel=PAIRS,
    multiplier=st.integers(1, 3),
    stride=PAIRS,
    pad=PADS,
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    bias=st.booleans(),
)
TRANSPOSED = st.builds(
    TransposedConv,
    kernels=st.integers(1, 8),
    kernel=PAIRS,
    stride=PAIRS,
    pad=PADS,
    output_pad=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    groups=st.integers(1, 3),
    bias=st.booleans(),
)


def first(pad: Any) -> tuple[int, int]:
    return pad[0][0], pad[1][0]


def window(kind: type[Layer]) -> st.SearchStrategy[Layer]:
    return st.builds(kind, PAIRS, PAIRS, PADS, st.booleans())


def pooled(make: Callable[..., Any]) -> Callable[..., Any]:
    return lambda layer, shape: make(
        layer.kernel, layer.stride, first(layer.pad), ceil_mode=layer.ceil
    )


def _transposed(layer: TransposedConv, shape: Shape) -> Any:
    return nn.ConvTranspose2d(
        shape[0], layer.kernels, layer.kernel, layer.stride, first(layer.pad), layer.output_pad,
        layer.groups, layer.bias, layer.dilation,
    )  # fmt: skip


def _depthwise(layer: DepthwiseConv, shape: Shape) -> Any:
    channels = shape[0]
    return nn.Conv2d(
        channels, channels * layer.multiplier, layer.kernel, layer.stride, first(layer.pad),
        layer.dilation, channels, layer.bias,
    )  # fmt: skip


def _norm(layer: BatchNorm, shape: Shape) -> Any:
    make = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
    return make(shape[0], layer.eps, layer.momentum, layer.affine)


def _pad_channels(layer: ChannelPad, shape: Shape) -> Any:
    sides = (0, 0, 0, 0, layer.before, layer.after)
    return nn.ConstantPad3d(sides, 0.0)


def _upsample(layer: Upsample, shape: Shape) -> Any:
    return nn.Upsample(scale_factor=layer.scale, mode="bilinear" if layer.bilinear else "nearest")


class _Split(nn.Module):
    """One of equal parts; refuses what it cannot divide, which `chunk` would not."""

    def __init__(self, layer: ChannelSplit) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, values: Any) -> Any:
        channels = values.shape[1]
        if channels % self.layer.of or self.layer.part > self.layer.of:
            raise ValueError
        return values.chunk(self.layer.of, 1)[self.layer.part - 1]


def plain(make: Callable[[], Any]) -> Callable[..., Any]:
    return lambda layer, shape: make()


# Kind → (layers, input shapes, PyTorch's module for a layer over an input shape).
TWINS: dict[type[Layer], tuple[Any, Any, Callable[..., Any]]] = {
    DepthwiseConv: (DEPTHWISE, MAPS, _depthwise),
    TransposedConv: (TRANSPOSED, MAPS, _transposed),
    MaxPool: (window(MaxPool), MAPS, pooled(nn.MaxPool2d)),
    AvgPool: (window(AvgPool), MAPS, pooled(nn.AvgPool2d)),
    SumPool: (window(SumPool), MAPS, pooled(nn.AvgPool2d)),
    L2Pool: (window(L2Pool), MAPS, pooled(nn.AvgPool2d)),
    AdaptiveMax: (
        st.builds(AdaptiveMax, PAIRS), MAPS, lambda layer, _: nn.AdaptiveMaxPool2d(layer.size),
    ),
    AdaptiveAvg: (
        st.builds(AdaptiveAvg, PAIRS), MAPS, lambda layer, _: nn.AdaptiveAvgPool2d(layer.size),
    ),
    GlobalMax: (st.just(GlobalMax()), MAPS, plain(lambda: nn.AdaptiveMaxPool2d(1))),
    GlobalAvg: (st.just(GlobalAvg()), MAPS, plain(lambda: nn.AdaptiveAvgPool2d(1))),
    GlobalSum: (st.just(GlobalSum()), MAPS, plain(lambda: nn.AdaptiveAvgPool2d(1))),
    Flatten: (st.just(Flatten()), ANY, plain(nn.Flatten)),
    Linear: (
        st.builds(Linear, st.integers(1, 9), st.booleans()),
        FEATURES,
        lambda layer, shape: nn.Linear(shape[0], layer.features, layer.bias),
    ),
    ReLU: (st.just(ReLU()), ANY, plain(nn.ReLU)),
    LeakyReLU: (st.builds(LeakyReLU, RATES), ANY, plain(nn.LeakyReLU)),
    ReLU6: (st.just(ReLU6()), ANY, plain(nn.ReLU6)),
    ELU: (st.just(ELU()), ANY, plain(nn.ELU)),
    SiLU: (st.just(SiLU()), ANY, plain(nn.SiLU)),
    GELU: (st.just(GELU()), ANY, plain(nn.GELU)),
    Tanh: (st.just(Tanh()), ANY, plain(nn.Tanh)),
    Sigmoid: (st.just(Sigmoid()), ANY, plain(nn.Sigmoid)),
    HardSigmoid: (st.just(HardSigmoid()), ANY, plain(nn.Hardsigmoid)),
    HardSwish: (st.just(HardSwish()), ANY, plain(nn.Hardswish)),
    PReLU: (
        st.builds(PReLU, st.booleans()),
        ANY,
        lambda layer, shape: nn.PReLU(shape[0] if layer.per_channel else 1),
    ),
    BatchNorm: (st.builds(BatchNorm, affine=st.booleans()), ANY, _norm),
    GroupNorm: (
        st.builds(GroupNorm, SMALL), MAPS, lambda layer, shape: nn.GroupNorm(layer.groups, shape[0])
    ),
    LocalResponseNorm: (
        st.builds(LocalResponseNorm, SMALL), MAPS, lambda layer, _: nn.LocalResponseNorm(layer.size)
    ),
    ChannelShuffle: (
        st.builds(ChannelShuffle, SMALL), MAPS, lambda layer, _: nn.ChannelShuffle(layer.groups)
    ),
    ChannelSplit: (st.builds(ChannelSplit, SMALL, SMALL), MAPS, lambda layer, _: _Split(layer)),
    ChannelPad: (
        st.builds(ChannelPad, st.integers(0, 4), st.integers(0, 4)), MAPS, _pad_channels,
    ),
    Upsample: (st.builds(Upsample, PAIRS, st.booleans()), MAPS, _upsample),
    Dropout: (st.builds(Dropout, RATES), ANY, lambda layer, _: nn.Dropout(layer.rate)),
    SpatialDropout: (
        st.builds(SpatialDropout, RATES), MAPS, lambda layer, _: nn.Dropout2d(layer.rate)
    ),
}  # fmt: skip

# Kinds that PyTorch has no layer for, or that a test elsewhere draws.
ALONE = {Input, Conv, PartialConv, Subsample, LayerNorm, RadialBasis, ChannelScale, StochasticDepth}


def test_every_kind_is_tested() -> None:
    assert set(TWINS) | ALONE | set(JOINS) == set(KINDS)


@pytest.mark.parametrize("kind", TWINS, ids=lambda kind: kind.word)
@settings(max_examples=40)
@given(data=st.data())
def test_pytorch_agrees_on_shapes_and_parameters(kind: type[Layer], data: st.DataObject) -> None:
    layers, shapes, make = TWINS[kind]
    layer, in_shape = data.draw(layers), data.draw(shapes)
    values = torch.zeros(2, *in_shape)
    try:
        module = make(layer, in_shape).eval()
        out = module(values)
    except (RuntimeError, ValueError, AssertionError):
        with pytest.raises(SizeError):
            SHAPES[kind](layer, in_shape)
        return
    assert SHAPES[kind](layer, in_shape) == tuple(out.shape[1:])
    theirs = {name: tuple(p.shape) for name, p in module.named_parameters()}
    assert layer_parameters(layer, in_shape) == theirs
    buffers = {name: tuple(b.shape) for name, b in module.named_buffers() if b.ndim}
    assert layer_buffers(layer, in_shape) == buffers
    spent = cost(layer, in_shape)
    assert spent.params == sum(map(prod, theirs.values()))
    assert spent.buffers == sum(map(prod, buffers.values()))


@given(st.integers(1, 40), st.integers(1, 40))
def test_adaptive_windows_are_pytorch_s(n: int, out: int) -> None:
    windows = adaptive_windows(n, out)
    values = torch.arange(n, dtype=torch.float64).reshape(1, 1, n)
    means = torch.nn.functional.adaptive_avg_pool1d(values, out)[0, 0]
    for (begin, end), mean in zip(windows, means.tolist(), strict=True):
        assert mean == pytest.approx((begin + end - 1) / 2)
    tops = torch.nn.functional.adaptive_max_pool1d(values, out)[0, 0]
    assert [end - 1 for _, end in windows] == tops.tolist()
    assert longest_window(n, out) == max(end - begin for begin, end in windows)


# n, kernel, stride, pad, dilation, output_pad → out: Dumoulin and Visin's figures transposed, the
# generator of DCGAN, and PyTorch's documentation of output_padding.
TRANSPOSED_SIZES = [
    ((2, 3, 1, 0, 1, 0), 4),
    ((6, 4, 1, 2, 1, 0), 5),
    ((5, 3, 1, 1, 1, 0), 5),
    ((7, 3, 1, 2, 1, 0), 5),
    ((2, 3, 2, 0, 1, 0), 5),
    ((3, 3, 2, 1, 1, 0), 5),
    ((3, 3, 2, 1, 1, 1), 6),
    ((1, 4, 1, 0, 1, 0), 4),
    ((4, 4, 2, 1, 1, 0), 8),
    ((6, 3, 2, 1, 1, 1), 12),
    ((3, 3, 1, 0, 2, 0), 7),
]


@pytest.mark.parametrize(("numbers", "out"), TRANSPOSED_SIZES)
def test_published_sizes_of_transposed_convolutions(numbers: tuple[int, ...], out: int) -> None:
    n, kernel, stride, pad, dilation, output_pad = numbers
    assert transposed_size(n, kernel, stride, (pad, pad), dilation, output_pad) == out
    layer = TransposedConv(
        5, (kernel,) * 2, (stride,) * 2, ((pad, pad),) * 2, (output_pad,) * 2, (dilation,) * 2
    )
    assert SHAPES[TransposedConv](layer, (3, n, n)) == (5, out, out)


@given(TRANSPOSED, MAPS, st.tuples(st.integers(0, 2), st.integers(0, 2)))
def test_a_transposed_convolution_is_the_gradient_of_its_window(
    drawn: TransposedConv, image: tuple[int, int, int], more: tuple[int, int]
) -> None:
    """Counted one by one: the products that reach the output, each tap of each input once."""
    layer = replace(drawn, pad=((drawn.pad[0][0], more[0]), (more[1], drawn.pad[1][1])), groups=1)
    try:
        shape = SHAPES[TransposedConv](layer, image)
    except SizeError:
        return
    window = resolve_transposed(layer, image)
    assert window.out == image[1:]
    assert tuple(axis.n for axis in window.axes) == shape[1:]
    reached = 1
    for axis, n in enumerate(image[1:]):
        begin = layer.pad[axis][0]
        places = (
            i * layer.stride[axis] + tap * layer.dilation[axis] - begin
            for i in range(n)
            for tap in range(layer.kernel[axis])
        )
        reached *= sum(0 <= place < shape[1 + axis] for place in places)
    spent = cost(layer, image)
    assert spent.macs == image[0] * layer.kernels * prod(layer.kernel) * prod(image[1:])
    assert spent.macs - spent.padded_macs == image[0] * layer.kernels * reached
    assert spent.connections == spent.macs - spent.padded_macs + layer.bias * prod(shape)


@given(DEPTHWISE, MAPS)
def test_a_depthwise_convolution_is_a_grouped_one(
    layer: DepthwiseConv, image: tuple[int, int, int]
) -> None:
    conv = conv_of(layer, image)
    assert conv_of(conv, image) is conv
    try:
        assert resolve_window(layer, image) == resolve_window(conv, image)
    except SizeError:
        return
    assert SHAPES[DepthwiseConv](layer, image) == SHAPES[Conv](conv, image)
    assert layer_parameters(layer, image) == layer_parameters(conv, image)
    assert cost(layer, image) == cost(conv, image)


@given(CONVS, MAPS, st.data())
def test_a_partial_convolution_counts_its_connections(
    conv: Conv, image: tuple[int, int, int], data: st.DataObject
) -> None:
    maps = st.lists(st.integers(0, image[0] - 1), min_size=1, max_size=image[0], unique=True)
    table = tuple(map(tuple, data.draw(st.lists(maps, min_size=1, max_size=6))))
    layer = PartialConv(table, conv.kernel, conv.stride, conv.pad, conv.dilation, conv.bias)
    try:
        shape = SHAPES[PartialConv](layer, image)
    except SizeError:
        assume(False)
    # One kernel after the other, each a convolution over just its maps.
    apart = [cost(replace(conv, kernels=1, groups=1), (len(entry), *image[1:])) for entry in table]
    assert shape == (len(table), *resolve_window(conv, image).out)
    assert cost(layer, image) == Cost(
        *(sum(getattr(one, name) for one in apart) for name in vars(Cost()))
    )
    assert layer_parameters(layer, image)["weight"] == (sum(map(len, table)), *conv.kernel)


@given(window(Subsample), MAPS)
def test_subsampling_trains_a_pair_a_map(layer: Subsample, image: tuple[int, int, int]) -> None:
    try:
        shape = SHAPES[Subsample](layer, image)
    except SizeError:
        assume(False)
    assert shape == SHAPES[SumPool](SumPool(**vars(layer)), image)
    assert layer_parameters(layer, image) == {"weight": image[:1], "bias": image[:1]}
    # What a window counts is what a depthwise convolution with bias of its size would.
    if not layer.ceil:
        assert isinstance(layer.pad, tuple)
        counted = cost(DepthwiseConv(layer.kernel, 1, layer.stride, layer.pad), image)
        assert cost(layer, image).connections == counted.connections


@pytest.mark.parametrize("shape", [(6, 5, 4), (30,)])
def test_kinds_of_our_own(shape: Shape) -> None:
    one = (shape[0],)
    for layer in (LayerNorm(), ChannelScale(0.1), StochasticDepth(0.1)):
        assert SHAPES[type(layer)](layer, shape) == shape
    assert layer_parameters(LayerNorm(), shape) == {"weight": one, "bias": one}
    assert layer_parameters(ChannelScale(), shape) == {"weight": one}
    assert cost(StochasticDepth(), shape) == Cost()


def test_radial_basis_functions_train_nothing() -> None:
    assert SHAPES[RadialBasis](RadialBasis(10), (84,)) == (10,)
    assert cost(RadialBasis(10), (84,)) == Cost(connections=840)
