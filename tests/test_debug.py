"""LANEWISE_DEBUG: each level prints what it says, and those below it, on standard error."""

from __future__ import annotations

import pytest

from lanewise.flags import FLAGS
from lanewise.native import compile_net, debug
from lanewise.net.parse import parse

NET = "input 1x6x6; conv 3 k3; relu; maxpool 2; flatten; linear 4"
#: level → what only this level and those above it print
SIGNS = {
    1: "plan train: ",
    2: "multiply–adds",
    3: "named values: ",
    4: "define void @conv_forward_",
    5: "vector registers on the stack: ",
    6: "define void @run(",
}


def printed(level: int, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    patch.setenv("LANEWISE_DEBUG", str(level))
    with compile_net(parse(NET), training=True, threads=1) as program:
        assert not program.from_cache
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


@pytest.mark.parametrize("level", SIGNS)
def test_a_level_prints_itself_and_those_below(
    level: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(level, monkeypatch, capsys)
    assert {number for number, sign in SIGNS.items() if sign in text} == set(range(1, level + 1))


def test_without_it_nothing_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LANEWISE_DEBUG", raising=False)
    compile_net(parse(NET), training=True, threads=1, cache=False).close()
    assert capsys.readouterr() == ("", "")


def test_the_costs_are_those_of_the_calculus(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(2, monkeypatch, capsys)
    forward = next(line for line in text.splitlines() if line.startswith("conv_forward"))
    assert f"{16 * 3 * 4 * 4 * 9:,}" in forward.split()


def test_the_flag_allows_exactly_these_levels() -> None:
    assert list(FLAGS["LANEWISE_DEBUG"].allowed or ()) == [0, *SIGNS]
    assert max(SIGNS) == debug.ALL
