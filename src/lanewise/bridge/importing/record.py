"""One run of a PyTorch module on images without values, every call noted.

The images and weights lie on torch's device "meta": shapes and types are computed, numbers are not,
so a run takes milliseconds whatever the size of the network, and no memory for values. What the
module does to Python (loops, branches on sizes) has happened by then: the notes are a straight
list.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
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
    from torch.overrides import TorchFunctionMode
    from torch.utils.flop_counter import FlopCounterMode

    listener, counter = _Listener(notes, whole), FlopCounterMode(display=False)

    class Recorder(TorchFunctionMode):
        @contextmanager
        def listening(self) -> Iterator[None]:
            with listener.hooked(), counter, self:
                yield

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            return listener.function(func, args, kwargs or {}, counter.get_total_flops)

    return Recorder()


class _Listener:
    """Notes the modules that are entered and left, and the functions that are called in them."""

    def __init__(self, notes: Recording, whole: dict[str, Any]) -> None:
        self._notes, self._whole, self._inside_whole = notes, whole, 0
        self._names = {id(module): path for path, module in notes.module.named_modules()}

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Told by torch of every module."""
        from torch.nn.modules.module import (
            register_module_forward_hook,
            register_module_forward_pre_hook,
        )

        before = register_module_forward_pre_hook(self._enter)
        after = register_module_forward_hook(self._leave)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def _is_whole(self, module: nn.Module) -> bool:
        test = self._whole.get(type(module).__name__)
        return test is not None and test(module)

    def _enter(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        self._notes.stack.append((self._names.get(id(module), ""), module, given))
        self._inside_whole += self._is_whole(module)

    def _leave(self, module: nn.Module, given: tuple[Any, ...], result: Any) -> None:
        path, _, _ = self._notes.stack.pop()
        if self._is_whole(module):
            self._inside_whole -= 1
            if not self._inside_whole:
                place = here(sys._getframe())
                shapes = tuple(tuple(one.shape) for one in tensors(result))
                name = type(module).__name__
                call = Call(name, given, {}, result, shapes, path, module, place)
                self._notes.calls.append(call)

    def function(self, func: Any, args: Any, kwargs: Any, flops: Callable[[], int]) -> Any:
        """Call it; `flops` tells those of all calls so far."""
        name, before = _name_of(func), flops()
        try:
            result = _run(func, name, args, kwargs)
        except Exception as error:
            if self._notes.error is None:
                self._notes.error = error
                self._notes.failed = self._call(name, args, kwargs, None, 0)
            raise
        macs = (flops() - before) // 2
        made = result if name != "__setitem__" else args[0]
        if not self._inside_whole and next(tensors(made), None) is not None:
            self._notes.calls.append(self._call(name, args, kwargs, made, macs))
        return result

    def _call(self, name: str, args: Any, kwargs: Any, result: Any, macs: int) -> Call:
        stack = self._notes.stack
        path, module = stack[-1][:2] if stack else ("", None)
        shapes = tuple(tuple(one.shape) for one in tensors(result))
        place = here(sys._getframe(1))
        return Call(name, args, kwargs, result, shapes, path, module, place, macs)


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
