"""Finding the images of a folder before any of them is opened: layout, classes, odd files.

    photos/cat/1.jpg            class folders: the first level names the class, deeper levels belong
    photos/dog/old/2.png        to it
    photos/train/cat/1.jpg      the same below train/, and val/ (or valid/, validation/) and test/
    photos/test/dog/2.png       where train/ holds folders and no images of its own

Hidden names (a leading dot), __MACOSX, Thumbs.db and the like are passed over.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

from lanewise.data.data_set import Skipped
from lanewise.data.messages import examples, shown
from lanewise.errors import DataError, counted

EXTENSIONS = frozenset(
    ".png .jpg .jpeg .jpe .jfif .bmp .dib .gif .webp .tif .tiff".split()  # noqa: SIM905
)
PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
IGNORED = frozenset(
    ("__macosx", "thumbs.db", "desktop.ini", "__pycache__", "@eadir", "$recycle.bin", "lost+found")
)


@dataclass(frozen=True)
class Found:
    """An image file, not opened yet. `path` is relative to the scanned folder, with slashes."""

    path: str
    label: int
    size: int
    modified: int  # nanoseconds
    mode: int


@dataclass(frozen=True)
class Scan:
    """What a folder holds. `parts` maps "train", "val", "test" to files ordered by class and path.

    A folder without splits has the one part "train".
    """

    root: str
    class_names: tuple[str, ...]
    parts: dict[str, tuple[Found, ...]]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]

    def path(self, found: Found) -> str:
        """The path as the user would write it."""
        return self._prefix + (found.path if os.sep == "/" else found.path.replace("/", os.sep))

    def file_paths(self) -> list[str]:
        """All image files, part after part."""
        return [self.path(found) for files in self.parts.values() for found in files]

    @cached_property
    def _prefix(self) -> str:
        return os.path.join(self.root, "")


def scan_folder(root: str) -> Scan:
    """The class folders below `root`. Raises DataError where the layout cannot be a data set."""
    skipped: list[Skipped] = []
    folders, notes = _part_folders(root)
    classes = {part: _class_folders(folder) for part, folder in folders.items()}
    names = tuple(sorted(classes["train"]))
    for part, found in classes.items():
        _check_same_classes(root, folders, part, names, found)
        skipped += _loose_files(root, folders[part])
    _check_enough(root, folders["train"], names)
    parts = {}
    for part, found in classes.items():
        files: list[Found] = []
        for label, name in enumerate(names):
            relative = _relative(root, found[name])
            inside = list(_class_files(found[name], relative, label, skipped))
            if not inside and part != "train":
                notes.append(f"empty class folder: {relative}")
            files += inside
        parts[part] = tuple(files)
    return Scan(root, names, parts, tuple(skipped), tuple(notes))


def list_images(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Files as given; each folder's images, at any depth, sorted. The order of `paths` is kept.

    A path that does not exist is kept too: reading it then names it. Raises DataError where a
    folder holds no image, or nothing was given.
    """
    found: list[str] = []
    for given in paths:
        path = os.fspath(given)
        if not os.path.isdir(path):
            found.append(path)
            continue
        files = (entry for _, entry in _files_below(path, ""))
        inside = [file.path for file in files if _extension(file.name) in EXTENSIONS]
        if not inside:
            raise DataError(f"{shown(path)}: no images in this folder; {wanted_extensions()}")
        found += sorted(inside)
    if not found:
        raise DataError("no images were named; give files or folders")
    return found


def wanted_extensions() -> str:
    """The extensions that are read, as words for a message."""
    return "wanted .png, .jpg, .bmp, .gif, .webp or .tif"


def _part_folders(root: str) -> tuple[dict[str, str], list[str]]:
    """{"train": folder, …}: the split folders if there are, else the root alone; and notes."""
    inside = {entry.name: entry.path for entry in _entries(root) if entry.is_dir()}
    parts: dict[str, str] = {}
    for name, path in inside.items():
        part = PARTS.get(name.casefold())
        if part is None or not _holds_folders(path):
            continue
        if part in parts:
            raise DataError(
                f"{shown(root)}: both {os.path.basename(parts[part])}/ and {name}/ are folders for "
                f"{part}; keep one"
            )
        parts[part] = path
    if "train" not in parts:
        _refuse_lonely_parts(root, parts, inside)
        return {"train": root}, _passed_over(root)
    others = sorted(set(inside) - {os.path.basename(path) for path in parts.values()})
    notes = [f"beside train/, not read: {examples(others)}"] if others else []
    return {part: parts[part] for part in ("train", "val", "test") if part in parts}, notes


def _refuse_lonely_parts(root: str, parts: dict[str, str], inside: dict[str, str]) -> None:
    if parts and len(parts) == len(inside):
        found = ", ".join(f"{os.path.basename(path)}/" for path in parts.values())
        raise DataError(
            f"{shown(root)}: found {found} but no train/ with class folders in it; "
            "wanted train/cat/…, train/dog/…"
        )


def _passed_over(root: str) -> list[str]:
    names = sorted(
        entry.name for entry in _scandir(root) if entry.is_dir() and _ignored(entry.name)
    )
    return [f"folders passed over: {examples(names)}"] if names else []


def _class_folders(folder: str) -> dict[str, str]:
    return {entry.name: entry.path for entry in _entries(folder) if entry.is_dir()}


def _check_same_classes(
    root: str, folders: dict[str, str], part: str, names: tuple[str, ...], found: dict[str, str]
) -> None:
    unknown = sorted(set(found) - set(names))
    missing = sorted(set(names) - set(found))
    if not unknown and not missing:
        return
    train, other = (os.path.basename(folders[name]) for name in ("train", part))
    differences = []
    if unknown:
        differences.append(f"only in {other}/: {examples(unknown)}")
    if missing:
        differences.append(f"only in {train}/: {examples(missing)}")
    raise DataError(
        f"{shown(root)}: the classes of {train}/ and {other}/ differ ({'; '.join(differences)}); "
        "give both the same class folders (an empty one will do)"
    )


def _check_enough(root: str, folder: str, names: tuple[str, ...]) -> None:
    if len(names) > 1:
        return
    wanted = "wanted one folder per class, such as cat/ and dog/"
    if not names:
        images = [entry.name for entry in _entries(folder) if _is_image(entry)]
        if images:
            raise DataError(
                f"{shown(folder)}: found {counted(len(images), 'image')} directly in the folder "
                f"({examples(images)}) and no class folders; {wanted}: move each image into the "
                "folder of its class"
            )
        raise DataError(f"{shown(folder)}: found no class folders and no images; {wanted}")
    only = os.path.join(folder, names[0])
    hint = "add a folder for the other class"
    if len(_class_folders(only)) > 1:
        inner = examples(sorted(_class_folders(only)))
        hint = f"it holds folders itself ({inner}): did you mean {shown(only)}?"
    raise DataError(f"{shown(folder)}: found one class folder ({names[0]}); {wanted}; {hint}")


def _loose_files(root: str, folder: str) -> list[Skipped]:
    return [
        Skipped(_relative(root, entry.path), "not in a class folder")
        for entry in _entries(folder)
        if _is_image(entry)
    ]


def _class_files(folder: str, name: str, label: int, skipped: list[Skipped]) -> Iterator[Found]:
    for path, entry in sorted(_files_below(folder, name), key=itemgetter(0)):
        extension = _extension(entry.name)
        if extension not in EXTENSIONS:
            what = f"extension {extension}" if extension else "no extension"
            skipped.append(Skipped(path, f"{what} is not read, {wanted_extensions()}"))
            continue
        try:
            status = entry.stat()
        except OSError as error:
            skipped.append(Skipped(path, f"cannot be read: {error.strerror or error}"))
            continue
        yield Found(path, label, status.st_size, status.st_mtime_ns, status.st_mode)


def _files_below(folder: str, name: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """(path from `name` on, with slashes; entry) of the files in `folder` at any depth.

    Links are followed; a folder that was seen already, in a loop of links, is left.
    """
    visited: set[tuple[int, int]] = set()
    waiting = [(folder, name)]
    while waiting:
        here, prefix = waiting.pop()
        status = os.stat(here)
        if (status.st_dev, status.st_ino) in visited:
            continue
        if status.st_ino:
            visited.add((status.st_dev, status.st_ino))
        for entry in _entries(here):
            if entry.is_dir():
                waiting.append((entry.path, f"{prefix}/{entry.name}"))
            else:
                yield f"{prefix}/{entry.name}", entry


def _entries(folder: str) -> list[os.DirEntry[str]]:
    return [entry for entry in _scandir(folder) if not _ignored(entry.name)]


def _scandir(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{shown(folder)}: the folder cannot be read: {reason}") from None


def _holds_folders(folder: str) -> bool:
    entries = _entries(folder)
    return any(entry.is_dir() for entry in entries) and not any(map(_is_image, entries))


def _is_image(entry: os.DirEntry[str]) -> bool:
    return _extension(entry.name) in EXTENSIONS and not entry.is_dir()


def _ignored(name: str) -> bool:
    return name.startswith(".") or name.casefold() in IGNORED


def _extension(name: str) -> str:
    stem, dot, extension = name.rpartition(".")
    return dot + extension.casefold() if stem else ""


def _relative(root: str, path: str) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")
