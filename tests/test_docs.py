"""The pages of docs/ say what happens, and leave nothing out that they promise to tell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lanewise.cli.main import VERBS
from lanewise.flags import FLAGS
from lanewise.net.grammar import FORMS
from lanewise.net.layers import KINDS
from markdown_blocks import ROOT, RUN, Page, blocks

DOCS = sorted((ROOT / "docs").glob("*.md"))
BLOCKS = [block for page in DOCS for block in blocks(page)]


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_what_a_page_shows_happens(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page is one test: a block may need those above it, whichever worker takes it."""
    running = Page(tmp_path / "page")
    monkeypatch.chdir(running.folder)
    for block in blocks(page):
        running.run(block)


def executed(page: str) -> str:
    return "\n".join(
        block.text for block in BLOCKS if block.page.name == page and block.language in RUN
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.word)
def test_every_layer_and_every_option_is_shown_at_work(kind: type) -> None:
    form, text = FORMS[kind], executed("notation.md")
    assert re.search(rf"\b{kind.word}\b", text)
    for option in form.options:
        assert re.search(rf"\b{kind.word} [^;\"]*\b{option.word}", text) or _shared(option.word)
    for flag in form.flags:
        assert re.search(rf"\b{flag.word}\b", text)


def _shared(word: str) -> bool:
    """Options that the three windows of pooling share need be shown for one of them."""
    text = executed("notation.md")
    return bool(re.search(rf"\b(max|avg|sum)pool [^;\"]*\b{word}", text))


def test_every_flag_and_every_level_of_debug_is_told() -> None:
    text = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
    assert [name for name in FLAGS if name not in text] == []
    levels = re.findall(r"^\| (\d) \| ", text, re.MULTILINE)
    assert [int(level) for level in levels] == list(FLAGS["LANEWISE_DEBUG"].allowed or ())[1:]


def test_every_script_of_bench_is_told() -> None:
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    scripts = [file.name for file in (ROOT / "bench").glob("*.py") if _is_script(file)]
    assert len(scripts) >= 3
    assert [name for name in scripts if f"bench/{name}" not in text] == []


def _is_script(file: Path) -> bool:
    return "__main__" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_readme_or_the_docs(verb: str) -> None:
    texts = [page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *DOCS)]
    assert any(f"lanewise {verb}" in text for text in texts)
