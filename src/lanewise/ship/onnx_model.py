"""A graph and its weights as an ONNX model: its input is N×C×H×W, any number of images.

The notation's text stands in the model's properties (`lanewise.net`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lanewise import __version__
from lanewise.errors import LanewiseError, require
from lanewise.net.graph import Graph
from lanewise.net.show import show
from lanewise.ship.onnx_rules import OPERATORS
from lanewise.ship.onnx_sheet import Array, Sheet
from lanewise.size.cost import learned_shapes
from lanewise.size.shapes import Shape, infer_shapes

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

# GroupNormalization is right since 21; ONNX Runtime reads it since 1.18.
OPSET, FORMAT = 21, 10
IMAGES = "images"


def to_onnx(
    graph: Graph, weights: Mapping[str, Array], properties: Mapping[str, str] | None = None
) -> ModelProto:
    """The model, with further `properties`. `weights`: parameters and buffers by name.

    LanewiseError where weights are missing or have another shape.
    """
    require("onnx", "onnx", "onnx")
    from onnx import checker, helper

    _require(graph, weights)
    shapes = infer_shapes(graph)
    sheet = Sheet(weights)
    values: dict[str, str] = {}
    for node in graph.nodes:
        reads = [(values[name], shapes[name]) for name in node.inputs]
        values[node.name] = OPERATORS[type(node.layer)](sheet, node, *reads)
    first, last = graph.nodes[0].name, graph.output.name
    body = helper.make_graph(
        sheet.operators,
        graph.title or "lanewise",
        [_value(values[first], shapes[first])],
        [_value(values[last], shapes[last])],
        list(sheet.tensors.values()),
    )
    model = helper.make_model(
        body,
        producer_name="lanewise",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=FORMAT,
    )
    helper.set_model_props(model, {**(properties or {}), "lanewise.net": show(graph)})
    checker.check_model(model, full_check=True)
    return model


def _value(name: str, shape: Shape) -> ValueInfoProto:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [IMAGES, *shape])


def _require(graph: Graph, weights: Mapping[str, Array]) -> None:
    for name, shape in learned_shapes(graph).items():
        if name not in weights:
            raise LanewiseError(f"weights do not fit: {name} is missing")
        if weights[name].shape != shape:
            raise LanewiseError(
                f"weights do not fit: {name} is {weights[name].shape}, the network has {shape}"
            )
