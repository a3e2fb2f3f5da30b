"""Imports point one way, and the description and the calculus stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lanewise

PACKAGE = Path(lanewise.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

BASE = {"errors", "flags"}
# Room → the rooms it may import, itself aside. A module right in the package is a room of its own.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "flags": {"errors"},
    "net": BASE,
    "size": BASE | {"net"},
    "native": BASE | {"net", "size"},
    "bridge": BASE | {"net", "size", "native"},
    "data": BASE,
    "training": BASE | {"net", "size", "native", "data", "api"},
    "see": BASE | {"net", "size", "native", "data", "training"},
    "ship": BASE | {"net", "size", "native", "bridge", "data", "training"},
    "api": BASE | {"net", "size", "native", "bridge"},
    "": {"api", "errors", "training"},
}
MAY_IMPORT["cli"] = {room for room in MAY_IMPORT if room != "cli"} | {"lanewise"}
MAY_IMPORT["__main__"] = {"cli"}

# Heavy packages and the only rooms that may name them.
ONLY_IN = {"torch": {"bridge"}, "llvmlite": {"native"}}
STANDARD_ONLY = {"", "api", "errors", "flags", "net", "size"}
# Its classes are torch's subclasses; nobody may import it but inside a function.
NEEDS_TORCH = "lanewise.bridge.torch_layers"


def room_of(file: Path) -> str:
    """`size` for size/axis.py, `errors` for errors.py, "" for the package's own __init__.py."""
    first = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """(full module name, line) of every import, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are written in full"
            module = node.module or ""
            for name in node.names:
                yield f"{module}.{name.name}" if module == "lanewise" else module, node.lineno


def at_import_time(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements that run when the module is imported."""
    for statement in tree.body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            continue
        yield statement


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def target_room(module: str) -> str:
    """The room that `lanewise.x.y` belongs to; plain names of the package itself are ""."""
    first = module.partition(".")[2].split(".")[0]
    known = first and ((PACKAGE / first).is_dir() or (PACKAGE / f"{first}.py").is_file())
    return first if known else "lanewise"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_rooms_import_one_way(file: Path) -> None:
    room = room_of(file)
    assert room in MAY_IMPORT, f"{room} is a new room: say here what it may import"
    for module, line in imported(parsed(file)):
        if module.split(".")[0] != "lanewise" or module == "lanewise.__version__":
            continue
        target = target_room(module)
        assert target == room or target in MAY_IMPORT[room], (
            f"{file.name}:{line}: {room or 'lanewise'} may not import {module} "
            "(only the command line and users take the public names; __version__ is free)"
        )


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_heavy_packages_stay_in_their_rooms(file: Path) -> None:
    room = room_of(file)
    tree = parsed(file)
    for module, line in imported(tree):
        package = module.split(".")[0]
        allowed = ONLY_IN.get(package, {room})
        assert room in allowed, f"{file.name}:{line}: {package} belongs into {allowed}"
        if room in STANDARD_ONLY:
            light = package == "lanewise" or package in sys.stdlib_module_names
            assert light, f"{file.name}:{line}: {room or 'lanewise'} has the standard library only"
    if file.stem == NEEDS_TORCH.rpartition(".")[2]:
        return
    for statement in at_import_time(tree):
        for module, line in imported(statement):
            heavy = module.split(".")[0] == "torch" or module == NEEDS_TORCH
            assert not heavy, f"{file.name}:{line}: torch inside functions"


@pytest.mark.parametrize(
    ("room", "code", "found"),
    [
        ("net", "import lanewise.size.axis", "size"),
        ("net", "def f():\n    from lanewise.size import axis", "size"),
        ("data", "from lanewise import native", "native"),
        ("size", "from lanewise import train", "lanewise"),
        ("training", "import lanewise", "lanewise"),
    ],
)
def test_an_import_against_the_order_is_found(room: str, code: str, found: str) -> None:
    ((module, _),) = imported(ast.parse(code))
    assert target_room(module) == found
    assert found not in MAY_IMPORT[room]


def test_the_order_of_rooms_has_no_circle() -> None:
    def reach(room: str, seen: tuple[str, ...] = ()) -> None:
        assert room not in seen, " → ".join((*seen, room))
        for target in MAY_IMPORT.get(room, ()):
            reach(target, (*seen, room))

    for room in MAY_IMPORT:
        reach(room)


@pytest.mark.parametrize(
    "file",
    [file for file in FILES if file.name == "__init__.py"],
    ids=lambda file: str(file.relative_to(PACKAGE)),
)
def test_every_room_says_what_may_live_in_it(file: Path) -> None:
    docstring = ast.get_docstring(parsed(file))
    assert docstring
    if file.parent.parent == PACKAGE:
        assert "import" in docstring.lower()


HEAVY = ("numpy", "llvmlite", "torch", "sklearn", "PIL", "rich", "safetensors", "asyncio", "socket")


def loaded_after(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter has loaded after `code`."""
    program = f"import sys\n{code}\nprint('\\n', *(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import lanewise; dir(lanewise)",
        "import lanewise; lanewise.Net('lenet5').size(); lanewise.SizeError",
        "from lanewise.cli.main import main; main(['size', 'lenet5'])",
        "from lanewise.cli.main import main; main(['size', 'lenet5', '--json'])",
        "from lanewise.cli.main import main; main(['nets'])",
        "from lanewise.cli.main import main; main(['size', 'lenet6'])",
    ],
)
def test_light_things_load_nothing_heavy(code: str) -> None:
    assert loaded_after(code) == set()


def test_the_check_of_heavy_packages_can_fail() -> None:
    assert loaded_after("import numpy") == {"numpy"}


def test_importing_starts_no_thread() -> None:
    code = "import threading, lanewise; assert threading.active_count() == 1"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names() -> None:
    assert set(lanewise.__all__) == {*lanewise._HOMES, "__version__"}
    assert set(lanewise.__all__) <= set(dir(lanewise))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        lanewise.nothing  # noqa: B018


@pytest.mark.parametrize("name", lanewise.__all__)
def test_every_public_name_is_there_and_stays_the_same(name: str) -> None:
    value = getattr(lanewise, name)
    assert value is getattr(lanewise, name)
    assert isinstance(value, str) or callable(value)
