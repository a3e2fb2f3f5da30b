"""Who may stand in whose place: parts of concatenations and splits, gradients that are passed on.

The value of a concatenation holds those of its inputs end to end (channels are the outermost axis
of a slice), so an input needs no place of its own, and nothing is copied; and a part of a split is
part of the value that is split. A sum passes its gradient to its summands as it is, so theirs may
be the same bytes, until somebody adds to them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lanewise.native.fuse import Operation, consumers
from lanewise.native.nest import LANES
from lanewise.net.layers import ChannelSplit, Concat, Conv, Linear

if TYPE_CHECKING:
    from lanewise.native.plan import Slot

VECTOR_BYTES = 4 * LANES


def value_places(operations: tuple[Operation, ...]) -> dict[str, tuple[str, int]]:
    """Name → (the outermost value that holds it, elements before it), where one does.

    Full connections read and write several slices at once, end to end, so what they touch keeps a
    place of its own. A value that two concatenations read stands in the first; the second copies.
    """
    wide = {
        name
        for operation in operations
        if isinstance(operation.layer, Linear)
        for name in (operation.name, *operation.inputs)
    }
    made = {operation.name: operation for operation in operations}
    inside: dict[str, tuple[str, int]] = {}
    for operation in operations:
        layer, before = operation.layer, 0
        taken = {operation.name, *operation.inputs} & wide
        # One whose source is not among the operations has been made before.
        if isinstance(layer, ChannelSplit) and operation.inputs and not taken:
            inside[operation.name] = (operation.inputs[0], (layer.part - 1) * operation.elements)
        if not isinstance(layer, Concat):
            continue
        for name in operation.inputs:
            if name not in inside and name not in wide and operation.inputs.count(name) == 1:
                inside[name] = (operation.name, before)
            before += made[name].elements
    return {name: _outermost(name, inside) for name in inside}


def _outermost(name: str, inside: dict[str, tuple[str, int]]) -> tuple[str, int]:
    before = 0
    while name in inside:
        name, more = inside[name]
        before += more
    return name, before


@dataclass(frozen=True)
class _Share:
    """A value whose gradient is these bytes; `adds`: other readers of it will add to them, `masks`:
    a joined ReLU will zero some of them when the value's own turn comes."""

    name: str
    place: str
    start: int
    stop: int
    adds: bool
    masks: bool

    def meets(self, other: _Share) -> bool:
        """Whether both have bytes in common."""
        return self.place == other.place and self.start < other.stop and other.start < self.stop


@dataclass
class GradientSharing:
    """Decides whether a gradient that is passed on may stay where it is.

    Gradients are worked out from the last operation to the first. A value with one reader only
    reads the bytes; one with several is added to by those that come before. So bytes that somebody
    adds to take no further readers, and to become such a somebody a value must come after all who
    still have to read them.
    """

    operations: tuple[Operation, ...]
    _shares: list[_Share] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._position = {operation.name: i for i, operation in enumerate(self.operations)}
        self._uses = consumers(self.operations)
        self._elements = {operation.name: operation.elements for operation in self.operations}
        self._relu = {operation.name for operation in self.operations if operation.relu}
        self._last_reader: dict[str, list[int]] = {}
        for i, operation in enumerate(self.operations):
            for name in operation.inputs:
                self._last_reader.setdefault(name, []).append(i)

    def may_share(self, operation: Operation, source: str, place: Slot) -> bool:
        """Whether `place`, in the gradient of an operation that is done with it, may become the
        gradient of its input; if so that is noted."""
        if operation.inputs.count(source) > 1:
            return False  # it would be added to before the operation's other inputs have read it
        now = self._position[operation.name]
        stop = place.offset + self._elements[source] * VECTOR_BYTES
        adds, masks = self._uses[source] > 1, source in self._relu
        wanted = _Share(source, place.name, place.offset, stop, adds, masks)
        waiting = [
            share
            for share in self._shares
            if self._position[share.name] < now and share.meets(wanted)
        ]
        if any(share.adds for share in waiting):
            return False
        others = [i for i in self._last_reader[source] if i < now]
        early = any(self._position[share.name] <= max(others, default=-1) for share in waiting)
        if wanted.adds and early:
            return False
        if any(self._masks_too_early(wanted, share) for share in waiting):
            return False
        self._shares.append(wanted)
        return True

    def stays(self, name: str, place: Slot) -> bool:
        """Whether `place`, the gradient of an operation whose turn it is, is changed by nobody from
        now on: of those whose turn is still to come none has these bytes but a convolution, which
        reads them and passes nothing on."""
        stop = place.offset + self._elements[name] * VECTOR_BYTES
        mine = _Share(name, place.name, place.offset, stop, adds=False, masks=False)
        return not any(
            share.meets(mine) and not self._only_reads(share)
            for share in self._shares
            if self._position[share.name] < self._position[name]
        )

    def _only_reads(self, share: _Share) -> bool:
        layer = self.operations[self._position[share.name]].layer
        return isinstance(layer, Conv) and not (share.adds or share.masks)

    def _masks_too_early(self, one: _Share, other: _Share) -> bool:
        """Whether the first of the two whose turn comes masks what the second still reads."""
        first = max(one, other, key=lambda share: self._position[share.name])
        return first.masks
