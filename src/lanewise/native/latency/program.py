"""A program for one image at a time: what the user holds, and how Python reaches the machine code.

Small networks are called through a function that CPython takes for one of its own builtins: a few
hundred nanoseconds from the array in Python to the first kernel, on the calling thread, and nothing
spins afterwards. Large ones take the usual threads and give the interpreter's lock away meanwhile.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from lanewise.native.cache import Entry
from lanewise.native.driver import FORWARD
from lanewise.native.given import usable_images
from lanewise.native.latency.emission import CONTEXT, IMPORTS
from lanewise.native.latency.packing import Pack, pack_all, packed_floats
from lanewise.native.linked import Code, load_code
from lanewise.native.nest import LANES
from lanewise.native.optimizers import SGD
from lanewise.native.precisions import multiplied_weights, rounded_to_bf16
from lanewise.native.program import Facts, Program, aligned
from lanewise.native.target import Target
from lanewise.native.workers import yield_address
from lanewise.net.graph import Graph
from lanewise.size.shapes import infer_shapes

#: multiply–adds up to which one thread is enough, and the call keeps the interpreter's lock: tens
#: of microseconds
SMALL = 4_000_000


class ImageProgram(Program):
    """A compiled net for single images, with its weights. Made by `compile_net(batch=1)`.

    `parameters`, `buffers` and `learned` can be read; what is to change goes through `set_learned`
    or `initialise`, which lay the weights out anew. Any number of images is taken, one by one.
    """

    def __init__(
        self,
        graph: Graph,
        target: Target,
        objects: tuple[bytes, ...],
        facts: Facts,
        packs: tuple[Pack, ...],
        multiply_adds: int,
        threads: int,
    ) -> None:
        self._packs, self._small = packs, multiply_adds <= SMALL
        shapes = infer_shapes(graph)
        self._channels = {
            node.name: shapes[node.inputs[0]][0] for node in graph.nodes if node.inputs
        }
        super().__init__(graph, target, objects, facts, SGD(), 1 if self._small else threads)
        self._packed = aligned(packed_floats(packs))
        self._repack()
        self._point()
        one = (1, *self.input_shape)
        self._shapes = [one] + [(1, *self.input_shape[1:])] * (self.input_shape[0] == 1)
        self._result_shape = (1, *self.output_shape)
        self._quick = _builtin(self._library) if self._small and _has_lock() else None

    def _load(self, objects: tuple[bytes, ...]) -> Code:
        api = ctypes.pythonapi
        imports = {
            name: ctypes.cast(getattr(api, name), ctypes.c_void_p).value or 0 for name in IMPORTS
        }
        imports[CONTEXT] = self._context.ctypes.data
        return load_code(objects, imports)

    # -- weights

    def initialise(self, seed: int = 0) -> None:
        """As `Program.initialise`."""
        with self._lock:
            super().initialise(seed)
            self._repack()

    def set_learned(self, values: Mapping[str, np.ndarray]) -> None:
        """As `Program.set_learned`."""
        with self._lock:
            super().set_learned(values)
            self._repack()

    def _repack(self) -> None:
        """Lay the weights out where the machine code reads them."""
        given = self._open
        if self.facts.precision == "bf16":
            layers = ((node.name, node.layer) for node in self.graph.nodes)
            given = rounded_to_bf16(given, multiplied_weights(layers))
        pack_all(self._packs, self.graph, self._channels, given, self._packed)

    # -- running

    def forward(self, images: Any) -> np.ndarray:
        """Logits, float32, N × the net's output shape."""
        if self._quick is not None and getattr(images, "shape", None) in self._shapes:
            result = np.empty(self._result_shape, np.float32)
            if self._quick(images, result):
                return result
        return self._long_way(images)

    def _long_way(self, images: Any) -> np.ndarray:
        images = usable_images(images, self.input_shape)
        results = aligned(len(images) * prod(self.output_shape))
        rows = results.reshape(-1, *self.output_shape)
        with self._lock:
            self._set(busy=1)
            try:
                for image, row in zip(images, rows, strict=True):
                    self._one(image, row)
            finally:
                self._set(busy=0)
        return rows

    def _one(self, image: np.ndarray, row: np.ndarray) -> None:
        self._set_images(image[None])
        self._set(logits=row.ctypes.data, threads=self.threads, command=FORWARD)
        self._workers.run()

    def profile(self) -> dict[str, list[tuple[str, int]]]:
        """As `Program.profile`; the ticks of a step count from its first call to its barrier."""
        steps = self.facts.ticks["forward"]
        words = self._arena[self.facts.ticks_at :][: 8 * len(steps)].view(np.int64)
        ticks = words.tolist()
        words[:] = 0
        return {"forward": list(zip(steps, ticks, strict=True))}

    def close(self) -> None:
        """As `Program.close`."""
        self._quick = None
        super().close()

    def _point(self) -> None:
        """Where everything stands; it stays there."""
        self._faults = aligned(LANES)
        self._set(
            yield_function=yield_address(),
            arena=self._arena.ctypes.data,
            arena_stride=0,
            parameters=self._flat.ctypes.data,
            buffers=self._flat_buffers.ctypes.data,
            scale=self._scale.ctypes.data,
            shift=self._shift.ctypes.data,
            packed=self._packed.ctypes.data,
            faults=self._faults.ctypes.data,
        )


# ---- a builtin of CPython -----------------------------------------------------------------------

METH_FASTCALL = 0x0080


class _Method(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


def _has_lock() -> bool:
    """Whether one thread at a time runs in the interpreter, as the short way relies on."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def _builtin(library: Code) -> Callable[[Any, np.ndarray], int]:
    """`call_image` as a function of Python's. It must not outlive the library."""
    method = _Method(b"call_image", library.address("call_image"), METH_FASTCALL, None)
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype = ctypes.py_object
    make.argtypes = [ctypes.POINTER(_Method), ctypes.py_object, ctypes.py_object]
    # The builtin refers to the method's definition, and holds what it is made with as __self__.
    found: Callable[[Any, np.ndarray], int] = make(ctypes.byref(method), (method, library), None)
    return found


def image_program(graph: Graph, target: Target, entry: Entry, threads: int) -> ImageProgram:
    """The program of an entry, fresh or from the cache."""
    packs = tuple(
        Pack(**{**pack, "sizes": tuple(pack["sizes"])}) for pack in entry.metadata["packs"]
    )
    return ImageProgram(
        graph,
        target,
        entry.objects,
        Facts(**entry.metadata["facts"]),
        packs,
        entry.metadata["multiply_adds"],
        threads,
    )
