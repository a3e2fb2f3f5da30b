"""What else a convolution does with its results on their way to memory.

A sum with what another branch has given, or a max pool of 2 × 2, that alone reads a convolution is
taken along in its store: the results are in registers there. The sum's or pool's own rule then
finds its work done.
"""

from __future__ import annotations

from dataclasses import dataclass

from lanewise.native.fuse import Operation
from lanewise.native.plan import Place
from lanewise.native.planner import Planner
from lanewise.native.rules import gating
from lanewise.native.rules.pooling import argument_of
from lanewise.native.rules.windows import window
from lanewise.net.layers import Add, Conv, MaxPool


@dataclass(frozen=True)
class Store:
    """`written`: whose value is written, the convolution's own or its only reader's; `summand`:
    what is added; `pool`: whether the largest of each 2 × 2 are kept."""

    written: Operation
    summand: str = ""
    pool: bool = False

    def options(self, plan: Planner) -> dict[str, bool]:
        """Those of a `Result` that differ from the plain one's, and its ReLU."""
        more = {"plus": bool(self.summand), "pool": self.pool}
        more["argument"] = self.pool and plan.training
        return {"relu": self.written.relu} | {name: True for name, on in more.items() if on}

    def places(self, plan: Planner) -> list[Place]:
        """[summand], [argument], target."""
        found: list[Place] = [plan.value(self.summand)] if self.summand else []
        if self.pool and plan.training:
            found.append(argument_of(plan, self.written))
        return [*found, plan.value(self.written.name)]


def store_of(plan: Planner, operation: Operation) -> Store:
    """What may be taken along; of maps that are kept as bf16 nothing, which would round before."""
    readers = plan.readers.get(operation.name, ())
    plain = operation.relu or not isinstance(operation.layer, Conv) or plan.precision != "fp32"
    if plain or len(readers) != 1:
        return Store(operation)
    reader = readers[0]
    if _pools(reader):
        return Store(reader, pool=True)
    summand = _summand(plan, operation, reader)
    return Store(reader, summand=summand) if summand else Store(operation)


def _pools(reader: Operation) -> bool:
    """Whether this is a max pool of 2 × 2 whose windows cover an even map."""
    if not isinstance(reader.layer, MaxPool):
        return False
    moves = window(reader)
    plain = moves.kernel == moves.stride == (2, 2) and moves.pad == ((0, 0), (0, 0))
    return plain and all(n % 2 == 0 for n in reader.input_shapes[0][1:])


def _summand(plan: Planner, operation: Operation, reader: Operation) -> str:
    """The other one of a sum of two, if it is there before the convolution."""
    others = [name for name in reader.inputs if name != operation.name]
    two = isinstance(reader.layer, Add) and len(reader.inputs) == 2 and len(others) == 1
    if not two or gating.broadcasts(reader):
        return ""
    order = [one.name for one in plan.operations]
    return others[0] if order.index(others[0]) < order.index(operation.name) else ""
