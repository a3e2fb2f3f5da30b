"""ncnn on the CPU, its model written directly: batch normalisation folded, activations joined.

That is what its converters make of such a network, without their way through files of others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lanewise.net.graph import Node
from lanewise.net.layers import (
    Add,
    AvgPool,
    BatchNorm,
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
from lanewise.size.windows import Window, conv_of, resolve_window
from peers.work import Ready, Rule, Unsupported, Work, rule_for

PACKAGES = ("ncnn",)
MAGIC = "7767517"
FLOAT_TAG = b"\0\0\0\0"  # before weights that are float32


@dataclass
class Line:
    """A layer of a .param file: its type, name, what it reads and writes, numbered parameters."""

    type: str
    name: str
    reads: list[str]
    writes: list[str]
    numbers: dict[int, Any] = field(default_factory=dict)
    arrays: list[tuple[bytes, np.ndarray]] = field(default_factory=list)

    def text(self) -> str:
        """As it stands in the file."""
        words = [self.type, self.name, len(self.reads), len(self.writes), *self.reads, *self.writes]
        numbers = [f"{key}={_number(value)}" for key, value in sorted(self.numbers.items())]
        return " ".join(map(str, [*words, *numbers]))


def _number(value: Any) -> str:
    """A number, or a list as ncnn writes it: its key is −23300 minus the parameter's."""
    if isinstance(value, list):
        return ",".join([str(len(value)), *(f"{one:e}" for one in value)])
    return str(int(value))


class Model:
    """The lines of a graph for inference."""

    def __init__(self, work: Work) -> None:
        self.work, self.shapes, self.weights = work, work.shapes, work.weights
        self.lines: list[Line] = []
        self.value: dict[str, str] = {}  # our name → the blob that has its value
        self.made: dict[str, Line] = {}  # blob → the line that writes it
        for node in work.graph.nodes:
            if not node.inputs:
                self._append(Line("Input", node.name, [], [node.name]), node)
                continue
            rule = rule_for(RULES, node.layer, "ncnn")
            rule(self, node, *(self.value[name] for name in node.inputs))
        self.lines = self._split()

    def _append(self, line: Line, node: Node) -> None:
        self.lines.append(line)
        self.made[line.writes[0]] = line
        self.value[node.name] = line.writes[0]

    def add(
        self,
        node: Node,
        kind: str,
        reads: list[str],
        numbers: dict[int, Any],
        arrays: list[tuple[bytes, np.ndarray]] | None = None,
    ) -> None:
        """A line under the node's name."""
        self._append(Line(kind, node.name, reads, [node.name], numbers, arrays or []), node)

    def join(self, node: Node, blob: str) -> None:
        """The node's value is the blob that was there: it was joined to whoever writes it."""
        self.value[node.name] = blob

    def alone(self, node: Node) -> bool:
        """Whether nobody but this node reads what it reads."""
        readers = [name for one in self.work.graph.nodes for name in one.inputs]
        return readers.count(node.inputs[0]) == 1

    def window(self, node: Node) -> Window:
        """The layer's, in numbers."""
        return resolve_window(node.layer, self.shapes[node.inputs[0]])  # type: ignore[arg-type]

    def _split(self) -> list[Line]:
        """A `Split` after every blob that is read several times, as ncnn wants it."""
        readers: dict[str, list[tuple[Line, int]]] = {}
        for line in self.lines:
            for place, name in enumerate(line.reads):
                readers.setdefault(name, []).append((line, place))
        result = []
        for line in self.lines:
            result.append(line)
            blob = line.writes[0]
            users = readers.get(blob, [])
            if len(users) > 1:
                parts = [f"{blob}_{number}" for number in range(len(users))]
                for (user, place), part in zip(users, parts, strict=True):
                    user.reads[place] = part
                result.append(Line("Split", f"{blob}_split", [blob], parts))
        return result

    def text(self) -> str:
        """The .param file."""
        blobs = sum(len(line.writes) for line in self.lines)
        head = [MAGIC, f"{len(self.lines)} {blobs}"]
        return "\n".join([*head, *(line.text() for line in self.lines)]) + "\n"

    def bytes(self) -> bytes:
        """The .bin file."""
        parts = [tag + array.astype(np.float32).tobytes() for line in self.lines
                 for tag, array in line.arrays]  # fmt: skip
        return b"".join(parts)


# ---- layers -------------------------------------------------------------------------------------


def _conv(model: Model, node: Node, blob: str) -> None:
    window, layer = model.window(node), conv_of(node.layer, model.shapes[node.inputs[0]])  # type: ignore[arg-type]
    weight = model.weights[f"{node.name}.weight"]
    bias = model.weights.get(f"{node.name}.bias", np.zeros(layer.kernels, np.float32))
    (top, bottom), (left, right) = window.pad
    numbers = {
        0: layer.kernels,
        1: window.kernel[1],
        11: window.kernel[0],
        2: window.dilation[1],
        12: window.dilation[0],
        3: window.stride[1],
        13: window.stride[0],
        4: left,
        15: right,
        14: top,
        16: bottom,
        5: 1,
        6: weight.size,
    }
    kind = "Convolution"
    if layer.groups > 1:
        kind, numbers[7] = "ConvolutionDepthWise", layer.groups
    model.add(node, kind, [blob], numbers, [(FLOAT_TAG, weight), (b"", bias)])


def _linear(model: Model, node: Node, blob: str) -> None:
    layer: Any = node.layer
    weight = model.weights[f"{node.name}.weight"]
    bias = model.weights.get(f"{node.name}.bias", np.zeros(layer.features, np.float32))
    numbers = {0: layer.features, 1: 1, 2: weight.size}
    model.add(node, "InnerProduct", [blob], numbers, [(FLOAT_TAG, weight), (b"", bias)])


def _bn(model: Model, node: Node, blob: str) -> None:
    """Into the weights of the convolution before it, which nobody else reads."""
    line, layer = model.made[blob], node.layer
    if not line.type.startswith("Convolution") or not model.alone(node) or 9 in line.numbers:
        raise Unsupported("ncnn: `bn` is folded into a convolution here, and there is none")
    own = {part: model.weights.get(f"{node.name}.{part}") for part in ("weight", "bias")}
    mean, variance = (model.weights[f"{node.name}.running_{part}"] for part in ("mean", "var"))
    factor = (1.0 if own["weight"] is None else own["weight"]) / np.sqrt(variance + layer.eps)  # type: ignore[attr-defined]
    (tag, weight), (_, bias) = line.arrays
    shift = (0.0 if own["bias"] is None else own["bias"]) + (bias - mean) * factor
    line.arrays = [(tag, weight * factor[:, None, None, None]), (b"", shift)]
    model.join(node, blob)


#: our word → ncnn's number of an activation that is joined, its parameters, and the layer alone
ACTIVATIONS: dict[type[Layer], tuple[int, list[float], str, dict[int, Any]]] = {
    ReLU: (1, [], "ReLU", {}),
    ReLU6: (3, [0.0, 6.0], "Clip", {}),
    Sigmoid: (4, [], "Sigmoid", {}),
}


def _activation(model: Model, node: Node, blob: str) -> None:
    """Joined to a convolution or a full connection, where nobody else reads it."""
    number, parameters, alone, numbers = ACTIVATIONS[type(node.layer)]
    line = model.made[blob]
    joins = line.type.startswith("Convolution") or line.type == "InnerProduct"
    if joins and 9 not in line.numbers and model.alone(node):
        line.numbers[9] = number
        if parameters:
            line.numbers[-23310] = parameters
        model.join(node, blob)
    elif parameters:
        raise Unsupported(f"ncnn: `{node.layer.word}` alone")
    else:
        model.add(node, alone, [blob], numbers)


def _pool(kind: int) -> Rule:
    def rule(model: Model, node: Node, blob: str) -> None:
        window = model.window(node)
        (top, bottom), (left, right) = window.pad
        numbers = {
            0: kind,
            1: window.kernel[1],
            11: window.kernel[0],
            2: window.stride[1],
            12: window.stride[0],
            3: left,
            14: right,
            13: top,
            15: bottom,
            5: 1,
            6: kind,
        }
        model.add(node, "Pooling", [blob], numbers)

    return rule


def _plain(kind: str, **numbers: int) -> Rule:
    keyed = {int(key[1:]): value for key, value in numbers.items()}

    def rule(model: Model, node: Node, *blobs: str) -> None:
        model.add(node, kind, list(blobs), dict(keyed))

    return rule


def _add(model: Model, node: Node, *blobs: str) -> None:
    if len(blobs) == 2:
        model.add(node, "BinaryOp", list(blobs), {0: 0})
    else:
        model.add(node, "Eltwise", list(blobs), {0: 1})


RULES: dict[type[Layer], Rule] = {
    Conv: _conv,
    DepthwiseConv: _conv,
    Linear: _linear,
    BatchNorm: _bn,
    ReLU: _activation,
    ReLU6: _activation,
    Sigmoid: _activation,
    Tanh: _plain("TanH"),
    MaxPool: _pool(0),
    AvgPool: _pool(1),
    GlobalAvg: _plain("Pooling", _0=1, _4=1),
    Flatten: _plain("Flatten"),
    Add: _add,
    Concat: _plain("Concat", _0=0),
    Dropout: lambda model, node, blob: model.join(node, blob),
}

# ---- inference ----------------------------------------------------------------------------------


def inference(work: Work) -> Ready:
    """Logits; ncnn takes one image after the other."""
    import ncnn

    net, model = ncnn.Net(), Model(work)
    net.opt.num_threads = int(work.options.get("threads", work.threads))
    net.opt.use_vulkan_compute = False
    for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "bf16_packed"):
        setattr(net.opt, f"use_{name}", False)
    param, weights = work.folder / "model.param", work.folder / "model.bin"
    param.write_text(model.text(), encoding="ascii")
    weights.write_bytes(model.bytes())
    if net.load_param(str(param)) or net.load_model(str(weights)):
        raise ValueError("ncnn does not read the model that was written for it")
    first, last = model.lines[0].writes[0], model.value[work.graph.output.name]
    images = [ncnn.Mat(np.ascontiguousarray(image)).clone() for image in work.images]

    def logits(image: Any) -> Any:
        extractor = net.create_extractor()
        extractor.input(first, image)
        return extractor.extract(last)[1]

    def run(times: int) -> None:
        for _ in range(times):
            for image in images:
                logits(image)

    found = np.stack([np.array(logits(image)).reshape(-1) for image in images])
    return Ready({"logits": found}, run)
