"""Receptive fields through every kind of layer and through branches, against PyTorch's gradients.

A network of positive weights runs on a large image; the pixels that one output depends on are those
where its gradient is not zero. Outputs far from the border are looked at, and the largest counts.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from lanewise.net.graph import Graph
from lanewise.net.layers import (
    AdaptiveAvg,
    Add,
    AvgPool,
    BatchNorm,
    ChannelShuffle,
    ChannelSplit,
    Concat,
    Conv,
    DepthwiseConv,
    GlobalAvg,
    Layer,
    Multiply,
    ReLU,
    TransposedConv,
    Upsample,
)
from lanewise.net.parse import parse
from lanewise.size.cost import layer_parameters
from lanewise.size.field import Field, infer_fields
from lanewise.size.shapes import Shape, infer_shapes
from lanewise.size.table import show_field
from lanewise.size.windows import conv_of

torch = pytest.importorskip("torch")
functional = torch.nn.functional


def _conv(layer: Conv | DepthwiseConv, values: Any) -> Any:
    conv = conv_of(layer, tuple(values.shape[1:]))
    weight = torch.ones(layer_parameters(conv, tuple(values.shape[1:]))["weight"])
    assert isinstance(conv.pad, tuple)
    (top, bottom), (left, right) = conv.pad
    values = functional.pad(values, (left, right, top, bottom))
    return functional.conv2d(
        values, weight.double(), None, conv.stride, 0, conv.dilation, conv.groups
    )


def _transposed(layer: TransposedConv, values: Any) -> Any:
    weight = torch.ones(layer_parameters(layer, tuple(values.shape[1:]))["weight"])
    pad = (layer.pad[0][0], layer.pad[1][0])
    return functional.conv_transpose2d(
        values, weight.double(), None, layer.stride, pad, layer.output_pad, 1, layer.dilation
    )


def _upsample(layer: Upsample, values: Any) -> Any:
    mode = "bilinear" if layer.bilinear else "nearest"
    return functional.interpolate(values, scale_factor=layer.scale, mode=mode)


# Kind → (layer, input…) → output; statistics of norms are left out, as the calculus does.
FORWARD: dict[type[Layer], Callable[..., Any]] = {
    Conv: _conv,
    DepthwiseConv: _conv,
    TransposedConv: _transposed,
    AvgPool: lambda layer, x: functional.avg_pool2d(x, layer.kernel, layer.stride),
    AdaptiveAvg: lambda layer, x: functional.adaptive_avg_pool2d(x, layer.size),
    GlobalAvg: lambda layer, x: x.mean((2, 3), keepdim=True),
    ReLU: lambda layer, x: x,
    BatchNorm: lambda layer, x: x,
    ChannelShuffle: lambda layer, x: functional.channel_shuffle(x, layer.groups),
    ChannelSplit: lambda layer, x: x.chunk(layer.of, 1)[layer.part - 1],
    Upsample: _upsample,
    Add: lambda layer, *xs: sum(xs),
    Multiply: lambda layer, x, y: x * y,
    Concat: lambda layer, *xs: torch.cat(xs, 1),
}


def run(graph: Graph) -> tuple[Any, Any]:
    """(image, output) of the network with all weights one and a positive image."""
    first, *others = graph.nodes
    shape = infer_shapes(graph)[first.name]
    values = {first.name: torch.ones(1, *shape, dtype=torch.float64, requires_grad=True)}
    for node in others:
        inputs = [values[name] for name in node.inputs]
        values[node.name] = FORWARD[type(node.layer)](node.layer, *inputs)
    return values[first.name], values[graph.output.name]


def reach(image: Any, output: Any, p: int, q: int) -> tuple[Any, Any] | None:
    """First and last pixel, (height, width), that an output depends on; None if on none."""
    (gradient,) = torch.autograd.grad(output[0, :, p, q].sum(), image, retain_graph=True)
    touched = torch.nonzero(gradient[0].sum(0))
    if not len(touched):
        return None
    return tuple(touched.min(0).values.tolist()), tuple(touched.max(0).values.tolist())


def field_of(text: str) -> tuple[Field, Shape]:
    graph = parse(text)
    shapes = infer_shapes(graph)
    return infer_fields(graph, shapes)[graph.output.name], shapes[graph.output.name]


BODIES = [
    "conv 2 k3 pad1 stride2; residual { conv 2 k3 pad1; conv 2 k3 pad1 }",
    "residual { conv 4 k5 pad2 stride2 } { conv 4 k1 stride2 }; depthwise k3 pad1",
    "concat { conv 2 k1 } { conv 2 k3 pad1 } { conv 2 k1; conv 2 k5x7 pad 2x3 }",
    "conv 2 k2 pad 0:1; concat { conv 1 k2 pad 0:1 } { conv 1 k2 pad 1:0 }; conv 1 k3",
    "add { conv 2 k4 pad 1:2x2:1 } { conv 2 k4 pad 2:1 }; avgpool 2",
    "avgpool 2; conv 2 k3 pad1; upsample 2; conv 2 k3 pad1",
    "avgpool 4; conv 2 k3 pad1; upsample 2 bilinear",
    "avgpool 2; residual { conv 1 k3 pad1 stride2; upsample 2 }; conv 1 k3",
    "x: conv 2 k3 pad1; avgpool 2; conv 2 k3 pad1; upsample 2; concat upsample1 x; conv 1 k3 pad1",
    "avgpool 2; convtranspose 2 k4 stride2 pad1",
    "avgpool 3; convtranspose 2 k5x3 stride 3x2 pad1",
    "avgpool 4; convtranspose 2 k3 stride2 dilation2",
    "adaptiveavg 12; conv 1 k3",
    "conv 4 k3 pad1; shuffle 2; split 2 of 2; relu; bn; conv 1 k3 dilation2",
]

# Where the windows of neighbours differ, the calculus may tell more than any of them sees.
UNEVEN = [
    "avgpool 4; convtranspose 2 k4 stride4 dilation 3x2; conv 1 k2",
    "conv 2 k3; adaptiveavg 7x5; conv 1 k2",
]


@pytest.mark.parametrize("body", [*BODIES, *UNEVEN])
def test_the_field_is_what_gradients_reach(body: str) -> None:
    text = f"input 1x60x48; {body}"
    field, (_, height, width) = field_of(text)
    image, output = run(parse(text))
    rows = range(height // 3, height // 3 + max(1, min(6, height // 3)))
    columns = range(width // 3, width // 3 + max(1, min(6, width // 3)))
    reached = [found for p in rows for q in columns if (found := reach(image, output, p, q))]
    for axis in range(2):
        widest = max(last[axis] - first[axis] + 1 for first, last in reached)
        assert 0 <= field.size[axis] - widest <= (body in UNEVEN)


@pytest.mark.parametrize("body", [body for body in BODIES if "adaptive" not in body])
def test_the_jump_is_how_far_fields_lie_apart(body: str) -> None:
    text = f"input 1x60x48; {body}"
    field, (_, height, width) = field_of(text)
    image, output = run(parse(text))
    # Twelve or six outputs further, which any upsampling here divides.
    p, q = 2 * (height // 6), 2 * (width // 6)
    steps = 12 if height - p > 12 and width - q > 12 else 6
    one, other = reach(image, output, p, q), reach(image, output, p + steps, q + steps)
    assert one
    assert other
    for axis in range(2):
        assert other[0][axis] - one[0][axis] == field.jump[axis] * steps


def test_a_pixel_beside_maps_is_seen_by_every_pixel() -> None:
    text = "input 1x20x16; conv 2 k3 pad1; multiply { } { globalavg; conv 2 k1 }"
    field, _ = field_of(text)
    image, output = run(parse(text))
    assert reach(image, output, 7, 7) == ((0, 0), (19, 15))
    # The whole map, its padding included.
    assert field.size == (22, 18)
    assert field.jump == (1, 1)


def test_the_map_seen_by_every_pixel_does_not_grow_with_the_windows_that_follow() -> None:
    squeeze = "multiply { } { globalavg; conv 2 k1 }; "
    text = f"input 1x20x16; conv 2 k1; {squeeze} conv 2 k3 stride2; {squeeze} avgpool 2; upsample 4"
    assert field_of(text)[0].size == (20, 16)
    assert field_of(f"{text}; flatten; linear 2")[0].size == (20, 16)
    field, _ = field_of(f"input 1x20x16; conv 2 k3 pad1; {squeeze} conv 2 k19x9 pad 9x4; {squeeze}")
    assert field.size == (21 + 19, 11 + 15)


def test_flattened_branches_are_seen_whole() -> None:
    text = "input 1x20x16; concat { conv 1 k3; flatten } { globalavg; flatten }"
    assert field_of(text)[0].size == (20, 16)
    assert field_of(f"{text}; relu; linear 3")[0].size == (20, 16)
    text = "input 1x20x16; concat { conv 1 k3; flatten } { avgpool 4x5; flatten }"
    assert field_of(text)[0].size == (4, 5)
    assert field_of(f"{text}; rbf 2")[0].size == (20, 16)


def test_fractions_of_a_pixel_are_told_as_decimals() -> None:
    field, _ = field_of("input 1x8x8; conv 1 k3 pad1; upsample 2x3; conv 1 k2 pad 0:1")
    assert field.size == (3.5, pytest.approx(3 + 1 / 3))
    assert show_field(field.size, field.jump) == "3.5x3.33/0.5x0.33"
    field, _ = field_of("input 1x8x8; avgpool 2; upsample 2; conv 1 k2 pad 0:1")
    assert show_field(field.size, field.jump) == "3/1"


def test_fields_grow_by_the_table_and_never_shrink() -> None:
    """Along a chain of windows every field lies within the next."""
    graph = parse(
        "input 3x64x64; conv 4 k3 pad1; maxpool 2; l2pool 3 stride2; sumpool 2; conv 2 k2"
    )
    fields = infer_fields(graph, infer_shapes(graph)).values()
    assert all(a.size[0] <= b.size[0] for a, b in pairwise(fields))
