"""Writes a folder of class folders with small made-up photos, and one file that is no image.

    python examples/make_photos.py photos

The classes are stripes that run across and stripes that run down.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("across", "down")
EACH, HEIGHT, WIDTH = 100, 20, 30


def photo(name: str, random: np.random.Generator) -> Image.Image:
    """Bright stripes of a random colour and width on a dim, noisy ground."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    along = rows if name == "across" else columns
    inside = (along + random.integers(8)) // random.integers(2, 4) % 2 == 0
    ground = random.integers(0, 80, (HEIGHT, WIDTH, 3))
    colour = random.integers(150, 256, 3)
    return Image.fromarray(np.where(inside[..., None], colour, ground).astype(np.uint8))


def main(folder: Path) -> None:
    """Write the folder; it must not be there yet."""
    random = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(EACH):
            photo(name, random).save(folder / name / f"{number:02}.png")
    (folder / "down" / "notes.jpg").write_text("no image at all")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
