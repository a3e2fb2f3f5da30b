"""What the user of the engine holds: parameters in memory, and calls into machine code."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from lanewise.errors import DataError, EngineError
from lanewise.native.arrays import aligned, read_only, views
from lanewise.native.driver import CONTEXT_WORDS, FORWARD, TRAIN, WORD, WORDS_PER_LINE
from lanewise.native.facts import Facts
from lanewise.native.given import (
    Batches,
    check_learned,
    enough_for_statistics,
    normalised_shapes,
    per_channel,
    usable_images,
    usable_labels,
    usable_order,
    usable_rates,
    usable_seed,
    usable_smoothing,
)
from lanewise.native.initial import fill
from lanewise.native.layouts import buffer_layout, parameter_layout
from lanewise.native.linked import Code, load_code
from lanewise.native.optimizers import SETTINGS, STATES, Optimizer, step_settings
from lanewise.native.target import LANES, Target
from lanewise.native.workers import Workers, close_at_end, yield_address
from lanewise.net.graph import Graph
from lanewise.net.layers import Input
from lanewise.size.shapes import infer_shapes

#: a last round of slices is shared by all threads where it has work for so many of them at most
LAST_ROUND = 0.8
#: gradients are summed in this many groups of slices, added in their order
GROUPS = 8
PARTIAL_BYTES = 256 << 20  # fewer groups where they would take more memory than this


@dataclass(frozen=True)
class Steps:
    """The outcome of training steps: mean loss and number of correct images of each."""

    losses: np.ndarray
    corrects: np.ndarray


class Program:
    """A compiled net with its parameters. Made by `compile_net`.

    `parameters` are what the optimizer changes, `buffers` the running statistics of batch
    normalisation, `learned` both: all that training leaves behind. Compiled for inference they
    can only be read: what is to change goes through `set_learned` or `initialise`, because much is
    worked out of them once and for all.

    Images are N×C×H×W, uint8 (normalised by `set_normalisation`) or float32 (taken as they are).
    One call at a time: calls from several threads wait for each other.
    """

    compile_seconds: float = 0.0
    from_cache: bool = False

    def __init__(
        self,
        graph: Graph,
        target: Target,
        objects: tuple[bytes, ...],
        facts: Facts,
        optimizer: Optimizer,
        threads: int,
    ) -> None:
        self.graph, self.target, self.facts = graph, target, facts
        self.optimizer, self.threads = optimizer, threads
        self.steps_done = 0
        self._lock = threading.RLock()  # the context holds one call at a time
        shapes = infer_shapes(graph)
        first = graph.nodes[0].layer
        assert isinstance(first, Input)
        self.input_shape = (first.channels, first.height, first.width)
        self.output_shape = shapes[graph.output.name]
        self._normalised = normalised_shapes(graph)
        self._layout, self._buffer_layout = parameter_layout(graph), buffer_layout(graph)
        self._context = aligned(CONTEXT_WORDS, np.int64)
        self._make_arrays()
        self._point()
        self._library = self._load(objects)
        self._workers = Workers(threads, self._context, self._library)
        self._finalizer = close_at_end(self, self._workers)

    def _load(self, objects: tuple[bytes, ...]) -> Code:
        return load_code(objects)

    # -- arrays and views

    def _make_arrays(self) -> None:
        floats = max(LANES, self._layout.floats)
        training = self.facts.training
        self._flat = aligned(floats)
        self._flat_buffers = aligned(max(LANES, self._buffer_layout.floats))
        self._tickets = aligned(WORDS_PER_LINE * (self.facts.phases + 1), np.int64)
        self._flat_gradients = aligned(floats if training else LANES)
        names = STATES[type(self.optimizer)] if training else ()
        self._flat_states = {name: aligned(floats) for name in names}
        summed = self._layout.summed_floats
        self._groups = max(1, min(GROUPS, PARTIAL_BYTES // max(1, summed * 4)))
        self._partials = aligned(max(LANES, summed * self._groups if training else 0))
        self._arena_stride = -(-self.facts.arena_bytes // 4096) * 4096 + 4096
        self._arena = aligned(self._arena_stride * self.threads, np.uint8)
        self._constants = aligned(self.facts.constant_bytes, np.uint8)
        self._stale = True  # whether the constants are not those of the parameters
        self._kept, self._capacity = aligned(64, np.uint8), 0
        channels = self.input_shape[0]
        self._scale = np.full(channels, 1 / 255, np.float32)
        self._shift = np.zeros(channels, np.float32)
        self._loss_settings = np.zeros(1, np.float32)
        self.parameters = views(self._layout, self._flat)
        self.buffers = views(self._buffer_layout, self._flat_buffers)
        self._open = self.parameters | self.buffers
        if not training:
            self.parameters, self.buffers = map(read_only, (self.parameters, self.buffers))
        self.learned = self.parameters | self.buffers
        self.gradients = views(self._layout, self._flat_gradients) if training else {}
        self.optimizer_state = {
            f"{name}.{state}": view
            for state, flat in self._flat_states.items()
            for name, view in views(self._layout, flat).items()
        }

    def initialise(self, seed: int = 0) -> None:
        """Fresh parameters and running statistics, as `initial.py` says for each kind of layer.

        The optimizer's state and step count begin anew. One seed gives the same bits everywhere.
        """
        parameters = {name: self._open[name] for name in self.parameters}
        statistics = {name: self._open[name] for name in self.buffers}
        fill(self.graph, parameters, statistics, usable_seed(seed))
        self._stale = True
        for flat in self._flat_states.values():
            flat[:] = 0
        self.steps_done = 0

    def set_learned(self, values: Mapping[str, np.ndarray]) -> None:
        """Copy parameters and running statistics in; names and shapes must be exactly those of
        `learned`."""
        check_learned(self.graph, self._open, values)
        for name, view in self._open.items():
            view[...] = values[name]
        self._stale = True

    def set_normalisation(self, mean: np.ndarray | tuple, std: np.ndarray | tuple) -> None:
        """For uint8 images: (pixel / 255 − mean) / std, per channel (or one number for all)."""
        mean = per_channel(mean, len(self._scale), "mean")
        std = per_channel(std, len(self._scale), "std")
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise DataError(f"mean {mean} and std {std} must be finite, and std positive")
        self._scale[:] = 1 / (255 * std)
        self._shift[:] = -mean / std

    # -- running

    def forward(self, images: np.ndarray) -> np.ndarray:
        """Logits, float32, N × the net's output shape; dropout does nothing."""
        images = usable_images(images, self.input_shape)
        count = len(images)
        if count == 0:
            return np.zeros((0, *self.output_shape), np.float32)
        elements = prod(self.output_shape)
        rows = aligned(-(-count // LANES) * LANES * elements)
        with self._lock:
            self._set_images(images)
            slices = -(-count // LANES)
            stale, self._stale = self._stale, self.facts.training
            self._set(
                logits=rows.ctypes.data,
                command=FORWARD,
                stale=int(stale),
                whole=slices - self._shared(slices),
            )
            many = stale and self.facts.constant_bytes > 0  # there is something for all threads
            self._run(share=slices, alone=not many and self.threads_for(count) == 1)
        return rows.reshape(-1, *self.output_shape)[:count]

    def _shared(self, slices: int) -> int:
        """How many of the slices all threads share: those of an uneven last round."""
        rest = slices % self.threads
        return rest if self.facts.shares and rest <= LAST_ROUND * self.threads else 0

    def threads_for(self, images: int) -> int:
        """How many threads have something to do where `forward` is given so many images."""
        slices = -(-images // LANES)
        return self.threads if self._shared(slices) else min(self.threads, slices)

    def step(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        lr: float = 0.01,
        smoothing: float = 0.0,
        seed: int = 0,
    ) -> tuple[float, int]:
        """One update on one batch: (mean loss, number correct), both from before the update."""
        order = np.arange(len(images), dtype=np.int64)
        rates = np.array([lr], np.float32)
        steps = self.run_steps(
            images, labels, order, len(images), rates, seed=seed, smoothing=smoothing
        )
        return float(steps.losses[0]), int(steps.corrects[0])

    def gradients_only(
        self, images: np.ndarray, labels: np.ndarray, *, smoothing: float = 0.0, seed: int = 0
    ) -> tuple[float, int]:
        """Fill `gradients` (and `input_gradient`), update nothing: (mean loss, number correct)."""
        order = np.arange(len(images), dtype=np.int64)
        rates = np.zeros(1, np.float32)
        given = self._batches(images, labels, order, len(images), rates, seed, smoothing)
        with self._lock:
            steps = self._train(given, update=False)
        return float(steps.losses[0]), int(steps.corrects[0])

    def run_steps(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        order: np.ndarray,
        batch: int,
        learning_rates: np.ndarray,
        *,
        seed: int = 0,
        smoothing: float = 0.0,
    ) -> Steps:
        """Many updates in one native call.

        Step i trains on images order[i·batch : (i+1)·batch] with learning_rates[i]; the last batch
        may be short. There must be as many rates as batches. `seed` is that of dropout.
        """
        given = self._batches(images, labels, order, batch, learning_rates, seed, smoothing)
        with self._lock:
            steps = self._train(given, update=True)
            self.steps_done += len(given.rates)
        return steps

    def _batches(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        order: np.ndarray,
        batch: int,
        learning_rates: np.ndarray,
        seed: int,
        smoothing: float,
    ) -> Batches:
        """Everything that was given, checked."""
        if not self.facts.training:
            raise EngineError("this program was compiled for inference; compile with training=True")
        images = usable_images(images, self.input_shape)
        order = usable_order(order, len(images))
        rates = usable_rates(learning_rates, len(order), batch)
        self.check_batches(len(order), int(batch))
        return Batches(
            images,
            usable_labels(labels, len(images), prod(self.output_shape)),
            order,
            int(batch),
            rates,
            usable_seed(seed),
            usable_smoothing(smoothing),
        )

    def check_batches(self, images: int, batch: int) -> None:
        """DataError where so many images in such batches leave one too small for the statistics of
        a batch normalisation."""
        enough_for_statistics(self.graph, self._normalised, images, batch)

    def _train(self, given: Batches, update: bool) -> Steps:
        """Carry out the steps; the lock is held."""
        self._reserve(given.largest)
        count = len(given.rates)
        steps = Steps(np.zeros(count), np.zeros(count, np.int64))
        settings = aligned(count * SETTINGS).reshape(-1, SETTINGS)
        settings[:] = step_settings(self.optimizer, given.rates, self.steps_done)
        self._loss_settings[0] = given.smoothing
        self._set_images(given.images)
        gradient = self._input_gradient(given.largest)
        self._set(
            command=TRAIN,
            labels=given.labels.ctypes.data,
            order=given.order.ctypes.data,
            total=len(given.order),
            batch=given.batch,
            steps=count,
            first_step=self.steps_done,
            seed=given.seed,
            step_settings=settings.ctypes.data,
            loss_settings=self._loss_settings.ctypes.data,
            losses=steps.losses.ctypes.data,
            corrects=steps.corrects.ctypes.data,
            update=int(update),
            input_gradient=gradient.ctypes.data,
        )
        slices = -(-given.largest // LANES)
        self._run(share=min(slices, self._groups))
        if self.facts.input_gradient:
            self.input_gradient = gradient.reshape(-1, *self.input_shape)[: given.largest]
        return steps

    def _input_gradient(self, batch: int) -> np.ndarray:
        rows = -(-batch // LANES) * LANES if self.facts.input_gradient else 0
        return aligned(rows * prod(self.input_shape))

    def _reserve(self, batch: int) -> None:
        """Room for what the whole batch keeps, for all its slices."""
        slices = -(-batch // LANES)
        if slices > self._capacity:
            self._kept = aligned(self.facts.kept_bytes * slices + 64, np.uint8)
            self._capacity = slices
            self._set(kept=self._kept.ctypes.data, capacity=slices)

    def _set_images(self, images: np.ndarray) -> None:
        self._held = images  # alive while native code reads it
        self._set(
            images=images.ctypes.data,
            image_count=len(images),
            images_are_bytes=int(images.dtype == np.uint8),
        )

    # -- native code

    def _point(self) -> None:
        """Where everything stands; it stays there, so calls need not say it again."""
        states = [*self._flat_states.values(), self._flat_gradients, self._flat_gradients]
        self._set(
            yield_function=yield_address(),
            arena=self._arena.ctypes.data,
            arena_stride=self._arena_stride,
            kept=self._kept.ctypes.data,
            capacity=self._capacity,
            constants=self._constants.ctypes.data,
            tickets=self._tickets.ctypes.data,
            parameters=self._flat.ctypes.data,
            buffers=self._flat_buffers.ctypes.data,
            gradients=self._flat_gradients.ctypes.data,
            partials=self._partials.ctypes.data,
            state0=states[0].ctypes.data,
            state1=states[1].ctypes.data,
            scale=self._scale.ctypes.data,
            shift=self._shift.ctypes.data,
            groups=self._groups,
        )

    def _set(self, **fields: int) -> None:
        for name, value in fields.items():
            self._context[WORD[name]] = value

    def _run(self, share: int, alone: bool = False) -> None:
        """The context's command; `share`: how many groups or slices there are for the threads.
        `alone`: the calling thread carries it out, and no other is woken."""
        threads = 1 if alone else self.threads
        self._set(threads=threads, together=min(self.facts.width, max(1, share // threads)))
        self._tickets[:] = 0
        self._workers.run(alone)

    def profile(self) -> dict[str, list[tuple[str, int]]]:
        """Direction → (purpose, clock ticks of all workers) of each call since the last `profile`.

        Directions are "forward", "train" and "jobs": the gradients of full connections and the
        updates, which follow when all slices are through.
        Empty unless the program was compiled with profile=True.
        """
        words = self._arena.reshape(self.threads, -1)[:, self.facts.ticks_at :].copy()
        count = sum(map(len, self.facts.ticks.values()))
        ticks = words[:, : 8 * count].copy().view(np.int64).sum(axis=0).tolist()
        self._arena.reshape(self.threads, -1)[:, self.facts.ticks_at :] = 0
        found = {}
        for direction, purposes in self.facts.ticks.items():
            found[direction] = list(zip(purposes, ticks[: len(purposes)], strict=True))
            ticks = ticks[len(purposes) :]
        return found

    def close(self) -> None:
        """End the worker threads. The program cannot run afterwards."""
        self._finalizer()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
