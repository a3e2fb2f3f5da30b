"""Convolutional neural networks for CPUs: described, sized, compiled, trained and shown.

    import lanewise as lw

    lw.Net("lenet5").size().totals.params           # 61706
    model = lw.train("lenet5", "photos/", epochs=10)
    model.predict(["holiday.jpg"])

Here stand the public names and nothing else; each is imported when it is first used, so that
`import lanewise` starts neither numpy nor a compiler.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lanewise.api import Net, compile
    from lanewise.errors import (
        DataError,
        EngineError,
        LanewiseError,
        NetError,
        RunError,
        SizeError,
    )
    from lanewise.training.estimator import Classifier
    from lanewise.training.model import Model, load, train

__version__ = "0.1.0"

__all__ = [
    "Classifier",
    "DataError",
    "EngineError",
    "LanewiseError",
    "Model",
    "Net",
    "NetError",
    "RunError",
    "SizeError",
    "__version__",
    "compile",
    "load",
    "train",
]

_HOMES = {
    "Classifier": "lanewise.training.estimator",
    "DataError": "lanewise.errors",
    "EngineError": "lanewise.errors",
    "LanewiseError": "lanewise.errors",
    "Model": "lanewise.training.model",
    "Net": "lanewise.api",
    "NetError": "lanewise.errors",
    "RunError": "lanewise.errors",
    "SizeError": "lanewise.errors",
    "compile": "lanewise.api",
    "load": "lanewise.training.model",
    "train": "lanewise.training.model",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lanewise' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
