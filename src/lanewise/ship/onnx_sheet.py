"""An ONNX graph in the making, as the rules of `onnx_rules` see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lanewise.net.graph import Node
from lanewise.size.shapes import Shape

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

Array: TypeAlias = "np.ndarray[Any, Any]"
# A tensor's name, and its shape without the images.
Read: TypeAlias = tuple[str, Shape]


@dataclass
class Sheet:
    """The operators so far, and the tensors of numbers that they read."""

    weights: Mapping[str, Array]
    operators: list[NodeProto] = field(default_factory=list)
    tensors: dict[str, TensorProto] = field(default_factory=dict)

    def weight(self, node: Node, name: str) -> str:
        """The name of one of the layer's own parameters."""
        full = f"{node.name}.{name}"
        return self.constant(full, self.weights[full])

    def has(self, node: Node, name: str) -> bool:
        """Whether the layer has this parameter."""
        return f"{node.name}.{name}" in self.weights

    def array(self, node: Node, name: str) -> Array:
        """The numbers of one of the layer's own parameters."""
        return self.weights[f"{node.name}.{name}"]

    def constant(self, name: str, values: Array | np.generic) -> str:
        """Numbers under a name; integers stay 64 bits wide, all else is float32."""
        from onnx import numpy_helper

        kind = np.int64 if np.asarray(values).dtype.kind in "iu" else np.float32
        array = np.ascontiguousarray(values, kind)
        self.tensors[name] = numpy_helper.from_array(array.reshape(np.shape(values)), name)
        return name

    def call(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Append an operator with one output; gives the output's name."""
        from onnx import helper

        self.operators.append(
            helper.make_node(operator, inputs, [output], name=f"{output}", **attributes)
        )
        return output
