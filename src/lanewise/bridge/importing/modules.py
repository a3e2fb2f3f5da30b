"""Modules that become a layer as a whole: those of `torch_layers`, which `convert` writes into the
files that it makes, and stochastic depth, which computes nothing outside of training.

A class of the user's that only has the name of one of ours is none: its source must be ours.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lanewise.bridge.importing.builder import Builder, NoLayer
from lanewise.bridge.importing.values import Constant, Value
from lanewise.bridge.importing.windows import pair, sides, with_border, with_filled_border
from lanewise.net import layers as kinds

if TYPE_CHECKING:
    from torch import nn

Parts = dict[str, Constant]
Rule = Callable[[Builder, Any, Parts, Value], Value]


def _ghost_batch_norm(b: Builder, module: Any, parts: Parts, read: Value) -> Value:
    layer = kinds.BatchNorm(module.eps, module.momentum, module.ghost, module.affine)
    return b.add(layer, read, **parts)


def _pool(kind: type[kinds.Pool]) -> Rule:
    def rule(b: Builder, module: Any, parts: Parts, read: Value) -> Value:
        read, pad = with_filled_border(read, sides(module.padding), 0.0)
        window = pair(module.kernel_size), pair(module.stride)
        return b.add(kind(*window, pad, bool(module.ceil_mode)), read, **parts)

    return rule


def _partial_conv(b: Builder, module: Any, parts: Parts, read: Value) -> Value:
    rows: list[list[int]] = [[] for _ in range(module.dense_shape[0])]
    for kernel, channel in module.connections:
        rows[kernel].append(channel)
    window = module.window
    read, pad = with_border(read, sides(window.get("padding", 0)))
    layer = kinds.PartialConv(
        tuple(map(tuple, rows)),
        tuple(module.dense_shape[2:]),
        pair(window.get("stride", 1)),
        pad,
        pair(window.get("dilation", 1)),
        module.bias is not None,
    )
    return b.add(layer, read, **parts)


def _radial_basis(b: Builder, module: Any, parts: Parts, read: Value) -> Value:
    return b.add(kinds.RadialBasis(module.codes.shape[0]), read)


def _stochastic_depth(b: Builder, module: Any, parts: Parts, read: Value) -> Value:
    found = [getattr(module, name, None) for name in ("rate", "p", "drop_prob")]
    rate = next((value for value in found if value is not None), 0.0)
    if not rate:
        return read
    if getattr(module, "mode", "row") != "row" or not 0 < rate < 1:
        raise NoLayer("stochastic depth of something else than images")
    return b.pointwise(kinds.StochasticDepth(float(rate)), read)


# Class of `torch_layers` → rule: (builder, module, its parameters, what it reads) → value.
OWN: dict[str, Rule] = {
    "GhostBatchNorm": _ghost_batch_norm,
    "SumPool2d": _pool(kinds.SumPool),
    "L2Pool2d": _pool(kinds.L2Pool),
    "Subsample2d": _pool(kinds.Subsample),
    "PartialConv2d": _partial_conv,
    "RadialBasis": _radial_basis,
    "StochasticDepth": _stochastic_depth,
}
# The same for classes of other libraries, that have no parameters and do nothing in inference.
IDLE: dict[str, Rule] = dict.fromkeys(("StochasticDepth", "DropPath"), _stochastic_depth)


def _is_ours(module: nn.Module) -> bool:
    from lanewise.bridge import torch_layers

    own = getattr(torch_layers, type(module).__name__)
    try:
        return isinstance(module, own) or inspect.getsource(type(module)) == inspect.getsource(own)
    except (OSError, TypeError):
        return False


def _is_idle(module: nn.Module) -> bool:
    return not list(module.parameters()) and not list(module.buffers())


def whole() -> dict[str, Callable[[Any], bool]]:
    """Class name → test: the modules that become one layer."""
    return {**dict.fromkeys(OWN, _is_ours), **dict.fromkeys(IDLE, _is_idle)}


def rule_of(module: Any) -> Rule:
    """The rule of a module that `whole` has found."""
    name = type(module).__name__
    return IDLE[name] if name in IDLE else OWN[name]
