"""Where a description comes from: the zoo, a file, or the text itself."""

from __future__ import annotations

import os

from lanewise.errors import NetError
from lanewise.net.grammar import KIND_OF_WORD
from lanewise.net.graph import Graph
from lanewise.net.parse import nearest, parse

_ZOO = os.path.join(os.path.dirname(__file__), "zoo")
# Notation is short; more bytes than this are some other file.
_LARGEST_FILE = 1 << 20


def load(spec: str | os.PathLike[str]) -> Graph:
    """The network that `spec` names: notation text, a zoo name, or a path to a .net file.

    Text is what holds a newline or `;`, or starts with `input`. A zoo name wins over a file of that
    name (write `./lenet5` for the file). NetError where nothing is found or the text is wrong.
    """
    return parse(*read_text(spec))


def read_text(spec: str | os.PathLike[str]) -> tuple[str, str]:
    """(text, origin) of a network: origin is the zoo name, the path, or "net" for notation."""
    if isinstance(spec, str):
        if not spec.strip():
            raise NetError("the network is empty; give a zoo name, a .net file or notation")
        if _is_notation(spec):
            return spec, "net"
        if spec in zoo_names():
            return _read(os.path.join(_ZOO, f"{spec}.net"), spec), spec
        _require_file(spec)
    path = os.fspath(spec)
    return _read(path, path), path


def zoo_names() -> list[str]:
    """The published networks that come with Lanewise, sorted."""
    return sorted(name.removesuffix(".net") for name in os.listdir(_ZOO) if name.endswith(".net"))


def name_of(origin: str) -> str:
    """What a network is called: its zoo name, its file's name without .net, or "net"."""
    return os.path.basename(origin).removesuffix(".net")


def _is_notation(spec: str) -> bool:
    """Several lines, or one that begins with a word of the notation and goes on."""
    words = spec.replace(":", " : ").split()
    begins = words[0] in KIND_OF_WORD and (len(words) > 1 or words[0] == "input")
    return "\n" in spec or ";" in spec or begins


def _require_file(spec: str) -> None:
    if os.path.exists(spec):
        return
    if spec.endswith(".net") or os.sep in spec:
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
