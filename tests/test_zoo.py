"""The zoo against the published numbers, as integers."""

from __future__ import annotations

import pytest

from lanewise.net.load import load, read_text, zoo_names
from lanewise.net.parse import parse
from lanewise.net.show import show
from lanewise.size.report import SizeReport, size

# Name → (parameters, multiply–adds of conv and linear for one image).
PUBLISHED = {
    "alexnet": (62_378_344, 1_135_256_096),
    "alexnet-grouped": (60_965_224, 724_406_816),
    "caffe-lenet": (431_080, 2_293_000),
    "lenet5": (61_706, 416_520),
    "lenet5-32": (61_706, 416_520),
    "tiny-vgg": (280 + 3 * 910 + 16_910, 5_608_780),
    "vgg11": (132_863_336, 7_609_090_048),
    "vgg13": (133_047_848, 11_308_466_176),
    "vgg16": (138_357_544, 15_470_264_320),
    "vgg19": (143_667_240, 19_632_062_464),
    "zfnet": (62_357_608, 1_168_032_896),
}

# Name → sizes of the maps after each convolution and pooling.
MAPS = {
    "alexnet": [55, 27, 27, 13, 13, 13, 13, 6],
    "alexnet-grouped": [55, 27, 27, 13, 13, 13, 13, 6],
    "caffe-lenet": [24, 12, 8, 4],
    "lenet5": [28, 14, 10, 5],
    "lenet5-32": [28, 14, 10, 5],
    "tiny-vgg": [62, 60, 30, 28, 26, 13],
    "zfnet": [110, 55, 26, 13, 13, 13, 13, 6],
}


def report(name: str) -> SizeReport:
    return size(load(name))


def params(name: str) -> list[int]:
    return [row.params for row in report(name).rows if row.params]


def test_the_zoo_is_what_was_published() -> None:
    assert zoo_names() == sorted(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds(name: str) -> None:
    totals = report(name).totals
    assert (totals.params, totals.macs) == PUBLISHED[name]
    assert totals.flops == 2 * totals.macs


@pytest.mark.parametrize("name", MAPS)
def test_maps(name: str) -> None:
    windows = [row for row in report(name).rows if row.kind in ("conv", "maxpool")]
    assert [row.output[1:] for row in windows] == [(n, n) for n in MAPS[name]]


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_file_tells_its_source_and_is_canonical_but_for_blanks(name: str) -> None:
    text, _ = read_text(name)
    header = text.split("\n\n")[0].splitlines()
    assert all(line.startswith("# ") and len(line) <= 100 for line in header)
    assert any(year in text for year in map(str, range(1998, 2021)))
    bare = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert "\n".join(bare) + "\n" == show(parse(text))


def test_parameters_layer_by_layer() -> None:
    tail = [37_752_832, 16_781_312, 4_097_000]
    assert params("alexnet") == [34_944, 614_656, 885_120, 1_327_488, 884_992, *tail]
    assert params("alexnet-grouped") == [34_944, 307_456, 885_120, 663_936, 442_624, *tail]
    assert params("lenet5") == [156, 2_416, 48_120, 10_164, 850]
    assert params("tiny-vgg") == [280, 910, 910, 910, 16_910]


def test_published_receptive_fields() -> None:
    def field(net: str, layer: str) -> tuple[int, int]:
        row = next(row for row in report(net).rows if row.name == layer)
        return row.receptive_field[0], row.jump[0]

    assert field("lenet5-32", "maxpool2") == (16, 4)
    assert field("lenet5-32", "linear1") == (32, 4)
    assert field("alexnet", "conv5") == (163, 16)
    assert field("alexnet", "maxpool3") == (195, 32)
    assert field("vgg16", "maxpool5") == (212, 32)
    assert field("vgg16", "linear1") == (404, 32)


def test_vgg16_stores_what_is_published() -> None:
    assert report("vgg16").totals.activations_bytes == 4 * 15_237_608


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg16", "vgg19"])
def test_vgg_needs_at_least_32_pixels(name: str) -> None:
    text, _ = read_text(name)
    size(parse(text.replace("3x224x224", "3x32x32")))
    with pytest.raises(ValueError, match="has no output position"):
        size(parse(text.replace("3x224x224", "3x31x31")))
