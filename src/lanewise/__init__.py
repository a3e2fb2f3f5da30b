"""Convolutional neural networks for CPUs: described, sized, compiled, trained and shown."""

from __future__ import annotations

__version__ = "0.1.0"
