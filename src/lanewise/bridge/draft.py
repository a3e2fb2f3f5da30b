"""A torch module in the making, as the rules of `bridge.rules` see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from keyword import iskeyword
from typing import TYPE_CHECKING, Any, TypeAlias

from lanewise.errors import NetError
from lanewise.size.shapes import Shape

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

Mask: TypeAlias = "Callable[[str], torch.Tensor]"
Watch: TypeAlias = "Callable[[str, torch.Tensor], torch.Tensor]"
Read: TypeAlias = "tuple[fx.Node, Shape]"
Rule: TypeAlias = "Callable[..., fx.Node]"


@dataclass
class Draft:
    """The module in the making: `root` holds the submodules, `tape` the order of calls."""

    root: nn.Module
    tape: fx.Graph
    dropout_mask: Mask | None = None

    def module(self, name: str, module: nn.Module, value: fx.Node) -> fx.Node:
        """Append `module`, called `name` in the state dict, applied to `value`."""
        if iskeyword(name):
            raise NetError(f"layer {name}: Python has that word already; use another name")
        if hasattr(self.root, name):
            raise NetError(f"layer {name}: torch.nn.Module has that word already; use another name")
        self.root.add_module(name, module)
        return self.tape.call_module(name, (value,))

    def call(self, function: Callable[..., Any], *arguments: Any) -> fx.Node:
        """Append a call of a named function."""
        return self.tape.call_function(function, arguments)

    def ask(self, caller: Callable[..., Any], *arguments: Any) -> fx.Node:
        """Append a call of something the caller gave; torch.fx wants a function with a home."""

        def asked(*values: Any) -> Any:
            return caller(*values)

        return self.tape.call_function(asked, arguments)
