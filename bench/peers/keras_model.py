"""A graph as a functional model of Keras 3, channels last, and whose variables are ours.

Convolutions whose padding is what `same` means say so; everything else is padded before. A full
connection after `flatten` has its weights in the order of channels last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
    Dropout,
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
from lanewise.size.windows import Window, resolve_window
from peers.work import Arrays, Rule, Work, rule_for

PACKAGES = ("keras", "tensorflow", "tensorflow_cpu", "jax")


class Model:
    """The Keras model of a graph, and which of its variables are ours."""

    def __init__(self, work: Work) -> None:
        import keras

        self.work, self.shapes = work, work.shapes
        self.layers: dict[str, Any] = {}
        #: name of ours → (variable, from ours to Keras's order of axes, and back)
        self.variables: dict[str, tuple[Any, Turn, Turn]] = {}
        first = work.graph.nodes[0]
        channels, height, width = self.shapes[first.name]
        values: dict[str, Any] = {first.name: keras.Input((height, width, channels))}
        for node in work.graph.nodes[1:]:
            rule = rule_for(RULES, node.layer, "Keras")
            values[node.name] = rule(self, node, *(values[name] for name in node.inputs))
        self.model = keras.Model(values[first.name], values[work.graph.output.name])
        self._collect()
        for name, (variable, there, _) in self.variables.items():
            variable.assign(there(work.weights[name]))

    def apply(self, node: Node, layer: Any, value: Any) -> Any:
        """The layer's value; its variables are found again under the node's name."""
        self.layers[node.name] = layer
        return layer(value)

    def _collect(self) -> None:
        for name, layer in self.layers.items():
            node = self.work.graph.node(name)
            for ours, (theirs, there, back) in TURNS[type(node.layer)](self, node).items():
                variable = getattr(layer, theirs)
                if variable is not None:
                    self.variables[f"{name}.{ours}"] = variable, there, back

    def learned(self) -> Arrays:
        """All that training leaves behind, under our names and in our order of axes."""
        import keras

        return {
            name: back(np.array(keras.ops.convert_to_numpy(variable)))
            for name, (variable, _, back) in self.variables.items()
        }


# ---- layers -------------------------------------------------------------------------------------


def _padded(window: Window, value: Any, filling: float = 0.0) -> Any:
    """With the padding around it, where there is any."""
    import keras

    (top, bottom), (left, right) = window.pad
    if not any((top, bottom, left, right)):
        return value
    if not filling:
        return keras.layers.ZeroPadding2D(((top, bottom), (left, right)))(value)
    around = ((0, 0), (top, bottom), (left, right), (0, 0))
    return keras.ops.pad(value, around, constant_values=filling)


def _window(model: Model, node: Node) -> Window:
    return resolve_window(node.layer, model.shapes[node.inputs[0]])  # type: ignore[arg-type]


def _same(window: Window) -> bool:
    """Whether the padding is what `same` means: then the convolution does it itself."""
    return window.stride == (1, 1) and all(
        before + after == dilation * (kernel - 1) and before == after
        for (before, after), kernel, dilation in zip(
            window.pad, window.kernel, window.dilation, strict=True
        )
    )


def _convolved(model: Model, node: Node, value: Any, make: Callable[..., Any]) -> Any:
    window = _window(model, node)
    same = _same(window)
    layer = make(
        kernel_size=window.kernel,
        strides=window.stride,
        dilation_rate=window.dilation,
        padding="same" if same else "valid",
        use_bias=node.layer.bias,  # type: ignore[attr-defined]
    )
    return model.apply(node, layer, value if same else _padded(window, value))


def _conv(model: Model, node: Node, value: Any) -> Any:
    import keras

    layer: Any = node.layer
    return _convolved(
        model, node, value,
        lambda **how: keras.layers.Conv2D(layer.kernels, groups=layer.groups, **how),
    )  # fmt: skip


def _depthwise(model: Model, node: Node, value: Any) -> Any:
    import keras

    layer: Any = node.layer
    return _convolved(
        model, node, value,
        lambda **how: keras.layers.DepthwiseConv2D(depth_multiplier=layer.multiplier, **how),
    )  # fmt: skip


def _linear(model: Model, node: Node, value: Any) -> Any:
    import keras

    layer: Any = node.layer
    return model.apply(node, keras.layers.Dense(layer.features, use_bias=layer.bias), value)


def _bn(model: Model, node: Node, value: Any) -> Any:
    import keras

    layer: Any = node.layer
    twin = keras.layers.BatchNormalization(
        momentum=1 - layer.momentum, epsilon=layer.eps, center=layer.affine, scale=layer.affine
    )
    return model.apply(node, twin, value)


def _max_pool(model: Model, node: Node, value: Any) -> Any:
    import keras

    window = _window(model, node)
    if window.kernel == (1, 1):
        down, across = window.stride
        return value[:, ::down, ::across, :]
    padded = _padded(window, value, -math.inf)
    return keras.layers.MaxPooling2D(window.kernel, window.stride)(padded)


def _avg_pool(model: Model, node: Node, value: Any) -> Any:
    import keras

    window = _window(model, node)
    return keras.layers.AveragePooling2D(window.kernel, window.stride)(_padded(window, value))


def _channel_pad(model: Model, node: Node, value: Any) -> Any:
    import keras

    layer: Any = node.layer
    return keras.ops.pad(value, ((0, 0), (0, 0), (0, 0), (layer.before, layer.after)))


def _plain(make: Callable[[Any], Any]) -> Rule:
    """Of a layer of Keras that learns nothing."""

    def rule(model: Model, node: Node, *values: Any) -> Any:
        import keras

        return make(keras.layers)(values[0] if len(values) == 1 else list(values))

    return rule


def _unchanged(model: Model, node: Node, value: Any) -> Any:
    return value


RULES: dict[type[Layer], Rule] = {
    Conv: _conv,
    DepthwiseConv: _depthwise,
    Linear: _linear,
    BatchNorm: _bn,
    MaxPool: _max_pool,
    AvgPool: _avg_pool,
    ChannelPad: _channel_pad,
    Flatten: _plain(lambda layers: layers.Flatten()),
    GlobalAvg: _plain(lambda layers: layers.GlobalAveragePooling2D(keepdims=True)),
    ReLU: _plain(lambda layers: layers.ReLU()),
    ReLU6: _plain(lambda layers: layers.ReLU(max_value=6.0)),
    Tanh: _plain(lambda layers: layers.Activation("tanh")),
    Sigmoid: _plain(lambda layers: layers.Activation("sigmoid")),
    Add: _plain(lambda layers: layers.Add()),
    Concat: _plain(lambda layers: layers.Concatenate()),
    Dropout: _unchanged,  # of inference only: `training` refuses it
}

# ---- variables ----------------------------------------------------------------------------------

Turn = Callable[[np.ndarray], np.ndarray]
Turns = dict[str, tuple[str, Turn, Turn]]


def _as_is(array: np.ndarray) -> np.ndarray:
    return array


def _conv_turns(model: Model, node: Node) -> Turns:
    """K×C×R×S, and R×S×C×K."""
    return {
        "weight": ("kernel", lambda w: w.transpose(2, 3, 1, 0), lambda w: w.transpose(3, 2, 0, 1)),
        "bias": ("bias", _as_is, _as_is),
    }


def _depthwise_turns(model: Model, node: Node) -> Turns:
    """(C·M)×1×R×S, and R×S×C×M."""
    channels = model.shapes[node.inputs[0]][0]

    def there(w: np.ndarray) -> np.ndarray:
        return w.reshape(channels, -1, *w.shape[2:]).transpose(2, 3, 0, 1)

    def back(w: np.ndarray) -> np.ndarray:
        moved = w.transpose(2, 3, 0, 1)
        return moved.reshape(-1, 1, *moved.shape[2:])

    return {"weight": ("kernel", there, back), "bias": ("bias", _as_is, _as_is)}


def _linear_turns(model: Model, node: Node) -> Turns:
    """K×F, and F×K; after a `flatten` the features are in the order H, W, C there."""
    maps = _maps_before(model, node)

    def there(w: np.ndarray) -> np.ndarray:
        if maps:
            w = w.reshape(-1, *maps).transpose(0, 2, 3, 1).reshape(len(w), -1)
        return np.ascontiguousarray(w.T)

    def back(w: np.ndarray) -> np.ndarray:
        w = w.T
        if not maps:
            return w
        channels, height, width = maps
        turned = w.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
        return turned.reshape(len(w), -1)

    return {"weight": ("kernel", there, back), "bias": ("bias", _as_is, _as_is)}


def _maps_before(model: Model, node: Node) -> tuple[int, ...]:
    """The shape of the maps that a full connection reads, through `flatten`; () for features."""
    before = model.work.graph.node(node.inputs[0])
    while isinstance(before.layer, (Dropout, ReLU, ReLU6, Tanh, Sigmoid)):
        before = model.work.graph.node(before.inputs[0])
    return model.shapes[before.inputs[0]] if isinstance(before.layer, Flatten) else ()


def _bn_turns(model: Model, node: Node) -> Turns:
    names = {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    }
    return {ours: (theirs, _as_is, _as_is) for ours, theirs in names.items()}


TURNS: dict[type[Layer], Callable[[Model, Node], Turns]] = {
    Conv: _conv_turns,
    DepthwiseConv: _depthwise_turns,
    Linear: _linear_turns,
    BatchNorm: _bn_turns,
}
