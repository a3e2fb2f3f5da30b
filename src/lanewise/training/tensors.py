"""Named arrays in a safetensors file, with a checksum and a record of plain values.

safetensors cannot run code and finds a truncated file; the checksum (CRC-32 over all values in the
order of their names) finds the rest. Equal arrays and records give equal files.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from lanewise.errors import RunError
from lanewise.training.files import write_atomically

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]


def write_tensors(path: Path, arrays: Mapping[str, npt.NDArray[Any]], record: Any) -> None:
    """`arrays` and the JSON value `record` into `path`, atomically. RunError where that fails."""
    from safetensors.numpy import save

    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    metadata = {"format": "lanewise", "record": json.dumps(record), "crc32": _checksum(plain)}
    write_atomically(path, *_in_order(save(plain, metadata)))


def read_tensors(path: Path) -> tuple[Arrays, Any]:
    """(arrays, record) of a file that `write_tensors` wrote. RunError if it is missing or bad."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise RunError(f"{path}: no such file; {_REMEDY}")
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        record = json.loads(metadata["record"])
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise RunError(f"{path}: damaged ({error}); {_REMEDY}") from None
    if metadata.get("crc32") != _checksum(arrays):
        raise RunError(f"{path}: damaged (its values do not match their checksum); {_REMEDY}")
    return arrays, record


def check_shapes(path: Path, wanted: Mapping[str, tuple[int, ...]], arrays: Arrays) -> None:
    """RunError unless `arrays`, read from `path`, have exactly the wanted names and shapes."""
    odd = sorted(set(wanted) - set(arrays)) or sorted(set(arrays) - set(wanted))
    if odd:
        found = "is missing" if odd[0] in wanted else "is not in the net"
        raise RunError(f"{path}: {odd[0]} {found}; it belongs to another net. {_REMEDY}")
    for name, shape in wanted.items():
        if arrays[name].shape != shape or arrays[name].dtype != np.float32:
            raise RunError(
                f"{path}: {name} is {arrays[name].dtype} {_shown(arrays[name].shape)}, the net "
                f"wants float32 {_shown(shape)}; it belongs to another net. {_REMEDY}"
            )


def fill(path: Path, targets: Arrays, arrays: Arrays) -> None:
    """Copy `arrays`, read from `path`, into the arrays of the same names, or RunError."""
    check_shapes(path, {name: target.shape for name, target in targets.items()}, arrays)
    for name, target in targets.items():
        target[...] = arrays[name]


def _in_order(content: bytes) -> tuple[bytes, memoryview]:
    """(header, values) of a file with its metadata sorted: safetensors draws their order anew each
    time, and equal trainings shall leave equal files."""
    size = int.from_bytes(content[:_LENGTH], "little")
    header = json.loads(content[_LENGTH : _LENGTH + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _LENGTH)  # values begin at a multiple of 8, as the format asks
    return len(text).to_bytes(_LENGTH, "little") + text, memoryview(content)[_LENGTH + size :]


_LENGTH = 8  # bytes of the number at the start of a file: how long its header is
_REMEDY = "copy the run folder again from where it came, or train again"


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _checksum(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    value = 0
    for name in sorted(arrays):
        value = zlib.crc32(np.ascontiguousarray(arrays[name]).reshape(-1).data, value)
    return f"{value:08x}"
