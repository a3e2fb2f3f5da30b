"""One run of a PyTorch module on images without values, every call noted.

The images and weights lie on torch's device "meta": shapes and types are computed, numbers are not,
so a run takes milliseconds whatever the size of the network, and no memory for values. What the
module does to Python (loops, branches on sizes) has happened by then: the notes are a straight
list.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lanewise.bridge.importing.places import Place, here

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Call:
    """A function that was called: what it was given, what it gave, and from where.

    `path` and `module` are the innermost module's; `macs` are for all images together.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    shapes: tuple[tuple[int, ...], ...]
    path: str
    module: nn.Module | None
    place: Place | None
    macs: int = 0


@dataclass
class Recording:
    """The notes of a run. Where the run failed, `failed` is the call that did, and the error."""

    module: nn.Module
    image: torch.Tensor
    calls: list[Call] = field(default_factory=list)
    result: Any = None
    failed: Call | None = None
    error: Exception | None = None
    stack: list[tuple[str, nn.Module, tuple[Any, ...]]] = field(default_factory=list)


def record(module: nn.Module, image: torch.Tensor, whole: dict[str, Any]) -> Recording:
    """Run `module(image)`, both on the device meta. `whole`: class names of modules that are noted
    as one call, each with a test of the module."""
    import torch

    notes = Recording(module, image)
    recorder = _recorder(notes, whole)
    with torch.no_grad(), recorder.listening():
        try:
            notes.result = module(image)
        except Exception as error:
            notes.error = error
    return notes


def tensors(value: Any) -> Iterator[Any]:
    """Every tensor in a value, through lists, tuples and dicts."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from tensors(one)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


def _recorder(notes: Recording, whole: dict[str, Any]) -> Any:
    """The mode that notes calls (its base class needs torch)."""
    import torch
    from torch.nn.modules.module import (
        register_module_forward_hook,
        register_module_forward_pre_hook,
    )
    from torch.overrides import TorchFunctionMode
    from torch.utils.flop_counter import FlopCounterMode

    names = {id(module): path for path, module in notes.module.named_modules()}

    class Recorder(TorchFunctionMode):
        counter = FlopCounterMode(display=False)
        inside_whole = 0

        @contextmanager
        def listening(self) -> Iterator[None]:
            before = register_module_forward_pre_hook(self.enter)
            after = register_module_forward_hook(self.leave)
            try:
                with self.counter, self:
                    yield
            finally:
                before.remove()
                after.remove()

        def is_whole(self, module: nn.Module) -> bool:
            test = whole.get(type(module).__name__)
            return test is not None and test(module)

        def enter(self, module: nn.Module, given: tuple[Any, ...]) -> None:
            notes.stack.append((names.get(id(module), ""), module, given))
            self.inside_whole += self.is_whole(module)

        def leave(self, module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
            path, _, _ = notes.stack.pop()
            if self.is_whole(module):
                self.inside_whole -= 1
                if not self.inside_whole:
                    place = here(sys._getframe())
                    shapes = tuple(tuple(one.shape) for one in tensors(result))
                    name = type(module).__name__
                    notes.calls.append(Call(name, given, {}, result, shapes, path, module, place))

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            name = _name_of(func)
            before = self.counter.get_total_flops()
            try:
                result = _run(func, name, args, kwargs)
            except Exception as error:
                if notes.error is None:
                    notes.error = error
                    notes.failed = self.call(name, args, kwargs, None, 0)
                raise
            flops = self.counter.get_total_flops() - before
            made = result if name != "__setitem__" else args[0]
            if not self.inside_whole and next(tensors(made), None) is not None:
                notes.calls.append(self.call(name, args, kwargs, made, flops // 2))
            return result

        def call(self, name: str, args: Any, kwargs: Any, result: Any, macs: int) -> Call:
            path, module = notes.stack[-1][:2] if notes.stack else ("", None)
            shapes = tuple(tuple(one.shape) for one in tensors(result))
            place = here(sys._getframe(1))
            return Call(name, args, kwargs, result, shapes, path, module, place, macs)

    assert torch is not None
    return Recorder()


def _name_of(func: Any) -> str:
    """The function's name, the same for functions, methods and those that work in place."""
    name = str(getattr(func, "__name__", func))
    if name == "__get__":
        return str(getattr(getattr(func, "__self__", None), "__name__", name))
    return name if name.startswith("__") else name.rstrip("_")


def _run(func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """The call itself, on the device meta whatever device the program names."""
    import torch

    if name in ("cuda", "cpu"):
        return args[0]
    if name == "to":
        dtypes = [one for one in (*args[1:], *kwargs.values()) if isinstance(one, torch.dtype)]
        return args[0].to(dtypes[0]) if dtypes else args[0]
    return func(*_on_meta(args), **_on_meta(kwargs))


def _on_meta(value: Any) -> Any:
    """Tensors that the program keeps elsewhere (masks, constants) beside the images."""
    import torch

    if isinstance(value, torch.Tensor):
        return value if value.is_meta or not value.dim() else value.detach().to("meta")
    if isinstance(value, (tuple, list)) and any(isinstance(v, torch.Tensor) for v in value):
        return type(value)(map(_on_meta, value))
    if isinstance(value, dict):
        return {key: _on_meta(one) for key, one in value.items()}
    return value
