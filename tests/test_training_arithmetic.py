"""Exact and bf16 runs, interrupted and resumed on the command line: the bits of an unbroken run."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from lanewise.cli.main import main
from lanewise.native.program import Program
from lanewise.training.run_folder import STATE, WEIGHTS
from lanewise.training.tensors import read_tensors

# Its second convolution goes by Winograd's algorithm unless it must not.
NET = "input 1x8x8; conv 16 k3 pad1; bn; relu; conv 16 k3 pad1; relu; flatten; linear 10"
ARITHMETIC = {"exact": ["--exact"], "bf16": ["--precision", "bf16"], "plain": []}
TRAIN = ["train", "digits", "--net", NET, "--batch", "256", "--epochs", "2", "--quiet"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("unbroken")
    for name, arguments in ARITHMETIC.items():
        assert main([*TRAIN, *arguments, "--run", str(folder / name)]) == 0
    return {name: _bits(folder / name) for name in ARITHMETIC}


def _bits(folder: Path) -> dict[str, bytes]:
    """Everything that is kept: last and best weights, statistics, the optimizer's state."""
    last, best = (read_tensors(folder / file)[0] for file in (STATE, WEIGHTS))
    arrays = last | {f"best {name}": array for name, array in best.items()}
    return {name: array.tobytes() for name, array in arrays.items()}


def _interrupt_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """As if Ctrl-C were pressed in a native call."""
    run_steps, left = Program.run_steps, [calls]

    def interrupted(self: Program, *given: Any, **settings: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGINT)
        return run_steps(self, *given, **settings)

    monkeypatch.setattr(Program, "run_steps", interrupted)


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill ends the process there")
@pytest.mark.usefixtures("small_calls")
@pytest.mark.parametrize("calls", [3, 8])
@pytest.mark.parametrize("name", ["exact", "bf16"])
def test_interrupted_and_resumed_the_bits_are_those_of_an_unbroken_run(
    name: str, calls: int, unbroken: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    """Six steps make an epoch: stopped in the first and in the second."""
    run = str(tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        _interrupt_after(patch, calls)
        assert main([*TRAIN, *ARITHMETIC[name], "--run", run, "--threads", "1"]) == 130
    assert main(["train", "--resume", run, "--quiet", "--threads", "2"]) == 0
    assert _bits(Path(run)) == unbroken[name]


def test_the_three_arithmetics_differ(unbroken: dict[str, dict[str, bytes]]) -> None:
    weights = [tuple(sorted(bits.items())) for bits in unbroken.values()]
    assert len(set(weights)) == 3
