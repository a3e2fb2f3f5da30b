"""Where in the user's own source something happens: the innermost call that is neither a
framework's nor ours, to the character."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from itertools import islice
from types import CodeType, FrameType, TracebackType

_OURS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@dataclass(frozen=True)
class Place:
    """A piece of a source file: lines from 1, columns from 0 in bytes, the end excluded."""

    file: str
    line: int
    column: int = 0
    end_line: int = 0
    end_column: int = 0

    def __str__(self) -> str:
        return f"{shown_path(self.file)}:{self.line}"


def shown_path(file: str) -> str:
    """The path as short as the user would write it."""
    near = os.path.relpath(file)
    return file if near.startswith(os.pardir) else near


def here(frame: FrameType | None) -> Place | None:
    """The place of the innermost user's call above `frame`, which is ours, and below the next of
    ours; None where PyTorch calls itself all the way."""
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    while frame is not None and not frame.f_code.co_filename.startswith(_OURS):
        if _is_users(frame.f_code):
            return _place(frame.f_code, frame.f_lasti, frame.f_lineno)
        frame = frame.f_back
    return None


def of_error(error: BaseException) -> Place | None:
    """The place of the innermost user's call that the error came through; of a syntax error, the
    place of it."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return Place(error.filename, error.lineno)
    found = None
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if _is_users(code):
            found = _place(code, trace.tb_lasti, trace.tb_lineno)
        trace = trace.tb_next
    return found


def _is_users(code: CodeType) -> bool:
    file = code.co_filename
    if file.startswith("<"):
        return False
    return not file.startswith((_OURS, *_frameworks())) and "importlib" not in file


def _frameworks() -> list[str]:
    """The folders of the frameworks that the user's file has imported."""
    found = [sys.modules.get(name) for name in ("torch", "keras")]
    return [os.path.dirname(one.__file__) for one in found if one and one.__file__]


def _place(code: CodeType, instruction: int, line: int) -> Place:
    position = next(islice(code.co_positions(), instruction // 2, None), None)
    if position is None or None in position:
        return Place(code.co_filename, line)
    first, last, column, end = position
    assert first is not None and last is not None and column is not None and end is not None
    return Place(code.co_filename, first, column, last, end)
