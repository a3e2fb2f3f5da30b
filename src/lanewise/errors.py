"""The exceptions of Lanewise: each message says where, with which values, and what to do.

    LanewiseError
    ├── NetError     (ValueError)  the text or graph of a network is wrong
    ├── SizeError    (ValueError)  the network is well written, but its sizes cannot exist
    ├── DataError    (ValueError)  images, labels or a data set are unusable
    ├── RunError                   a run folder is missing, damaged or cannot be written
    └── EngineError                the compiled engine cannot do what is asked on this machine

Everything a user can cause derives from `LanewiseError`; the command line prints the message and
leaves with exit code 2. Any other exception that reaches the top is a bug in Lanewise (code 1).
"""

from __future__ import annotations


class LanewiseError(Exception):
    """Base of every error that the user's input or machine can cause."""


class NetError(LanewiseError, ValueError):
    """A network's description is wrong: unknown word, missing number, impossible order."""


class SizeError(LanewiseError, ValueError):
    """A network's sizes cannot exist; the message shows the layer, its numbers and a remedy."""


class DataError(LanewiseError, ValueError):
    """A data set, an image or an array of labels cannot be used."""


class RunError(LanewiseError):
    """A run folder is missing a file, holds a damaged one, or cannot be written."""


class EngineError(LanewiseError):
    """The engine cannot compile or run here: missing CPU feature, missing kernel, wrong shapes."""


def require(package: str, name: str, extra: str) -> None:
    """Raise a LanewiseError that names the pip command if an optional package is not installed."""
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise LanewiseError(
            f"this needs {name}, which is not installed; run: pip install 'lanewise[{extra}]'"
        )


# ---- words of messages --------------------------------------------------------------------------


def counted(number: int, word: str, plural: str = "") -> str:
    """ "1 image", "1,200 images"."""
    return f"{number:,} {word if number == 1 else plural or word + 's'}"


def a_kind(thing: object) -> str:
    """What a thing is, with its article: "an int", "a Tensor"."""
    name = type(thing).__name__
    return f"{'an' if name[0] in 'aeiouAEIO' else 'a'} {name}"
