"""What callers give a program: arrays and numbers, made usable or refused with a reason.

Pure functions; every message says what was found and what is wanted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from lanewise.errors import DataError, EngineError, counted
from lanewise.native.target import LANES
from lanewise.net.graph import Graph, Node
from lanewise.net.layers import BatchNorm
from lanewise.size.shapes import infer_shapes

MOST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Batches:
    """A checked order for training: step i takes images order[i·batch : (i+1)·batch]."""

    images: np.ndarray
    labels: np.ndarray
    order: np.ndarray
    batch: int
    rates: np.ndarray
    seed: int
    smoothing: float

    @property
    def largest(self) -> int:
        """Images of the largest step."""
        return min(self.batch, len(self.order))


def usable_images(images: Any, shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 or float32, contiguous, N × C × H × W with finite values; N×H×W where C is 1."""
    images = np.asarray(images)
    if images.ndim == 3 and shape[0] == 1:
        images = images[:, None]
    if images.ndim != 4 or images.shape[1:] != shape:
        wanted = "x".join(map(str, shape))
        got = "x".join(map(str, images.shape))
        raise DataError(f"images are {got}, but the net takes Nx{wanted} (N, C, H, W)")
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if not np.issubdtype(images.dtype, np.floating):
        raise DataError(f"images are {images.dtype}; give uint8 pixels or float32 values")
    with np.errstate(all="ignore"):  # what overflows is named below
        images = np.ascontiguousarray(images, np.float32)
        total = images.sum()
    if not np.isfinite(total) and not np.isfinite(images).all():
        at = np.argwhere(~np.isfinite(images))[0].tolist()
        raise DataError(f"images hold {images[tuple(at)]} at {at}; every value must be finite")
    return images


def usable_labels(labels: Any, images: int, classes: int) -> np.ndarray:
    """int32, one per image, 0 … classes − 1."""
    labels = np.asarray(labels)
    if labels.shape != (images,) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"labels are {labels.dtype} of shape {labels.shape}; give {images} whole numbers"
        )
    if images and not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(
            f"labels reach from {labels.min()} to {labels.max()}, but the net has {classes}"
            f" outputs (0 to {classes - 1})"
        )
    return np.ascontiguousarray(labels, np.int32)


def usable_order(order: Any, images: int) -> np.ndarray:
    """int64 numbers of images, at least one."""
    order = np.asarray(order)
    if order.ndim != 1 or not len(order):
        raise DataError("there are no images to train on")
    if not np.issubdtype(order.dtype, np.integer):
        raise DataError(f"the order is of {order.dtype}; give whole numbers of images")
    if not 0 <= order.min() <= order.max() < images:
        odd = order.min() if order.min() < 0 else order.max()
        raise DataError(f"the order names image {odd}, but there are {images} (0 to {images - 1})")
    return np.ascontiguousarray(order, np.int64)


def usable_rates(learning_rates: Any, count: int, batch: int) -> np.ndarray:
    """float32, one finite learning rate ≥ 0 for each batch of `count` images."""
    if not isinstance(batch, int | np.integer) or batch < 1:
        raise DataError(f"batch is {batch!r}; give a whole number, 1 or more")
    rates = np.asarray(learning_rates)
    steps = -(-count // int(batch))
    if rates.shape != (steps,):
        given = f"{len(rates)}" if rates.ndim == 1 else f"an array of shape {rates.shape}"
        raise DataError(
            f"{counted(count, 'image')} in batches of {batch} need "
            f"{counted(steps, 'learning rate')}, not {given}"
        )
    rates = np.ascontiguousarray(rates, np.float32)
    if not (np.isfinite(rates).all() and (rates >= 0).all()):
        wrong = rates[~(np.isfinite(rates) & (rates >= 0))][0]
        raise DataError(f"a learning rate is {wrong}; every one must be finite, 0 or more")
    return rates


def normalised_shapes(graph: Graph) -> dict[Node, tuple[int, ...]]:
    """Output shape of every batch normalisation."""
    shapes = infer_shapes(graph)
    return {node: shapes[node.name] for node in graph.nodes if isinstance(node.layer, BatchNorm)}


def enough_for_statistics(
    graph: Graph,
    normalised: Mapping[Node, tuple[int, ...]],
    count: int,
    batch: int,
    option: str = "batch",
) -> None:
    """Batch normalisation needs two values a channel: DataError where a batch has but one.

    `normalised`: `normalised_shapes` of the graph. `option`: what the batch is called where it was
    given.
    """
    for node, shape in normalised.items():
        assert isinstance(node.layer, BatchNorm)
        ghost = bool(node.layer.ghost)
        if _fewest(count, batch, ghost) * prod(shape[1:]) >= 2:
            continue
        whose = "the last group of a batch" if ghost else "the last batch"
        raise DataError(
            f"{graph.place(node)}: bn over {'x'.join(map(str, shape))} gets one value a channel, "
            f"{whose} being a single image ({_batches(count, batch)}); it needs two for a "
            f"variance, so use {_remedy(count, batch, option, ghost)}"
        )


def _fewest(count: int, batch: int, ghost: bool) -> int:
    """Images of the smallest group that has statistics of its own: a batch, or a ghost's slice."""
    full = min(batch, count)
    sizes = (full, count % full or full)
    return min((size % LANES or LANES) if ghost else size for size in sizes)


def _batches(count: int, batch: int) -> str:
    return f"{count:,} images in batches of {batch}" if count > 1 else "there is one image"


def _remedy(count: int, batch: int, option: str, ghost: bool) -> str:
    """A batch size nearby that leaves no single image, or another number of images."""
    if count < 2:
        return "more images"
    sizes = (size for step in range(1, batch + count) for size in (batch - step, batch + step))
    fitting = next((size for size in sizes if size > 1 and _fewest(count, size, ghost) > 1), 0)
    other_batch = [f"{option} {fitting}"] if fitting else []
    other_count = ["one image more or less"] if batch > 1 else []
    return ", or ".join(other_batch + other_count)


def usable_smoothing(smoothing: float) -> float:
    """Label smoothing: 0 ≤ ε ≤ 1."""
    if not 0 <= smoothing <= 1:
        raise DataError(f"label smoothing is {smoothing}; it must be from 0 to 1")
    return float(smoothing)


def usable_seed(seed: int) -> int:
    """A whole number, 0 … 2⁶³ − 1."""
    if not isinstance(seed, int | np.integer) or not 0 <= seed <= MOST_SEED:
        raise DataError(f"seed is {seed!r}; give a whole number from 0 to {MOST_SEED}")
    return int(seed)


def per_channel(values: Any, channels: int, name: str) -> np.ndarray:
    """One number for all channels, or one for each, as float64."""
    array = np.asarray(values, np.float64)
    if array.shape not in ((), (1,), (channels,)):
        raise DataError(f"{name} has shape {array.shape}; give one number, or {channels}")
    return np.broadcast_to(array, (channels,))


def check_learned(
    graph: Graph, learned: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray]
) -> None:
    """EngineError where names or shapes are not those of `learned`."""
    if set(values) != set(learned):
        odd = sorted(set(values) ^ set(learned))
        raise EngineError(f"{graph.origin}: parameters do not match the net: {odd}")
    for name, view in learned.items():
        if np.shape(values[name]) != view.shape:
            raise EngineError(
                f"{graph.origin}: {name} is {np.shape(values[name])}, not {view.shape}"
            )
