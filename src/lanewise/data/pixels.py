"""The written rule: how every pixel format becomes 8-bit gray or RGB.

The steps, in this order, for every image on every way into a net:

 1. frame        animated or multi-page files: the first frame.
 2. orientation  EXIF orientation (tags 1 to 8; JPEG, PNG, WebP, TIFF) is applied.
 3. pixels       by Pillow's mode, table below; the result is gray ("L") or "RGB", 8 bits.
 4. colour       a gray net: ITU-R 601 luma, (19595 R + 38470 G + 7471 B + 32768) >> 16.
                 a colour net: gray is copied to all three channels.
 5. fit          crop, pad or stretch: see `lanewise.data.fit`.

    mode                        found in                        rule
    1                           1-bit PNG, BMP, TIFF            0 and 255
    L                           gray                            as it is
    RGB, RGBX                   colour                          as it is (X dropped)
    P                           palette PNG, GIF, BMP           looked up in the palette
    LA, RGBA, PA, La, RGBa,     alpha, and the single           laid over the background colour
      or a transparent colour     transparent colour of         (white unless the record says
      of L, RGB, P, 1             PNG and GIF                   otherwise)
    I;16, I;16L, I;16B, I;16N   16-bit gray PNG, TIFF           by range: round(v × 255 / 65535)
    I from a PNG                16-bit gray, older Pillow       the same
    I from other files          32-bit integers                 refused: no range is known
    F                           32-bit floats                   refused: no range is known
    CMYK                        print JPEG, TIFF                Pillow: 255 − min(255, C + K) …
                                                                with Adobe's inversion undone
    YCbCr                       TIFF                            JPEG's conversion to RGB
    LAB, HSV and others         rare TIFF                       refused

16 bits per channel in colour or with alpha are reduced by Pillow to the high byte. Embedded ICC
profiles and gamma are not applied. A refused or broken file is named with its reason and skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from lanewise.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    Rule = Callable[[Image.Image, tuple[int, int, int]], Image.Image]


def standard(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Steps 1 to 3: first frame, upright, mode "L" or "RGB". Raises DataError if refused."""
    from PIL import ExifTags, ImageOps

    if image.tell():
        image.seek(0)
    image.load()
    file_format = image.format
    # TIFF is already upright after load(), and then has no such tag any more.
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    upright = ImageOps.exif_transpose(image) if turned else image
    if upright.mode == "I" and file_format == "PNG":
        return _sixteen_bits(upright, background)
    rule = RULES.get(upright.mode)
    if rule is None:
        known = "8 or 16 bits, gray, RGB, palette or CMYK"
        raise DataError(f"pixel mode {upright.mode} has no rule; save the image as {known}")
    return rule(upright, background)


def coloured(image: Image.Image, colour: str) -> Image.Image:
    """Step 4: `image` of mode "L" or "RGB" as colour = "gray" or "rgb"."""
    wanted = "L" if colour == "gray" else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _opaque(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    if "transparency" in image.info:
        return _over(image, background)
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _one_bit(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    if "transparency" in image.info:
        return _over(image, background)
    return image.convert("L")


def _over(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    from PIL import Image

    if image.mode == "La":
        image = image.convert("LA")
    layer = image.convert("RGBA")
    flat = Image.new("RGB", layer.size, background)
    flat.paste(layer, mask=layer.getchannel("A"))
    return flat


def _sixteen_bits(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    from PIL import Image

    values = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def _no_range(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    what = "32-bit integer" if image.mode == "I" else "32-bit float"
    raise DataError(f"{what} pixels have no known range; save the image with 8 or 16 bits")


RULES: dict[str, Rule] = {
    "1": _one_bit,
    "L": _opaque,
    "RGB": _opaque,
    "RGBX": _opaque,
    "P": _opaque,
    "CMYK": _opaque,
    "YCbCr": _opaque,
    "LA": _over,
    "La": _over,
    "PA": _over,
    "RGBA": _over,
    "RGBa": _over,
    "I;16": _sixteen_bits,
    "I;16L": _sixteen_bits,
    "I;16B": _sixteen_bits,
    "I;16N": _sixteen_bits,
    "I": _no_range,
    "F": _no_range,
}
