"""The update of the parameters, as torch.optim.SGD and torch.optim.AdamW define it.

A kernel works on a contiguous range of `blocks` × 16 floats, whatever tensors lie in it: jobs split
the parameters as they like. Zero padding between tensors stays zero. Numbers of the step come in
`settings`, 16 floats made by `update_settings.py`.
"""

from __future__ import annotations

from lanewise.native.kernels.functions import number
from lanewise.native.nest import LANES, Buffer, Kernel, Read, Symbol, Value, as_index, op
from lanewise.native.update_settings import SETTINGS
from lanewise.native.writer import Writer


def _range(blocks: Symbol, name: str, access: str = "update") -> Buffer:
    return Buffer(name, (blocks, LANES), access=access)


# ---- stochastic gradient descent ----------------------------------------------------------------


def sgd(name: str) -> Kernel:
    """Buffers parameter, gradient, momentum, settings; symbol blocks.

    g += decay · parameter; momentum ← keep · momentum + gain · g; then
    parameter −= lr · (momentum, or with Nesterov g + momentum factor · momentum).
    """
    blocks = Symbol("blocks")
    parameter, moment = _range(blocks, "parameter"), _range(blocks, "momentum")
    gradient = _range(blocks, "gradient", "read")
    settings = Buffer("settings", (SETTINGS,), align=4)
    writer = Writer(name, [parameter, gradient, moment, settings], [blocks])
    lr, keep, gain, ahead, nesterov, decay = _read_settings(writer, settings, 6)
    back = writer.let(op("neg", lr))
    looks_ahead = writer.let(op("gt", nesterov, number(0.5)))
    with writer.loop("i", blocks) as i:
        p = writer.let(writer.load(parameter, i, 0), "p")
        g = writer.let(op("fma", decay, p, writer.load(gradient, i, 0)), "g")
        new = op("fma", gain, g, op("mul", keep, writer.load(moment, i, 0)))
        m = writer.let(new, "m")
        step = op("select", looks_ahead, op("fma", ahead, m, g), m)
        writer.store(moment, i, 0, value=m)
        writer.store(parameter, i, 0, value=op("fma", back, step, p))
    return writer.finish()


# ---- AdamW --------------------------------------------------------------------------------------


def adamw(name: str) -> Kernel:
    """Buffers parameter, gradient, exp_avg, exp_avg_sq, settings; symbol blocks."""
    blocks = Symbol("blocks")
    parameter = _range(blocks, "parameter")
    mean, square = _range(blocks, "exp_avg"), _range(blocks, "exp_avg_sq")
    gradient = _range(blocks, "gradient", "read")
    settings = Buffer("settings", (SETTINGS,), align=4)
    writer = Writer(name, [parameter, gradient, mean, square, settings], [blocks])
    decay, new, keep, fresh, root, eps, size = _read_settings(writer, settings, 7)
    back = writer.let(op("neg", size))
    with writer.loop("i", blocks) as i:
        g = writer.let(writer.load(gradient, i, 0), "g")
        m = writer.let(writer.load(mean, i, 0), "m")
        m = writer.let(op("fma", op("sub", g, m), new, m), "m")
        old = op("mul", keep, writer.load(square, i, 0))
        v = writer.let(op("fma", op("mul", fresh, g), g, old), "v")
        below = op("fma", op("sqrt", v), root, eps)
        p = op("mul", decay, writer.load(parameter, i, 0))
        writer.store(mean, i, 0, value=m)
        writer.store(square, i, 0, value=v)
        writer.store(parameter, i, 0, value=op("fma", back, op("div", m, below), p))
    return writer.finish()


def _read_settings(writer: Writer, settings: Buffer, count: int) -> list[Value]:
    return [writer.let(writer.splat(settings, i)) for i in range(count)]


# ---- the sum of the workers' gradients ----------------------------------------------------------


def reduce_groups(name: str, stride: int) -> Kernel:
    """Buffers partial (groups, stride), gradient (blocks, 16); symbols groups, blocks.

    gradient = partial[0] + partial[1] + … in this order, whoever computed them; the caller moves
    both pointers to the range it wants, and blocks · 16 ≤ stride. `stride` is a multiple of 16.
    """
    groups, blocks = Symbol("groups"), Symbol("blocks", most=stride // LANES)
    partial = Buffer("partial", (groups, stride))
    gradient = Buffer("gradient", (blocks, LANES), access="write")
    writer = Writer(name, [partial, gradient], [groups, blocks])
    with writer.loop("i", blocks) as i:
        at = as_index(i) * LANES
        cell = writer.assign(writer.register("sum"), writer.load(partial, 0, at))
        with writer.loop("g", groups, 1) as g:
            writer.assign(cell, op("add", Read(cell), writer.load(partial, g, at)))
        writer.store(gradient, i, 0, value=Read(cell))
    return writer.finish()
