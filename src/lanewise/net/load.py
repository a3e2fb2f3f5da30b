"""Where a description comes from: the zoo, a file, or the text itself."""

from __future__ import annotations

import os

from lanewise.errors import NetError
from lanewise.net.blocks import assignment, is_assignment
from lanewise.net.elsewhere import nearest
from lanewise.net.family import ZOO, set_parameters, zoo_entry, zoo_names
from lanewise.net.grammar import KIND_OF_WORD
from lanewise.net.graph import Graph
from lanewise.net.parse import parse

__all__ = ["load", "name_of", "read_text", "zoo_names"]

# Notation is short; more bytes than this are some other file.
_LARGEST_FILE = 1 << 20


def load(spec: str | os.PathLike[str], forgiving: bool = False) -> Graph:
    """The network that `spec` names: notation text, a zoo name, or a path to a .net file.

    Text is what holds a newline, `;` or `{`, or starts with a word of the notation. A zoo name wins
    over a file of that name (write `./lenet5` for the file). Settings of the network's parameters
    may follow a name or a path: `mobilenet-v1 width=0.75`. NetError where nothing is found or the
    text is wrong; `forgiving` as `parse` has it.
    """
    return parse(*read_text(spec), forgiving)


def read_text(spec: str | os.PathLike[str]) -> tuple[str, str]:
    """(text, origin) of a network: origin is the zoo name, the path, or "net" for notation.

    The text of a variant, or of a network with settings, has those values in its `parameters` line
    and stands alone.
    """
    if not isinstance(spec, str):
        path = os.fspath(spec)
        return _read(path, path), path
    if not spec.strip():
        raise NetError("the network is empty; give a zoo name, a .net file or notation")
    if _is_notation(spec):
        return spec, "net"
    name, settings = _split_settings(spec)
    found = None if _is_path(name) else zoo_entry(name)
    if found is None:
        _require_file(name)
        return _with_settings(_read(name, name), settings, name), _named(name, settings)
    text = _read(os.path.join(ZOO, f"{found.family}.net"), found.name)
    if found.settings or settings:
        text = _with_settings(text, {**found.settings, **settings}, found.name)
    return text, _named(found.name, settings)


def name_of(origin: str) -> str:
    """What a network is called: its zoo name, its file's name without .net, or "net"; with the
    settings that follow it."""
    name, settings = _parted(origin)
    return _named(os.path.basename(name).removesuffix(".net"), settings)


def _split_settings(spec: str) -> tuple[str, dict[str, str]]:
    """`resnet20 n=9` → (`resnet20`, {`n`: `9`}); a file may be called anything, `a b=1` too."""
    return (spec, {}) if os.path.exists(spec) else _parted(spec)


def _parted(spec: str) -> tuple[str, dict[str, str]]:
    words = spec.split()
    count = 0
    while count < len(words) - 1 and is_assignment(words[-1 - count]):
        count += 1
    if not count:
        return spec, {}
    name = " ".join(words[:-count])
    settings: dict[str, str] = {}
    for word in words[-count:]:
        key, value = assignment(word, name)
        if key in settings:
            raise NetError(f"{name}: {key} is given twice; keep one")
        settings[key] = value
    return name, settings


def _with_settings(text: str, settings: dict[str, str], name: str) -> str:
    return set_parameters(text, settings, name) if settings else text


def _named(name: str, settings: dict[str, str]) -> str:
    return " ".join([name, *(f"{key}={value}" for key, value in settings.items())])


def _is_notation(spec: str) -> bool:
    """Several lines, or one that begins with a word of the notation and goes on."""
    words = spec.replace(":", " : ").split()
    begins = words[0] in KIND_OF_WORD and (len(words) > 1 or words[0] == "input")
    return any(mark in spec for mark in "\n;{") or begins


def _is_path(name: str) -> bool:
    """Whether no network of the zoo can be meant."""
    return name.endswith(".net") or os.sep in name


def _require_file(spec: str) -> None:
    if os.path.exists(spec):
        return
    if _is_path(spec):
        raise NetError(f"{spec}: no such file; give a .net file, a zoo name or notation")
    raise NetError(
        f"{spec}: neither a network of the zoo nor a file; {nearest(spec, zoo_names())}"
        "`lanewise nets` lists the zoo"
    )


def _read(path: str, origin: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise NetError(f"{origin}: {error.strerror or error}") from None
    if len(content) > _LARGEST_FILE:
        raise NetError(f"{origin}: more than 1 MiB, so not a network's description")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NetError(f"{origin}: not text (byte {error.start} is not UTF-8)") from None
