"""What the verbs share of the screen: its width, and the printing of one JSON document."""

from __future__ import annotations

import os
import sys
from typing import Any

# Where standard output is no terminal.
USUAL_WIDTH = 80


def width() -> int:
    """Columns of the terminal: COLUMNS if it is set, else asked, else 80."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or USUAL_WIDTH
    except (OSError, ValueError):
        return USUAL_WIDTH


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    import json

    text = json.dumps(document, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # escaped, no letter is lost: not so where it becomes a `?`
        text = json.dumps(document, indent=2)
    print(text)
