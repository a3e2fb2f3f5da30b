"""An ONNX file as a network: its operators become layers by the table of `onnx_rules`.

Nothing is run but arithmetic on constants (shapes for a Reshape and the like), by ONNX's own
reference evaluator. Sizes of foreign operators are those of ONNX's shape inference.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lanewise.bridge import require_onnx
from lanewise.bridge.importing.builder import Builder, NoLayer, Step
from lanewise.bridge.importing.network import Imported
from lanewise.bridge.importing.onnx_rules import OPERATORS
from lanewise.bridge.importing.values import Constant, Source, Value
from lanewise.errors import NetError
from lanewise.net.layers import Input
from lanewise.size.shapes import Shape

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, ValueInfoProto

# More numbers than this are weights, and nobody computes a shape from them.
_FEW = 4096
_STANDARD = ("", "ai.onnx")


def import_file(path: str, image: Input | None = None) -> Imported:
    """The network of an ONNX file, for its own image or another. NetError with place and remedy
    where the file cannot be read, has operators that ONNX does not know, more than one image as
    input, or an image whose size it leaves open."""
    require_onnx()
    model = read_model(path)
    name, images, own = _image(model, path)
    layer = _chosen(path, name, own, image)
    shapes = _inferred(model, path, name, (images, layer.channels, layer.height, layer.width))
    return _Reader(model, path, images, layer, shapes).imported(name)


def read_model(path: str, *, weights: bool = False) -> ModelProto:
    """The model of a file; NetError where there is none, or where weights that stand in other
    files are not there. weights=False: those files need not be read."""
    import onnx

    if not os.path.isfile(path):
        raise NetError(f"{path}: no such file; give an ONNX file, a .net file or a zoo name")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        told = str(error).strip().split("\n")[0] or type(error).__name__
        raise NetError(f"{path}: is no ONNX model ({told}); export it again") from None
    if not model.graph.node:
        raise NetError(f"{path}: is no ONNX model, or one without operators; export it again")
    folder = os.path.dirname(os.path.abspath(path))
    for tensor, missing in _missing_files(model, folder):
        raise NetError(
            f"{path}: {tensor} stands in {missing}, which is missing; put that file beside the "
            "model, or export with everything in one file"
        )
    if weights:
        try:
            onnx.load_external_data_for_model(model, folder)
        except Exception as error:
            told = str(error).strip().split("\n")[0] or type(error).__name__
            raise NetError(
                f"{path}: its weights in other files cannot be read ({told}); export it again"
            ) from None
    return model


def _missing_files(model: ModelProto, folder: str) -> Iterator[tuple[str, str]]:
    from onnx import TensorProto

    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            where = {entry.key: entry.value for entry in tensor.external_data}.get("location", "?")
            if not os.path.isfile(os.path.join(folder, where)):
                yield tensor.name, where


def _image(model: ModelProto, path: str) -> tuple[str, int, list[int | str]]:
    """(name of the image, how many of them the model has or 2, its axes: numbers or names)."""
    known = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in known]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "nothing"
        raise NetError(f"{path}: reads {names}; Lanewise's networks read one image")
    axes = _axes(inputs[0])
    if len(axes) != 4:
        shown = "x".join(map(str, axes)) or "nothing"
        raise NetError(f"{path}: {inputs[0].name} is {shown}; images are N x C x H x W")
    images = axes[0] if isinstance(axes[0], int) else 2
    return inputs[0].name, images, axes[1:]


def _axes(value: ValueInfoProto) -> list[int | str]:
    """The axes of a value: a number, or the name of one that is left open."""
    return [
        axis.dim_value
        if axis.HasField("dim_value") and axis.dim_value > 0
        else axis.dim_param or "?"
        for axis in value.type.tensor_type.shape.dim
    ]


def _chosen(path: str, name: str, own: list[int | str], image: Input | None) -> Input:
    """The image that is asked for, where it fits what the model fixes."""
    fixed = [axis for axis in own if isinstance(axis, int)]
    shown = "x".join(map(str, own))
    if image is None:
        if len(fixed) < 3:
            usual = zip(own, (3, 224, 224), strict=True)
            sizes = [str(axis if isinstance(axis, int) else size) for axis, size in usual]
            raise NetError(
                f"{path}: the image {name} is {shown}, with axes of no number; add --input "
                f"{'x'.join(sizes)}, or the size that it is made for"
            )
        return Input(*fixed)
    asked = (image.channels, image.height, image.width)
    for axis, number in zip(own, asked, strict=True):
        if isinstance(axis, int) and axis != number:
            raise NetError(
                f"{path}: is made for images of {shown}, not {'x'.join(map(str, asked))}; leave "
                "--input out, or export it with open axes"
            )
    return image


def _inferred(model: ModelProto, path: str, name: str, shape: Shape) -> dict[str, Shape]:
    """The shape of every tensor that ONNX can tell, the axis of the images included."""
    from onnx import shape_inference

    for value in model.graph.input:
        if value.name == name:
            dims = value.type.tensor_type.shape.dim
            for axis, number in zip(dims, shape, strict=True):
                axis.dim_value = number
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        found = shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:
        told = str(error).strip().split("\n")[-1]
        raise NetError(f"{path}: its shapes do not fit ({told}); export it again") from None
    known = [*found.graph.value_info, *found.graph.output, *found.graph.input]
    shown = [value for value in known if value.type.tensor_type.HasField("shape")]
    whole = {value.name: _axes(value) for value in shown}
    return {
        name: tuple(int(axis) for axis in axes)
        for name, axes in whole.items()
        if all(isinstance(axis, int) for axis in axes)
    }


class _Reader:
    """Turns operators into layers; knows what every tensor is, by its name."""

    def __init__(
        self, model: ModelProto, path: str, images: int, image: Input, shapes: dict[str, Shape]
    ) -> None:
        self.model, self.path, self.images, self.shapes = model, path, images, shapes
        self.builder = Builder(images)
        self.builder.add(image)
        self.values: dict[str, Any] = {"": None}
        for tensor in model.graph.initializer:
            self.values[tensor.name] = _weight(tensor)
        self.opsets = {entry.domain: entry.version for entry in model.opset_import}

    def imported(self, name: str) -> Imported:
        """The whole network."""
        first = self.builder.entries[0]
        self.values[name] = Value.plain(0, first.shape)
        for operator in self.model.graph.node:
            self.read(operator)
        outputs = [self.values[value.name] for value in self.model.graph.output]
        found = [value for value in outputs if isinstance(value, Value)]
        if not found:
            raise NetError(f"{self.path}: its result does not depend on the image")
        graph, weights = self.builder.graph(found, self.path, os.path.basename(self.path))
        several = len(found) > 1
        told = f"It gives {len(found)} results; {graph.output.name} is taken as the last layer."
        return Imported(graph, weights, (told,) if several else ())

    def read(self, operator: NodeProto) -> None:
        """Add the layers of an operator."""
        self._require_known(operator)
        self._require_made(operator)
        given = [self.values.get(name) for name in operator.input]
        reads = [one for one in given if isinstance(one, Value)]
        if not reads or operator.op_type == "Shape":
            self._fold(operator, given)
            return
        self.builder.step = Step(operator.name if len(operator.output) else "")
        for name, value in zip(operator.output, self._values(operator, given), strict=False):
            self.values[name] = value

    def _require_known(self, operator: NodeProto) -> None:
        from onnx import defs

        domain = "" if operator.domain in _STANDARD else operator.domain
        version = self.opsets.get(operator.domain, self.opsets.get(domain, 1))
        if not defs.has(operator.op_type, version, domain):
            where = f" of {domain}" if domain else ""
            raise NetError(
                f"{self.path}: operator {operator.op_type}{where} ({operator.name or 'unnamed'}) "
                f"is not one of ONNX's in opset {version}; export the model with standard operators"
            )

    def _require_made(self, operator: NodeProto) -> None:
        for name in operator.input:
            if name not in self.values:
                raise NetError(
                    f"{self.path}: {operator.op_type} {operator.name or operator.output[0]} reads "
                    f"{name}, which nothing in the model makes; export it again"
                )

    def _values(self, operator: NodeProto, given: list[Any]) -> list[Value]:
        shapes = [self._shape(name) for name in operator.output if name]
        self._require_channels(operator, given)
        try:
            rule = OPERATORS.get(operator.op_type)
            if rule is None:
                raise NoLayer("")
            found = rule(self.builder, given, attributes(operator))
            found = found if isinstance(found, list) else [found]
            if all(s is None or one.visible == s for one, s in zip(found, shapes, strict=False)):
                return found
            reason = f"{operator.op_type} that gives another shape here"
        except NoLayer as none:
            reason = str(none)
        return self._foreign(operator, given, shapes, reason)

    def _require_channels(self, operator: NodeProto, given: list[Any]) -> None:
        """ONNX's shape inference does not look at what a convolution reads."""
        if operator.op_type != "Conv" or not isinstance(given[0], Value):
            return
        groups, weight = attributes(operator).get("group", 1), given[1].shape
        if len(weight) == 4 and weight[1] * groups != given[0].visible[0]:
            raise NetError(
                f"{self.path}: its shapes do not fit: Conv {operator.name or operator.output[0]} "
                f"has weights for {weight[1] * groups} channels and reads {given[0].visible[0]}; "
                "export it again"
            )

    def _shape(self, name: str) -> Shape | None:
        """The shape without the images; None where ONNX cannot tell."""
        whole = self.shapes.get(name)
        if not whole:  # no value of an image has no axes: ONNX could not tell
            return None
        return whole[1:] if whole[:1] == (self.images,) else whole

    def _foreign(
        self, operator: NodeProto, given: list[Any], shapes: list[Shape | None], reason: str
    ) -> list[Value]:
        reads = [one for one in given if isinstance(one, Value)]
        constants = [one for one in given if isinstance(one, Constant)]
        made: list[Value] = []
        for name, shape in zip(operator.output, shapes, strict=False):
            if shape is None:
                raise NetError(
                    f"{self.path}: the size of {name} ({operator.op_type}) depends on more than "
                    "the image's size; export the model with fixed shapes"
                )
            source = (made[:1], []) if made else (reads, constants)
            made.append(self.builder.foreign(operator.op_type, shape, *source, reason))
        return made

    def _fold(self, operator: NodeProto, given: list[Any]) -> None:
        """The numbers of an operator over constants; where they are weights, only what they are
        made of."""
        sources = [s for one in given if isinstance(one, Constant) for s in one.sources]
        arrays = self._numbers(operator, given)
        for index, name in enumerate(operator.output):
            if arrays is None:
                shape = self.shapes.get(name, ())
                self.values[name] = Constant(shape, tuple(sources))
            else:
                self.values[name] = Constant(tuple(arrays[index].shape), (), arrays[index])

    def _numbers(self, operator: NodeProto, given: list[Any]) -> list[Any] | None:
        import numpy as np
        from onnx.reference import ReferenceEvaluator

        if operator.op_type == "Shape" and isinstance(given[0], Value):
            whole = np.array([self.images, *given[0].visible], np.int64)
            settings = attributes(operator)
            return [whole[settings.get("start", 0) : settings.get("end", len(whole))]]
        numbers = [None if one is None else one.numbers for one in given]
        known = all(n is not None or one is None for n, one in zip(numbers, given, strict=True))
        if not known or sum(np.size(n) for n in numbers if n is not None) > _FEW:
            return None
        feeds = {n: v for n, v in zip(operator.input, numbers, strict=True) if v is not None}
        return list(ReferenceEvaluator(operator).run(None, feeds))


def _weight(tensor: Any) -> Constant:
    """A tensor of the file, its numbers only where they are few."""
    from math import prod

    from onnx import TensorProto, numpy_helper

    shape = tuple(tensor.dims)
    few = prod(shape) <= _FEW and tensor.data_location != TensorProto.EXTERNAL
    numbers = numpy_helper.to_array(tensor) if few else None
    trained = tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    source = (Source(tensor.name, shape),) if trained else ()
    return Constant(shape, source, numbers)


def attributes(operator: NodeProto) -> dict[str, Any]:
    """The settings of an operator, texts as str."""
    from onnx import helper

    found = {one.name: helper.get_attribute_value(one) for one in operator.attribute}
    return {
        name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()
    }
