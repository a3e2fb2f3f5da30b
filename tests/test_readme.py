"""README.md says what happens: every block is run, every figure of a network is exact."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from markdown_blocks import ROOT, Block, Page, _compare, blocks

README = ROOT / "README.md"
BLOCKS = list(blocks(README))


def test_what_the_readme_shows_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One test: a block may need those above it, whichever worker takes it."""
    page = Page(tmp_path / "page")
    monkeypatch.chdir(page.folder)
    for block in BLOCKS:
        page.run(block)


def test_something_is_run_and_compared() -> None:
    languages = [block.language for block in BLOCKS]
    assert languages.count("net") >= 1
    assert languages.count("console") >= 3
    assert languages.count("pycon") >= 1


def test_the_two_commands_of_the_gate_are_there() -> None:
    """.ci/run takes the lines that begin with `pip install`, and wants two."""
    found = re.findall(r"^pip install.*$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(found) == 2
    assert "lanewise train" in found[0]
    assert "pytest" in found[1]


def test_every_file_it_speaks_of_is_there() -> None:
    text = README.read_text(encoding="utf-8")
    named = set(re.findall(r"\]\(([\w./-]+)\)", text)) | set(
        re.findall(r"`((?:src|bench|docs|examples|fuzz|tests)/[\w./-]*)`", text)
    )
    assert len(named) >= 5
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_room_is_on_its_map() -> None:
    text = README.read_text(encoding="utf-8")
    package = ROOT / "src" / "lanewise"
    rooms = [folder.name for folder in package.iterdir() if (folder / "__init__.py").is_file()]
    assert [room for room in rooms if f"{room}/" not in text] == []


def test_the_marks_of_the_measured_table_are_there() -> None:
    text = README.read_text(encoding="utf-8")
    begin, end = text.index("<!-- measured -->\n"), text.index("<!-- end of measured -->\n")
    assert "| LeNet-5, step of 128 |" in text[begin:end]


@pytest.mark.parametrize(
    ("printed", "wanted", "varies"),
    [
        ("params 61,706\n", "params 61,707\n", False),
        ("a\nb\n", "a\n", False),
        ("test 97.22 % in 3 s", "test 90.00 % in 4 s", True),
        ("seen 3 images", "saw 3 images", True),
        ("seen 3 images", "seen 3 images and more", True),
    ],
)
def test_a_page_that_is_wrong_is_found(printed: str, wanted: str, varies: bool) -> None:
    with pytest.raises(AssertionError, match="but the page says"):
        _compare("here", printed, wanted, varies)


def test_numbers_that_vary_may_vary() -> None:
    _compare("here", "test  97.22 % in 3 s, 1,234 img/s\n", "test 98.89 % in 10 s, 9 img/s", True)


def test_a_session_that_is_wrong_is_found(tmp_path: Path) -> None:
    bad = Block(Path("made-up.md"), 1, "pycon", ">>> 1 + 1\n3\n", "")
    with pytest.raises(AssertionError, match="Expected"):
        Page(tmp_path / "page").run(bad)
