"""A Keras model from the user's own file, or from an archive that Keras wrote.

Keras is imported only for them. The archive (`model.keras`) is read by Keras itself in its safe
mode, so that nothing of it is run; the user's file is imported, which runs it.
"""

from __future__ import annotations

import io
import os
import re
import sys
import tokenize
import zipfile
from contextlib import redirect_stdout
from importlib.util import find_spec
from typing import Any

from lanewise.bridge.importing import user_code
from lanewise.bridge.importing.keras_model import import_model
from lanewise.bridge.importing.network import Imported
from lanewise.bridge.importing.places import shown_path
from lanewise.errors import NetError, a_kind
from lanewise.net.layers import Input

ARCHIVE = ".keras"
_IMPORTS = re.compile(r"^\s*(?:from|import)\s+(?:keras|tensorflow|tf_keras)\b", re.MULTILINE)
_TORCH = re.compile(r"^\s*(?:from|import)\s+torch\b", re.MULTILINE)
# What Keras can compute with, its own choice first: a package's name is the backend's.
_BACKENDS = ("tensorflow", "jax", "torch")


def speaks_keras(spec: str) -> bool:
    """Whether the file of `file.py:attribute` imports Keras, and not PyTorch besides."""
    path = user_code.split(spec)[0]
    try:
        with tokenize.open(path) as opened:
            text = opened.read()
    except (OSError, SyntaxError, UnicodeDecodeError):
        return False
    return bool(_IMPORTS.search(text)) and not _TORCH.search(text)


def import_archive(path: str, image: Input | None) -> Imported:
    """The network of a `.keras` file, for its own image or another. NetError with a remedy where it
    is none, or holds what Keras does not load in its safe mode."""
    if not os.path.isfile(path):
        raise NetError(f"{path}: no such file; give a .keras file, a .net file or a zoo name")
    if not zipfile.is_zipfile(path):
        raise NetError(f"{path}: is no Keras archive; save the model again, by model.save(…)")
    _require_keras(path)
    import keras

    try:
        with redirect_stdout(sys.stderr):
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        told = _first_line(error)
        raise NetError(
            f"{path}: Keras cannot load it: {told}; save the model again, and where it has classes "
            "of your own give the file that makes it, like models.py:model"
        ) from None
    return import_model(model, path, path, os.path.basename(path), image)


def import_code(spec: str, image: Input | None) -> Imported:
    """The network of `file.py:attribute`: a Keras model, or a function without arguments that makes
    one. NetError as PyTorch's modules give it."""
    path, _, attribute = user_code.split(spec)
    _require_keras(path)
    found = user_code.made(spec, "a keras.Model", _candidates)
    import keras

    if not isinstance(found, keras.Model):
        raise NetError(
            f"{spec}: is {a_kind(found)}; name a keras.Model or a function that makes one"
        )
    title = f"{os.path.basename(path)}:{attribute}" if attribute else os.path.basename(path)
    return import_model(found, spec, shown_path(os.path.abspath(path)), title, image)


def _candidates(source: Any) -> list[str]:
    import keras

    return [name for name, value in vars(source).items() if isinstance(value, keras.Model)]


def _require_keras(path: str) -> None:
    """NetError with the pip command if Keras is not installed, or has nothing to compute with."""
    remedy = "run: pip install keras, and set KERAS_BACKEND=torch to let it use PyTorch"
    if find_spec("keras") is None:
        raise NetError(f"{path}: this needs Keras, which is not installed; {remedy}")
    _choose_backend()
    try:
        with redirect_stdout(io.StringIO()):
            import keras
    except ImportError as error:
        told = _first_line(error)
        raise NetError(f"{path}: Keras cannot be imported ({told}); {remedy}") from None
    if not hasattr(keras, "KerasTensor"):
        raise NetError(f"{path}: Keras {keras.__version__} is too old; run: pip install -U keras")


def _choose_backend() -> None:
    """Where neither KERAS_BACKEND nor Keras' settings name one, the first that is installed: sizes
    are the same with all of them."""
    if "KERAS_BACKEND" in os.environ or "keras" in sys.modules:
        return
    home = os.environ.get("KERAS_HOME", os.path.expanduser("~/.keras"))
    try:
        with open(os.path.join(home, "keras.json"), encoding="utf-8") as opened:
            configured = next((b for b in _BACKENDS if f'"{b}"' in opened.read()), "tensorflow")
    except OSError:
        configured = "tensorflow"
    installed = [name for name in (configured, *_BACKENDS) if find_spec(name) is not None]
    if installed:
        os.environ["KERAS_BACKEND"] = installed[0]


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
