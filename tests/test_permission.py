"""Leave to use the matrix registers: what Linux says decides, not what the processor says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lanewise.native import permission
from lanewise.native.cache import fingerprint
from lanewise.native.precisions import multiplies_matrices
from matrix_targets import with_matrices


class Kernel18:
    """A Linux that answers as told: what it keeps, whether it gives leave, what it then allows."""

    def __init__(self, keeps: int | None, gives: bool, allows: int) -> None:
        self.keeps, self.gives, self.allows = keeps, gives, allows
        self.asked: list[int] = []

    def mask(self, question: int) -> int | None:
        return self.keeps if question == 0x1021 else self.allows

    def answer(self, code: int, argument: int) -> int:
        self.asked.append(code)
        assert (code, argument) == (0x1023, 18)
        return 0 if self.gives else -1


BOTH = 3 << 17


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    permission.ask.cache_clear()
    monkeypatch.setattr(permission.sys, "platform", "linux")
    monkeypatch.setattr(permission.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(permission, "ask", permission.ask.__wrapped__)


@pytest.mark.parametrize(
    ("linux", "leave"),
    [
        (Kernel18(BOTH | 7, True, BOTH | 7), True),
        (Kernel18(None, True, BOTH), False),  # older than 5.16: the question is unknown
        (Kernel18(7, True, BOTH), False),  # the hypervisor withholds the registers
        (Kernel18(1 << 18, True, BOTH), False),
        (Kernel18(BOTH, False, 7), False),  # a thread's signal stack is too small, say
        (Kernel18(BOTH, True, 1 << 17), False),  # it agrees, yet does not allow
    ],
)
def test_linux_is_asked(
    linux: Kernel18, leave: bool, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the processor says alone is not enough; what is refused is not compiled, either."""
    monkeypatch.setattr(permission, "_mask", linux.mask)
    monkeypatch.setattr(permission, "_arch_prctl", linux.answer)
    target = with_matrices("sapphirerapids")
    allowed = permission.permitted(target)
    assert multiplies_matrices(allowed) is leave
    if not leave:
        assert "-amx-tile" in allowed.features and "+amx" not in allowed.features
        assert allowed.has("avx512bf16")
    keys = {fingerprint("input 1x3x3\n", {}, one) for one in (target, allowed)}
    assert len(keys) == (1 if leave else 2)


def test_processors_without_matrices_ask_nothing(
    fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    linux = Kernel18(BOTH, True, BOTH)
    monkeypatch.setattr(permission, "_mask", linux.mask)
    monkeypatch.setattr(permission, "_arch_prctl", linux.answer)
    target = with_matrices("znver4", "amx-tile", "amx-bf16")
    assert permission.permitted(target) is target and not linux.asked
    other = replace(with_matrices("sapphirerapids"), native=False)
    assert not multiplies_matrices(permission.permitted(other)) and not linux.asked


def test_other_systems_are_not_asked(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permission.sys, "platform", "darwin")
    assert not permission.ask()


def test_this_system_answers() -> None:
    """Whatever it says, it says it twice, and never that it allows what it does not keep."""
    permission.ask.cache_clear()
    said = permission.ask()
    permission.ask.cache_clear()
    assert permission.ask() is said
