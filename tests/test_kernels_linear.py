"""Full connection, images between rows and lanes, and the optimizers, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from lanewise.native.kernels.images import gather, row_blocks, scatter, to_rows
from lanewise.native.kernels.linear import (
    GradientTile,
    bias_gradient,
    forward,
    gradient_tile,
    input_gradient,
    weight_gradient,
)
from lanewise.native.kernels.optimizer import (
    adamw,
    reduce_groups,
    sgd,
)
from lanewise.native.update_settings import adamw_settings, sgd_settings
from native_kernel import aligned, compile_kernel, execute, placed

LANES = 16


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return placed(np.random.default_rng(seed).normal(size=shape))


# ---- rows and lanes -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u8", "f32"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (2, 4, 8), (1, 5, 9)])
def test_gather(dtype, shape):
    kind = {"u8": np.uint8, "f32": np.float32}[dtype]
    channels, pixels = shape[0], shape[1] * shape[2]
    random = np.random.default_rng(1)
    images = placed(random.integers(0, 256, (9, channels * pixels)), kind)
    index = placed(random.integers(0, 9, LANES), np.int64)
    scale, shift = normal(channels), normal(channels, seed=1)
    target = aligned((channels * pixels, LANES))
    execute(gather("g", *shape, dtype), images, index, scale, shift, target, 9)
    wanted = images[index].T.astype(np.float32)
    if dtype == "f32":
        assert (target == wanted).all()
    else:
        wanted = wanted * np.repeat(scale, pixels)[:, None] + np.repeat(shift, pixels)[:, None]
        np.testing.assert_allclose(target, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("features", [1, 10, 16, 31, 84, 120])
def test_scatter_and_to_rows(features):
    x = normal(features, LANES)
    rows = aligned((LANES, features))
    execute(scatter("s", features), x, rows)
    assert (rows == x.T).all()
    blocks = aligned((row_blocks(features), LANES, LANES))
    execute(to_rows("t", features), x, blocks)
    flat = blocks.transpose(0, 2, 1).reshape(-1, LANES)
    assert (flat[:features] == x).all() and (flat[features:] == 0).all()


# ---- full connection ----------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(7, 5, 4), (13, 9, 2), (10, 21, 1), (1, 1, 3)])
def test_forward_and_input_gradient(sizes):
    outputs, inputs, slices = sizes
    x, w, b = normal(slices, inputs, LANES), normal(outputs, inputs), normal(outputs)
    y = aligned((slices, outputs, LANES))
    wanted = np.einsum("oi,sil->sol", w, x)
    execute(forward("f", outputs, inputs, slices, bias=False, relu=False), x, w, y)
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)
    execute(forward("f", outputs, inputs, slices, bias=True, relu=True), x, w, b, y)
    np.testing.assert_allclose(y, np.maximum(wanted + b[:, None], 0), rtol=1e-4, atol=1e-5)
    dy, dx = normal(*y.shape, seed=1), aligned(x.shape)
    wanted = np.einsum("oi,sol->sil", w, dy)
    execute(input_gradient("b", outputs, inputs, slices, mask=False), dy, w, dx)
    np.testing.assert_allclose(dx, wanted, rtol=1e-4, atol=1e-5)
    execute(input_gradient("b", outputs, inputs, slices, mask=True), dy, w, x, dx)
    np.testing.assert_allclose(dx, wanted * (x > 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("outputs", "inputs", "block", "tile"),
    [
        (3, 1, 3, None),
        (5, 15, 2, None),
        (7, 33, 7, None),
        (4, 84, 4, None),
        (9, 100, 4, GradientTile(1, 1)),
        (9, 100, 9, GradientTile(4, 3)),
        (6, 160, 6, None),
    ],
)
def test_weight_and_bias_gradient(outputs, inputs, block, tile):
    slices = 2
    x = normal(slices, row_blocks(inputs) * LANES, LANES)
    x[:, inputs:] = 0
    rows = placed(x.reshape(slices, -1, LANES, LANES).transpose(0, 1, 3, 2))
    dy = normal(slices, outputs, LANES, seed=1)
    dw = aligned((block, inputs))
    execute(weight_gradient("w", outputs, inputs, block, tile), rows, dy, dw, slices)
    wanted = np.einsum("sol,sil->oi", dy, x[:, :inputs])
    np.testing.assert_allclose(dw, wanted[:block], rtol=1e-4, atol=1e-4)
    db = aligned((outputs,))
    execute(bias_gradient("d", outputs), dy, db, slices)
    np.testing.assert_allclose(db, dy.sum((0, 2)), rtol=1e-4, atol=1e-4)


def test_a_block_of_outputs_starts_where_the_caller_points():
    outputs, inputs, slices = 6, 32, 2
    x = normal(slices, 2, LANES, LANES)
    dy = normal(slices, outputs, LANES, seed=1)
    dw = aligned((outputs, inputs))
    call = compile_kernel(weight_gradient("w", outputs, inputs, 2))
    for first in (0, 2, 4):
        call(x, dy.ravel()[first * LANES :], dw[first : first + 2], slices)
    wanted = np.einsum("sol,sbli->obi", dy, x).reshape(outputs, inputs)
    np.testing.assert_allclose(dw, wanted, rtol=1e-4, atol=1e-4)


def test_gradient_tile_fits_the_registers():
    for outputs in (1, 4, 10, 120):
        for inputs in (1, 16, 84, 400, 784):
            tile = gradient_tile(outputs, inputs)
            assert 1 <= tile.outputs <= outputs
            assert tile.outputs * tile.vectors + tile.vectors + 1 <= 32
    assert gradient_tile(120, 400) == GradientTile(5, 5)


# ---- optimizers ---------------------------------------------------------------------------------

SIZE = 48


def sgd_definition(p, gradients, lr, momentum=0.0, dampening=0.0, nesterov=False, weight_decay=0.0):
    moment = None
    for g in gradients:
        g = g + weight_decay * p
        moment = g if moment is None else momentum * moment + (1 - dampening) * g
        p = p - lr * (g + momentum * moment if nesterov else moment)
    return p


def adamw_definition(p, gradients, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
    mean, square = np.zeros_like(p), np.zeros_like(p)
    for step, g in enumerate(gradients, 1):
        p = p * (1 - lr * weight_decay)
        mean = betas[0] * mean + (1 - betas[0]) * g
        square = betas[1] * square + (1 - betas[1]) * g**2
        root = np.sqrt(square / (1 - betas[1] ** step)) + eps
        p = p - lr * mean / (1 - betas[0] ** step) / root
    return p


SGDS = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01},
]
ADAMWS = [{}, {"betas": (0.8, 0.99), "eps": 1e-3, "weight_decay": 0.1}]


@pytest.mark.parametrize("choices", SGDS)
def test_sgd(choices):
    gradients = np.random.default_rng(1).normal(size=(5, SIZE))
    p, moment = normal(SIZE), aligned((SIZE,))
    wanted = sgd_definition(p.astype(float), gradients, 0.1, **choices)
    for step, g in enumerate(gradients):
        settings = sgd_settings(0.1, first_step=step == 0, **choices)
        execute(sgd("s"), p, placed(g), moment, settings, SIZE // LANES)
    np.testing.assert_allclose(p, wanted, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize("choices", ADAMWS)
def test_adamw(choices):
    gradients = np.random.default_rng(1).normal(size=(8, SIZE))
    p, mean, square = normal(SIZE), aligned((SIZE,)), aligned((SIZE,))
    mean[:] = square[:] = 0
    wanted = adamw_definition(p.astype(float), gradients, 0.1, **choices)
    for step, g in enumerate(gradients, 1):
        settings = adamw_settings(0.1, step=step, **choices)
        execute(adamw("a"), p, placed(g), mean, square, settings, SIZE // LANES)
    np.testing.assert_allclose(p, wanted, rtol=3e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "definition", "choices"),
    [("SGD", sgd_definition, c) for c in SGDS] + [("AdamW", adamw_definition, c) for c in ADAMWS],
)
def test_definitions_are_pytorchs(name, definition, choices):
    torch = pytest.importorskip("torch", reason="the optimizers are PyTorch's by definition")
    gradients = np.random.default_rng(1).normal(size=(8, SIZE))
    start = np.random.default_rng(2).normal(size=SIZE)
    parameter = torch.from_numpy(start.copy()).requires_grad_()
    optimizer = getattr(torch.optim, name)([parameter], lr=0.1, **choices)
    for g in gradients:
        parameter.grad = torch.from_numpy(g.copy())
        optimizer.step()
    wanted = definition(start, gradients, 0.1, **choices)
    np.testing.assert_allclose(parameter.detach().numpy(), wanted, rtol=1e-12)


def test_reduce_groups_keeps_the_order():
    partial, total = normal(3, 64), aligned((32,))
    execute(reduce_groups("r", 64), partial, total, 3, 2)
    assert (total == ((partial[0] + partial[1]) + partial[2])[:32]).all()
