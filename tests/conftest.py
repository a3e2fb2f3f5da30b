"""Settings of all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from refusals import Refused

# PyTorch's threads cost more than they save on the small tensors of these tests. It reads this
# when it is imported, which no test module does before this one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes depends on the machine's other work and on first imports, not on us.
settings.register_profile("lanewise", deadline=None, print_blob=True)
settings.load_profile("lanewise")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled code of the tests goes neither into the user's cache nor comes from it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANEWISE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refused:
    """Runs a command line that must be refused, and gives the message."""

    from lanewise.cli.main import main

    def run(*arguments: str | Path) -> str:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert code == 2, err
        assert out == "" and err.startswith("lanewise: ") and "Traceback" not in err
        assert err.count("lanewise: ") == 1, "one message"
        return err

    return run


@pytest.fixture
def small_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training makes one step a call, and saves its state after every call."""
    from lanewise.training import keeper, loop

    monkeypatch.setattr(loop, "CALL_SECONDS", 0.0)
    monkeypatch.setattr(keeper, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(keeper, "_SHARE", 1e9)
