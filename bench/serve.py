"""One contender in a process of its own: builds, compares, then waits for its turns.

    python bench/serve.py FOLDER MODULE

`served.py` starts it and is the only one who does. It answers with one line of JSON: what it
computed stands in FOLDER, or why it cannot take part. Then each line of its input is a number of
repetitions, and the answer how many seconds they took, measured here.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TextIO

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]


def main() -> int:
    """Serve until the input ends."""
    folder, name = Path(sys.argv[1]), sys.argv[2]
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not stand among the answers
    try:
        contender = import_module(f"peers.{name}")
        ready = getattr(contender, _kind(folder))(_work(folder))
    except ImportError as error:
        return _refuse(out, f"{error}; run: pip install 'lanewise[peers]'")
    except Exception as error:
        lines = str(error).strip().splitlines()
        return _refuse(out, f"{type(error).__name__}: {lines[0][:160] if lines else ''}")
    import numpy as np

    np.savez(folder / "outcome.npz", **ready.outcome)
    _tell(out, {"ready": True, "versions": _versions(contender.PACKAGES)})
    for line in sys.stdin:
        times = int(line)
        begin = time.perf_counter()
        ready.run(times)
        _tell(out, {"seconds": time.perf_counter() - begin})
    return 0


def _work(folder: Path) -> Any:
    from peers.work import read

    return read(folder)


def _kind(folder: Path) -> str:
    told = json.loads((folder / "work.json").read_text(encoding="utf-8"))
    return str(told["kind"])


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _refuse(out: TextIO, reason: str) -> int:
    _tell(out, {"ready": False, "reason": reason})
    return 1


def _tell(out: TextIO, answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # thread pools of others may not end by themselves
