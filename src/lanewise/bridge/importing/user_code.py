"""A module from the user's own file: found, imported, built without memory for its weights.

Importing a file runs it. What it prints goes to standard error; what it raises becomes one message
with the line.
"""

from __future__ import annotations

import inspect
import os
import sys
import tokenize
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lanewise.bridge import require_torch
from lanewise.bridge.importing.places import Place, here, of_error, shown_path
from lanewise.errors import NetError, a_kind
from lanewise.net.elsewhere import nearest

if TYPE_CHECKING:
    from torch import nn

_SUFFIX = ".py"


@dataclass(frozen=True)
class Built:
    """A module, and where in the source each of its parts was made (by the part's `id`)."""

    module: nn.Module
    title: str
    file: str
    text: str = ""
    made_at: dict[int, Place] = field(default_factory=dict)


def is_python(spec: str) -> bool:
    """Whether a NET is `file.py` or `file.py:attribute`."""
    path, _, _ = split(spec)
    return path.endswith(_SUFFIX) and "\n" not in spec and ";" not in spec


def split(spec: str) -> tuple[str, str, str]:
    """(file, ":" or "", attribute)."""
    stem, dot, attribute = spec.rpartition(f"{_SUFFIX}:")
    return (stem + _SUFFIX, ":", attribute) if dot else (spec, "", "")


class Unmade(NetError):
    """The file or the making of the module raised: what, and where in which file."""

    reason: BaseException
    place: Place | None
    file: str


def made(spec: str, wanted: str, candidates: Callable[[ModuleType], list[str]]) -> Any:
    """What `file.py:attribute` names in another framework than PyTorch: an object, or what a
    function or class without arguments makes. NetError as `build`; `candidates` lists the names of
    a file's networks, each `wanted`."""
    path, _, attribute = split(spec)
    if not os.path.isfile(path):
        raise NetError(f"{path}: no such file; give file.py:model, a .net file or a zoo name")
    with _users_turn(path):
        source, _ = _imported(path, None)
        names = candidates(source)
        if not attribute and len(names) != 1:
            known = f"one of {', '.join(names)}" if names else f"{wanted} or a function making one"
            raise NetError(f"{path}: which network? Write {path}:NAME, NAME being {known}")
        found = _attribute(source, path, attribute or names[0], names)
        is_maker = inspect.isfunction(found) or isinstance(found, type)
        return _called(found, spec, path) if is_maker else found


def build(spec: str, *, weights: bool = False, text: str | None = None) -> Built:
    """The module that `file.py:attribute` names: an instance, a class, or a function without
    arguments. NetError with the line where the file or the module's making raises.

    weights=False: parameters lie on the device meta, without memory. `text`: what the file holds
    is not asked; this is what it would be.
    """
    require_torch()
    path, _, attribute = split(spec)
    if not os.path.isfile(path):
        raise NetError(f"{path}: no such file; give file.py:Net, a .net file or a zoo name")
    made_at: dict[int, Place] = {}
    with _users_turn(path), _noting(made_at), _memory(weights):
        source, text = _imported(path, text)
        attribute = attribute or _only_module(source, path)
        found = _attribute(source, path, attribute, _candidates(source))
        module = _instance(found, f"{path}:{attribute}")
    module = module.eval() if weights else module.to("meta").eval()
    title = f"{os.path.basename(path)}:{attribute}"
    return Built(module, title, os.path.abspath(path), text, made_at)


@contextmanager
def _users_turn(path: str) -> Iterator[None]:
    """The user's folder is where imports are looked for, and prints go to standard error."""
    folder = os.path.dirname(os.path.abspath(path))
    sys.path.insert(0, folder)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


def _imported(path: str, text: str | None) -> tuple[ModuleType, str]:
    """The file as a module, and the text that was run."""
    file = os.path.abspath(path)
    name = f"lanewise_user_{os.path.basename(path)[: -len(_SUFFIX)]}"
    spec = spec_from_file_location(name, file)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        if text is None:
            with tokenize.open(file) as opened:  # in the encoding that it declares
                text = opened.read()
        exec(compile(text, file, "exec"), vars(module))
    except (Exception, SystemExit) as error:
        raise raised(error, path, "importing the file") from None
    return module, text


def raised(error: BaseException, path: str, doing: str) -> Unmade:
    """`net.py:12: importing the file raises ValueError: …; …`"""
    place = of_error(error)
    where = str(place) if place else shown_path(path)
    told = str(error).strip().split("\n")[0]
    remedy = f"make `python {shown_path(path)}` run, with training under `if __name__ == …`"
    if "meta" in told:
        remedy = "sizes are found without values; read them under `if __name__ == …`, not here"
    found = Unmade(f"{where}: {doing} raises {type(error).__name__}: {told}; {remedy}")
    found.reason, found.place, found.file = error, place, os.path.abspath(path)
    return found


def _only_module(source: ModuleType, path: str) -> str:
    """The one network that the file defines itself."""
    found = _candidates(source)
    if len(found) == 1:
        return found[0]
    known = f"one of {', '.join(found)}" if found else "a torch.nn.Module or a function making one"
    raise NetError(f"{path}: which network? Write {path}:NAME, NAME being {known}")


def _candidates(source: ModuleType) -> list[str]:
    """Modules of the file, but those that `convert` writes in front of a network."""
    from torch import nn

    from lanewise.bridge.importing.modules import OWN

    own = {
        name: value
        for name, value in vars(source).items()
        if isinstance(value, nn.Module)
        or (
            isinstance(value, type)
            and issubclass(value, nn.Module)
            and value.__module__ == source.__name__
            and name not in (*OWN, "ChannelLayerNorm", "ChannelScale")
        )
    }
    instances = [name for name, value in own.items() if isinstance(value, nn.Module)]
    return instances or list(own)


def _attribute(source: ModuleType, path: str, attribute: str, names: list[str]) -> Any:
    found: Any = source
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = names or [n for n in vars(source) if not n.startswith("_")]
            hint = nearest(part, known) or f"it has {', '.join(known[:8]) or 'nothing'}"
            raise NetError(f"{path}: no {attribute} in this file; {hint.strip()}")
        found = getattr(found, part)
    return found


def _instance(found: Any, spec: str) -> nn.Module:
    from torch import nn

    path = split(spec)[0]
    if not isinstance(found, nn.Module) and callable(found):
        found = _called(found, spec, path)
    if type(found).__module__.startswith("keras."):
        raise NetError(
            f"{spec}: is a Keras model; give it a file that has `import keras` and no torch"
        )
    if not isinstance(found, nn.Module):
        raise NetError(
            f"{spec}: is {a_kind(found)}; name a torch.nn.Module, a class of "
            "them, or a function that makes one"
        )
    return found


def _called(maker: Any, spec: str, path: str) -> Any:
    """What a class or function without arguments makes."""
    _require_no_arguments(maker, spec)
    try:
        return maker()
    except (Exception, SystemExit) as error:
        raise raised(error, path, f"making {spec.rpartition(':')[2]}") from None


def _require_no_arguments(found: Any, spec: str) -> None:
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return
    plain = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    )
    missing = [p.name for p in parameters if p.default is p.empty and p.kind in plain]
    if missing:
        name = spec.rpartition(":")[2]
        given = ", ".join(f"{argument}=…" for argument in missing)
        raise NetError(
            f"{spec}: needs {', '.join(missing)}; give the file a function without arguments, like "
            f"`def net(): return {name}({given})`, and name that"
        )


@contextmanager
def _noting(made_at: dict[int, Place]) -> Iterator[None]:
    """Where each module is made: the user's call that leads to `nn.Module.__init__`."""
    from torch import nn

    original = nn.Module.__init__

    def noted(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        place = here(sys._getframe(1))
        if place is not None:
            made_at[id(self)] = place
        original(self, *args, **kwargs)

    nn.Module.__init__ = noted  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__init__ = original  # type: ignore[method-assign]


# Functions that make tensors whose numbers a network's making does not look at.
_FILLED = ("empty", "zeros", "ones", "full", "rand", "randn")


@contextmanager
def _memory(weights: bool) -> Iterator[None]:
    """Unless weights are wanted, new tensors have none; what is computed from numbers has."""
    from torch.overrides import TorchFunctionMode

    class Weightless(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = dict(kwargs or {})
            if getattr(func, "__name__", "") in _FILLED:
                kwargs["device"] = "meta"
            return func(*args, **kwargs)

    if weights:
        yield
        return
    with Weightless():
        yield
