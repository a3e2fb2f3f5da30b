"""How each kind is written: one table that both `parse` and `show` follow.

A layer is a word, then its value (if it has one), then options in any order:

    conv 6 k5 stride 2 pad 1:2x0:1 nobias
    ^word  ^option        ^option   ^flag
         ^value

An option's value may touch its word (`pad2`) or follow it (`pad 2`). What a layer reads, where that
is not the layer before it, stands behind all this (`from NAME`) or, in joins, instead of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lanewise.net.layers import (
    ACTIVATIONS,
    ADAPTIVE_POOLS,
    ELU,
    GLOBAL_POOLS,
    JOINS,
    KINDS,
    NO_PAD,
    NOISES,
    WINDOW_POOLS,
    AvgPool,
    BatchNorm,
    ChannelPad,
    ChannelScale,
    ChannelShuffle,
    ChannelSplit,
    Conv,
    DepthwiseConv,
    Flatten,
    GroupNorm,
    Input,
    Layer,
    LayerNorm,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    PartialConv,
    PReLU,
    RadialBasis,
    TransposedConv,
    Upsample,
)
from lanewise.net.values import COUNT, ENDS, PAD, PAIR, REAL, SIDES, TABLE, TRIPLE, Value


@dataclass(frozen=True)
class Slot:
    """The value right after the layer's word; it fills `fields` (several: one number each)."""

    fields: tuple[str, ...]
    value: Value
    meaning: str
    required: bool = True


@dataclass(frozen=True)
class Option:
    """A word with a value. It is left out of the text where it equals `default`, or the field
    `like` of the same layer. Without either it is required. `apart`: shown with a space."""

    word: str
    field: str
    value: Value
    meaning: str
    default: Any = None
    like: str = ""
    apart: bool = False

    @property
    def required(self) -> bool:
        """Whether a layer cannot be written without it."""
        return self.default is None and not self.like


@dataclass(frozen=True)
class Flag:
    """A word alone that sets a field to a value other than its default."""

    word: str
    field: str
    sets: bool


@dataclass(frozen=True)
class Form:
    """How a kind is written; `example` is shown in errors."""

    example: str
    slot: Slot | None = None
    options: tuple[Option, ...] = ()
    flags: tuple[Flag, ...] = ()

    def words(self) -> list[str]:
        """Every word that may follow the layer's own."""
        return [option.word for option in self.options] + [flag.word for flag in self.flags]


_STRIDE = Option("stride", "stride", PAIR, "the step of the window", default=(1, 1))
_PAD = Option("pad", "pad", PAD, "zeros around the input", default=NO_PAD)
_KERNEL = Option("k", "kernel", PAIR, "the kernel's size")
_DILATION = Option("dilation", "dilation", PAIR, "the distance of the taps", default=(1, 1))
_GROUPS = Option("groups", "groups", COUNT, "the number of groups", default=1)
_MULTIPLIER = Option(
    "multiplier", "multiplier", COUNT, "kernels for each channel", default=1, apart=True
)
_EPS = Option("eps", "eps", REAL, "what is added to the variance", default=1e-5)
_KERNELS = Slot(("kernels",), COUNT, "number of kernels")
_FEATURES = Slot(("features",), COUNT, "number of features")
_NOBIAS = Flag("nobias", "bias", False)


def _pool(word: str, *flags: Flag) -> Form:
    return Form(
        f"{word} 3 stride2 pad1 ceil",
        Slot(("kernel",), PAIR, "window"),
        (Option("stride", "stride", PAIR, "the step of the window", like="kernel"), _PAD),
        (Flag("ceil", "ceil", True), *flags),
    )


def _adaptive(word: str) -> Form:
    return Form(f"{word} 7", Slot(("size",), PAIR, "size of the output"))


def _noise(word: str) -> Form:
    return Form(f"{word} 0.5", Slot(("rate",), REAL, "rate", required=False))


def _join(word: str) -> Form:
    return Form(f"{word} a b")


FORMS: dict[type[Layer], Form] = {
    Input: Form("input 3x64x64", Slot(("channels", "height", "width"), TRIPLE, "shape")),
    Conv: Form(
        "conv 6 k5 stride2 pad1",
        _KERNELS,
        (_KERNEL, _STRIDE, _PAD, _DILATION, _GROUPS),
        (_NOBIAS,),
    ),
    DepthwiseConv: Form(
        "depthwise k3 stride2 pad1",
        None,
        (
            _KERNEL,
            _MULTIPLIER,
            _STRIDE,
            _PAD,
            _DILATION,
        ),
        (_NOBIAS,),
    ),
    PartialConv: Form(
        "partialconv 0,1,2/1,2,3 k5",
        Slot(("table",), TABLE, "table of maps"),
        (_KERNEL, _STRIDE, _PAD, _DILATION),
        (_NOBIAS,),
    ),
    TransposedConv: Form(
        "convtranspose 16 k4 stride2 pad1",
        _KERNELS,
        (
            _KERNEL,
            _STRIDE,
            Option("pad", "pad", SIDES, "what is cut off the output", default=NO_PAD),
            Option(
                "outputpad", "output_pad", PAIR, "what the output grows at its end", default=(0, 0)
            ),
            _DILATION,
            _GROUPS,
        ),
        (_NOBIAS,),
    ),
    **{kind: _pool(kind.word) for kind in WINDOW_POOLS},
    AvgPool: _pool(AvgPool.word, Flag("unpadded", "unpadded", True)),
    **{kind: _adaptive(kind.word) for kind in ADAPTIVE_POOLS},
    **{kind: Form(kind.word) for kind in GLOBAL_POOLS},
    Flatten: Form("flatten"),
    Linear: Form("linear 120", _FEATURES, (), (_NOBIAS,)),
    RadialBasis: Form("rbf 10", _FEATURES),
    **{kind: Form(kind.word) for kind in ACTIVATIONS},
    LeakyReLU: Form("leakyrelu 0.01", Slot(("slope",), REAL, "slope", required=False)),
    ELU: Form("elu 1.0", Slot(("alpha",), REAL, "alpha", required=False)),
    PReLU: Form("prelu channels", None, (), (Flag("channels", "per_channel", True),)),
    BatchNorm: Form(
        "bn eps 0.001 momentum 0.01",
        None,
        (
            _EPS,
            Option("momentum", "momentum", REAL, "the share of the new batch", default=0.1),
            Option("ghost", "ghost", COUNT, "images that share statistics", default=0, apart=True),
        ),
        (Flag("noaffine", "affine", False),),
    ),
    LayerNorm: Form("layernorm eps 0.000001", None, (_EPS,)),
    GroupNorm: Form("groupnorm 8", Slot(("groups",), COUNT, "number of groups"), (_EPS,)),
    LocalResponseNorm: Form(
        "lrn 5 alpha 0.001 beta 0.5 k 2.0",
        Slot(("size",), COUNT, "number of channels"),
        (
            Option("alpha", "alpha", REAL, "the weight of the sum", default=1e-4),
            Option("beta", "beta", REAL, "the exponent", default=0.75),
            Option("k", "constant", REAL, "what is added to the sum", default=1.0),
        ),
    ),
    ChannelScale: Form("scale 0.000001", Slot(("initial",), REAL, "first value", required=False)),
    ChannelShuffle: Form("shuffle 2", Slot(("groups",), COUNT, "number of groups")),
    ChannelSplit: Form(
        "split 1 of 2",
        Slot(("part",), COUNT, "part"),
        (Option("of", "of", COUNT, "the number of parts", apart=True),),
    ),
    ChannelPad: Form("padchannels 8:8", Slot(("before", "after"), ENDS, "channels before:after")),
    Upsample: Form(
        "upsample 2 bilinear",
        Slot(("scale",), PAIR, "scale"),
        (),
        (Flag("bilinear", "bilinear", True),),
    ),
    **{kind: _noise(kind.word) for kind in NOISES},
    **{kind: _join(kind.word) for kind in JOINS},
}

KIND_OF_WORD: dict[str, type[Layer]] = {kind.word: kind for kind in KINDS}
