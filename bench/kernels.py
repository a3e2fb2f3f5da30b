"""One kernel at a time on one core: what the register tile, the tap order and the slices decide.

    python bench/kernels.py              every experiment
    python bench/kernels.py linear       one of them
    python bench/kernels.py --target avx2

Claims: convolutions run near the peak of a core where their tile stays in registers and their maps
in the first cache; a full connection needs several slices at once, because it loads a weight for
every multiply–add otherwise. Each form is compared with the smallest tile before it is timed; the
forms of an experiment take turns. Spills are vector registers that went to the stack.
"""

from __future__ import annotations

import argparse
import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from lanewise.native.kernels import conv, linear, weights
from lanewise.native.kernels.conv import Correlation, Tile
from lanewise.native.kernels.taps import forward_taps, gradient_taps
from lanewise.native.kernels.weights import WeightTile
from lanewise.native.lower import lower
from lanewise.native.machine_code import Library, assembly, compile_ir, count_spills
from lanewise.native.nest import Kernel
from lanewise.native.nest_count import count
from lanewise.native.peak import measure_peak
from lanewise.native.program import aligned
from lanewise.native.target import Target, find_target
from measure import Contender, circumstances, interleave, load


@dataclass(frozen=True)
class Form:
    """One way to write a kernel."""

    label: str
    kernel: Kernel


def convolution(channels: int, size: int, kernels: int, kernel: int, pad: int) -> dict[str, int]:
    """The sizes of a square convolution with stride 1."""
    out = size + 2 * pad - kernel + 1
    return {"c": channels, "n": size, "k": kernels, "r": kernel, "p": pad, "o": out}


def forward(s: dict[str, int], maps: int, columns: int) -> Form:
    """Forward with a tile of maps × columns."""
    taps = forward_taps(s["n"], s["o"], s["r"], 1, s["p"], 1)
    area = s["r"] ** 2
    sizes = Correlation(1, s["k"], s["c"], taps, taps, 0, s["c"] * area, area)
    return Form(f"{maps} × {columns}", conv.correlate("kernel", sizes, Tile(maps, columns)))


def input_gradient(s: dict[str, int], maps: int, columns: int) -> Form:
    """Gradient of the input with a tile of maps × columns."""
    taps = gradient_taps(s["n"], s["o"], s["r"], 1, s["p"], 1)
    area = s["r"] ** 2
    sizes = Correlation(1, s["c"], s["k"], taps, taps, 0, area, s["c"] * area)
    return Form(f"{maps} × {columns}", conv.correlate("kernel", sizes, Tile(maps, columns)))


def weight_gradient(s: dict[str, int], *tile: int) -> Form:
    """Gradient of the weights: output maps × input maps × taps, columns a turn."""
    taps = forward_taps(s["n"], s["o"], s["r"], 1, s["p"], 1)
    shape = WeightTile(*tile)
    kernel = weights.weight_gradient("kernel", 1, s["k"], s["c"], taps, taps, shape)
    return Form("{} × {} × {}, {}".format(*tile), kernel)


def full_connection(outputs: int, inputs: int, slices: int) -> Form:
    """Forward of a full connection over several slices at once."""
    kernel = linear.forward("kernel", outputs, inputs, slices, bias=False, relu=False)
    return Form(f"{slices} slices", kernel)


CONV1, CONV2 = convolution(1, 28, 6, 5, 2), convolution(6, 14, 16, 5, 0)
WIDE = convolution(64, 28, 64, 3, 1)
TILES = [(4, 6), (6, 4), (3, 7), (4, 5), (2, 10), (8, 2), (8, 1), (1, 1)]

#: experiment → its forms; the last is the one that the others are compared with
EXPERIMENTS: dict[str, Callable[[], list[Form]]] = {
    "lenet5 conv2 forward": lambda: [forward(CONV2, *tile) for tile in TILES],
    "lenet5 conv2 input gradient": lambda: [input_gradient(CONV2, *t) for t in TILES if t[0] <= 6],
    "lenet5 conv2 weight gradient": lambda: [
        weight_gradient(CONV2, *tile)
        for tile in [(4, 1, 5, 2), (4, 1, 5, 1), (2, 2, 5, 1), (4, 6, 1, 2), (1, 1, 1, 1)]
    ],
    "lenet5 conv1 forward": lambda: [forward(CONV1, *t) for t in TILES if t[0] <= 6],
    "3×3 64→64 at 28 forward": lambda: [forward(WIDE, *tile) for tile in TILES],
    "3×3 64→64 at 28 input gradient": lambda: [input_gradient(WIDE, *tile) for tile in TILES],
    "linear 400→120": lambda: [full_connection(120, 400, slices) for slices in (4, 2, 1)],
}


@dataclass
class Ready:
    """A form in machine code with arrays of its own."""

    form: Form
    spills: int
    run: Callable[[int], None]
    result: np.ndarray
    products: int


def prepare(form: Form, target: Target) -> Ready:
    """Compile, fill the arrays with random numbers, run once."""
    lowered = lower(form.kernel)
    text = "\n".join([*lowered.tables, *sorted(lowered.declarations), lowered.function])
    library = Library.load(compile_ir(text, target))
    random = np.random.default_rng(0)
    arrays = []
    for buffer in form.kernel.buffers:
        array = aligned(prod(int(size) for size in buffer.shape if isinstance(size, int)))
        if buffer.access == "read":
            array[:] = np.resize(random.normal(size=99_991), array.shape)
        arrays.append(array)
    words = [ctypes.c_void_p] * len(arrays)
    function = ctypes.CFUNCTYPE(None, *words)(library.address("kernel"))
    addresses = [array.ctypes.data for array in arrays]

    def run(times: int) -> None:
        for _ in range(times):
            function(*addresses)

    run.held = library, arrays  # type: ignore[attr-defined]  # code and data outlive the function
    run(1)
    spills = sum(count_spills(assembly(text, target), target).values())
    result = arrays[-1].copy()
    return Ready(form, spills, run, result, count(form.kernel).multiply_adds)


def experiment(name: str, target: Target, rounds: int, turn: float) -> list[str]:
    """Check every form against the last, time them in turns, one line each."""
    ready = [prepare(form, target) for form in EXPERIMENTS[name]()]
    for one in ready:
        size = min(len(one.result), len(ready[-1].result))
        same = ready[-1].result[:size]
        assert np.allclose(one.result[:size], same, rtol=1e-3, atol=1e-3 * np.abs(same).max())
    contenders = [Contender(one.form.label, "", one.run) for one in ready]
    timings = interleave(contenders, rounds, turn)
    lines = [name]
    for one, timing in zip(ready, timings, strict=True):
        speed = 2 * one.products / timing.median / 1e9
        best = 2 * one.products / timing.best / 1e9
        spilt = f"{one.spills} spills" if one.spills else ""
        lines.append(f"  {one.form.label:<18} {speed:6.0f} GFLOP/s  best {best:6.0f}  {spilt}")
    return lines


def main() -> None:
    """The experiments whose name holds the given word."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("word", nargs="?", default="", help="part of an experiment's name")
    parser.add_argument("--target", default="host", choices=["host", "avx512", "avx2"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--turn", type=float, default=0.03, help="seconds of a turn")
    options = parser.parse_args()
    before, target = load(), find_target(options.target)
    print(f"one core, {target.name}, peak {measure_peak(target, 1).best:.0f} GFLOP/s\n")
    for name in EXPERIMENTS:
        if options.word in name:
            print("\n".join(experiment(name, target, options.rounds, options.turn)), "\n")
    print("\n".join(circumstances(before).lines()))


if __name__ == "__main__":
    main()
