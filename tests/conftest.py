"""Settings of all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

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
