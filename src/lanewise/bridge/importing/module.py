"""`file.py:attribute` → its network."""

from __future__ import annotations

from lanewise.bridge.importing.network import Imported, import_module
from lanewise.bridge.importing.user_code import Built, build
from lanewise.errors import NetError
from lanewise.net.layers import Input


def import_from(spec: str, image: Input | None) -> Imported:
    """The network of a module for images of this size; NetError where there is none, or where it
    cannot run on them."""
    built = build(spec)
    if image is None:
        channels = _channels(built)
        raise NetError(
            f"{spec}: a module does not say how large its image is; add --input "
            f"{channels}x224x224, or the size that it is made for"
        )
    return import_module(built, image)


def _channels(built: Built) -> int:
    """What the first convolution reads, or 3."""
    for module in built.module.modules():
        channels = getattr(module, "in_channels", None)
        if isinstance(channels, int):
            return channels
    return 3
