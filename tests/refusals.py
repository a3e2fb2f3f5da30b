"""Short trainings, and command lines that must be refused."""

from __future__ import annotations

from collections.abc import Callable

NET = "input 1x8x8; conv 8 k3 pad1; relu; maxpool 2; flatten; linear 10"
SHORT = ["--net", NET, "--epochs", "1", "--quiet"]

Refused = Callable[..., str]
