"""Functions as polynomials, and activation kernels: against float64, at kinks against PyTorch."""

from __future__ import annotations

from math import erfc

import numpy as np
import pytest

from lanewise.native.kernels import functions
from lanewise.native.kernels.activation import (
    ACTIVATIONS,
    activation,
    activation_gradient,
)
from lanewise.native.nest import Buffer, Kernel
from lanewise.native.writer import Writer
from native_kernel import aligned, execute, placed

LANES = 16


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return placed(np.random.default_rng(seed).normal(size=shape))


# ---- functions ----------------------------------------------------------------------------------


def unary(function, vectors: int) -> Kernel:
    source = Buffer("source", (vectors, LANES))
    target = Buffer("target", (vectors, LANES), access="write")
    writer = Writer("unary", [source, target])
    with writer.loop("i", vectors) as i:
        value = function(writer, writer.load(source, i, 0))
        writer.store(target, i, 0, value=value)
    return writer.finish()


def applied(function, values: np.ndarray) -> np.ndarray:
    x = placed(np.resize(values, (-(-values.size // LANES), LANES)))
    y = aligned(x.shape)
    execute(unary(function, len(x)), x, y, interpret=False)
    return y.ravel()[: values.size]


def logistic(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


RANDOM = np.random.default_rng(5)
TINY = 10.0 ** RANDOM.uniform(-30, 0, 4000)


@pytest.mark.parametrize(
    ("function", "definition", "values", "places"),
    [
        (functions.exponential, np.exp, RANDOM.uniform(-87.3, 88.3, 40000), 1.0),
        (functions.exponential, np.exp, RANDOM.normal(size=40000), 1.0),
        (functions.logarithm, np.log, np.exp(RANDOM.uniform(-87, 88, 40000)), 1.0),
        (functions.logarithm, np.log, RANDOM.uniform(0.5, 2, 40000), 1.0),
        (functions.exponential_minus_one, np.expm1, RANDOM.uniform(-20, 3, 40000), 1.5),
        (functions.exponential_minus_one, np.expm1, np.concatenate([TINY, -TINY]), 1.5),
        (functions.tanh, np.tanh, RANDOM.uniform(-10, 10, 40000), 1.5),
        (functions.tanh, np.tanh, np.concatenate([TINY, -TINY]), 1.5),
        (functions.sigmoid, logistic, RANDOM.uniform(-80, 80, 40000), 2.5),
    ],
)
def test_function_is_exact_to_few_last_places(function, definition, values, places):
    x = values.astype(np.float32)
    wanted = definition(x.astype(np.float64))
    step = np.spacing(np.abs(wanted).astype(np.float32)).astype(np.float64)
    assert np.max(np.abs(applied(function, x) - wanted) / step) < places


EXTREMES = np.array([-np.inf, -1e30, -1e4, -100, 0, 100, 1e4, 1e30, np.inf, np.nan], np.float32)


@pytest.mark.parametrize(
    ("function", "low", "middle", "high"),
    [
        (functions.exponential, 0.0, 1.0, 2.4061436e38),
        (functions.exponential_minus_one, -1.0, 0.0, 2.4061436e38),
        (lambda w, x: functions.normal(w, x)[0], 0.0, 0.5, 1.0),
        (functions.tanh, -1.0, 0.0, 1.0),
        (functions.sigmoid, 0.0, 0.5, 1.0),
    ],
)
def test_function_neither_overflows_nor_hides_nan(function, low, middle, high):
    y = applied(function, EXTREMES)
    wanted = np.array([low] * 4 + [middle] + [high] * 4 + [np.nan])
    np.testing.assert_allclose(y, wanted, rtol=1e-6, atol=1e-37)


def test_normal_distribution():
    """Absolutely to 1e-7, relatively to 1e-5 even where next to nothing is left."""
    x = np.concatenate([RANDOM.uniform(-13, 6, 20000), RANDOM.normal(size=20000)]).astype("f4")
    wanted = np.array([erfc(-value / 2**0.5) / 2 for value in x.astype(float)])
    found = applied(lambda w, v: functions.normal(w, v)[0], x)
    assert np.max(np.abs(found - wanted)) < 1e-7
    assert np.max(np.abs(found / wanted - 1)) < 1e-5
    density = np.exp(-(x.astype(float) ** 2) / 2) / (2 * np.pi) ** 0.5
    found = applied(lambda w, v: functions.normal(w, v)[1], x)
    np.testing.assert_allclose(found, density, rtol=1e-5)


# ---- activations --------------------------------------------------------------------------------


def bell(x: np.ndarray) -> np.ndarray:
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


def below(x: np.ndarray) -> np.ndarray:
    return np.vectorize(lambda value: erfc(-value / 2**0.5) / 2)(x)


def between(x: np.ndarray, low: float, high: float) -> np.ndarray:
    return (x > low) & (x < high)


#: layer word → y(x), and dy/dx as a function of x
DEFINITIONS = {
    "relu": (lambda x: np.maximum(x, 0), lambda x: x > 0),
    "leakyrelu": (lambda x: np.where(x > 0, x, 0.7 * x), lambda x: np.where(x > 0, 1, 0.7)),
    "relu6": (lambda x: np.clip(x, 0, 6), lambda x: between(x, 0, 6)),
    "elu": (
        lambda x: np.where(x > 0, x, 0.7 * np.expm1(x)),
        lambda x: np.where(x > 0, 1, 0.7 * np.exp(x)),
    ),
    "silu": (
        lambda x: x * logistic(x),
        lambda x: logistic(x) * (1 + x * logistic(-x)),
    ),
    "gelu": (lambda x: x * below(x), lambda x: below(x) + x * bell(x)),
    "tanh": (np.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "sigmoid": (logistic, lambda x: logistic(x) * (1 - logistic(x))),
    "hardsigmoid": (lambda x: np.clip(x + 3, 0, 6) / 6, lambda x: between(x, -3, 3) / 6),
    "hardswish": (
        lambda x: x * np.clip(x + 3, 0, 6) / 6,
        lambda x: np.where(x <= -3, 0, np.where(x < 3, x / 3 + 0.5, 1)),
    ),
}


def read_by_gradient(word: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x if ACTIVATIONS[word].reads_input else y


@pytest.mark.parametrize("word", ACTIVATIONS)
def test_activation(word):
    x, dy, before = (placed(normal(13, LANES, seed=s) * 3) for s in range(3))
    y, dx = aligned(x.shape), aligned(x.shape)
    forward, slope = DEFINITIONS[word]
    execute(activation("f", word, 13, 0.7), x, y)
    np.testing.assert_allclose(y, forward(x.astype(float)), rtol=1e-6, atol=2e-7)
    wanted = dy * slope(x.astype(float))
    read = read_by_gradient(word, x, y)
    execute(activation_gradient("b", word, 13, 0.7), dy, read, dx)
    np.testing.assert_allclose(dx, wanted, rtol=1e-5, atol=1e-6)
    more = [] if ACTIVATIONS[word].reads_input else [before]
    sign = more[0] if more else x
    execute(activation_gradient("b", word, 13, 0.7, mask=True), dy, read, *more, dx)
    np.testing.assert_allclose(dx, wanted * (sign > 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("word", ACTIVATIONS)
def test_activation_is_exact_to_few_last_places(word):
    """Over its whole range, in units of the last place of the larger of x and y."""
    random = np.random.default_rng(7)
    x = placed(np.concatenate([random.uniform(-20, 20, 8000), random.normal(size=8000)]))
    x = x.reshape(-1, LANES)
    y, dx, dy = aligned(x.shape), aligned(x.shape), placed(np.ones(x.shape))
    execute(activation("f", word, len(x), 0.7), x, y, interpret=False)
    wanted = DEFINITIONS[word][0](x.astype(float))
    step = np.spacing(np.maximum(np.abs(wanted), np.minimum(np.abs(x), 1)).astype("f4"))
    assert np.max(np.abs(y - wanted) / step) < 2.5
    read = read_by_gradient(word, x, y)
    execute(activation_gradient("b", word, len(x), 0.7), dy, read, dx, interpret=False)
    assert np.max(np.abs(dx - DEFINITIONS[word][1](x.astype(float)))) < 4e-7


TORCH = {"leakyrelu": ("leaky_relu", 0.7), "elu": ("elu", 0.7)}
KINKS = (-6.0, -3.0, 0.0, 3.0, 6.0)


@pytest.mark.parametrize("word", ACTIVATIONS)
def test_activation_at_kinks_is_pytorchs(word):
    torch = pytest.importorskip("torch", reason="the value at a kink is PyTorch's convention")
    name, *parameter = TORCH.get(word, (word,))
    function = getattr(torch.nn.functional, name)
    around = [kink + side for kink in KINKS for side in (-1e-5, 0.0, 1e-5)]
    x = placed(np.resize(np.array(around, "f4"), (2, LANES)))
    y, dx, dy = aligned(x.shape), aligned(x.shape), normal(*x.shape)
    execute(activation("f", word, 2, 0.7), x, y)
    execute(activation_gradient("b", word, 2, 0.7), dy, read_by_gradient(word, x, y), dx)
    asked = torch.from_numpy(x.astype("f8")).requires_grad_()
    answer = function(asked, *parameter)
    answer.backward(torch.from_numpy(dy.astype("f8")))
    np.testing.assert_allclose(y, answer.detach().numpy(), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(dx, asked.grad.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("word", ACTIVATIONS)
def test_activation_lets_nan_pass(word):
    x, y = placed(np.zeros((1, LANES))), aligned((1, LANES))
    x[0, 3] = np.nan
    execute(activation("f", word, 1, 0.7), x, y, interpret=False)
    assert np.isnan(y[0, 3]) and not np.isnan(y[0, :3]).any()
