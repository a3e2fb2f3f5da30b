"""A program for one image at a time: what the user holds, and how Python reaches the machine code.

Small networks are called through a function that CPython takes for one of its own builtins: a few
hundred nanoseconds from the array in Python to the first kernel, on the calling thread, and nothing
spins afterwards. Large ones take the usual threads and give the interpreter's lock away meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from lanewise.native.arrays import aligned
from lanewise.native.cache import Entry
from lanewise.native.driver import FORWARD
from lanewise.native.facts import Facts
from lanewise.native.given import usable_images
from lanewise.native.latency.packing import Pack, pack_all, packed_floats
from lanewise.native.latency.python_call import builtin, fields_are_known, symbols
from lanewise.native.linked import Code, load_code
from lanewise.native.nest import LANES
from lanewise.native.optimizers import SGD
from lanewise.native.precisions import multiplied_weights, rounded_to_bf16
from lanewise.native.program import Program
from lanewise.native.target import Target
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
        self._quick = builtin(self._library) if self._small and fields_are_known() else None
        if self._quick is not None:  # it does not ask whether weights are laid out
            self._repack()

    def _load(self, objects: tuple[bytes, ...]) -> Code:
        return load_code(objects, symbols(self._context))

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
        self._stale = False

    # -- running

    def forward(self, images: Any) -> np.ndarray:
        """Logits, float32, N × the net's output shape."""
        quick = self._quick
        if quick is not None and (result := quick(images)) is not None:
            return result
        return self._long_way(images)

    def _long_way(self, images: Any) -> np.ndarray:
        images = usable_images(images, self.input_shape)
        results = aligned(len(images) * prod(self.output_shape))
        rows = results.reshape(-1, *self.output_shape)
        with self._lock:
            if self._stale:  # nothing was given yet
                self._repack()
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

    def threads_for(self, images: int) -> int:
        """As `Program.threads_for`."""
        return self.threads

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

    def _make_arrays(self) -> None:
        super()._make_arrays()
        self._faults = aligned(LANES)
        self._packed = aligned(packed_floats(self._packs))

    def _point(self) -> None:
        """The values are in one arena for all threads."""
        super()._point()
        self._set(arena_stride=0, packed=self._packed.ctypes.data, faults=self._faults.ctypes.data)


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
