"""`file.py:attribute` → its network."""

from __future__ import annotations

from lanewise.bridge.doctor.healing import ails, diagnosed, explain, undone
from lanewise.bridge.importing.network import Imported, interpret, run_on
from lanewise.bridge.importing.user_code import Built, Unmade, build
from lanewise.errors import NetError
from lanewise.net.layers import Input


def import_from(spec: str, image: Input | None) -> Imported:
    """The network of a module for images of this size; NetError where there is none, or where it
    cannot run on them."""
    try:
        built = build(spec)
    except Unmade as error:
        raise undone(error, spec, image) or error from None
    if image is None:
        channels = _channels(built)
        raise NetError(
            f"{spec}: a module does not say how large its image is; add --input "
            f"{channels}x224x224, or the size that it is made for"
        )
    return import_module(built, image, spec)


def import_module(built: Built, image: Input, spec: str) -> Imported:
    """The graph of a module for images of this size. NetError, with the line and a tried edit where
    one is known, where the module cannot run on them."""
    notes = run_on(built, image)
    if ails(notes):
        found = explain(built, notes, image, spec) if notes.error is not None else None
        found = found or diagnosed(built, notes, image, spec)
        if found is not None:
            raise found from None
    return interpret(built, notes, image)


def _channels(built: Built) -> int:
    """What the first convolution reads, or 3."""
    for module in built.module.modules():
        channels = getattr(module, "in_channels", None)
        if isinstance(channels, int):
            return channels
    return 3
