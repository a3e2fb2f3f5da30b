"""The written rule: every pixel format, all eight orientations, the three fits, both decoders."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lanewise.data import Preprocessing
from lanewise.data.decode import decode_bytes, decode_file
from lanewise.data.fast_jpeg import agrees_with_pillow, decode_plain_jpeg
from lanewise.data.pixels import RULES
from lanewise.errors import DataError

GRAY = Preprocessing(1, 2, 3)
COLOUR = Preprocessing(3, 2, 3)
L = np.array([[0, 10, 255], [128, 77, 200]], np.uint8)
RGB = np.stack([L, 255 - L, L // 2], axis=2)


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def luma(rgb):
    r, g, b = (rgb[..., channel].astype(int) for channel in range(3))
    return (19595 * r + 38470 * g + 7471 * b + 32768) >> 16


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
def test_gray_and_colour_pass_unchanged_and_convert_by_the_rule(file_format):
    gray = encoded(Image.fromarray(L), file_format)
    rgb = encoded(Image.fromarray(RGB), file_format)
    assert np.array_equal(decode_bytes(gray, GRAY).pixels, L[None])
    assert np.array_equal(decode_bytes(gray, COLOUR).pixels, np.stack([L] * 3))
    assert np.array_equal(decode_bytes(rgb, COLOUR).pixels, RGB.transpose(2, 0, 1))
    assert np.array_equal(decode_bytes(rgb, GRAY).pixels, luma(RGB)[None])


def test_lossless_webp_and_its_alpha():
    rgb = encoded(Image.fromarray(RGB), "WEBP", lossless=True)
    assert np.array_equal(decode_bytes(rgb, COLOUR).pixels, RGB.transpose(2, 0, 1))
    clear = Image.fromarray(np.dstack([RGB, np.zeros_like(L)]))
    data = encoded(clear, "WEBP", lossless=True)
    assert (decode_bytes(data, COLOUR).pixels == 255).all()


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
def test_one_bit_is_black_and_white(file_format):
    bits = np.array([[0, 255, 0], [255, 255, 0]], np.uint8)
    data = encoded(Image.fromarray(bits).convert("1"), file_format)
    assert np.array_equal(decode_bytes(data, GRAY).pixels, bits[None])


@pytest.mark.parametrize("file_format", ["PNG", "GIF", "BMP"])
def test_palettes_are_looked_up(file_format):
    indices = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8), "L").convert("P")
    indices.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    expected = np.array([[red, green, blue], [blue, green, red]], np.uint8)
    found = decode_bytes(encoded(indices, file_format), COLOUR).pixels
    assert np.array_equal(found, expected.transpose(2, 0, 1))


def test_a_transparent_palette_colour_shows_the_background():
    indices = Image.fromarray(np.array([[0, 1, 0], [1, 1, 0]], np.uint8), "L").convert("P")
    indices.putpalette([255, 0, 0, 0, 0, 255])
    for file_format in ("PNG", "GIF"):
        found = decode_bytes(encoded(indices, file_format, transparency=0), COLOUR).pixels
        assert found[:, 0, 0].tolist() == [255, 255, 255], file_format
        assert found[:, 0, 1].tolist() == [0, 0, 255], file_format


def test_a_transparent_colour_of_rgb_and_gray_png():
    data = encoded(Image.fromarray(RGB), "PNG", transparency=tuple(RGB[0, 1].tolist()))
    assert decode_bytes(data, COLOUR).pixels[:, 0, 1].tolist() == [255, 255, 255]
    data = encoded(Image.fromarray(L), "PNG", transparency=77)
    found = decode_bytes(data, GRAY).pixels[0]
    assert found[1, 1] == 255 and found[1, 2] == 200


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (10, 20, 30)])
def test_alpha_lies_over_the_background(mode, background):
    alpha = np.array([[0, 128, 255], [255, 0, 51]], np.uint8)
    planes = [L, alpha] if mode == "LA" else [*RGB.transpose(2, 0, 1), alpha]
    image = Image.fromarray(np.dstack(planes))
    assert image.mode == mode
    rule = Preprocessing(3, 2, 3, background=background)
    colour = np.stack([L] * 3) if mode == "LA" else RGB.transpose(2, 0, 1)
    back = np.array(background)[:, None, None]
    expected = (colour * (alpha / 255)) + back * (1 - alpha / 255)
    found = decode_bytes(encoded(image, "PNG"), rule).pixels
    assert np.abs(found - expected).max() <= 1
    assert np.array_equal(rule.batch(np.asarray(image)[None])[0], found)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_by_range(file_format):
    wide = np.array([[0, 128, 129], [257, 32768, 65535]], np.uint16)
    data = encoded(Image.fromarray(wide), file_format)
    assert decode_bytes(data, GRAY).pixels[0].tolist() == [[0, 0, 1], [1, 128, 255]]


def test_cmyk_jpeg_and_tiff():
    cmyk = Image.fromarray(RGB).convert("CMYK")
    found = decode_bytes(encoded(cmyk, "TIFF"), COLOUR).pixels
    assert np.array_equal(found, RGB.transpose(2, 0, 1))
    rule = Preprocessing(3, 16, 16)
    flat = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    found = decode_bytes(encoded(flat, "JPEG", quality=95), rule).pixels
    assert np.abs(found.astype(int) - np.array([255, 0, 0])[:, None, None]).max() <= 6


def test_refused_modes_say_why():
    for array in (np.ones((2, 3), np.int32) * 70000, np.ones((2, 3), np.float32)):
        with pytest.raises(DataError, match="pixels have no known range; save the image"):
            decode_bytes(encoded(Image.fromarray(array), "TIFF"), GRAY)
    with pytest.raises(DataError, match="pixel mode LAB has no rule"):
        GRAY.image(Image.new("LAB", (3, 2)))


@pytest.mark.parametrize("mode", sorted(set(RULES) - {"I", "F", "I;16L", "I;16B", "I;16N"}))
def test_every_mode_with_a_rule_gives_an_image(mode):
    assert GRAY.image(Image.new(mode, (3, 2))).shape == (1, 2, 3)
    assert COLOUR.image(Image.new(mode, (7, 5))).shape == (3, 2, 3)


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(file_format):
    frames = [Image.new("RGB", (3, 2), colour) for colour in ("red", "blue", "lime")]
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:])
    found = decode_bytes(data, COLOUR).pixels
    assert np.abs(found[:, 0, 0].astype(int) - [255, 0, 0]).max() <= 3
    with Image.open(io.BytesIO(data)) as image:
        image.seek(2)
        assert np.array_equal(COLOUR.image(image), found)


# What a viewer must do for each tag, as numpy sees it.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_exif_orientation_is_applied(file_format, tag, tmp_path):
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[:8, :8] = 255  # a white corner tells all eight apart, with the blue one beside it
    stored[:8, 16:, 2] = 255
    exif = Image.Exif()
    exif[0x0112] = tag
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(Image.fromarray(stored), file_format, exif=exif, **options)
    expected = UPRIGHT[tag](stored).transpose(2, 0, 1)
    rule = Preprocessing(3, *expected.shape[1:])
    (tmp_path / "x").write_bytes(data)
    ways = (decode_bytes(data, rule).pixels, rule.image(tmp_path / "x"))
    with Image.open(io.BytesIO(data)) as image:
        for found in (*ways, rule.image(image)):
            assert found.shape == expected.shape
            assert np.abs(found.astype(int) - expected).max() <= (
                120 if file_format == "JPEG" else 0
            )
            assert np.abs(found.astype(int) - expected).mean() < 6


def test_crop_by_hand():
    rule = Preprocessing(1, 2, 2, fit="crop")
    wide = np.array([[1, 10, 20, 3], [2, 30, 40, 4]], np.uint8)
    assert rule.image(wide).tolist() == [[[10, 20], [30, 40]]]
    assert rule.image(wide.T.copy()).tolist() == [[[10, 30], [20, 40]]]


def test_pad_by_hand():
    rule = Preprocessing(1, 4, 4, fit="pad", background=(9, 9, 9))
    wide = np.array([[1, 2, 3, 4]], np.uint8)
    assert rule.image(wide).tolist() == [[[9] * 4, [1, 2, 3, 4], [9] * 4, [9] * 4]]
    tall = Preprocessing(3, 2, 3, fit="pad", background=(7, 8, 9)).image(
        np.array([[5], [6]], np.uint8)
    )
    assert tall[:, 0].tolist() == [[7, 5, 7], [8, 5, 8], [9, 5, 9]]


def test_stretch_by_hand():
    rule = Preprocessing(1, 1, 2, fit="stretch")
    constant = np.array([[10, 10, 80, 80]] * 3, np.uint8)
    # A triangle of radius 2 about 1.0; columns lie at 0.5, 1.5, 2.5, 3.5: weights ¾ ¾ ¼ 0, so the
    # left pixel is (¾·10 + ¾·10 + ¼·80) / 1¾ = 20, and the right one by symmetry 70.
    assert rule.image(constant).tolist() == [[[20, 70]]]


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_any_size_fits_any_size(fit, height, width, out_height, out_width, colour):
    array = np.full((height, width, 3) if colour else (height, width), 200, np.uint8)
    rule = Preprocessing(3, out_height, out_width, fit=fit, background=(200, 200, 200))
    assert (rule.image(array) == 200).all()
    same = Preprocessing(1, height, width, fit=fit)
    noise = np.random.default_rng(height).integers(0, 256, (height, width), dtype=np.uint8)
    assert np.array_equal(same.image(noise)[0], noise)


def test_record_survives_json():
    import json

    record = Preprocessing(
        3, 4, 5, fit="pad", background=(1, 2, 3), mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0)
    )
    assert Preprocessing.from_json(json.loads(json.dumps(record.to_json()))) == record
    with pytest.raises(DataError, match="preprocessing record"):
        Preprocessing.from_json({"channels": 3})
    with pytest.raises(DataError, match="filter is 'cubic'; wanted bilinear"):
        Preprocessing.from_json({**record.to_json(), "filter": "cubic"})
    with pytest.raises(DataError, match="number of means is 3; wanted 1"):
        Preprocessing.from_json({**record.to_json(), "channels": 1, "colour": "gray"})


def test_batch_matches_image_and_checks_its_input():
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)
    for rule in (Preprocessing(3, 6, 5), Preprocessing(1, 6, 5), Preprocessing(3, 2, 3)):
        expected = np.stack([rule.image(Image.fromarray(image)) for image in images])
        assert np.array_equal(rule.batch(images), expected)
    with pytest.raises(DataError, match="found float64; wanted uint8"):
        COLOUR.batch(images / 255)


def test_reading_a_file_names_it(tmp_path):
    (tmp_path / "x.png").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"x\.png: "):
        decode_file(str(tmp_path / "x.png"), COLOUR)
    with pytest.raises(DataError, match=r"none\.png: cannot be read: No such file"):
        COLOUR.image(tmp_path / "none.png")


def photo(size=(47, 33)) -> Image.Image:
    y, x, c = np.ogrid[: size[1], : size[0], :3]
    noise = np.random.default_rng(1).integers(0, 60, (size[1], size[0], 3))
    return Image.fromarray(((x * 3 + y * (c + 1) + noise) % 256).astype(np.uint8))


JPEGS = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "coarse": {"quality": 20, "optimize": True},
    "restart": {"restart_marker_blocks": 2},
}


@pytest.mark.parametrize("kind", [*JPEGS, "gray"])
def test_the_fast_decoder_gives_pillows_pixels_and_verdicts(kind):
    pytest.importorskip("simplejpeg", reason="the optional faster decoder is not installed")
    image = photo().convert("L") if kind == "gray" else photo()
    data = encoded(image, "JPEG", **JPEGS.get(kind, {}))
    fast = decode_plain_jpeg(data, 10**9)
    with Image.open(io.BytesIO(data)) as opened:
        assert fast is not None and np.array_equal(fast.squeeze(), np.asarray(opened))
    for length in range(0, len(data), 3):
        cut = data[:length]
        if decode_plain_jpeg(cut, 10**9) is not None:
            with Image.open(io.BytesIO(cut)) as opened:
                opened.load()  # Pillow takes it too


def test_the_fast_decoder_leaves_metadata_print_colours_and_bombs_to_pillow():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_plain_jpeg(encoded(photo(), "JPEG", exif=exif), 10**9) is None
    assert decode_plain_jpeg(encoded(photo().convert("CMYK"), "JPEG"), 10**9) is None
    assert decode_plain_jpeg(encoded(photo(), "JPEG"), 100) is None
    assert decode_plain_jpeg(encoded(photo(), "PNG"), 10**9) is None


def test_a_decoder_that_differs_by_one_is_not_used():
    simplejpeg = pytest.importorskip("simplejpeg", reason="the faster decoder is not installed")
    assert agrees_with_pillow(simplejpeg.decode_jpeg)

    def off_by_one(data, colorspace):
        pixels = simplejpeg.decode_jpeg(data, colorspace=colorspace)
        pixels[3, 3] ^= 1
        return pixels

    assert not agrees_with_pillow(off_by_one)
