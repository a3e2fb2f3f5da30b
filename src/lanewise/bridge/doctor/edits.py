"""Edits of a source file, found by the place of a call: to the byte, so that nothing else of the
file changes."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import unified_diff

from lanewise.bridge.importing.places import Place


@dataclass(frozen=True)
class Edit:
    """Bytes `start` to `end` become `new`."""

    start: int
    end: int
    new: str


class Source:
    """A file's text, its tree, and where in the bytes each node stands."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.data = text.encode()
        self.tree = ast.parse(text)
        self._starts = [0]
        for line in self.data.split(b"\n"):
            self._starts.append(self._starts[-1] + len(line) + 1)

    def node_at(self, place: Place | None) -> ast.AST | None:
        """The expression or statement that stands exactly at a place."""
        if place is None or not place.end_line:
            return None
        wanted = (place.line, place.column, place.end_line, place.end_column)
        found = [n for n in ast.walk(self.tree) if hasattr(n, "lineno") and _position(n) == wanted]
        return found[-1] if found else None

    def call_at(self, place: Place | None) -> ast.Call | None:
        """The call that stands at a place."""
        node = self.node_at(place)
        return node if isinstance(node, ast.Call) else None

    def shown(self, node: ast.AST) -> str:
        """The node as it is written."""
        start, end = self.span(node)
        return self.data[start:end].decode()

    def span(self, node: ast.AST) -> tuple[int, int]:
        """The node's bytes."""
        line, column, end_line, end_column = _position(node)
        return self._starts[line - 1] + column, self._starts[end_line - 1] + end_column

    def replaced(self, node: ast.AST, new: str) -> Edit:
        """Another text for a node."""
        return Edit(*self.span(node), new)

    def with_argument(self, call: ast.Call, place: int, name: str, new: str) -> Edit:
        """Another value for an argument; one that is left out is said by its name."""
        found = argument(call, place, name)
        if found is not None:
            return self.replaced(found, new)
        end = self.span(call)[1] - 1
        empty = not call.args and not call.keywords
        return Edit(end, end, f"{name}={new}" if empty else f", {name}={new}")

    def line_after(self, node: ast.AST, new: str) -> Edit:
        """A line behind the statement that holds a node, as far indented."""
        statement = self._statement(node)
        indent = " " * statement.col_offset
        end = self.span(statement)[1]
        return Edit(end, end, f"\n{indent}{new}")

    def _statement(self, node: ast.AST) -> ast.stmt:
        start, end = self.span(node)
        around = [
            one
            for one in ast.walk(self.tree)
            if isinstance(one, ast.stmt) and self.span(one)[0] <= start and self.span(one)[1] >= end
        ]
        return min(around, key=lambda one: self.span(one)[1] - self.span(one)[0])

    def edited(self, edits: Sequence[Edit]) -> str:
        """The text with the edits made."""
        data = self.data
        for edit in sorted(edits, key=lambda one: -one.start):
            data = data[: edit.start] + edit.new.encode() + data[edit.end :]
        return data.decode()


def _position(node: ast.AST) -> tuple[int, int, int, int]:
    return (
        getattr(node, "lineno", 0),
        getattr(node, "col_offset", 0),
        getattr(node, "end_lineno", 0) or 0,
        getattr(node, "end_col_offset", 0) or 0,
    )


def argument(call: ast.Call, place: int, name: str) -> ast.expr | None:
    """An argument by its place or its name."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    plain = not any(isinstance(one, ast.Starred) for one in call.args[: place + 1])
    return call.args[place] if place < len(call.args) and plain else None


def changed_lines(before: str, after: str) -> list[str]:
    """The lines that differ: `- old` and `+ new`, without the spaces they all begin with."""
    found = unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    lines = [line for line in found if line[:3] not in ("---", "+++") and line[0] in "-+"]
    return [f"{line[0]} {line[1:].strip()}" for line in lines]


def first_changed_line(before: str, after: str) -> int:
    """The number of the first line that is another."""
    for number, (one, other) in enumerate(
        zip(before.splitlines(), after.splitlines(), strict=False), 1
    ):
        if one != other:
            return number
    return len(before.splitlines())
