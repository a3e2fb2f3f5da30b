"""From a failure to a message: the cause, and the first edit of the source after which it runs.

Edits are tried on a copy in memory; the file is not touched. Where one edit leads to a next error,
that error's edits are tried on top, a few deep.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lanewise.bridge.doctor.case import Case, Cause, size
from lanewise.bridge.doctor.causes import CAUSES, making
from lanewise.bridge.doctor.edits import Edit, Source, changed_lines, first_changed_line
from lanewise.bridge.importing.network import run_on
from lanewise.bridge.importing.per_image import IMAGES
from lanewise.bridge.importing.places import Place, of_error, shown_path
from lanewise.bridge.importing.record import Call, Recording, tensors
from lanewise.bridge.importing.user_code import Built, Unmade, build
from lanewise.errors import NetError
from lanewise.net.layers import Input

_DEEPEST, _MOST_TRIALS = 3, 16


class Diagnosis(NetError):
    """The message; `fixed` is the file's text with the edit that was tried, or None."""

    fixed: str | None = None


@dataclass
class _Budget:
    trials: int = _MOST_TRIALS


def ails(notes: Recording) -> bool:
    """Whether a run failed, or its result does not hold a row for each image."""
    if notes.error is not None:
        return True
    shapes = [tuple(one.shape) for one in tensors(notes.result)]
    return bool(shapes) and any(shape[:1] != (IMAGES,) for shape in shapes)


def diagnosed(built: Built, notes: Recording, image: Input, spec: str) -> Diagnosis | None:
    """Why the module does not run on these images; None where that is not known."""
    found = _cause(built, notes, image)
    if found is None:
        return None
    case, cause = found
    text = case.source.text
    fixed = _healed(cause.remedies, case.source, spec, image, _Budget(), 0)
    place = case.call.place or case.made_at
    where = f"{place or shown_path(built.file)} {case.layer}"
    return _message(where, cause, text, fixed, shown_path(built.file))


def undone(error: Unmade, spec: str, image: Input | None) -> Diagnosis | None:
    """Why a module could not be made; None where that is not known."""
    cause_error, place = error.reason, error.place
    if place is None or place.file != error.file or not isinstance(cause_error, Exception):
        return None
    if isinstance(cause_error, SyntaxError):
        return None
    source = Source(Path(error.file).read_text(encoding="utf-8"))
    made = source.call_at(place)
    cause = making(cause_error, made, source) if made is not None else None
    if cause is None:
        return None
    where = f"{shown_path(place.file)}:{place.line} {_assigned(source, place)}".rstrip()
    fixed = None
    if image is not None:
        fixed = _healed(cause.remedies, source, spec, image, _Budget(), 0)
    return _message(where, cause, source.text, fixed, shown_path(error.file))


def _assigned(source: Source, place: Place) -> str:
    """The attribute that the line gives the module to: `conv1`."""
    line = source.text.splitlines()[place.line - 1].partition("=")[0].strip()
    return line.removeprefix("self.") if line.startswith("self.") else ""


def _message(where: str, cause: Cause, text: str, fixed: str | None, file: str) -> Diagnosis:
    told = f"{where}: {cause.told}"
    if fixed is not None:
        lines = "\n".join(f"  {line}" for line in changed_lines(text, fixed))
        told += f"; edit {file}:{first_changed_line(text, fixed)}, tried, then it runs:\n{lines}"
        told += f"\n  {cause.hint}" if cause.hint else ""
    else:
        told += f"; {cause.hint}" if cause.hint else "; no edit of one place was found that helps"
    found = Diagnosis(told)
    found.fixed = fixed
    return found


def _cause(built: Built, notes: Recording, image: Input) -> tuple[Case, Cause] | None:
    """The first call that mixes images, else the one that failed, if something is known of it."""
    source = Source(built.text)
    for call in _suspects(notes):
        rule = CAUSES.get(call.name)
        case = Case(built, notes, call, source, image)
        cause = rule(case) if rule else None
        if cause is not None:
            return case, cause
    return None


def _suspects(notes: Recording) -> Iterator[Call]:
    for call in notes.calls:
        reads = [tuple(one.shape) for one in tensors((call.args, call.kwargs))]
        whole = any(shape[:1] == (IMAGES,) and len(shape) > 1 for shape in reads)
        if whole and any(shape[:1] != (IMAGES,) for shape in call.shapes) and _mixes(call):
            yield call
            break
    if notes.failed is not None:
        yield notes.failed


def _mixes(call: Call) -> bool:
    """Whether the call moves values along the axis of the images, as few functions can."""
    return call.name in ("cat", "view", "reshape", "flatten", "__getitem__", "squeeze")


def _healed(
    remedies: tuple[tuple[Edit, ...], ...],
    source: Source,
    spec: str,
    image: Input,
    budget: _Budget,
    depth: int,
) -> str | None:
    """The first text that runs: with the edits of one remedy, and of what they bring up."""
    for edits in remedies:
        if budget.trials <= 0:
            return None
        budget.trials -= 1
        text = source.edited(edits)
        tried = _tried(text, spec, image)
        if tried is None:
            continue
        built, notes = tried
        if not ails(notes):
            return text
        if depth + 1 >= _DEEPEST:
            continue
        found = _cause(built, notes, image)
        if found is not None:
            case, cause = found
            more = _healed(cause.remedies, case.source, spec, image, budget, depth + 1)
            if more is not None:
                return more
    return None


def _tried(text: str, spec: str, image: Input) -> tuple[Built, Recording] | None:
    """A run of the edited text; None where the module cannot even be made."""
    silence = io.StringIO()
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        try:
            built = build(spec, text=text)
        except (NetError, SyntaxError):
            return None
        return built, run_on(built, image)


def explain(built: Built, notes: Recording, image: Input, spec: str) -> NetError:
    """Why a module cannot run on images of this size, by a known cause or in torch's words."""
    found = diagnosed(built, notes, image, spec)
    if found is not None:
        return found
    error = notes.error
    assert error is not None
    place = of_error(error)
    where = str(place) if place else shown_path(built.file)
    told = str(error).strip().split("\n")[0]
    if "meta tensor" in told or "no data" in told:
        remedy = "sizes are found without values: let `forward` depend on shapes alone"
    elif isinstance(error, TypeError) and "positional argument" in told:
        remedy = "networks here read one image: name a module whose `forward` takes it alone"
    else:
        shown = size((image.channels, image.height, image.width))
        remedy = f"check that it runs on images of {shown}"
    return NetError(f"{where}: {type(error).__name__}: {told}; {remedy}")
