"""Decoding: bytes of a file → uint8 (C, H, W) under a `Preprocessing`, singly or in threads.

Threads suffice: Pillow and simplejpeg leave the interpreter lock while they decode. No worker
processes, no shared memory, bounded memory: at most two blocks of images exist at a time.
"""

from __future__ import annotations

import functools
import io
import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lanewise import flags
from lanewise.data.fast_jpeg import decode_plain_jpeg
from lanewise.data.fit import FITS
from lanewise.data.pixels import coloured, standard
from lanewise.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    from lanewise.data.data_set import Images
    from lanewise.data.preprocessing import Preprocessing

    Progress = Callable[[int, int], None]  # (files done, files in all)
    Outcome = tuple[str, tuple[int, int]] | str  # (kind, size), or the reason of a bad file
    Pending = tuple[Images, Iterator[list[Outcome]]]

# What a file is, its content decides, not its name. (A phone's JPEG with a second picture inside,
# MPO, is opened as JPEG.)
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF")
MOST_PIXELS = 89_478_485  # Pillow's own line between a photo and a decompression bomb
BLOCK_BYTES = 32 << 20
CHUNK_FILES = 16
TINY_FILE = 2048  # bytes

# Formats that are recognised in order to name them; (offset, bytes, what it is).
_FOREIGN = (
    (4, b"ftyphe", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypavif", "AVIF"),
    (0, b"%PDF", "PDF"),
    (0, b"<svg", "SVG"),
    (0, b"8BPS", "Photoshop"),
)


@dataclass(frozen=True)
class Decoded:
    """One decoded image: its pixels for the net, and what the file held."""

    pixels: Images
    kind: str  # "JPEG RGB"
    size: tuple[int, int]  # height, width, upright


@dataclass(frozen=True)
class Block:
    """Consecutive files, decoded: images[i] has pixels where outcomes[i] is (kind, size)."""

    images: Images
    outcomes: list[Outcome]


def decode_file(path: str, rule: Preprocessing) -> Images:
    """uint8 (C, H, W) of the image at `path`. Raises DataError with the path and the reason."""
    try:
        return decode_path(path, rule).pixels
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def decode_path(path: str, rule: Preprocessing) -> Decoded:
    """The image at `path`. Raises DataError with the bare reason."""
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.readall()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}") from None
    return decode_bytes(data, rule)


def decode_bytes(data: bytes, rule: Preprocessing) -> Decoded:
    """The image in `data`. Raises DataError with the reason for anything that is not one."""
    array = decode_plain_jpeg(data, MOST_PIXELS)
    if array is not None:
        kind = "JPEG RGB" if array.shape[2] == 3 else "JPEG L"
        return Decoded(_from_array(array, rule), kind, (array.shape[0], array.shape[1]))
    image, kind = open_image(data, rule.background)
    return Decoded(_finish(image, rule), kind, (image.height, image.width))


def open_image(data: bytes, background: tuple[int, int, int]) -> tuple[Image.Image, str]:
    """The upright "L" or "RGB" image in `data`, and its kind. Raises DataError with the reason."""
    from PIL import Image, UnidentifiedImageError

    formats = readable_formats()
    if not data:
        raise DataError("empty file (0 bytes)")
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DataError(_too_large(image.width, image.height))
            kind = f"{image.format} {image.mode}"
            return standard(image, background), kind
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(_not_an_image(data)) from None
    except Image.DecompressionBombError:
        raise DataError(_too_large()) from None
    # Damaged files make Pillow raise nearly anything: OSError, SyntaxError, struct.error, EOFError,
    # ValueError, IndexError, MemoryError … Each is this file's fault, and none may end the scan.
    except Exception as error:
        raise DataError(f"damaged: {error or type(error).__name__}") from None


def prepared(image: Image.Image, rule: Preprocessing) -> Images:
    """A Pillow image → uint8 (C, H, W), all steps of the written rule applied."""
    return _finish(standard(image, rule.background), rule)


def prepared_batch(images: Images, rule: Preprocessing) -> Images:
    """uint8 (N, H, W) or (N, H, W, C) → uint8 (N, C, H, W). Copies only what must change."""
    if images.ndim == 3:
        images = images[..., None]
    if images.shape[1:] == (rule.height, rule.width, rule.channels):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    result = np.empty((len(images), *rule.shape), np.uint8)
    for index, image in enumerate(images):
        result[index] = _from_array(image, rule)
    return result


def decoded_blocks(
    paths: Sequence[str], rule: Preprocessing, on_progress: Progress | None = None
) -> Generator[Block, None, None]:
    """All files, in order, a block at a time; while one is used, the next is being decoded."""
    readable_formats()  # and the probe below: once, before any thread asks for them
    decode_plain_jpeg(b"\xff\xd8\xff", 0)
    rows = max(CHUNK_FILES, BLOCK_BYTES // (rule.channels * rule.height * rule.width))
    threads = 1 if _are_tiny(paths) else decode_threads()
    pool = ThreadPoolExecutor(threads, "lanewise-decode") if threads > 1 else None
    pending: deque[Pending] = deque()
    done = 0
    # Pillow warns of oddities (palettes with alpha, EXIF it cannot parse) that the rule settles.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for start in range(0, len(paths) + rows, rows):
                if start < len(paths):
                    pending.append(_started(pool, paths[start : start + rows], rule))
                if start:
                    block = _finished(*pending.popleft(), done, len(paths), on_progress)
                    done += len(block.outcomes)
                    yield block
        finally:
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=True)


def decode_threads() -> int:
    """LANEWISE_THREADS, or one for each core that this process may use."""
    asked = flags.value("LANEWISE_THREADS")
    if asked:
        return asked
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _are_tiny(paths: Sequence[str]) -> bool:
    """Whether decoding is nearly all bookkeeping, for which threads would only queue.

    A 32×32 JPEG takes 35 µs in one thread, and 56 µs where two or four pass the lock around.
    """
    sample = paths[:: max(1, len(paths) // 15)]
    sizes = sorted(os.path.getsize(path) if os.path.exists(path) else 0 for path in sample)
    return not sizes or sizes[len(sizes) // 2] <= TINY_FILE


def _started(pool: ThreadPoolExecutor | None, paths: Sequence[str], rule: Preprocessing) -> Pending:
    """Room for the images, and their outcomes as they come; without a pool, when asked for."""
    images = np.empty((len(paths), *rule.shape), np.uint8)
    parts = [slice(start, start + CHUNK_FILES) for start in range(0, len(paths), CHUNK_FILES)]

    def decode(part: slice) -> list[Outcome]:
        return _decode_chunk(paths[part], rule, images[part])

    return images, map(decode, parts) if pool is None else pool.map(decode, parts)


def _decode_chunk(paths: Sequence[str], rule: Preprocessing, images: Images) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for path, row in zip(paths, images, strict=True):
        try:
            decoded = decode_path(path, rule)
        except DataError as error:
            outcomes.append(str(error))
        else:
            row[...] = decoded.pixels
            outcomes.append((decoded.kind, decoded.size))
    return outcomes


def _finished(
    images: Images,
    chunks: Iterator[list[Outcome]],
    done: int,
    total: int,
    on_progress: Progress | None,
) -> Block:
    outcomes: list[Outcome] = []
    for chunk in chunks:
        outcomes += chunk
        if on_progress is not None:
            on_progress(done + len(outcomes), total)
    return Block(images, outcomes)


def _from_array(array: npt.NDArray[np.uint8], rule: Preprocessing) -> Images:
    """uint8 (H, W, C), C = 1 to 4, under the rule; the usual case without Pillow."""
    if array.shape == (rule.height, rule.width, rule.channels):
        return array.transpose(2, 0, 1)
    from PIL import Image

    flat = array[..., 0] if array.shape[2] == 1 else array
    image = Image.fromarray(np.ascontiguousarray(flat))
    return prepared(image, rule) if array.shape[2] in (2, 4) else _finish(image, rule)


def _finish(image: Image.Image, rule: Preprocessing) -> Images:
    """Steps 4 and 5 of the written rule: colour, then fit."""
    image = coloured(image, rule.colour)
    if image.size != (rule.width, rule.height):
        image = FITS[rule.fit](image, rule.width, rule.height, rule.background)
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


@functools.cache
def readable_formats() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow was built with; its forty others are not loaded (0.1 s)."""
    from PIL import (  # noqa: F401
        BmpImagePlugin,
        GifImagePlugin,
        Image,
        JpegImagePlugin,
        MpoImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    return tuple(name for name in FORMATS if name in Image.OPEN)


def _too_large(width: int = 0, height: int = 0) -> str:
    size = f"{width}x{height} pixels" if width else "its header"
    return (
        f"{size} claims more than {MOST_PIXELS:,} pixels: a decompression bomb, or make it smaller"
    )


def _not_an_image(data: bytes) -> str:
    for offset, start, name in _FOREIGN:
        if data[offset:].startswith(start):
            return f"a {name} file, which is not read; convert it to PNG or JPEG"
    return f"not an image that can be read: it begins with {data[:12]!r}"
