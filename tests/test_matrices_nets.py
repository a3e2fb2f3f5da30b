"""Whole networks by small matrices of bf16 (AMX): written out, and as machine code."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from lanewise.native import Program, compile_net, matrix_ways
from lanewise.native.kernels.correlation import Correlation
from lanewise.native.kernels.matrix_conv import (
    MatrixTile,
)
from lanewise.native.kernels.matrix_gradient import GradientSizes
from lanewise.native.target import Target, read_host
from lanewise.net.parse import parse
from matrix_targets import with_matrices


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices wherever they are possible; they are written out where the processor has none."""

    def tile(target: Target, sizes: Correlation, winograd: object = None) -> MatrixTile | None:
        return matrix_ways._tiles(sizes)[0] if sizes.groups == 1 else None

    def rows(target: Target, sizes: GradientSizes, winograd: object = None) -> int | None:
        return 2 if sizes.possible else None

    monkeypatch.setattr("lanewise.native.rules.convolution.matrix_tile", tile)
    monkeypatch.setattr("lanewise.native.rules.matrices.gradient_rows", rows)


def compiled(text: str, **options: object) -> Program:
    choices = {"training": True, "input_gradient": True, "cache": False, **options}
    return compile_net(parse(text), precision="bf16", **choices)


NETS = {
    "3 × 3, odd numbers": "input 5x7x6; conv 17 k3 pad1; relu; conv 9 k3; relu; conv 3 k2; flatten",
    "points": "input 8x7x6; conv 12 k1; relu; conv 33 k1 stride2; relu; conv 9 k1; flatten",
    "strides": "input 3x11x9; conv 6 k3 stride2 pad1; bn; relu; conv 5 k5 stride3 pad2; flatten",
    "residual": "input 8x6x6; residual { conv 8 k1; relu; conv 8 k3 pad1 }; flatten; linear 3",
    "winograd's": "input 32x9x9; conv 34 k3 pad1; relu; maxpool 2; conv 18 k3 pad1; flatten",
}


@pytest.mark.parametrize("name", NETS)
def test_nets_against_torch(name: str, everywhere: None) -> None:
    pytest.importorskip("torch", reason="the oracle needs PyTorch (extra `torch`)")
    from lanewise.bridge.oracle import Trial, judge

    with closing(compiled(NETS[name])) as program:
        rows = judge(program, program.graph, Trial(17, seed=17))
    assert [(row.name, row.error, row.tolerance) for row in rows if not row.ok] == []


def test_the_same_bits_for_any_number_of_threads(everywhere: None) -> None:
    """In training, and of one slice of inference that threads share."""
    random = np.random.default_rng(4)
    images = random.integers(0, 256, (40, 3, 10, 10), np.uint8)
    labels = random.integers(4, size=40)
    text = (
        "input 3x10x10; conv 20 k3 pad1 nobias; bn; relu; maxpool 2; conv 18 k3; flatten; linear 4"
    )

    def trained(threads: int) -> bytes:
        with closing(compiled(text, threads=threads)) as program:
            program.initialise(seed=0)
            for _ in range(2):
                program.step(images, labels, lr=0.05)
            return b"".join(array.tobytes() for array in program.learned.values())

    def logits(threads: int) -> bytes:
        options = {"training": False, "input_gradient": False, "threads": threads}
        with closing(compiled(text, **options)) as program:
            program.initialise(seed=0)
            return program.forward(images[:16]).tobytes()

    assert trained(1) == trained(3)
    assert logits(1) == logits(2) == logits(3)


def has_amx() -> bool:
    return any(on for word, on in read_host().features.items() if word.startswith("amx"))


@pytest.mark.skipif(sys.platform != "linux", reason="the signal handler is for Linux")
@pytest.mark.skipif(shutil.which("cc") is None, reason="the signal handler needs a C compiler")
@pytest.mark.skipif(has_amx(), reason="this processor carries out the instructions itself")
def test_the_machine_code_does_what_the_written_out_does(tmp_path: Path) -> None:
    """AMX's instructions are illegal here; a signal handler carries out each as it stands in memory
    (`amx_instructions.c`). Parameters after a training step agree in every bit."""
    with_matrices("icelake-server")  # skips where there is no AVX-512
    here = Path(__file__).parent
    library = tmp_path / "amx.so"
    flags = ["-O2", "-mfma", "-ffp-contract=off", "-fPIC", "-shared", "-o"]
    source = str(here / "amx_instructions.c")
    subprocess.run(["cc", *flags, str(library), source, "-lm"], check=True)
    net = (
        "input 9x6x6; conv 18 k3 pad1; relu; conv 34 k3 stride2 pad1; relu; conv 5 k1; "
        "flatten; linear 3"
    )
    command = [sys.executable, str(here / "amx_stand_in.py"), str(library), net]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    products, by_instructions, written_out = done.stdout.split()
    assert int(products) > 500
    assert by_instructions == written_out
