"""Words of this room's messages: names that can be printed anywhere, and short lists of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lanewise.errors import counted as counted


def shown(text: str) -> str:
    """`text` with what cannot be encoded (an undecodable file name) as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def examples(names: Sequence[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    listed = ", ".join(shown(name) for name in names[:most])
    return listed if len(names) <= most else f"{listed} and {len(names) - most:,} more"


def warn(message: str) -> None:
    """A line on standard error; standard output belongs to results."""
    print(f"lanewise: {message}", file=sys.stderr)
