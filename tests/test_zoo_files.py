"""The zoo as texts: sources, names, lengths, there and back, and every family in small."""

from __future__ import annotations

import os

import pytest

from families import SMALL
from lanewise.net import load as loading
from lanewise.net.family import parameters_of, published
from lanewise.net.load import load, read_text, zoo_names
from lanewise.net.parse import parse
from lanewise.net.show import show
from lanewise.size.report import size

FOLDER = os.path.join(os.path.dirname(loading.__file__), "zoo")
FILES = sorted(name.removesuffix(".net") for name in os.listdir(FOLDER))

# Not among the small ones that tests train: inception-v3 has so many different kernels that they
# compile for a minute, and the running statistics of mnasnet follow over thousands of steps.
NOT_TRAINED = {"inception-v3", "mnasnet"}


def text_of(family: str) -> str:
    with open(os.path.join(FOLDER, f"{family}.net"), encoding="utf-8") as file:
        return file.read()


def variants(family: str) -> list[str]:
    lines = [line.split() for line in text_of(family).splitlines()]
    return [words[1] for words in lines if words[:1] == ["variant"]]


def test_every_file_is_found_under_its_name_or_its_variants() -> None:
    listed = {name for family in FILES for name in variants(family) or [family]}
    assert listed <= set(zoo_names())
    assert set(zoo_names()) <= listed | set(FILES)
    assert zoo_names() == sorted(set(zoo_names()))


def test_names_of_torchvision_are_names_of_the_zoo() -> None:
    names = """alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet
        inception_v3 mnasnet0_5 mobilenet_v2 mobilenet_v3_small regnet_x_400mf regnet_y_1_6gf
        resnet18 resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_1 vgg16_bn wide_resnet50_2"""
    for name in names.split():
        assert load(name) == load(name.replace("_", "-"))
    assert load("regnet_y_1.6gf") == load("regnet-y-1-6gf")
    assert load("ResNet50") == load("resnet50")


@pytest.mark.parametrize("family", FILES)
def test_every_family_can_be_loaded_by_its_own_name(family: str) -> None:
    assert load(family).nodes[0].layer.word == "input"


@pytest.mark.parametrize("family", FILES)
def test_the_first_lines_tell_what_it_is_and_its_paper(family: str) -> None:
    lines = text_of(family).splitlines()
    first, *others = lines[: lines.index("")]
    assert first.startswith("# ")
    assert first.endswith(".")
    year, paper = published(family)
    assert 1998 <= year <= 2022
    source = " ".join(line.removeprefix("# ") for line in others)
    assert source.endswith(f"{paper} ({year})")


@pytest.mark.parametrize("name", zoo_names())
def test_every_network_has_a_year_and_a_paper(name: str) -> None:
    year, paper = published(name)
    assert 1998 <= year <= 2022
    assert ": " in paper


def test_sources_of_variants_that_are_not_of_their_family() -> None:
    assert published("resnet50")[0] == 2015
    assert published("resnext50-32x4d") == (
        2016,
        "Xie et al.: Aggregated residual transformations for deep neural networks",
    )
    assert published("wide_resnet50_2") == (2016, "Zagoruyko, Komodakis: Wide residual networks")


@pytest.mark.parametrize("family", FILES)
def test_a_family_fits_on_a_screen_or_two(family: str) -> None:
    lines = text_of(family).splitlines()
    assert len(lines) <= 75
    long = ("variant ", "C3: partialconv")
    assert all(len(line) <= 100 for line in lines if not line.startswith(long))


def test_the_large_ones_read_in_about_forty_lines() -> None:
    for family in ("resnet", "efficientnet"):
        lines = [line for line in text_of(family).splitlines() if line.strip(" }")]
        said = [line for line in lines if not line.startswith(("#", "variant", "parameters"))]
        assert len(said) <= 40, family


@pytest.mark.parametrize("name", zoo_names())
def test_there_and_back(name: str) -> None:
    graph = load(name)
    assert parse(show(graph)) == graph


@pytest.mark.parametrize("name", zoo_names())
def test_the_text_of_a_variant_stands_alone(name: str) -> None:
    text, origin = read_text(name)
    assert parse(text) == load(name)
    assert origin == name
    assert "\nvariant " not in text


def test_every_family_is_there_in_small() -> None:
    assert {spec.split()[0] for spec in SMALL.values()} | NOT_TRAINED == set(FILES)


@pytest.mark.parametrize("spec", SMALL.values(), ids=SMALL)
def test_small_is_small(spec: str) -> None:
    graph = load(spec)
    assert parse(show(graph)) == graph
    totals = size(graph).totals
    assert 0 < totals.params < 1_000_000
    assert totals.macs < 20_000_000


@pytest.mark.parametrize("family", [f for f in FILES if [*parameters_of(text_of(f))]])
def test_classes_are_a_parameter_of_every_family_that_has_parameters(family: str) -> None:
    graphs = [load(f"{family} classes={classes}") for classes in (3, 7)]
    assert [size(graph).rows[-1].output for graph in graphs] == [(3,), (7,)]
