"""tinygrad on its CPU device: the whole step recorded by TinyJit, replayed without Python.

It compiles with clang (`CC`, or the newest on the path) for this machine's own instructions. `beam`
is the width of its search for faster kernels: 0 is none, 2 takes minutes for a small network.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np

from lanewise.net.graph import Node
from lanewise.net.layers import (
    Add,
    AvgPool,
    BatchNorm,
    ChannelPad,
    Concat,
    Conv,
    DepthwiseConv,
    Flatten,
    GlobalAvg,
    Layer,
    Linear,
    MaxPool,
    ReLU,
    ReLU6,
    Sigmoid,
    Tanh,
)
from lanewise.size.windows import Shape, Window, conv_of, resolve_window
from peers.work import Ready, Rule, Work, rule_for

PACKAGES = ("tinygrad",)
CLANGS = ("clang", *(f"clang-{number}" for number in range(22, 13, -1)))


class Model:
    """Parameters as tensors, and the network as a function of them."""

    def __init__(self, work: Work) -> None:
        from tinygrad import Tensor

        self.work, self.shapes = work, work.shapes
        self.tensors = {name: Tensor(value.copy()) for name, value in work.weights.items()}
        self.norms: dict[str, Any] = {}
        for node in work.graph.nodes:
            rule_for(RULES, node.layer, "tinygrad") if node.inputs else None
            if isinstance(node.layer, BatchNorm):
                self.norms[node.name] = self._norm(node)
        statistics = {f"{name}.{part}" for name in self.norms for part in STATISTICS}
        self.weights = [t for name, t in self.tensors.items() if name not in statistics]

    def _norm(self, node: Node) -> Any:
        from tinygrad import nn

        layer: Any = node.layer
        twin = nn.BatchNorm(
            self.shapes[node.name][0], layer.eps, layer.affine, True, layer.momentum
        )
        for part in ("weight", "bias") if layer.affine else ():
            setattr(twin, part, self.tensors[f"{node.name}.{part}"])
        for part in STATISTICS:
            tensor = self.tensors[f"{node.name}.{part}"].is_param_(False)
            setattr(twin, part, tensor)
        return twin

    def __call__(self, images: Any) -> Any:
        first, *others = self.work.graph.nodes
        values = {first.name: images}
        for node in others:
            reads = (values[name] for name in node.inputs)
            values[node.name] = RULES[type(node.layer)](self, node, *reads)
        return values[self.work.graph.output.name]

    def of(self, node: Node, part: str) -> Any:
        """A parameter of a layer, or None."""
        return self.tensors.get(f"{node.name}.{part}")

    def window(self, node: Node) -> Window:
        """The layer's, in numbers."""
        return resolve_window(node.layer, self._before(node))  # type: ignore[arg-type]

    def _before(self, node: Node) -> Shape:
        return self.shapes[node.inputs[0]]

    def groups(self, node: Node) -> int:
        """Of a convolution; a depthwise one has as many as channels."""
        return conv_of(node.layer, self._before(node)).groups  # type: ignore[arg-type]


STATISTICS = ("running_mean", "running_var")

# ---- layers -------------------------------------------------------------------------------------


def _sides(window: Window) -> tuple[int, int, int, int]:
    """Left, right, top, bottom."""
    (top, bottom), (left, right) = window.pad
    return left, right, top, bottom


def _conv(model: Model, node: Node, value: Any) -> Any:
    window = model.window(node)
    return value.conv2d(
        model.of(node, "weight"),
        model.of(node, "bias"),
        groups=model.groups(node),
        stride=window.stride,
        dilation=window.dilation,
        padding=_sides(window),
    )


def _linear(model: Model, node: Node, value: Any) -> Any:
    return value.linear(model.of(node, "weight").transpose(), model.of(node, "bias"))


def _max_pool(model: Model, node: Node, value: Any) -> Any:
    window = model.window(node)
    return value.max_pool2d(window.kernel, window.stride, padding=_sides(window))


def _avg_pool(model: Model, node: Node, value: Any) -> Any:
    window = model.window(node)
    return value.avg_pool2d(window.kernel, window.stride, padding=_sides(window))


def _channel_pad(model: Model, node: Node, value: Any) -> Any:
    layer: Any = node.layer
    return value.pad((None, (layer.before, layer.after), None, None))


def _add(model: Model, node: Node, *values: Any) -> Any:
    first, *others = values
    for other in others:
        first = first + other
    return first


RULES: dict[type[Layer], Rule] = {
    Conv: _conv,
    DepthwiseConv: _conv,
    Linear: _linear,
    BatchNorm: lambda model, node, value: model.norms[node.name](value),
    MaxPool: _max_pool,
    AvgPool: _avg_pool,
    GlobalAvg: lambda model, node, value: value.mean((2, 3), keepdim=True),
    Flatten: lambda model, node, value: value.flatten(1),
    ReLU: lambda model, node, value: value.relu(),
    ReLU6: lambda model, node, value: value.clip(0, 6),
    Tanh: lambda model, node, value: value.tanh(),
    Sigmoid: lambda model, node, value: value.sigmoid(),
    ChannelPad: _channel_pad,
    Add: _add,
    Concat: lambda model, node, first, *others: first.cat(*others, dim=1),
}

# ---- a step -------------------------------------------------------------------------------------


def training(work: Work) -> Ready:
    """A training step on all threads."""
    _prepare(work)
    from tinygrad import Tensor, TinyJit, nn
    from tinygrad.helpers import Context

    model = Model(work)
    optimizer = nn.optim.SGD(
        model.weights, lr=work.first_rate, momentum=work.momentum, nesterov=True
    )
    statistics = [getattr(norm, part) for norm in model.norms.values() for part in STATISTICS]

    @TinyJit  # type: ignore[untyped-decorator]
    def step(images: Any, labels: Any) -> Any:
        optimizer.zero_grad()
        loss = model(images).sparse_categorical_crossentropy(labels).backward()
        return loss.realize(*optimizer.schedule_step(), *statistics)

    ready = [
        (Tensor(images).realize(), Tensor(labels.astype(np.int32)).realize())
        for images, labels in work.batches
    ]
    batches = cycle(ready)

    def run(times: int) -> None:
        with Context(TRAINING=1):
            for _ in range(times):
                loss = step(*next(batches))
            loss.item()

    with Context(TRAINING=1):
        loss = step(*next(batches)).item()
    learned = {name: tensor.numpy().copy() for name, tensor in model.tensors.items()}
    outcome: Mapping[str, np.ndarray] = {"loss": np.array(loss), **learned}
    optimizer.lr.assign(Tensor([work.rate])).realize()
    run(2)  # the second call records, the third replays
    return Ready(outcome, run)


def _prepare(work: Work) -> None:
    """Device, threads, search and compiler are told by the environment."""
    found = next((path for name in CLANGS if (path := shutil.which(name))), None)
    if "CC" not in os.environ and found is None:
        raise FileNotFoundError("tinygrad needs clang to compile for the CPU; install clang")
    os.environ.setdefault("CC", str(found))
    os.environ |= {
        "DEV": "CPU:CLANG",
        "NUM_CPU_THREADS": str(work.threads),
        "BEAM": str(work.options.get("beam", 0)),
    }
