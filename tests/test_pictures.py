"""Pictures of the size rule: drawn of the right numbers; those of the docs are drawn again."""

from __future__ import annotations

import re
import shlex
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from lanewise.cli.main import main
from lanewise.net.parse import parse
from lanewise.size.axis import Axis
from lanewise.size.drawn import network_picture
from lanewise.size.picture import Drawn, layers_picture
from markdown_blocks import ROOT, blocks

PICTURES = ROOT / "docs" / "pictures"
PAGES = sorted((ROOT / "docs").glob("*.md"))
SVG = "{http://www.w3.org/2000/svg}"


def commands() -> dict[str, list[str]]:
    """Name of a picture → the arguments that draw it, as a page of the docs has them."""
    found: dict[str, list[str]] = {}
    for page in PAGES:
        for block in blocks(page):
            for line in block.text.splitlines() if block.language == "console" else ():
                if line.startswith("$ lanewise ") and " --svg " in line:
                    words = shlex.split(line[2:].split(" | ")[0])
                    found[words[words.index("--svg") + 1]] = words[1:]
    return found


COMMANDS = commands()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_picture_of_the_docs_is_what_its_command_draws(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a drawing is changed on purpose, run the command in docs/pictures."""
    monkeypatch.chdir(tmp_path)
    assert main(COMMANDS[name]) == 0
    drawn = (tmp_path / name).read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert drawn == (PICTURES / name).read_bytes()


def test_every_picture_is_shown_and_drawn() -> None:
    shown = {
        name
        for page in PAGES
        for name in re.findall(r"\]\(pictures/([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    assert len(shown) >= 10
    assert shown == {file.name for file in PICTURES.iterdir()} == set(COMMANDS)


def test_every_picture_says_in_words_what_it_shows() -> None:
    for page in PAGES:
        for words in re.findall(r"!\[([^\]]*)\]\(pictures/", page.read_text(encoding="utf-8")):
            assert len(words.split()) >= 5


@pytest.mark.parametrize("file", sorted(PICTURES.iterdir()), ids=lambda file: file.name)
def test_pictures_are_small_and_stand_alone(file: Path) -> None:
    assert file.stat().st_size < 16_384
    root = ElementTree.fromstring(file.read_text(encoding="utf-8"))
    assert root.tag == f"{SVG}svg"
    assert {element.tag for element in root.iter()} <= {
        SVG + name for name in ("svg", "g", "rect", "line", "text")
    }
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert width <= 720
    for element in root.iter(f"{SVG}rect"):
        assert 0 <= float(element.attrib["x"]) <= width
        assert 0 <= float(element.attrib["y"]) <= height


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def blocks_of(svg: str, colour: str) -> int:
    """How many rectangles there are of a colour."""
    rects = ElementTree.fromstring(svg).iter(f"{SVG}rect")
    return sum(rect.attrib["fill"] == colour for rect in rects)


@pytest.mark.parametrize(
    "axis",
    [
        Axis(7, 3, 2, 1, 1),
        Axis(9, 3, 2, 0, 0, 2),
        Axis(6, 4, 4),
        Axis(7, 2, 2, ceil=True),
        Axis(5, 3, 1, 2, 0),
        Axis(1, 1),
    ],
)
def test_every_tap_and_every_output_is_drawn(axis: Axis) -> None:
    svg = layers_picture([Drawn("title & more", "formula <", axis)])
    assert blocks_of(svg, "#d0802a") == axis.out * axis.kernel
    assert blocks_of(svg, "#3f9a5f") == axis.out
    read = {position for window in axis.reads for position in window}
    assert blocks_of(svg, "#3f86c9") == len(read & set(range(axis.n)))
    assert texts(svg)[0] == "title & more"
    assert "formula <" in texts(svg)


def test_long_axes_are_drawn_at_both_ends() -> None:
    svg = network_picture(parse("input 1x224x224; conv 1 k7 stride2 pad3"))
    told = texts(svg)
    assert told.count("…") == 2
    assert {"1", "224", "112"} <= set(told)
    assert "113" not in told
    assert len(svg) < 20_000


def test_height_and_width_are_drawn_where_they_differ() -> None:
    one = network_picture(parse("input 1x7x7; conv 1 k3"))
    two = network_picture(parse("input 1x7x9; conv 1 k3"))
    assert "conv1: conv 1 k3" in texts(one)
    assert {"conv1: conv 1 k3, height", "conv1: conv 1 k3, width"} <= set(texts(two))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["lenet5", "--svg", "x.png"], "--svg x.png: is no name of a picture; let it end in .svg"),
        (["lenet5", "--svg", "none/x.svg"], "--svg none/x.svg: No such file or directory"),
        (["vgg16", "--svg", "x.svg"], "18 convolutions and pools are too many"),
        (["lenet5", "--svg", "x.svg", "--layer", "conv7"], "there are conv1, maxpool1, conv2"),
        (["lenet5", "--svg", "x.svg", "--details"], "--svg: not together with --details"),
        (["lenet5", "--kernel", "3"], "--kernel: goes with --from and no network"),
        (["lenet5", "--all"], "--all: lists solutions, and this network has no `?`"),
        (["lenet5", "--layer", "conv1"], "--layer conv1: is the layer of a picture; add --svg"),
        (["input 3x9x9; relu", "--svg", "x.svg"], "no convolution or pool to draw; add one"),
        (["--from", "9", "--to", "4", "--svg", "x.svg"], "--svg draws one layer with one number"),
        (
            ["--from", "9", "--to", "4", "--layer", "conv1"],
            "--layer: is for the sizes of a network",
        ),
    ],
)
def test_bad_input(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["size", *arguments]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert told in error
    assert list(tmp_path.iterdir()) == []


def test_the_picture_of_a_solution_is_that_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["size", "input 1x9x9; conv 1 k? pad ?; want 1x9x9", "--svg", "a.svg"]) == 0
    assert main(["size", "input 1x9x9; conv 1 k3 pad1", "--svg", "b.svg"]) == 0
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    ("given", "marked"),
    [
        (["--kernel", "5", "--stride", "3"], ["2", "3", "4"]),
        (["--pad", "1", "--stride", "3"], ["3", "4", "5"]),
        (["--kernel", "3", "--pad", "1"], ["3"]),
    ],
)
def test_what_fits_is_marked(
    given: list[str], marked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["size", "--from", "12", "--to", "4", *given, "--svg", "a.svg"]) == 0
    root = ElementTree.fromstring((tmp_path / "a.svg").read_text(encoding="utf-8"))
    bold = [text.text for text in root.iter(f"{SVG}text") if "font-weight" in text.attrib]
    assert bold[1:] == marked
