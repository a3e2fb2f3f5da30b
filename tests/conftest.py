"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes depends on the machine's other work and on first imports, not on us.
settings.register_profile("lanewise", deadline=None, print_blob=True)
settings.load_profile("lanewise")
