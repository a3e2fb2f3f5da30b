"""A faster decoder for plain JPEG files, used only where it gives Pillow's very pixels.

simplejpeg (optional) decodes a 32×32 JPEG in 17 µs where Pillow needs 190 µs, nearly all of that
Pillow's bookkeeping in Python. Both use libjpeg-turbo, yet perhaps in different versions, so before
its first use the two are compared on small images of every chroma sampling; one differing byte
and it is left alone. Whatever is not a plain gray or YCbCr JPEG without EXIF or XMP (print colours,
orientation, damage of any sort) goes to Pillow, whose word on good or bad is final. So the pixels
and the verdicts are the same with or without simplejpeg, and no record needs to name the decoder.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

# Either may hold an orientation, which Pillow applies.
_METADATA = (b"Exif", b"Orientation")
_PLAIN = {"Gray": "GRAY", "YCbCr": "RGB"}


def decode_plain_jpeg(data: bytes, most_pixels: int) -> npt.NDArray[np.uint8] | None:
    """uint8 (H, W, 1 or 3) as Pillow would give it, or None where Pillow itself should look."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    library = _library()
    if library is None or any(word in data for word in _METADATA):
        return None
    try:
        height, width, colour, _ = library.decode_jpeg_header(data)
        if colour not in _PLAIN or height * width > most_pixels:
            return None
        pixels: npt.NDArray[np.uint8] = library.decode_jpeg(data, colorspace=_PLAIN[colour])
    except (ValueError, RuntimeError, MemoryError):
        return None
    return pixels


@functools.cache
def _library() -> Any:
    """simplejpeg, if it is installed and agrees with Pillow here."""
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg if agrees_with_pillow(simplejpeg.decode_jpeg) else None


def agrees_with_pillow(decode: Callable[..., npt.NDArray[np.uint8]]) -> bool:
    """Whether `decode(data, colorspace=…)` gives Pillow's bytes for every kind of plain JPEG."""
    from PIL import Image

    for data, colour in _probes():
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            expected = np.asarray(image)
        try:
            found = decode(data, colorspace=colour)
        except (ValueError, RuntimeError):
            return False
        if not np.array_equal(found.reshape(expected.shape), expected):
            return False
    return True


def _probes() -> list[tuple[bytes, str]]:
    """Small JPEGs with edges, ramps and odd sizes: gray; colour at each sampling; progressive."""
    from PIL import Image

    y, x, c = np.ogrid[:19, :37, :3]
    texture = (
        x * 7 + y * 11 * (c + 1) + (x * y * (c + 3)) % 61 + 90 * ((x // 5 + y // 3) % 2)
    ) % 256
    colour = Image.fromarray(texture.astype(np.uint8))
    settings: list[dict[str, Any]] = [
        {"subsampling": 0},
        {"subsampling": 1},
        {"subsampling": 2},
        {"subsampling": 2, "progressive": True, "quality": 40},
    ]
    probes = [(_encoded(colour, options), "RGB") for options in settings]
    return [*probes, (_encoded(colour.convert("L"), {}), "GRAY")]


def _encoded(image: Any, options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()
