"""Keras 3 on TensorFlow or on JAX: a training step, compiled whole.

The step is what Keras's own trainer does, without its bookkeeping between steps: on TensorFlow one
`tf.function`, on JAX one `jax.jit` of the stateless calls with the old values given away.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import numpy as np

from lanewise.net.layers import Dropout
from peers.keras_model import Model
from peers.work import Ready, Work

PACKAGES = ("keras", "tensorflow", "tensorflow_cpu", "jax")


def training(work: Work) -> Ready:
    """A training step on the backend of the setting."""
    if any(isinstance(node.layer, Dropout) for node in work.graph.nodes):
        raise NotImplementedError("dropout: nobody's masks are the others'")
    os.environ["KERAS_BACKEND"] = backend = str(work.options["backend"])
    return BACKENDS[backend](work)


def _optimizer(work: Work) -> Any:
    import keras

    return keras.optimizers.SGD(work.first_rate, momentum=work.momentum, nesterov=True)


def _batches(work: Work, convert: Callable[[np.ndarray], Any]) -> Iterator[Any]:
    """For ever: images N×H×W×C and labels, in the backend's own memory."""
    turned = (
        (np.ascontiguousarray(images.transpose(0, 2, 3, 1)), labels.astype(np.int32))
        for images, labels in work.batches
    )
    return cycle([(convert(images), convert(labels)) for images, labels in turned])


def _tensorflow(work: Work) -> Ready:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(work.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    import keras

    model, optimizer = Model(work), _optimizer(work)
    criterion = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer.build(model.model.trainable_variables)

    @tf.function(jit_compile=bool(work.options["xla"]))  # type: ignore[untyped-decorator]
    def step(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = criterion(labels, model.model(images, training=True))
        variables = model.model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    batches = _batches(work, tf.constant)

    def run(times: int) -> None:
        for _ in range(times):
            loss = step(*next(batches))
        float(loss)

    outcome = {"loss": np.array(float(step(*next(batches)))), **model.learned()}
    optimizer.learning_rate.assign(work.rate)
    return Ready(outcome, run)


def _jax(work: Work) -> Ready:
    import jax
    import keras

    model, optimizer = Model(work), _optimizer(work)
    criterion = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net = model.model
    optimizer.build(net.trainable_variables)

    def loss_of(weights: Any, others: Any, images: Any, labels: Any) -> Any:
        logits, others = net.stateless_call(weights, others, images, training=True)
        return criterion(labels, logits), others

    def step(state: State, images: Any, labels: Any) -> tuple[Any, State]:
        weights, others, moments = state
        (loss, others), slopes = jax.value_and_grad(loss_of, has_aux=True)(
            weights, others, images, labels
        )
        weights, moments = optimizer.stateless_apply(moments, slopes, weights)
        return loss, [list(weights), list(others), list(moments)]

    groups = [net.trainable_variables, net.non_trainable_variables, optimizer.variables]
    compiled = jax.jit(step, donate_argnums=0)
    batches = _batches(work, jax.numpy.asarray)
    state: State = [[jax.numpy.array(variable.value) for variable in some] for some in groups]

    def run(times: int) -> None:
        nonlocal state
        for _ in range(times):
            loss, state = compiled(state, *next(batches))
        loss.block_until_ready()

    loss, state = compiled(state, *next(batches))
    for some, values in zip(groups, state, strict=True):
        for variable, value in zip(some, values, strict=True):
            variable.assign(np.array(value))
    outcome = {"loss": np.array(float(loss)), **model.learned()}
    place = [variable is optimizer._learning_rate for variable in groups[2]].index(True)
    state[2][place] = jax.numpy.full_like(state[2][place], work.rate)
    run(1)  # whatever it would compile again is compiled now
    return Ready(outcome, run)


State = list[list[Any]]  # weights, other variables, those of the optimizer
BACKENDS: dict[str, Callable[[Work], Ready]] = {"tensorflow": _tensorflow, "jax": _jax}
