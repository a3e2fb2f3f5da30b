"""The code blocks of a Markdown page, run in the order in which they stand.

    ```console    `$ command` lines and what each prints (standard output and error together)
    ```pycon      Python as in a session, with what it prints
    ```python     Python that prints nothing worth showing
    ```net        a network; `<!-- file: NAME -->` on the line above writes it to a file

Console and Python blocks share a folder (a copy of examples/ is in it), the Python ones also their
names. What is printed must be exactly what stands there. Under `<!-- numbers vary -->` every number
may be another (times, speeds), but the words must be the same, and an accuracy (a percentage with
two decimals) must be within three points.

Blocks in `text`, `sh` and `markdown` are not run; other languages are an error, so that nothing is
left unchecked by a slip.
"""

from __future__ import annotations

import doctest
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUN = ("console", "pycon", "python", "net")
SHOWN = ("text", "sh", "markdown", "llvm")
VARIES = "<!-- numbers vary -->"
_FILE = re.compile(r"<!-- file: (\S+) -->")
_NUMBER = re.compile(r"-?\d[\d,]*(\.\d+)?(e[-+]?\d+)?")
_ACCURACY = re.compile(r"(\d+\.\d\d) %")
ACCURACY_TOLERANCE = 3.0


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, text, line of the page, and the comment above it."""

    page: Path
    line: int
    language: str
    text: str
    comment: str

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block of the page."""
    lines = page.read_text(encoding="utf-8").split("\n")
    number = 0
    while number < len(lines):
        if not lines[number].startswith("```"):
            number += 1
            continue
        language, begin = lines[number][3:].strip(), number + 1
        end = lines.index("```", begin)
        above = lines[number - 1] if number else ""
        text = "".join(line + "\n" for line in lines[begin:end])
        yield Block(page, begin, language, text, above.strip())
        number = end + 1


class Page:
    """Runs the blocks of one page in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, object] = {"__name__": "__main__"}
        folder.mkdir(exist_ok=True)
        shutil.copytree(ROOT / "examples", folder / "examples")
        programs = folder / ".programs"
        programs.mkdir()
        for name, command in (("lanewise", "-m lanewise"), ("python", "")):
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {command} "$@"\n')
            program.chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
            "COLUMNS": "80",
            # Nothing compiled before, whatever ran earlier: the page shows a first time.
            "LANEWISE_CACHE": str(folder / ".cache"),
        }

    def run(self, block: Block) -> None:
        """AssertionError, with the place, where the page does not say what happens."""
        assert block.language in (*RUN, *SHOWN), f"{block.place}: ```{block.language} is not known"
        if block.language == "net":
            self._net(block)
        elif block.language == "console":
            self._console(block)
        elif block.language == "pycon":
            self._session(block)
        elif block.language == "python":
            exec(compile(block.text, block.place, "exec"), self.names)

    def _net(self, block: Block) -> None:
        from lanewise.net.parse import parse
        from lanewise.size.report import size

        size(parse(block.text, block.place))
        if found := _FILE.fullmatch(block.comment):
            (self.folder / found[1]).write_text(block.text, encoding="utf-8")

    def _console(self, block: Block) -> None:
        for command, wanted in _commands(block):
            done = subprocess.run(
                command,
                shell=True,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
            )
            _compare(f"{block.place}: $ {command}", done.stdout, wanted, block.comment == VARIES)

    def _session(self, block: Block) -> None:
        test = doctest.DocTestParser().get_doctest(
            block.text, self.names, block.place, str(block.page), block.line
        )
        runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
        told: list[str] = []
        runner.run(test, out=told.append, clear_globs=False)
        self.names.update(test.globs)
        assert not runner.failures, "".join(told)


def _commands(block: Block) -> Iterator[tuple[str, str]]:
    """Each command (a line that ends in `\\` goes on) with what stands below it."""
    command, wanted = "", ""
    for line in block.text.splitlines():
        if line.startswith("$ "):
            if command:
                yield command, wanted
            command, wanted = line[2:], ""
        elif command.endswith("\\") and not wanted:
            command += "\n" + line
        else:
            assert command, f"{block.place}: a console block begins with `$ command`"
            wanted += line + "\n"
    yield command, wanted


def _compare(place: str, printed: str, wanted: str, varies: bool) -> None:
    printed, wanted = (_trimmed(text) for text in (printed, wanted))
    message = f"{place}\nprints:\n{printed}\nbut the page says:\n{wanted}"
    if not varies:
        assert printed == wanted, message
        return
    assert _words(printed) == _words(wanted), message
    for one, two in zip(_ACCURACY.findall(printed), _ACCURACY.findall(wanted), strict=True):
        assert abs(float(one) - float(two)) <= ACCURACY_TOLERANCE, message


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))


def _words(text: str) -> list[str]:
    """The text without its numbers, and without the widths that go with them."""
    return _NUMBER.sub("#", text).split()
