"""A process of its own: trains a net by AMX's instructions, which a signal handler carries out, and
by the same written out. Arguments: the handler's library, the net. Prints products, then both sums
of what was learned."""

from __future__ import annotations

import ctypes
import hashlib
import sys
from contextlib import closing
from dataclasses import replace

import numpy as np

from lanewise.native import compile as compiler
from lanewise.native import emit, matrix_ways
from lanewise.native.target import Target, find_target
from lanewise.net.parse import parse


def main(library: str, text: str) -> None:
    """As the module says."""
    handler = ctypes.CDLL(library)
    handler.products_so_far.restype = ctypes.c_long
    handler.stand_in()
    matrix_ways.multiplies_matrices = lambda target: True
    matrix_ways.WORTH, matrix_ways.FEWEST_MAPS, matrix_ways.FEWEST_SOURCES = 0.0, 1, 1
    emit.multiplies_matrices = lambda target: target.has("amx-bf16")
    compiler.permitted = lambda target: target
    written_out = trained(text)
    assert handler.products_so_far() == 0
    compiler.find_target = with_matrices
    by_instructions = trained(text)
    print(handler.products_so_far(), by_instructions, written_out)


def with_matrices(name: str) -> Target:
    """This processor, as if it had AMX and nothing else besides."""
    found = find_target(name)
    words = [word for word in found.features.split(",") if not word[1:].startswith("amx")]
    return replace(found, features=",".join([*words, "+amx-tile", "+amx-bf16"]))


def trained(text: str) -> str:
    """A hash of the parameters after a step with two threads."""
    random = np.random.default_rng(5)
    options = {"training": True, "precision": "bf16", "cache": False, "threads": 2}
    with closing(compiler.compile_net(parse(text), **options)) as program:
        program.initialise(seed=3)
        images = random.standard_normal((20, *program.input_shape), np.float32)
        program.step(images, random.integers(3, size=20), lr=0.05)
        learned = b"".join(array.tobytes() for array in program.learned.values())
    return hashlib.sha256(learned).hexdigest()


if __name__ == "__main__":
    main(*sys.argv[1:])
