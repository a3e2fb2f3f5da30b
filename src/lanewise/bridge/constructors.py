"""A torch module as the expression that makes it: `nn.Conv2d(1, 6, 5, padding=2)`.

One table: class → the attributes that it is given in order, and those that are said by name where
they are not the default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from textwrap import wrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

Form = tuple[tuple[str, ...], dict[str, Any]]

_WINDOW: dict[str, Any] = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
_POOL: Form = (("kernel_size",), {"stride": ..., "padding": 0, "ceil_mode": False})
_OWN_POOL: Form = (("kernel_size", "stride"), {"padding": 0, "ceil_mode": False})
_BATCH_NORM: dict[str, Any] = {"eps": 1e-5, "momentum": 0.1, "affine": True}
_NORM: Form = (("normalized_shape",), {"eps": 1e-5})

FORMS: dict[str, Form] = {
    "Conv2d": (("in_channels", "out_channels", "kernel_size"), _WINDOW),
    "ConvTranspose2d": (
        ("in_channels", "out_channels", "kernel_size"),
        {**_WINDOW, "output_padding": 0},
    ),
    "Linear": (("in_features", "out_features"), {}),
    "MaxPool2d": _POOL,
    "AvgPool2d": (_POOL[0], {**_POOL[1], "count_include_pad": True}),
    "SumPool2d": _OWN_POOL,
    "L2Pool2d": _OWN_POOL,
    "AdaptiveMaxPool2d": (("output_size",), {}),
    "AdaptiveAvgPool2d": (("output_size",), {}),
    "LeakyReLU": ((), {"negative_slope": 0.01}),
    "ELU": ((), {"alpha": 1.0}),
    "PReLU": ((), {"num_parameters": 1}),
    "BatchNorm1d": (("num_features",), _BATCH_NORM),
    "BatchNorm2d": (("num_features",), _BATCH_NORM),
    "GhostBatchNorm": (("num_features", "ghost"), _BATCH_NORM),
    "LayerNorm": _NORM,
    "ChannelLayerNorm": _NORM,
    "GroupNorm": (("num_groups", "num_channels"), {"eps": 1e-5}),
    "LocalResponseNorm": (("size",), {"alpha": 1e-4, "beta": 0.75, "k": 1.0}),
    "Dropout": (("p",), {}),
    "Dropout2d": (("p",), {}),
    "StochasticDepth": (("rate",), {}),
    "ChannelShuffle": (("groups",), {}),
    "ConstantPad1d": (("padding", "value"), {}),
    "ConstantPad2d": (("padding", "value"), {}),
    "ConstantPad3d": (("padding", "value"), {}),
}


def constructed(module: nn.Module) -> str:
    """The expression; long tables go over several lines."""
    name = type(module).__name__
    prefix = "" if name in _own_names() else "nn."
    rule = SPECIAL.get(name)
    arguments = rule(module) if rule else _arguments(module, *FORMS.get(name, ((), {})))
    if not rule and "bias" in module._parameters and module.bias is None:
        arguments.append("bias=False")
    line = f"{prefix}{name}({', '.join(arguments)})"
    if len(line) < 64 or (len(arguments) < 2 and "\n" in line):
        return line
    inner = "\n".join(f"    {argument}," for argument in arguments)
    return f"{prefix}{name}(\n{inner}\n)"


def _arguments(module: nn.Module, places: tuple[str, ...], named: dict[str, Any]) -> list[str]:
    given = [literal(_simple(getattr(module, name))) for name in places]
    for name, default in named.items():
        value = _simple(getattr(module, name))
        if value != (_simple(module.kernel_size) if default is ... else default):
            given.append(f"{name}={literal(value)}")
    return given


def _simple(value: Any) -> Any:
    """`(5, 5)` → 5, for sizes that are alike along both axes."""
    if isinstance(value, tuple) and len(value) in (1, 2) and len(set(value)) == 1:
        return value[0]
    return value


def literal(value: Any) -> str:
    """The value as Python writes it; infinity has no other way."""
    if isinstance(value, float) and value in (inf, -inf):
        return f'float("{value}")'
    return repr(value)


def _channel_scale(module: Any) -> list[str]:
    first = float(str(module.weight.detach().numpy()[0]))
    return [str(len(module.weight)), literal(first)]


def _subsample(module: Any) -> list[str]:
    """Its first weight is computed from both numbers of the window."""
    given = [str(len(module.weight)), repr(module.kernel_size)]
    stride, *named = _arguments(module, ("stride",), _OWN_POOL[1])
    return [*given, stride, *named]


def _partial_conv(module: Any) -> list[str]:
    rows: list[list[int]] = [[] for _ in range(module.dense_shape[0])]
    for kernel, channel in module.connections:
        rows[kernel].append(channel)
    _, channels, *kernel = module.dense_shape
    window = {name: _simple(value) for name, value in module.window.items()}
    said = [f"{name}={literal(v)}" for name, v in window.items() if v != (name != "padding") * 1]
    return [str(channels), _table(rows), repr(tuple(kernel)), str(module.bias is not None), *said]


def _radial_basis(module: Any) -> list[str]:
    return [_table(module.codes.int().tolist())]


def _table(rows: list[list[int]]) -> str:
    """A list of lists; a long one with a row a line."""
    line = repr(rows)
    if len(line) < 60:
        return line
    wrapped = ("\n".join(wrap(f"{row},", 84, subsequent_indent=" ")) for row in rows)
    inner = "\n".join(wrapped).replace("\n", "\n        ")
    return f"[\n        {inner}\n    ]"


def _upsample(module: Any) -> list[str]:
    scale = _simple(tuple(int(factor) for factor in module.scale_factor))
    if module.mode == "nearest":
        return [f"scale_factor={scale}"]
    return [f"scale_factor={scale}", 'mode="bilinear"', "align_corners=False"]


# Modules whose attributes are not what they were given.
SPECIAL: dict[str, Callable[[Any], list[str]]] = {
    "ChannelScale": _channel_scale,
    "PartialConv2d": _partial_conv,
    "Subsample2d": _subsample,
    "RadialBasis": _radial_basis,
    "Upsample": _upsample,
}


def _own_names() -> frozenset[str]:
    from lanewise.bridge import torch_layers

    own = vars(torch_layers).items()
    return frozenset(n for n, one in own if getattr(one, "__module__", "") == torch_layers.__name__)


def needed_classes(root: nn.Module) -> list[Any]:
    """The classes and functions of `torch_layers` that a module's parts need, in its order."""
    from lanewise.bridge import torch_layers

    used = {type(part).__name__ for part in root.children()}
    wanted = set(_with_bases(used & _own_names()))
    return [vars(torch_layers)[name] for name in vars(torch_layers) if name in wanted]


def _with_bases(names: set[str]) -> Iterator[str]:
    from lanewise.bridge import torch_layers

    for name in names:
        for base in vars(torch_layers)[name].__mro__:
            if base.__module__ == torch_layers.__name__:
                yield base.__name__
        if name in ("ChannelScale", "Subsample2d"):
            yield "_along_channels"
