"""From an image of any size to the net's height and width: the three fits.

    crop     the largest centred window of the net's shape is cut out, then resized.
             What lies outside the window is lost; nothing is distorted.
    pad      the whole image is resized to fit inside, centred (odd pixel to the right and bottom),
             and the rest is filled with the background. Nothing is lost or distorted.
    stretch  the whole image is resized, height and width each on its own. Nothing is lost.

Resizing is bilinear with a support that grows with the reduction (Pillow's BILINEAR: antialiased),
on gray or RGB bytes as they are stored. An image that already has the net's size keeps its bits
under every fit. The crop window may begin and end between pixels: an image of 5×2 for a net of 1×1
is read from column 1.5 to 3.5.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    Fit = Callable[[Image.Image, int, int, tuple[int, int, int]], Image.Image]

BILINEAR = 2  # PIL.Image.Resampling.BILINEAR, without importing Pillow for it


def crop(
    image: Image.Image, width: int, height: int, background: tuple[int, int, int]
) -> Image.Image:
    """The centred window of shape width:height, resized."""
    box = crop_box(image.width, image.height, width, height)
    return image.resize((width, height), BILINEAR, box=box)


def crop_box(
    image_width: int, image_height: int, width: int, height: int
) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the largest centred window of shape width:height."""
    if image_width * height > image_height * width:
        kept = image_height * width / height
        left = (image_width - kept) / 2
        return left, 0.0, min(left + kept, float(image_width)), float(image_height)
    kept = image_width * height / width
    top = (image_height - kept) / 2
    return 0.0, top, float(image_width), min(top + kept, float(image_height))


def pad(
    image: Image.Image, width: int, height: int, background: tuple[int, int, int]
) -> Image.Image:
    """The whole image, resized to fit inside and centred on the background."""
    from PIL import Image

    if image.width * height > image.height * width:
        inner = (width, max(1, _nearest(image.height * width, image.width)))
    else:
        inner = (max(1, _nearest(image.width * height, image.height)), height)
    fill = background if image.mode == "RGB" else luma(background)
    canvas = Image.new(image.mode, (width, height), fill)
    corner = ((width - inner[0]) // 2, (height - inner[1]) // 2)
    canvas.paste(image.resize(inner, BILINEAR), corner)
    return canvas


def stretch(
    image: Image.Image, width: int, height: int, background: tuple[int, int, int]
) -> Image.Image:
    """The whole image, resized without regard to its shape."""
    return image.resize((width, height), BILINEAR)


FITS: dict[str, Fit] = {"crop": crop, "pad": pad, "stretch": stretch}


def luma(colour: tuple[int, int, int]) -> int:
    """The gray of a colour: ITU-R 601-2, in Pillow's integer form."""
    red, green, blue = colour
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def _nearest(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
