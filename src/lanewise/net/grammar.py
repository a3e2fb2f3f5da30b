"""How each kind is written: one table that both `parse` and `show` follow.

A layer is a word, then its value (if it has one), then options in any order:

    conv 6 k5 stride 2 pad 1:2x0:1 nobias
    ^word  ^option        ^option   ^flag
         ^value

An option's value may touch its word (`pad2`) or follow it (`pad 2`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lanewise.net.layers import (
    KINDS,
    NO_PAD,
    AvgPool,
    Conv,
    Dropout,
    Flatten,
    GlobalAvg,
    GlobalMax,
    GlobalSum,
    Input,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool,
    ReLU,
    Sigmoid,
    SumPool,
    Tanh,
)
from lanewise.net.values import COUNT, PAD, PAIR, REAL, TRIPLE, Value


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
    `like` of the same layer. Without either it is required."""

    word: str
    field: str
    value: Value
    meaning: str
    default: Any = None
    like: str = ""

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
_NOBIAS = Flag("nobias", "bias", False)


def _pool(word: str) -> Form:
    return Form(
        f"{word} 3 stride2 pad1 ceil",
        Slot(("kernel",), PAIR, "window"),
        (Option("stride", "stride", PAIR, "the step of the window", like="kernel"), _PAD),
        (Flag("ceil", "ceil", True),),
    )


FORMS: dict[type[Layer], Form] = {
    Input: Form("input 3x64x64", Slot(("channels", "height", "width"), TRIPLE, "shape")),
    Conv: Form(
        "conv 6 k5 stride2 pad1",
        Slot(("kernels",), COUNT, "number of kernels"),
        (
            Option("k", "kernel", PAIR, "the kernel's size"),
            _STRIDE,
            _PAD,
            Option("dilation", "dilation", PAIR, "the distance of the taps", default=(1, 1)),
            Option("groups", "groups", COUNT, "the number of groups", default=1),
        ),
        (_NOBIAS,),
    ),
    MaxPool: _pool("maxpool"),
    AvgPool: _pool("avgpool"),
    SumPool: _pool("sumpool"),
    GlobalMax: Form("globalmax"),
    GlobalAvg: Form("globalavg"),
    GlobalSum: Form("globalsum"),
    Flatten: Form("flatten"),
    Linear: Form("linear 120", Slot(("features",), COUNT, "number of features"), (), (_NOBIAS,)),
    ReLU: Form("relu"),
    LeakyReLU: Form("leakyrelu 0.01", Slot(("slope",), REAL, "slope", required=False)),
    Tanh: Form("tanh"),
    Sigmoid: Form("sigmoid"),
    Dropout: Form("dropout 0.5", Slot(("rate",), REAL, "rate", required=False)),
}

KIND_OF_WORD: dict[str, type[Layer]] = {kind.word: kind for kind in KINDS}

# What other programs and books call our words; used only to suggest ours.
ELSEWHERE: dict[str, str] = {
    "activation": "relu",
    "adaptiveavgpool": "globalavg",
    "averagepool": "avgpool",
    "bias": "nobias",
    "conv2d": "conv",
    "convolution": "conv",
    "dense": "linear",
    "drop": "dropout",
    "fc": "linear",
    "filters": "conv",
    "fullyconnected": "linear",
    "gap": "globalavg",
    "globalaveragepool": "globalavg",
    "globalmaxpool": "globalmax",
    "image": "input",
    "kernel": "k",
    "kernel_size": "k",
    "lrelu": "leakyrelu",
    "maxpooling": "maxpool",
    "mp": "maxpool",
    "padding": "pad",
    "pool": "maxpool",
    "reshape": "flatten",
    "s": "stride",
    "strides": "stride",
    "view": "flatten",
}
