"""A recorded run of a PyTorch module as a graph: each call becomes layers, or a foreign one."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lanewise.bridge.importing import modules, per_image
from lanewise.bridge.importing.builder import Builder, NoLayer, Step, Weights
from lanewise.bridge.importing.functions import FUNCTIONS, Rule
from lanewise.bridge.importing.per_image import IMAGES, MORE_IMAGES, Part
from lanewise.bridge.importing.places import shown_path
from lanewise.bridge.importing.record import Call, Recording, record, tensors
from lanewise.bridge.importing.user_code import Built
from lanewise.bridge.importing.values import Constant, Source, Value
from lanewise.errors import NetError, counted
from lanewise.net.graph import Graph
from lanewise.net.layers import Foreign, Input

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Imported:
    """A network of another framework: its graph, where each of its parameters is there (our name →
    theirs), and what should be known of it."""

    graph: Graph
    weights: Weights
    remarks: tuple[str, ...] = ()


def run_on(built: Built, image: Input, images: int = IMAGES) -> Recording:
    """A run of the module on so many images of this size; its prints go to standard error."""
    import torch

    shape = (images, image.channels, image.height, image.width)
    with redirect_stdout(sys.stderr):
        return record(built.module, torch.empty(shape, device="meta"), modules.whole())


def interpret(built: Built, notes: Recording, image: Input) -> Imported:
    """A recording as a graph; NetError where its result does not depend on the image. Only where a
    step has no layer is the module run again, on more images: layers know their sizes."""
    found = _interpret(_Reader(built, notes, image))
    if not any(isinstance(node.layer, Foreign) for node in found.graph.nodes):
        return found
    again = run_on(built, image, MORE_IMAGES)
    pairs = per_image.paired(notes, again)
    if pairs is None:
        return replace(found, remarks=(*found.remarks, per_image.other_way(again)))
    return _interpret(_Reader(built, notes, image, pairs))


def _interpret(reader: _Reader) -> Imported:
    built, notes = reader.built, reader.notes
    for call in notes.calls:
        reader.read(call)
    found = [reader.value_of(tensor) for tensor in tensors(notes.result)]
    outputs = [value for value in found if isinstance(value, Value)]
    if not outputs:
        raise NetError(f"{built.title}: its result does not depend on the image; return a tensor")
    outputs = [reader.as_it_is(value) for value in outputs]
    graph, weights = reader.builder.graph(outputs, shown_path(built.file), built.title)
    return Imported(graph, weights, tuple(reader.remarks(graph, weights, len(outputs))))


class _Reader:
    """Turns calls into layers; knows what every tensor is, by the tensor's `id`."""

    def __init__(
        self,
        built: Built,
        notes: Recording,
        image: Input,
        pairs: Mapping[int, Call] | None = None,
    ) -> None:
        """`pairs`: the `id` of each call → the same call on `MORE_IMAGES`."""
        self.built, self.notes = built, notes
        self.pairs = pairs or {}
        self.mixed: list[Call] = []
        self.builder = Builder(IMAGES)
        self.values: dict[int, Value | Constant] = {}
        shape = (image.channels, image.height, image.width)
        self.values[id(notes.image)] = self.builder.add(image)
        assert self.builder.entries[0].shape == shape
        self.known = dict(_known(built.module))
        self.hinted: set[str] = set()

    def value_of(self, tensor: torch.Tensor) -> Value | Constant:
        """What a tensor is; one that no call gave is a constant."""
        found = self.values.get(id(tensor))
        if found is None:
            source = self.known.get(id(tensor))
            found = Constant(tuple(tensor.shape), (source,) if source else ())
            self.values[id(tensor)] = found
        return found

    def read(self, call: Call) -> None:
        """Add the layers of a call."""
        args, kwargs = self._translated(call.args), self._translated(call.kwargs)
        given = list(_flat((args, kwargs)))
        if _is_whole(call):
            given += self._own(call).values()
        results = list(tensors(call.result))
        reads = [one for one in given if isinstance(one, Value)]
        if not reads:
            sources = {s.name: s for one in given if isinstance(one, Constant) for s in one.sources}
            self._keep(results, [Constant(shape, tuple(sources.values())) for shape in call.shapes])
            return
        self.builder.step = self._step(call)
        self._keep(results, self._values(call, args, kwargs, given))

    def _keep(self, results: list[Any], values: Any) -> None:
        for tensor, value in zip(results, values, strict=True):
            self.values[id(tensor)] = value

    def _values(self, call: Call, args: Any, kwargs: Any, given: list[Any]) -> list[Value]:
        """By the rule of the call, if it gives what torch gave; else as a foreign layer."""
        again = self.pairs.get(id(call))
        parts = per_image.parts(call, again)
        try:
            found = self._by_rule(call, args, kwargs)
            fits = call.name in EXPANDING or [one.visible for one in found] == [
                one.shape for one in parts
            ]
            if fits and per_image.keeps_images(call, again):
                return found
            reason = f"{call.name} that gives another shape here"
        except NoLayer as none:
            reason = str(none)
        if again and not all(one.known for one in parts):
            self.mixed.append(call)
        return self._foreign(call, parts, given, reason)

    def _by_rule(self, call: Call, args: Any, kwargs: Any) -> list[Value]:
        if _is_whole(call):
            rule = modules.rule_of(call.module)
            kept = {name: part for name, part in self._own(call).items() if name in _PARTS}
            return [rule(self.builder, call.module, kept, args[0])]
        found = _apply(FUNCTIONS.get(call.name), self.builder, args, kwargs)
        return found if isinstance(found, list) else [found]

    def _own(self, call: Call) -> dict[str, Constant]:
        """The parameters and buffers of a module that was noted as a whole."""
        assert call.module is not None
        named = (*call.module.named_parameters(), *call.module.named_buffers())
        found = {name: self.value_of(tensor) for name, tensor in named}
        return {name: part for name, part in found.items() if isinstance(part, Constant)}

    def _foreign(self, call: Call, parts: list[Part], given: list[Any], reason: str) -> list[Value]:
        """One layer; of several results each but the first is a layer that reads the first."""
        reads = [one for one in given if isinstance(one, Value)]
        constants = [one for one in given if isinstance(one, Constant)]
        if not constants and call.module is not None and list(call.module.parameters()):
            # Its name is for the call that reads its weights.
            self.hinted.discard(call.path)
            self.builder.step = replace(self.builder.step, hint="")
        first = self.builder.foreign(call.name, parts[0], reads, constants, reason)
        self.builder.step = replace(self.builder.step, hint="", macs=0)
        others = [self.builder.foreign(call.name, one, [first], [], reason) for one in parts[1:]]
        return [first, *others]

    def _step(self, call: Call) -> Step:
        """The module's path is the layer's name, once, if the module is one of torch's."""
        hint = ""
        of_torch = type(call.module).__module__.startswith("torch.nn.modules")
        if call.path and call.path not in self.hinted and (of_torch or _is_whole(call)):
            hint = call.path
            self.hinted.add(call.path)
        place = call.place
        line = place.line if place and place.file == self.built.file else 0
        return Step(hint, line, per_image.macs(call, self.pairs.get(id(call))))

    def _translated(self, value: Any) -> Any:
        """The value with what each tensor is in its place."""
        if isinstance(value, dict):
            return {key: self._translated(one) for key, one in value.items()}
        if isinstance(value, (tuple, list)) and not hasattr(value, "numel"):
            return [self._translated(one) for one in value] if _holds(value) else value
        return self.value_of(value) if next(tensors(value), None) is not None else value

    def as_it_is(self, value: Value) -> Value:
        """The value as the network's result: reshaped or padded last, it is a foreign layer."""
        if value.is_plain:
            return value
        self.builder.step = Step()
        seen = self.builder.entries[value.entry].layer
        part = Part(value.visible, isinstance(seen, Foreign) and seen.once)
        return self.builder.foreign("view", part, [value], [], "a view as the result")

    def remarks(self, graph: Graph, weights: Weights, outputs: int) -> Iterator[str]:
        """What is left out, and what is more than a network of ours has."""
        used = {source.name for source in weights.values()}
        trained = [source for source in self.known.values() if source.trained]
        idle = [source for source in trained if source.name not in used]
        if idle:
            count = sum(source.count for source in idle)
            yield (
                f"{counted(count, 'parameter takes', 'parameters take')} no part in the result and "
                f"{'is' if count == 1 else 'are'} not counted: "
                f"{', '.join(source.name for source in idle[:3])}"
                + (" …" if len(idle) > 3 else ".")
            )
        yield from per_image.mixed(self.mixed)
        if outputs > 1:
            yield f"It gives {outputs} results; {graph.output.name} is taken as the last layer."


# What gives a larger tensor than its value: the layers that read it do that themselves.
EXPANDING = ("expand", "expand_as")
# What a module's own parameters and buffers are called in Lanewise too.
_PARTS = ("weight", "bias", "running_mean", "running_var")


def _is_whole(call: Call) -> bool:
    """Whether the call is a module that was noted as a whole."""
    return call.module is not None and call.name == type(call.module).__name__


def _known(module: Any) -> Iterator[tuple[int, Source]]:
    """The `id` of each parameter and buffer, and what it is called. One that several modules share
    has one name."""
    for name, tensor in module.named_parameters():
        yield id(tensor), Source(name, tuple(tensor.shape))
    for name, tensor in module.named_buffers():
        yield id(tensor), Source(name, tuple(tensor.shape), trained=False)


def _flat(value: Any) -> Iterator[Value | Constant]:
    if isinstance(value, (Value, Constant)):
        yield value
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _flat(one)
    elif isinstance(value, dict):
        yield from _flat(list(value.values()))


def _holds(value: Any) -> bool:
    return next(tensors(value), None) is not None


def _apply(rule: Rule | None, builder: Builder, args: Any, kwargs: Any) -> Any:
    """The rule's answer; NoLayer where there is none, or the call does not have its form."""
    if rule is None:
        raise NoLayer("")
    try:
        bound = inspect.signature(rule).bind(builder, *args, **kwargs)
    except TypeError:
        raise NoLayer("called with settings that the notation does not have") from None
    if not isinstance(bound.args[1], (Value, list, tuple, Constant, int, float)):
        raise NoLayer("")
    return rule(*bound.args, **bound.kwargs)
