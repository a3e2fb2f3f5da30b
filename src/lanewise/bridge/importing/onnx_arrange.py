"""ONNX operators that only arrange values, and how the settings of all are read. Rules: see
`onnx_rules`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lanewise.bridge.importing import arrange, functions
from lanewise.bridge.importing.builder import Builder, NoLayer
from lanewise.bridge.importing.values import Constant, Value

Given = list[Any]
Settings = dict[str, Any]
Rule = Callable[[Builder, Given, Settings], Any]


def optional(given: Given, place: int) -> Any:
    return given[place] if place < len(given) else None


def numbers(given: Given, place: int) -> Any:
    """The numbers of a constant input; None where it is left out."""
    one = optional(given, place)
    if one is None:
        return None
    if not isinstance(one, Constant) or one.numbers is None:
        raise NoLayer("a setting that is computed from the image")
    return one.numbers.tolist()


def axes_of(given: Given, settings: Settings, place: int, name: str = "axes") -> list[int] | None:
    """Axes, that were a setting in old opsets and are an input in new ones."""
    found = settings[name] if name in settings else numbers(given, place)
    return found if found is None or isinstance(found, list) else list(found)


def _concat(b: Builder, given: Given, settings: Settings) -> Value:
    return functions.cat(b, given, settings["axis"])


def _flatten(b: Builder, given: Given, settings: Settings) -> Value:
    if settings.get("axis", 1) != 1:
        raise NoLayer("a flatten that joins images")
    return arrange.flatten(b, given[0], 1)


def _reshape(b: Builder, given: Given, settings: Settings) -> Value:
    """0 stands for the axis as it is."""
    wanted = numbers(given, 1)
    whole = [b.images, *given[0].visible]
    kept = [whole[i] if n == 0 and i < len(whole) else n for i, n in enumerate(wanted)]
    if kept[:1] == [-1] and b.images:
        rest = -1
        for number in kept[1:]:
            rest *= number
        kept[0] = b.images if rest < 0 else kept[0]
    return arrange.reshape(b, given[0], kept)


def _transpose(b: Builder, given: Given, settings: Settings) -> Value:
    whole = list(range(len(given[0].visible) + 1))
    return arrange.permute(b, given[0], settings.get("perm", whole[::-1]))


def _squeeze(b: Builder, given: Given, settings: Settings) -> Value:
    return arrange.squeeze(b, given[0], axes_of(given, settings, 1))


def _unsqueeze(b: Builder, given: Given, settings: Settings) -> Value:
    value = given[0]
    for axis in sorted(axes_of(given, settings, 1) or []):
        value = arrange.unsqueeze(b, value, axis)
    return value


def _pad_around(b: Builder, given: Given, settings: Settings) -> Value:
    """ONNX lists all begins, then all ends; torch pairs, the last axis first."""
    pads = settings["pads"] if "pads" in settings else numbers(given, 1)
    value = settings["value"] if "value" in settings else numbers(given, 2)
    half = len(pads) // 2
    if optional(given, 3) is not None or half != len(given[0].visible) + 1 or pads[0] or pads[half]:
        raise NoLayer("padding of some axes")
    pairs = [n for axis in range(half - 1, 0, -1) for n in (pads[axis], pads[half + axis])]
    return arrange.pad(b, given[0], pairs, settings.get("mode", "constant"), value)


def _resize(b: Builder, given: Given, settings: Settings) -> Value:
    mode = settings.get("mode", "nearest")
    how = settings.get("coordinate_transformation_mode", "half_pixel")
    nearest = mode == "nearest" and settings.get("nearest_mode") == "floor"
    if not (nearest and how == "asymmetric") and not (mode == "linear" and "half_pixel" in how):
        raise NoLayer(f"resizing by {mode}, {how}")
    sizes, scales = numbers(given, 3), numbers(given, 2)
    wanted = {"size": sizes[2:]} if sizes else {"scale_factor": scales[2:]}
    kind = "nearest" if mode == "nearest" else "bilinear"
    return arrange.interpolate(b, given[0], mode=kind, **wanted)


def _slice(b: Builder, given: Given, settings: Settings) -> Value:
    starts, ends = axes_of(given, settings, 1, "starts"), axes_of(given, settings, 2, "ends")
    assert starts is not None and ends is not None
    axes = axes_of(given, settings, 3) or list(range(len(starts)))
    steps = numbers(given, 4) or [1] * len(starts)
    keys = [slice(None)] * (len(given[0].visible) + 1)
    for axis, first, end, step in zip(axes, starts, ends, steps, strict=True):
        keys[axis] = slice(first, end, step)
    if keys[0] not in (slice(None), slice(0, None, 1)):
        raise NoLayer("a cut of the images")
    return arrange.getitem(b, given[0], (slice(None), *keys[1:]))


def _split(b: Builder, given: Given, settings: Settings) -> list[Value]:
    sizes = settings["split"] if "split" in settings else numbers(given, 1)
    axis = settings.get("axis", 0)
    if sizes is None:
        channels = given[0].visible[0]
        sizes = -(-channels // settings.get("num_outputs", 2))
    return arrange.split(b, given[0], sizes, axis)


RULES: dict[str, Rule] = {
    "Concat": _concat,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Pad": _pad_around,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _split,
}
