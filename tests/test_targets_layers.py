"""Activations, norms and noise on every target: what compiles, and that the bits are the same."""

from __future__ import annotations

import numpy as np
import pytest

from lanewise.errors import EngineError
from lanewise.native.compile import compile_net, write_modules
from lanewise.native.machine_code import assembly, count_spills
from lanewise.native.optimizers import SGD
from lanewise.native.target import find_target
from lanewise.net.parse import parse

NET = (
    "input 3x9x7; conv 8 k3; relu; lrn 3 alpha 0.5; layernorm; silu; conv 6 k3 pad1; groupnorm 3;"
    "relu; gelu; spatialdropout 0.2; conv 8 k1; prelu channels; elu 0.5; scale 0.5; hardswish;"
    "stochasticdepth 0.2; flatten; layernorm; prelu; linear 5; relu6; hardsigmoid; linear 3"
)
#: element by element: where they spill on every target, a polynomial is written out too often
LEAN = ("relu6_", "elu_", "hard", "scale_", "prelu_", "dropout_")


@pytest.mark.parametrize("target", ["avx512", "avx2", "neon"])
def test_values_stay_in_registers(target: str) -> None:
    try:
        machine = find_target(target)
    except EngineError as error:
        pytest.skip(str(error))
    modules, _ = write_modules(parse(NET), machine, True, SGD())
    spills: dict[str, int] = {}
    for module in modules:
        spills.update(count_spills(assembly(module.text, machine, module.quick), machine))
    lean = {name: count for name, count in spills.items() if name.startswith(LEAN)}
    assert len(lean) > 10
    assert {name: count for name, count in lean.items() if count} == {}


def test_avx2_and_avx512_give_the_same_bits() -> None:
    """Tiles are wider where there are more registers, but no sum changes its order."""
    try:
        find_target("avx512")
    except EngineError as error:
        pytest.skip(str(error))
    random = np.random.default_rng(3)
    images = random.normal(size=(37, 3, 9, 7)).astype(np.float32)
    labels = random.integers(0, 3, 37)
    results = []
    for target in ("avx512", "avx2"):
        with compile_net(parse(NET), training=True, target=target, threads=1) as program:
            program.initialise(1)
            losses = [program.step(images, labels, lr=0.1)[0] for _ in range(3)]
            results.append((losses, {n: v.copy() for n, v in program.parameters.items()}))
    assert results[0][0] == results[1][0]
    for name, value in results[0][1].items():
        np.testing.assert_array_equal(value, results[1][1][name], err_msg=name)
