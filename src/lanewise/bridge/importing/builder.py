"""A graph in the making: layers are added in the order in which they are computed.

Names are given at the end, when it is known which values the result needs.
"""

from __future__ import annotations

import keyword
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod

from lanewise.bridge.importing.per_image import Part
from lanewise.bridge.importing.values import Constant, Source, Value
from lanewise.errors import SizeError
from lanewise.net import layers as kinds
from lanewise.net.check import NAME
from lanewise.net.graph import Graph, Node
from lanewise.net.layers import Layer
from lanewise.size.shapes import SHAPES, Shape


class NoLayer(Exception):
    """A step has no layer in the notation; the message says what of it."""


@dataclass(frozen=True)
class Step:
    """Where a step of the imported network stands: the name it has there, and the line."""

    hint: str = ""
    line: int = 0
    macs: int = 0


@dataclass(frozen=True)
class Entry:
    """A layer, the entries it reads, and which source each of its parameters is."""

    layer: Layer
    inputs: tuple[int, ...]
    shape: Shape
    step: Step
    sources: Mapping[str, Source] = field(default_factory=dict)


# Layers that give a value for each value, whatever its place.
_POINTWISE = (*kinds.ACTIVATIONS, kinds.Dropout, kinds.StochasticDepth)


# Layers over values of any number of axes.
_ANY_RANK = (*_POINTWISE, kinds.Add, kinds.Multiply)


class Builder:
    """Adds layers; `step` is the step of the imported network that is being looked at, and `images`
    how many images its tensors hold."""

    def __init__(self, images: int) -> None:
        self.images = images
        self.entries: list[Entry] = []
        self.step = Step()

    def add(self, layer: Layer, *reads: Value, **sources: Constant | None) -> Value:
        """The value of a layer over values as they are; NoLayer where one is seen otherwise, or
        where the sizes cannot be. `sources` are its parameters: name → constant."""
        inputs = [self.entry_of(read) for read in reads]
        given = {name: _source(value) for name, value in sources.items() if value is not None}
        shapes = [self.entries[entry].shape for entry in inputs]
        if not isinstance(layer, _ANY_RANK) and any(len(s) not in (1, 3) for s in shapes):
            raise NoLayer(f"{layer.word} over values that are neither maps nor features")
        try:
            shape = SHAPES[type(layer)](layer, *shapes)
        except SizeError as error:
            raise NoLayer(str(error)) from None
        return self._append(Entry(layer, tuple(inputs), shape, self.step, given))

    def pointwise(self, layer: Layer, read: Value) -> Value:
        """The value of a layer that works value by value, in whatever form it is seen."""
        if read.border is not None:
            raise NoLayer(f"{layer.word} over padding")
        return self._over(layer, read)

    def _over(self, layer: Layer, read: Value, **sources: Constant) -> Value:
        """A layer that keeps the shape, over the layer's value itself."""
        inner = Value.plain(read.entry, read.shape)
        return self.add(layer, inner, **sources).seen_as(read)

    def normalised(self, layer: Layer, read: Value, **sources: Constant) -> Value:
        """A layer over the channels of a value that is seen with its channels last."""
        if not read.is_channels_last:
            raise NoLayer(f"{layer.word} over another axis than the channels")
        return self._over(layer, read, **sources)

    def foreign(
        self,
        operator: str,
        part: Part | Shape,
        reads: Iterable[Value],
        constants: Iterable[Constant],
        reason: str = "",
    ) -> Value:
        """A step that has no layer here, with the shape and the parameters that it has there."""
        shape, once = (part.shape, part.once) if isinstance(part, Part) else (part, False)
        inputs = tuple(dict.fromkeys(read.entry for read in reads))
        sources = {source.name: source for value in constants for source in value.sources}
        trained = [source for source in sources.values() if source.trained]
        kept = [source for source in sources.values() if not source.trained]
        layer = kinds.Foreign(
            operator,
            shape,
            reason,
            tuple((source.name, source.shape) for source in trained),
            tuple((source.name, source.shape) for source in kept),
            self.step.macs,
            once,
        )
        return self._append(Entry(layer, inputs, shape, self.step, sources))

    def _append(self, entry: Entry) -> Value:
        self.entries.append(entry)
        return Value.plain(len(self.entries) - 1, entry.shape)

    def entry_of(self, read: Value) -> int:
        """The entry whose value this is, as it is; NoLayer where it is seen in another form."""
        if read.is_plain:
            return read.entry
        if read.visible == (*read.shape, 1, 1) and len(read.shape) == 1:
            return self._as_pixels(read.entry)
        raise NoLayer("its input is seen in another form than C×H×W")

    def reshaped(self, read: Value, dims: Shape) -> Value:
        """The value seen in another shape: flattened, or as maps again."""
        if read.border is not None or prod(dims) != prod(read.shape):
            raise NoLayer("a reshape of padded maps, or across images")
        if not read.in_order:
            return self._shuffled(read, dims)
        if len(dims) == 1 and len(read.shape) != 1:
            return self.add(kinds.Flatten(), Value.plain(read.entry, read.shape))
        return Value(read.entry, read.shape, dims, tuple(range(len(dims))))

    def _shuffled(self, read: Value, dims: Shape) -> Value:
        """Groups × channels, swapped and joined again: a shuffle of channels."""
        groups, *rest = read.order
        is_table = len(read.order) > 2 and (groups, rest[0]) == (1, 0)
        if is_table and rest[1:] == list(range(2, len(read.order))) and dims == read.shape:
            shuffle = kinds.ChannelShuffle(read.dims[0])
            if read.dims[0] * read.dims[1] == read.shape[0]:
                return self.add(shuffle, Value.plain(read.entry, read.shape))
        if read.visible == dims:
            return read
        raise NoLayer("a reshape after axes were exchanged")

    def _as_pixels(self, entry: int) -> int:
        """The entry with flat features computed as C×1×1 maps, as squeeze and excitation does."""
        made = self.entries[entry]
        if isinstance(made.layer, kinds.Flatten):
            before = made.inputs[0]
            if self.entries[before].shape == (*made.shape, 1, 1):
                return before
        elif isinstance(made.layer, (kinds.Linear, kinds.BatchNorm, *_POINTWISE)):
            layer: Layer = made.layer
            if isinstance(layer, kinds.Linear):
                layer = kinds.Conv(layer.features, (1, 1), bias=layer.bias)
            inputs = (self._as_pixels(made.inputs[0]),)
            shape = (*made.shape, 1, 1)
            return self._append(Entry(layer, inputs, shape, made.step, made.sources)).entry
        raise NoLayer("features that become maps again")

    # The graph ------------------------------------------------------------------------------------

    def graph(self, outputs: Iterable[Value], origin: str, title: str) -> tuple[Graph, Weights]:
        """The graph of what the outputs need, and where its parameters are in the source: our name
        → theirs. The value that is computed last is the network's."""
        order = sorted(self._needed([value.entry for value in outputs]))
        names = self._names(order)
        nodes = self._nodes(order, names)
        weights = {
            f"{names[index]}.{name}": source
            for index in order
            for name, source in self.entries[index].sources.items()
        }
        return Graph(nodes, origin, title), weights

    def _needed(self, wanted: list[int]) -> set[int]:
        alive: set[int] = set()
        while wanted:
            index = wanted.pop()
            if index not in alive:
                alive.add(index)
                wanted += self.entries[index].inputs
        return alive | {0}

    def _names(self, order: list[int]) -> dict[int, str]:
        """The names of the imported network where they can be, else those of the notation."""
        hints = {index: _as_name(self.entries[index].step.hint) for index in order}
        taken: Counter[str] = Counter()
        names: dict[int, str] = {0: kinds.Input.word}
        used = {kinds.Input.word}
        for index in order:
            if hints[index] and hints[index] not in used and index:
                names[index] = hints[index]
                used.add(hints[index])
        for index in order:
            word = _word(self.entries[index].layer)
            taken[word] += 1
            if index not in names:
                names[index] = _free(f"{word}{taken[word]}", used)
                used.add(names[index])
        return names

    def _nodes(self, order: list[int], names: dict[int, str]) -> tuple[Node, ...]:
        owner: dict[str, str] = {}
        nodes = []
        for index in order:
            entry = self.entries[index]
            shares, shared = _shared(entry, owner)
            inputs = tuple(names[other] for other in entry.inputs)
            line = entry.step.line
            nodes.append(Node(names[index], entry.layer, inputs, line, (), shares, shared))
            for source in entry.sources.values():
                owner.setdefault(source.name, names[index])
        return tuple(nodes)


Weights = dict[str, Source]


def _source(value: Constant) -> Source:
    if len(value.sources) != 1 or value.sources[0].count != prod(value.shape):
        raise NoLayer("a parameter that is computed from others")
    return value.sources[0]


def _shared(entry: Entry, owner: Mapping[str, str]) -> tuple[str, int]:
    """(the first layer that has some of its parameters too, how many of them)."""
    common = [s for s in entry.sources.values() if s.trained and s.name in owner]
    return (owner[common[0].name], sum(s.count for s in common)) if common else ("", 0)


def _as_name(hint: str) -> str:
    """`features.0.conv` → `features_0_conv`; "" where that is no name of the notation."""
    name = hint.replace(".", "_").replace("/", "_").replace("-", "_").strip("_")
    return name if NAME.fullmatch(name) and not keyword.iskeyword(name) else ""


def _word(layer: Layer) -> str:
    if isinstance(layer, kinds.Foreign):
        return _as_name(layer.operator) or layer.word
    return type(layer).word


def _free(name: str, used: set[str]) -> str:
    number = 2
    free = name
    while free in used:
        free, number = f"{name}_{number}", number + 1
    return free
