"""Memory of a training step in fp32, by liveness: what the backward pass needs is kept until then.

Forwards, a layer stores its output; the backward pass goes through the layers in reverse and needs,
of each, what `SAVED` says. A value is freed after whoever needs it last, in either direction; the
gradient of a value lives from the last of its readers, where it is made first, to the layer that
made the value. Nothing is computed twice. A layer overwrites its input where neither pass needs
that any more, and the gradient of its output likewise.

Parameters, their gradients and a momentum of each stay all the time; scratch memory of a library's
kernels is not counted. Lanewise's own engine may need less: it takes a batch slice by slice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any

from lanewise.net.graph import Graph, Node
from lanewise.net.layers import (
    ACTIVATIONS,
    ADAPTIVE_POOLS,
    ELU,
    GELU,
    GLOBAL_POOLS,
    NOISES,
    WINDOW_POOLS,
    AdaptiveMax,
    Add,
    BatchNorm,
    ChannelPad,
    ChannelScale,
    ChannelShuffle,
    ChannelSplit,
    Concat,
    Conv,
    DepthwiseConv,
    Dropout,
    Flatten,
    Foreign,
    GlobalMax,
    GroupNorm,
    HardSwish,
    Input,
    L2Pool,
    Layer,
    LayerNorm,
    Linear,
    LocalResponseNorm,
    MaxPool,
    Multiply,
    PartialConv,
    PReLU,
    RadialBasis,
    SiLU,
    SpatialDropout,
    StochasticDepth,
    Subsample,
    TransposedConv,
    Upsample,
)
from lanewise.size.memory import BYTES_PER_VALUE, IN_PLACE, copies
from lanewise.size.windows import Shape


@dataclass(frozen=True)
class Saved:
    """What a layer's backward pass needs of the forward pass; `extra`: bytes for each value of its
    output, such as which value of a window was the largest."""

    inputs: bool = False
    output: bool = False
    extra: int = 0


_NOTHING, _INPUTS, _OUTPUT, _BOTH = (
    Saved(),
    Saved(inputs=True),
    Saved(output=True),
    Saved(True, True),
)
_PLACE = Saved(extra=BYTES_PER_VALUE)  # of the largest value, in a whole map

# Kind → what its gradients need.
SAVED: dict[type[Layer], Saved] = {
    Input: _NOTHING,
    **dict.fromkeys((Conv, DepthwiseConv, PartialConv, TransposedConv, Linear), _INPUTS),
    **dict.fromkeys((*WINDOW_POOLS, *ADAPTIVE_POOLS, *GLOBAL_POOLS), _NOTHING),
    **dict.fromkeys((AdaptiveMax, GlobalMax), _PLACE),
    MaxPool: Saved(extra=1),  # which tap of a window, up to 256
    L2Pool: _BOTH,
    Subsample: _INPUTS,
    Flatten: _NOTHING,
    RadialBasis: _INPUTS,
    # The sign or the value of the result tells the slope …
    **dict.fromkeys(ACTIVATIONS, _OUTPUT),
    # … but not of these.
    **dict.fromkeys((ELU, SiLU, GELU, HardSwish, PReLU), _INPUTS),
    **dict.fromkeys((BatchNorm, LayerNorm, GroupNorm, ChannelScale), _INPUTS),
    LocalResponseNorm: _BOTH,
    **dict.fromkeys((ChannelShuffle, ChannelSplit, ChannelPad, Upsample), _NOTHING),
    **dict.fromkeys(NOISES, _NOTHING),
    Dropout: Saved(extra=1),  # which values were kept
    **dict.fromkeys((SpatialDropout, StochasticDepth), _NOTHING),
    **dict.fromkeys((Add, Concat), _NOTHING),
    Multiply: _INPUTS,
    Foreign: _BOTH,
}


@dataclass(frozen=True)
class Owned:
    """How many values a network trains and keeps besides, and which of its layers train any."""

    params: int
    buffers: int
    learners: frozenset[str]


@dataclass(frozen=True)
class Memory:
    """Bytes of a network at a batch size. `kept`: what the forward pass leaves for the backward
    pass. `alive`: the most values and gradients of values at once in a training step; `inference`
    the most values at once without one."""

    parameters: int
    gradients: int
    momentum: int
    inference: int
    kept: int
    alive: int

    @property
    def predicting(self) -> int:
        """All bytes of inference."""
        return self.parameters + self.inference

    @property
    def training(self) -> int:
        """All bytes of a training step."""
        return self.parameters + self.gradients + self.momentum + self.alive

    def as_json(self) -> dict[str, Any]:
        """The part `memory` of the size report."""
        return {
            "parameters_bytes": self.parameters,
            "inference": {"activations_bytes": self.inference, "bytes": self.predicting},
            "training": {
                "activations_bytes": self.alive,
                "kept_bytes": self.kept,
                "gradients_bytes": self.gradients,
                "momentum_bytes": self.momentum,
                "bytes": self.training,
            },
        }


def infer_memory(
    graph: Graph,
    shapes: Mapping[str, Shape],
    own: Owned,
    inference: int,
    batch: int = 1,
) -> Memory:
    """The memory for `batch` images; `inference` is `peak_bytes` of the same."""
    step = _Step(graph, shapes, own.learners, batch)
    return Memory(
        parameters=BYTES_PER_VALUE * (own.params + own.buffers),
        gradients=BYTES_PER_VALUE * own.params,
        momentum=BYTES_PER_VALUE * own.params,
        inference=inference,
        kept=step.kept(),
        alive=step.peak(),
    )


@dataclass
class _Life:
    """So many bytes from moment `first` to moment `last`."""

    size: int
    first: int
    last: int


class _Step:
    """The lives of all values and gradients. Moment i is node i forwards; node i backwards is
    moment 2·N − 1 − i, and N the loss's gradient together with the last node."""

    def __init__(
        self,
        graph: Graph,
        shapes: Mapping[str, Shape],
        learners: frozenset[str],
        batch: int,
    ) -> None:
        self.nodes, self.shapes, self.batch = graph.nodes, shapes, batch
        self.index = {node.name: number for number, node in enumerate(graph.nodes)}
        self.readers: dict[str, list[Node]] = {node.name: [] for node in graph.nodes}
        for node in graph.nodes:
            for name in node.inputs:
                self.readers[name].append(node)
        self.learns = self._learning(learners)
        self.lives: list[_Life] = []
        self._values()
        self._gradients()
        self._extras()

    def kept(self) -> int:
        """Bytes alive between the two passes."""
        turn = len(self.nodes)
        return sum(life.size for life in self.lives if life.first < turn <= life.last)

    def peak(self) -> int:
        """The most bytes alive at one moment."""
        changes = [0] * (2 * len(self.nodes) + 1)
        for life in self.lives:
            changes[life.first] += life.size
            changes[life.last + 1] -= life.size
        return max(accumulate(changes))

    def _back(self, node: Node) -> int:
        return 2 * len(self.nodes) - 1 - self.index[node.name]

    def _bytes(self, node: Node) -> int:
        return copies(node.layer, self.batch) * BYTES_PER_VALUE * prod(self.shapes[node.name])

    def _learning(self, learners: frozenset[str]) -> set[str]:
        """The nodes whose value depends on a parameter: only their gradients are wanted."""
        learns: set[str] = set()
        for node in self.nodes:
            if node.name in learners or learns.intersection(node.inputs):
                learns.add(node.name)
        return learns

    def _saves(self, node: Node) -> Saved:
        """Nothing where no gradient passes."""
        return SAVED[type(node.layer)] if node.name in self.learns else _NOTHING

    def _values(self) -> None:
        owner: dict[str, _Life] = {}
        for moment, node in enumerate(self.nodes):
            if self._overwrites(node):
                life = owner[node.inputs[0]]
            else:
                life = _Life(self._bytes(node), moment, moment)
                self.lives.append(life)
            owner[node.name] = life
            saves = self._saves(node)
            needed = [*node.inputs] if saves.inputs else []
            for name in node.inputs:
                owner[name].last = max(owner[name].last, moment)
            for name in [*needed, *[node.name] * saves.output]:
                owner[name].last = max(owner[name].last, self._back(node))
        last = owner[self.nodes[-1].name]
        last.last = max(last.last, len(self.nodes))

    def _overwrites(self, node: Node) -> bool:
        """Whether the output takes its first input's place, which nobody needs as it was."""
        if not self._fits_in_place(node):
            return False
        if isinstance(node.layer, Flatten):
            return True
        before = self._node(node.inputs[0])
        while isinstance(before.layer, Flatten):
            before = self._node(before.inputs[0])
        return not self._saves(node).inputs and not self._saves(before).output

    def _node(self, name: str) -> Node:
        return self.nodes[self.index[name]]

    def _fits_in_place(self, node: Node) -> bool:
        if not node.inputs or not IN_PLACE[type(node.layer)]:
            return False
        first = node.inputs[0]
        alike = self._bytes(self._node(first)) == self._bytes(node)
        return alike and len(self.readers[first]) == 1

    def _gradients(self) -> None:
        """From the last node to the first; a gradient goes on in its place where it can."""
        life: dict[str, _Life] = {}
        for node in reversed(self.nodes):
            if node.name not in self.learns:
                continue
            moment = self._back(node)
            if node.name not in life:  # the network's output
                life[node.name] = _Life(self._bytes(node), moment, moment)
                self.lives.append(life[node.name])
            own = life[node.name]
            own.last = max(own.last, moment)
            for place, name in enumerate(node.inputs):
                if name not in self.learns or name in life:
                    continue
                if place == 0 and self._fits_in_place(node):
                    life[name] = own
                else:
                    life[name] = _Life(self._bytes(self._node(name)), moment, moment)
                    self.lives.append(life[name])

    def _extras(self) -> None:
        for node in self.nodes:
            extra = self._saves(node).extra
            if extra:
                size = self.batch * extra * prod(self.shapes[node.name])
                self.lives.append(_Life(size, self.index[node.name], self._back(node)))
