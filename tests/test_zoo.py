"""The zoo against the published numbers, as integers."""

from __future__ import annotations

from functools import cache

import pytest

from lanewise.net.layers import BatchNorm, Conv, DepthwiseConv
from lanewise.net.load import load
from lanewise.size.cost import cost
from lanewise.size.report import SizeReport, size
from lanewise.size.shapes import infer_shapes

# Name → (parameters, multiply–adds of convolutions and linear for one image).
PUBLISHED = {
    "alexnet": (61_100_840, 714_188_480),
    "alexnet-2012": (62_378_344, 1_135_256_096),
    "alexnet-grouped": (60_965_224, 724_406_816),
    "caffe-lenet": (431_080, 2_293_000),
    "convnext-base": (88_591_464, 15_354_729_472),
    "convnext-small": (50_223_688, 8_683_712_256),
    "convnext-tiny": (28_589_128, 4_455_531_264),
    "densenet121": (7_978_856, 2_834_161_664),
    "densenet161": (28_681_000, 7_727_907_072),
    "densenet169": (14_149_480, 3_359_843_328),
    "densenet201": (20_013_928, 4_291_365_888),
    "efficientnet-b0": (5_288_548, 385_814_752),
    "efficientnet-b1": (7_794_184, 686_802_832),
    "efficientnet-b2": (9_109_994, 1_087_529_456),
    "efficientnet-b3": (12_233_232, 1_827_141_392),
    "efficientnet-b4": (19_341_616, 4_393_771_024),
    "efficientnet-b5": (30_389_784, 10_266_384_752),
    "efficientnet-b6": (43_040_704, 19_067_593_536),
    "efficientnet-b7": (66_347_960, 37_745_884_192),
    "googlenet": (6_624_904, 1_498_376_192),
    "googlenet-2014": (6_998_552, 1_582_671_872),
    "lenet5": (61_706, 416_520),
    "lenet5-32": (61_706, 416_520),
    "mobilenet-v1": (4_231_976, 568_740_352),
    "mobilenet-v2": (3_504_872, 300_774_272),
    "mobilenet-v3-large": (5_483_032, 216_589_760),
    "mobilenet-v3-small": (2_542_856, 56_510_400),
    "nin": (7_595_176, 1_100_188_800),
    "nin-cifar": (966_986, 222_486_528),
    "regnet-x-1-6gf": (9_190_136, 1_602_849_792),
    "regnet-x-3-2gf": (15_296_552, 3_176_621_952),
    "regnet-x-400mf": (5_495_976, 413_812_608),
    "regnet-x-800mf": (7_259_656, 799_699_712),
    "regnet-y-1-6gf": (11_202_430, 1_612_076_160),
    "regnet-y-3-2gf": (19_436_338, 3_176_482_752),
    "regnet-y-400mf": (4_344_144, 401_842_848),
    "regnet-y-800mf": (6_432_512, 833_856_256),
    "regnet-y-8gf": (39_381_472, 8_473_070_592),
    "resnet101": (44_549_160, 7_801_405_440),
    "resnet101-v1": (44_549_160, 7_570_194_432),
    "resnet110": (1_727_962, 252_887_680),
    "resnet152": (60_192_808, 11_513_626_624),
    "resnet152-v1": (60_192_808, 11_282_415_616),
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet20": (269_722, 40_551_040),
    "resnet34": (21_797_672, 3_663_761_408),
    "resnet50": (25_557_032, 4_089_184_256),
    "resnet50-v1": (25_557_032, 3_857_973_248),
    "resnet56": (853_018, 125_485_696),
    "resnext50-32x4d": (25_028_904, 4_230_479_872),
    "shufflenet-v2-x0-5": (1_366_792, 40_476_448),
    "shufflenet-v2-x1-0": (2_278_604, 144_907_992),
    "shufflenet-v2-x1-5": (3_503_624, 295_759_392),
    "shufflenet-v2-x2-0": (7_393_996, 583_253_464),
    "squeezenet1-0": (1_248_424, 818_924_576),
    "squeezenet1-1": (1_235_496, 349_151_936),
    "tiny-vgg": (280 + 3 * 910 + 16_910, 5_608_780),
    "vgg11": (132_863_336, 7_609_090_048),
    "vgg11-bn": (132_863_336 + 5_504, 7_609_090_048),
    "vgg13": (133_047_848, 11_308_466_176),
    "vgg13-bn": (133_047_848 + 5_888, 11_308_466_176),
    "vgg16": (138_357_544, 15_470_264_320),
    "vgg16-bn": (138_357_544 + 8_448, 15_470_264_320),
    "vgg19": (143_667_240, 19_632_062_464),
    "vgg19-bn": (143_667_240 + 11_008, 19_632_062_464),
    "wide-resnet50-2": (68_883_240, 11_398_021_120),
    "zfnet": (62_357_608, 1_168_032_896),
}

# Name → (parameters, billions of multiply–adds to three digits): published without exact counts.
DOCUMENTED = {
    "convnext-large": (197_767_336, 34.361),
    "efficientnet-v2-s": (21_458_488, 8.366),
    "inception-v3": (23_834_568, 5.713),
    "mnasnet0-5": (2_218_512, 0.104),
    "mnasnet1-0": (4_383_312, 0.314),
    "regnet-x-16gf": (54_278_536, 15.941),
    "regnet-x-32gf": (107_811_560, 31.736),
    "regnet-x-8gf": (39_572_648, 7.995),
    "regnet-y-16gf": (83_590_140, 15.912),
    "regnet-y-32gf": (145_046_770, 32.280),
    "resnext101-32x8d": (88_791_336, 16.414),
}

# Family with settings → (parameters, multiply–adds); None: not published with this input.
SETTINGS = {
    "efficientnet-b2 size=260": (9_109_994, 993_561_872),
    "mobilenet-v1 size=128": (4_231_976, 186_400_768),
    "mobilenet-v1 size=160": (4_231_976, 290_675_200),
    "mobilenet-v1 size=192": (4_231_976, 418_121_728),
    "mobilenet-v1 width=0.25": (470_072, 41_030_272),
    "mobilenet-v1 width=0.5": (1_331_592, 149_497_088),
    "mobilenet-v1 width=0.75": (2_585_560, 325_400_448),
    "resnet20 n=9": (853_018, 125_485_696),
}

# Keras counts the running statistics of batch normalisation too, and ResNet has biases there.
KERAS = {
    "densenet121": 8_062_504,
    "densenet169": 14_307_880,
    "densenet201": 20_242_984,
    "efficientnet-b0": 5_330_564,
    "efficientnet-b7": 66_658_687 - 7,  # 7 stand in a layer that normalises the images
    "mobilenet-v1": 4_253_864,
    "mobilenet-v2": 3_538_984,
    "mobilenet-v3-large": 5_507_432,
    "mobilenet-v3-small": 2_554_968,
    "resnet101-v1": 44_707_176,
    "resnet152-v1": 60_419_944,
    "resnet50-v1": 25_636_712,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
}

# Name → sizes of the maps after each convolution and pooling.
MAPS = {
    "alexnet": [55, 27, 27, 13, 13, 13, 13, 6, 6],
    "alexnet-2012": [55, 27, 27, 13, 13, 13, 13, 6],
    "alexnet-grouped": [55, 27, 27, 13, 13, 13, 13, 6],
    "caffe-lenet": [24, 12, 8, 4],
    "lenet5": [28, 14, 10, 5],
    "lenet5-1998": [28, 14, 10, 5, 1],
    "lenet5-32": [28, 14, 10, 5],
    "tiny-vgg": [62, 60, 30, 28, 26, 13],
    "zfnet": [110, 55, 26, 13, 13, 13, 13, 6],
}
WINDOWS = ("conv", "partialconv", "maxpool", "subsample", "adaptiveavg")

# Name → receptive field of the last map before the classifier, and its jump. The residual networks
# named v1 are those of the published table, whose strides stand in the first 1×1.
FIELDS = {
    "inception-v3": (1311, 32),
    "mobilenet-v1": (315, 32),
    "resnet101": (971, 32),
    "resnet101-v1": (1027, 32),
    "resnet152": (1451, 32),
    "resnet152-v1": (1507, 32),
    "resnet18": (435, 32),
    "resnet34": (899, 32),
    "resnet50": (427, 32),
    "resnet50-v1": (483, 32),
}


@cache
def report(spec: str) -> SizeReport:
    return size(load(spec))


def params(name: str) -> list[int]:
    return [row.params for row in report(name).rows if row.params]


@pytest.mark.parametrize("spec", [*PUBLISHED, *SETTINGS])
def test_parameters_and_multiply_adds(spec: str) -> None:
    totals = report(spec).totals
    assert (totals.params, totals.macs) == (PUBLISHED | SETTINGS)[spec]
    assert totals.flops == 2 * totals.macs


@pytest.mark.parametrize("name", DOCUMENTED)
def test_parameters_and_printed_digits_of_multiply_adds(name: str) -> None:
    totals = report(name).totals
    assert (totals.params, round(totals.macs / 1e9, 3)) == DOCUMENTED[name]


@pytest.mark.parametrize("name", MAPS)
def test_maps(name: str) -> None:
    windows = [row for row in report(name).rows if row.kind in WINDOWS]
    assert [row.output[1:] for row in windows] == [(n, n) for n in MAPS[name]]


def test_parameters_layer_by_layer() -> None:
    tail = [37_752_832, 16_781_312, 4_097_000]
    assert params("alexnet-2012") == [34_944, 614_656, 885_120, 1_327_488, 884_992, *tail]
    assert params("alexnet-grouped") == [34_944, 307_456, 885_120, 663_936, 442_624, *tail]
    assert params("lenet5") == [156, 2_416, 48_120, 10_164, 850]
    assert params("tiny-vgg") == [280, 910, 910, 910, 16_910]


def test_lenet5_of_1998_layer_by_layer() -> None:
    graph = load("lenet5-1998")
    shapes = infer_shapes(graph)
    spent = {
        node.name: cost(node.layer, *(shapes[name] for name in node.inputs)) for node in graph.nodes
    }
    counted = {name: (c.params, c.connections) for name, c in spent.items() if c.connections}
    assert counted == {
        "C1": (156, 122_304),
        "S2": (12, 5_880),
        "C3": (1_516, 151_600),
        "S4": (32, 2_000),
        "C5": (48_120, 48_120),
        "F6": (10_164, 10_164),
        "rbf1": (0, 840),
    }
    assert sum(params for params, _ in counted.values()) == 60_000
    assert sum(connections for _, connections in counted.values()) == 340_908


@pytest.mark.parametrize("name", KERAS)
def test_totals_that_keras_prints(name: str) -> None:
    graph = load(name)
    shapes = infer_shapes(graph)
    channels = [shapes[n.name][0] for n in graph.nodes if isinstance(n.layer, BatchNorm)]
    biases = 0
    if name.startswith("resnet"):
        convolutions = [node for node in graph.nodes if isinstance(node.layer, Conv)]
        biases = sum(shapes[node.name][0] for node in convolutions)
    assert report(name).totals.params + 2 * sum(channels) + biases == KERAS[name]


@pytest.mark.parametrize("name", FIELDS)
def test_receptive_fields_before_the_classifier(name: str) -> None:
    rows = report(name).rows
    last = next(i for i, row in enumerate(rows) if row.kind == "globalavg")
    row = rows[last - 1]
    assert (row.receptive_field, row.jump) == ((FIELDS[name][0],) * 2, (FIELDS[name][1],) * 2)


def test_receptive_fields_layer_by_layer() -> None:
    def field(net: str, layer: str) -> tuple[int, int]:
        row = next(row for row in report(net).rows if row.name == layer)
        return row.receptive_field[0], row.jump[0]

    assert field("lenet5-32", "maxpool2") == (16, 4)
    assert field("lenet5-32", "linear1") == (32, 4)
    assert field("lenet5-1998", "S4") == (16, 4)
    assert field("lenet5-1998", "C5") == (32, 4)
    assert field("alexnet-2012", "conv5") == (163, 16)
    assert field("alexnet-2012", "maxpool3") == (195, 32)
    assert field("vgg16", "maxpool5") == (212, 32)
    assert field("vgg16", "linear1") == (404, 32)


def test_vgg16_stores_what_is_published() -> None:
    assert report("vgg16").totals.activations_bytes == 4 * 15_237_608


@pytest.mark.parametrize(
    ("name", "smallest"),
    [
        ("alexnet", 63),
        ("googlenet", 15),
        ("inception-v3", 75),
        ("squeezenet1-0", 21),
        ("squeezenet1-1", 17),
        *((f"vgg{layers}{norm}", 32) for layers in (11, 13, 16, 19) for norm in ("", "-bn")),
    ],
)
def test_the_smallest_legal_image(name: str, smallest: int) -> None:
    size(load(f"{name} size={smallest}"))
    with pytest.raises(ValueError, match="has no output position"):
        size(load(f"{name} size={smallest - 1}"))


def test_every_convolution_before_a_normalisation_has_no_bias() -> None:
    """A bias there would change nothing but the count; the classics' authors left it out."""
    for name in ("densenet121", "efficientnet-b0", "mobilenet-v2", "regnet-y-400mf", "resnet50"):
        graph = load(name)
        normed = {n.inputs[0] for n in graph.nodes if isinstance(n.layer, BatchNorm)}
        before = [n.layer for n in graph.nodes if n.name in normed]
        convolutions = [layer for layer in before if isinstance(layer, Conv | DepthwiseConv)]
        assert convolutions and not any(layer.bias for layer in convolutions), name
