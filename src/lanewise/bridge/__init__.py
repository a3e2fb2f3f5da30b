"""PYTORCH: nets as torch modules, weights both ways, and the oracle that judges the engine.

Here live the views that need another framework. May import net, size and native. torch is imported
inside functions only, so that `import lanewise.bridge` costs nothing and works without it.
"""

from __future__ import annotations

from lanewise.errors import require


def require_torch() -> None:
    """Raise a LanewiseError that names the pip command if PyTorch is not installed."""
    require("torch", "PyTorch", "torch")


def require_onnx() -> None:
    """Raise a LanewiseError that names the pip command if onnx is not installed."""
    require("onnx", "onnx", "onnx")
