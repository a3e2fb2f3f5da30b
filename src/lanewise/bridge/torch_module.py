"""A graph as a `torch.nn.Module`: one submodule a layer, under the layer's own name.

`RULES` is a table keyed by the layer's class; each rule appends one layer to a torch.fx graph. The
result is an ordinary GraphModule: `print(module.code)` shows every step, `state_dict()` has the
parameters under Lanewise's names (`conv1.weight`).

Nothing here uses the engine's own arithmetic: windows come from `lanewise.size`, values from torch.
Pads that differ at the two ends of an axis do not exist in torch's layers, so they become an
explicit padding (−∞ before a max pool) in front of an unpadded layer.

Letters: N images, C channels, H×W input, P×Q output, R×S kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import mul
from typing import TYPE_CHECKING, Any, TypeAlias

from lanewise.bridge import require_torch
from lanewise.errors import LanewiseError, NetError
from lanewise.net import layers as kinds
from lanewise.net.graph import Graph, Node
from lanewise.size.axis import Axis
from lanewise.size.shapes import Shape, Window, infer_shapes, resolve_window

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

    Mask: TypeAlias = Callable[[str], torch.Tensor]
    Watch: TypeAlias = Callable[[str, torch.Tensor], torch.Tensor]


def to_torch(
    graph: Graph, *, dropout_mask: Mask | None = None, watch: Watch | None = None
) -> fx.GraphModule:
    """The same net as a torch module, N×C×H×W → N×(output shape), with torch's own initial weights.

    dropout_mask(name) gives the factor of each element of that dropout layer (0, or 1/(1 − rate)),
    shaped like its value; without it dropout is torch's, off in eval(). watch(name, value) sees
    every layer's value and returns the one to go on with.
    """
    require_torch()
    from torch import fx, nn

    shapes = infer_shapes(graph)
    draft = Draft(nn.Module(), fx.Graph(), dropout_mask)
    values: dict[str, fx.Node] = {}
    for node in graph.nodes:
        read = [(values[name], shapes[name]) for name in node.inputs]
        value = RULES[type(node.layer)](draft, node, *read)
        values[node.name] = draft.ask(watch, node.name, value) if watch else value
    draft.tape.output(values[graph.output.name])
    return fx.GraphModule(draft.root, draft.tape, "LanewiseNet")


@dataclass
class Draft:
    """The module in the making: `root` holds the submodules, `tape` the order of calls."""

    root: nn.Module
    tape: fx.Graph
    dropout_mask: Mask | None = None

    def module(self, name: str, module: nn.Module, value: fx.Node) -> fx.Node:
        """Append `module`, called `name` in the state dict, applied to `value`."""
        if hasattr(self.root, name):
            raise NetError(f"layer {name}: torch.nn.Module has that word already; use another name")
        self.root.add_module(name, module)
        return self.tape.call_module(name, (value,))

    def call(self, function: Callable[..., Any], *arguments: Any) -> fx.Node:
        """Append a call of a named function."""
        return self.tape.call_function(function, arguments)

    def ask(self, caller: Callable[..., Any], *arguments: Any) -> fx.Node:
        """Append a call of something the caller gave; torch.fx wants a function with a home."""

        def asked(*values: Any) -> Any:
            return caller(*values)

        return self.tape.call_function(asked, arguments)


Read: TypeAlias = "tuple[fx.Node, Shape]"
Rule: TypeAlias = "Callable[..., fx.Node]"


def _input(draft: Draft, node: Node) -> fx.Node:
    return draft.tape.placeholder(node.name)


def _conv(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    value, shape = read
    layer = node.layer
    assert isinstance(layer, kinds.Conv)
    window = resolve_window(layer, shape)
    if not _even(window):
        value = _padded(draft, node, window.pad, 0.0, value)
    conv = nn.Conv2d(
        shape[0],
        layer.kernels,
        layer.kernel,
        stride=layer.stride,
        padding=_starts(window) if _even(window) else 0,
        dilation=layer.dilation,
        groups=layer.groups,
        bias=layer.bias,
    )
    return draft.module(node.name, conv, value)


def _max_pool(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    value, shape = read
    layer, window = _pool_window(node, shape)
    if _even(window):
        pool = nn.MaxPool2d(layer.kernel, layer.stride, _starts(window), ceil_mode=layer.ceil)
        return draft.module(node.name, pool, value)
    value = _padded(draft, node, _exact_sides(window), float("-inf"), value)
    return draft.module(node.name, nn.MaxPool2d(layer.kernel, layer.stride), value)


def _avg_pool(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    value, shape = read
    layer, window = _pool_window(node, shape)
    if _even(window):
        pool = nn.AvgPool2d(layer.kernel, layer.stride, _starts(window), ceil_mode=layer.ceil)
        return draft.module(node.name, pool, value)
    total = _sum_pool(draft, node, read)
    return draft.call(window_mean, total, *map(_counted, window.axes))


def _sum_pool(draft: Draft, node: Node, read: Read) -> fx.Node:
    """torch's average with the divisor 1: the sum."""
    from torch import nn

    value, shape = read
    layer, window = _pool_window(node, shape)
    if not _even(window):
        value = _padded(draft, node, _exact_sides(window), 0.0, value)
        pool = nn.AvgPool2d(layer.kernel, layer.stride, divisor_override=1)
    else:
        pad = _starts(window)
        pool = nn.AvgPool2d(
            layer.kernel, layer.stride, pad, ceil_mode=layer.ceil, divisor_override=1
        )
    return draft.module(node.name, pool, value)


def window_mean(
    total: torch.Tensor, heights: tuple[int, ...], widths: tuple[int, ...]
) -> torch.Tensor:
    """Sums N×C×P×Q → means, where window (p, q) counts heights[p]·widths[q] positions."""
    import torch

    counts = torch.outer(torch.tensor(heights), torch.tensor(widths))
    return total / counts.to(total.dtype)


def _global_max(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    return draft.module(node.name, nn.AdaptiveMaxPool2d(1), read[0])


def _global_avg(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    return draft.module(node.name, nn.AdaptiveAvgPool2d(1), read[0])


def _global_sum(draft: Draft, node: Node, read: Read) -> fx.Node:
    import torch

    return draft.call(torch.sum, read[0], (2, 3), True)


def _flatten(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    return draft.module(node.name, nn.Flatten(), read[0])


def _linear(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    value, shape = read
    layer = node.layer
    assert isinstance(layer, kinds.Linear)
    return draft.module(node.name, nn.Linear(shape[0], layer.features, bias=layer.bias), value)


def _relu(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    return draft.module(node.name, nn.ReLU(), read[0])


def _leaky_relu(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    assert isinstance(node.layer, kinds.LeakyReLU)
    return draft.module(node.name, nn.LeakyReLU(node.layer.slope), read[0])


def _tanh(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    return draft.module(node.name, nn.Tanh(), read[0])


def _sigmoid(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    return draft.module(node.name, nn.Sigmoid(), read[0])


def _dropout(draft: Draft, node: Node, read: Read) -> fx.Node:
    from torch import nn

    assert isinstance(node.layer, kinds.Dropout)
    if draft.dropout_mask is None:
        return draft.module(node.name, nn.Dropout(node.layer.rate), read[0])
    return draft.call(mul, read[0], draft.ask(draft.dropout_mask, node.name))


RULES: dict[type[kinds.Layer], Rule] = {
    kinds.Input: _input,
    kinds.Conv: _conv,
    kinds.MaxPool: _max_pool,
    kinds.AvgPool: _avg_pool,
    kinds.SumPool: _sum_pool,
    kinds.GlobalMax: _global_max,
    kinds.GlobalAvg: _global_avg,
    kinds.GlobalSum: _global_sum,
    kinds.Flatten: _flatten,
    kinds.Linear: _linear,
    kinds.ReLU: _relu,
    kinds.LeakyReLU: _leaky_relu,
    kinds.Tanh: _tanh,
    kinds.Sigmoid: _sigmoid,
    kinds.Dropout: _dropout,
}


def _pool_window(node: Node, shape: Shape) -> tuple[kinds.Pool, Window]:
    assert isinstance(node.layer, kinds.Pool)
    return node.layer, resolve_window(node.layer, shape)


def _even(window: Window) -> bool:
    """Whether both ends of each axis have the same pad, as torch's layers want it."""
    return all(begin == end for begin, end in window.pad)


def _starts(window: Window) -> tuple[int, int]:
    (top, _), (left, _) = window.pad
    return top, left


def _exact_sides(window: Window) -> kinds.Sides:
    """Pads that end each axis where its last window ends; negative where rows stay unread."""
    height, width = ((axis.begin, axis.end + axis.overhang - axis.unread) for axis in window.axes)
    return height, width


def _counted(axis: Axis) -> tuple[int, ...]:
    """How many positions of each window the mean counts: padding too, but nothing beyond it."""
    limit = axis.begin + axis.n + axis.end
    starts = (index * axis.stride for index in range(axis.out))
    return tuple(min(start + axis.kernel, limit) - start for start in starts)


def _padded(draft: Draft, node: Node, pad: kinds.Sides, fill: float, value: fx.Node) -> fx.Node:
    from torch import nn

    (top, bottom), (left, right) = pad
    layer = nn.ConstantPad2d((left, right, top, bottom), fill)
    return draft.module(f"{node.name}_pad", layer, value)


def copy_weights(source: Any, target: Any) -> None:
    """Copy every parameter by name, in either direction, into the target's own memory.

    Both may be an engine program (anything with `.parameters`), a torch module, or a dict of
    arrays. Names and shapes must agree exactly; else LanewiseError, before anything is written.
    """
    given, wanted = _arrays(source), _arrays(target)
    _require_same(given, wanted)
    for name, array in wanted.items():
        array[...] = given[name]


def _arrays(holder: Any) -> dict[str, Any]:
    """Name → numpy array; those of a torch module share its memory."""
    if isinstance(holder, dict):
        return holder
    if hasattr(holder, "state_dict"):
        return {name: value.detach().numpy() for name, value in holder.state_dict().items()}
    return dict(holder.parameters)


def _require_same(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    missing, unknown = wanted.keys() - given.keys(), given.keys() - wanted.keys()
    if missing or unknown:
        raise LanewiseError(
            f"weights do not fit: missing {_listed(missing)}; not in the target {_listed(unknown)}"
        )
    for name, array in wanted.items():
        if given[name].shape != array.shape:
            raise LanewiseError(
                f"weights do not fit: {name} is {given[name].shape}, the target has {array.shape}"
            )


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) if names else "nothing"
