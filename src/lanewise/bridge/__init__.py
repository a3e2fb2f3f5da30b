"""PYTORCH: nets as torch modules, weights both ways, and the oracle that judges the engine.

Here live the views that need another framework. May import net, size and native. torch is imported
inside functions only, so that `import lanewise.bridge` costs nothing and works without it.
"""

from __future__ import annotations

from importlib.util import find_spec

from lanewise.errors import LanewiseError


def require_torch() -> None:
    """Raise a LanewiseError that names the pip command if PyTorch is not installed."""
    if find_spec("torch") is None:
        raise LanewiseError(
            "this needs PyTorch, which is not installed; run: pip install 'lanewise[torch]'"
        )
