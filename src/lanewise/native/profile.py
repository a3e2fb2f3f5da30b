"""Where a training step's time goes, or a prediction's: each layer's milliseconds, GFLOP/s and
share of the peak.

A program compiled with `profile=True` reads the CPU's counter around every kernel it calls. It
works on random images in short rounds, the machine's peak is measured between the rounds, and the
round with the median time is told (`profile_rounds.py`).

GFLOP/s count the multiply–adds that a layer must do (each is two operations; taps on padding are
not done and not counted). A layer's milliseconds are those of all threads divided by their number,
so that the layers add up to the step, but for what threads spend between kernels. In a program
for single images the threads meet after each layer, and its milliseconds are those from one meeting
to the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lanewise.native.compile import compile_net
from lanewise.native.fuse import Operation, operations
from lanewise.native.latency.program import ImageProgram
from lanewise.native.peak import Peak
from lanewise.native.profile_rounds import measure
from lanewise.net.graph import Graph
from lanewise.net.layers import BatchNorm
from lanewise.size.cost import cost, layer_parameters

#: how the name of a kernel begins → the algorithm; the first that fits is meant
ALGORITHMS = (
    ("winograd", "Winograd"),
    ("matrix", "matrices"),  # of bf16, 16 × 16 sums at a time
    (
        "lane_weight_gradient",
        "in lanes",
    ),  # the kernels beside each other in the lanes, not the images
    ("conv_forward_pixels", "product"),  # 1×1: a matrix product over some pixels at a time
    ("conv_input_gradient_pixels", "product"),
    ("conv_weight_gradient_pixels", "product"),
    ("expand", "product"),  # 1×1, some rows at a time (`rules/inverted.py`)
    ("reached", "direct"),  # depthwise, what comes back to some rows (`rules/inverted_gradient.py`)
    ("conv_forward", "direct"),
    ("conv_input_gradient", "direct"),
    ("conv_weight_gradient", "direct"),
    ("conv_transposed", "direct"),
    ("partial", "direct"),
    ("linear", "product"),
    ("image_winograd", "Winograd"),
    ("image_transform", "Winograd"),
    ("image_conv", "direct"),
    ("image_columns", "direct"),
    ("image_depthwise", "direct"),
    ("image_linear", "product"),
    ("from_copies", "16 copies"),  # of one image, for the kernels of sixteen (`latency/rules.py`)
)
#: what the purposes of a layer's calls end with, behind its name
FORWARD = ("gather", "load", "spread", "forward", "forward (sixteen copies)")


@dataclass(frozen=True)
class Work:
    """Milliseconds and multiply–adds of something in one training step, and how it is computed.

    `algorithm` is that of what has been called, several joined by ` + `; "" where there is nothing
    to choose.
    """

    ms: float = 0.0
    multiply_adds: int = 0
    algorithm: str = ""

    @property
    def gflops(self) -> float:
        """GFLOP/s; 0 where there is nothing to multiply."""
        return 2 * self.multiply_adds / self.ms / 1e6 if self.ms and self.multiply_adds else 0.0


@dataclass(frozen=True)
class LayerWork:
    """A layer as the engine runs it; `kinds` are the words of the layers that were joined."""

    name: str
    kinds: tuple[str, ...]
    forward: Work
    backward: Work


@dataclass(frozen=True)
class Profile:
    """A net's training step on this machine, or a prediction of a batch (then nothing is backward);
    `others`: milliseconds that belong to no layer. `one_by_one`: one image after the other.
    `threads`: those that had something to do."""

    target: str
    cpu: str
    threads: int
    batch: int
    peak: Peak
    step_ms: float
    range_ms: tuple[float, float]
    layers: tuple[LayerWork, ...]
    others: dict[str, float] = field(default_factory=dict)
    training: bool = True
    one_by_one: bool = False

    @property
    def images_per_second(self) -> float:
        """Images trained on per second, or predicted."""
        return 1e3 * self.batch / self.step_ms

    @property
    def step(self) -> Work:
        """The whole step."""
        layers = self.layers
        adds = sum(one.forward.multiply_adds + one.backward.multiply_adds for one in layers)
        return Work(self.step_ms, adds)

    def share(self, work: Work) -> float:
        """Of the peak, 0 to 1."""
        return work.gflops / self.peak.best


def profile_net(
    graph: Graph,
    batch: int,
    threads: int | None = None,
    exact: bool = False,
    precision: str = "fp32",
    training: bool = True,
) -> Profile:
    """Train for some steps, or predict batches, and tell where the time went. Takes seconds.

    SizeError, NetError or EngineError as `compile_net`.
    """
    made = operations(graph, training)
    with compile_net(
        graph,
        training=training,
        threads=threads,
        profile=True,
        batch=None if training else batch,
        exact=exact,
        precision=precision,
    ) as program:
        rounds = measure(program, batch)
        spent = dict(rounds.spent_ms)
        found = _Layers(made, batch, program.facts.kernels)
        layers = tuple(found.of(operation, spent) for operation in made)
        waiting = 1e3 * rounds.median_seconds - sum(rounds.spent_ms.values())
        return Profile(
            target=program.target.name,
            cpu=program.target.cpu,
            threads=rounds.threads,
            batch=batch,
            peak=rounds.peak,
            step_ms=1e3 * rounds.median_seconds,
            range_ms=(1e3 * min(rounds.step_seconds), 1e3 * max(rounds.step_seconds)),
            layers=layers,
            others=spent | {"waiting": max(0.0, waiting)},
            training=training,
            one_by_one=isinstance(program, ImageProgram),
        )


def algorithm(kernels: Sequence[str]) -> str:
    """What kernels of these names compute with, in their order."""
    found = (
        next((told for begin, told in ALGORITHMS if name.startswith(begin)), "") for name in kernels
    )
    return " + ".join(dict.fromkeys(told for told in found if told))


class _Layers:
    """The layers of a net, with what was spent on them and what was called for them."""

    def __init__(
        self, made: tuple[Operation, ...], batch: int, called: Mapping[str, Sequence[str]]
    ) -> None:
        self._made, self._batch, self._called = made, batch, called

    def of(self, operation: Operation, spent: dict[str, float]) -> LayerWork:
        """The layer's part of what was spent; it is taken out of `spent`."""
        name = operation.name
        forward = sum(spent.pop(f"{name} {way}", 0.0) for way in FORWARD)
        backward = spent.pop(f"{name} gradient", 0.0)
        adds = self._batch * multiply_adds(operation)
        return LayerWork(
            name=operation.node,
            kinds=kinds(operation),
            forward=Work(forward, adds, self._algorithm(operation, *FORWARD)),
            backward=Work(
                backward, self._backward_adds(operation), self._algorithm(operation, "gradient")
            ),
        )

    def _algorithm(self, operation: Operation, *ways: str) -> str:
        called = (self._called.get(f"{operation.name} {way}", ()) for way in ways)
        return algorithm([kernel for kernels in called for kernel in kernels])

    def _backward_adds(self, operation: Operation) -> int:
        """What is multiplied in its gradient: a normalisation that is chained with the convolution
        before it takes over that one's."""
        if not self._algorithm(operation, "gradient"):
            return 0
        before = [one for one in self._made if one.name in operation.inputs]
        taken = [one for one in before if not self._algorithm(one, "gradient")]
        return sum(self._gradient_adds(one) for one in (operation, *taken))

    def _gradient_adds(self, operation: Operation) -> int:
        to_input = reaches_parameters(operation, self._made)
        return self._batch * multiply_adds(operation) * (2 if to_input else 1)


def kinds(operation: Operation) -> tuple[str, ...]:
    """The words of the layers that were joined."""
    adds = ["add"] * (isinstance(operation.layer, BatchNorm) and len(operation.inputs) > 1)
    after = ["relu"] * operation.relu + [operation.rectifier] * bool(operation.rectifier)
    return (operation.layer.word, *adds, *after)


def reaches_parameters(operation: Operation, made: tuple[Operation, ...]) -> bool:
    """Whether the gradient of its input is wanted: something above it learns."""
    return any(map(learns, _before(operation, made)))


def learns(operation: Operation) -> bool:
    """Whether it has parameters."""
    return bool(layer_parameters(operation.layer, *operation.input_shapes))


def multiply_adds(operation: Operation) -> int:
    """Of one image, forward; each of the two gradients has as many."""
    costs = cost(operation.layer, *operation.input_shapes)
    return costs.macs - costs.padded_macs


def _before(operation: Operation, made: tuple[Operation, ...]) -> list[Operation]:
    """The operations whose results it depends on."""
    by_name = {one.name: one for one in made}
    found: dict[str, Operation] = {}
    names = list(operation.inputs)
    while names:
        name = names.pop()
        if name not in found:
            found[name] = by_name[name]
            names += by_name[name].inputs
    return list(found.values())
