"""A Keras model as a network: the calls of its layers become ours by the table of `keras_rules`.

The model is called once on Keras' symbolic image, which computes nothing; every tensor then knows
the layer that made it. Models within the model, and layers that the user wrote out of others, are
followed inside. Maps are turned from Keras' order of axes (channels last) to C×H×W.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

from lanewise.bridge.importing.builder import Builder, NoLayer, Step
from lanewise.bridge.importing.keras_activations import activated
from lanewise.bridge.importing.keras_rules import LAYERS, OPERATIONS
from lanewise.bridge.importing.keras_step import KerasStep
from lanewise.bridge.importing.network import Imported
from lanewise.bridge.importing.values import Constant, Source, Value
from lanewise.errors import NetError, counted
from lanewise.net.layers import Foreign, Input
from lanewise.size.shapes import Shape


def import_model(model: Any, spec: str, origin: str, title: str, image: Input | None) -> Imported:
    """The network of the `keras.Model` that `spec` names, for its own image or for another.
    NetError where its image is not known, where it reads something else than one image, or where
    it cannot be called."""
    last = _channels_last(model)
    image = _chosen(model, spec, image, last)
    entry, result = _called(model, spec, image, last)
    # Frozen or not, a weight is a parameter: what is not trained then is what never is.
    model.trainable = True
    reader = _Reader(origin, last)
    reader.values[id(entry)] = reader.builder.add(image)
    return reader.imported(result, title, model)


def _channels_last(model: Any) -> bool:
    """The order of axes of the first layer that has one, else Keras' setting."""
    import keras

    for layer in model._flatten_layers():
        order = getattr(layer, "data_format", None)
        if order is not None:
            return bool(order == "channels_last")
    return bool(keras.config.image_data_format() == "channels_last")


def _chosen(model: Any, origin: str, image: Input | None, last: bool) -> Input:
    """The image that is asked for, or the model's own."""
    own = _own_shape(model, origin)
    if own is not None and last:
        own = (own[2], own[0], own[1])
    if image is not None:
        asked = (image.channels, image.height, image.width)
        fixed = own or (None, None, None)
        if any(n not in (None, m) for n, m in zip(fixed, asked, strict=True)):
            shown = "x".join(str(n or "?") for n in fixed)
            raise NetError(
                f"{origin}: is made for images of {shown}, not {'x'.join(map(str, asked))}; leave "
                "--input out, or make the model with open axes"
            )
        return image
    if own is None or None in own:
        usual = zip(own or (3, None, None), (3, 224, 224), strict=True)
        raise NetError(
            f"{origin}: this model does not say how large its image is; add --input "
            f"{'x'.join(str(n or m) for n, m in usual)}, or the size that it is made for"
        )
    return Input(*(int(n) for n in own if n is not None))


def _own_shape(model: Any, origin: str) -> tuple[int | None, ...] | None:
    """The axes of the model's image in Keras' order, None where one is open; None for a model that
    is not built yet."""
    try:
        inputs = model.inputs
    except (AttributeError, ValueError):
        inputs = None
    if not inputs:
        return None
    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs)
        raise NetError(f"{origin}: reads {names}; Lanewise's networks read one image")
    shape = tuple(inputs[0].shape)[1:]
    if len(shape) != 3:
        shown = "x".join(str(n or "?") for n in shape) or "nothing"
        raise NetError(f"{origin}: reads {shown}; images are height x width x channels")
    return shape


def _called(model: Any, origin: str, image: Input, last: bool) -> tuple[Any, Any]:
    """(Keras' symbolic image, what the model makes of it); the model's prints go to stderr."""
    import keras

    shape = (image.channels, image.height, image.width)
    entry = keras.Input((*shape[1:], shape[0]) if last else shape)
    try:
        with redirect_stdout(sys.stderr):
            return entry, model(entry)
    except Exception as error:
        told = str(error).strip().split("\n")[0] or type(error).__name__
        size = "x".join(map(str, shape))
        raise NetError(
            f"{origin}: Keras cannot run this model on images of {size}: {told}; "
            "give --input the size that it is made for"
        ) from None


class _Reader:
    """Turns Keras' calls into layers; knows what every symbolic tensor is, by its `id`."""

    def __init__(self, origin: str, last: bool) -> None:
        self.origin, self.last = origin, last
        self.builder = Builder(1)
        self.values: dict[int, Value] = {}
        self.sources: dict[int, Source] = {}
        self.kept: list[Any] = []  # tensors stay, so that an `id` stays theirs
        self.hinted: set[int] = set()

    def imported(self, result: Any, title: str, model: Any) -> Imported:
        """The network that gives `result`."""
        from keras import tree

        self.follow(result)
        outputs = [self.as_it_is(self.values[id(one)]) for one in tree.flatten(result)]
        graph, weights = self.builder.graph(outputs, self.origin, title)
        graph = replace(graph, convention="keras")
        remarks = tuple(self.remarks(graph.nodes, len(outputs), model))
        return Imported(graph, weights, remarks)

    def follow(self, result: Any) -> None:
        """Reads every call that leads to `result`, each after those that it reads."""
        from keras import tree

        waiting = [(one, False) for one in reversed(tree.flatten(result))]
        while waiting:
            tensor, ready = waiting.pop()
            if id(tensor) in self.values:
                continue
            node = _node(tensor, self.origin)
            if ready:
                self.read(node)
            else:
                waiting.append((tensor, True))
                waiting += [(one, False) for one in reversed(node.input_tensors)]

    def read(self, node: Any) -> None:
        """Adds the layers of a call."""
        self.kept += node.outputs
        if _is_composed(node.operation) and self._inside(node):
            return
        self.builder.step = self._step(node.operation)
        made = len(self.builder.entries)
        try:
            found = [self._by_rule(node)]
            if [one.visible for one in found] != [self.shape(one) for one in node.outputs]:
                raise NoLayer(f"{type(node.operation).__name__} that gives another shape here")
        except NoLayer as none:
            del self.builder.entries[made:]
            self.builder.step = self._step(node.operation, again=True)
            found = self._foreign(node, str(none))
        for tensor, value in zip(node.outputs, found, strict=True):
            self.values[id(tensor)] = value

    def _inside(self, node: Any) -> bool:
        """Reads what a model or the user's own layer is made of; False where Keras cannot call it
        symbolically, as where its `call` speaks to another framework."""
        from keras import tree

        arguments = node.arguments
        try:
            with redirect_stdout(sys.stderr):
                result = node.operation.call(*arguments.args, **arguments.kwargs)
            inner = tree.flatten(result)
            fits = [tuple(one.shape) for one in inner] == [tuple(o.shape) for o in node.outputs]
            if not fits:
                return False
        except Exception:
            return False
        self.kept += inner
        self.follow(inner)
        for tensor, value in zip(node.outputs, inner, strict=True):
            self.values[id(tensor)] = self.values[id(value)]
        return True

    def _by_rule(self, node: Any) -> Value:
        import keras

        operation = node.operation
        is_layer = isinstance(operation, keras.Layer)
        rule = (LAYERS if is_layer else OPERATIONS).get(type(operation).__name__)
        if rule is None or not type(operation).__module__.startswith("keras."):
            raise NoLayer("")
        if not is_layer and _constants(node):
            raise NoLayer("with fixed numbers")
        reads = [self.values[id(one)] for one in node.input_tensors]
        value = rule(self.builder, KerasStep(operation, reads, self._parts(operation), self.last))
        if type(operation).__name__ == "Activation":
            return value
        self.builder.step = Step()
        return activated(self.builder, getattr(operation, "activation", None), value)

    def _parts(self, operation: Any) -> dict[str, Constant]:
        """The variables of a layer, by the names that Keras gives them within it."""
        return {one.name: self.constant(one) for one in getattr(operation, "weights", ())}

    def constant(self, variable: Any) -> Constant:
        """A variable as the constant that it is for the image; its name is unique."""
        shape = tuple(variable.shape)
        if id(variable) not in self.sources:
            taken = {source.name for source in self.sources.values()}
            name, number = variable.path, 2
            while name in taken:
                name, number = f"{variable.path}_{number}", number + 1
            self.sources[id(variable)] = Source(name, shape, bool(variable.trainable))
        return Constant(shape, (self.sources[id(variable)],))

    def _foreign(self, node: Any, reason: str) -> list[Value]:
        """One layer; of several results each but the first is a layer that reads the first."""
        operation = node.operation
        reads = [self.values[id(one)] for one in node.input_tensors]
        constants = [*self._parts(operation).values(), *map(self.constant, _variables(node))]
        name = type(operation).__name__
        shapes = [self.shape(one) for one in node.outputs]
        first = self.builder.foreign(name, shapes[0], reads, constants, reason)
        self.builder.step = Step()
        return [
            first,
            *(self.builder.foreign(name, shape, [first], [], reason) for shape in shapes[1:]),
        ]

    def shape(self, tensor: Any) -> Shape:
        """The shape without the images, maps as C×H×W; NetError where an axis is open."""
        shape = tuple(tensor.shape)[1:]
        if None in shape:
            raise NetError(
                f"{self.origin}: the size of {tensor.name} depends on more than the image's size; "
                "make the model with fixed shapes"
            )
        return (shape[2], shape[0], shape[1]) if len(shape) == 3 and self.last else shape

    def _step(self, operation: Any, again: bool = False) -> Step:
        """The layer's name, once: a layer that is called again gets one of ours."""
        import keras

        if not isinstance(operation, keras.Layer) or (id(operation) in self.hinted and not again):
            return Step()
        self.hinted.add(id(operation))
        return Step(operation.name)

    def as_it_is(self, value: Value) -> Value:
        """The value as the network's result: padded or reshaped last, it is a foreign layer."""
        if value.is_plain:
            return value
        self.builder.step = Step()
        return self.builder.foreign("view", value.visible, [value], [], "a view as the result")

    def remarks(self, nodes: Any, outputs: int, model: Any) -> Iterator[str]:
        """What is left out, and what is more than a network of ours has."""
        uncounted = [
            node.name
            for node in nodes
            if isinstance(node.layer, Foreign) and any(len(s) > 1 for _, s in node.layer.parameters)
        ]
        if uncounted:
            more = " …" if len(uncounted) > 3 else ""
            yield (
                f"Keras does not tell multiply–adds: those of {', '.join(uncounted[:3])}{more} are "
                "not in the total."
            )
        idle = [one for one in model.weights if id(one) not in self.sources]
        if idle:
            count = sum(Source("", tuple(one.shape)).count for one in idle)
            yield (
                f"{counted(count, 'parameter takes', 'parameters take')} no part in the result and "
                f"{'is' if count == 1 else 'are'} not counted: "
                f"{', '.join(one.path for one in idle[:3])}" + (" …" if len(idle) > 3 else ".")
            )
        if outputs > 1:
            yield f"It gives {outputs} results; {nodes[-1].name} is taken as the last layer."


def _node(tensor: Any, origin: str) -> Any:
    """The call that made a tensor."""
    history = getattr(tensor, "_keras_history", None)
    if history is None or history.operation is None:
        raise NetError(f"{origin}: its result does not depend on the image; return a tensor")
    node = history.operation._inbound_nodes[history.node_index]
    if node.is_input:
        raise NetError(f"{origin}: reads more than its image; Lanewise's networks read one image")
    return node


def _is_composed(operation: Any) -> bool:
    """Whether it is a model, or a layer that the user wrote."""
    import keras

    of_keras = type(operation).__module__.startswith("keras.")
    return isinstance(operation, keras.Model) or (
        isinstance(operation, keras.Layer) and not of_keras
    )


def _arguments(node: Any) -> list[Any]:
    from keras import tree

    return list(tree.flatten((node.arguments.args, node.arguments.kwargs)))


def _variables(node: Any) -> list[Any]:
    """The variables that a call is given itself, as in `x * self.factor`."""
    import keras

    return [one for one in _arguments(node) if isinstance(one, keras.Variable)]


def _constants(node: Any) -> bool:
    """Whether a call is given something else than what the image became."""
    import keras

    return any(
        not isinstance(one, (keras.KerasTensor, type(None), str)) for one in _arguments(node)
    )
