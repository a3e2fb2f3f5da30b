"""The layer kinds: frozen dataclasses that hold what the notation says, and nothing computed.

A rule about a layer (its shape, cost, kernels, PyTorch twin …) never lives here: it stands in a
table of the room that needs it, keyed by these classes. `KINDS` lists them all, so that a test can
walk kind × table.

A kind without fields of its own inherits its dataclass methods (equality compares the class too)
instead of generating them again, which would cost more than all the rest of importing this room.

All pairs are (height, width). `Pad` is per side: ((top, bottom), (left, right)), or a rule's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

Pair: TypeAlias = tuple[int, int]
Sides: TypeAlias = tuple[Pair, Pair]
Pad: TypeAlias = Sides | Literal["same", "valid"]

NO_PAD: Sides = ((0, 0), (0, 0))


@dataclass(frozen=True)
class Layer:
    """One step of a network. `word` is its name in the notation."""

    word: ClassVar[str]


@dataclass(frozen=True)
class Input(Layer):
    """The image: channels × height × width."""

    word: ClassVar[str] = "input"
    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class Conv(Layer):
    """`kernels` feature detectors slide over the input; groups split channels and kernels."""

    word: ClassVar[str] = "conv"
    kernels: int
    kernel: Pair
    stride: Pair = (1, 1)
    pad: Pad = NO_PAD
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = True


@dataclass(frozen=True)
class Pool(Layer):
    """Common fields of the windows that turn many values into one (never used itself)."""

    kernel: Pair
    stride: Pair
    pad: Pad = NO_PAD
    ceil: bool = False


class MaxPool(Pool):
    """The largest value of each window; padding never wins."""

    word: ClassVar[str] = "maxpool"


class AvgPool(Pool):
    """The mean of each window; padding counts as zeros (PyTorch's count_include_pad=True)."""

    word: ClassVar[str] = "avgpool"


class SumPool(Pool):
    """The sum of each window."""

    word: ClassVar[str] = "sumpool"


class GlobalMax(Layer):
    """The largest value of each feature map: C×H×W → C×1×1."""

    word: ClassVar[str] = "globalmax"


class GlobalAvg(Layer):
    """The mean of each feature map: C×H×W → C×1×1."""

    word: ClassVar[str] = "globalavg"


class GlobalSum(Layer):
    """The sum of each feature map: C×H×W → C×1×1."""

    word: ClassVar[str] = "globalsum"


class Flatten(Layer):
    """Feature maps → one row of features, in the order C, H, W."""

    word: ClassVar[str] = "flatten"


@dataclass(frozen=True)
class Linear(Layer):
    """Full connection: every output sees every input feature."""

    word: ClassVar[str] = "linear"
    features: int
    bias: bool = True


class ReLU(Layer):
    """max(x, 0)."""

    word: ClassVar[str] = "relu"


@dataclass(frozen=True)
class LeakyReLU(Layer):
    """x where positive, slope · x elsewhere."""

    word: ClassVar[str] = "leakyrelu"
    slope: float = 0.01


class Tanh(Layer):
    """Hyperbolic tangent."""

    word: ClassVar[str] = "tanh"


class Sigmoid(Layer):
    """1 / (1 + exp(−x))."""

    word: ClassVar[str] = "sigmoid"


@dataclass(frozen=True)
class Dropout(Layer):
    """In training each value becomes 0 with probability `rate`, the others are scaled up."""

    word: ClassVar[str] = "dropout"
    rate: float = 0.5


KINDS: tuple[type[Layer], ...] = (
    Input,
    Conv,
    MaxPool,
    AvgPool,
    SumPool,
    GlobalMax,
    GlobalAvg,
    GlobalSum,
    Flatten,
    Linear,
    ReLU,
    LeakyReLU,
    Tanh,
    Sigmoid,
    Dropout,
)
