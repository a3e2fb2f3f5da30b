"""The environment variables: defaults, allowed values, messages."""

from __future__ import annotations

import pytest

from lanewise import flags
from lanewise.errors import LanewiseError


@pytest.mark.parametrize("name", sorted(flags.FLAGS))
def test_a_flag_that_is_not_set_has_its_default(name: str) -> None:
    assert flags.value(name, {}) == flags.FLAGS[name].default
    assert flags.value(name, {name: " "}) == flags.FLAGS[name].default


def test_numbers_come_as_numbers_and_words_as_words() -> None:
    assert flags.value("LANEWISE_CHECK", {"LANEWISE_CHECK": "0"}) == 0
    assert flags.value("LANEWISE_DEBUG", {"LANEWISE_DEBUG": "6"}) == 6
    assert flags.value("LANEWISE_TARGET", {"LANEWISE_TARGET": "AVX2"}) == "avx2"
    assert flags.value("LANEWISE_CACHE", {"LANEWISE_CACHE": "/some/Folder"}) == "/some/Folder"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("LANEWISE_TARGET", "sse9", "host, avx512, avx2, neon"),
        ("LANEWISE_CHECK", "2", "0 to 1"),
        ("LANEWISE_CHECK", "yes", "0 to 1"),
        ("LANEWISE_DEBUG", "-1", "0 to 6"),
        ("LANEWISE_THREADS", "1.5", "0 to 1024"),
        ("LANEWISE_THREADS", "²", "0 to 1024"),
    ],
)
def test_a_wrong_value_is_refused_with_the_allowed_ones(name: str, text: str, told: str) -> None:
    with pytest.raises(LanewiseError) as caught:
        flags.value(name, {name: text})
    assert name in str(caught.value) and text in str(caught.value) and told in str(caught.value)


def test_a_misspelt_variable_is_noticed() -> None:
    flags.check_environment({"HOME": "/", "LANEWISE_DEBUG": "1"})
    with pytest.raises(LanewiseError, match="did you mean LANEWISE_THREADS"):
        flags.check_environment({"LANEWISE_THREAD": "2"})
    with pytest.raises(LanewiseError, match="may be"):
        flags.check_environment({"LANEWISE_DEBUG": "7"})


def test_the_description_names_every_flag_and_fits_the_screen() -> None:
    text = flags.describe()
    assert all(name in text for name in flags.FLAGS)
    assert max(map(len, text.splitlines())) <= 100
