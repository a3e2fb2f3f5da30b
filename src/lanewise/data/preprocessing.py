"""The one record of how an image becomes a net's input; it travels with the model."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lanewise.data.fit import FITS
from lanewise.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    from lanewise.data.data_set import Images

COLOUR_OF_CHANNELS = {1: "gray", 3: "rgb"}
WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Preprocessing:
    """How any image becomes uint8 (channels, height, width), and how those bytes are normalised.

    fit: "crop", "pad" or "stretch" (`lanewise.data.fit`). filter: "bilinear", antialiased.
    orientation: "exif", applied. colour: "gray" or "rgb" (`lanewise.data.pixels`).
    background: RGB bytes behind transparent pixels and beside a padded image.
    mean, std: per channel, in units of 0..1: the net sees (byte / 255 − mean) / std.
    """

    channels: int
    height: int
    width: int
    fit: str = "crop"
    filter: str = "bilinear"
    orientation: str = "exif"
    colour: str = ""
    background: tuple[int, int, int] = WHITE
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        colour = COLOUR_OF_CHANNELS.get(self.channels)
        if colour is None:
            raise DataError(
                f"a net with {self.channels} input channels cannot read images; "
                "use 1 (gray) or 3 (RGB): input 1xHxW or 3xHxW"
            )
        object.__setattr__(self, "colour", self.colour or colour)
        object.__setattr__(self, "mean", self.mean or (0.0,) * self.channels)
        object.__setattr__(self, "std", self.std or (1.0,) * self.channels)
        self._check(colour)

    def _check(self, colour: str) -> None:
        allowed: tuple[tuple[str, object, tuple[object, ...]], ...] = (
            ("fit", self.fit, tuple(FITS)),
            ("filter", self.filter, ("bilinear",)),
            ("orientation", self.orientation, ("exif",)),
            ("colour", self.colour, (colour,)),
            ("number of means", len(self.mean), (self.channels,)),
            ("number of deviations", len(self.std), (self.channels,)),
        )
        for what, value, choices in allowed:
            if value not in choices:
                wanted = " or ".join(map(str, choices))
                raise DataError(f"preprocessing: {what} is {value!r}; wanted {wanted}")
        if self.height < 1 or self.width < 1 or min(self.std) <= 0:
            raise DataError(
                f"preprocessing: size {self.height}x{self.width} and std {self.std} "
                "must be positive"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file; `from_json` gives the equal record back."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Preprocessing:
        """The record that `to_json` wrote. Raises DataError for missing or unknown entries."""
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            found = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise DataError(f"preprocessing record: found {found}; wanted {sorted(names)}")
        try:
            return cls(**{name: _tupled(value) for name, value in values.items()})
        except TypeError as error:
            raise DataError(
                f"preprocessing record has a value of the wrong kind: {error}"
            ) from None

    def image(self, source: str | os.PathLike[str] | Image.Image | npt.NDArray[Any]) -> Images:
        """One image, from a path, a Pillow image or an array (H,W or H,W,C) → uint8 (C, H, W).

        Raises DataError that names the file and the reason.
        """
        from lanewise.data.decode import decode_file, prepared

        if isinstance(source, np.ndarray):
            return self.batch(source[None])[0]
        if isinstance(source, (str, os.PathLike)):
            return decode_file(os.fspath(source), self)
        return prepared(source, self)

    def batch(self, images: npt.NDArray[Any]) -> Images:
        """uint8 (N, H, W) or (N, H, W, C), C = 1 to 4 → uint8 (N, channels, height, width).

        2 and 4 channels are gray and RGB with alpha. Images that already have the right size and
        colour keep their bits, without a copy where the memory order allows it.
        Raises DataError for another type or shape.
        """
        from lanewise.data.arrays import check_images
        from lanewise.data.decode import prepared_batch

        return prepared_batch(check_images(images, "images"), self)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
