"""What is known of a call that failed: the call, what it read, and the source around it."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lanewise.bridge.doctor.edits import Edit, Source
from lanewise.bridge.importing.places import Place
from lanewise.bridge.importing.record import Call, Recording, tensors
from lanewise.bridge.importing.user_code import Built
from lanewise.net.layers import Input


@dataclass(frozen=True)
class Cause:
    """What is wrong, with its arithmetic, and the edits that may help: the likeliest first."""

    told: str
    remedies: tuple[tuple[Edit, ...], ...] = ()
    hint: str = ""


@dataclass(frozen=True)
class Case:
    """A failed call. `made` is the call that made its module, if it has one of PyTorch's."""

    built: Built
    notes: Recording
    call: Call
    source: Source
    image: Input
    names: dict[int, str] = field(default_factory=dict)

    @property
    def layer(self) -> str:
        """What to call the step: the module's path, or the function's name."""
        return self.call.path if self._of_torch() else self.call.name

    def _of_torch(self) -> bool:
        of_torch = type(self.call.module).__module__.startswith("torch.nn.modules")
        return bool(self.call.path) and of_torch

    @property
    def made_at(self) -> Place | None:
        """Where the module was made, in the user's file."""
        place = self.built.made_at.get(id(self.call.module)) if self._of_torch() else None
        return place if place and place.file == self.built.file else None

    @property
    def made(self) -> ast.Call | None:
        """The call that made the module."""
        return self.source.call_at(self.made_at)

    @property
    def node(self) -> ast.AST | None:
        """The call in `forward`."""
        place = self.call.place
        return self.source.node_at(place) if place and place.file == self.built.file else None

    @property
    def node_call(self) -> ast.Call | None:
        """The same, where it is written as a call."""
        return self.node if isinstance(self.node, ast.Call) else None

    def shape(self, position: int = 0, name: str = "input") -> tuple[int, ...]:
        """The shape of one of the call's tensors, () where there is none."""
        value = self.given(position, name)
        return tuple(value.shape) if hasattr(value, "shape") else ()

    def given(self, position: int, name: str, default: Any = None) -> Any:
        """What the call was given for a parameter."""
        if name in self.call.kwargs:
            return self.call.kwargs[name]
        args = self.call.args
        return args[position] if position < len(args) else default

    def producer(self, tensor: Any) -> Call | None:
        """The call that gave a tensor last."""
        for call in reversed(self.notes.calls):
            if any(one is tensor for one in tensors(call.result)):
                return call
        return None

    def before(self, names: Sequence[str]) -> list[Call]:
        """Earlier calls of these functions, the latest first."""
        return [call for call in reversed(self.notes.calls) if call.name in names]

    def made_by(self, call: Call) -> ast.Call | None:
        """The source of what made the module of another call, or of that call itself."""
        place = self.built.made_at.get(id(call.module))
        if place is None or not type(call.module).__module__.startswith("torch.nn.modules"):
            place = call.place
        return self.source.call_at(place) if place and place.file == self.built.file else None


def times(*numbers: int) -> str:
    """`16 × 5 × 5`."""
    return " × ".join(map(str, numbers))


def size(shape: Sequence[int]) -> str:
    """`16x5x5`."""
    return "x".join(map(str, shape))
