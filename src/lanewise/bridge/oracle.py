"""The oracle: the compiled engine against PyTorch, tensor by tensor.

`compare` compiles a net, draws weights and images, and holds the engine's logits, loss, input
gradient, every parameter gradient and the running statistics after a step (on request also some
steps of an optimizer) against float64 values from PyTorch. A row's error and tolerance are the
largest absolute difference and how far honest float32 may be off, both relative to the tensor's
size.

How the tolerance is made stands in `rounding.py`: a random-walk error ε·√terms for every sum of the
net, its effect on every result measured by disturbing the reference. Where in a draw of weights
and images some value lies so near a kink (ReLU at 0, equal values under a max pool) that rounding
decides the side, another is drawn; nets so large that this always happens are judged by the best
of several draws, with the wider tolerance that the kinks demand. Exact ties are tested apart, with
whole numbers.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from lanewise.bridge import require_torch
from lanewise.bridge.reference import Arrays, Question, Reference, Tensor, Values
from lanewise.bridge.verdict import Comparison, Disagreement, Row
from lanewise.native.latency.program import ImageProgram
from lanewise.net.graph import Graph
from lanewise.net.layers import Noise
from lanewise.size.report import size
from lanewise.size.shapes import infer_shapes

if TYPE_CHECKING:
    from lanewise.native.optimizers import Optimizer
    from lanewise.native.program import Program

# How often images and weights may be drawn to get away from kinks, and the work (multiply–adds of
# one pass) after which no new draw begins. Among so many values some are always near a kink: there
# a second draw is all that helps.
DRAWS = 8
MUCH_WORK = 3e9
CROWD = 1_000_000
# How many pairs of disturbances a gradient that differs is given to show that it has a kink.
PATIENCE = 5
# Most nets' fresh weights make values shrink from layer to layer; these keep them near 1, so that
# tanh, sigmoid and softmax are asked about their whole range.
GAIN = np.float32(2.5)
# The pixel statistics of the uint8 road: any numbers that are not alike and that no mean of a few
# pixels equals. With a mean of 0.5 every window of two whose pixels make 255 would be a tie at 0.
MEAN, STD = (0.4495, 0.4995, 0.5515), (0.2, 0.25, 0.3)


def check(graph: Graph, **choices: Any) -> Comparison:
    """`compare`, and Disagreement with the table where a tensor differs."""
    comparison = compare(graph, **choices)
    if not comparison.ok:
        raise Disagreement(f"{graph.origin}: {comparison.summary()}\n{comparison.as_text()}")
    return comparison


def compare(
    graph: Graph,
    *,
    batch: int = 17,
    seed: int = 0,
    training: bool = True,
    pixels: bool = False,
    label_smoothing: float = 0.0,
    optimizer: Optimizer | None = None,
    target: str = "host",
    threads: int | None = None,
    cache: bool = True,
    one_by_one: bool = False,
    exact: bool = False,
    precision: str = "fp32",
) -> Comparison:
    """The engine against PyTorch on random weights, images and labels drawn from `seed`.

    training=False compares the logits only; pixels=True gives the engine uint8 images, which it
    normalises itself; an optimizer adds rows for its state and the parameters after three steps;
    one_by_one=True asks the program for single images instead of the one for many (inference);
    exact=True allows no algorithm that rounds more than a convolution's sums as they are defined;
    precision="bf16" rounds maps and multiplied weights, in PyTorch at the same places.
    """
    require_torch()
    from lanewise.bridge.updates import judge_updates
    from lanewise.native import compile_net

    program = compile_net(
        graph,
        training=training,
        optimizer=optimizer,
        input_gradient=training,
        threads=threads,
        target=target,
        cache=cache,
        batch=1 if one_by_one else None,
        exact=exact,
        precision=precision,
    )
    trial = Trial(batch, seed, training, pixels, label_smoothing)
    with closing(program):
        rows = judge(program, graph, trial)
        if optimizer is not None:
            program.initialise(seed)
            rows += judge_updates(program, optimizer, *draw(graph, trial, 0))
    return Comparison(graph, batch, seed, target, tuple(rows))


@dataclass(frozen=True)
class Trial:
    """What is compared: how many images of which kind, drawn from which seed."""

    batch: int = 17
    seed: int = 0
    training: bool = True
    pixels: bool = False
    label_smoothing: float = 0.0


def judge(program: Program, graph: Graph, trial: Trial) -> list[Row]:
    """A row for each tensor of a program that was compiled for this graph.

    Of several draws a tensor's row is the one with the closest tolerance, but one that differs in
    any of them stays.
    """
    rows: dict[str, Row] = {}
    for number in range(_draws(graph, trial)):
        asked = _prepare(program, graph, trial, number)
        computed = _measure(program, trial, *draw(graph, trial, number))
        reference = Reference(asked, trial.seed)
        for row in _rows(computed, reference):
            rows[row.name] = min(rows.get(row.name, row), row, key=lambda r: (r.ok, r.tolerance))
        if reference.steady:
            break
    return list(rows.values())


def _rows(computed: Arrays, reference: Reference) -> list[Row]:
    """Where a gradient differs, more disturbances are asked before that is said: it may be a kink
    that the first have missed. Logits and loss have no kinks in them."""
    for patience in reversed(range(PATIENCE)):
        rows = [_row(name, computed[name], tensor) for name, tensor in reference.tensors.items()]
        wrong = {row.name for row in rows if not row.ok}
        if not wrong or wrong & {"logits", "loss"} or not patience:
            break
        reference.shake()
    return rows


def _draws(graph: Graph, trial: Trial) -> int:
    work = trial.batch * (1 + size(graph).totals.macs)
    values = trial.batch * sum(map(prod, infer_shapes(graph).values()))
    return max(1, min(DRAWS if values < CROWD else 2, int(MUCH_WORK / work)))


def _row(name: str, computed: Values, expected: Tensor) -> Row:
    if computed.shape != expected.values.shape:
        raise Disagreement(f"{name}: shape {computed.shape}, expected {expected.values.shape}")
    error = float(np.abs(computed - expected.values).max(initial=0.0))
    return Row(name, error / expected.size, expected.tolerance / expected.size)


def draw(graph: Graph, trial: Trial, number: int) -> tuple[Values, Values]:
    """(images N×C×H×W, labels N): normal float32 values, or uint8 pixels."""
    shapes = infer_shapes(graph)
    random = np.random.Generator(np.random.Philox((trial.seed, number)))
    shape = (trial.batch, *shapes[graph.nodes[0].name])
    labels = random.integers(prod(shapes[graph.output.name]), size=trial.batch)
    if trial.pixels:
        return random.integers(256, size=shape, dtype=np.uint8), labels
    return random.standard_normal(shape, dtype=np.float32), labels


def _prepare(program: Program, graph: Graph, trial: Trial, number: int) -> Question:
    """Give the program the weights of a draw; the same draw as a question to PyTorch."""
    program.initialise(trial.seed * DRAWS + number)
    _draw_weights(program, trial, number)
    images, labels = draw(graph, trial, number)
    if trial.pixels:
        mean, std = _pixel_statistics(images.shape[1])
        program.set_normalisation(mean, std)
        images = _normalised(images, mean, std)
    return question(program, trial, images, labels)


def _normalised(images: Values, mean: Values, std: Values) -> Values:
    """(pixel / 255 − mean) / std as factor and shift, that are float32 for every pixel: what those
    two are rounded is the same for a whole channel, and no error of the net's."""
    factor, shift = (
        (1 / (255 * std.astype("f8"))).astype("f4"),
        (-mean.astype("f8") / std).astype("f4"),
    )
    return images * factor.astype("f8")[:, None, None] + shift.astype("f8")[:, None, None]


def _draw_weights(program: Program, trial: Trial, number: int) -> None:
    """Matrices and kernels keep what they were given, times GAIN where that lets values shrink.
    Vectors, that begin as ones and zeros, and running statistics are drawn anew, so that none of
    them is the same for all."""
    from lanewise.native.initial import deep_without_norms

    gain = np.float32(1) if deep_without_norms(program.graph) else GAIN
    random = np.random.Generator(np.random.Philox((trial.seed, number, 1)))
    drawn = {name: array.copy() for name, array in program.learned.items()}
    for name in program.parameters:
        array = drawn[name]
        if array.ndim > 1:
            array *= gain
        elif name.endswith(".weight"):
            signs = random.choice([-1, 1, 1], array.shape)
            array[...] = signs * random.uniform(0.5, 1.5, array.shape)
        elif not array.any():
            array[...] = random.uniform(-0.5, 0.5, array.shape)
    for name in program.buffers:
        array = drawn[name]
        if name.endswith(".running_var"):
            array[...] = random.uniform(0.5, 2.0, array.shape)
        else:
            array[...] = random.standard_normal(array.shape)
    program.set_learned(drawn)


def question(
    program: Program, trial: Trial, images: Values, labels: Values, step: int = 0
) -> Question:
    """What the program is about to compute for images as its first layer sees them."""
    graph, training = program.graph, trial.training
    return Question(
        graph,
        {name: array.copy() for name, array in program.parameters.items()},
        images,
        labels,
        trial.label_smoothing,
        noise_masks(graph, trial.seed, step, len(images)) if training else None,
        training,
        {name: array.astype("f8") for name, array in program.buffers.items()},
        program.facts.exact,
        program.facts.precision,
        isinstance(program, ImageProgram),
    )


def _pixel_statistics(channels: int) -> tuple[Values, Values]:
    """Uneven means and deviations, one for each channel."""
    repeats = -(-channels // len(MEAN))
    mean, std = (np.tile(np.array(row, "f4"), repeats)[:channels] for row in (MEAN, STD))
    return mean, std


def _measure(program: Program, trial: Trial, images: Values, labels: Values) -> Arrays:
    """What the engine computes, under the names of `reference.py`."""
    logits = program.forward(images)
    if not trial.training:
        return {"logits": logits}
    loss, _ = program.gradients_only(
        images, labels, smoothing=trial.label_smoothing, seed=trial.seed
    )
    gradients = {f"{name}.grad": array.copy() for name, array in program.gradients.items()}
    mean_loss = np.asarray(loss)
    first = {"logits": logits, "loss": mean_loss, "input.grad": program.input_gradient}
    return first | gradients | _running(program, trial, images, labels)


def _running(program: Program, trial: Trial, images: Values, labels: Values) -> Arrays:
    """The running statistics after one step of training, which `gradients_only` is not."""
    if program.buffers:
        program.step(images, labels, lr=0.0, seed=trial.seed)
    return {name: array.copy() for name, array in program.buffers.items()}


def noise_masks(graph: Graph, seed: int, step: int, batch: int) -> Arrays:
    """The factors of every noise layer in one training step, in a shape that fits N×(its shape):
    one for each element, each channel or each image."""
    from lanewise.native.kernels.dropout import kept_scale, lane_keys, noise_mask
    from lanewise.native.rules.noise import dropout_salt

    shapes, masks = infer_shapes(graph), {}
    keys = lane_keys(seed, step, np.arange(batch))
    for node in graph.nodes:
        if isinstance(node.layer, Noise):
            salt = dropout_salt(node.name)
            kept = noise_mask(node.layer, keys, shapes[node.name], salt)
            masks[node.name] = kept * kept_scale(node.layer.rate)
    return masks
