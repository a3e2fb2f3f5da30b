"""The table from layer kind to ONNX operators (opset 21): each rule appends those of one layer.

A rule is `rule(sheet, node, *reads) -> tensor name`; the last operator's output is named after the
layer. Windows come as numbers from `lanewise.size`, so that nothing depends on ONNX's own rounding.
ONNX is for inference: what happens in training only becomes `Dropout` or `Identity`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lanewise.net import layers as kinds
from lanewise.net.graph import Node
from lanewise.net.layers import Layer
from lanewise.ship.onnx_pools import RULES as POOLS
from lanewise.ship.onnx_sheet import Array, Read, Sheet
from lanewise.size.shapes import conv_of, resolve_transposed, resolve_window

Rule = Callable[..., str]


def conv(sheet: Sheet, node: Node, read: Read) -> str:
    layer = node.layer
    assert isinstance(layer, kinds.Conv | kinds.DepthwiseConv)
    weight = sheet.weight(node, "weight")
    return _convolve(sheet, node, layer, read, weight, conv_of(layer, read[1]).groups)


def _convolve(
    sheet: Sheet, node: Node, layer: Any, read: Read, weight: str, groups: int = 1
) -> str:
    window = resolve_window(layer, read[1])
    inputs = [read[0], weight] + ([sheet.weight(node, "bias")] if layer.bias else [])
    return sheet.call(
        "Conv",
        inputs,
        node.name,
        kernel_shape=window.kernel,
        strides=window.stride,
        dilations=window.dilation,
        pads=_pads(window.pad),
        group=groups,
    )


def _pads(pad: kinds.Sides) -> list[int]:
    (top, bottom), (left, right) = pad
    return [top, left, bottom, right]


def partial_conv(sheet: Sheet, node: Node, read: Read) -> str:
    """The full convolution, with zeros where there is no connection."""
    layer = node.layer
    assert isinstance(layer, kinds.PartialConv)
    dense = np.zeros((len(layer.table), read[1][0], *layer.kernel), np.float32)
    places = [(kernel, one) for kernel, row in enumerate(layer.table) for one in row]
    for place, weight in zip(places, sheet.array(node, "weight"), strict=True):
        dense[place] = weight
    weight = sheet.constant(f"{node.name}.dense", dense)
    return _convolve(sheet, node, layer, read, weight)


def transposed(sheet: Sheet, node: Node, read: Read) -> str:
    layer = node.layer
    assert isinstance(layer, kinds.TransposedConv)
    resolve_transposed(layer, read[1])
    inputs = [read[0], sheet.weight(node, "weight")]
    inputs += [sheet.weight(node, "bias")] if layer.bias else []
    return sheet.call(
        "ConvTranspose",
        inputs,
        node.name,
        kernel_shape=layer.kernel,
        strides=layer.stride,
        dilations=layer.dilation,
        pads=_pads(layer.pad),
        output_padding=layer.output_pad,
        group=layer.groups,
    )


def flatten(sheet: Sheet, node: Node, read: Read) -> str:
    return sheet.call("Flatten", [read[0]], node.name, axis=1)


def linear(sheet: Sheet, node: Node, read: Read) -> str:
    assert isinstance(node.layer, kinds.Linear)
    inputs = [read[0], sheet.weight(node, "weight")]
    inputs += [sheet.weight(node, "bias")] if node.layer.bias else []
    return sheet.call("Gemm", inputs, node.name, transB=1)


def radial_basis(sheet: Sheet, node: Node, read: Read) -> str:
    from lanewise.net.codes import radial_codes

    assert isinstance(node.layer, kinds.RadialBasis)
    name, (value, shape) = node.name, read
    codes = np.array(radial_codes(node.layer.features, shape[0]), np.float32)
    one = sheet.call("Unsqueeze", [value, _axes(sheet, f"{name}.at", 1)], f"{name}.row")
    less = sheet.call("Sub", [one, sheet.constant(f"{name}.codes", codes)], f"{name}.less")
    square = sheet.call("Mul", [less, less], f"{name}.square")
    total = sheet.call(
        "ReduceSum", [square, _axes(sheet, f"{name}.over", 2)], f"{name}.sum", keepdims=0
    )
    return sheet.call("Neg", [total], name)


def _axes(sheet: Sheet, name: str, *axes: int) -> str:
    return sheet.constant(name, np.array(axes, np.int64))


# Value by value -----------------------------------------------------------------------------------


def plain(operator: str, **attributes: Any) -> Rule:
    """The rule of a layer that is one operator of its input."""

    def rule(sheet: Sheet, node: Node, read: Read) -> str:
        return sheet.call(operator, [read[0]], node.name, **attributes)

    return rule


def leaky_relu(sheet: Sheet, node: Node, read: Read) -> str:
    assert isinstance(node.layer, kinds.LeakyReLU)
    return sheet.call("LeakyRelu", [read[0]], node.name, alpha=node.layer.slope)


def elu(sheet: Sheet, node: Node, read: Read) -> str:
    assert isinstance(node.layer, kinds.ELU)
    return sheet.call("Elu", [read[0]], node.name, alpha=node.layer.alpha)


def relu6(sheet: Sheet, node: Node, read: Read) -> str:
    limits = [
        sheet.constant(f"{node.name}.{name}", np.float32(limit))
        for name, limit in (("low", 0.0), ("high", 6.0))
    ]
    return sheet.call("Clip", [read[0], *limits], node.name)


def silu(sheet: Sheet, node: Node, read: Read) -> str:
    gate = sheet.call("Sigmoid", [read[0]], f"{node.name}.gate")
    return sheet.call("Mul", [read[0], gate], node.name)


def prelu(sheet: Sheet, node: Node, read: Read) -> str:
    slopes = along_channels(sheet.array(node, "weight"), read)
    return sheet.call("PRelu", [read[0], sheet.constant(f"{node.name}.weight", slopes)], node.name)


def along_channels(values: Array, read: Read) -> Array:
    """One number for each channel, as an array that meets maps (or one number for all)."""
    return values.reshape(-1, *[1] * (len(read[1]) - 1))


def dropout(sheet: Sheet, node: Node, read: Read) -> str:
    assert isinstance(node.layer, kinds.Noise)
    rate = sheet.constant(f"{node.name}.rate", np.float32(node.layer.rate))
    return sheet.call("Dropout", [read[0], rate], node.name)


# Normalisation ------------------------------------------------------------------------------------


def batch_norm(sheet: Sheet, node: Node, read: Read) -> str:
    assert isinstance(node.layer, kinds.BatchNorm)
    mean, var = (sheet.weight(node, f"running_{name}") for name in ("mean", "var"))
    scale, bias = (
        sheet.weight(node, name)
        if sheet.has(node, name)
        else sheet.constant(f"{node.name}.{name}", np.full(read[1][0], filled, np.float32))
        for name, filled in (("weight", 1.0), ("bias", 0.0))
    )
    inputs = [read[0], scale, bias, mean, var]
    return sheet.call("BatchNormalization", inputs, node.name, epsilon=node.layer.eps)


def layer_norm(sheet: Sheet, node: Node, read: Read) -> str:
    """ONNX normalises the last axes: of maps, the channels go there and back."""
    assert isinstance(node.layer, kinds.LayerNorm)
    name, (value, shape) = node.name, read
    parts = [sheet.weight(node, "weight"), sheet.weight(node, "bias")]
    if len(shape) == 1:
        return sheet.call("LayerNormalization", [value, *parts], name, epsilon=node.layer.eps)
    last = sheet.call("Transpose", [value], f"{name}.last", perm=[0, 2, 3, 1])
    normed = sheet.call(
        "LayerNormalization", [last, *parts], f"{name}.normed", epsilon=node.layer.eps
    )
    return sheet.call("Transpose", [normed], name, perm=[0, 3, 1, 2])


def group_norm(sheet: Sheet, node: Node, read: Read) -> str:
    layer = node.layer
    assert isinstance(layer, kinds.GroupNorm)
    inputs = [read[0], sheet.weight(node, "weight"), sheet.weight(node, "bias")]
    return sheet.call(
        "GroupNormalization", inputs, node.name, epsilon=layer.eps, num_groups=layer.groups
    )


def local_response_norm(sheet: Sheet, node: Node, read: Read) -> str:
    """Of an even number of channels ONNX takes one more after, we (as PyTorch) one more before."""
    layer = node.layer
    assert isinstance(layer, kinds.LocalResponseNorm)
    settings = {"alpha": layer.alpha, "beta": layer.beta, "bias": layer.constant}
    if layer.size % 2:
        return sheet.call("LRN", [read[0]], node.name, size=layer.size, **settings)
    name, (channels, height, width) = node.name, read[1]
    square = sheet.call("Mul", [read[0], read[0]], f"{name}.square")
    table = _reshape(sheet, square, f"{name}.table", (1, channels, height * width))
    mean = sheet.call(
        "AveragePool",
        [table],
        f"{name}.mean",
        kernel_shape=[layer.size, 1],
        pads=[layer.size // 2, 0, (layer.size - 1) // 2, 0],
        count_include_pad=1,
    )
    maps = _reshape(sheet, mean, f"{name}.maps", read[1])
    for operator, number in (("Mul", layer.alpha), ("Add", layer.constant), ("Pow", layer.beta)):
        factor = sheet.constant(f"{name}.{operator}", np.float32(number))
        maps = sheet.call(operator, [maps, factor], f"{name}.{operator}.result")
    return sheet.call("Div", [read[0], maps], name)


def _reshape(sheet: Sheet, value: str, name: str, shape: tuple[int, ...]) -> str:
    # 0: as many images as there are.
    wanted = sheet.constant(f"{name}.shape", np.array([0, *shape], np.int64))
    return sheet.call("Reshape", [value, wanted], name)


def channel_scale(sheet: Sheet, node: Node, read: Read) -> str:
    factors = along_channels(sheet.array(node, "weight"), read)
    return sheet.call("Mul", [read[0], sheet.constant(f"{node.name}.weight", factors)], node.name)


# Channels -----------------------------------------------------------------------------------------


def shuffle(sheet: Sheet, node: Node, read: Read) -> str:
    assert isinstance(node.layer, kinds.ChannelShuffle)
    name, (value, shape), groups = node.name, read, node.layer.groups
    table = _reshape(sheet, value, f"{name}.table", (groups, shape[0] // groups, *shape[1:]))
    turned = sheet.call("Transpose", [table], f"{name}.turned", perm=[0, 2, 1, 3, 4])
    return _reshape(sheet, turned, name, shape)


def split(sheet: Sheet, node: Node, read: Read) -> str:
    layer = node.layer
    assert isinstance(layer, kinds.ChannelSplit)
    channels = read[1][0] // layer.of
    first = (layer.part - 1) * channels
    cut = [
        _axes(sheet, f"{node.name}.{name}", number)
        for name, number in (("from", first), ("to", first + channels), ("axis", 1))
    ]
    return sheet.call("Slice", [read[0], *cut], node.name)


def pad_channels(sheet: Sheet, node: Node, read: Read) -> str:
    layer = node.layer
    assert isinstance(layer, kinds.ChannelPad)
    after = [0] * len(read[1])
    pads = _axes(sheet, f"{node.name}.pads", 0, layer.before, *after, layer.after, *after[1:])
    return sheet.call("Pad", [read[0], pads], node.name)


def upsample(sheet: Sheet, node: Node, read: Read) -> str:
    layer = node.layer
    assert isinstance(layer, kinds.Upsample)
    scales = np.array([1, 1, *layer.scale], np.float32)
    inputs = [read[0], "", sheet.constant(f"{node.name}.scales", scales)]
    if layer.bilinear:
        how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    else:
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
        how["nearest_mode"] = "floor"
    return sheet.call("Resize", inputs, node.name, **how)


# Joins --------------------------------------------------------------------------------------------


def add(sheet: Sheet, node: Node, *reads: Read) -> str:
    return _folded("Add", sheet, node, reads)


def multiply(sheet: Sheet, node: Node, *reads: Read) -> str:
    return _folded("Mul", sheet, node, reads)


def _folded(operator: str, sheet: Sheet, node: Node, reads: tuple[Read, ...]) -> str:
    total = reads[0][0]
    for number, (value, _) in enumerate(reads[1:], 2):
        name = node.name if number == len(reads) else f"{node.name}.{number}"
        total = sheet.call(operator, [total, value], name)
    return total


def concat(sheet: Sheet, node: Node, *reads: Read) -> str:
    return sheet.call("Concat", [value for value, _ in reads], node.name, axis=1)


def image(sheet: Sheet, node: Node) -> str:
    """The graph's input."""
    return node.name


OPERATORS: dict[type[Layer], Rule] = {
    kinds.Input: image,
    kinds.Conv: conv,
    kinds.DepthwiseConv: conv,
    kinds.PartialConv: partial_conv,
    kinds.TransposedConv: transposed,
    **POOLS,
    kinds.Flatten: flatten,
    kinds.Linear: linear,
    kinds.RadialBasis: radial_basis,
    kinds.ReLU: plain("Relu"),
    kinds.LeakyReLU: leaky_relu,
    kinds.ReLU6: relu6,
    kinds.ELU: elu,
    kinds.SiLU: silu,
    kinds.GELU: plain("Gelu"),
    kinds.Tanh: plain("Tanh"),
    kinds.Sigmoid: plain("Sigmoid"),
    kinds.HardSigmoid: plain("HardSigmoid", alpha=1 / 6, beta=0.5),
    kinds.HardSwish: plain("HardSwish"),
    kinds.PReLU: prelu,
    kinds.BatchNorm: batch_norm,
    kinds.LayerNorm: layer_norm,
    kinds.GroupNorm: group_norm,
    kinds.LocalResponseNorm: local_response_norm,
    kinds.ChannelScale: channel_scale,
    kinds.ChannelShuffle: shuffle,
    kinds.ChannelSplit: split,
    kinds.ChannelPad: pad_channels,
    kinds.Upsample: upsample,
    kinds.Dropout: dropout,
    kinds.SpatialDropout: plain("Identity"),
    kinds.StochasticDepth: plain("Identity"),
    kinds.Add: add,
    kinds.Multiply: multiply,
    kinds.Concat: concat,
}
